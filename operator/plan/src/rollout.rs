//! Growing and shrinking: which pods come, which come back, and which may start to drain.
//!
//! P3: [`Snapshot::room`] bounds creation, `spendable` bounds drains. Exceptions: pods on nodes that die or are shut down (`node_drain::leave_dying_nodes`,
//! `Snapshot::room`), a deletion (`teardown`), and [`protect`], which only undoes somebody's scale.

use std::collections::BTreeMap;

use graceful_api::{DrainReason, RevisionHash};
use jiff::Timestamp;

use crate::action::{Action, DeletionCost};
use crate::clock::{after, seconds};
use crate::count::count;
use crate::creation_backoff::may_make;
use crate::draft::{Draft, pod_ref};
use crate::expendable::{expendable, superseded_revisions, update_suffices};
use crate::node_drain;
use crate::observed::{App, NodeFate, Pod, Readiness, Revision};
use crate::proofs::needs_no_drain;
use crate::put_back::{put_back, resumable_pods};
use crate::retire::retire;
use crate::snapshot::Snapshot;

/// Where the app is going.
pub(crate) struct Course<'a> {
    /// The revision that new pods are made of; none where there is nothing yet that Kubernetes would take.
    pub(crate) growth: Option<&'a RevisionHash>,
    /// Whether pods of other revisions are replaced, where there are any: no pause, and there is something to replace them by.
    pub(crate) replaces_others: bool,
}

/// The update revision, unless it has no Deployment yet and Kubernetes does not take one, or a pause came before any pod of it takes work: then what already
/// serves grows and shrinks instead.
pub(crate) fn course<'a>(snapshot: &Snapshot<'a>) -> Course<'a> {
    let app = &snapshot.observed.app;
    let predecessor = snapshot.predecessor().map(|r| &r.hash);
    let stay = || Course { growth: predecessor, replaces_others: false };
    let exists = snapshot.revision(&app.update).is_some();
    if !exists && !snapshot.may_be_made() {
        return stay();
    }
    if app.paused && !update_suffices(snapshot) && predecessor.is_some() {
        return stay();
    }
    Course { growth: Some(&app.update), replaces_others: !app.paused }
}

/// A ReplicaSet with fewer replicas than running pods is about to choose among them, and it does not know who is busy. (Its controller was away
/// while a spare started, or somebody scaled the Deployment.) Condemned pods do not count here (`Snapshot::condemned`). `spec.replicas`
/// is raised again; the surplus then drains like any other pod.
pub(crate) fn protect(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for revision in &snapshot.observed.revisions {
        let running =
            count(snapshot.remaining.iter().filter(|p| p.revision == revision.hash && p.has_begun()));
        if running > revision.replicas && !snapshot.backs_off(revision.scale_backoff.as_ref()) {
            let (revision, from) = (revision.hash.clone(), revision.replicas);
            draft.act(Action::ScaleUp { revision, from, to: running });
        }
    }
}

/// Before any pod is made: pods of superseded revisions that need no drain. A crash-looping revision would fill the surge and block its own fix.
/// True while one of them is on its way out.
pub(crate) fn clear_away(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &Course<'_>) -> bool {
    // A pause stops drains; pods that cannot be busy, of a revision that serves nobody, go all the same.
    let halted = !course.replaces_others && snapshot.observed.app.paused && update_suffices(snapshot);
    if !course.replaces_others && !halted {
        return false;
    }
    let spared = |hash: &RevisionHash| halted && snapshot.any_takes_work(hash);
    // Of each revision once: an app may have thousands of pods.
    let surplus: BTreeMap<_, _> = superseded_revisions(snapshot)
        .map(|r| (&r.hash, if spared(&r.hash) { 0 } else { expendable(snapshot, &r.hash) }))
        .collect();
    let surplus_of = |hash: &RevisionHash| surplus.get(hash).copied().unwrap_or(0);
    let mut gone = 0;
    let goes = |p: &&Pod| surplus_of(&p.revision) > 0 && (!halted || snapshot.cannot_be_busy(p));
    let mut pods: Vec<_> = snapshot.routed().filter(goes).collect();
    // Revisions that are relied on come last, and only their surplus goes.
    pods.sort_by_key(|p| surplus_of(&p.revision) < i64::MAX);
    for pod in pods {
        if let Some(proof) = needs_no_drain(snapshot, pod)
            && surplus_of(&pod.revision) > gone
            && retire(snapshot, draft, pod, proof)
        {
            gone += 1;
        }
    }
    for revision in superseded_revisions(snapshot).filter(|r| !spared(&r.hash)) {
        let unmade = revision.replicas.saturating_sub(snapshot.remaining_of(&revision.hash));
        let left = surplus_of(&revision.hash).saturating_sub(gone).max(0);
        let at_most = u32::try_from(left).unwrap_or(u32::MAX);
        if take_back_unmade(snapshot, draft, revision, at_most) {
            gone += i64::from(unmade.min(at_most));
        }
    }
    gone > 0
}

