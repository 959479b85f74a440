//! When clients are no longer sent to a pod that drains.
//!
//! Taking the serving label off is the operator's; taking the pod out of the EndpointSlices is a controller's, and it may be seconds behind, or away with the
//! API server. A pod that closed admission before that would refuse whom its Service still sends. So its linger begins once no EndpointSlice lists it, and it is
//! told to close no sooner.

use jiff::Timestamp;

use crate::clock::{after, seconds};
use crate::observed::{DrainNote, Endpoints, NodeFate, Pod};
use crate::snapshot::Snapshot;

/// Clients may still be sent to it, and it is to take them. On a node that dies soon it closes all the same: what it accepted would die with it.
pub(crate) fn still_list(pod: &Pod) -> bool {
    let listed = matches!(pod.endpoints, Endpoints::Listed { .. } | Endpoints::Unread(_));
    listed && pod.node.fate != NodeFate::Dying
}

/// Whether the pod is not to be told to close yet. One that was told already has closed, and is not opened for that.
pub(crate) fn waits_for_them(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let protocol = snapshot.protocol(pod);
    let told = protocol.is_some_and(|p| Some(p.epoch) == pod.epoch);
    still_list(pod) && !told
}

/// From when its linger counts; none before that.
pub(crate) fn withdrawn_since(pod: &Pod, note: DrainNote) -> Option<Timestamp> {
    match pod.endpoints {
        _ if still_list(pod) => None,
        Endpoints::WithdrawnAt(at) => Some(at.max(note.since)),
        Endpoints::Withdrawn | Endpoints::Listed { .. } | Endpoints::Unread(_) => Some(note.since),
    }
}

/// By the time that it was given, from when no client was sent to it any more. (An app that speaks the protocol says itself when it has latched.)
pub(crate) fn linger_is_over(snapshot: &Snapshot<'_>, pod: &Pod, note: DrainNote) -> bool {
    withdrawn_since(pod, note)
        .is_some_and(|at| snapshot.clock.has_come(after(at, seconds(snapshot.policy(pod).linger_seconds))))
}

/// What Kubernetes' own controller writes on its slices.
const KUBERNETES: &str = "endpointslice-controller.k8s.io";

