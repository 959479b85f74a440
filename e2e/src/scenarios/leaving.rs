//! Nodes that go in less common ways: an autoscaler takes one with the leader on it, where one app is paused and another has no room elsewhere; and one is
//! off. These run alone, as those of `nodes` do.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use graceful_api::{DrainReason, GracefulAppStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::leader;
use super::nodes::{SAID, is_on, pods_on, returned};
use crate::harness::app::AppSpec;
use crate::harness::crash::Paused;
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS, load};

/// The label of nodes with room for the app that has none elsewhere.
const ROOM: &str = "e2e.graceful.dev/room";

/// Cluster-autoscaler's, one of the chart's `taints`.
const AUTOSCALER: &str = "ToBeDeletedByClusterAutoscaler";

/// A person's, of a machine that is off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller manager's patience with a silent node is 12 s here, and may be 40 s elsewhere.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// How long an app without room is seen to keep what it has.
const WAITS: Duration = Duration::from_secs(4);

/// P1, P3, P8: an autoscaler's taint is enough, without a cordon. A paused app leaves as it is; one without room elsewhere says so in the scheduler's
/// words, keeps what it has, and goes when room comes; and the leader goes like any pod.
pub(super) async fn node_taken_by_an_autoscaler(scene: &Scene) -> anyhow::Result<()> {
    leader::both_ready(scene).await?;
    let leads = leader::holder(scene).await?;
    let (node, other) = node_and_another(scene, |pod| pod.name_any() == leader::pod_of(&leads)).await?;
    let namespace = format!("{}-2", scene.namespace);
    let roomless = Scene::in_namespace(&scene.world, "node_taken_without_room", namespace).await?;
    let result = taken(scene, &roomless, &node, &other).await;
    let world = &scene.world;
    let (no_room, no_taint) = (format!("{ROOM}-"), format!("{AUTOSCALER}-"));
    let unlabelled = world.kubectl(&["label", "node", &node, &other, &no_room]).await.map(drop);
    let untainted = untaint(scene, &node, &no_taint).await;
    let result = result.and(unlabelled).and(untainted).and(roomless.remove_namespace().await);
    returned(scene, &node, result).await
}

async fn taken(scene: &Scene, roomless: &Scene, node: &str, other: &str) -> anyhow::Result<()> {
    let (world, (given, when, then), (needs, _, and)) = (&scene.world, scene.steps(), roomless.steps());
    let room = format!("{ROOM}=");
    world.kubectl(&["label", "node", node, &room]).await?;
    let spec = AppSpec::tasks(world).replicas(4);
    given.app(spec.clone()).await?;
    given.load(load::usual()).await?;
    let only_there = serde_json::json!({ROOM: ""});
    needs.app(AppSpec::tasks(world).replicas(2).set("/template/spec/nodeSelector", only_there)).await?;
    needs.load(load::usual()).await?;
    when.app_changes("it is paused, and the template changes", |spec| {
        spec.rollout("paused", true).env("MARK", "paused")
    })
    .await?;
    ensure!(pods_on(scene, node).await? > 0, "no pod of the paused app is on {node}");
    let taint = format!("{AUTOSCALER}=soon:NoSchedule");
    scene
        .step(format!("when an autoscaler taints {node}"), world.kubectl(&["taint", "node", node, &taint]))
        .await?;
    then.status("pods of the paused app drain for the node", ROLLS, drains_for_its_node).await?;
    let leads = leader::holder(scene).await?;
    let begun = Instant::now();
    let evictions = scene.step(format!("when all is evicted from {node}"), evict_all(scene, node));
    tokio::pin!(evictions);
    tokio::select! {
        ended = &mut evictions => anyhow::bail!("the evictions did not wait for room: {ended:?}"),
        waits = no_room(scene, roomless, &leads, node) => waits?,
    }
    scene
        .step(format!("when there is room on {other}"), world.kubectl(&["label", "node", other, &room]))
        .await?;
    evictions.await?;
    scene.say(&format!("evicted_seconds={:.1}, with a wait for room in it", begun.elapsed().as_secs_f64()));
    for one in [scene, roomless] {
        let left = pods_on(one, node).await?;
        ensure!(left == 0, "{left} pods of {} are left on {node}", one.namespace);
    }
    let revisions: Vec<_> = scene.observer.pods().into_values().filter_map(|p| p.revision).collect();
    ensure!(revisions.windows(2).all(|w| w[0] == w[1]), "a paused rollout went on: {revisions:?}");
    when.app_changes("it goes on with the first template", |_| spec).await?;
    then.rolled_out().await?;
    and.rolled_out().await?;
    let (one, other) = tokio::join!(then.nothing_lost(), and.nothing_lost());
    one.and(other).map(drop)
}

/// The app without room waits for some, while the leader, which nothing holds, moves.
async fn no_room(scene: &Scene, roomless: &Scene, leads: &str, node: &str) -> anyhow::Result<()> {
    let (_, _, then) = roomless.steps();
    then.status("it says in the scheduler's words that there is no room", SAID + STARTS, |s| {
        s.waiting_for.contains("didn't match Pod's node affinity/selector") && s.waiting_for.contains(node)
    })
    .await?;
    let took = leader::followed(scene, leads, Instant::now(), STARTS).await?;
    scene.say(&format!("the leader went with its node: another leads {} ms later", took.as_millis()));
    then.holds("both pods serve, and none drains", WAITS, |s| {
        s.serving_replicas == 2 && s.draining_replicas == 0
    })
    .await
}

