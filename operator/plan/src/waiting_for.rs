//! WAITING-FOR: the sentence that says what is waited for, and what a person can do about it (P8).

use jiff::SignedDuration;

use crate::adoption;
use crate::count::count;
use crate::course::Course;
use crate::draft::Draft;
use crate::drain_words;
use crate::leave;
use crate::new_pods;
use crate::node_words;
use crate::observed::{Backoff, Child, Containers, Deletion, Pod, TemplateVerdict};
use crate::others;
use crate::phrases::{and_more, whole_seconds};
use crate::proofs::{Progress, progress};
use crate::snapshot::Snapshot;
use crate::stall::{Stall, backoffs, waits_for_capacity};

/// The longest WAITING-FOR, in characters: a command that helps fits in (they come first), a list of a hundred names does not. The conditions say
/// the rest.
pub const LONGEST_SENTENCE: usize = 500;

/// WAITING-FOR.
pub(crate) struct Sentence {
    /// Empty when nothing is waited for.
    pub(crate) text: String,
    /// How long its text stands where nothing else happens: there is an age in it. None where it stands until something happens.
    pub(crate) stands_for: Option<SignedDuration>,
}

/// What is waited for, all of it in one sentence.
pub(crate) fn sentence(
    snapshot: &Snapshot<'_>,
    draft: &Draft,
    course: &Course<'_>,
    stall: Option<&Stall>,
) -> Sentence {
    if snapshot.observed.surroundings.namespace_terminating {
        return Sentence { text: namespace_goes(snapshot), stands_for: None };
    }
    let mut parts: Vec<String> = stall.map(|s| s.message.clone()).into_iter().collect();
    if stall.is_none() && snapshot.observed.app.deletion.keeps_serving() {
        parts.extend(waits_for_capacity(snapshot));
    }
    // A stall has said the others.
    let not_said_yet = |b: &&Backoff| stall.is_none() || b.cause.is_slowness();
    parts.extend(backoffs(snapshot).find(not_said_yet).map(Backoff::explanation));
    // Said before a drain that may take an hour: it may be for this that there is one.
    parts.extend(new_pods::not_made(snapshot).filter(|part| !parts.contains(part)));
    let drain = nearest_to_trouble(snapshot);
    parts.extend(drain.map(|(pod, others)| drain_words::draining(snapshot, pod, others)));
    parts.extend(replaced_once_gone(snapshot));
    let leaving = node_words::sentences(snapshot);
    if parts.is_empty() && leaving.is_empty() {
        parts.extend(new_pods::not_taking_work(snapshot));
    }
    for part in leaving {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    if parts.is_empty() {
        parts.extend(rest(snapshot, draft, course));
    }
    parts.extend(ended_by_others(snapshot));
    let stands_for = drain.map(|(pod, _)| drain_words::stands_for(snapshot, pod));
    Sentence { text: parts.join("; "), stands_for }
}

/// The pod whose drain is nearest to trouble, and how many others drain.
fn nearest_to_trouble<'a>(snapshot: &Snapshot<'a>) -> Option<(&'a Pod, usize)> {
    let mut pods: Vec<_> = snapshot.shown_as_draining().filter(|p| p.drain.is_some()).collect();
    pods.sort_by_key(|p| (p.drain.map(|d| d.since), &p.name));
    let held = |p: &&&Pod| progress(snapshot, p) == Progress::Held;
    let pod = pods.iter().find(held).or(pods.first())?;
    Some((pod, pods.len() - 1))
}

/// Pods that could be made at once, were it not for those that drain themselves.
fn replaced_once_gone(snapshot: &Snapshot<'_>) -> Option<String> {
    let app = &snapshot.observed.app;
    let behind = count(snapshot.handed_over_in_room());
    let here = count(snapshot.routed().filter(|p| !snapshot.is_superseded(p)));
    let missing = app.replicas.saturating_sub(here);
    let waits = app.deletion.keeps_serving() && missing > 0 && behind > 0 && snapshot.room() <= 0;
    let (pods, are) = if missing == 1 { ("pod", "is") } else { ("pods", "are") };
    waits.then(|| {
        format!("{missing} {pods} of revision {} {are} made once the pods that drain after SIGTERM have exited (rollout.replaceWhen: Drained)", app.update)
    })
}

/// Nothing is left for us to do there: its controller ends the pods, and each drains itself.
fn namespace_goes(snapshot: &Snapshot<'_>) -> String {
    let pods = snapshot.observed.pods.iter().filter(|p| p.containers != Containers::Finished);
    let known = pods.clone().filter_map(|p| snapshot.answer(p)).map(|a| a.in_flight.total);
    let (pods, known) = (count(pods), known.fold(0, u64::saturating_add));
    let namespace = &snapshot.observed.app.namespace;
    if pods == 0 {
        return format!("the namespace {namespace} is terminating: no pod runs in it any more");
    }
    let pods = if pods == 1 { "1 pod ends".to_owned() } else { format!("{pods} pods end") };
    format!(
        "the namespace {namespace} is terminating: {pods} in it, with {known} in flight as far as is known; each has its grace period"
    )
}

