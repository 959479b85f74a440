//! Rollouts under load: what the whole project is for.

use std::time::Duration;

use anyhow::ensure;

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};

/// P1, P3: a new revision replaces the old one; clients notice nothing, and every accepted task finishes.
pub(super) async fn rollout(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1: no grace period of 6 s could save tasks of 12–15 s: only a pod that is deleted when it is idle does.
pub(super) async fn tasks_longer_than_the_grace_period(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given
        .app(AppSpec::tasks(&scene.world).task_seconds("12-15").grace(6).rollout("maxSurge", "100%"))
        .await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P3: without room for a surge an old pod goes first, and no more than one at a time.
pub(super) async fn max_surge_zero(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).rollout("maxSurge", 0).rollout("maxUnavailable", 1)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1, P3: a third template arrives while the second is being rolled out: three revisions at once, and the newest wins.
pub(super) async fn change_in_mid_rollout(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).task_seconds("5-8")).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.status("an old pod drains and a new one serves", ROLLS, |s| {
        s.draining_replicas > 0 && s.updated_replicas > 0
    })
    .await?;
    when.template_changes("third").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1: back to the first template in mid-rollout: its pods that still drain are warm, and return to serving as they are.
pub(super) async fn back_to_the_first_template(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    // Long tasks keep the drained pods alive until the rollback comes.
    given.app(AppSpec::tasks(&scene.world).task_seconds("10-14").rollout("maxSurge", 2)).await?;
    given.load(load::usual()).await?;
    let first: Vec<String> = scene.observer.pods().into_keys().collect();
    let spec = scene.spec()?;
    when.template_changes("second").await?;
    then.status("old pods drain", ROLLS, |s| s.draining_replicas > 0 && s.updated_replicas > 0).await?;
    when.app_changes("the template changes back", |_| spec).await?;
    then.rolled_out().await?;
    let now = scene.observer.pods();
    let kept = first.iter().filter(|uid| now.get(*uid).is_some_and(|p| p.deleted_ms.is_none())).count();
    let returned = first.iter().filter_map(|uid| now.get(uid)).filter(|p| p.serving && p.returned).count();
    scene.say(&format!("{kept} of {} first pods stayed, {returned} of them had been draining", first.len()));
    ensure!(returned > 0, "no pod that was draining returned to serving");
    then.nothing_lost().await?;
    Ok(())
}

/// A paused rollout starts no drain; it goes on when it is no longer paused.
pub(super) async fn paused(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).rollout("paused", true)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.status("it is Paused", ROLLS, |s| s.phase == Some(graceful_api::Phase::Paused)).await?;
    then.holds("no pod drains", Duration::from_secs(5), |s| s.draining_replicas == 0).await?;
    when.app_changes("it is no longer paused", |app| app.rollout("paused", false)).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}
