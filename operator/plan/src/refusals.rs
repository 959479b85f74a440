//! What the API server would not do, and when it is retried: a pause that no watch event shortens.
//!
//! `operator/src/execute` notes what it met, `observe` shows it to the planner, which leaves the object alone meanwhile. Pauses are measured by the
//! monotonic clock, so each call is given its moment as an [`Instant`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use graceful_api::RevisionHash;
use jiff::Timestamp;

use crate::clock::after;
use crate::doubling::Doubling;
use crate::ids::PodUid;
use crate::observed::{Backoff, BackoffCause};

/// What is written to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The scale of a revision's Deployment: without it no pod of it is ended.
    Deployment(RevisionHash),
    /// Our annotations on it, and its deletion once it is history: no drain waits for them.
    Annotations(RevisionHash),
    /// The pod itself: its labels and annotations, and its end.
    Pod(PodUid),
    /// A Service, by name, that is fenced, given back or let go of: the selectors of an adoption, and what makes the managed one ours.
    Service(String),
    /// Our finalizer on the GracefulApp: nothing is made before it is on.
    Finalizer,
}

/// One app's. Lost with the process, which then tries once and knows again.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Subject, Refused>);

#[derive(Debug)]
struct Refused {
    times: u32,
    kind: BackoffCause,
    message: String,
    /// A pod was ended whose replica was not taken back.
    late: bool,
    /// Another write has gone through since.
    passed: bool,
    at: Instant,
}

/// The pauses between tries: whoever has put a policy right waits for us, and one that stays costs a dry run a minute.
const RETRY: Doubling = Doubling { first: Duration::from_secs(5), longest: Duration::from_secs(60) };

/// How long after its pause a refusal is still shown. What is not retried by then has no reason to be any more.
const SHOWN_FOR: Duration = Duration::from_secs(5);

/// When a refusal is forgotten, although no write has gone through since.
const FORGET_REFUSALS_AFTER: Duration = Duration::from_secs(3600);

/// After a write has gone through, a refusal is forgotten after this, or after twice its pause if that is longer.
const FORGET_PASSED_AFTER: Duration = Duration::from_secs(60);

impl Refusals {
    /// A write was refused, or would come too late. Each time the pause doubles.
    pub fn note(&mut self, subject: Subject, kind: BackoffCause, message: String, at: Instant) {
        let before = self.0.get(&subject).filter(|r| !r.forgotten(at));
        let (times, late) = before.map_or((0, false), |r| (r.times.saturating_add(1), r.late));
        self.0.insert(subject, Refused { times, kind, message, late, passed: false, at });
    }

    /// The same of a scale that did not follow its DELETE.
    pub fn note_late(&mut self, subject: &Subject, kind: BackoffCause, message: String, at: Instant) {
        self.note(subject.clone(), kind, message, at);
        if let Some(refused) = self.0.get_mut(subject) {
            refused.late = true;
        }
    }

    /// A scale did not follow its DELETE in time, not long ago.
    pub fn came_late(&self, subject: &Subject, at: Instant) -> bool {
        self.0.get(subject).is_some_and(|r| r.late && !r.forgotten(at))
    }

    /// A write went through. What was refused is shown no more, and its pauses are remembered for a while: where admission takes one write and refuses the
    /// other, they come by turns.
    pub fn cleared(&mut self, subject: &Subject) {
        if let Some(refused) = self.0.get_mut(subject) {
            refused.passed = true;
        }
    }

    /// What the last write met, while that is worth showing. `now` and `at` are the same moment, by the clock that plans are made by and by the one that
    /// pauses are measured by.
    pub fn of(&self, subject: &Subject, now: Timestamp, at: Instant) -> Option<Backoff> {
        let refused = self.0.get(subject).filter(|r| !r.passed && r.age(at) < r.pause() + SHOWN_FOR)?;
        let left = refused.pause().saturating_sub(refused.age(at));
        let until = after(now, left);
        Some(Backoff { cause: refused.kind, message: refused.message.clone(), until })
    }

    /// The same of all Services, by name: also of those that no other thing in view speaks of.
    pub fn of_services(&self, now: Timestamp, at: Instant) -> BTreeMap<String, Backoff> {
        let names = self.0.keys().filter_map(|subject| match subject {
            Subject::Service(name) => Some(name),
            Subject::Deployment(_) | Subject::Annotations(_) | Subject::Pod(_) | Subject::Finalizer => None,
        });
        names
            .filter_map(|name| Some((name.clone(), self.of(&Subject::Service(name.clone()), now, at)?)))
            .collect()
    }

    /// A write to it was refused not long ago.
    pub fn knows(&self, subject: &Subject, at: Instant) -> bool {
        self.0.get(subject).is_some_and(|r| r.kind == BackoffCause::Refused && !r.forgotten(at))
    }

    /// Drops what concerns pods that are gone.
    pub fn keep_pods(&mut self, there: impl Fn(&PodUid) -> bool, at: Instant) {
        self.0.retain(|subject, refused| match subject {
            Subject::Pod(uid) => there(uid) && !refused.forgotten(at),
            Subject::Deployment(_) | Subject::Annotations(_) | Subject::Service(_) | Subject::Finalizer => {
                !refused.forgotten(at)
            }
        });
    }
}

impl Refused {
    fn pause(&self) -> Duration {
        RETRY.after(self.times)
    }

    fn age(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.at)
    }

    /// Long past: the next refusal is a first one. Far longer than a pod takes to come and go, or each round of a loop would be the first.
    fn forgotten(&self, at: Instant) -> bool {
        let remembered =
            if self.passed { FORGET_PASSED_AFTER.max(2 * self.pause()) } else { FORGET_REFUSALS_AFTER };
        self.age(at) > remembered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Subject {
        Subject::Deployment(RevisionHash::from("abc"))
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other beginning; the test counts from it"
    )]
    fn a_pause_doubles_until_writes_go_through_for_a_while() {
        let at = Instant::now();
        let mut refusals = Refusals::default();
        let pause = |refusals: &mut Refusals, at| {
            refusals.note(deployment(), BackoffCause::Refused, "denied".to_owned(), at);
            refusals.0[&deployment()].pause().as_secs()
        };
        assert_eq!([0; 3].map(|_| pause(&mut refusals, at)), [5, 10, 20]);
        refusals.cleared(&deployment());
        assert_eq!(refusals.of(&deployment(), Timestamp::UNIX_EPOCH, at), None, "it is shown no more");
        assert_eq!(pause(&mut refusals, at), 40, "one write is taken and the other refused, by turns");
        for _ in 0..40 {
            assert!(pause(&mut refusals, at) <= 60);
        }
        refusals.cleared(&deployment());
        assert_eq!(
            pause(&mut refusals, at + Duration::from_secs(121)),
            5,
            "two minutes after one that went through"
        );
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other beginning; the test counts from it"
    )]
    fn a_refusal_is_shown_for_some_seconds_past_its_pause() {
        let at = Instant::now();
        let mut refusals = Refusals::default();
        refusals.note(deployment(), BackoffCause::Refused, "denied".to_owned(), at);
        let until = |second| {
            let now = Timestamp::from_second(second).unwrap();
            let shown = refusals.of(&deployment(), now, at + Duration::from_secs(second.unsigned_abs()));
            shown.map(|backoff| backoff.until.as_second())
        };
        assert_eq!([0, 4, 5, 9, 10].map(until), [Some(5), Some(5), Some(5), Some(9), None]);
    }
}
