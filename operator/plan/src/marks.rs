//! `disruption: HoldWhileBusy`: which pods carry the mark that keeps an eviction waiting. The PodDisruptionBudget selects those alone. Otherwise none carries it, but for
//! a queue worker that drains (`handed_over`): no budget protects it, and autoscalers go by the mark.
//!
//! # Guarantees
//! A pod is marked from birth, and for as long as it is not known to be idle: one that cannot be asked counts as busy (P7). Of a pod that drains the mark stays.
//! Once the mode is another, marks that nobody keeps in step would hold nodes for ever: they are taken off, of pods that a Deployment of before still makes too.
//!
//! # Caveats
//! A pod that was idle when it was asked may be busy a moment later, and is marked again when that is heard: within half a minute, or some minutes where a cluster
//! has more than 1,500 serving pods, and ten pods a second at most. What is evicted in between drains itself in its grace period (P2).

use std::time::Duration;

use graceful_api::Signal;
use jiff::{SignedDuration, Timestamp};

use crate::action::Action;
use crate::draft::{Draft, pod_ref};
use crate::observed::{Mark, Pod};
use crate::snapshot::Snapshot;

/// How old the word may be that a pod is idle. Serving pods are asked each half minute, and where there are tens of thousands, under the global rate cap, each in
/// some minutes.
const HEARD_LATELY: SignedDuration = SignedDuration::from_mins(10);

/// A pod that has just come into service has no clients yet, and will have some: it is known to be idle once it says so this much later.
const NEWCOMER: SignedDuration = SignedDuration::from_secs(10);

/// How long a mark that was just written is left alone: a pod whose work comes and goes is written to that often at most.
pub const MARK_RESTS: Duration = Duration::from_secs(10);

/// So many in a plan: an app of thousands of pods has other things to do as well.
const MARKS_PER_PLAN: usize = 5;

/// When what remains is planned.
const NEXT_MARKS_IN: SignedDuration = SignedDuration::from_secs(1);

pub(crate) fn keep(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    if !snapshot.observed.app.hold_while_busy {
        return take_off(snapshot, draft);
    }
    // What it said while it was new does not count. The next survey may be half a minute away, and an unchanged answer would have no plan made.
    draft.ask_for_marks =
        snapshot.remaining.iter().any(|p| p.mark == Mark::Busy && says_too_early(snapshot, p));
    let wrong = |p: &Pod| wanted(snapshot, p).is_some_and(|mark| mark != p.mark);
    let mut wrong: Vec<_> = writable(snapshot).filter(|p| wrong(p)).collect();
    // To protect is urgent; to let go is not.
    wrong.sort_by_key(|p| (wanted(snapshot, p) == Some(Mark::Idle), &p.name));
    for pod in some_of(snapshot, wrong) {
        let busy = wanted(snapshot, pod) == Some(Mark::Busy);
        draft.act(Action::Mark { pod: pod_ref(pod), busy });
    }
}

fn take_off(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let drains_itself = |p: &Pod| p.drain.is_some() && snapshot.policy(p).signal == Signal::Sigterm;
    let mut marked: Vec<_> =
        writable(snapshot).filter(|p| p.mark != Mark::Absent && !drains_itself(p)).collect();
    marked.sort_by_key(|p| &p.name);
    for pod in some_of(snapshot, marked) {
        draft.act(Action::Unmark { pod: pod_ref(pod) });
    }
}

/// The pods that may be written to now.
fn writable<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Pod> {
    let rests = |p: &Pod| p.mark_rests_until.is_some_and(|until| !snapshot.clock.has_come(until));
    snapshot
        .remaining
        .iter()
        .copied()
        .filter(move |p| !snapshot.backs_off(p.write_backoff.as_ref()) && !rests(p))
}

/// As many as one plan writes to. Not all that are planned are done: the rate of all apps together is bounded.
fn some_of<'a>(snapshot: &Snapshot<'_>, pods: Vec<&'a Pod>) -> impl Iterator<Item = &'a Pod> {
    if !pods.is_empty() {
        snapshot.clock.wake_in(NEXT_MARKS_IN);
    }
    pods.into_iter().take(MARKS_PER_PLAN)
}

