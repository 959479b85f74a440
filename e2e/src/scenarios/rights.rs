//! None of the chart's rights is superfluous: each rule is taken away in turn, and something fails for it. Alone, and long: the operator is started anew for
//! each. It is run by name alone, when the chart's rules change.
//!
//! # Flow
//! No operator → the Lease, the keys and one rule are taken away → an operator, and an app that lives through all that it does, an adoption among it → the
//! operator's log or the app's conditions have the API server's word that it may not, on a resource of that rule, or nobody is told by Events → the rule is given
//! back. (`operator/src/api_faults/rights.rs` compares the same with what the operator asks for, without a cluster.)

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use graceful_api::GracefulApp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::adoption::adopting;
use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, charts, plain};

/// The chart's name for both roles and for the Lease.
const CHART: &str = "graceful-operator";

/// How long one part of the app's life may wait for what will never come. A denial is met within a second or two of the part that needs it.
const PART: Duration = Duration::from_secs(30);

/// One rule of one of the two roles.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Cluster(usize),
    Own(usize),
}

pub(super) async fn each_right_is_needed(scene: &Scene) -> anyhow::Result<()> {
    let (cluster, own) = (cluster(scene).get(CHART).await?, own(scene).get(CHART).await?);
    let result = each(scene, &cluster, &own).await;
    // Whatever came of it, the other tests need all of them.
    given_back(scene, &cluster, &own).await?;
    scene.step("and the operators are back", charts::scale(&scene.world, charts::REPLICAS)).await?;
    result
}

async fn each(scene: &Scene, cluster: &ClusterRole, own: &Role) -> anyhow::Result<()> {
    let of_cluster = cluster.rules.iter().flatten().enumerate().map(|(n, rule)| (Rule::Cluster(n), rule));
    let of_own = own.rules.iter().flatten().enumerate().map(|(n, rule)| (Rule::Own(n), rule));
    let (mut superfluous, mut tried) = (Vec::new(), 0);
    for (which, rule) in of_cluster.chain(of_own) {
        let words = words(rule);
        let denied =
            scene.step(format!("when it may not {words}"), without(scene, cluster, own, which, rule));
        match denied.await? {
            Some(line) => scene.say(&format!("rights: without {words}: {line}")),
            None => superfluous.push(words),
        }
        tried += 1;
    }
    scene.say(&format!("rights: rules={tried} superfluous={}", superfluous.len()));
    ensure!(superfluous.is_empty(), "nothing fails without: {}", superfluous.join("; "));
    Ok(())
}

/// What the operator says that it may not do; none where an app lives its whole life without.
async fn without(
    scene: &Scene,
    cluster: &ClusterRole,
    own: &Role,
    which: Rule,
    rule: &PolicyRule,
) -> anyhow::Result<Option<String>> {
    charts::scale(&scene.world, 0).await?;
    anew(scene).await?;
    taken_away(scene, cluster, own, which).await?;
    // Not waited for: without some rules it never becomes ready.
    scene.world.kubectl(&["-n", charts::NAMESPACE, "scale", charts::OPERATOR, "--replicas=1"]).await?;
    let denied = lives_through_all(scene, rule).await;
    given_back(scene, cluster, own).await?;
    charts::scale(&scene.world, 0).await?;
    charts::scale(&scene.world, 1).await?;
    scene.observer.expect(None);
    scene.api::<GracefulApp>().delete(NAME, &DeleteParams::default()).await.map(drop).or_else(absent)?;
    eventually("the app is gone", ROLLS, || gone(scene)).await?;
    plain_removed(scene).await?;
    denied
}

