//! Nodes that go. These run alone: a cordon concerns the pods of all tests.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use graceful_api::{DrainReason, GracefulAppStatus, Phase, names};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};

use crate::harness::app::AppSpec;
use crate::harness::charts;
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, load};

/// P1, P3: `kubectl drain` of a node with busy pods of two apps, one of them in mid-rollout: it ends by itself, and nothing is lost.
pub(super) async fn node_drained(scene: &Scene) -> anyhow::Result<()> {
    let node = node(scene).await?;
    let other =
        Scene::in_namespace(&scene.world, "node_drained_other", format!("{}-2", scene.namespace)).await?;
    let result = both_drained(scene, &other, &node).await;
    returned(scene, &node, result.and(other.remove_namespace().await)).await
}

async fn both_drained(scene: &Scene, other: &Scene, node: &str) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(4)).await?;
    given.load(load::usual()).await?;
    let (given, _, other_then) = other.steps();
    let without_surge = AppSpec::tasks(&scene.world).rollout("maxSurge", 0).rollout("maxUnavailable", 1);
    given.app(without_surge).await?;
    given.load(load::usual()).await?;
    when.template_changes("as the node is drained").await?;
    then.status("an old pod drains", ROLLS, |s| s.draining_replicas > 0).await?;
    let there = pods_on(scene, node).await? + pods_on(other, node).await?;
    ensure!(there > 0, "no pod of either app is on {node}");
    let took = kubectl_drain(scene, node).await?;
    scene.say(&format!("node_drained: {there} pods, kubectl_drain_seconds={:.1}", took.as_secs_f64()));
    for one in [scene, other] {
        let left = pods_on(one, node).await?;
        ensure!(left == 0, "{left} pods of {} are left on {node}", one.namespace);
    }
    then.rolled_out().await?;
    other_then.rolled_out().await?;
    then.nothing_lost().await?;
    other_then.nothing_lost().await?;
    other.check_promises().await
}

/// P6: a node that is uncordoned half-way keeps its pods: those that drain go back to work, and what was made in their place goes.
pub(super) async fn node_uncordoned_half_way(scene: &Scene) -> anyhow::Result<()> {
    let node = node(scene).await?;
    let result = called_off(scene, &node).await;
    returned(scene, &node, result).await
}

async fn called_off(scene: &Scene, node: &str) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).task_seconds("15-20")).await?;
    given.load(load::usual()).await?;
    let before = pods_on(scene, node).await?;
    scene.step(format!("when {node} is cordoned"), scene.world.kubectl(&["cordon", node])).await?;
    then.status("a pod drains for the node", ROLLS, |s| {
        s.draining.iter().any(|pod| pod.reason == DrainReason::NodeDrain)
    })
    .await?;
    scene.step(format!("when {node} is uncordoned"), scene.world.kubectl(&["uncordon", node])).await?;
    then.status("no pod drains for it any more", Duration::from_secs(10), |s| {
        s.draining.iter().all(|pod| pod.reason != DrainReason::NodeDrain)
    })
    .await?;
    let after = pods_on(scene, node).await?;
    ensure!(after >= before, "{before} pods were on {node}, and {after} are");
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P4, P8: a node that is kept is left alone, and it is said. While no operator runs an eviction waits, and goes on when one is back.
pub(super) async fn node_kept_then_drained_by_an_operator_that_was_away(scene: &Scene) -> anyhow::Result<()> {
    let node = node(scene).await?;
    let result = kept_then_drained(scene, &node).await;
    let back = charts::scale(&scene.world, charts::REPLICAS).await;
    let keep = format!("{}-", names::KEEP);
    let annotated = scene.world.kubectl(&["annotate", "node", &node, &keep]).await.map(drop);
    returned(scene, &node, result.and(back).and(annotated)).await
}

async fn kept_then_drained(scene: &Scene, node: &str) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    let before = pods_on(scene, node).await?;
    let keep = format!("{}=true", names::KEEP);
    let world = &scene.world;
    scene
        .step(format!("when {node} is to be kept"), world.kubectl(&["annotate", "node", node, &keep]))
        .await?;
    scene.step(format!("when {node} is cordoned all the same"), world.kubectl(&["cordon", node])).await?;
    then.status("it says that the node is kept", SAID, |s| warns(s, "graceful.dev/keep")).await?;
    let drains = scene.app().await?.status.is_some_and(|s| s.draining_replicas > 0);
    ensure!(!drains && pods_on(scene, node).await? == before, "a pod left a node that is kept");
    scene.step("when the operator is at 0 replicas", charts::scale(world, 0)).await?;
    let keep = format!("{}-", names::KEEP);
    scene
        .step(format!("when {node} is kept no more"), world.kubectl(&["annotate", "node", node, &keep]))
        .await?;
    let drain = kubectl_drain(scene, node);
    tokio::pin!(drain);
    tokio::select! {
        ended = &mut drain => anyhow::bail!("kubectl drain did not wait for the operator: {ended:?}"),
        () = tokio::time::sleep(AWAY) => {}
    }
    ensure!(pods_on(scene, node).await? == before, "a pod was evicted while no operator was there");
    scene.step("when the operator is back", charts::scale(world, charts::REPLICAS)).await?;
    let took = drain.await?;
    scene.say(&format!(
        "kubectl_drain_seconds={:.1}, the operator away for {AWAY:?} of it",
        took.as_secs_f64()
    ));
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P3, P8: a spot instance that is taken back: its pods take no new clients from then on, budget or not, and finish what they have.
pub(super) async fn node_that_dies_soon(scene: &Scene) -> anyhow::Result<()> {
    let node = node(scene).await?;
    let result = dies_soon(scene, &node).await;
    let taint = format!("{SPOT}-");
    let untainted = scene.world.kubectl(&["taint", "node", &node, &taint]).await.map(drop);
    returned(scene, &node, result.and(untainted)).await
}