fn drains_for_its_node(status: &GracefulAppStatus) -> bool {
    status.draining.iter().any(|pod| pod.reason == DrainReason::NodeDrain)
}

/// Everything but what the tests themselves need: the load generators, and the cluster's only DNS.
async fn evict_all(scene: &Scene, node: &str) -> anyhow::Result<String> {
    let timeout = format!("--timeout={}s", ROLLS.as_secs());
    let selector = "--pod-selector=app!=loadgen,k8s-app!=kube-dns";
    let drain = ["drain", node, selector, "--delete-emptydir-data", "--ignore-daemonsets", &timeout];
    scene.world.kubectl(&drain).await
}

/// P3: a machine is off, and somebody says so: nothing is waited for there, and what it had is replaced at once, beyond the surge.
pub(super) async fn node_out_of_service(scene: &Scene) -> anyhow::Result<()> {
    // Not where the cluster's only DNS is: without it clients would find nothing.
    let (other, node) =
        node_and_another(scene, |pod| pod.labels().get("k8s-app").is_some_and(|app| app == "kube-dns"))
            .await?;
    let result = off(scene, &node, &other).await;
    let untainted = untaint(scene, &node, &format!("{OUT_OF_SERVICE}-")).await;
    let ready = eventually("the node is back", GIVEN_UP, || ready(scene, &node, true)).await;
    returned(scene, &node, result.and(untainted).and(ready)).await
}

async fn off(scene: &Scene, node: &str, other: &str) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    let world = &scene.world;
    // Nor the load generator.
    world.kubectl(&["cordon", node]).await?;
    scene.load().await?;
    world.kubectl(&["uncordon", node]).await?;
    given.app(AppSpec::tasks(world).replicas(4)).await?;
    given.load(load::usual()).await?;
    let lost = pods_on(scene, node).await?;
    ensure!(lost > 1, "{lost} pods are on {node}: with a surge of 1 that proves nothing");
    // The machine runs on and finishes what it has, but for Kubernetes it is gone.
    let silent = async { Paused::kubelet(node) };
    let _silent = scene.step(format!("when the kubelet of {node} falls silent"), silent).await?;
    let given_up = eventually("not Ready", GIVEN_UP, || ready(scene, node, false));
    scene.step(format!("then {node} is given up"), given_up).await?;
    let there = pods_on(scene, node).await?;
    ensure!(
        there == lost && scene.pods().await?.len() == 4,
        "something was done about a node that may be back"
    );
    // The exception to P3.
    scene.observer.expect(None);
    let taint = format!("{OUT_OF_SERVICE}=nodeshutdown:NoSchedule");
    scene
        .step(
            format!("when somebody says that {node} is out of service"),
            world.kubectl(&["taint", "node", node, &taint]),
        )
        .await?;
    let said = Instant::now();
    then.pods("all are replaced elsewhere at once", SAID, |pods| {
        let elsewhere = pods.iter().filter(|p| is_on(p, other)).count();
        ensure!(elsewhere == 4, "{elsewhere} of 4 are on {other}");
        Ok(())
    })
    .await?;
    let replaced = said.elapsed();
    then.rolled_out().await?;
    scene.say(&format!(
        "out_of_service: {lost} pods, replaced_ms={} settled_ms={}",
        replaced.as_millis(),
        said.elapsed().as_millis()
    ));
    let drained =
        scene.observer.pods().into_values().filter(|p| p.reason.as_deref() == Some("NodeDrain")).count();
    ensure!(drained == 0, "{drained} pods of a machine that is off were drained");
    then.nothing_lost().await?;
    Ok(())
}

async fn ready(scene: &Scene, node: &str, wanted: bool) -> anyhow::Result<()> {
    let node = Api::<Node>::all(scene.client.clone()).get(node).await?;
    let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    ensure!(ready == wanted, "Ready is {ready}");
    Ok(())
}

/// The node of the first pod that is meant, anywhere, and another one.
async fn node_and_another(scene: &Scene, meant: impl Fn(&Pod) -> bool) -> anyhow::Result<(String, String)> {
    let pods = Api::<Pod>::all(scene.client.clone()).list(&ListParams::default()).await?.items;
    let pod = pods.into_iter().find(meant).context("no such pod")?;
    let node = pod.spec.and_then(|s| s.node_name).context("it is on no node")?;
    let nodes = Api::<Node>::all(scene.client.clone()).list(&ListParams::default()).await?.items;
    let other = nodes.iter().map(ResourceExt::name_any).find(|name| *name != node);
    Ok((node, other.context("a node can only be left where there is another")?))
}

/// Takes the taint off the node. The taint may be gone already, where the test ended before it came.
pub(super) async fn untaint(scene: &Scene, node: &str, taint: &str) -> anyhow::Result<()> {
    match scene.world.kubectl(&["taint", "node", node, taint]).await {
        Err(error) if !format!("{error:#}").contains("not found") => Err(error),
        _ => Ok(()),
    }
}
