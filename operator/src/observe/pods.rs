//! A pod object as the planner sees it. Each judgement here leans towards "may be busy".

use graceful_api::marks::AutoscalerAnnotation;
use graceful_api::{DrainReason, RevisionHash, marks, names};
use graceful_plan::{Containers, CutNote, DrainNote, Endpoints, Epoch, Mark, Node, Pod, PodUid, Readiness};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as PodObject, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::trouble::trouble;

/// The kubelet writes a pod's startTime and its first Ready=False at the same moment, in whole seconds: they differ by at most one. A Ready
/// condition that turned False later than that had been True.
const SAME_MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// Which containers of a pod say whether it may be at work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppContainers<'a> {
    /// The one whose work is asked for: that answers, or that stands behind a gate.
    pub(crate) container: &'a str,
    /// The gate, which has no work of its own: what it holds is between a client and the app. Were it counted, a pod whose app never started would be busy.
    pub(crate) gate: Option<&'a str>,
}

/// Parses a pod. `app_containers`: none if its revision's policy cannot be read.
pub(crate) fn parse(
    pod: &PodObject,
    app_containers: Option<AppContainers<'_>>,
    node: impl Fn(&str) -> Node,
    now: Timestamp,
) -> Pod {
    let node_name = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    Pod {
        name: pod.name_any(),
        uid: uid(pod),
        revision: RevisionHash(label(pod, names::REVISION_LABEL).unwrap_or_default().to_owned()),
        created,
        enlisted: true,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        routed: label(pod, names::SERVING_LABEL) == Some(names::SERVING),
        epoch: annotation(pod, names::DRAIN_EPOCH).and_then(epoch),
        drain: drain_mark(pod, now),
        cheapest: annotation(pod, names::POD_DELETION_COST) == Some(names::RETIRING_DELETION_COST),
        endpoints: Endpoints::Withdrawn,
        bridged: annotation(pod, names::LINGERING).is_some(),
        mark: mark(pod),
        mark_rests_until: None,
        cut: annotation(pod, names::CUT).map(|tasks| CutNote { tasks: tasks.parse().ok() }),
        ends_since: ends_since(&pod.metadata),
        grace_ends: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        readiness: readiness(pod),
        containers: containers(pod, app_containers),
        node: node_name.map(node).unwrap_or_default(),
        unschedulable: unschedulable(pod),
        grace_seconds: grace_seconds(pod),
        trouble: trouble(pod),
        write_backoff: None,
    }
}

/// What it says to evictions and autoscalers, where the operator has written that or made it so.
pub(super) fn mark(pod: &PodObject) -> Mark {
    let label = label(pod, marks::BUSY_LABEL);
    if annotation(pod, marks::OURS).is_none() {
        return if label.is_some() { Mark::Unclear } else { Mark::Absent };
    }
    let busy = label == Some(marks::BUSY);
    let in_step = autoscaler_annotations(pod).iter().all(|a| {
        let value = annotation(pod, a.key);
        if busy { value == Some(a.busy) } else { value == a.idle }
    });
    match (in_step, busy) {
        (false, _) => Mark::Unclear,
        (true, true) => Mark::Busy,
        (true, false) => Mark::Idle,
    }
}

/// The autoscalers' annotations that are ours to write.
pub(super) fn autoscaler_annotations(pod: &PodObject) -> Vec<AutoscalerAnnotation> {
    marks::ours(|key| annotation(pod, key))
}

/// The API server writes when the grace period will be over, and how long it is; not when the deletion began.
fn ends_since(pod: &ObjectMeta) -> Option<Timestamp> {
    let ends = pod.deletion_timestamp.as_ref()?.0;
    let grace = SignedDuration::from_secs(pod.deletion_grace_period_seconds.unwrap_or_default());
    Some(ends.saturating_sub(grace).unwrap_or(ends))
}

/// The scheduler's word that no node takes it.
fn unschedulable(pod: &PodObject) -> Option<Timestamp> {
    let scheduled = condition(pod.status.as_ref(), "PodScheduled")?;
    let refused = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    refused.then(|| scheduled.last_transition_time.as_ref().map(|t| t.0))?
}

