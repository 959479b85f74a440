use graceful_api::validated::MAX_DEADLINE_SECONDS;
use graceful_api::{DrainReason, RevisionHash};

use super::*;
use crate::NodeFate;
use crate::contact::{Acknowledged, Answer, Contact, ContactError, InFlight, Protocol, ZeroRun};
use crate::fixture;
use crate::ids::PodUid;
use crate::observed::{Containers, Kubelet, Observed, Readiness, Revision};

const EPOCH: Epoch = Epoch(7);
const HANDED_OVER: Progress =
    Progress::MayEnd(Proof::HandedOver { epoch: EPOCH, grace_seconds: MAX_DEADLINE_SECONDS });

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// One pod that drains since second 0 under this signal, its contact, and what follows at this second.
fn judged(signal: Signal, on_deadline: OnDeadline, contact: Contact, now: i64) -> Progress {
    judged_of(signal, on_deadline, contact, now, |_, _| ())
}

/// The same of a pod and a revision that differ.
fn judged_of(
    signal: Signal,
    on_deadline: OnDeadline,
    contact: Contact,
    now: i64,
    differ: impl FnOnce(&mut Pod, &mut Observed),
) -> Progress {
    let policy = DrainPolicy { on_deadline, ..fixture::policy(signal) };
    let hash = RevisionHash::from("old");
    let mut pod = Pod {
        revision: hash.clone(),
        routed: false,
        epoch: Some(EPOCH),
        drain: Some(DrainNote { reason: DrainReason::Rollout, since: at(0) }),
        ..fixture::serving("tasks-old-1")
    };
    let mut observed = Observed {
        revisions: vec![Revision { created: at(-100), policy, ..fixture::revision(&hash.0) }],
        contacts: [(pod.uid.clone(), contact)].into(),
        ..fixture::observed(fixture::app(1, policy))
    };
    differ(&mut pod, &mut observed);
    observed.pods.push(pod.clone());
    progress(&Snapshot::of(&observed, at(now)), &pod)
}

fn heard(total: u64, epoch: u64, accepting: bool) -> Contact {
    let in_flight = InFlight { total, ..InFlight::default() };
    let protocol = Some(Protocol { epoch: Epoch(epoch), accepting, resumable: true });
    Contact {
        answer: Some(Answer { at: at(4), in_flight, protocol, scheduled: None }),
        tried_at: Some(at(4)),
        acknowledged: Some(Acknowledged { epoch: Epoch(epoch), at: at(4) }),
        ..Contact::default()
    }
}

fn zeros(reads: u32, since: i64, until: i64) -> Contact {
    let run = ZeroRun { epoch: EPOCH, since: at(since), until: at(until), reads };
    Contact { zero_run: Some(run), ..heard(0, 0, true) }
}

/// Keeps P1, P7.
#[test]
fn idle_is_one_answer_that_says_all_of_it() {
    let judge = |contact| judged(Signal::Http, OnDeadline::Hold, contact, 10);
    assert_eq!(judge(heard(0, 7, false)), Progress::MayEnd(Proof::Idle { epoch: EPOCH }));
    assert_eq!(judge(heard(1, 7, false)), Progress::Busy, "something is in flight");
    assert_eq!(judge(heard(0, 7, true)), Progress::Busy, "it still accepts");
    assert_eq!(judge(heard(0, 6, false)), Progress::Busy, "an older drain's word");
    assert_eq!(judge(Contact::default()), Progress::Busy, "silence");
}

/// P1, P7: a process that keeps its epoch over a restart says at once what its predecessor would have said, and has lost what that one had.
#[test]
fn a_restarted_process_is_idle_only_once_it_was_told() {
    let unacknowledged = Contact { acknowledged: None, ..heard(0, 7, false) };
    assert_eq!(judged(Signal::Http, OnDeadline::Hold, unacknowledged, 10), Progress::Busy);
    let of_another =
        Contact { acknowledged: Some(Acknowledged { epoch: Epoch(6), at: at(4) }), ..heard(0, 7, false) };
    assert_eq!(judged(Signal::Http, OnDeadline::Hold, of_another, 10), Progress::Busy);
}

/// Keeps P7.
#[test]
fn one_of_several_processes_does_not_speak_for_the_pod() {
    let several = Contact { several: true, ..heard(0, 7, false) };
    assert_eq!(judged(Signal::Http, OnDeadline::Hold, several, 10), Progress::Busy);
    let several = Contact { several: true, ..zeros(9, 5, 10) };
    assert_eq!(judged(Signal::None, OnDeadline::Hold, several, 12), Progress::Busy);
}

