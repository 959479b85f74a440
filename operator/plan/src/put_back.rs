//! Draining pods return to service: admission first, the label after.
//!
//! # Flow
//! a rule asks for a pod to be [`put_back`] → it is told to accept again, while no client is sent to it → it says that it does → the label.
//!
//! # Guarantees
//! A pod that can be told is routed to only once it has said that it accepts, in an epoch above its drain's: no client meets a closed latch, however slow
//! the pod or whoever speaks to it, and a PUT of its drain that is still under way is refused by it. What is told here is not written on the pod first: the next
//! leader finds a draining pod that has seen a higher epoch, and puts it back or drains it anew.

use graceful_api::{RevisionHash, Signal};
use jiff::Timestamp;

use crate::action::Action;
use crate::astray::may_be_told_anew;
use crate::clock::after;
use crate::contact::{OPENS_WITHIN, Way};
use crate::draft::{Draft, pod_ref};
use crate::ids::Epoch;
use crate::observed::{NodeFate, Pod, Readiness};
use crate::snapshot::Snapshot;
use crate::token_refused;

/// What is known of a pod's admission.
enum Admission {
    /// It accepts, in this epoch, and nobody has told it otherwise since.
    Open(Epoch),
    /// It is to be told first, in this epoch.
    ToBeOpened(Epoch),
    /// It has a label, and its clients with it: it is told once that is written.
    HasClients,
    /// It has none that we close: another signal than Http, or an answer that says nothing of the protocol.
    NoLatch,
    /// It has never answered, and is not Ready or does not answer now: as far as is known nobody has closed it.
    Unheard,
    /// It cannot open now.
    CannotOpen,
}

/// Puts a pod back, or takes the next step towards it. False where it cannot come back now, so that others are needed in its place.
pub(crate) fn put_back(snapshot: &Snapshot<'_>, draft: &mut Draft, pod: &Pod) -> bool {
    let epoch = match admission(snapshot, pod) {
        Admission::CannotOpen => return false,
        Admission::ToBeOpened(epoch) => {
            draft.reopen(pod, epoch);
            return true;
        }
        Admission::Open(epoch) => epoch,
        // The label alone decides.
        Admission::HasClients | Admission::NoLatch | Admission::Unheard => {
            draft.epochs.next_for(snapshot, pod)
        }
    };
    draft.act(Action::PutBack { pod: pod_ref(pod), epoch });
    true
}

fn admission(snapshot: &Snapshot<'_>, pod: &Pod) -> Admission {
    if pod.routed {
        return Admission::HasClients;
    }
    if snapshot.policy(pod).signal != Signal::Http {
        return Admission::NoLatch;
    }
    let silent = is_silent(snapshot, pod);
    let Some(answer) = snapshot.answer(pod) else {
        // No client can be sent to what is not Ready, and nobody can tell what never answers.
        let ready = matches!(pod.readiness, Readiness::Ready(_));
        return if silent || !ready { Admission::Unheard } else { Admission::ToBeOpened(next(pod.epoch)) };
    };
    let Some(protocol) = answer.protocol else { return Admission::NoLatch };
    // The drain's PUT may be under way still: only an answer to what was told after it counts.
    let told_after =
        pod.epoch.is_none_or(|ours| protocol.epoch > ours || (pod.drain.is_none() && protocol.epoch == ours));
    if protocol.accepting && told_after {
        return Admission::Open(protocol.epoch);
    }
    // It was told to resume already, and is closed all the same: it goes astray.
    let resumed_but_closed = protocol.epoch > pod.epoch.unwrap_or_default();
    let waits = resumed_but_closed && !may_be_told_anew(snapshot, pod);
    if !protocol.resumable || silent || late(snapshot, pod) || stays_closed(snapshot, pod) || waits {
        return Admission::CannotOpen;
    }
    Admission::ToBeOpened(next(pod.epoch).max(next(Some(protocol.epoch))))
}

/// The same from plan to plan, until the pod has said something else: each change begins the conversation anew.
fn next(epoch: Option<Epoch>) -> Epoch {
    epoch.unwrap_or_default().next()
}

