//! Nodes that go, and the app's pods on them: replaced elsewhere within the surge, and drained as the budget allows. The operator's own DELETE, which no
//! budget binds, is then what `kubectl drain` or an autoscaler waits for.
//!
//! How many pods are missing, and how many may be made, is reckoned in `rollout` and `snapshot`: a pod on a node that goes is one that is missing there.

use graceful_api::DrainReason;

use crate::course::{Course, working_predecessor};
use crate::draft::Draft;
use crate::observed::NodeFate;
use crate::overdue::is_stuck;
use crate::proofs::needs_no_drain;
use crate::retire::{retire, retire_for};
use crate::snapshot::Snapshot;
use crate::unroute::{least_busy_first, unroute};

/// Takes pods off dying and shut-down nodes, whatever the budget says (an exception to P3): on a dying node new work would be lost, on one that is shut down
/// nothing runs.
pub(crate) fn leave_dying_nodes(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in snapshot.on_going_nodes() {
        match (pod.node.fate, needs_no_drain(snapshot, pod)) {
            (NodeFate::Dying | NodeFate::ShutDown, Some(proof)) => {
                retire(snapshot, draft, pod, proof);
            }
            (NodeFate::Dying, None) => unroute(snapshot, draft, pod, DrainReason::NodeDrain),
            (NodeFate::Stays | NodeFate::Kept(_) | NodeFate::Emptied | NodeFate::ShutDown, _) => {}
        }
    }
}

/// Drains what the budget allows of the pods whose node is emptied, before all other drains; the least busy first.
pub(crate) fn drain_emptied(
    snapshot: &Snapshot<'_>,
    draft: &mut Draft,
    course: &Course<'_>,
    spendable: &mut i64,
) {
    let mut pods: Vec<_> = snapshot.on_going_nodes().filter(|p| p.node.fate == NodeFate::Emptied).collect();
    least_busy_first(snapshot, &mut pods);
    let mut kept = false;
    for pod in pods {
        let cost = i64::from(snapshot.takes_work(pod));
        if let Some(proof) = needs_no_drain(snapshot, pod) {
            retire(snapshot, draft, pod, proof);
        } else if *spendable >= cost {
            *spendable -= cost;
            unroute(snapshot, draft, pod, DrainReason::NodeDrain);
        } else {
            kept = true;
        }
    }
    if kept && snapshot.room() <= 0 {
        end_stuck_pod(snapshot, draft, course);
    }
}

/// The pods of a new revision that is stuck take up the surge, and would hold the node for as long: one of them goes, and is made again after the node is
/// empty.
fn end_stuck_pod(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &Course<'_>) {
    if working_predecessor(snapshot, course).is_none() || !is_stuck(snapshot) {
        return;
    }
    let new = snapshot.routed().filter(|p| !snapshot.is_superseded(p));
    if let Some((pod, proof)) = new.filter_map(|p| Some((p, needs_no_drain(snapshot, p)?))).next() {
        retire_for(snapshot, draft, pod, proof, DrainReason::NodeDrain);
    }
}