/// Why it lingers for longer than it was given.
pub(crate) fn why_not_told_to_close(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<String> {
    match &pod.endpoints {
        _ if !waits_for_them(snapshot, pod) => None,
        Endpoints::Unread(why) => Some(format!(
            "not told to close yet: whether its Services still send clients to it cannot be read: {why}"
        )),
        Endpoints::Listed { slice, managed_by } => {
            let why = match managed_by.as_str() {
                KUBERNETES => "the EndpointSlice controller (kube-controller-manager) is behind".to_owned(),
                "" => "it does not say who keeps it; whoever does has to take the pod out".to_owned(),
                by => format!("it is kept by {by}, who has to take the pod out"),
            };
            Some(format!(
                "not told to close yet: EndpointSlice {slice} still lists it, so that clients are sent to it; {why}"
            ))
        }
        Endpoints::Withdrawn | Endpoints::WithdrawnAt(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use graceful_api::{DrainReason, OnDeadline, PodState, Signal};

    use super::*;
    use crate::action::Action;
    use crate::contact::{Acknowledged, Answer, Contact, InFlight, Protocol, ZeroRun};
    use crate::conversation::Conversation;
    use crate::fixture;
    use crate::ids::Epoch;
    use crate::observed::{Observed, Revision};

    const LINGER: i64 = 3;

    fn listed_by(managed_by: &str) -> Endpoints {
        Endpoints::Listed { slice: "tasks-abc".to_owned(), managed_by: managed_by.to_owned() }
    }

    fn listed() -> Endpoints {
        listed_by(KUBERNETES)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// One of two pods drains since second 0, with nothing in flight, and quiet since then.
    fn draining(signal: Signal, endpoints: Endpoints, fate: NodeFate, told: bool) -> Observed {
        let mut pod =
            Pod { routed: false, endpoints, epoch: Some(Epoch(1)), ..fixture::serving("tasks-v1-1") };
        pod.drain = Some(DrainNote { reason: DrainReason::ScaleDown, since: at(0) });
        pod.node.fate = fate;
        let protocol = Protocol { epoch: Epoch(u64::from(told)), accepting: !told, resumable: true };
        let answer = Answer {
            at: at(60),
            in_flight: InFlight::default(),
            protocol: (signal == Signal::Http).then_some(protocol),
            scheduled: None,
        };
        let contact = Contact {
            answer: Some(answer),
            acknowledged: told.then_some(Acknowledged { epoch: Epoch(1), at: at(0) }),
            zero_run: Some(ZeroRun { epoch: Epoch(1), since: at(0), until: at(60), reads: 60 }),
            ..Contact::default()
        };
        let policy = graceful_api::DrainPolicy {
            on_deadline: OnDeadline::Hold,
            deadline_seconds: 600,
            ..fixture::policy(signal)
        };
        let mut observed = fixture::observed(fixture::app(1, policy));
        observed.revisions = vec![Revision { replicas: 2, policy, ..fixture::revision("r") }];
        observed.contacts = [(pod.uid.clone(), contact)].into();
        observed.pods = vec![pod, fixture::serving("tasks-v1-2")];
        observed
    }

    fn told_to_close(observed: &Observed) -> bool {
        let plan = crate::plan(observed, at(60));
        matches!(plan.conversations[&observed.pods[0].uid], Conversation::Drain { .. })
    }

    fn ends(observed: &Observed, second: i64) -> bool {
        let uid = &observed.pods[0].uid;
        let plan = crate::plan(observed, at(second));
        plan.actions.iter().any(|a| matches!(a, Action::Retire { pod, .. } if pod.uid == *uid))
    }

    /// Keeps P4: the serving path does not wait for us, and we do not run ahead of it.
    #[test]
    fn a_pod_is_told_to_close_once_no_endpoint_slice_lists_it() {
        let told = |endpoints, fate| told_to_close(&draining(Signal::Http, endpoints, fate, false));
        assert!(told(Endpoints::Withdrawn, NodeFate::Stays));
        assert!(told(Endpoints::WithdrawnAt(at(59)), NodeFate::Stays));
        assert!(!told(listed(), NodeFate::Stays));
        assert!(!told(listed(), NodeFate::Emptied));
        assert!(!told(Endpoints::Unread("timed out".to_owned()), NodeFate::Stays), "unknown is listed");
        assert!(told(listed(), NodeFate::Dying), "what it accepts now would die with its node");
        let observed = draining(Signal::Http, listed(), NodeFate::Stays, true);
        assert!(told_to_close(&observed), "one that has closed is not taken back for that");
    }

    /// Keeps P1, P7: a client that is sent to a pod just then has not been finished with.
    #[test]
    fn no_pod_is_ended_while_an_endpoint_slice_lists_it() {
        for signal in [Signal::None, Signal::Sigterm] {
            let ended = |endpoints, fate, second| ends(&draining(signal, endpoints, fate, false), second);
            assert!(ended(Endpoints::Withdrawn, NodeFate::Stays, 60), "{signal:?}");
            assert!(!ended(listed(), NodeFate::Stays, 60), "{signal:?}");
            assert!(!ended(Endpoints::Unread(String::new()), NodeFate::Stays, 60), "{signal:?}");
            assert!(ended(listed(), NodeFate::Dying, 60), "{signal:?}");
        }
        // The linger is for those who learn of it last: it begins with the last slice.
        let late = |second| {
            ends(&draining(Signal::Sigterm, Endpoints::WithdrawnAt(at(50)), NodeFate::Stays, false), second)
        };
        assert!(!late(50 + LINGER - 1));
        assert!(late(50 + LINGER));
    }

    /// Keeps P1: a client that was sent to it just before comes after a zero that was read before.
    #[test]
    fn a_zero_counts_from_when_no_client_is_sent_to_the_pod() {
        let ended = |withdrawn| {
            ends(&draining(Signal::None, Endpoints::WithdrawnAt(at(withdrawn)), NodeFate::Stays, false), 60)
        };
        let quiet = i64::from(fixture::policy(Signal::None).quiet_seconds);
        assert!(ended(60 - quiet));
        assert!(!ended(60 - quiet + 1) && !ended(60));
    }

    /// Keeps P8.
    #[test]
    fn what_keeps_a_lingering_pod_is_said_once_its_linger_is_over() {
        let report = |endpoints: Endpoints, second| {
            let plan = crate::plan(&draining(Signal::Http, endpoints, NodeFate::Stays, false), at(second));
            (plan.report.pods[0].state, plan.report.waiting_for)
        };
        let (state, words) = report(listed(), LINGER - 1);
        assert_eq!(state, PodState::Lingering);
        assert!(!words.contains("EndpointSlice"), "{words}");
        let (state, words) = report(listed(), LINGER);
        assert_eq!(state, PodState::Lingering);
        assert!(words.contains("EndpointSlice tasks-abc still lists it"), "{words}");
        assert!(words.contains("kube-controller-manager"), "{words}");
        let (_, words) = report(listed_by("me"), LINGER);
        assert!(words.contains("kept by me") && !words.contains("kube-controller-manager"), "{words}");
        let (_, words) = report(Endpoints::Unread("timed out".to_owned()), LINGER);
        assert!(words.contains("cannot be read: timed out"), "{words}");
        let (_, words) = report(Endpoints::Withdrawn, LINGER);
        assert!(!words.contains("told to close"), "{words}");
    }
}
