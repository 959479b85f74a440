//! A rollout under load: what the whole project is for.

use crate::harness::app::AppSpec;
use crate::harness::load;
use crate::harness::scene::Scene;

/// A new revision replaces the old one; clients notice nothing, and every accepted task finishes.
pub(super) async fn rollout(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}
