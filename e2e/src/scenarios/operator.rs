//! The operator itself dies, is upgraded, or is away. These run alone: all apps share it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use rand::RngExt;

use super::leader;
use crate::harness::app::AppSpec;
use crate::harness::charts;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, STARTS, load};

/// Each falls into another step of a drain; with fewer, some steps would be met by chance alone.
const KILLS: u32 = 10;
/// Between kills: from the middle of a reconcile to several drains later.
const MOMENTS_MS: std::ops::Range<u64> = 200..5_000;

/// P1: killed without grace at seeded moments, again and again, while rollouts go on: nothing is lost and it ends right.
pub(super) async fn operator_killed_during_rollouts(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    let mut kills = 0;
    let mut rollouts = 0;
    while kills < KILLS {
        rollouts += 1;
        when.template_changes(&format!("rollout {rollouts}")).await?;
        // At least one kill a rollout, even if it is over before the seeded moment.
        loop {
            let moment = scene.rng().random_range(MOMENTS_MS);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            kills += 1;
            scene
                .step(format!("when the operator is killed ({kills}, {moment} ms later)"), kill(scene))
                .await?;
            if kills >= KILLS || scene.settled().await.is_ok() {
                break;
            }
        }
        then.rolled_out().await?;
    }
    then.nothing_lost().await?;
    Ok(())
}

/// Deletes the leader's pod without grace, and waits until another leads. Its kubelet may still let it release the lease; `leader` sends SIGKILL.
async fn kill(scene: &Scene) -> anyhow::Result<()> {
    let old = leader::holder(scene).await?;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), charts::NAMESPACE);
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    pods.delete(leader::pod_of(&old), &now).await?;
    leader::followed(scene, &old, Instant::now(), STARTS).await?;
    Ok(())
}

/// P1, P5: an upgrade of the operator changes no pod of any app: neither from a release whose operator knew no lease, which is gone before the next one comes,
/// nor as ever, where the next one stands by first.
pub(super) async fn helm_upgrade_restarts_nobody(scene: &Scene) -> anyhow::Result<()> {
    let result = upgraded_twice(scene).await;
    if result.is_err() {
        // The other tests need it as it is.
        charts::upgrade(&scene.world, &[]).await?;
    }
    result
}

async fn upgraded_twice(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let world = &scene.world;
    scene.step("given an operator without a lease", charts::without_a_lease(world)).await?;
    given.app(AppSpec::tasks(world)).await?;
    given.load(load::usual()).await?;
    let before = identities(scene).await?;
    when.scaled(4).await?;
    let upgrade = async {
        let watch = tokio::spawn(never_both(Api::namespaced(scene.client.clone(), charts::NAMESPACE)));
        // To its end, whatever is seen: helm leaves a release that it was stopped at to nobody.
        let changes = ["--set", "podAnnotations.upgraded=again", "--set", "log=debug"];
        let upgraded = charts::upgrade(world, &changes).await;
        if watch.is_finished() {
            watch.await??;
        } else {
            watch.abort();
        }
        upgraded
    };
    scene.step("when it is upgraded by helm to one with a lease", upgrade).await?;
    let strategy = ["-n", charts::NAMESPACE, "get", charts::OPERATOR, "-o", "jsonpath={.spec.strategy.type}"];
    ensure!(world.kubectl(&strategy).await? == "Recreate", "the one without a lease did not go first");
    then.rolled_out().await?;
    let after = identities(scene).await?;
    for (uid, restarts) in &before {
        ensure!(after.get(uid) == Some(restarts), "pod {uid} was touched: {before:?}, now {after:?}");
    }
    when.scaled(3).await?;
    scene.step("when it is upgraded once more, and back", charts::upgrade(world, &[])).await?;
    ensure!(world.kubectl(&strategy).await? == "RollingUpdate", "the next one did not stand by first");
    then.rolled_out().await?;
    let last = identities(scene).await?;
    for (uid, restarts) in &last {
        ensure!(after.get(uid) == Some(restarts), "pod {uid} was touched: {after:?}, now {last:?}");
    }
    then.nothing_lost().await?;
    Ok(())
}

/// Ends when an operator that asks nobody whether it leads runs beside one that leads.
async fn never_both(pods: Api<Pod>) -> anyhow::Result<()> {
    loop {
        let all = pods.list(&ListParams::default().labels(charts::OPERATOR_PODS)).await?.items;
        let runs = |pod: &&Pod| {
            let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
            containers.into_iter().flatten().any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
        };
        let with_lease = |pod: &&Pod| pod.annotations().contains_key("graceful.dev/operator-lease");
        let (leads, asks_nobody): (Vec<_>, Vec<_>) = all.iter().filter(runs).partition(with_lease);
        ensure!(leads.is_empty() || asks_nobody.is_empty(), "two operators that do not know of each other");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// P4: with the operator away a deleted pod drains itself, its replacement serves, and a rollout only waits.
pub(super) async fn without_an_operator_pods_serve(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).task_seconds("2-4").grace(20)).await?;
    given.load(load::usual()).await?;
    scene.step("when the operator is at 0 replicas", charts::scale(&scene.world, 0)).await?;
    let result = away(scene).await;
    // Whatever came of it, the other tests need it back.
    scene.step("when the operator is back", charts::scale(&scene.world, charts::REPLICAS)).await?;
    result?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

async fn away(scene: &Scene) -> anyhow::Result<()> {
    let (_, when, then) = scene.steps();
    let before = identities(scene).await?;
    let pod = scene.pods().await?.first().map(ResourceExt::name_any).context("no pod")?;
    when.pod_deleted(&pod).await?;
    then.pods("a replacement is there", STARTS, |pods| {
        let new = pods.iter().filter_map(ResourceExt::uid).find(|uid| !before.contains_key(uid));
        new.context("none yet")
    })
    .await?;
    then.ledger("the replacement finishes tasks", STARTS, |view| {
        let new = view.pods.iter().find(|(uid, work)| !before.contains_key(*uid) && work.finished > 0);
        new.map(|_| ()).context("none yet")
    })
    .await?;
    then.pods("the deleted pod has ended", ROLLS, |pods| {
        ensure!(pods.iter().all(|p| p.name_any() != pod), "it is still there");
        Ok(())
    })
    .await
}

/// The pods' uids and how often their containers restarted.
async fn identities(scene: &Scene) -> anyhow::Result<BTreeMap<String, i32>> {
    let pods = scene.pods().await?;
    let restarts = |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
        containers.into_iter().flatten().map(|c| c.restart_count).sum()
    };
    Ok(pods.iter().filter_map(|pod| Some((pod.uid()?, restarts(pod)))).collect())
}
