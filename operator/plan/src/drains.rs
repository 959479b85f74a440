//! Pods that drain: the proofs by which each may go, the new epoch of one that has seen a higher, the end of what keeps it reachable; and spares, which lose their label.

use graceful_api::{DrainPolicy, DrainReason, OnDeadline, PodState, Signal};
use jiff::{SignedDuration, Timestamp};

use crate::action::{Action, DeletionCost, Proof};
use crate::astray::may_be_told_anew;
use crate::clock::{Clock, after, seconds};
use crate::contact::Contact;
use crate::creation_backoff;
use crate::draft::{Draft, pod_ref};
use crate::endpoints::{still_list, withdrawn_since};
use crate::handed_over;
use crate::ids::Epoch;
use crate::observed::{Containers, DrainNote, Pod, Readiness};
use crate::retire::waits_in_a_volume;
use crate::snapshot::Snapshot;
use crate::token_refused;

/// Reads that make a run of zeros a quiet one: a lone zero between two tasks is not idle, two may straddle a restart.
const QUIET_READS: u32 = 3;

/// How old the last zero may be when the pod is ended. A plan follows each read at once; after this long nobody knows what came since.
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
    let (Some(epoch), Some(note)) = (pod.epoch, pod.drain) else {
        return Progress::Busy;
    };
    let policy = snapshot.policy(pod);
    let proof = match policy.signal {
        _ if token_refused::refuses(snapshot, pod) => {
            Proof::TokenRefused { epoch, grace_seconds: longest_grace(pod, policy) }
        }
        Signal::Http => Proof::Idle { epoch },
        Signal::None => Proof::Quiet { epoch },
        Signal::Sigterm => return drains_itself(snapshot, pod, epoch, note, policy),
    };
    match !still_list(pod) && stands(proof, snapshot.contact(pod), policy, &snapshot.clock) {
        true => Progress::MayEnd(proof),
        false if !snapshot.clock.has_come(deadline(note, policy)) => Progress::Busy,
        false => past_deadline(snapshot, pod, epoch, policy),
    }
}

/// It drains itself once it gets its SIGTERM, whatever it has in flight. Whether its node is heard does not matter: the DELETE waits there for it. A
/// crashed container has nobody to drain what waits in its volume: its next start is waited for.
fn drains_itself(
    snapshot: &Snapshot<'_>,
    pod: &Pod,
    epoch: Epoch,
    note: DrainNote,
    policy: DrainPolicy,
) -> Progress {
    match linger_is_over(snapshot, pod, note) {
        true if !waits_in_a_volume(pod) => {
            Progress::MayEnd(Proof::HandedOver { epoch, grace_seconds: policy.longest_drain_seconds() })
        }
        true if snapshot.clock.has_come(deadline(note, policy)) => Progress::Held,
        true | false => Progress::Busy,
    }
}

