//! One look at one app: observe → plan → converse → execute → report. The operator's table of contents.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use graceful_api::conditions::Reason;
use graceful_api::{GracefulApp, Phase};
use graceful_plan::{Action, TemplateVerdict};
use jiff::Timestamp;
use kube::ResourceExt;
use tracing::{error, warn};

use crate::app_ref::AppRef;
use crate::decode::Decoded;
use crate::error::{Error, FailureClass, chain};
use crate::execute::{Outcome, Scene, execute};
use crate::memory::AppMemory;
use crate::observe::{Newest, Observation, Trust, newest, observe};
use crate::operator::Operator;
use crate::report::{report, report_invalid, report_stalled};
use crate::requeue::{Desired, Due, Execution, Fault, RESTING};
use crate::schedule::Next;

/// Never fails: what went wrong is logged, counted and retried, less and less often.
pub(crate) async fn reconcile(operator: &Operator, app: &Decoded<GracefulApp>) -> Next {
    let app_ref = AppRef::from_obj(&**app);
    if !operator.runs_in(&app.namespace().unwrap_or_default()) {
        return Next { after: RESTING, urgent: false, strained: false };
    }
    let memory = operator.memory.of(&app.uid().unwrap_or_default());
    let mut memory = memory.lock().await;
    let desired = Desired::of(app);
    if let Some(left) = memory.requeue.pause_left(desired, Instant::now()) {
        operator.pulse.forget(&app_ref);
        return Next { after: left, urgent: false, strained: false };
    }
    let started = Instant::now();
    // What a panic leaves half-done in this memory is put right by the live look that follows it.
    let step = AssertUnwindSafe(step(operator, app, &app_ref, &mut memory)).catch_unwind();
    let step = operator.pulse.of(&app_ref, step).await;
    let failure = match &step {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some(failure.error.class()),
        Err(_) => Some(FailureClass::Panic),
    };
    operator.metrics.reconciled(started.elapsed(), failure);
    let (after, strained) = match step {
        Ok(Ok(after)) => (after, false),
        Ok(Err(Failure { error, reading })) => {
            let next = memory.requeue.failed(Fault::Call, desired, Instant::now());
            let failures = memory.requeue.failures();
            warn!(app = %app_ref, failures, "{}; retrying in {:.1} s", chain(&error), next.as_secs_f32());
            memory.writes.look_live = true;
            (next, reading && error.of_the_server())
        }
        Err(panic) => {
            let next = memory.requeue.failed(Fault::Panic, desired, Instant::now());
            memory.writes.look_live = true;
            let what = words_of(panic.as_ref());
            error!(app = %app_ref, "reconciling this app panicked: {what}; retrying in {:.1} s", next.as_secs_f32());
            tell_of_the_fault(operator, app, &what, &mut memory).await;
            (next, false)
        }
    };
    Next { after, urgent: desired.going || memory.requeue.is_active(), strained }
}

