//! Steps that look, and fail.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use graceful_api::{GracefulAppStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::scene::{Scene, serves_template};
use super::wait::{eventually, throughout};
use super::{ROLLS, STARTS};
use crate::wire::LedgerView;

/// `then.…`
#[derive(Clone, Copy)]
pub struct Then<'a>(pub(super) &'a Scene);

/// No report for so long, and what is unfinished is lost: longer than the longest task of any scenario.
const SILENCE_MS: u64 = 25_000;

impl Scene {
    /// Whether everything is as the spec says: in the pods first, and then in the report.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let spec = self.spec()?;
        let wanted = spec.0["replicas"].as_u64().unwrap_or(1);
        let pods = self.pods().await?;
        for pod in &pods {
            ensure!(pod.metadata.deletion_timestamp.is_none(), "{} is terminating", pod.name_any());
            serves_template(pod, &spec)?;
        }
        ensure!(pods.len() as u64 == wanted, "{} pods of {wanted}", pods.len());
        let app = self.app().await?;
        let status = app.status.context("no status yet")?;
        ensure!(status.observed_generation == app.metadata.generation, "the status is of an older spec");
        let GracefulAppStatus { serving_replicas, updated_replicas, draining_replicas, phase, .. } = status;
        let counts = (u64::from(serving_replicas), u64::from(updated_replicas), draining_replicas);
        ensure!(
            counts == (wanted, wanted, 0) && phase == Some(Phase::Serving),
            "status: {serving_replicas} serving, {updated_replicas} updated, {draining_replicas} draining, {phase:?}: {}",
            status.waiting_for
        );
        Ok(())
    }
}

impl Then<'_> {
    /// All pods are of the newest template and serve; nothing else is left.
    pub async fn rolled_out(self) -> anyhow::Result<()> {
        let scene = self.0;
        scene.step("then it is rolled out", eventually("rolled out", ROLLS, || scene.settled())).await
    }

    /// The status becomes what `test` accepts.
    pub async fn status(
        self,
        words: &str,
        deadline: Duration,
        test: impl Fn(&GracefulAppStatus) -> bool,
    ) -> anyhow::Result<GracefulAppStatus> {
        let scene = self.0;
        let look = || async {
            let status = scene.app().await?.status.context("no status yet")?;
            let GracefulAppStatus { phase, waiting_for, .. } = &status;
            ensure!(test(&status), "status is {phase:?}, waiting for: {waiting_for:?}");
            Ok(status)
        };
        scene.step(format!("then {words}"), eventually(words, deadline, look)).await
    }

    /// The status stays what `test` accepts, for the whole of `span`.
    pub async fn holds(
        self,
        words: &str,
        span: Duration,
        test: impl Fn(&GracefulAppStatus) -> bool,
    ) -> anyhow::Result<()> {
        let scene = self.0;
        let look = || async {
            let status = scene.app().await?.status.context("no status")?;
            ensure!(test(&status), "status: {status:?}");
            Ok(())
        };
        scene.step(format!("then {words} for {} s", span.as_secs()), throughout(words, span, look)).await
    }

    /// The ledger becomes what `test` accepts.
    pub async fn ledger(
        self,
        words: &str,
        deadline: Duration,
        test: impl Fn(&LedgerView) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let scene = self.0;
        let look = || async { test(&scene.load().await?.ledger().await?) };
        scene.step(format!("then {words}"), eventually(words, deadline, look)).await
    }

    /// Every WebSocket client has a connection.
    pub async fn all_sockets_connected(self) -> anyhow::Result<()> {
        self.ledger("all sockets are connected", STARTS, |view| {
            let (connected, wanted) = (view.sockets.connected, view.sockets.wanted);
            ensure!(connected == wanted, "{connected} of {wanted}");
            Ok(())
        })
        .await
    }

    /// The pods become what `test` accepts; what it returns comes back.
    pub async fn pods<T>(
        self,
        words: &str,
        deadline: Duration,
        test: impl Fn(&[Pod]) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let scene = self.0;
        let look = || async { test(&scene.pods().await?) };
        scene.step(format!("then {words}"), eventually(words, deadline, look)).await
    }

    /// The load stops; every accepted task finishes, once; no promise was broken; no request failed for its client.
    pub async fn nothing_lost(self) -> anyhow::Result<LedgerView> {
        let view = self.nothing_lost_but_requests().await?;
        let requests = &view.requests;
        ensure!(
            requests.unanswered() == 0,
            "of {} requests some failed for their client: refused {:?}, failed {:?}",
            requests.sent,
            requests.refused,
            requests.failed
        );
        Ok(view)
    }

    /// The same, where clients may have met refusals: refused is not lost.
    pub async fn nothing_lost_but_requests(self) -> anyhow::Result<LedgerView> {
        let view = self.nothing_lost_at_least_once().await?;
        ensure!(view.duplicates == 0, "{} tasks were done twice", view.duplicates);
        Ok(view)
    }

    /// The same after a crash, which may leave a task that is done and not yet written down as such: it is done again.
    pub async fn nothing_lost_at_least_once(self) -> anyhow::Result<LedgerView> {
        let scene = self.0;
        scene
            .step("then nothing is lost", async {
                let view = scene.accounts_closed().await?;
                scene.figures().lost = view.unfinished.len() as u64;
                ensure!(
                    view.unfinished.is_empty(),
                    "{} of {} accepted tasks are lost, the first: {:?}; reported to have ended otherwise: {:?}",
                    view.unfinished.len(),
                    view.accepted,
                    view.unfinished.first(),
                    view.given_up
                );
                ensure!(view.accepted > 0, "nothing was accepted: this proves nothing");
                scene.check_promises().await?;
                if view.duplicates > 0 {
                    scene.say(&format!("{} of {} tasks were done twice", view.duplicates, view.accepted));
                }
                Ok(view)
            })
            .await
    }
}

impl Scene {
    /// Stops the load and waits until all that was accepted has finished, or nothing more can come.
    pub async fn accounts_closed(&self) -> anyhow::Result<LedgerView> {
        let load = self.load().await?;
        load.stop(false).await?;
        let view = eventually("all tasks have ended, or are lost", ROLLS, || async {
            let view = load.ledger().await?;
            let newest = view.unfinished.last().map_or(0, |u| u.accepted_ms);
            let last = view.last_report_ms.unwrap_or(0).max(newest);
            if !view.unfinished.is_empty() && view.now_ms < last + SILENCE_MS {
                bail!("{} tasks are unfinished", view.unfinished.len());
            }
            Ok(view)
        })
        .await?;
        load.stop(true).await?;
        let mut figures = self.figures();
        figures.accepted = view.accepted;
        figures.finished = view.finished;
        figures.unanswered = view.requests.unanswered();
        drop(figures);
        self.say(&format!(
            "ledger: accepted={} finished={} unfinished={} requests={} refused={:?} failed={:?} sockets={:?} closes={}",
            view.accepted,
            view.finished,
            view.unfinished.len(),
            view.requests.sent,
            view.requests.refused,
            view.requests.failed,
            view.sockets.refused,
            view.sockets.closes.len()
        ));
        Ok(view)
    }
}