/// Why a pod may be ended without a drain, if it may.
pub(crate) fn needs_no_drain(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<Proof> {
    if snapshot.cannot_be_busy(pod) { Some(Proof::NotRunning) } else { proof_of_never_worked(snapshot, pod) }
}

/// The pod of a revision that never worked at all may get its SIGTERM, with time for what it may be at all the same. Otherwise a bad revision
/// would fill the surge and block its own fix. For what serves nobody this asks for less than a confirmed zero, so it asks for more elsewhere:
/// the kubelet is heard, and nothing that publishes unready addresses selects it (`Snapshot::cannot_have_worked`).
fn proof_of_never_worked(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<Proof> {
    let grace_seconds = longest_grace(pod, snapshot.policy(pod));
    (pod.node.is_heard() && snapshot.cannot_have_worked(&pod.revision))
        .then_some(Proof::NeverWorked { grace_seconds })
}

/// The grace of a pod that may be at work when its SIGTERM comes: what its drain would have had.
pub(crate) fn longest_grace(pod: &Pod, policy: DrainPolicy) -> u32 {
    pod.grace_seconds.max(policy.longest_drain_seconds())
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
        // Once we have other keys, or the pod another process, it is told again: its latch is then the better proof.
        Proof::TokenRefused { epoch, .. } => {
            contact.is_some_and(|c| c.refused.is_some() && quiet(c, epoch, policy, clock))
        }
        Proof::HandedOver { .. } | Proof::Cut { .. } | Proof::NotRunning | Proof::NeverWorked { .. } => true,
    }
}

/// One answer says all of it: this epoch, admission closed, nothing in flight, from the process that was told. Once true it stays true until the
/// process ends, because the latch opens only for a resumption, and that has an epoch of its own. A question without an answer may mean just that: it is asked again.
fn idle(contact: &Contact, epoch: Epoch) -> bool {
    contact.acknowledged.is_some_and(|known| known.epoch == epoch)
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
        && contact.zero_run.is_some_and(|run| {
            run.epoch == epoch
                && run.reads >= QUIET_READS
                && run.until.duration_since(run.since) >= seconds(policy.quiet_seconds)
                && !clock.has_come(after(run.until, QUIET_AGE))
        })
}

/// How status calls what the drain is at.
pub(crate) fn state(snapshot: &Snapshot<'_>, pod: &Pod) -> PodState {
    if matches!(
        progress(snapshot, pod),
        Progress::MayEnd(
            Proof::Idle { .. }
                | Proof::Quiet { .. }
                | Proof::TokenRefused { .. }
                | Proof::NotRunning
                | Proof::NeverWorked { .. }
        )
    ) {
        return PodState::Idle;
    }
    let protocol = snapshot.protocol(pod);
    match protocol {
        Some(p) if Some(p.epoch) == pod.epoch && !p.accepting => PodState::Draining,
        _ if snapshot.policy(pod).signal == Signal::Sigterm && lingers(snapshot, pod) => PodState::Lingering,
        Some(_) if lingers(snapshot, pod) => PodState::Lingering,
        Some(_) | None => PodState::Draining,
    }
}

/// Whether its linger is not over. One that accepts for longer is late, and lingers no more.
fn lingers(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.policy(pod).signal != Signal::None
        && !pod.terminating
        && pod.drain.is_some_and(|note| !linger_is_over(snapshot, pod, note))
}

/// By the time that it was given, from when no client was sent to it any more. (An app that speaks the protocol says itself when it has latched.)
pub(crate) fn linger_is_over(snapshot: &Snapshot<'_>, pod: &Pod, note: DrainNote) -> bool {
    withdrawn_since(pod, note)
        .is_some_and(|at| snapshot.clock.has_come(after(at, seconds(snapshot.policy(pod).linger_seconds))))
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
    let late = pod.drain.is_none_or(|note| snapshot.clock.has_come(last_word(note, policy)));
    !asked && !late
}

pub(crate) fn deadline(note: DrainNote, policy: DrainPolicy) -> Timestamp {
    after(note.since, seconds(policy.deadline_seconds))
}

/// When a pod past its deadline is waited for no longer.
fn last_word(note: DrainNote, policy: DrainPolicy) -> Timestamp {
    after(deadline(note, policy), seconds(LAST_WORD_SECONDS))
}

/// Ends pods that have a proof, and gives a drain a new number where the pod has seen a higher one (somebody drained it by hand).
pub(crate) fn end_drained(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in snapshot.unrouted() {
        let Some(note) = pod.drain else {
            continue; // unlabelled by somebody else: `repair` puts it back, a deletion notes it
        };
        match progress(snapshot, pod) {
            Progress::MayEnd(proof) => {
                draft.retire(snapshot, pod, proof);
            }
            Progress::Busy | Progress::Held => {
                if needs_new_epoch(snapshot, pod)
                    && !snapshot.backs_off(pod.write_backoff.as_ref())
                    && may_be_told_anew(snapshot, pod)
                {
                    let epoch = draft.epochs.next_for(snapshot, pod);
                    let DrainNote { reason, since } = note;
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
    // One that was Ready once is no spare: whoever ends it is told of, with what it has in flight, and no note of ours may hide that.
    let ends = |p: &&Pod| {
        p.terminating && p.routed && p.containers != Containers::Finished && p.readiness == Readiness::Never
    };
    let ending = snapshot.observed.pods.iter().filter(ends);
    for pod in ending.chain(surplus_spares(snapshot)) {
        // Of pods that the kubelet rejects none ever runs, and there are many a second.
        if snapshot.backs_off(pod.write_backoff.as_ref())
            || creation_backoff::is_stopped(snapshot, &pod.revision)
        {
            continue;
        }
        let epoch = draft.epochs.next_for(snapshot, pod);
        let (reason, since, cost) = (DrainReason::Spare, snapshot.clock.now(), DeletionCost::Lowest);
        draft.act(Action::Unroute { pod: pod_ref(pod), epoch, reason, since, cost });
    }
}

/// Spares that have no replica in their Deployment, and that their ReplicaSet has not deleted yet: it may hear of its scale late.
fn surplus_spares<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Pod> {
    snapshot.observed.revisions.iter().flat_map(|revision| {
        let mut spares: Vec<_> =
            snapshot.routed().filter(|p| p.revision == revision.hash && may_start(p)).collect();
        spares.sort_by_key(|p| std::cmp::Reverse((p.created, &p.name)));
        let surplus = snapshot.remaining_of(&revision.hash).saturating_sub(revision.replicas);
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
            (false, Some(note), _) if pod.terminating && linger_is_over(snapshot, pod, note) => true,
            (true, ..) | (false, None, _) => true,
            // One that never latches would go on to be sent clients, and never be idle.
            (false, Some(note), DrainPolicy { signal: Signal::Http, linger_seconds, .. }) => {
                let protocol = snapshot.protocol(pod);
                let end = linger_seconds.saturating_add(LATCHES_WITHIN);
                let late = withdrawn_since(pod, note)
                    .is_some_and(|at| snapshot.clock.has_come(after(at, seconds(end))));
                late || protocol.is_some_and(|p| !p.accepting && Some(p.epoch) == pod.epoch)
            }
            (false, Some(note), _) => linger_is_over(snapshot, pod, note),
        };
        if over && !snapshot.backs_off(pod.write_backoff.as_ref()) {
            draft.act(Action::Unbridge { pod: pod_ref(pod) });
        }
    }
}

/// The pod has seen an epoch above its annotation's, or its annotation has none: it would refuse ours. A pod that is told no epochs (signals Sigterm, None) refuses none.
fn needs_new_epoch(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let seen = snapshot.protocol(pod).map(|p| p.epoch);
    match (pod.epoch, seen) {
        (None, _) => true,
        (Some(ours), Some(seen)) => snapshot.policy(pod).signal == Signal::Http && seen > ours,
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests;
