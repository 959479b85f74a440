//! Others who write the children: refused while they are guarded, in words that help, and free once our label is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_api::names;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS, charts, load};

/// A ReplicaSet that was scaled or deleted would have ended pods within a second.
const WOULD_SHOW: Duration = Duration::from_secs(5);

/// P1: under load, with tasks that the grace period would cut: every way to end the pods of a child is refused, and none ends.
pub(super) async fn children_are_guarded(scene: &Scene) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).task_seconds("8-12")).await?;
    given.load(load::usual()).await?;
    let before = uids(scene).await?;
    let (deployment, replica_set) = children(scene).await?;
    let (deployment, replica_set) = (format!("deployment/{deployment}"), format!("replicaset/{replica_set}"));
    let ns = &scene.namespace;
    let scale = format!("kubectl scale gracefulapp -n {ns} {NAME} --replicas=N");
    let delete = format!("kubectl delete gracefulapp -n {ns} {NAME}");
    let restart = format!("kubectl patch gracefulapp -n {ns} {NAME} --type merge");
    let none = r#"{"spec":{"replicas":0}}"#;
    for (command, said) in [
        (vec!["scale", &deployment, "--replicas=0"], &scale),
        (vec!["patch", &deployment, "-p", none], &scale),
        (vec!["delete", &deployment, "--wait=false"], &delete),
        (vec!["rollout", "restart", &deployment], &restart),
        (vec!["scale", &replica_set, "--replicas=0"], &scale),
        (vec!["patch", &replica_set, "-p", none], &scale),
        (vec!["delete", &replica_set, "--wait=false"], &restart),
    ] {
        refused(scene, &command, said).await?;
    }
    then.holds("nothing drains", WOULD_SHOW, |status| status.draining_replicas == 0).await?;
    let now = uids(scene).await?;
    ensure!(before == now, "the pods were {before:?} and are {now:?}");
    // The way out for a whole namespace, which no Deployment need be touched for. Only tried.
    let dry = ["scale", &deployment, "--replicas=0", "--dry-run=server"];
    let namespace = |label: &'static str| ["label", "namespace", ns, label];
    scene.world.kubectl(&namespace("graceful.dev/unguarded=")).await?;
    eventually("the namespace is unguarded", STARTS, || accepted(scene, &dry)).await?;
    scene.world.kubectl(&namespace("graceful.dev/unguarded-")).await?;
    eventually("the namespace is guarded again", STARTS, || refused(scene, &dry, &scale)).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// A day without an operator: the label off, a child is an ordinary Deployment; the label on, the operator goes on with it.
pub(super) async fn guarded_until_the_label_is_gone(scene: &Scene) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    // Short enough that a pod ends them by itself, within its grace period.
    given.app(AppSpec::tasks(&scene.world).task_seconds("1-3").grace(20)).await?;
    given.load(load::usual()).await?;
    let (deployment, _) = children(scene).await?;
    let off = format!("{}-", names::APP_LABEL);
    let on = format!("{}={NAME}", names::APP_LABEL);
    scene.step("when the operator is at 0 replicas", charts::scale(&scene.world, 0)).await?;
    let away = without_the_label(scene, &deployment, &off, &on).await;
    // Whatever came of it, the other tests need it back.
    scene.step("when the operator is back", charts::scale(&scene.world, 1)).await?;
    away?;
    then.rolled_out().await?;
    // And the same while it watches: it leaves alone what is not its own any more.
    let before = uids(scene).await?;
    accepted(scene, &["label", "deployment", &deployment, &off]).await?;
    tokio::time::sleep(WOULD_SHOW).await;
    let now = uids(scene).await?;
    ensure!(before == now, "the pods were {before:?} and are {now:?}");
    accepted(scene, &["label", "deployment", &deployment, &on]).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

