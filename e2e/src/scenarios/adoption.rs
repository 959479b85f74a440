//! In from a plain Deployment, and out again, under load: no client is refused, no task lost, and no pod restarted but by a rollout.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use graceful_api::{GracefulApp, names};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::json;

use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS, load, plain};
use crate::wire::LoadSpec;

/// P1, P3: a plain Deployment's pods are drained one by one and replaced by the app's own; its Service goes on, and then the app rolls out as any other.
pub(super) async fn adopt_under_load(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let first = plain_under_load(scene).await?;
    scene.step("when a GracefulApp adopts it", scene.apply(adopting(scene))).await?;
    then.status("a pod of the Deployment drains while a new one serves", ROLLS, |s| {
        s.draining_replicas > 0 && s.updated_replicas > 0
    })
    .await?;
    let drained = condition(scene, "Drained").await?;
    ensure!(drained.0 == "False", "Drained is {drained:?} while pods of the Deployment are left");
    then.rolled_out().await?;
    let lives = scene.observer.pods();
    for (uid, name) in &first {
        let life = lives.get(uid).with_context(|| format!("pod {name} was never labelled"))?;
        ensure!(
            life.served && life.reason.as_deref() == Some("Rollout"),
            "pod {name} did not drain: {life:?}"
        );
    }
    no_container_was_restarted(scene).await?;
    let left = scene.api::<Deployment>().get(NAME).await?;
    let spec = &left.spec;
    ensure!(
        spec.replicas == Some(0) && spec.paused == Some(true),
        "it is {:?}, paused {:?}",
        spec.replicas,
        spec.paused
    );
    let kept = left.annotations().get(names::ARGO_SYNC_OPTIONS).map(String::as_str);
    ensure!(kept == Some(names::ARGO_KEEP), "Argo CD is told {kept:?}");
    let drained = condition(scene, "Drained").await?;
    ensure!(drained.0 == "True", "Drained is {drained:?}");
    // From here on it is an app as any other, with clients that keep their connections.
    given.load(LoadSpec { sockets: 4, ..load::usual() }).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1: the way back. Leaving while a pod of the adopted Deployment serves gives that back as it was, with its Service.
pub(super) async fn adoption_called_off_under_load(scene: &Scene) -> anyhow::Result<()> {
    let (_, _, then) = scene.steps();
    plain_under_load(scene).await?;
    let before = scene.api::<Deployment>().get(NAME).await?;
    scene.step("when a GracefulApp adopts it", scene.apply(adopting(scene))).await?;
    then.status("a pod of the Deployment drains while a new one serves", ROLLS, |s| {
        s.draining_replicas > 0 && s.updated_replicas > 0
    })
    .await?;
    leave(scene).await?;
    let back = scene.api::<Deployment>().get(NAME).await?;
    ensure!(
        back.spec.template == before.spec.template && back.spec.replicas == before.spec.replicas,
        "{:?}",
        back.spec
    );
    ensure!(back.spec.paused != Some(true), "it is still paused");
    ensure!(
        marks_of_ours(&back.metadata.labels, &back.metadata.annotations).is_empty(),
        "{:?}",
        back.metadata
    );
    let service = scene.api::<Service>().get(NAME).await?;
    let selector = service.spec.and_then(|s| s.selector).unwrap_or_default();
    ensure!(
        selector == BTreeMap::from([("app".to_owned(), NAME.to_owned())]),
        "its Service selects {selector:?}"
    );
    let others = scene.api::<Deployment>().list(&ListParams::default()).await?;
    ensure!(others.items.len() == 1, "{} Deployments are left", others.items.len());
    // A plain Deployment again, whose new pods nobody has to label.
    scaled_natively(scene, NAME, 4).await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1: deleting it in the middle of an adoption drains all, and gives the user's Service back; its pods, which end slowly, are sent nobody by then.
pub(super) async fn adoption_deleted_under_load(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    // A pod that was found idle accepts in its hook's sleep, and what it accepts then is longer than the rest of its grace.
    let spec = AppSpec::tasks(&scene.world).task_seconds("8-12");
    plain::deploy(scene, &spec, plain::Care { grace: 25, pre_stop_sleep: Some(20) }).await?;
    given.load(LoadSpec { sockets: 0, fresh: true, ..load::usual() }).await?;
    scene.step("when a GracefulApp adopts it", scene.apply(adopting(scene).task_seconds("8-12"))).await?;
    then.status("a pod of the Deployment drains", ROLLS, |s| s.draining_replicas > 0).await?;
    when.deleted(PropagationPolicy::Background).await?;
    scene
        .step("then the app is gone, and the Deployment has no pods", async {
            eventually("gone", ROLLS, || async {
                let app = scene.api::<GracefulApp>().get_opt(NAME).await?;
                let waiting_for = app.and_then(|app| app.status).map(|status| status.waiting_for);
                ensure!(waiting_for.is_none(), "it is there, waiting for {waiting_for:?}");
                let pods =
                    scene.api::<Pod>().list(&ListParams::default().labels(&format!("app={NAME}"))).await?;
                ensure!(pods.items.is_empty(), "{} pods are left", pods.items.len());
                Ok(())
            })
            .await?;
            let left = scene.api::<Deployment>().get(NAME).await?;
            ensure!(left.spec.replicas == Some(0), "it has {:?} replicas", left.spec.replicas);
            let selector = scene.api::<Service>().get(NAME).await?.spec.and_then(|s| s.selector);
            ensure!(
                selector == Some(BTreeMap::from([("app".to_owned(), NAME.to_owned())])),
                "its Service selects {selector:?}"
            );
            Ok(())
        })
        .await?;
    then.nothing_lost_but_requests().await?;
    Ok(())
}

/// P1: leaving in the middle of a rollout waits for its end, and then lets go: what serves goes on as it is.
pub(super) async fn leave_under_load(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.status("an old pod drains and a new one serves", ROLLS, |s| {
        s.draining_replicas > 0 && s.updated_replicas > 0
    })
    .await?;
    leave(scene).await?;
    let left = scene.api::<Deployment>().list(&ListParams::default()).await?;
    let [one] = left.items.as_slice() else { anyhow::bail!("{} Deployments are left", left.items.len()) };
    ensure!(marks_of_ours(&one.metadata.labels, &one.metadata.annotations).is_empty(), "{:?}", one.metadata);
    let service = scene.api::<Service>().get(NAME).await?;
    ensure!(
        marks_of_ours(&service.metadata.labels, &service.metadata.annotations).is_empty(),
        "{:?}",
        service.metadata
    );
    let stayed = uids(scene).await?;
    no_container_was_restarted(scene).await?;
    scaled_natively(scene, &one.name_any(), 3).await?;
    let now = uids(scene).await?;
    ensure!(
        now.keys().collect::<BTreeSet<_>>().is_superset(&stayed.keys().collect()),
        "a pod was replaced by leaving"
    );
    then.nothing_lost().await?;
    Ok(())
}

/// A Deployment and a Service as any user's, whose pods nobody told of Graceful, and clients. Its pods by uid.
async fn plain_under_load(scene: &Scene) -> anyhow::Result<BTreeMap<String, String>> {
    let (given, ..) = scene.steps();
    plain::deploy(scene, &AppSpec::tasks(&scene.world), plain::CAREFUL).await?;
    // Nobody closes the door of its pods: a client that keeps its connection would go on sending to one that drains.
    given.load(LoadSpec { sockets: 0, fresh: true, ..load::usual() }).await?;
    let pods = scene.api::<Pod>().list(&ListParams::default().labels(&format!("app={NAME}"))).await?;
    Ok(pods.items.iter().map(|pod| (pod.uid().unwrap_or_default(), pod.name_any())).collect())
}

/// The same pods as an app, which keeps the user's Service and has none of its own.
pub(super) fn adopting(scene: &Scene) -> AppSpec {
    let AppSpec(mut spec) = AppSpec::tasks(&scene.world);
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("service");
    }
    spec["adopt"] = json!({
        "deployment": NAME,
        "inFlight": {"port": "admin", "path": "/metrics", "format": "Prometheus", "metrics": ["graceful_server_in_flight"]},
        "drain": {"lingerSeconds": 2, "quietSeconds": 3, "deadlineSeconds": 60},
    });
    AppSpec(spec)
}

async fn leave(scene: &Scene) -> anyhow::Result<()> {
    scene
        .step("when the app is deleted and leaves what serves", async {
            scene.observer.expect(None);
            let apps = scene.api::<GracefulApp>();
            let annotation = json!({"metadata": {"annotations": {(names::LEAVE): "true"}}});
            apps.patch(NAME, &PatchParams::default(), &Patch::Merge(annotation)).await?;
            apps.delete(NAME, &DeleteParams::default()).await?;
            eventually("the app is gone", ROLLS, || async {
                let app = apps.get_opt(NAME).await?;
                let waiting_for = app.and_then(|app| app.status).map(|status| status.waiting_for);
                ensure!(waiting_for.is_none(), "it is there, waiting for {waiting_for:?}");
                Ok(())
            })
            .await
        })
        .await
}

/// As anybody does with a plain Deployment; each of its pods is Ready then, and a Service sends clients to it. (By the Deployment itself: of one that was the app's
/// own, the chart's guard takes a Scale for the app's still.)
async fn scaled_natively(scene: &Scene, deployment: &str, replicas: usize) -> anyhow::Result<()> {
    scene
        .step(format!("when Deployment {deployment} is scaled to {replicas}"), async {
            let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            scene.api::<Deployment>().patch(deployment, &PatchParams::default(), &patch).await?;
            eventually("its Service sends clients to all of its pods", STARTS, || async {
                let service = scene.api::<Service>().get(NAME).await?;
                let selector = service.spec.and_then(|s| s.selector).unwrap_or_default();
                let selector: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let pods =
                    scene.api::<Pod>().list(&ListParams::default().labels(&selector.join(","))).await?;
                let ready = pods.items.iter().filter(|pod| is_ready(pod)).count();
                ensure!(ready == replicas, "{ready} of {replicas}");
                Ok(())
            })
            .await
        })
        .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn uids(scene: &Scene) -> anyhow::Result<BTreeMap<String, String>> {
    Ok(scene.pods().await?.iter().map(|pod| (pod.uid().unwrap_or_default(), pod.name_any())).collect())
}

async fn no_container_was_restarted(scene: &Scene) -> anyhow::Result<()> {
    for pod in scene.pods().await? {
        for container in pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()) {
            ensure!(
                container.restart_count == 0,
                "{}: container {} was restarted",
                pod.name_any(),
                container.name
            );
        }
    }
    Ok(())
}

/// Status and message.
async fn condition(scene: &Scene, kind: &str) -> anyhow::Result<(String, String)> {
    let status = scene.app().await?.status.context("no status")?;
    let found = status.conditions.into_iter().find(|c| c.type_ == kind);
    found.map(|c| (c.status, c.message)).with_context(|| format!("no condition {kind}"))
}

/// Labels and annotations of graceful.dev that say whose an object is.
fn marks_of_ours(
    labels: &Option<BTreeMap<String, String>>,
    annotations: &Option<BTreeMap<String, String>>,
) -> Vec<String> {
    let all = labels.iter().chain(annotations).flat_map(|map| map.keys());
    all.filter(|key| key.starts_with("graceful.dev/")).cloned().collect()
}
