//! EndpointSlices that follow late. Alone: nobody else's pods are made while the controllers are paused.

use std::time::Duration;

use anyhow::ensure;

use crate::harness::app::AppSpec;
use crate::harness::crash::Paused;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};

/// Several lingers: a pod that was told to close at once would have refused its clients for most of it.
const AWAY: Duration = Duration::from_secs(9);

/// P1, P8: the controllers stop before a drain begins, so that the Service goes on sending clients to the pod: it serves them, and that is said. It is drained once
/// they are back.
pub(super) async fn a_pod_is_open_while_its_service_lists_it(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(3).task_seconds("1-4")).await?;
    // Half of its clients connect anew for each request, and go where the Service sends them.
    given.load(load::usual()).await?;
    let paused = scene.step("when the controllers stop", async { Paused::controllers() }).await?;
    when.scaled(2).await?;
    then.status("it is said why a pod is not told to close", ROLLS, |status| {
        status.waiting_for.contains("still lists it, so that clients are sent to it")
    })
    .await?;
    tokio::time::sleep(AWAY).await;
    let status = scene.app().await?.status.unwrap_or_default();
    ensure!(
        status.draining.iter().all(|pod| pod.state == graceful_api::PodState::Lingering),
        "{:?}",
        status.draining
    );
    drop(paused);
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}
