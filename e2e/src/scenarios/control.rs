//! The control: the same pods and the same ledger without Graceful. If it lost nothing, the other tests would prove nothing.

use anyhow::ensure;

use crate::harness::app::AppSpec;
use crate::harness::load;
use crate::harness::plain;
use crate::harness::scene::Scene;

/// A plain Deployment whose grace is shorter than its longest task loses tasks, and the ledger sees it.
pub(super) async fn plain_deployment_loses_tasks(scene: &Scene) -> anyhow::Result<()> {
    let spec = AppSpec::tasks(&scene.world).task_seconds("6-12");
    let (given, ..) = scene.steps();
    plain::deploy(scene, &spec, plain::SHORT_GRACE).await?;
    given.load(load::usual()).await?;
    plain::roll_out(scene, "second").await?;
    let view = scene.step("then the ledger shows the loss", scene.accounts_closed()).await?;
    ensure!(
        !view.unfinished.is_empty(),
        "a grace of 3 s and tasks of 6-12 s lost nothing: the ledger is blind"
    );
    Ok(())
}