/// One that was Ready for no moment holds nothing, unless a Service sends clients to unready pods.
#[test]
fn a_crashed_pod_may_hold_what_an_unready_address_was_sent() {
    let judge = |published: &[&str]| {
        judged_of(Signal::Http, OnDeadline::Hold, Contact::default(), 10, |pod, observed| {
            (pod.containers, pod.readiness) = (Containers::Crashed, Readiness::Never);
            observed.surroundings.publishing_unready = published.iter().map(|&s| s.to_owned()).collect();
        })
    };
    assert_eq!(judge(&[]), Progress::MayEnd(Proof::NotRunning));
    assert_eq!(judge(&["headless"]), Progress::Busy);
}

/// Keeps P1, P7. A pull consumer that was Ready for no moment had work all the same, and its volume may hold it.
#[test]
fn a_crashed_pod_that_was_heard_with_work_is_not_idle() {
    let judge = |contact| {
        judged_of(Signal::None, OnDeadline::Hold, contact, 10, |pod, _| {
            (pod.containers, pod.readiness) = (Containers::Crashed, Readiness::Never);
        })
    };
    assert_eq!(judge(heard(2, 0, true)), Progress::Busy);
    assert_eq!(judge(heard(0, 0, true)), Progress::MayEnd(Proof::NotRunning));
}

#[test]
fn only_a_pod_that_is_told_epochs_is_closed_by_an_older_one() {
    let closed = |signal| {
        let mut closed = None;
        judged_of(signal, OnDeadline::Hold, Contact::default(), 10, |pod, observed| {
            pod.routed = true;
            observed.contacts.insert(pod.uid.clone(), heard(0, 0, true));
            closed = Some(Snapshot::of(observed, at(10)).not_accepting(pod));
        });
        closed.unwrap()
    };
    assert!(closed(Signal::Http), "its resumption has not reached it");
    assert!(!closed(Signal::Sigterm) && !closed(Signal::None), "it will never say another");
}

/// Its node's clock may be an hour ahead.
#[test]
fn a_pod_that_is_ready_from_a_later_moment_on_is_available_now() {
    let from = |min_ready_seconds| {
        let mut from = None;
        judged_of(Signal::Http, OnDeadline::Hold, Contact::default(), 10, |pod, observed| {
            observed.app.min_ready_seconds = min_ready_seconds;
            pod.readiness = Readiness::Ready(at(3600));
            from = Snapshot::of(observed, at(10)).available_from(pod);
        });
        from.unwrap()
    };
    assert_eq!((from(0), from(30)), (at(10), at(40)));
}

/// Keeps P7.
#[test]
fn a_lone_zero_is_not_idle() {
    let judge = |contact| judged(Signal::None, OnDeadline::Hold, contact, 12);
    assert_eq!(judge(zeros(1, 10, 10)), Progress::Busy);
    assert_eq!(judge(zeros(2, 4, 10)), Progress::Busy, "held long enough, read twice");
    assert_eq!(judge(zeros(9, 8, 10)), Progress::Busy, "read often enough, held 2 s of 5");
    assert_eq!(judge(zeros(3, 5, 10)), Progress::MayEnd(Proof::Quiet { epoch: EPOCH }));
}

/// Its linger is 3 s, its own grace 90 s, and nobody asks what it has in flight.
#[test]
fn a_queue_worker_gets_its_sigterm_after_its_linger_with_the_grace_of_a_drain() {
    let judge = |on_deadline, now| judged(Signal::Sigterm, on_deadline, heard(3, 0, true), now);
    assert_eq!(judge(OnDeadline::Hold, 2), Progress::Busy, "it lingers");
    assert_eq!(judge(OnDeadline::Hold, 3), HANDED_OVER);
    let deadline = Proof::HandedOver { epoch: EPOCH, grace_seconds: 60 };
    assert_eq!(judge(OnDeadline::Terminate, 3), Progress::MayEnd(deadline), "less than its own");
    assert_eq!(judged(Signal::Sigterm, OnDeadline::Hold, Contact::default(), 3), HANDED_OVER, "unheard");
}

