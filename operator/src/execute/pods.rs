//! Out of service and back: one patch each, on exactly the pod that was seen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use graceful_api::{DrainReason, RevisionHash, Signal, marks, names};
use graceful_plan::last_look::unroutes_in_time;
use graceful_plan::refusals::Subject;
use graceful_plan::{BackoffCause, Conversation, DeletionCost, DrainNote, Epoch, PodRef};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::{CHANGED, Outcome, Scene, bridge, timed};
use crate::app_ref::AppRef;
use crate::error::{Error, call};
use crate::merge::{Mode, merge};
use crate::unseen_writes::Kind;
use crate::writes::Expiring;

/// Unroutes, and protects one that may be at work: no new connections reach it, and its ReplicaSet deletes any other pod first. Established ones live on.
pub(super) async fn unroute(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    epoch: Epoch,
    DrainNote { reason, since }: DrainNote,
    cost: DeletionCost,
) -> Result<Outcome, Error> {
    let number = match cost {
        DeletionCost::Highest => names::DRAINING_DELETION_COST,
        DeletionCost::Lowest => names::RETIRING_DELETION_COST,
    };
    let mut annotations = json!({
        (names::DRAIN_EPOCH): epoch.to_string(),
        (names::DRAIN_REASON): reason.as_str(),
        (names::DRAIN_SINCE): since.to_string(),
        (names::POD_DELETION_COST): number,
        // The note of a cut that was refused goes: what is counted as cut must have been cut.
        (names::CUT): null,
    });
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    // A pod that is only starting is written to by kubelet and scheduler all the time; none of that changes this decision, so no resourceVersion is sent.
    if cost == DeletionCost::Lowest {
        return patch(scene, pod, None, &json!({(names::SERVING_LABEL): null}), &annotations).await;
    }
    let mut labels = json!({(names::SERVING_LABEL): null});
    if drains_itself(scene, pod) {
        // No budget protects a pod after its DELETE; an autoscaler that would take its node goes by these alone.
        busy_marks(scene, pod, Some(true), &mut labels, &mut annotations);
    }
    match bridge::begin(scene, pod, &version).await? {
        Ok(version) => patch(scene, pod, Some(&version), &labels, &annotations).await,
        Err(undone) => Ok(undone),
    }
}

/// Back to serving. A pod that can be told has opened before (`graceful_plan`, `put_back`); one that somebody else routed to, or that could not be asked, is told after.
pub(super) async fn put_back(scene: &mut Scene<'_>, pod: &PodRef, epoch: Epoch) -> Result<Outcome, Error> {
    let mut annotations = json!({
        (names::DRAIN_EPOCH): epoch.to_string(),
        (names::DRAIN_REASON): null,
        (names::DRAIN_SINCE): null,
        (names::POD_DELETION_COST): null,
        (names::CUT): null,
    });
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    if node_goes(scene, pod).await? {
        return Ok(Outcome::LookAgain("its node goes all the same"));
    }
    // Labelled though it drains, or without the label though it does not: neither is our doing.
    let others = scene.seen.pod(&pod.uid).is_some_and(|p| p.routed == p.drain.is_some());
    let mut labels = json!({(names::SERVING_LABEL): names::SERVING});
    // With HoldWhileBusy they are kept in step by themselves.
    if drains_itself(scene, pod) && !scene.seen.observed.app.hold_while_busy {
        busy_marks(scene, pod, None, &mut labels, &mut annotations);
    }
    let outcome = patch(scene, pod, Some(&version), &labels, &annotations).await?;
    if outcome == Outcome::Done {
        resume(scene, pod, epoch);
    }
    if outcome == Outcome::Done && others && scene.writes.is_contested(&pod.uid) {
        let message = format!(
            "somebody else writes the label {} or the drain annotations of pod {}, and they were put right time and again: find out who, and have it leave \
             them to the operator",
            names::SERVING_LABEL,
            pod.name
        );
        scene.writes.refusals.note(
            Subject::Pod(pod.uid.clone()),
            BackoffCause::Refused,
            message.clone(),
            Instant::now(),
        );
        return Ok(Outcome::Refused(message));
    }
    Ok(outcome)
}

