//! Drains that take longer than their deadline.

use anyhow::ensure;
use graceful_api::Phase;

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};

/// P1, P8: hold: it waits on and says so, and nothing is lost.
pub(super) async fn deadline_hold(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given
        .app(AppSpec::tasks(&scene.world).replicas(2).task_seconds("12-15").drain("deadlineSeconds", 4))
        .await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    let status = then.status("it is Held", ROLLS, |s| s.phase == Some(Phase::Held)).await?;
    scene.say(&format!("WAITING-FOR: {}", status.waiting_for));
    ensure!(status.waiting_for.contains("in flight"), "it does not say what it waits for: {status:?}");
    then.rolled_out().await?;
    ensure!(scene.app().await?.status.is_some_and(|s| s.cut.tasks == 0), "Hold has cut tasks");
    then.nothing_lost().await?;
    Ok(())
}

/// P1, P8: terminate: the pod is deleted at its deadline, and what is cut is counted: at least as many as the ledger misses.
pub(super) async fn deadline_terminate(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let spec = AppSpec::tasks(&scene.world).replicas(2).task_seconds("15-18");
    given.app(spec.drain("deadlineSeconds", 4).drain("onDeadline", "Terminate").grace(3)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    let cut = scene.app().await?.status.map(|s| s.cut).unwrap_or_default();
    let view = scene.step("then the ledger is closed", scene.accounts_closed()).await?;
    let missing = view.unfinished.len() as u64;
    scene
        .say(&format!("cut, as the status says: {} pods, {} tasks; missing: {missing}", cut.pods, cut.tasks));
    ensure!(missing > 0, "nothing was cut: the deadline did not act");
    ensure!(cut.pods == 2, "{} pods were cut, both were too slow", cut.pods);
    ensure!(missing <= cut.tasks, "{missing} tasks are missing and only {} are owned up to", cut.tasks);
    scene.check_promises().await?;
    Ok(())
}