async fn dies_soon(scene: &Scene, node: &str) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(4)).await?;
    given.load(load::usual()).await?;
    let there = pods_on(scene, node).await?;
    ensure!(there > 1, "{there} pods are on {node}: one would prove nothing about the budget");
    // The exception to P3.
    scene.observer.expect(None);
    let taint = format!("{SPOT}=soon:NoSchedule");
    scene
        .step(
            format!("when {node} gets a spot notice"),
            scene.world.kubectl(&["taint", "node", node, &taint]),
        )
        .await?;
    let noticed = Instant::now();
    then.pods("all its pods are out of service", SAID, |pods| {
        let serving = pods.iter().filter(|p| is_on(p, node) && p.labels().contains_key(names::SERVING_LABEL));
        ensure!(serving.count() == 0, "some still serve");
        Ok(())
    })
    .await?;
    scene.say(&format!("{there} pods were out of service after {} ms", noticed.elapsed().as_millis()));
    then.status("it says that the node dies", SAID, |s| warns(s, "about to be shut down")).await?;
    scene
        .step(
            "then an Event says so",
            eventually("a Warning that it dies", SAID, || told_that_it_dies(scene)),
        )
        .await?;
    then.status("all serve elsewhere", ROLLS, |s| s.phase == Some(Phase::Serving) && s.serving_replicas == 4)
        .await?;
    let left = pods_on(scene, node).await?;
    ensure!(left == 0, "{left} pods are left on {node}");
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// For who looks once the condition is gone. Beside another warning (the template's grace is short here) it has that one's Event.
async fn told_that_it_dies(scene: &Scene) -> anyhow::Result<()> {
    let events = scene.api::<Event>().list(&ListParams::default()).await?.items;
    let tells = |e: &Event| {
        let note = e.note.as_deref().unwrap_or_default();
        e.type_.as_deref() == Some("Warning") && note.contains("about to be shut down")
    };
    ensure!(events.iter().any(tells), "no Event tells of it");
    Ok(())
}

/// AWS' node termination handler's, one of the chart's `urgentTaints`.
const SPOT: &str = "aws-node-termination-handler/spot-itn";

/// A node's change is seen at once, and a status is written at most once in 2 s.
pub(super) const SAID: Duration = Duration::from_secs(10);

/// Two tries of `kubectl drain`, and more.
const AWAY: Duration = Duration::from_secs(12);

/// Among whatever else it warns of.
pub(super) fn warns(status: &GracefulAppStatus, of: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == "Warning" && c.status == "True" && c.message.contains(of))
}

/// The real one, of the pods of apps alone: the tests' own pods stay.
pub(super) async fn kubectl_drain(scene: &Scene, node: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let timeout = format!("--timeout={}s", ROLLS.as_secs());
    let selector = format!("--pod-selector={}", names::APP_LABEL);
    let drain = ["drain", node, &selector, "--delete-emptydir-data", "--ignore-daemonsets", &timeout];
    scene.step(format!("when kubectl drains {node}"), scene.world.kubectl(&drain)).await?;
    Ok(begun.elapsed())
}

/// One of two or more that are Ready.
pub(super) async fn node(scene: &Scene) -> anyhow::Result<String> {
    let nodes = Api::<Node>::all(scene.client.clone()).list(&ListParams::default()).await?.items;
    ensure!(nodes.len() > 1, "a node can only be drained where there is another");
    nodes.last().map(ResourceExt::name_any).context("no node")
}

pub(super) async fn pods_on(scene: &Scene, node: &str) -> anyhow::Result<usize> {
    let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    Ok(scene.pods().await?.iter().filter(|pod| is_on(pod, node)).filter(stays).count())
}

pub(super) fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
}

/// Whatever became of the test, the others get their node back.
pub(super) async fn returned(scene: &Scene, node: &str, result: anyhow::Result<()>) -> anyhow::Result<()> {
    let uncordoned = scene.world.kubectl(&["uncordon", node]).await.map(drop);
    result.and(uncordoned.with_context(|| format!("cannot uncordon {node}")))
}