/// The busiest pod that others ended, and how many more there are.
fn ended_by_others(snapshot: &Snapshot<'_>) -> Option<String> {
    let mut pods: Vec<_> = others::busy(snapshot).collect();
    pods.sort_by_key(|(p, count)| (std::cmp::Reverse(count.total), &p.name));
    let (pod, count) = pods.first()?;
    let others = and_more(pods.len() - 1);
    let until = match (pod.node.is_silent(), pod.grace_ends) {
        (true, _) => {
            " as last known; its node is not Ready, so nobody knows: if it is lost for good, remove it from the cluster".to_owned()
        }
        (false, Some(at)) => format!("; it has until {} to finish", whole_seconds(at)),
        (false, None) => String::new(),
    };
    let how = "deleted by somebody else (kubectl delete, an eviction) or by its ReplicaSet";
    Some(format!("{}{others}: {how} with {}{until}", pod.name, drain_words::in_flight_by_kind(*count, None)))
}

/// What is waited for when no pod is at fault.
fn rest(snapshot: &Snapshot<'_>, draft: &Draft, course: &Course<'_>) -> Option<String> {
    let app = &snapshot.observed.app;
    if let Some(words) = adoption::sentence(snapshot) {
        return Some(words);
    }
    if app.deletion == Deletion::Leave {
        return Some(leave::sentence(snapshot));
    }
    if app.deletion != Deletion::No {
        return Some(of_a_deletion(snapshot));
    }
    let to_roll = snapshot.count_superseded() > 0 || snapshot.revision(&app.update).is_none();
    if app.paused && to_roll && !course.replaces_others {
        return Some("the rollout is paused: set spec.rollout.paused to false to go on".to_owned());
    }
    if snapshot.revision(&app.update).is_none() {
        return of_a_revision_to_make(snapshot);
    }
    if draft.ask_serving && draft.actions.is_empty() {
        return Some(
            "scaling down: the least busy pods drain once every pod has told what it has in flight, and as far as spec.rollout.maxUnavailable allows".to_owned(),
        );
    }
    of_missing_pods(snapshot).or_else(|| of_surplus_pods(snapshot))
}

fn of_a_deletion(snapshot: &Snapshot<'_>) -> String {
    let words = others::why_fences_stay(snapshot).filter(|_| snapshot.remaining.is_empty());
    words.unwrap_or_else(|| what_goes(snapshot).to_owned())
}

fn what_goes(snapshot: &Snapshot<'_>) -> &'static str {
    let around = &snapshot.observed.surroundings;
    let gone = snapshot.observed.revisions.is_empty()
        && around.service == Child::AsWanted
        && around.budget == Child::AsWanted;
    match snapshot.observed.app.deletion {
        Deletion::Orphan => {
            "its PodDisruptionBudget and its finalizer are being removed; its Deployments, pods and Service stay"
        }
        Deletion::No | Deletion::Leave | Deletion::Drain if gone => "its finalizer is being removed",
        Deletion::No | Deletion::Leave | Deletion::Drain if !snapshot.remaining.is_empty() => {
            "its pods are about to drain; its Service goes once none lingers, all else once they have ended"
        }
        Deletion::No | Deletion::Leave | Deletion::Drain => {
            "what it had is being removed: Deployments, Service, PodDisruptionBudget"
        }
    }
}

fn of_a_revision_to_make(snapshot: &Snapshot<'_>) -> Option<String> {
    match &snapshot.observed.surroundings.template {
        _ if snapshot.may_be_made() => Some(format!("revision {} is being made", snapshot.update())),
        TemplateVerdict::Awaits(why) => Some(why.clone()),
        TemplateVerdict::Unknown => Some("a dry run of spec.template has no answer yet".to_owned()),
        TemplateVerdict::Unanswered { why, .. } if snapshot.revision(snapshot.update()).is_none() => {
            Some(format!("a dry run of spec.template: {why}; the operator asks again by itself"))
        }
        TemplateVerdict::Accepted
        | TemplateVerdict::Refused(_)
        | TemplateVerdict::RefusedBefore(_)
        | TemplateVerdict::Unanswered { .. } => None,
    }
}

fn of_missing_pods(snapshot: &Snapshot<'_>) -> Option<String> {
    let here = count(snapshot.routed().filter(|p| !snapshot.is_superseded(p)));
    let missing = snapshot.observed.app.replicas.checked_sub(here).filter(|missing| *missing > 0)?;
    let (pods, have) = if missing == 1 { ("pod", "has") } else { ("pods", "have") };
    let lost = match count(snapshot.remaining.iter().filter(|p| p.node.is_silent())) {
        0 => String::new(),
        n => format!(
            "; they wait for room: {n} on nodes that are not Ready still count, until they are known to be gone"
        ),
    };
    Some(format!("{missing} {pods} of revision {} {have} yet to be made{lost}", snapshot.update()))
}

/// Replicas without a pod, mostly, that are taken back; or a choice that is under way.
fn of_surplus_pods(snapshot: &Snapshot<'_>) -> Option<String> {
    let more = snapshot.total().checked_sub(snapshot.observed.app.replicas).filter(|more| *more > 0)?;
    let failing = snapshot.observed.revisions.iter().find_map(|r| Some((r, r.end_failure.as_ref()?)));
    if let Some((revision, failure)) = failing {
        return Some(format!(
            "the ReplicaSet of {} cannot end a pod: {} (its retries get rarer; the operator triggers one within 5 min)",
            revision.name, failure.message
        ));
    }
    let (pods, have) = if more == 1 { ("pod", "has") } else { ("pods", "have") };
    Some(format!("{more} {pods} above spec.replicas {have} yet to go"))
}
