//! Spares, and other pods that go before they were ever Ready: they lose the serving label, so that no client finds them.

use graceful_api::DrainReason;

use crate::action::{Action, DeletionCost};
use crate::creation_backoff;
use crate::draft::{Draft, pod_ref};
use crate::observed::{Containers, Pod, Readiness};
use crate::snapshot::Snapshot;

/// Takes the label off pods that go before they were ever Ready: spares, mostly, which a ReplicaSet made for a retired pod and takes back.
///
/// The kubelet may start one all the same, and where no other endpoint is left (a scale to 0, a deletion) kube-proxy falls back to terminating
/// ones: the spare would accept work and be killed with it. Seen on a real cluster: 5 tasks of 41.
pub(crate) fn unroute(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    // One that was Ready once is no spare: whoever ends it is told of, with what it has in flight, and no note of ours may hide that.
    let ends = |p: &&Pod| {
        // No client is sent to one that never had the label.
        p.terminating
            && p.routed
            && p.enlisted
            && p.containers != Containers::Finished
            && p.readiness == Readiness::Never
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
            snapshot.routed().filter(|p| p.revision == revision.hash && p.may_start()).collect();
        spares.sort_by_key(|p| std::cmp::Reverse((p.created, &p.name)));
        let surplus = snapshot.remaining_of(&revision.hash).saturating_sub(revision.replicas);
        spares.truncate(usize::try_from(surplus).unwrap_or(usize::MAX));
        spares
    })
}