/// Clients are sent to it, and one that is closed refuses them until it is told. Where a write takes seconds, the rest of the plan would be too late.
fn resume(scene: &Scene<'_>, pod: &PodRef, epoch: Epoch) {
    let contact = scene.seen.observed.contacts.get(&pod.uid);
    let said = contact.and_then(|c| c.answer.as_ref()?.protocol);
    let open = said.is_some_and(|p| p.accepting && p.epoch >= epoch);
    if !open
        && signal_of(scene, pod) == Some(Signal::Http)
        && let Some(target) = scene.seen.targets.get(&pod.uid)
    {
        let app = AppRef::from_obj(scene.object);
        scene.probes.tell(&app, &pod.uid, Conversation::Resume { epoch }, target);
    }
}

fn drains_itself(scene: &Scene<'_>, pod: &PodRef) -> bool {
    signal_of(scene, pod) == Some(Signal::Sigterm)
}

fn signal_of(scene: &Scene<'_>, pod: &PodRef) -> Option<Signal> {
    let revision = revision_of(scene, pod)?;
    scene.seen.policy(&revision).map(|policy| policy.signal)
}

/// Adds what says to evictions and autoscalers whether the pod is busy, or takes it away; false where it is not known which of it is ours.
fn busy_marks(
    scene: &Scene<'_>,
    pod: &PodRef,
    busy: Option<bool>,
    labels: &mut Value,
    annotations: &mut Value,
) -> bool {
    let Some(ours) = scene.seen.autoscaler_annotations.get(&pod.uid) else { return false };
    labels[marks::BUSY_LABEL] = json!((busy == Some(true)).then_some(marks::BUSY));
    for (key, value) in marks::annotations(ours, busy == Some(true)) {
        annotations[key] = if busy.is_some() { value } else { Value::Null };
    }
    true
}

/// Whether a pod that drains for its node, which is said to stay now, was drained rightly: the watch may be late, and would send clients to a node that dies.
async fn node_goes(scene: &Scene<'_>, pod: &PodRef) -> Result<bool, Error> {
    let for_its_node = scene
        .seen
        .pod(&pod.uid)
        .filter(|p| p.drain.is_some_and(|note| note.reason == DrainReason::NodeDrain));
    let Some(name) = for_its_node.and_then(|p| p.node.name.as_deref()) else { return Ok(false) };
    let node = scene.sources.stores.nodes.read(&scene.sources.client, name).await?;
    Ok(!node.fate.stays())
}

/// Says to evictions and autoscalers whether it is to be waited for; None: it says no more.
pub(super) async fn mark(scene: &mut Scene<'_>, pod: &PodRef, busy: Option<bool>) -> Result<Outcome, Error> {
    let (mut labels, mut annotations) = (json!({}), json!({}));
    let known = busy_marks(scene, pod, busy, &mut labels, &mut annotations);
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned().filter(|_| known) else {
        return Ok(CHANGED);
    };
    if !scene.supplies.mark_pace.try_turn() {
        return Ok(Outcome::Later);
    }
    scene.writes.marked(&pod.uid);
    patch(scene, pod, Some(&version), &labels, &annotations).await
}

