//! The queue is durable: what a pod accepted outlives its process, and on a shared queue the pod.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, STARTS, load};

/// Of 6 tasks a second that take 5 s about 30 are in flight; some of them are on either of two pods.
const MUCH: usize = 20;
/// How soon a task whose pod is gone is taken up by another (docs/queue.md).
const PICKED_UP: Duration = Duration::from_secs(10);
/// A kubelet gives a pod that was deleted by force no more than 2 s.
const FORCE: Duration = Duration::from_secs(2);

/// SQLite in an emptyDir: each server is killed once with its queue full, and the next start of the container does it all.
pub(super) async fn sqlite_container_killed_under_load(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2).task_seconds("4-6")).await?;
    given.load(load::usual()).await?;
    for pod in scene.pods().await? {
        much_in_flight(scene).await?;
        when.server_killed(&pod).await?;
        started_again(scene, &pod).await?;
    }
    then.rolled_out().await?;
    then.nothing_lost_at_least_once().await?;
    Ok(())
}

/// P1, P7: the same to a pod that drains: it is not idle before the tasks of its first process have ended in its second.
pub(super) async fn sqlite_container_killed_in_mid_drain(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2).task_seconds("8-10")).await?;
    given.load(load::usual()).await?;
    much_in_flight(scene).await?;
    when.template_changes("second").await?;
    let pod = then
        .pods("an old pod drains", ROLLS, |pods| {
            let drains = |pod: &&Pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && scene.observer.pods().get(&pod.uid().unwrap_or_default()).is_some_and(|p| p.drains())
            };
            pods.iter().find(drains).cloned().context("none yet")
        })
        .await?;
    when.server_killed(&pod).await?;
    then.rolled_out().await?;
    then.nothing_lost_at_least_once().await?;
    Ok(())
}

/// PostgreSQL: a pod is deleted by force with its places full, and the others do its tasks as soon as its leases are over.
pub(super) async fn postgres_pod_deleted_by_force(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let database = scene.world.databases.take().await?;
    given.app(AppSpec::tasks(&scene.world).postgres(&database.url).task_seconds("5-6")).await?;
    given.load(load::usual()).await?;
    much_in_flight(scene).await?;
    let pod = scene.pods().await?.first().map(ResourceExt::name_any).context("no pod")?;
    let before = scene.load().await?.ledger().await?.now_ms;
    when.pod_deleted_by_force(&pod).await?;
    // The last of them was begun just before the end, and is begun again and done within this.
    let longest = FORCE + PICKED_UP + Duration::from_secs(6);
    then.ledger("all that was accepted before is done", longest, |view| {
        let left = view.unfinished.iter().filter(|task| task.accepted_ms < before).count();
        ensure!(left == 0, "{left} tasks are not");
        Ok(())
    })
    .await?;
    then.rolled_out().await?;
    if let Some(again) = database.ask("SELECT count(*) FROM graceful_tasks WHERE attempt > 1").await? {
        scene.say(&format!("{again} tasks were begun more than once"));
        ensure!(again != "0", "no task was interrupted: this proves nothing");
    }
    then.nothing_lost_at_least_once().await?;
    Ok(())
}

/// What waits in a shared queue is nobody's: a draining pod ends what it runs and goes, however long the queue is.
pub(super) async fn postgres_rollout_does_not_wait_for_the_shared_queue(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let database = scene.world.databases.take().await?;
    // Three pods do 3 tasks a second, and 6 come.
    let spec = AppSpec::tasks(&scene.world).postgres(&database.url).task_seconds("3-5");
    given.app(spec.env("GRACEFUL_CONCURRENCY", "4")).await?;
    given.load(load::usual()).await?;
    then.ledger("many tasks wait", STARTS, |view| {
        ensure!(view.unfinished.len() >= 60, "{} tasks are unfinished", view.unfinished.len());
        Ok(())
    })
    .await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.ledger("many tasks still wait", Duration::ZERO, |view| {
        ensure!(
            view.unfinished.len() >= 40,
            "only {}: the pods may have waited for them",
            view.unfinished.len()
        );
        Ok(())
    })
    .await?;
    scene.load().await?.stop(false).await?;
    // So that the end is not a matter of minutes.
    when.app_changes("there are more places", |app| app.env("GRACEFUL_CONCURRENCY", "64")).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

async fn much_in_flight(scene: &Scene) -> anyhow::Result<()> {
    let (_, _, then) = scene.steps();
    then.ledger("much is in flight", STARTS, |view| {
        ensure!(view.unfinished.len() >= MUCH, "{} tasks", view.unfinished.len());
        Ok(())
    })
    .await
}

/// The container runs once more than it did.
async fn started_again(scene: &Scene, pod: &Pod) -> anyhow::Result<()> {
    let (_, _, then) = scene.steps();
    let (uid, before) = (pod.uid(), restarts(pod));
    then.pods("the container runs again", STARTS, |pods| {
        let now = pods.iter().find(|p| p.uid() == uid).context("the pod is gone")?;
        ensure!(restarts(now) > before, "restarted {} times", restarts(now));
        ensure!(
            scene.observer.pods().get(&now.uid().unwrap_or_default()).is_some_and(|p| p.ready),
            "not Ready"
        );
        Ok(())
    })
    .await
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    containers.into_iter().flatten().map(|c| c.restart_count).sum()
}
