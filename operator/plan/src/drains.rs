//! Pods that drain: ended once they have a proof, and told anew where they have seen a higher epoch.

use graceful_api::Signal;

use crate::action::{Action, DeletionCost};
use crate::astray::may_be_told_anew;
use crate::draft::{Draft, pod_ref};
use crate::observed::{DrainNote, Pod};
use crate::proofs::{Progress, progress};
use crate::retire::retire;
use crate::snapshot::Snapshot;

/// Ends pods that have a proof, and gives a drain a new number where the pod has seen a higher one (somebody drained it by hand).
pub(crate) fn end_drained(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in snapshot.unrouted() {
        let Some(note) = pod.drain else {
            continue; // unlabelled by somebody else: `repair` puts it back, a deletion notes it
        };
        match progress(snapshot, pod) {
            Progress::MayEnd(proof) => {
                retire(snapshot, draft, pod, proof);
            }
            Progress::Busy | Progress::Held => {
                if needs_new_epoch(snapshot, pod)
                    && !snapshot.backs_off(pod.write_backoff.as_ref())
                    && may_be_told_anew(snapshot, pod)
                {
                    let epoch = draft.epochs.next_for(snapshot, pod);
                    let DrainNote { reason, since } = note;
                    let cost = if pod.may_start() { DeletionCost::Lowest } else { DeletionCost::Highest };
                    draft.act(Action::Unroute { pod: pod_ref(pod), epoch, reason, since, cost });
                }
            }
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
