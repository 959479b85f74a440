//! Takes pods out of service, and says in which order.

use graceful_api::DrainReason;

use crate::action::{Action, DeletionCost};
use crate::draft::{Draft, pod_ref};
use crate::observed::{NodeFate, Pod};
use crate::snapshot::Snapshot;

/// Takes a pod out of service, unless something that its drain or its end needs is in a pause.
pub(crate) fn unroute(snapshot: &Snapshot<'_>, draft: &mut Draft, pod: &Pod, reason: DrainReason) {
    // What is deleted, or dies with its node, is to serve nobody any more, whenever it can be ended.
    let at_once = reason == DrainReason::Delete || pod.node.fate == NodeFate::Dying;
    // Drained and not ended, a pod would serve nobody.
    let may = at_once || snapshot.may_be_ended(pod);
    if !may || snapshot.backs_off(pod.write_backoff.as_ref()) || replica_set_is_choosing(snapshot, pod) {
        return;
    }
    let epoch = draft.epochs.next_for(snapshot, pod);
    let since = snapshot.clock.now();
    draft.act(Action::Unroute { pod: pod_ref(pod), epoch, reason, since, cost: DeletionCost::Highest });
}

/// Its ReplicaSet still has a pod to delete: raising this pod's deletion cost now would steer it to a busy sibling.
pub(crate) fn replica_set_is_choosing(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.revision(&pod.revision).is_some_and(|r| snapshot.remaining_of(&r.hash) > r.replicas)
}

/// Sorts pods into the order in which they are taken out of service: first what takes no work, then the least busy, then the oldest.
pub(crate) fn least_busy_first(snapshot: &Snapshot<'_>, pods: &mut [&Pod]) {
    pods.sort_by_key(|p| (snapshot.takes_work(p), known_in_flight(snapshot, p), p.created, &p.name));
}

/// The pod's in-flight count, for the order. Unknown is busy, and ranks last.
pub(crate) fn known_in_flight(snapshot: &Snapshot<'_>, pod: &Pod) -> u64 {
    let contact = snapshot.contact(pod).filter(|c| c.error.is_none());
    contact.and_then(|c| c.answer.as_ref()).map_or(u64::MAX, |a| a.in_flight.total)
}