async fn without_the_label(scene: &Scene, deployment: &str, off: &str, on: &str) -> anyhow::Result<()> {
    let (.., then) = scene.steps();
    let fewer = ["patch", "deployment", deployment, "-p", r#"{"spec":{"replicas":2}}"#];
    refused(scene, &fewer, &format!("kubectl label deployment -n {} {deployment} {off}", scene.namespace))
        .await?;
    accepted(scene, &["label", "deployment", deployment, off]).await?;
    for pod in scene.pods().await? {
        scene.observer.deletes(&pod.name_any());
    }
    accepted(scene, &fewer).await?;
    then.pods("a pod has drained itself and is gone", STARTS, |pods| {
        ensure!(pods.len() == 2, "{} pods", pods.len());
        Ok(())
    })
    .await?;
    accepted(scene, &["label", "deployment", deployment, on]).await
}

/// An app that was let go of by `--cascade=orphan`: its children run on, still guarded, and go by way of the label.
pub(super) async fn orphans_are_guarded_too(scene: &Scene) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2).task_seconds("1-3").grace(20)).await?;
    given.load(load::usual()).await?;
    let (deployment, _) = children(scene).await?;
    let before = uids(scene).await?;
    scene.observer.expect(None);
    accepted(scene, &["delete", "gracefulapp", NAME, "--cascade=orphan", "--timeout=60s"]).await?;
    tokio::time::sleep(WOULD_SHOW).await;
    let now = uids(scene).await?;
    ensure!(before == now, "the pods were {before:?} and are {now:?}");
    let way_out =
        format!("kubectl label deployment -n {} {deployment} {}-", scene.namespace, names::APP_LABEL);
    let delete = ["delete", "deployment", &deployment, "--timeout=60s"];
    refused(scene, &delete, &way_out).await?;
    accepted(scene, &["label", "deployment", &deployment, &format!("{}-", names::APP_LABEL)]).await?;
    for pod in scene.pods().await? {
        scene.observer.deletes(&pod.name_any());
    }
    accepted(scene, &delete).await?;
    then.pods("all pods have drained themselves and are gone", ROLLS, |pods| {
        ensure!(pods.is_empty(), "{} pods", pods.len());
        Ok(())
    })
    .await?;
    then.nothing_lost_but_requests().await?;
    Ok(())
}

/// The names of the app's only Deployment and its ReplicaSet.
async fn children(scene: &Scene) -> anyhow::Result<(String, String)> {
    let ours = ListParams::default().labels(&names::app_selector(NAME));
    let look = || async {
        let deployments = scene.api::<Deployment>().list(&ours).await?.items;
        let sets = scene.api::<ReplicaSet>().list(&ours).await?.items;
        let name = |name: Option<String>| name.context("no child");
        Ok((
            name(deployments.first().map(ResourceExt::name_any))?,
            name(sets.first().map(ResourceExt::name_any))?,
        ))
    };
    eventually("the children are there", STARTS, look).await
}

async fn refused(scene: &Scene, command: &[&str], said: &str) -> anyhow::Result<()> {
    let place = ["-n", &scene.namespace];
    scene
        .step(format!("then kubectl {} is refused", command.join(" ")), async {
            match scene.world.kubectl(&[command, &place].concat()).await {
                Ok(_) => anyhow::bail!("it passes"),
                Err(error) => {
                    let error = format!("{error:#}");
                    ensure!(error.contains("denied request"), "it fails otherwise: {error}");
                    ensure!(error.contains(said), "it does not say {said:?}: {error}");
                    Ok(())
                }
            }
        })
        .await
}

async fn accepted(scene: &Scene, command: &[&str]) -> anyhow::Result<()> {
    let place = ["-n", &scene.namespace];
    scene
        .step(format!("when kubectl {}", command.join(" ")), async {
            scene.world.kubectl(&[command, &place].concat()).await.map(drop)
        })
        .await
}

async fn uids(scene: &Scene) -> anyhow::Result<BTreeSet<String>> {
    Ok(scene.pods().await?.iter().filter_map(ResourceExt::uid).collect())
}