/// The mark that the pod should carry. None leaves the mark as it is: the pod was not heard yet, is too new to be known idle, or drains.
fn wanted(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<Mark> {
    let contact = snapshot.contact(pod);
    let answer = contact.and_then(|c| c.answer.as_ref());
    let failing = contact.is_some_and(|c| c.error.is_some() || c.several);
    let lately = |at: Timestamp| !snapshot.clock.has_come(at.saturating_add(HEARD_LATELY).unwrap_or(at));
    match answer {
        Some(answer) if !failing && answer.in_flight.total == 0 && lately(answer.at) => {
            if pod.mark.is_clear() && in_service(snapshot, pod).is_none_or(|known| answer.at < known) {
                return None;
            }
            pod.routed.then_some(Mark::Idle)
        }
        None if !failing && pod.mark.is_clear() => None,
        Some(_) | None => Some(Mark::Busy),
    }
}

/// From when on it may be known to be idle; none while it is not Available.
fn in_service(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<Timestamp> {
    snapshot.available_from(pod)?.checked_add(NEWCOMER).ok()
}

/// Whether the pod was heard idle before it may be known to be, and may be by now.
fn says_too_early(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let contact = snapshot.contact(pod).filter(|c| c.error.is_none() && !c.several);
    let idle = contact.and_then(|c| c.answer.as_ref()).filter(|answer| answer.in_flight.total == 0);
    let known = in_service(snapshot, pod).filter(|_| pod.routed);
    idle.zip(known).is_some_and(|(answer, known)| answer.at < known && snapshot.clock.has_come(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::{Answer, Contact, ContactError, InFlight};
    use crate::fixture;
    use crate::observed::{DrainNote, Observed, Readiness, Revision};
    use graceful_api::DrainReason;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn heard(total: u64) -> Contact {
        let in_flight = InFlight { total, ..InFlight::default() };
        Contact {
            answer: Some(Answer { at: at(100), in_flight, protocol: None, scheduled: None }),
            ..Contact::default()
        }
    }

    fn asked_afresh(pod: Pod, contact: Contact, now: i64) -> bool {
        planned(pod, contact, now).ask_for_marks
    }

    fn marked(pod: Pod, contact: Contact, now: i64) -> Option<bool> {
        planned(pod, contact, now).actions.iter().find_map(|action| match action {
            Action::Mark { busy, .. } => Some(*busy),
            _ => None,
        })
    }

    fn planned(pod: Pod, contact: Contact, now: i64) -> Draft {
        let mut app = fixture::app(1, fixture::policy(Signal::Http));
        app.hold_while_busy = true;
        let mut observed = fixture::observed(app);
        observed.contacts = [(pod.uid.clone(), contact)].into();
        observed.pods = vec![pod];
        kept(&observed, now)
    }

    fn kept(observed: &Observed, now: i64) -> Draft {
        let snapshot = Snapshot::of(observed, at(now));
        let mut draft = Draft::new(&snapshot);
        keep(&snapshot, &mut draft);
        draft
    }

    #[test]
    fn a_pod_is_marked_unless_it_is_known_to_be_idle() {
        let born = || Pod { mark: Mark::Busy, ..fixture::serving("a") };
        let idle = || Pod { mark: Mark::Idle, ..fixture::serving("a") };
        assert_eq!(marked(born(), Contact::default(), 100), None, "not asked yet");
        let newcomer = Pod { readiness: Readiness::Ready(at(95)), ..born() };
        assert_eq!(marked(newcomer.clone(), heard(0), 101), None, "clients are on their way");
        assert!(!asked_afresh(newcomer.clone(), heard(0), 104));
        assert!(asked_afresh(newcomer.clone(), heard(0), 105), "what it said at 100 is too old");
        assert!(!asked_afresh(newcomer, heard(2), 105), "it is busy");
        assert!(!asked_afresh(idle(), heard(0), 105));
        assert_eq!(marked(born(), heard(0), 101), Some(false));
        assert_eq!(marked(idle(), heard(0), 101), None, "no more writes");
        assert_eq!(marked(idle(), heard(2), 101), Some(true));
        assert_eq!(marked(idle(), heard(0), 701), Some(true), "it was not heard for long");
        let error = ContactError { message: "no answer".to_owned(), since: at(100) };
        let failing = Contact { error: Some(error), ..heard(0) };
        assert_eq!(marked(idle(), failing, 101), Some(true), "unknown is busy");
        assert_eq!(marked(idle(), Contact::default(), 100), None, "a restarted operator asks first");
        let stripped = Pod { mark: Mark::Unclear, ..fixture::serving("a") };
        assert_eq!(marked(stripped, Contact::default(), 100), Some(true), "half a mark protects from half");
        let draining = Pod { routed: false, ..born() };
        assert_eq!(marked(draining, heard(0), 101), None, "it is about to be ended");
        let lately = Pod { mark_rests_until: Some(at(110)), ..idle() };
        assert_eq!(marked(lately, heard(2), 101), None, "one write in ten seconds");
        let made_otherwise = fixture::serving("a");
        assert_eq!(marked(made_otherwise, Contact::default(), 100), Some(true), "it is not marked yet");
    }

    /// An autoscaler goes by the annotations whatever the mode is: marks that nobody keeps in step would hold their nodes for ever.
    #[test]
    fn marks_of_another_mode_are_taken_off_but_for_workers_that_drain() {
        let unmarked = |signal, pods: &[Pod]| {
            let policy = fixture::policy(signal);
            let mut observed = fixture::observed(fixture::app(1, policy));
            observed.revisions = vec![Revision { policy, ..fixture::revision("r") }];
            observed.pods = pods.to_vec();
            let draft = kept(&observed, 100);
            let names = draft.actions.iter().map(|action| match action {
                Action::Unmark { pod } => pod.name.clone(),
                other => panic!("{other:?}"),
            });
            names.collect::<Vec<_>>()
        };
        let pod = |name: &str, mark| Pod { mark, ..fixture::serving(name) };
        let pods = [
            pod("c", Mark::Unclear),
            pod("b", Mark::Idle),
            pod("a", Mark::Busy),
            pod("plain", Mark::Absent),
            Pod { mark_rests_until: Some(at(110)), ..pod("lately", Mark::Busy) },
            Pod { terminating: true, routed: false, ..pod("ends", Mark::Busy) },
        ];
        assert_eq!(unmarked(Signal::Http, &pods), ["a", "b", "c"]);
        assert_eq!(unmarked(Signal::Sigterm, &pods), ["a", "b", "c"]);
        let drain = Some(DrainNote { reason: DrainReason::Rollout, since: at(90) });
        let draining = [Pod { drain, routed: false, ..pod("a", Mark::Busy) }];
        assert_eq!(unmarked(Signal::Http, &draining), ["a"]);
        assert_eq!(unmarked(Signal::Sigterm, &draining), [""; 0], "an autoscaler would take its node");
        let many: Vec<_> = (0..MARKS_PER_PLAN + 2).map(|n| pod(&format!("p{n}"), Mark::Busy)).collect();
        assert_eq!(unmarked(Signal::Http, &many).len(), MARKS_PER_PLAN);
    }
}
