//! The operator: what every part shares, and [`reconcile`], which reads as the table of contents.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use graceful_api::conditions::Reason;
use graceful_api::{FieldError, GracefulApp, Phase};
use graceful_plan::Action;
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use tracing::{error, warn};

use crate::decode::Decoded;
use crate::error::{Error, chain};
use crate::execute::{GROWN_OLD, Outcome, Scene, execute};
use crate::leader::Leadership;
use crate::memory::{AppMemory, Memory, Rest};
use crate::observe::{Stores, observe};
use crate::probe::{AppRef, Probes};
use crate::pulse::Pulse;
use crate::report::{Recorder, report, report_invalid, report_stalled};
use crate::schedule::Next;
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
    /// None is all.
    pub(crate) namespaces: BTreeSet<String>,
}

/// While work goes on, the longest time between two looks, and between two live views: what a watch that has gone blind could hide is found within it.
pub(crate) const ACTIVE_LOOK: Duration = Duration::from_secs(10);

/// The same for an app that waits for a person, for days perhaps: it is Stalled, Paused or Held. What moves there is shown by its watch or its probes.
pub(crate) const WAITING_LOOK: Duration = Duration::from_secs(60);

/// The same for an app at rest. A watch is renewed by the API server about as often.
pub(crate) const RESTING_LOOK: Duration = Duration::from_secs(300);

/// After things were found changed, the first next look: by then the watches have usually shown it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After a failure, the first next try, and the longest time between two.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// After a panic, the first next try, and the longest time between two: it takes a fix of ours, or another spec.
const RECOVER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// One look at one app, and what follows from it. Never fails: what went wrong is logged, counted and tried again, less and less often.
pub(crate) async fn reconcile(operator: &Operator, app: &Decoded<GracefulApp>) -> Next {
    let app_ref = AppRef::from_obj(&**app);
    if !operator.runs_in(&app.namespace().unwrap_or_default()) {
        return Next { after: RESTING_LOOK, urgent: false, strained: false };
    }
    let memory = operator.memory.of(&app.uid().unwrap_or_default());
    let mut memory = memory.lock().await;
    let going = app.metadata.deletion_timestamp.is_some();
    let of = (app.metadata.generation, going);
    if let Some(rest) = memory.rests.filter(|rest| rest.of == of) {
        let left = rest.until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            operator.pulse.forget(&app_ref);
            return Next { after: left, urgent: false, strained: false };
        }
    }
    memory.rests = None;
    let started = Instant::now();
    // What a panic leaves half-done in this memory is put right by the live look that follows it.
    let step = AssertUnwindSafe(step(operator, app, &app_ref, &mut memory)).catch_unwind();
    let step = operator.pulse.of(&app_ref, step).await;
    let category = match &step {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some(failure.error.category()),
        Err(_) => Some("panic"),
    };
    operator.metrics.reconciled(started.elapsed(), category);
    let failures = memory.failures;
    let (after, strained) = match step {
        Ok(Ok(next)) => {
            memory.failures = 0;
            return Next { after: next, urgent: going || memory.active, strained: false };
        }
        Ok(Err(Failure { error, reading })) => {
            let next = doubled(RETRY.0, failures, RETRY.1);
            warn!(app = %app_ref, failures = failures + 1, "{}; next try in {next:?}", chain(&error));
            (next, reading && error.of_the_server())
        }
        Err(panic) => {
            let next = doubled(RECOVER.0, failures, RECOVER.1);
            let what = words_of(panic.as_ref());
            error!(app = %app_ref, "the plan of this app panicked: {what}; next try in {next:?}");
            let message = format!(
                "the operator failed on this app by a fault of its own ({what}): nothing of it is touched until that passes or the spec changes; \
                 please report it"
            );
            let told = report_stalled(operator, app, Reason::OperatorFault, &message, &mut memory);
            if let Ok(Err(error)) = AssertUnwindSafe(told).catch_unwind().await {
                warn!(app = %app_ref, "{}", chain(&error));
            }
            (next, false)
        }
    };
    memory.failures = failures.saturating_add(1);
    memory.look_live = true;
    memory.rests = Some(Rest { until: Instant::now() + after, of });
    Next { after, urgent: going || memory.active, strained }
}

/// A step that did not come to its end.
struct Failure {
    error: Error,
    /// Nothing had been decided yet.
    reading: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, reading: false }
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    words
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// Observe, plan, execute, report. Says when to look again at the latest.
async fn step(
    operator: &Operator,
    app: &Decoded<GracefulApp>,
    app_ref: &AppRef,
    memory: &mut AppMemory,
) -> Result<Duration, Failure> {
    if !operator.leadership.held() {
        return Ok(RESTING_LOOK);
    }
    #[cfg(test)]
    assert!(!app.annotations().contains_key("test/panic"), "a test wants a panic");
    let reading = |error| Failure { error, reading: true };
    let seen = match observe(operator, app, memory).await.map_err(reading)? {
        Ok(seen) => seen,
        Err(invalid) => return Ok(reject(operator, app, &invalid, memory).await?),
    };
    let mut plan = graceful_plan::plan(&seen.observed, Timestamp::now());
    operator.probes.converse(app_ref, &plan.conversations, &seen.targets);
    let mut scene =
        Scene { operator, object: app, seen: &seen, memory, planned: Instant::now(), unanswered: 0 };
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
    // "All is as the spec says" would be the word of a plan that did not know yet what it would meet. The next one, in a moment, does.
    let premature = plan.report.phase == Phase::Serving && !matches!(executed.outcome, Ok(Outcome::Done));
    // The actions that failed as well: they may have had their effect.
    let due = match premature {
        true => Ok(None),
        false => report(operator, app, &seen, &plan.report, &plan.actions, memory).await,
    };
    let look = match plan.report.phase {
        Phase::Rolling | Phase::Draining | Phase::Deleting => ACTIVE_LOOK,
        Phase::Stalled | Phase::Paused | Phase::Held => WAITING_LOOK,
        Phase::Serving => RESTING_LOOK,
    };
    (memory.look, memory.active) = (Some(look), look == ACTIVE_LOOK);
    let outcome = executed.outcome?;
    let mut next = if memory.active { look } else { spread(look) };
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
        // It got somewhere, however slowly.
        Outcome::LookAgain(GROWN_OLD) => {
            next = next.min(LOOK_AGAIN);
            0
        }
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
    /// Where two operators share a cluster, each leaves the other's namespaces alone.
    fn runs_in(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }

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
        self.stores.concerns.forget(app);
    }
}

/// Somewhat sooner, each time otherwise: apps that were listed together do not look again together.
fn spread(longest: Duration) -> Duration {
    longest.mul_f64(rand::random_range(0.7..1.0))
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
