//! The proofs by which a draining pod may be ended, and how far each drain is. Silence is never one (P7).

use graceful_api::{DrainPolicy, OnDeadline, PodState, Signal};
use jiff::{SignedDuration, Timestamp};

use crate::action::Proof;
use crate::clock::{Clock, after, seconds};
use crate::contact::Contact;
use crate::endpoints::{linger_is_over, still_list, withdrawn_since};
use crate::ids::Epoch;
use crate::observed::{DrainNote, Pod};
use crate::snapshot::Snapshot;

/// Reads that make a run of zeros a quiet one: a lone zero between two tasks is not idle, two may straddle a restart.
const QUIET_READS: u32 = 3;

/// How old the last zero may be when the pod is ended. A plan follows each read at once; after this long nobody knows what came since.
const QUIET_AGE: SignedDuration = SignedDuration::from_secs(10);

/// How long past its deadline a pod's last word is waited for: longer than a question's usual time-out, short beside any deadline.
const LAST_WORD_SECONDS: u32 = 15;

/// How far a draining pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It may be ended, for this reason.
    MayEnd(Proof),
    /// It has something in flight, or may have: unknown is busy.
    Busy,
    /// As `Busy`, past its deadline and held.
    Held,
}

/// How far a draining pod is: whether it may be ended, and if not, whether it is held. Rules that end pods before any drain call [`needs_no_drain`] themselves;
/// together the two functions yield every proof there is.
pub(crate) fn progress(snapshot: &Snapshot<'_>, pod: &Pod) -> Progress {
    if pod.terminating {
        return if is_held(snapshot, pod) { Progress::Held } else { Progress::Busy };
    }
    if let Some(proof) = needs_no_drain(snapshot, pod) {
        return Progress::MayEnd(proof);
    }
    let (Some(epoch), Some(note)) = (pod.epoch, pod.drain) else {
        return Progress::Busy;
    };
    let policy = snapshot.policy(pod);
    let proof = match policy.signal {
        _ if snapshot.refuses_token(pod) => {
            Proof::TokenRefused { epoch, grace_seconds: pod.longest_grace(policy) }
        }
        Signal::Http => Proof::Idle { epoch },
        Signal::None => Proof::Quiet { epoch },
        Signal::Sigterm => return drains_itself(snapshot, pod, epoch, note, policy),
    };
    // A zero of a pod that clients are sent to says nothing of the next moment. (A deletion does not wait until somebody has fenced a Service.)
    let closed = matches!(proof, Proof::Idle { .. })
        || snapshot.services_are_fenced()
        || !snapshot.observed.app.deletion.keeps_serving();
    let alone = matches!(proof, Proof::Idle { .. }) || quiet_since_withdrawn(snapshot, pod, note, policy);
    match !still_list(pod) && closed && alone && stands(proof, snapshot.contact(pod), policy, &snapshot.clock)
    {
        true => Progress::MayEnd(proof),
        false if !snapshot.clock.has_come(note.deadline(policy)) => Progress::Busy,
        false => past_deadline(snapshot, pod, epoch, policy),
    }
}

/// Whether the zero has held for as long since no client is sent to it any more: one that was sent just before that comes after a zero that was read before.
fn quiet_since_withdrawn(snapshot: &Snapshot<'_>, pod: &Pod, note: DrainNote, policy: DrainPolicy) -> bool {
    let run = snapshot.contact(pod).and_then(|contact| contact.zero_run);
    run.zip(withdrawn_since(pod, note)).is_some_and(|(run, withdrawn)| {
        run.until > withdrawn
            && run.until.duration_since(run.since.max(withdrawn)) >= seconds(policy.quiet_seconds)
    })
}

/// It is past its deadline, and has longer than that to finish. (With `onDeadline: Terminate` its grace ends a linger later than its deadline.)
fn is_held(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let policy = snapshot.policy(pod);
    let Some(deadline) = pod.drain.map(|note| note.deadline(policy)) else { return false };
    let linger = SignedDuration::from_secs(i64::from(policy.linger_seconds) + 1);
    let ends = pod.grace_ends.and_then(|at| at.checked_sub(linger).ok());
    ends.is_none_or(|at| at > deadline) && snapshot.clock.has_come(deadline)
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
    if !linger_is_over(snapshot, pod, note) {
        Progress::Busy
    } else if !pod.waits_in_a_volume() {
        Progress::MayEnd(Proof::HandedOver { epoch, grace_seconds: policy.longest_drain_seconds() })
    } else if snapshot.clock.has_come(note.deadline(policy)) {
        Progress::Held
    } else {
        Progress::Busy
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
    let grace_seconds = pod.longest_grace(snapshot.policy(pod));
    (pod.node.is_heard() && snapshot.cannot_have_worked(&pod.revision))
        .then_some(Proof::NeverWorked { grace_seconds })
}

/// Whether what a pod said of its drain still stands: asked in the plan, and once more just before the pod is ended, which may be many seconds later.
/// Of a proof that rests on the pod's object alone there is nothing to hear.
pub(crate) fn still_stands(
    proof: Proof,
    contact: Option<&Contact>,
    policy: DrainPolicy,
    now: Timestamp,
) -> bool {
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

/// When a pod past its deadline is waited for no longer.
fn last_word(note: DrainNote, policy: DrainPolicy) -> Timestamp {
    after(note.deadline(policy), seconds(LAST_WORD_SECONDS))
}

#[cfg(test)]
mod tests;