pub(super) async fn patch(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    version: Option<&str>,
    labels: &Value,
    annotations: &Value,
) -> Result<Outcome, Error> {
    // Where a write has cost a pod its label, the next is first sent as a dry run.
    let suspect = revision_of(scene, pod)
        .is_some_and(|hash| scene.writes.refusals.knows(&Subject::Deployment(hash), Instant::now()));
    if suspect
        && let Ok(tried) = write(scene, pod, version, labels, annotations, Mode::Dry).await
        && !keeps_ours(&tried)
        && scene.seen.pod(&pod.uid).is_none_or(|p| p.enlisted)
    {
        return lost_label(scene, pod, "would be let go by its ReplicaSet if it was changed");
    }
    // One of an adopted Deployment may have none yet.
    let had_ours = scene.seen.pod(&pod.uid).is_none_or(|p| p.enlisted);
    let (written, took) = timed(write(scene, pod, version, labels, annotations, Mode::Real)).await;
    if !unroutes_in_time(Some(took)) {
        scene.writes.slow_pod_write = Some(Expiring::new(took));
    }
    match written {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Pod, &written);
            if had_ours && !keeps_ours(&written) {
                return lost_label(scene, pod, "was changed, and its ReplicaSet has let it go");
            }
            if !is_as_written(written.labels(), labels) || !is_as_written(written.annotations(), annotations)
            {
                let how = "an admission webhook or policy changes the labels or annotations that we write; exempt pods with the label graceful.dev/app \
                           from it";
                let altered = Error::Altered { what: "write to a pod", how: how.to_owned() };
                return refused(scene, pod, "changed", altered);
            }
            scene.writes.refusals.cleared(&Subject::Pod(pod.uid.clone()));
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => refused(scene, pod, "changed", error),
    }
}

/// How long a write to a pod takes just now; None if it is refused.
pub(super) async fn try_a_write(scene: &Scene<'_>, pod: &PodRef) -> Option<Duration> {
    let cost = json!({(names::POD_DELETION_COST): names::RETIRING_DELETION_COST});
    let (tried, took) = timed(write(scene, pod, None, &json!({}), &cost, Mode::Dry)).await;
    tried.ok().map(|_| took)
}

/// Whether the pod has the labels that its ReplicaSet and we know it by.
fn keeps_ours(pod: &Pod) -> bool {
    [names::APP_LABEL, names::REVISION_LABEL].iter().all(|label| pod.labels().contains_key(*label))
}

/// Its ReplicaSet has let it go for that and makes another, as it will with each that is written to: none of its siblings is, for a while.
fn lost_label(scene: &mut Scene<'_>, pod: &PodRef, what: &str) -> Result<Outcome, Error> {
    let how = format!(
        "an admission webhook or policy takes the label {} or {} off pods that are written to; exempt pods with these labels from it",
        names::APP_LABEL,
        names::REVISION_LABEL
    );
    let altered = Error::Altered { what: "write to a pod", how };
    let Some(revision) = revision_of(scene, pod) else {
        return refused(scene, pod, "changed", altered);
    };
    let name = &pod.name;
    super::back_off(scene, Subject::Deployment(revision), altered, |why| format!("pod {name} {what}: {why}"))
}

fn revision_of(scene: &Scene<'_>, pod: &PodRef) -> Option<RevisionHash> {
    scene.seen.pod(&pod.uid).map(|p| p.revision.clone())
}

/// Each value as it was written, and none where it was taken away.
fn is_as_written(written: &BTreeMap<String, String>, asked: &Value) -> bool {
    let mut all = asked.as_object().into_iter().flatten();
    all.all(|(key, value)| written.get(key).map(String::as_str) == value.as_str())
}

/// Remembers that the API server does not let us write to this pod; the others go on without it. Any other failure is the whole plan's.
pub(super) fn refused(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    what: &str,
    error: Error,
) -> Result<Outcome, Error> {
    let (of, name) = (Subject::Pod(pod.uid.clone()), &pod.name);
    super::back_off(scene, of, error, |why| format!("pod {name} cannot be {what}: {why}"))
}

/// Labels and annotations in one merge patch that holds for this uid alone, and for this resourceVersion where one is given.
pub(super) async fn write(
    scene: &Scene<'_>,
    pod: &PodRef,
    version: Option<&str>,
    labels: &Value,
    annotations: &Value,
    mode: Mode,
) -> Result<Pod, Error> {
    let mut patch = json!({"metadata": {"uid": pod.uid.0, "labels": labels, "annotations": annotations}});
    // A null would be read as none that is known.
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    call("write to a pod", scene.api::<Pod>().patch(&pod.name, &merge(mode), &Patch::Merge(patch))).await
}
