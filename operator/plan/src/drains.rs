//! Pods that drain: when each may go, and what repairs a drain that went astray.

use graceful_api::{DrainPolicy, DrainReason, OnDeadline, PodState, Signal};
use jiff::{SignedDuration, Timestamp};

use crate::action::{Action, DeletionCost, Proof};
use crate::astray::may_be_told_anew;
use crate::clock::Clock;
use crate::contact::Contact;
use crate::draft::{Draft, pod_ref};
use crate::futile;
use crate::handed_over;
use crate::observed::{Containers, DrainMark, Epoch, NodeFate, Pod, Readiness};
use crate::retire::waits_in_a_volume;
use crate::snapshot::{Snapshot, after, seconds};
use crate::untold;

/// Reads that make a run of zeros a quiet one: a lone zero between two tasks is not idle, two may straddle a restart.
pub(crate) const QUIET_READS: u32 = 3;

/// How old the last of them may be when it is acted upon: two time-outs of the longest allowed poll would be guessing.
const QUIET_AGE: SignedDuration = SignedDuration::from_secs(10);

/// How long past its deadline a pod's last word is waited for: longer than a question's usual time-out, short beside any deadline.
const LAST_WORD_SECONDS: u32 = 15;

/// How long past its linger a pod is given to latch: it is told a moment after it was unrouted, and a little later if it is slow to answer.
const LATCHES_WITHIN: u32 = 10;

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It may be ended, for this reason.
    MayEnd(Proof),
    /// It has something in flight, or may have: unknown is busy.
    Busy,
    /// As `Busy`, past its deadline and held.
    Held,
}

/// Whether a draining pod may be ended; of one that has its SIGTERM, whether it is held. Pods that need no drain are ended without coming here ([`needs_no_drain`]); these two give every proof there is.
pub(crate) fn progress(snapshot: &Snapshot<'_>, pod: &Pod) -> Progress {
    if pod.terminating {
        return if handed_over::is_held(snapshot, pod) { Progress::Held } else { Progress::Busy };
    }
    if let Some(proof) = needs_no_drain(snapshot, pod) {
        return Progress::MayEnd(proof);
    }
    let (Some(epoch), Some(mark)) = (pod.epoch, pod.drain) else {
        return Progress::Busy;
    };
    let policy = snapshot.policy(pod);
    let proof = match policy.signal {
        _ if untold::refuses(snapshot, pod) => {
            Proof::Untold { epoch, grace_seconds: longest_grace(pod, policy) }
        }
        Signal::Http => Proof::Idle { epoch },
        Signal::None => Proof::Quiet { epoch },
        Signal::Sigterm => return by_itself(snapshot, pod, epoch, mark, policy),
    };
    match stands(proof, snapshot.contact(pod), policy, &snapshot.clock) {
        true => Progress::MayEnd(proof),
        false if !snapshot.clock.past(deadline(mark, policy)) => Progress::Busy,
        false => past_deadline(snapshot, pod, epoch, policy),
    }
}

/// It drains itself once it gets its SIGTERM, whatever it has in flight. Whether its node is heard does not matter: the DELETE waits there for it. A
/// crashed container has nobody to drain what waits in its volume: its next start is waited for.
fn by_itself(
    snapshot: &Snapshot<'_>,
    pod: &Pod,
    epoch: Epoch,
    mark: DrainMark,
    policy: DrainPolicy,
) -> Progress {
    match linger_is_over(snapshot, pod, mark) {
        true if !waits_in_a_volume(pod) => {
            Progress::MayEnd(Proof::HandedOver { epoch, grace_seconds: policy.patience_seconds() })
        }
        true if snapshot.clock.past(deadline(mark, policy)) => Progress::Held,
        true | false => Progress::Busy,
    }
}

