//! What it means for an app that some of its nodes go.

use graceful_api::DrainReason;

use crate::observed::Pod;
use crate::overdue::is_stuck;
use crate::snapshot::Snapshot;

/// Replacements of what serves come before a new revision that does not work yet, where that is stuck or has no pod yet.
pub(crate) fn replacements_come_first(snapshot: &Snapshot<'_>) -> bool {
    let new = || snapshot.remaining.iter().any(|p| !snapshot.is_superseded(p));
    snapshot.on_going_nodes().next().is_some() && (!new() || is_stuck(snapshot))
}

/// The drain was for a node that stays after all: its pod goes back to work, and what was made in its place is too much.
pub(crate) fn is_called_off(pod: &Pod) -> bool {
    pod.stays() && drains_for_its_node(pod)
}

/// Some node with pods of the app goes.
pub(crate) fn is_under_way(snapshot: &Snapshot<'_>) -> bool {
    snapshot.on_going_nodes().next().is_some() || snapshot.shown_as_draining().any(drains_for_its_node)
}

pub(crate) fn drains_for_its_node(pod: &Pod) -> bool {
    pod.drain.is_some_and(|note| note.reason == DrainReason::NodeDrain)
}
