//! Whether an app is as its spec says.

use crate::count::count;
use crate::observed::Deletion;
use crate::others;
use crate::snapshot::Snapshot;

/// All is as the spec says.
pub(crate) fn is_settled(snapshot: &Snapshot<'_>) -> bool {
    let app = &snapshot.observed.app;
    app.deletion == Deletion::No
        && snapshot.count_superseded() == 0
        && snapshot.revision(&app.update).is_some()
        && all_replicas_serve(snapshot)
        && snapshot.total() <= app.replicas
        && snapshot.on_going_nodes().next().is_none()
        && others::busy(snapshot).next().is_none()
        && snapshot.handed_over().next().is_none()
}

/// Every replica of the update revision serves. One that was never asked yet is given the benefit of the doubt: it is asked within a moment,
/// and a restarted operator must not report a rollout that is not there.
pub(crate) fn all_replicas_serve(snapshot: &Snapshot<'_>) -> bool {
    let here =
        snapshot.remaining.iter().filter(|p| !snapshot.is_superseded(p) && snapshot.serves(p)).filter(|p| {
            let asked = snapshot.contact(p).and_then(|c| c.tried_at).is_some();
            !asked || snapshot.takes_work(p)
        });
    count(here) >= snapshot.observed.app.replicas
}
