//! The operator: what every part shares, and [`reconcile`], which reads as the table of contents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::{FieldError, GracefulApp, Phase};
use graceful_plan::Action;
use jiff::Timestamp;
use kube::runtime::controller;
use kube::{Client, ResourceExt};
use tracing::warn;

use crate::error::{Error, chain};
use crate::execute::{Outcome, Scene, execute};
use crate::leader::Leadership;
use crate::memory::{AppMemory, Memory, Pulse};
use crate::observe::{Stores, observe};
use crate::probe::{AppRef, Probes};
use crate::report::{Recorder, report, report_invalid};
use crate::telemetry::Metrics;

/// All that a reconcile works with.
pub(crate) struct Operator {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) probes: Probes,
    pub(crate) memory: Memory,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    pub(crate) leadership: Leadership,
}

/// While work goes on, the longest time between two looks, and between two live views: what a watch that has gone blind could hide is found within it.
pub(crate) const ACTIVE_LOOK: Duration = Duration::from_secs(10);

/// The same for an app at rest. A watch is renewed by the API server about as often.
pub(crate) const RESTING_LOOK: Duration = Duration::from_secs(300);

/// After things were found changed, the first next look: by then the watches have usually shown it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After a failure, the first next try, and the longest time between two.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// One look at one app, and what follows from it. Never fails: what went wrong is logged, counted and tried again, less and less often.
pub(crate) async fn reconcile(operator: &Operator, app: &GracefulApp) -> controller::Action {
    let app_ref = AppRef::from_obj(app);
    let started = Instant::now();
    operator.pulse.began(&app_ref);
    let memory = operator.memory.of(&app.uid().unwrap_or_default());
    let mut memory = memory.lock().await;
    let step = step(operator, app, &app_ref, &mut memory).await;
    operator.metrics.reconciled(started.elapsed(), step.as_ref().err().map(Error::category));
    operator.pulse.ended(&app_ref);
    let next = match step {
        Ok(next) => {
            memory.failures = 0;
            next
        }
        Err(error) => {
            let (first, longest) = RETRY;
            let next = doubled(first, memory.failures, longest);
            memory.failures = memory.failures.saturating_add(1);
            memory.look_live = true;
            warn!(app = %app_ref, failures = memory.failures, "{}; next try in {next:?}", chain(&error));
            next
        }
    };
    controller::Action::requeue(next)
}

/// Observe, plan, execute, report. Says when to look again at the latest.
async fn step(
    operator: &Operator,
    app: &GracefulApp,
    app_ref: &AppRef,
    memory: &mut AppMemory,
) -> Result<Duration, Error> {
    if !operator.leadership.held() {
        return Ok(RESTING_LOOK);
    }
    let seen = match observe(operator, app, memory).await? {
        Ok(seen) => seen,
        Err(invalid) => return reject(operator, app, &invalid, memory).await,
    };
    let mut plan = graceful_plan::plan(&seen.observed, Timestamp::now());
    operator.probes.converse(app_ref, &plan.conversations, &seen.targets);
    let mut scene = Scene { operator, object: app, seen: &seen, memory };
    let executed = execute(&mut scene, &plan.actions).await;
    if let Err(error) = &executed.outcome {
        // A webhook or a quota may refuse us for hours: what is waited for then is its leave.
        let waiting_for = &mut plan.report.waiting_for;
        let joint = if waiting_for.is_empty() { "" } else { "; " };
        *waiting_for = format!("{waiting_for}{joint}{} (tried again)", chain(error));
    }
    let done = &executed.done;
    if done.contains(&Action::ReleaseFinalizer) {
        operator.forget(app); // nothing of it is ours any more, and no status is written to what is gone
        return Ok(RESTING_LOOK);
    }
    // Those that failed as well: they may have had their effect.
    let due = report(operator, app, &seen, &plan.report, &plan.actions, memory).await;
    memory.active = plan.report.phase != Phase::Serving;
    let outcome = executed.outcome?;
    let mut next = if memory.active { ACTIVE_LOOK } else { RESTING_LOOK };
    if let Some(at) = plan.wake_at {
        next = next.min(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
    }
    if let Some(held) = memory.next_retry() {
        next = next.min(held);
    }
    if let Some(due) = due? {
        next = next.min(due);
    }
    memory.looks = match outcome {
        Outcome::Done => 0,
        // A refusal is to be told, and what is left alone now may let others go on.
        Outcome::Refused(_) | Outcome::LookAgain(_) => {
            next = next.min(doubled(LOOK_AGAIN, memory.looks, ACTIVE_LOOK));
            memory.looks.saturating_add(1)
        }
    };
    // The clock's own grain: an alarm that rings early would only be set again.
    Ok(next + Duration::from_millis(1))
}

/// A spec that contradicts itself: nothing is touched, and running conversations go on.
async fn reject(
    operator: &Operator,
    app: &GracefulApp,
    invalid: &[FieldError],
    memory: &mut AppMemory,
) -> Result<Duration, Error> {
    let due = report_invalid(operator, app, invalid, memory).await?;
    Ok(due.unwrap_or(RESTING_LOOK))
}

impl Operator {
    /// Drops all that is remembered of an app that is gone.
    pub(crate) fn forget(&self, app: &GracefulApp) {
        self.memory.forget(&app.uid().unwrap_or_default());
        self.forget_ref(&AppRef::from_obj(app));
    }

    /// The same for what is kept by name.
    pub(crate) fn forget_ref(&self, app: &AppRef) {
        self.probes.forget(app);
        self.metrics.forget(app);
        self.pulse.forget(app);
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
