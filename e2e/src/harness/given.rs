//! Steps that set the stage.

use super::app::AppSpec;
use super::scene::Scene;
use super::{STARTS, wait::eventually};
use crate::wire::LoadSpec;

/// `given.…`
#[derive(Clone, Copy)]
pub struct Given<'a>(pub(super) &'a Scene);

impl Given<'_> {
    /// An app that serves with all its replicas.
    pub async fn app(self, spec: AppSpec) -> anyhow::Result<()> {
        let scene = self.0;
        let words = format!("given an app of {} replicas", spec.0["replicas"]);
        scene
            .step(words, async {
                scene.load().await?;
                scene.apply(spec).await?;
                eventually("all replicas serve", STARTS, || scene.settled()).await
            })
            .await
    }

    /// Continuous load, and some of it in flight.
    pub async fn load(self, spec: LoadSpec) -> anyhow::Result<()> {
        let scene = self.0;
        let words = format!("given {} tasks a second and {} sockets", spec.rate_per_second, spec.sockets);
        scene
            .step(words, async {
                let load = scene.load().await?;
                // What fails before the Service routes says nothing about Graceful.
                eventually("the app answers", STARTS, || load.reaches(&spec.target, spec.speaks)).await?;
                load.start(&spec).await?;
                let wanted = u64::from(spec.sockets);
                eventually("tasks are in flight and sockets connected", STARTS, || async {
                    let view = load.ledger().await?;
                    let connected = view.sockets.connected;
                    anyhow::ensure!(connected >= wanted, "{connected} of {wanted} sockets");
                    anyhow::ensure!(spec.clients == 0 || view.unfinished.len() > 5, "no tasks in flight");
                    Ok(())
                })
                .await
            })
            .await
    }
}
