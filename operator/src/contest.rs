//! A child that others change back each time it is put right: bounded writes, and a word about it.

use std::time::{Duration, Instant};

use graceful_plan::Doubling;

/// Corrections that are made at once: a person who edits a child twice is no controller.
const FREE: u32 = 3;

/// The waits after these.
const WAITS: Doubling = Doubling { first: Duration::from_secs(10), longest: Duration::from_secs(600) };

/// How long after its wait a contest is still shown: by then others have changed the child back, or have left it.
const SHOWN_FOR: Duration = Duration::from_secs(5);

/// What is remembered of one child.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contest {
    /// The fingerprint that was last applied by this process.
    applied: Option<String>,
    /// Corrections in a row.
    times: u32,
    last: Option<Instant>,
    /// What was last found, as in "spec.selector (by kubectl-edit)".
    found: String,
}

impl Contest {
    /// Notes that this was applied; `undone` says what others had made of what was applied before, if that is why.
    pub(crate) fn applied(&mut self, fingerprint: &str, undone: Option<String>) {
        if self.calm() {
            self.times = 0;
        }
        self.applied = Some(fingerprint.to_owned());
        if let Some(found) = undone {
            self.times = self.times.saturating_add(1);
            self.last = Some(Instant::now());
            self.found = found;
        }
    }

    /// Whether this process has applied just that.
    pub(crate) fn has_applied(&self, fingerprint: &str) -> bool {
        self.applied.as_deref() == Some(fingerprint)
    }

    /// How long the next correction has to wait; none where it may be made now.
    pub(crate) fn held(&self) -> Option<Duration> {
        self.wait().checked_sub(self.last?.elapsed()).filter(|left| !left.is_zero())
    }

    /// Whether that is still to be said: while it waits, and until the correction that comes then has stood for a moment.
    pub(crate) fn told(&self) -> bool {
        !self.wait().is_zero() && self.last.is_some_and(|last| last.elapsed() < self.wait() + SHOWN_FOR)
    }

    /// For a condition.
    pub(crate) fn warning(&self, kind: &str, name: &str) -> String {
        let (found, times) = (&self.found, self.times);
        format!(
            "{kind} {name} is changed back by others: {found}; put right {times} times, retried every {} s at most: find out who writes to it, \
             or leave that field to the GracefulApp",
            self.wait().as_secs()
        )
    }

    /// After 3 corrections 10 s, then 20 s, 40 s … 10 min.
    fn wait(&self) -> Duration {
        self.times.checked_sub(FREE).map_or(Duration::ZERO, |beyond| WAITS.after(beyond))
    }

    /// Nothing was undone for a good while: twice what we would have waited, and ten minutes at least.
    fn calm(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() > (2 * self.wait()).max(WAITS.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_given_up_for_longer_and_longer() {
        let mut contest = Contest::default();
        contest.applied("f", None);
        assert_eq!(contest.held(), None, "the first time nothing was undone");
        let mut waits = Vec::new();
        for _ in 0..12 {
            contest.applied("f", Some("spec.selector".to_owned()));
            waits.push(contest.held().map_or(0, |left| left.as_secs_f64().round() as u64));
        }
        assert_eq!(waits, [0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
        assert!(
            contest
                .warning("Service", "work")
                .contains("Service work is changed back by others: spec.selector")
        );
    }
}