/// Takes back replicas that have no pod (a quota, a crash between DELETE and scale), at most so many.
fn take_back_unmade(snapshot: &Snapshot<'_>, draft: &mut Draft, revision: &Revision, at_most: u32) -> bool {
    let unmade = revision.replicas.saturating_sub(snapshot.remaining_of(&revision.hash)).min(at_most);
    if unmade == 0 || snapshot.backs_off(revision.scale_backoff.as_ref()) {
        return false;
    }
    draft.act(Action::ScaleDown {
        revision: revision.hash.clone(),
        from: revision.replicas,
        to: revision.replicas - unmade,
    })
}

/// Makes the growth revision as large as it should be: draining pods that can serve again first, then new ones where P3 leaves room.
pub(crate) fn grow(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &Course<'_>, clearing: bool) {
    let Some(growth) = course.growth else {
        return;
    };
    let app = &snapshot.observed.app;
    let revision = snapshot.revision(growth);
    let mut need = i64::from(app.replicas) - serving_or_coming(snapshot, course);
    for pod in resumable_pods(snapshot, growth) {
        if need <= 0 && !node_drain::is_called_off(pod) {
            continue;
        }
        need -= i64::from(put_back(snapshot, draft, pod));
    }
    let mut room = if clearing { 0 } else { snapshot.room() };
    if let Some(predecessor) = working_predecessor(snapshot, course) {
        for pod in
            resumable_pods(snapshot, &predecessor.hash).into_iter().filter(|p| node_drain::is_called_off(p))
        {
            put_back(snapshot, draft, pod);
        }
        // A stuck rollout and an autoscaler: only the surge is made of what does not work yet. While replacements come first, none of it.
        let share = if node_drain::replacements_come_first(snapshot) { 0 } else { newcomers_share(app) };
        need = need.min(i64::from(share) - revision.map_or(0, |r| snapshot.staying_of(r)));
        room -= grow_predecessor(snapshot, draft, predecessor, room - need.max(0));
    }
    let new = u32::try_from(need.min(room).max(0)).unwrap_or(u32::MAX).min(may_make(snapshot, growth));
    match revision {
        None => {
            draft.act(Action::CreateRevision { revision: growth.clone(), replicas: new });
        }
        Some(r) if new > 0 && !snapshot.backs_off(r.scale_backoff.as_ref()) => {
            let to = r.replicas.saturating_add(new);
            draft.act(Action::ScaleUp { revision: growth.clone(), from: r.replicas, to });
        }
        Some(_) => {}
    }
}

/// The predecessor, if it takes work, while no pod of the revision that is rolled out has ever worked. (Once one has, growth stays with the new revision even
/// where it flaps, or pods would be made and drained with each flap.)
pub(crate) fn working_predecessor<'a>(snapshot: &Snapshot<'a>, course: &Course<'_>) -> Option<&'a Revision> {
    let rolling_out = course.replaces_others && course.growth == Some(snapshot.update());
    let grows_on = snapshot.revision(snapshot.update()).is_some_and(|r| r.proven)
        && !node_drain::replacements_come_first(snapshot);
    let serves = |r: &&Revision| snapshot.any_takes_work(&r.hash);
    snapshot.predecessor().filter(|_| rolling_out && !grows_on && !update_suffices(snapshot)).filter(serves)
}

/// How many pods there may be of a new revision of which none takes work yet.
fn newcomers_share(app: &App) -> u32 {
    if app.max_surge > 0 { app.max_surge } else { app.max_unavailable }
}

