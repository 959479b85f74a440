//! Growing and shrinking: which pods come, which come back, and which may start to drain.
//!
//! P3: [`Snapshot::room`] bounds creation, [`spendable`] bounds drains. Exceptions: pods on nodes that die or are shut down (`node_drain::leave_dying_nodes`,
//! `Snapshot::room`), a deletion (`teardown`), and [`protect`], which only undoes somebody's scale.

use std::collections::BTreeMap;

use graceful_api::{DrainReason, RevisionHash};

use crate::action::Action;
use crate::budget::spendable;
use crate::count::count;
use crate::course::{Course, working_predecessor};
use crate::creation_backoff::may_make;
use crate::draft::Draft;
use crate::expendable::{expendable, superseded_revisions, update_suffices};
use crate::going_nodes;
use crate::node_drain;
use crate::observed::{App, Deletion, Pod, Readiness, Revision};
use crate::proofs::needs_no_drain;
use crate::put_back::{put_back, resumable_pods};
use crate::retire::retire;
use crate::snapshot::Snapshot;
use crate::unroute::{known_in_flight, least_busy_first, unroute};

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
        let left = surplus_of(&revision.hash).saturating_sub(gone).max(0);
        let at_most = u32::try_from(left).unwrap_or(u32::MAX);
        gone += i64::from(take_back_unmade(snapshot, draft, revision, at_most));
    }
    gone > 0
}

/// Takes back replicas that have no pod (a quota, a crash between DELETE and scale), at most so many. Returns how many.
fn take_back_unmade(snapshot: &Snapshot<'_>, draft: &mut Draft, revision: &Revision, at_most: u32) -> u32 {
    let unmade = revision.replicas.saturating_sub(snapshot.remaining_of(&revision.hash)).min(at_most);
    // Their pods may have come by now, to be taken again: where somebody raises the Deployment each time, without end.
    let brake = snapshot.observed.surroundings.brake.as_ref();
    if unmade == 0 || snapshot.backs_off(revision.scale_backoff.as_ref()) || snapshot.backs_off(brake) {
        return 0;
    }
    let (revision, from) = (revision.hash.clone(), revision.replicas);
    let planned = draft.act(Action::ScaleDown { revision, from, to: from - unmade });
    if planned { unmade } else { 0 }
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
        if need <= 0 && !going_nodes::is_called_off(pod) {
            continue;
        }
        need -= i64::from(put_back(snapshot, draft, pod));
    }
    let mut room = if clearing { 0 } else { snapshot.room() };
    if let Some(predecessor) = working_predecessor(snapshot, course) {
        for pod in
            resumable_pods(snapshot, &predecessor.hash).into_iter().filter(|p| going_nodes::is_called_off(p))
        {
            put_back(snapshot, draft, pod);
        }
        // While the new revision does not work, `spec.replicas` that an autoscaler adds go to the old one; the new one is kept to the surge, or to nothing while
        // replacements for a node come first.
        let share = if going_nodes::replacements_come_first(snapshot) { 0 } else { newcomers_share(app) };
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

/// How many pods there may be of a new revision of which none takes work yet.
fn newcomers_share(app: &App) -> u32 {
    if app.max_surge > 0 { app.max_surge } else { app.max_unavailable }
}

/// Makes what is missing to `replicas` of the predecessor. Returns how much of the room is reserved for that, though `may_make` may let it ask for fewer pods now.
fn grow_predecessor(snapshot: &Snapshot<'_>, draft: &mut Draft, predecessor: &Revision, room: i64) -> i64 {
    let app = &snapshot.observed.app;
    // What may be missing for the new revision's sake (all of maxUnavailable without surge, one pod with it) is not made again.
    // While replacements come first (`going_nodes::replacements_come_first`), nothing may be missing where there is a surge: what is on such a node waits for what serves in
    // its place.
    let spent = match app.max_surge {
        0 => app.max_unavailable,
        _ if going_nodes::replacements_come_first(snapshot) => 0,
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

/// Shrinks: ends pods that need no drain, takes back replicas without a pod, and starts drains, first for nodes that go, then within the budget.
pub(crate) fn shrink(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &Course<'_>) {
    node_drain::leave_dying_nodes(snapshot, draft);
    if snapshot.services_are_fenced() {
        let mut spendable = spendable(snapshot, course);
        node_drain::drain_emptied(snapshot, draft, course, &mut spendable);
        if course.replaces_others {
            replace(snapshot, draft, &mut spendable);
        }
        // What leaves is left as it is, however many there are.
        if snapshot.observed.app.deletion != Deletion::Leave {
            scale_down(snapshot, draft, course, &mut spendable);
        }
    }
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
        let at_most = u32::try_from(surplus).unwrap_or(u32::MAX);
        surplus -= i64::from(take_back_unmade(snapshot, draft, revision, at_most));
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