/// Why a pod may be ended without a drain, if it may.
pub(crate) fn needs_no_drain(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<Proof> {
    if snapshot.cannot_be_busy(pod) { Some(Proof::NotRunning) } else { of_what_never_worked(snapshot, pod) }
}

/// The pod of a revision that never worked at all may get its SIGTERM, with time for what it may be at all the same. Otherwise a bad revision
/// would fill the surge and block its own fix. For what serves nobody this asks for less than a confirmed zero, so it asks for more elsewhere:
/// the kubelet is heard, and nothing that publishes unready addresses selects it (`Snapshot::never_worked`).
fn of_what_never_worked(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<Proof> {
    let grace_seconds = longest_grace(pod, snapshot.policy(pod));
    (pod.node.is_heard() && snapshot.never_worked(&pod.revision))
        .then_some(Proof::NeverWorked { grace_seconds })
}

/// The grace of a pod that may be at work when its SIGTERM comes: what its drain would have had.
pub(crate) fn longest_grace(pod: &Pod, policy: DrainPolicy) -> u32 {
    pod.grace_seconds.max(policy.patience_seconds())
}

/// Whether what a pod said of its drain still stands: asked in the plan, and once more just before the pod is ended, which may be many seconds later.
/// Of a proof that rests on the pod's object alone there is nothing to hear.
pub fn still_stands(proof: Proof, contact: Option<&Contact>, policy: DrainPolicy, now: Timestamp) -> bool {
    stands(proof, contact, policy, &Clock::at(now))
}

fn stands(proof: Proof, contact: Option<&Contact>, policy: DrainPolicy, clock: &Clock) -> bool {
    match proof {
        Proof::Idle { epoch } => contact.is_some_and(|c| idle(c, epoch)),
        Proof::Quiet { epoch } => contact.is_some_and(|c| quiet(c, epoch, policy, clock)),
        // Other keys of ours, or another process of its: it is told, and its latch is the better proof.
        Proof::Untold { epoch, .. } => {
            contact.is_some_and(|c| c.refused.is_some() && quiet(c, epoch, policy, clock))
        }
        Proof::HandedOver { .. } | Proof::Cut { .. } | Proof::NotRunning | Proof::NeverWorked { .. } => true,
    }
}

/// One answer says all of it: this epoch, admission closed, nothing in flight, from the process that was told. Once true it stays true until the
/// process ends, because the latch opens only for a resumption, and that has an epoch of its own. A question without an answer may mean just that: it is asked again.
fn idle(contact: &Contact, epoch: Epoch) -> bool {
    contact.acknowledged == Some(epoch)
        && contact.error.is_none()
        && !contact.several
        && contact.answer.as_ref().is_some_and(|answer| {
            answer.in_flight.total == 0 && answer.protocol.is_some_and(|p| p.epoch == epoch && !p.accepting)
        })
}

/// Admission cannot be closed, so zero must hold: long enough, often enough, and until now.
fn quiet(contact: &Contact, epoch: Epoch, policy: DrainPolicy, clock: &Clock) -> bool {
    contact.error.is_none()
        && !contact.several
        && contact.quiet.is_some_and(|q| {
            q.epoch == epoch
                && q.reads >= QUIET_READS
                && q.until.duration_since(q.since) >= seconds(policy.quiet_seconds)
                && !clock.past(q.until.saturating_add(QUIET_AGE).unwrap_or(Timestamp::MAX))
        })
}

/// The word for it in status.
pub(crate) fn state(snapshot: &Snapshot<'_>, pod: &Pod) -> PodState {
    if matches!(
        progress(snapshot, pod),
        Progress::MayEnd(
            Proof::Idle { .. }
                | Proof::Quiet { .. }
                | Proof::Untold { .. }
                | Proof::NotRunning
                | Proof::NeverWorked { .. }
        )
    ) {
        return PodState::Idle;
    }
    let said = snapshot.answer(pod).and_then(|a| a.protocol);
    match said {
        Some(p) if Some(p.epoch) == pod.epoch && !p.accepting => PodState::Draining,
        _ if snapshot.policy(pod).signal == Signal::Sigterm && lingers(snapshot, pod) => PodState::Lingering,
        Some(_) if lingers(snapshot, pod) => PodState::Lingering,
        Some(_) | None => PodState::Draining,
    }
}

/// Its linger is not over. One that accepts for longer is late, and lingers no more.
fn lingers(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.policy(pod).signal != Signal::None
        && !pod.terminating
        && pod.drain.is_some_and(|mark| !linger_is_over(snapshot, pod, mark))
}

/// By the time that it was given. (An app that speaks the protocol says itself when it has latched.)
pub(crate) fn linger_is_over(snapshot: &Snapshot<'_>, pod: &Pod, mark: DrainMark) -> bool {
    snapshot.clock.past(after(mark.since, snapshot.policy(pod).linger_seconds))
}

fn past_deadline(snapshot: &Snapshot<'_>, pod: &Pod, epoch: Epoch, policy: DrainPolicy) -> Progress {
    match policy.on_deadline {
        OnDeadline::Terminate if unasked(snapshot, pod, policy) => Progress::Busy,
        OnDeadline::Terminate => {
            let tasks = snapshot.answer(pod).map(|a| a.in_flight.total);
            Progress::MayEnd(Proof::Cut { epoch, tasks })
        }
        OnDeadline::Hold => Progress::Held,
    }
}

/// A restarted operator asks once more before it cuts: the pod may be idle by now, and if not, the count of what is cut should be known. A pod
/// that cannot even be asked is cut a little later.
fn unasked(snapshot: &Snapshot<'_>, pod: &Pod, policy: DrainPolicy) -> bool {
    let asked = snapshot.contact(pod).is_some_and(|c| c.tried_at.is_some());
    let late = pod.drain.is_none_or(|mark| snapshot.clock.past(last_word(mark, policy)));
    !asked && !late
}

pub(crate) fn deadline(mark: DrainMark, policy: DrainPolicy) -> Timestamp {
    after(mark.since, policy.deadline_seconds)
}

/// When a pod past its deadline is waited for no longer.
fn last_word(mark: DrainMark, policy: DrainPolicy) -> Timestamp {
    after(deadline(mark, policy), LAST_WORD_SECONDS)
}

/// Ends what is proven, and gives a drain a new number where the pod has seen a higher one (somebody drained it by hand).
pub(crate) fn end_drained(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in snapshot.draining() {
        let Some(mark) = pod.drain else {
            continue; // unlabelled by somebody else: `repair` puts it back, a deletion marks it
        };
        match progress(snapshot, pod) {
            Progress::MayEnd(proof) => {
                draft.retire(snapshot, pod, proof);
            }
            Progress::Busy | Progress::Held => {
                if needs_new_epoch(snapshot, pod)
                    && !snapshot.backs_off(pod.backoff.as_ref())
                    && may_be_told_anew(snapshot, pod)
                {
                    let epoch = draft.epochs.next_for(snapshot, pod);
                    let DrainMark { reason, since } = mark;
                    let cost = if may_start(pod) { DeletionCost::Lowest } else { DeletionCost::Highest };
                    draft.act(Action::Unroute { pod: pod_ref(pod), epoch, reason, since, cost });
                }
            }
        }
    }
}

/// Takes the label off pods that go before they were ever Ready: spares, mostly, which a ReplicaSet made for a retired pod and takes back.
///
/// The kubelet may start one all the same, and where no other endpoint is left (a scale to 0, a deletion) kube-proxy falls back to terminating
/// ones: the spare would accept work and be killed with it. Seen on a real cluster: 5 tasks of 41.
pub(crate) fn unroute_spares(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    // One that was Ready once is no spare: whoever ends it is told of, with what it has in flight, and no mark of ours may hide that.
    let ends = |p: &&Pod| {
        p.terminating && p.routed && p.containers != Containers::Finished && p.readiness == Readiness::Never
    };
    let ending = snapshot.observed.pods.iter().filter(ends);
    for pod in ending.chain(spares_not_taken(snapshot)) {
        // Of pods that the kubelet rejects none ever runs, and there are many a second.
        if snapshot.backs_off(pod.backoff.as_ref()) || futile::stopped(snapshot, &pod.revision) {
            continue;
        }
        let epoch = draft.epochs.next_for(snapshot, pod);
        let (reason, since, cost) = (DrainReason::Spare, snapshot.clock.now(), DeletionCost::Lowest);
        draft.act(Action::Unroute { pod: pod_ref(pod), epoch, reason, since, cost });
    }
}

/// Spares that have no replica in their Deployment, and that their ReplicaSet has not taken yet. It may hear of it late.
fn spares_not_taken<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Pod> {
    snapshot.observed.revisions.iter().flat_map(|revision| {
        let mut spares: Vec<_> =
            snapshot.routed().filter(|p| p.revision == revision.hash && may_start(p)).collect();
        spares.sort_by_key(|p| std::cmp::Reverse((p.created, &p.name)));
        let surplus = snapshot.live_of(&revision.hash).saturating_sub(revision.replicas);
        spares.truncate(usize::try_from(surplus).unwrap_or(usize::MAX));
        spares
    })
}

/// Nothing of it has started, and it may, also after its DELETE.
pub(crate) fn may_start(pod: &Pod) -> bool {
    pod.containers == Containers::NeverStarted
}

/// A pod that lingers behind a Service with a traffic policy `Local` is kept reachable by EndpointSlices of ours until it latches or serves again; where it
/// cannot latch, or ends, until its linger is over.
pub(crate) fn unbridge(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in snapshot.observed.pods.iter().filter(|p| p.bridged) {
        let over = match (pod.routed, pod.drain, snapshot.policy(pod)) {
            // Its address is free, and another pod may get it, while the record stays.
            _ if pod.containers == Containers::Finished => true,
            // Ended by somebody in its linger, and it answers no more.
            _ if pod.terminating && !matches!(pod.readiness, Readiness::Ready(_)) => true,
            (false, Some(mark), _) if pod.terminating && linger_is_over(snapshot, pod, mark) => true,
            (true, ..) | (false, None, _) => true,
            // One that never latches would go on to be sent clients, and never be idle.
            (false, Some(mark), DrainPolicy { signal: Signal::Http, linger_seconds, .. }) => {
                let said = snapshot.answer(pod).and_then(|a| a.protocol);
                let end = after(mark.since, linger_seconds.saturating_add(LATCHES_WITHIN));
                snapshot.clock.past(end) || said.is_some_and(|p| !p.accepting && Some(p.epoch) == pod.epoch)
            }
            (false, Some(mark), _) => linger_is_over(snapshot, pod, mark),
        };
        if over && !snapshot.backs_off(pod.backoff.as_ref()) {
            draft.act(Action::Unbridge { pod: pod_ref(pod) });
        }
    }
}

/// The pod has seen an epoch above its annotation's, or its annotation has none: it would refuse ours. A pod that is told no epochs (signals Sigterm, None) refuses none.
fn needs_new_epoch(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let seen = snapshot.answer(pod).and_then(|a| a.protocol).map(|p| p.epoch);
    match (pod.epoch, seen) {
        (None, _) => true,
        (Some(ours), Some(seen)) => snapshot.policy(pod).signal == Signal::Http && seen > ours,
        (Some(_), None) => false,
    }
}

/// Returns to service: pods that are labelled and that somebody else closed; pods that are labelled and marked as draining (somebody put the label on one of
/// ours: that calls its drain off); pods that lost the label without a drain. Neither of the last two takes work meanwhile.
///
/// A pod that has had its SIGTERM cannot resume: it is left to end. One that has seen no epoch was closed by nobody: it warms up, and says itself when it takes
/// work.
pub(crate) fn repair(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in &snapshot.live {
        let astray = if pod.routed {
            (closed_by_others(snapshot, pod) && may_be_told_anew(snapshot, pod)) || pod.drain.is_some()
        } else {
            pod.drain.is_none()
        };
        // One that closed by itself on a node that dies has only been faster.
        let dies = pod.routed && pod.node.fate == NodeFate::Dying;
        if astray && !dies && !snapshot.backs_off(pod.backoff.as_ref()) {
            let epoch = draft.epochs.next_for(snapshot, pod);
            draft.act(Action::PutBack { pod: pod_ref(pod), epoch });
        }
    }
}

fn closed_by_others(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let said = snapshot.answer(pod).and_then(|a| a.protocol);
    said.is_some_and(|p| {
        let drained = p.epoch > Epoch::default() && pod.epoch.is_none_or(|ours| ours <= p.epoch);
        !p.accepting && p.resumable && drained
    })
}

#[cfg(test)]
mod tests {
    use graceful_api::RevisionHash;
    use graceful_api::validated::MAX_DEADLINE_SECONDS;

    use super::*;
    use crate::contact::{Answer, Contact, ContactError, InFlight, Protocol, Quiet};
    use crate::fixture;
    use crate::observed::{Containers, Kubelet, Observed, PodUid, Readiness, Revision};

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
            drain: Some(DrainMark { reason: DrainReason::Rollout, since: at(0) }),
            ..fixture::serving("tasks-old-1")
        };
        let mut observed = Observed {
            revisions: vec![Revision { created: at(-100), policy, ..fixture::revision(&hash.0) }],
            contacts: [(pod.uid.clone(), contact)].into(),
            ..fixture::observed(fixture::app(1, policy))
        };
        differ(&mut pod, &mut observed);
        observed.pods.push(pod.clone());
        progress(&Snapshot::take(&observed, at(now)), &pod)
    }

    fn said(total: u64, epoch: u64, accepting: bool) -> Contact {
        let in_flight = InFlight { total, ..InFlight::default() };
        let protocol = Some(Protocol { epoch: Epoch(epoch), accepting, resumable: true });
        Contact {
            answer: Some(Answer { at: at(4), in_flight, protocol, scheduled: None }),
            tried_at: Some(at(4)),
            acknowledged: Some(Epoch(epoch)),
            ..Contact::default()
        }
    }

    fn zeros(reads: u32, since: i64, until: i64) -> Contact {
        let quiet = Quiet { epoch: EPOCH, since: at(since), until: at(until), reads };
        Contact { quiet: Some(quiet), ..said(0, 0, true) }
    }

    /// Keeps P1, P7.
    #[test]
    fn idle_is_one_answer_that_says_all_of_it() {
        let judge = |contact| judged(Signal::Http, OnDeadline::Hold, contact, 10);
        assert_eq!(judge(said(0, 7, false)), Progress::MayEnd(Proof::Idle { epoch: EPOCH }));
        assert_eq!(judge(said(1, 7, false)), Progress::Busy, "something is in flight");
        assert_eq!(judge(said(0, 7, true)), Progress::Busy, "it still accepts");
        assert_eq!(judge(said(0, 6, false)), Progress::Busy, "an older drain's word");
        assert_eq!(judge(Contact::default()), Progress::Busy, "silence");
    }

    /// P1, P7: a process that keeps its epoch over a restart says at once what its predecessor would have said, and has lost what that one had.
    #[test]
    fn a_restarted_process_is_idle_only_once_it_was_told() {
        let untold = Contact { acknowledged: None, ..said(0, 7, false) };
        assert_eq!(judged(Signal::Http, OnDeadline::Hold, untold, 10), Progress::Busy);
        let of_another = Contact { acknowledged: Some(Epoch(6)), ..said(0, 7, false) };
        assert_eq!(judged(Signal::Http, OnDeadline::Hold, of_another, 10), Progress::Busy);
    }

    /// Keeps P7.
    #[test]
    fn one_of_several_processes_does_not_speak_for_the_pod() {
        let several = Contact { several: true, ..said(0, 7, false) };
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

    #[test]
    fn only_a_pod_that_is_told_epochs_is_closed_by_an_older_one() {
        let closed = |signal| {
            let mut closed = None;
            judged_of(signal, OnDeadline::Hold, Contact::default(), 10, |pod, observed| {
                pod.routed = true;
                observed.contacts.insert(pod.uid.clone(), said(0, 0, true));
                closed = Some(Snapshot::take(observed, at(10)).not_accepting(pod));
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
                from = Snapshot::take(observed, at(10)).available_from(pod);
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
        let judge = |on_deadline, now| judged(Signal::Sigterm, on_deadline, said(3, 0, true), now);
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
                let snapshot = Snapshot::take(observed, at(10));
                let count = |pods: &mut dyn Iterator<Item = &Pod>| pods.count();
                found = (
                    count(&mut handed_over::all(&snapshot)),
                    count(&mut handed_over::awaited(&snapshot)),
                    count(&mut handed_over::in_the_way(&snapshot)),
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
        assert_eq!(counts(Signal::Sigterm, &|p, _| p.node.fate = NodeFate::Dying), (1, 1, 0));
        let at_once =
            |_: &mut Pod, o: &mut Observed| o.app.replace_when = graceful_api::ReplaceWhen::Draining;
        assert_eq!(
            counts(Signal::Sigterm, &at_once),
            (1, 1, 0),
            "a deletion of the app waits for it all the same"
        );
        let spare = DrainMark { reason: DrainReason::Spare, since: at(0) };
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
            judged_of(Signal::Sigterm, OnDeadline::Hold, said(3, 7, false), 61, differ)
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
        assert_eq!(
            judge(silent(), &|_, o| o.revisions[0].proven = true),
            Progress::Busy,
            "a pod worked once"
        );
        assert_eq!(judge(said(2, 1, true), &|_, _| ()), Progress::Busy, "it answers");
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
        let mark = DrainMark { reason: DrainReason::Rollout, since: year_9999 };
        assert_eq!(deadline(mark, policy), Timestamp::MAX);
        assert_eq!(last_word(mark, policy), Timestamp::MAX);
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
        let busy = || said(3, 7, false);
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
        let untold = |grace_seconds| Progress::MayEnd(Proof::Untold { epoch: EPOCH, grace_seconds });
        let (hold, terminate) = (OnDeadline::Hold, OnDeadline::Terminate);
        assert_eq!(judge(hold, refusing(zeros(3, 5, 10)), 12), untold(MAX_DEADLINE_SECONDS));
        assert_eq!(judge(terminate, refusing(zeros(3, 5, 10)), 12), untold(90), "no less than its own");
        assert_eq!(judge(hold, refusing(zeros(1, 10, 10)), 12), Progress::Busy, "a lone zero");
        assert_eq!(judge(hold, refusing(said(0, 7, false)), 12), Progress::Busy, "an older operator's latch");
        assert_eq!(judge(hold, zeros(3, 5, 10), 12), Progress::Busy, "one that can be told is told");
        assert_eq!(judge(hold, refusing(said(3, 0, true)), 61), Progress::Held);
        assert!(matches!(
            judge(terminate, refusing(said(3, 0, true)), 61),
            Progress::MayEnd(Proof::Cut { .. })
        ));
        let policy = fixture::policy(Signal::Http);
        let proof = Proof::Untold { epoch: EPOCH, grace_seconds: 90 };
        assert!(still_stands(proof, Some(&refusing(zeros(3, 5, 10))), policy, at(12)));
        assert!(!still_stands(proof, Some(&zeros(3, 5, 10)), policy, at(12)), "our keys are back");
    }
}