/// What was adopted is the user's again, and in the way of the next life.
async fn plain_removed(scene: &Scene) -> anyhow::Result<()> {
    let (deployments, services) = (scene.api::<Deployment>(), scene.api::<Service>());
    // In the foreground: it is there for as long as a pod of it is.
    deployments.delete(NAME, &DeleteParams::foreground()).await.map(drop).or_else(absent)?;
    services.delete(NAME, &DeleteParams::default()).await.map(drop).or_else(absent)?;
    eventually("the plain Deployment is gone", ROLLS, || async {
        ensure!(deployments.get_opt(NAME).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}

/// An app with all that the operator makes for one, through a rollout and to its end; each part ends at the first denial.
async fn lives_through_all(scene: &Scene, rule: &PolicyRule) -> anyhow::Result<Option<String>> {
    let service = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    let spec = AppSpec::tasks(&scene.world).replicas(2).set("/service", service);
    scene.apply(spec.clone()).await?;
    if let Some(line) = denied_until(scene, rule, || scene.settled()).await? {
        return Ok(Some(line));
    }
    // And with a gate, for what is looked at around one.
    let drain = json!({"lingerSeconds": 2, "deadlineSeconds": 60});
    scene.apply(spec.env("MARK", "again").set("/gate", json!({"port": "http"})).set("/drain", drain)).await?;
    if let Some(line) = denied_until(scene, rule, || scene.settled()).await? {
        return Ok(Some(line));
    }
    scene.observer.expect(None);
    scene.api::<GracefulApp>().delete(NAME, &DeleteParams::default()).await?;
    if let Some(line) = denied_until(scene, rule, || gone(scene)).await? {
        return Ok(Some(line));
    }
    // Once more, in from a plain Deployment.
    plain::deploy(scene, &AppSpec::tasks(&scene.world).replicas(2), plain::CAREFUL).await?;
    scene.apply(adopting(scene)).await?;
    if let Some(line) = denied_until(scene, rule, || adopted(scene)).await? {
        return Ok(Some(line));
    }
    scene.observer.expect(None);
    scene.api::<GracefulApp>().delete(NAME, &DeleteParams::default()).await?;
    if let Some(line) = denied_until(scene, rule, || gone(scene)).await? {
        return Ok(Some(line));
    }
    if let Some(line) = denied(scene, rule).await? {
        return Ok(Some(line));
    }
    // Drains do not wait for Events, and a log is not full of those that could not be written: what fails is that there are none.
    if !rule.resources.iter().flatten().any(|r| r == "events") {
        return Ok(None);
    }
    let events = scene.api::<Event>().list(&ListParams::default()).await?.items;
    let tells = |e: &Event| e.regarding.as_ref().is_some_and(|r| r.kind.as_deref() == Some("GracefulApp"));
    Ok((!events.iter().any(tells)).then(|| "no Event tells of the app".to_owned()))
}

/// The first denial, while this has not come.
async fn denied_until<F>(
    scene: &Scene,
    rule: &PolicyRule,
    mut come: impl FnMut() -> F,
) -> anyhow::Result<Option<String>>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let begun = Instant::now();
    while begun.elapsed() < PART {
        if let Some(line) = denied(scene, rule).await? {
            return Ok(Some(line));
        }
        if come().await.is_ok() {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(None)
}

/// The template's pods serve, and the Deployment's are gone.
async fn adopted(scene: &Scene) -> anyhow::Result<()> {
    scene.settled().await?;
    let left = scene.api::<Deployment>().get(NAME).await?;
    ensure!(left.spec.replicas == Some(0), "the Deployment is at {:?}", left.spec.replicas);
    Ok(())
}

/// The API server's word, in the operator's log or, where an app waits for what it may not do, in its conditions: `User "…" cannot patch resource "pods" in API
/// group "" …`.
async fn denied(scene: &Scene, rule: &PolicyRule) -> anyhow::Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), charts::NAMESPACE);
    let list = pods.list(&ListParams::default().labels(charts::OPERATOR_PODS)).await?;
    for pod in list.items {
        // Not started yet.
        let Ok(log) = pods.logs(&pod.name_any(), &LogParams::default()).await else { continue };
        if let Some(line) = log.lines().find(|line| is_denial(line, rule)) {
            return Ok(Some(line.chars().take(300).collect()));
        }
    }
    let app = scene.api::<GracefulApp>().get_opt(NAME).await?;
    let conditions = app.and_then(|app| app.status).map(|status| status.conditions).unwrap_or_default();
    let told = conditions.iter().map(|c| c.message.as_str()).find(|message| is_denial(message, rule));
    Ok(told.map(|message| message.chars().take(300).collect()))
}

/// It says that something may not be done to what this rule is about.
fn is_denial(line: &str, rule: &PolicyRule) -> bool {
    let mut resources = rule.resources.iter().flatten();
    line.contains("forbidden")
        && resources.any(|r| {
            line.contains(&format!("resource \"{r}\"")) || line.contains(&format!("resource \\\"{r}\\\""))
        })
}

/// As on the first day: the Lease is to be made, and the keys.
async fn anew(scene: &Scene) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), charts::NAMESPACE);
    leases.delete(CHART, &DeleteParams::default()).await.map(drop).or_else(absent)?;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), charts::NAMESPACE);
    let emptied = Patch::Merge(json!({"data": null}));
    secrets.patch(&format!("{CHART}-drain-keys"), &PatchParams::default(), &emptied).await?;
    // Of the life before.
    scene.api::<Event>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    Ok(())
}

async fn taken_away(scene: &Scene, all: &ClusterRole, own_all: &Role, which: Rule) -> anyhow::Result<()> {
    match which {
        Rule::Cluster(n) => {
            let mut role = cluster(scene).get(CHART).await?;
            role.rules = all.rules.clone();
            role.rules.as_mut().context("no rules")?.remove(n);
            cluster(scene).replace(CHART, &PostParams::default(), &role).await?;
        }
        Rule::Own(n) => {
            let mut role = own(scene).get(CHART).await?;
            role.rules = own_all.rules.clone();
            role.rules.as_mut().context("no rules")?.remove(n);
            own(scene).replace(CHART, &PostParams::default(), &role).await?;
        }
    }
    Ok(())
}

async fn given_back(scene: &Scene, all: &ClusterRole, own_all: &Role) -> anyhow::Result<()> {
    let mut role = cluster(scene).get(CHART).await?;
    role.rules.clone_from(&all.rules);
    cluster(scene).replace(CHART, &PostParams::default(), &role).await?;
    let mut role = own(scene).get(CHART).await?;
    role.rules.clone_from(&own_all.rules);
    own(scene).replace(CHART, &PostParams::default(), &role).await?;
    Ok(())
}

async fn gone(scene: &Scene) -> anyhow::Result<()> {
    let app = scene.api::<GracefulApp>().get_opt(NAME).await?;
    ensure!(app.is_none(), "it is still there");
    ensure!(scene.pods().await?.is_empty(), "some of its pods are still there");
    Ok(())
}

fn absent(error: kube::Error) -> kube::Result<()> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        other => Err(other),
    }
}

fn words(rule: &PolicyRule) -> String {
    let resources = rule.resources.as_deref().unwrap_or_default().join(", ");
    format!("{} {resources}", rule.verbs.join(", "))
}

fn cluster(scene: &Scene) -> Api<ClusterRole> {
    Api::all(scene.client.clone())
}

fn own(scene: &Scene) -> Api<Role> {
    Api::namespaced(scene.client.clone(), charts::NAMESPACE)
}