/// What is on the pod says so, to a restarted operator as well; and a pod that somebody else deleted has nothing of ours.
#[test]
fn a_pod_that_drains_itself_counts_until_it_is_gone_or_its_node_is() {
    let counts = |signal, differ: &dyn Fn(&mut Pod, &mut Observed)| {
        let mut found = (0, 0, 0);
        judged_of(signal, OnDeadline::Hold, Contact::default(), 10, |pod, observed| {
            (pod.terminating, pod.ends_since, pod.grace_ends) = (true, Some(at(3)), Some(at(604_803)));
            differ(pod, observed);
            observed.pods.push(pod.clone());
            let snapshot = Snapshot::of(observed, at(10));
            let count = |pods: &mut dyn Iterator<Item = &Pod>| pods.count();
            found = (
                count(&mut snapshot.handed_over()),
                count(&mut snapshot.handed_over_running()),
                count(&mut snapshot.handed_over_in_room()),
            );
            observed.pods.clear();
        });
        found
    };
    assert_eq!(counts(Signal::Sigterm, &|_, _| ()), (1, 1, 1));
    assert_eq!(counts(Signal::Http, &|_, _| ()), (0, 0, 0), "it was idle");
    assert_eq!(counts(Signal::Sigterm, &|p, _| p.drain = None), (0, 0, 0), "somebody else's delete");
    assert_eq!(counts(Signal::Sigterm, &|p, _| p.routed = true), (0, 0, 0), "the same");
    let gone = |p: &mut Pod, _: &mut Observed| p.containers = Containers::Finished;
    assert_eq!(counts(Signal::Sigterm, &gone), (0, 0, 0));
    assert_eq!(counts(Signal::Sigterm, &|p, _| p.node.kubelet = Kubelet::Silent), (1, 0, 0));
    assert_eq!(counts(Signal::Sigterm, &|p, _| p.node.fate = NodeFate::ShutDown), (1, 0, 0));
    assert_eq!(counts(Signal::Sigterm, &|p, _| p.node.fate = NodeFate::Dying), (1, 1, 0));
    let at_once = |_: &mut Pod, o: &mut Observed| o.app.replace_when = graceful_api::ReplaceWhen::Draining;
    assert_eq!(
        counts(Signal::Sigterm, &at_once),
        (1, 1, 0),
        "a deletion of the app waits for it all the same"
    );
    let spare = DrainNote { reason: DrainReason::Spare, since: at(0) };
    assert_eq!(counts(Signal::Sigterm, &|p, _| p.drain = Some(spare)), (1, 1, 1), "it had begun to work");
    let taken_back =
        |p: &mut Pod, _: &mut Observed| (p.drain, p.grace_ends) = (Some(spare), Some(at(3 + 90)));
    assert_eq!(counts(Signal::Sigterm, &taken_back), (0, 0, 0), "its ReplicaSet's DELETE");
    let never_worked = |p: &mut Pod, o: &mut Observed| {
        (p.cheapest, p.readiness) = (true, Readiness::Never);
        o.revisions[0].proven = false;
    };
    assert_eq!(counts(Signal::Sigterm, &never_worked), (0, 0, 0), "it must not block its own fix");
}

/// Keeps P1.
#[test]
fn work_that_waits_in_a_volume_for_its_next_start_is_not_handed_over() {
    let judge = |container| {
        let differ = |pod: &mut Pod, _: &mut Observed| pod.containers = container;
        judged_of(Signal::Sigterm, OnDeadline::Hold, heard(3, 7, false), 61, differ)
    };
    assert_eq!(judge(Containers::Running), HANDED_OVER);
    assert_eq!(judge(Containers::Crashed), Progress::Held);
    assert_eq!(judge(Containers::HalfCrashed), Progress::Held);
}

#[test]
fn only_a_whole_revision_that_never_worked_goes_without_a_zero() {
    let judge = |contact: Contact, differ: &dyn Fn(&mut Pod, &mut Observed)| {
        judged_of(Signal::Http, OnDeadline::Hold, contact, 10, |pod, observed| {
            pod.readiness = Readiness::Never;
            observed.revisions[0].proven = false;
            differ(pod, observed);
        })
    };
    let silent = Contact::default;
    let dead = Progress::MayEnd(Proof::NeverWorked { grace_seconds: MAX_DEADLINE_SECONDS });
    assert_eq!(judge(silent(), &|_, _| ()), dead);
    assert_eq!(judge(silent(), &|_, o| o.revisions[0].proven = true), Progress::Busy, "a pod worked once");
    assert_eq!(judge(heard(2, 1, true), &|_, _| ()), Progress::Busy, "it answers");
    let lost = |p: &mut Pod, _: &mut Observed| p.readiness = Readiness::Lost(at(-5));
    assert_eq!(judge(silent(), &lost), Progress::Busy, "it was Ready");
    let sibling = |p: &mut Pod, o: &mut Observed| {
        o.pods.push(Pod { uid: PodUid::from("b"), readiness: Readiness::Ready(at(-5)), ..p.clone() });
    };
    assert_eq!(judge(silent(), &sibling), Progress::Busy, "another pod of it is Ready");
    assert_eq!(
        judge(silent(), &|p, _| p.node.kubelet = Kubelet::Silent),
        Progress::Busy,
        "nobody hears its kubelet"
    );
    let published = |_: &mut Pod, o: &mut Observed| {
        o.surroundings.publishing_unready = vec!["headless".to_owned()];
    };
    assert_eq!(judge(silent(), &published), Progress::Busy, "a Service sends clients to unready pods");
}