/// It has not answered for too long to be relied on.
fn is_silent(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let error = snapshot.contact(pod).and_then(|c| c.error.as_ref());
    error.is_some_and(|e| over(snapshot, e.since))
}

/// It was told to accept again, and has not for too long, whatever it answers.
fn late(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.contact(pod).and_then(|c| c.opening).is_some_and(|since| over(snapshot, since))
}

/// It takes the epoch of each resumption and stays closed. To be told so once more it waits longer each time, and then it is its drain's turn.
fn stays_closed(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let contact = snapshot.contact(pod).filter(|c| c.retell_at().is_some());
    contact.and_then(|c| c.astray).is_some_and(|a| a.way == Way::Closed)
}

fn over(snapshot: &Snapshot<'_>, since: Timestamp) -> bool {
    snapshot.clock.has_come(after(since, OPENS_WITHIN))
}

/// Draining pods that can serve again at once, the latest first: it has lost the fewest clients.
pub(crate) fn resumable_pods<'a>(snapshot: &Snapshot<'a>, revision: &RevisionHash) -> Vec<&'a Pod> {
    let mut pods: Vec<_> = snapshot
        .unrouted()
        .filter(|p| p.revision == *revision && snapshot.available(p))
        .filter(|p| p.drain.is_some() && p.stays() && !snapshot.backs_off(p.write_backoff.as_ref()))
        // On a node that is gone or silent nobody knows whether it comes back. (Where no nodes are read, Ready and Available say as much as of any pod that serves.)
        .filter(|p| !p.node.is_silent())
        .filter(|p| snapshot.protocol(p).is_none_or(|a| a.resumable))
        .filter(|p| !token_refused::cannot_reopen(snapshot, p))
        .collect();
    pods.sort_by_key(|p| (std::cmp::Reverse(p.drain.map(|d| d.since)), &p.name));
    pods
}

/// Returns to service: pods that are labelled and that somebody else closed; pods that are labelled and have a drain note (somebody put the label on one of
/// ours: that calls its drain off); pods that lost the label without a drain. Neither of the last two counts as taking work meanwhile.
///
/// A pod that has had its SIGTERM cannot resume: it is left to end. One that has seen no epoch was closed by nobody: it warms up, and says itself when it takes
/// work.
pub(crate) fn repair(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in &snapshot.remaining {
        let needs_repair = if pod.routed {
            (closed_by_others(snapshot, pod) && may_be_told_anew(snapshot, pod)) || pod.drain.is_some()
        } else {
            pod.drain.is_none()
        };
        // One that closed by itself on a node that dies has only been faster.
        let dies = pod.routed && pod.node.fate == NodeFate::Dying;
        if needs_repair && !dies && !snapshot.backs_off(pod.write_backoff.as_ref()) {
            put_back(snapshot, draft, pod);
        }
    }
}

fn closed_by_others(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let protocol = snapshot.protocol(pod);
    protocol.is_some_and(|p| {
        let drained = p.epoch > Epoch::default() && pod.epoch.is_none_or(|ours| ours <= p.epoch);
        !p.accepting && p.resumable && drained
    })
}

#[cfg(test)]
mod tests {
    use graceful_api::DrainReason;

    use super::*;
    use crate::contact::{Acknowledged, Answer, Astray, Contact, InFlight, Protocol};
    use crate::conversation::Conversation;
    use crate::fixture;
    use crate::observed::{App, DrainNote, Observed, Revision};
    use crate::plan;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Two pods are wanted, and one of the two drains since second 0: it has closed, and has nothing in flight.
    fn closed(epoch: u64, accepting: bool, opening: Option<i64>) -> Observed {
        let policy = fixture::policy(Signal::Http);
        let mut pod = Pod { routed: false, epoch: Some(Epoch(1)), ..fixture::serving("tasks-r-1") };
        pod.drain = Some(DrainNote { reason: DrainReason::ScaleDown, since: at(0) });
        let protocol = Protocol { epoch: Epoch(epoch), accepting, resumable: true };
        let answer =
            Answer { at: at(5), in_flight: InFlight::default(), protocol: Some(protocol), scheduled: None };
        let contact = Contact {
            answer: Some(answer),
            acknowledged: Some(Acknowledged { epoch: Epoch(1), at: at(0) }),
            opening: opening.map(at),
            ..Contact::default()
        };
        let app = App { max_surge: 0, max_unavailable: 1, ..fixture::app(2, policy) };
        let mut observed = fixture::observed(app);
        observed.revisions = vec![Revision { replicas: 2, policy, ..fixture::revision("r") }];
        observed.contacts = [(pod.uid.clone(), contact)].into();
        observed.pods = vec![pod, fixture::serving("tasks-r-2")];
        observed
    }