/// Makes what is missing to `replicas` of the revision that serves, and says how many pods it asked for.
fn grow_predecessor(snapshot: &Snapshot<'_>, draft: &mut Draft, predecessor: &Revision, room: i64) -> i64 {
    let app = &snapshot.observed.app;
    // What may be missing for the new revision's sake (all of maxUnavailable without surge, one pod with it) is not made again.
    // While replacements come first (`node_drain::replacements_come_first`), nothing may be missing where there is a surge: what is on such a node waits for what serves in
    // its place.
    let spent = match app.max_surge {
        0 => app.max_unavailable,
        _ if node_drain::replacements_come_first(snapshot) => 0,
        _ => app.max_unavailable.min(1),
    };
    let there: i64 = superseded_revisions(snapshot).map(|r| snapshot.staying_of(r)).sum();
    let missing = (i64::from(app.replicas.saturating_sub(spent)) - there).min(room).max(0);
    if missing == 0 || snapshot.backs_off(predecessor.scale_backoff.as_ref()) {
        return 0;
    }
    let by = u32::try_from(missing).unwrap_or(u32::MAX).min(may_make(snapshot, &predecessor.hash));
    if by == 0 {
        return 0;
    }
    let (revision, from) = (predecessor.hash.clone(), predecessor.replicas);
    let asked = draft.act(Action::ScaleUp { revision, from, to: from.saturating_add(by) });
    if asked { missing } else { 0 }
}

/// Pods that count towards `replicas` on this course.
fn serving_or_coming(snapshot: &Snapshot<'_>, course: &Course<'_>) -> i64 {
    let counted = |r: &&Revision| !course.replaces_others || course.growth == Some(&r.hash);
    snapshot.observed.revisions.iter().filter(counted).map(|r| snapshot.staying_of(r)).sum()
}

/// Starts drains: first of pods that go with their node, whatever the budget; then those that the budget allows.
pub(crate) fn shrink(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &Course<'_>) {
    node_drain::leave_dying_nodes(snapshot, draft);
    if services_are_fenced(snapshot) {
        let mut spendable = spendable(snapshot, course);
        node_drain::drain_emptied(snapshot, draft, course, &mut spendable);
        if course.replaces_others {
            replace(snapshot, draft, &mut spendable);
        }
        scale_down(snapshot, draft, course, &mut spendable);
    }
}

/// No Service would keep sending clients to a draining pod, nor past its gate.
pub(crate) fn services_are_fenced(snapshot: &Snapshot<'_>) -> bool {
    let around = &snapshot.observed.surroundings;
    around.unfenced_services.is_empty() && around.bypasses.is_empty()
}

/// How many pods that take work may be taken out of service: what serves above `replicas − maxUnavailable`. Negative where too few serve as it is.
///
/// While no pod of a rollout that can surge takes work yet, only what serves above `replicas` itself: a bad revision costs no capacity. Where the
/// surge cannot come at all, or where replacements for a node that goes come first, one pod frees its place, if maxUnavailable has one.
fn spendable(snapshot: &Snapshot<'_>, course: &Course<'_>) -> i64 {
    let app = &snapshot.observed.app;
    let nothing_takes_work_yet = course.replaces_others && app.max_surge > 0 && !update_suffices(snapshot);
    let may_miss = match nothing_takes_work_yet {
        false => app.max_unavailable,
        true if surge_cannot_come(snapshot) || node_drain::replacements_come_first(snapshot) => {
            app.max_unavailable.min(1)
        }
        true => 0,
    };
    i64::from(snapshot.taking_work()) - i64::from(app.replicas.saturating_sub(may_miss))
}