#[test]
fn the_last_moment_there_is_is_a_moment() {
    let year_9999: Timestamp = "9999-12-30T22:00:00Z".parse().unwrap();
    let policy = DrainPolicy {
        signal: Signal::Http,
        linger_seconds: 3,
        quiet_seconds: 5,
        deadline_seconds: u32::MAX,
        on_deadline: OnDeadline::Hold,
    };
    let note = DrainNote { reason: DrainReason::Rollout, since: year_9999 };
    assert_eq!(note.deadline(policy), Timestamp::MAX);
    assert_eq!(last_word(note, policy), Timestamp::MAX);
}

/// Keeps P7.
#[test]
fn an_old_quiet_is_not_a_quiet() {
    assert_eq!(judged(Signal::None, OnDeadline::Hold, zeros(9, 5, 20), 40), Progress::Busy);
}

/// Keeps P1.
#[test]
fn a_restarted_operator_asks_once_more_before_it_cuts() {
    let unheard = |now| judged(Signal::Http, OnDeadline::Terminate, Contact::default(), now);
    assert_eq!(unheard(60), Progress::Busy);
    assert_eq!(
        unheard(75),
        Progress::MayEnd(Proof::Cut { epoch: EPOCH, tasks: None }),
        "it cannot even be asked"
    );
}

#[test]
fn a_deadline_does_what_the_policy_says() {
    let busy = || heard(3, 7, false);
    let cut = Proof::Cut { epoch: EPOCH, tasks: Some(3) };
    assert_eq!(judged(Signal::Http, OnDeadline::Hold, busy(), 59), Progress::Busy);
    assert_eq!(judged(Signal::Http, OnDeadline::Hold, busy(), 60), Progress::Held);
    assert_eq!(judged(Signal::Http, OnDeadline::Terminate, busy(), 60), Progress::MayEnd(cut));
    assert_eq!(judged(Signal::None, OnDeadline::Hold, busy(), 60), Progress::Held);
}

/// A key that is lost makes no pod undrainable; and it costs the latch, so that its zero must hold and its end is patient.
#[test]
fn a_pod_that_refuses_to_be_told_goes_by_a_quiet_zero_with_all_its_grace() {
    let refusing = |contact: Contact| {
        let why = ContactError { message: "401".to_owned(), since: at(1) };
        Contact { refused: Some(why), acknowledged: None, ..contact }
    };
    let judge = |on_deadline, contact, now| judged(Signal::Http, on_deadline, contact, now);
    let refused = |grace_seconds| Progress::MayEnd(Proof::TokenRefused { epoch: EPOCH, grace_seconds });
    let (hold, terminate) = (OnDeadline::Hold, OnDeadline::Terminate);
    assert_eq!(judge(hold, refusing(zeros(3, 5, 10)), 12), refused(MAX_DEADLINE_SECONDS));
    assert_eq!(judge(terminate, refusing(zeros(3, 5, 10)), 12), refused(90), "no less than its own");
    assert_eq!(judge(hold, refusing(zeros(1, 10, 10)), 12), Progress::Busy, "a lone zero");
    assert_eq!(judge(hold, refusing(heard(0, 7, false)), 12), Progress::Busy, "an older operator's latch");
    assert_eq!(judge(hold, zeros(3, 5, 10), 12), Progress::Busy, "one that can be told is told");
    assert_eq!(judge(hold, refusing(heard(3, 0, true)), 61), Progress::Held);
    assert!(matches!(judge(terminate, refusing(heard(3, 0, true)), 61), Progress::MayEnd(Proof::Cut { .. })));
    let policy = fixture::policy(Signal::Http);
    let proof = Proof::TokenRefused { epoch: EPOCH, grace_seconds: 90 };
    assert!(still_stands(proof, Some(&refusing(zeros(3, 5, 10))), policy, at(12)));
    assert!(!still_stands(proof, Some(&zeros(3, 5, 10)), policy, at(12)), "our keys are back");
}