/// Says when to look again at the latest.
async fn step(
    operator: &Operator,
    app: &Decoded<GracefulApp>,
    app_ref: &AppRef,
    memory: &mut AppMemory,
) -> Result<Duration, Failure> {
    let Operator { sources, probes, supplies, reporter, metrics, .. } = operator;
    let AppMemory { sightings, writes, taken_back, reported, requeue } = memory;
    if !operator.leadership.held() {
        return Ok(requeue.idle(None));
    }
    #[cfg(test)]
    assert!(!app.annotations().contains_key("test/panic"), "a test wants a panic");

    // Observe: reads, from memory or live. An invalid spec is told, nothing is touched, and what is said to pods goes on.
    let read;
    let newest = newest(sources, app, requeue.longest(), writes, sightings).await;
    let app = match newest.map_err(|error| Failure { error, reading: true })? {
        Newest::AsKnown => app,
        Newest::Read(app) => {
            read = app;
            &*read
        }
        Newest::Gone => return Ok(requeue.idle(None)), // the watch says so as well, sooner or later
    };
    let orphaned = operator.memory.orphaned(&app.uid().unwrap_or_default());
    let trust = Trust { orphaned, watches_for: requeue.longest() };
    let seen = observe((sources, probes), app, trust, writes, sightings).await;
    let seen = match seen.map_err(|error| Failure { error, reading: true })? {
        Ok(seen) => seen,
        Err(invalid) => {
            let due = report_invalid(reporter, app, &invalid, reported).await?;
            return Ok(requeue.idle(due));
        }
    };

    // Plan: pure.
    let mut plan = graceful_plan::plan(&seen.observed, sources.clock.now());

    // Converse: what is said to which pod from now on; their answers come by themselves.
    probes.converse(app_ref, &plan.conversations, &seen.targets);

    // Execute: writes to children and pods, in the plan's order.
    let mut scene = Scene {
        sources,
        probes,
        supplies,
        metrics,
        object: app,
        seen: &seen,
        writes,
        taken_back,
        planned: Instant::now(),
        unanswered: 0,
        notes: Vec::new(),
    };
    let executed = execute(&mut scene, &plan.actions).await;
    for (reason, note) in scene.notes {
        reported.note(reason, note);
    }
    if let Err(error) = &executed.outcome {
        // A webhook or quota may refuse our writes for hours, so WAITING-FOR names it.
        let waiting_for = &mut plan.report.waiting_for;
        let joint = if waiting_for.is_empty() { "" } else { "; " };
        *waiting_for = format!("{waiting_for}{joint}{} (retrying)", chain(error));
    }
    if executed.done.contains(&Action::ReleaseFinalizer) {
        operator.forget(app); // nothing of it is ours any more, and no status is written to what is gone
        return Ok(requeue.idle(None));
    }

    // Report: status, Events, metrics. A plan that met a surprise may have called the app settled too early: the next one, in
    // a moment, reports. All that was planned is handed on, tried or not: of a pod that was to be cut and is gone, nobody knows.
    let premature = plan.report.phase == Phase::Serving && !matches!(executed.outcome, Ok(Outcome::Done));
    let told = match premature {
        true => Ok(None),
        false => report(reporter, app, &seen, &plan.report, &plan.actions, reported).await,
    };

    // And when to look again.
    requeue.found(plan.report.phase);
    let execution = match executed.outcome? {
        Outcome::Done | Outcome::NotNeeded(_) => Execution::Complete,
        Outcome::GrownOld => Execution::GrewOld,
        Outcome::Refused(_)
        | Outcome::LookAgain(_)
        | Outcome::DoneLookAgain(_)
        | Outcome::Answered
        | Outcome::Later => Execution::Surprised,
    };
    let until =
        |at: Timestamp| Duration::try_from(at.duration_since(sources.clock.now())).unwrap_or_default();
    let due = Due {
        plan: plan.wake_at.map(until),
        look: [sightings.due(), keys_due(&seen)].into_iter().flatten().min(),
        retry: writes.next_retry(),
        report: told?,
    };
    Ok(requeue.planned(execution, due, rand::random_range(0.7..1.0)))
}

/// A revision that waits for its keys is made as soon as they are there, which no watch shows.
fn keys_due(seen: &Observation) -> Option<Duration> {
    matches!(seen.observed.surroundings.template, TemplateVerdict::Awaits(_))
        .then_some(Duration::from_secs(1))
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

/// The app itself says that it stands still, and why.
async fn tell_of_the_fault(operator: &Operator, app: &GracefulApp, what: &str, memory: &mut AppMemory) {
    let message = format!(
        "the operator hit a bug of its own on this app ({what}). It retries, at most every 5 min, or when the spec changes; please report it"
    );
    let reported = &mut memory.reported;
    let told = report_stalled(&operator.reporter, app, Reason::OperatorFault, &message, reported);
    if let Ok(Err(error)) = AssertUnwindSafe(told).catch_unwind().await {
        warn!(app = %AppRef::from_obj(app), "{}", chain(&error));
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    words
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