/// A quota or a policy refuses the new pods, or no node has taken one for `surgeTimeoutSeconds`. Not where one fails to start, crashes or is not
/// Ready: more capacity would not help it.
fn surge_cannot_come(snapshot: &Snapshot<'_>) -> bool {
    let timeout = snapshot.observed.app.surge_timeout_seconds;
    let update = snapshot.revision(snapshot.update());
    let refused = update.is_some_and(|r| r.replica_failure.is_some() && !r.has_no_replica_set);
    let mut new = snapshot.routed().filter(|p| !snapshot.is_superseded(p));
    let given_up = |p: &Pod| {
        p.unschedulable.is_some_and(|since| snapshot.clock.has_come(after(since, seconds(timeout))))
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
        || (one_may_go && services_are_fenced(snapshot) && snapshot.remaining.iter().any(|p| may_go(p)))
}

/// The rollout's drains.
///
/// Worked example, replicas 3, maxSurge 1, maxUnavailable 0: three old pods count, spendable is 0. The new pod is made (room 1), counts, and
/// spendable is 1: one old pod starts to drain, and spendable is 0 again. It goes, room is 1, and so on.
fn replace(snapshot: &Snapshot<'_>, draft: &mut Draft, spendable: &mut i64) {
    let mut old: Vec<_> = snapshot
        .routed()
        .filter(|p| p.stays() && snapshot.is_superseded(p) && needs_no_drain(snapshot, p).is_none())
        .collect();
    least_busy_first(snapshot, &mut old);
    for pod in old {
        let cost = i64::from(snapshot.takes_work(pod));
        // One that was never Ready goes where its revision can spare it, and nowhere else: it may be there to replace what serves.
        let new = pod.readiness == Readiness::Never;
        let free = new && expendable(snapshot, &pod.revision) > 0;
        if new && !free {
            continue;
        }
        if free || *spendable >= cost {
            *spendable -= cost;
            unroute(snapshot, draft, pod, DrainReason::Rollout);
        }
    }
}

/// Fewer replicas: replicas without a pod first, then pods that cannot be busy, then the least busy, by counts asked for just then.
fn scale_down(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &Course<'_>, spendable: &mut i64) {
    let mut surplus = serving_or_coming(snapshot, course) - i64::from(pods_to_keep(snapshot));
    if surplus <= 0 {
        return;
    }
    let ours = |hash: &RevisionHash| !course.replaces_others || course.growth == Some(hash);
    for revision in snapshot.observed.revisions.iter().filter(|r| ours(&r.hash)) {
        let unmade = revision.replicas.saturating_sub(snapshot.remaining_of(&revision.hash));
        if take_back_unmade(snapshot, draft, revision, u32::try_from(surplus).unwrap_or(u32::MAX)) {
            surplus -= i64::from(unmade).min(surplus);
        }
    }
    let mut candidates = Vec::new();
    for pod in snapshot.routed().filter(|p| p.stays() && ours(&p.revision)) {
        match needs_no_drain(snapshot, pod) {
            None => candidates.push(pod),
            Some(proof) if surplus > 0 && retire(snapshot, draft, pod, proof) => surplus -= 1,
            Some(_) => {}
        }
    }
    // Nobody is asked each second for a choice that cannot be made: a change freeze may last for days.
    candidates.retain(|p| snapshot.may_be_ended(p));
    if surplus <= 0 || candidates.is_empty() {
        return;
    }
    // A count from before may be that of another minute: all are asked, each second, and the choice waits.
    draft.ask_serving = true;
    if !all_asked_since_due(snapshot, &candidates) {
        return;
    }
    candidates.sort_by_key(|p| {
        (snapshot.takes_work(p), known_in_flight(snapshot, p), std::cmp::Reverse(p.created), &p.name)
    });
    for pod in candidates {
        let cost = i64::from(snapshot.takes_work(pod));
        if surplus > 0 && *spendable >= cost {
            surplus -= 1;
            *spendable -= cost;
            unroute(snapshot, draft, pod, DrainReason::ScaleDown);
        }
    }
}

/// How many pods scaling leaves alone: `replicas`, and while a pause holds a rollout half-way also the surge that it stopped at.
fn pods_to_keep(snapshot: &Snapshot<'_>) -> u32 {
    let app = &snapshot.observed.app;
    let half_way = app.paused
        && snapshot.routed().any(|p| snapshot.is_superseded(p))
        && snapshot.routed().any(|p| !snapshot.is_superseded(p));
    if half_way { app.replicas.saturating_add(app.max_surge) } else { app.replicas }
}

/// Whether every candidate that serves and takes work has been asked since the choice came due, answered or not.
fn all_asked_since_due(snapshot: &Snapshot<'_>, candidates: &[&Pod]) -> bool {
    candidates.iter().filter(|p| snapshot.serves(p) && !snapshot.not_accepting(p)).all(|p| {
        let contact = snapshot.contact(p);
        let since = contact.and_then(|c| c.asking_since);
        since.is_some() && contact.and_then(|c| c.tried_at) >= since
    })
}

/// In the order in which they are taken out of service: first what takes no work, then the least busy, then the oldest.
pub(crate) fn least_busy_first(snapshot: &Snapshot<'_>, pods: &mut [&Pod]) {
    pods.sort_by_key(|p| (snapshot.takes_work(p), known_in_flight(snapshot, p), p.created, &p.name));
}

/// Unknown is busy: it ranks last.
fn known_in_flight(snapshot: &Snapshot<'_>, pod: &Pod) -> u64 {
    let contact = snapshot.contact(pod).filter(|c| c.error.is_none());
    contact.and_then(|c| c.answer.as_ref()).map_or(u64::MAX, |a| a.in_flight.total)
}

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
fn replica_set_is_choosing(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.revision(&pod.revision).is_some_and(|r| snapshot.remaining_of(&r.hash) > r.replicas)
}

/// How many pods that remain are of other revisions than the spec asks for.
pub(crate) fn count_superseded(snapshot: &Snapshot<'_>) -> u32 {
    count(snapshot.remaining.iter().filter(|p| snapshot.is_superseded(p)))
}
