//! P3's other half: how many pods may be missing from service. ([`Snapshot::room`] says how many may be made.)

use crate::clock::{after, seconds};
use crate::course::Course;
use crate::expendable::update_suffices;
use crate::going_nodes::replacements_come_first;
use crate::observed::Pod;
use crate::phrases::nodes_are_closed;
use crate::snapshot::Snapshot;
use jiff::Timestamp;

/// How many pods that take work may be taken out of service: what serves above `replicas − maxUnavailable`. Negative where too few serve as it is.
///
/// While no pod of a rollout that can surge takes work yet, only what serves above `replicas` itself: a bad revision costs no capacity. Where the
/// surge cannot come at all, or where replacements for a node that goes come first, one pod frees its place, if maxUnavailable has one.
pub(crate) fn spendable(snapshot: &Snapshot<'_>, course: &Course<'_>) -> i64 {
    let app = &snapshot.observed.app;
    let nothing_takes_work_yet = course.replaces_others && app.max_surge > 0 && !update_suffices(snapshot);
    let may_miss = match nothing_takes_work_yet {
        false => app.max_unavailable,
        true if surge_cannot_come(snapshot) || replacements_come_first(snapshot) => {
            app.max_unavailable.min(1)
        }
        true => 0,
    };
    i64::from(snapshot.taking_work()) - i64::from(app.replicas.saturating_sub(may_miss))
}

/// A quota or a policy refuses the new pods, or no node has had a place for one for `surgeTimeoutSeconds`. Not where one fails to start, crashes or is not
/// Ready: more capacity would not help it.
fn surge_cannot_come(snapshot: &Snapshot<'_>) -> bool {
    let timeout = snapshot.observed.app.surge_timeout_seconds;
    let update = snapshot.revision(snapshot.update());
    let refused = update.is_some_and(|r| r.replica_failure.is_some() && !r.has_no_replica_set);
    let mut new = snapshot.routed().filter(|p| !snapshot.is_superseded(p));
    // Where all nodes are closed, a pod that goes frees nothing.
    let closed = |p: &Pod| p.trouble.as_deref().is_some_and(nodes_are_closed);
    let given_up = |p: &Pod| {
        let late = |since| snapshot.clock.has_come(after(since, seconds(timeout)));
        p.unschedulable.is_some_and(late) && !closed(p)
    };
    refused || new.any(given_up)
}

/// Whether a quota or nodes will have capacity for a new pod without help: a superseded pod drains, or is about to by [`spendable`], or was ended not long ago.
pub(crate) fn capacity_will_free(snapshot: &Snapshot<'_>) -> bool {
    let app = &snapshot.observed.app;
    if app.paused || app.max_surge == 0 || app.max_unavailable == 0 {
        return false;
    }
    let drains = snapshot.unrouted().any(|p| p.drain.is_some() && snapshot.is_superseded(p));
    let still_free = |until: Timestamp| !snapshot.clock.has_come(until);
    let mut of_others = snapshot.observed.lags.iter().filter(|(hash, _)| **hash != app.update);
    let was_ended = of_others.any(|(_, lag)| lag.capacity_until.is_some_and(still_free));
    let may_miss = if update_suffices(snapshot) { app.max_unavailable } else { app.max_unavailable.min(1) };
    let one_may_go = snapshot.taking_work() > app.replicas.saturating_sub(may_miss);
    let may_go = |p: &Pod| snapshot.is_superseded(p) && snapshot.takes_work(p) && snapshot.may_be_ended(p);
    drains
        || was_ended
        || (one_may_go && snapshot.services_are_fenced() && snapshot.remaining.iter().any(|p| may_go(p)))
}

#[cfg(test)]
mod tests {
    use graceful_api::Signal;

    use super::*;
    use crate::fixture;
    use crate::observed::{Observed, Readiness};

    #[test]
    fn no_pod_makes_way_where_all_nodes_are_closed() {
        let gives_up = |causes: &str| {
            let trouble = Some(format!("not scheduled: 0/2 nodes are available: {causes}."));
            let new = Pod {
                readiness: Readiness::Never,
                unschedulable: Some(Timestamp::UNIX_EPOCH),
                trouble,
                ..fixture::serving("new")
            };
            let app = fixture::app(1, fixture::policy(Signal::Http));
            let late = seconds(app.surge_timeout_seconds);
            let observed = Observed { pods: vec![new], ..fixture::observed(app) };
            surge_cannot_come(&Snapshot::of(&observed, after(Timestamp::UNIX_EPOCH, late)))
        };
        assert!(gives_up("1 Insufficient memory, 1 node(s) were unschedulable"));
        assert!(!gives_up("2 node(s) were unschedulable"));
    }
}