/// Kubernetes defaults it to 30.
fn grace_seconds(pod: &PodObject) -> u32 {
    let seconds = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    u32::try_from(seconds).unwrap_or_default()
}

pub(crate) fn uid(pod: &PodObject) -> PodUid {
    PodUid(pod.metadata.uid.clone().unwrap_or_default())
}

/// Kubernetes' label of a pod: the hash that its ReplicaSet's name ends with.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// Whether a ReplicaSet of this Deployment made it, of which no label of ours says so.
pub(super) fn is_made_by(pod: &ObjectMeta, deployment: &str) -> bool {
    let hash = pod.labels.as_ref().and_then(|l| l.get(TEMPLATE_HASH));
    let owner = pod.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    owner.zip(hash).is_some_and(|(owner, hash)| {
        owner.kind == "ReplicaSet"
            && owner.name.strip_prefix(deployment).and_then(|rest| rest.strip_prefix('-')) == Some(hash)
    })
}

/// The same pod, of an adopted Deployment: until it has our labels it is as good as routed to, since the user's Services send it clients.
pub(super) fn of_adopted(pod: Pod, object: &PodObject, app: &str) -> Pod {
    let enlisted = label(object, names::APP_LABEL) == Some(app)
        && label(object, names::REVISION_LABEL) == Some(names::ADOPTED_REVISION);
    let routed = pod.routed || (!enlisted && pod.drain.is_none());
    Pod { enlisted, routed, revision: RevisionHash::adopted(), ..pod }
}

/// Whether the pod is one of this Deployment's: by label, and by the ReplicaSet that controls it. A pod that merely wears our labels is not.
pub(crate) fn belongs_to(pod: &ObjectMeta, deployment: &str, revision: &str) -> bool {
    let owner = pod.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    pod.labels.as_ref().and_then(|l| l.get(names::REVISION_LABEL)).is_some_and(|r| r == revision)
        && owner.is_some_and(|o| {
            o.kind == "ReplicaSet"
                && o.name.strip_prefix(deployment).is_some_and(|rest| rest.starts_with('-'))
        })
}

/// The id of the container that is asked, new for each of its runs.
pub(crate) fn container_id(pod: &PodObject, container: &str) -> Option<String> {
    container_status(pod, container)?.container_id.clone()
}

/// None from 2^52 on: a pod that was told the last number there is could be told no other. (The planner takes lower ones, that no operator has counted up to either,
/// from 2^40 on, for this pod's own alone.)
fn epoch(text: &str) -> Option<Epoch> {
    const PLAUSIBLE: u64 = 1 << 52;
    text.parse().ok().filter(|n| *n < PLAUSIBLE).map(Epoch)
}

/// None also where its time is none that we could have written: before the pod was made or tomorrow, give or take clocks that differ by hours.
/// Such a pod is one that lost its label without a drain: put back, and drained anew if it must go.
fn drain_mark(pod: &PodObject, now: Timestamp) -> Option<DrainNote> {
    const CLOCKS: SignedDuration = SignedDuration::from_hours(24);
    let since: Timestamp = annotation(pod, names::DRAIN_SINCE)?.parse().ok()?;
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let sane = since.duration_since(created) > -CLOCKS && since.duration_since(now) < CLOCKS;
    let reason = DrainReason::parse(annotation(pod, names::DRAIN_REASON)?)?;
    sane.then_some(DrainNote { reason, since })
}

fn readiness(pod: &PodObject) -> Readiness {
    let status = pod.status.as_ref();
    // Rejected by its kubelet, which writes the condition when it does so, and not as of the start.
    let failed = status.is_some_and(|s| s.phase.as_deref() == Some("Failed"));
    if failed && status.and_then(|s| s.container_statuses.as_ref()).is_none_or(Vec::is_empty) {
        return Readiness::Never;
    }
    let Some(ready) = condition(status, "Ready") else {
        return Readiness::Never;
    };
    let since = ready.last_transition_time.as_ref().map(|t| t.0);
    let started = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    match (ready.status.as_str(), since, started) {
        ("True", Some(since), _) => Readiness::Ready(since),
        // Without a start, no kubelet has ever had it.
        (_, _, None) => Readiness::Never,
        (_, Some(since), Some(started)) if never_was(ready, since, started) => Readiness::Never,
        (_, since, Some(started)) => Readiness::Lost(since.unwrap_or(started)),
    }
}

