//! When an app is looked at again at the latest, whatever its watches and its pods tell until then.
//!
//! Pure: the caller brings the clock and the dice.

use std::time::{Duration, Instant};

use graceful_api::{GracefulApp, Phase};
use graceful_plan::Doubling;

/// While work goes on, the longest time between two looks, and between two live views: what a watch that has gone blind could hide is found within it.
const ACTIVE: Duration = Duration::from_secs(10);

/// The same for an app that waits for a person, for days perhaps: it is Stalled, Paused or Held. What moves there is shown by its watch or its probes.
const WAITING: Duration = Duration::from_secs(60);

/// The same for an app at rest. A watch is renewed by the API server about as often.
pub(crate) const RESTING: Duration = Duration::from_secs(300);

/// After things were found changed, the first next look: by then the watches have usually shown it.
const LOOK_AGAIN_IN: Duration = Duration::from_millis(20);

/// After a failure, the first next try, and the longest time between two.
const RETRY: Doubling = Doubling { first: Duration::from_millis(200), longest: Duration::from_secs(30) };

/// After a panic, the first next try, and the longest time between two: it takes a fix of ours, or another spec.
const RECOVER: Doubling = Doubling { first: Duration::from_secs(10), longest: Duration::from_secs(300) };

/// The clock's own grain: an alarm that rings early would only be set again.
const GRAIN: Duration = Duration::from_millis(1);

/// What one app's next look depends on.
#[derive(Debug, Default)]
pub(crate) struct Requeue {
    /// What the last plan left the app in; none before the first.
    phase: Option<Phase>,
    /// Plans in a row that found things changed.
    surprises: u32,
    /// Reconciles in a row that failed.
    failures: u32,
    /// No plan before this moment, whatever asks, unless the user changes something.
    pause: Option<Pause>,
}

/// A pause that watch events do not shorten.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    of: Desired,
}

/// What the user asks for. Neither part goes back, so that of two the later is the greater; a change ends a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Desired {
    /// The generation of the spec.
    pub(crate) generation: Option<i64>,
    /// The app is to go.
    pub(crate) going: bool,
}

impl Desired {
    pub(crate) fn of(app: &GracefulApp) -> Self {
        let going = app.metadata.deletion_timestamp.is_some();
        Self { generation: app.metadata.generation, going }
    }
}

/// How far a plan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    /// To its end.
    Complete,
    /// Somewhere, and slowly: what is left of it had grown old.
    GrewOld,
    /// Something had changed or was refused: look again soon, to report it and to do what does not depend on it.
    Surprised,
}

/// What else asks for a look, each in how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    /// The plan itself.
    pub(crate) plan: Option<Duration>,
    /// What no watch shows.
    pub(crate) look: Option<Duration>,
    /// Something that was refused and may be tried again.
    pub(crate) retry: Option<Duration>,
    /// A report that had to wait.
    pub(crate) report: Option<Duration>,
}

/// Why a reconcile did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A call failed.
    Call,
    /// The operator's own.
    Panic,
}

impl Requeue {
    /// Work goes on: the app goes before those at rest.
    pub(crate) fn is_active(&self) -> bool {
        self.longest() == ACTIVE
    }

    /// What is left of a pause.
    pub(crate) fn pause_left(&mut self, desired: Desired, now: Instant) -> Option<Duration> {
        let pause = self.pause.filter(|pause| pause.of == desired && pause.until > now);
        if pause.is_none() {
            self.pause = None;
        }
        pause.map(|pause| pause.until - now)
    }

    /// A plan found the app in this phase.
    pub(crate) fn found(&mut self, phase: Phase) {
        self.phase = Some(phase);
    }

    /// A plan was executed. Apps at rest that were listed together do not look again together: `spread`, below 1, shortens their time.
    pub(crate) fn planned(&mut self, execution: Execution, due: Due, spread: f64) -> Duration {
        let longest = if self.is_active() { ACTIVE } else { self.longest().mul_f64(spread) };
        let again = match execution {
            Execution::Complete => None,
            Execution::GrewOld => Some(LOOK_AGAIN_IN),
            Execution::Surprised => {
                Some(Doubling { first: LOOK_AGAIN_IN, longest: ACTIVE }.after(self.surprises))
            }
        };
        self.surprises = if execution == Execution::Surprised { self.surprises.saturating_add(1) } else { 0 };
        self.failures = 0;
        let asked = [due.plan, due.look, due.retry, due.report, again].into_iter().flatten();
        asked.fold(longest, Duration::min) + GRAIN
    }

    /// Nothing was planned, for nothing is to be done.
    pub(crate) fn idle(&mut self, due: Option<Duration>) -> Duration {
        self.failures = 0;
        due.unwrap_or(RESTING)
    }

    /// The reconcile failed: the next one is after this pause.
    pub(crate) fn failed(&mut self, fault: Fault, desired: Desired, now: Instant) -> Duration {
        let pauses = match fault {
            Fault::Call => RETRY,
            Fault::Panic => RECOVER,
        };
        let pause = pauses.after(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(Pause { until: now + pause, of: desired });
        pause
    }

    /// Reconciles in a row that failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The longest time between two looks; and how long the watches are trusted without a live view.
    pub(crate) fn longest(&self) -> Duration {
        match self.phase {
            Some(Phase::Rolling | Phase::Draining | Phase::Deleting) => ACTIVE,
            Some(Phase::Stalled | Phase::Paused | Phase::Held) => WAITING,
            Some(Phase::Serving) | None => RESTING,
        }
    }
}

#[cfg(test)]
mod tests;