    /// What is told to the pod that drains, and what is done with it.
    fn done(observed: &Observed, second: i64) -> (Option<Conversation>, Option<&'static str>) {
        let plan = plan(observed, at(second));
        let uid = &observed.pods[0].uid;
        let acts = |a: &Action| match a {
            Action::PutBack { pod, .. } if pod.uid == *uid => Some("put back"),
            Action::Retire { pod, .. } if pod.uid == *uid => Some("ended"),
            _ => None,
        };
        (plan.conversations.get(uid).copied(), plan.actions.iter().find_map(acts))
    }

    #[test]
    fn a_pod_gets_its_label_once_it_has_opened() {
        let resume = Some(Conversation::Resume { epoch: Epoch(2) });
        assert_eq!(done(&closed(1, false, None), 10), (resume, None), "told first");
        assert_eq!(done(&closed(1, false, Some(6)), 10), (resume, None), "it is given the time");
        assert_eq!(done(&closed(1, true, Some(6)), 10), (resume, None), "its drain may be under way still");
        assert_eq!(done(&closed(2, true, None), 10).1, Some("put back"));
    }

    /// Keeps P4: it closes at any moment, so no other pod is taken out of service for it.
    #[test]
    fn a_draining_pod_that_somebody_labelled_is_not_counted_on() {
        let drained = |labelled: bool| {
            let mut observed = closed(1, true, None);
            observed.app = App { max_surge: 1, max_unavailable: 0, ..observed.app };
            observed.revisions[0].replicas = 3;
            observed.pods.push(fixture::serving("tasks-r-3"));
            if labelled {
                observed.pods[0].routed = true;
            } else {
                (observed.pods[0].routed, observed.pods[0].drain) = (true, None);
            }
            for pod in &observed.pods[1..] {
                let contact = observed.contacts.values().next().cloned().unwrap();
                observed.contacts.insert(pod.uid.clone(), contact);
            }
            let asked = observed.contacts.values_mut();
            asked.for_each(|c| (c.asking_since, c.tried_at) = (Some(at(4)), Some(at(5))));
            // The busiest: it is not the one that goes by itself.
            let busiest = observed.contacts.get_mut(&observed.pods[0].uid).unwrap();
            busiest.answer.as_mut().unwrap().in_flight.total = 5;
            let plan = plan(&observed, at(10));
            plan.actions.iter().filter(|a| matches!(a, Action::Unroute { .. })).count()
        };
        assert_eq!(drained(false), 1, "three serve and two are wanted");
        assert_eq!(drained(true), 0, "one of the three has been told to close");
    }

    /// Keeps P6: it would fill its revision's place for ever.
    #[test]
    fn a_pod_that_does_not_open_is_replaced() {
        assert_eq!(done(&closed(1, false, Some(0)), 11).1, Some("ended"));
        // It takes each epoch, and is told again after a pause each time: none of them is ten seconds.
        let mut stays = closed(4, false, Some(9));
        let astray = Astray { way: Way::Closed, times: 4, last: at(5), epoch: Epoch(4) };
        stays.contacts.values_mut().for_each(|contact| contact.astray = Some(astray));
        let plan = plan(&stays, at(10));
        let anew = |a: &Action| matches!(a, Action::Unroute { epoch, .. } if *epoch == Epoch(5));
        assert!(plan.actions.iter().any(anew), "{:?}", plan.actions);
        let not_heard = |mut observed: Observed| {
            for contact in observed.contacts.values_mut() {
                contact.answer = None;
            }
            observed
        };
        let (told, done) = done(&not_heard(closed(1, false, None)), 10);
        assert_eq!(
            (told, done),
            (Some(Conversation::Resume { epoch: Epoch(2) }), None),
            "by the next leader"
        );
    }
}