/// Only the kubelet's own word counts, both times by its own clock. The node controller turns the condition False as well, by another clock: where
/// the node's is ahead, that moment can even lie before the start.
fn never_was(ready: &PodCondition, since: Timestamp, started: Timestamp) -> bool {
    let apart = since.duration_since(started);
    !apart.is_negative() && apart <= SAME_MOMENT && ready.reason.as_deref() != Some("NodeNotReady")
}

/// All containers that last: ordinary ones and native sidecars. An init container or one added for debugging accepts no work.
fn containers(pod: &PodObject, app_containers: Option<AppContainers<'_>>) -> Containers {
    if has_finished(pod) {
        return Containers::Finished;
    }
    if pod.spec.as_ref().is_none_or(|s| s.node_name.is_none()) {
        return Containers::NeverStarted;
    }
    // Bound, and its kubelet has not taken it up: it writes startTime before it makes a sandbox. (No staler than its word that a container waits.)
    if pod.status.as_ref().is_none_or(|s| s.start_time.is_none() && s.container_statuses.is_none()) {
        return Containers::NeverStarted;
    }
    // Taken up. One without a word may run, and so may one that the kubelet has no word on yet.
    let Some(AppContainers { container: asked, gate }) = app_containers else {
        return Containers::Unknown;
    };
    let works = |name: &&str| gate != Some(*name);
    let mut runs: Vec<_> =
        lasting(pod).filter(works).map(|name| (name, run(container_status(pod, name)))).collect();
    if !runs.iter().any(|(name, _)| *name == asked) {
        runs.push((asked, run(container_status(pod, asked))));
    }
    let any = |wanted: Run| runs.iter().any(|(_, run)| *run == wanted);
    let asked_crashed = runs.iter().any(|(name, run)| *name == asked && *run == Run::Ended);
    if any(Run::Now) || any(Run::Unknown) {
        let kept = asked_crashed && !keeps_nothing(pod);
        return match (kept, any(Run::Now)) {
            (true, _) => Containers::HalfCrashed,
            (false, true) => Containers::Running,
            (false, false) => Containers::Unknown,
        };
    }
    match (any(Run::Ended), keeps_nothing(pod)) {
        (false, _) => Containers::NeverStarted,
        (true, true) => Containers::CrashedEmpty,
        (true, false) => Containers::Crashed,
    }
}

/// Nothing in it will run again.
pub(crate) fn has_finished(pod: &PodObject) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// What the kubelet says of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Now,
    /// The container ran, and does not now.
    Ended,
    Never,
    Unknown,
}

fn run(status: Option<&ContainerStatus>) -> Run {
    let Some(status) = status else {
        return Run::Unknown;
    };
    let ran = status.restart_count > 0 || status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    match &status.state {
        Some(state) if state.running.is_some() => Run::Now,
        Some(state) if state.terminated.is_some() || (state.waiting.is_some() && ran) => Run::Ended,
        Some(state) if state.waiting.is_some() => Run::Never,
        Some(_) | None => Run::Unknown,
    }
}

fn lasting(pod: &PodObject) -> impl Iterator<Item = &str> {
    let spec = pod.spec.as_ref();
    let ordinary = spec.into_iter().flat_map(|s| &s.containers);
    let sidecars = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    ordinary.chain(sidecars).map(|c| c.name.as_str())
}

/// No volume of the pod could hold what a container accepted before it crashed. Kinds that are only ever read are known by name; any other,
/// and one that is newer than this code, could.
fn keeps_nothing(pod: &PodObject) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        spec.volumes.iter().flatten().all(|v| {
            v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
        })
    })
}

fn container_status<'a>(pod: &'a PodObject, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let ordinary = status.container_statuses.iter().flatten();
    ordinary.chain(status.init_container_statuses.iter().flatten()).find(|c| c.name == name)
}

pub(crate) fn condition<'a>(status: Option<&'a PodStatus>, kind: &str) -> Option<&'a PodCondition> {
    status?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn label<'a>(pod: &'a PodObject, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(pod: &'a PodObject, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests;
