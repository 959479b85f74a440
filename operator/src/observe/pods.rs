//! A pod object as the planner sees it. Each judgement here leans towards "may be busy".

use graceful_api::{DrainReason, names};
use graceful_plan::{Container, DrainMark, Epoch, Pod, PodUid, Readiness, RevisionHash};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as PodObject, PodCondition, PodStatus};
use kube::ResourceExt;

use super::trouble::trouble;

/// The kubelet writes a pod's startTime and its first Ready=False at the same moment, in whole seconds: they differ by at most one. A Ready
/// condition that turned False later than that had been True.
const SAME_MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// Parses a pod. `container` is the one that is asked for its in-flight count; none if its revision's policy cannot be read.
pub(crate) fn parse(pod: &PodObject, container: Option<&str>, node_ready: impl Fn(&str) -> bool) -> Pod {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    Pod {
        name: pod.name_any(),
        uid: uid(pod),
        revision: RevisionHash(label(pod, names::REVISION_LABEL).unwrap_or_default().to_owned()),
        created,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        serving: label(pod, names::SERVING_LABEL) == Some(names::SERVING),
        epoch: annotation(pod, names::DRAIN_EPOCH).and_then(|text| text.parse().ok()).map(Epoch),
        drain: drain_mark(pod),
        readiness: readiness(pod),
        container: container_state(pod, container),
        // A pod that no node has is nobody's to speak for but the scheduler's: it runs nowhere.
        node_ready: node.is_none_or(node_ready),
        trouble: trouble(pod),
    }
}

pub(crate) fn uid(pod: &PodObject) -> PodUid {
    PodUid(pod.metadata.uid.clone().unwrap_or_default())
}

/// Whether the pod is one of this Deployment's: by label, and by the ReplicaSet that controls it. A pod that merely wears our labels is not.
pub(crate) fn belongs_to(pod: &PodObject, deployment: &str, revision: &str) -> bool {
    let owner = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    label(pod, names::REVISION_LABEL) == Some(revision)
        && owner.is_some_and(|o| {
            o.kind == "ReplicaSet"
                && o.name.strip_prefix(deployment).is_some_and(|rest| rest.starts_with('-'))
        })
}

/// The id of the container that is asked, new for each of its runs.
pub(crate) fn incarnation(pod: &PodObject, container: &str) -> Option<String> {
    container_status(pod, container)?.container_id.clone()
}

fn drain_mark(pod: &PodObject) -> Option<DrainMark> {
    Some(DrainMark {
        reason: DrainReason::parse(annotation(pod, names::DRAIN_REASON)?)?,
        since: annotation(pod, names::DRAIN_SINCE)?.parse().ok()?,
    })
}

fn readiness(pod: &PodObject) -> Readiness {
    let status = pod.status.as_ref();
    let Some(ready) = condition(status, "Ready") else {
        return Readiness::Never;
    };
    let since = ready.last_transition_time.as_ref().map(|t| t.0);
    let started = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    match (ready.status.as_str(), since, started) {
        ("True", Some(since), _) => Readiness::Ready(since),
        // Without a start, no kubelet has ever had it.
        (_, _, None) => Readiness::Never,
        (_, Some(since), Some(started)) if since.duration_since(started) <= SAME_MOMENT => Readiness::Never,
        (_, since, Some(started)) => Readiness::Lost(since.unwrap_or(started)),
    }
}

fn container_state(pod: &PodObject, container: Option<&str>) -> Container {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return Container::Finished;
    }
    if pod.spec.as_ref().is_none_or(|s| s.node_name.is_none()) {
        return Container::NeverStarted;
    }
    // Bound, and its kubelet has not taken it up: it writes startTime before it makes a sandbox. (No staler than its word that a container waits.)
    if pod.status.as_ref().is_none_or(|s| s.start_time.is_none() && s.container_statuses.is_none()) {
        return Container::NeverStarted;
    }
    // Taken up, and no word on this container: it may run.
    let Some(status) = container.and_then(|name| container_status(pod, name)) else {
        return Container::Unknown;
    };
    let ran = status.restart_count > 0 || status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    match &status.state {
        Some(state) if state.running.is_some() => Container::Running,
        Some(state) if state.terminated.is_some() || (state.waiting.is_some() && ran) => {
            if keeps_nothing(pod) { Container::CrashedEmpty } else { Container::Crashed }
        }
        Some(state) if state.waiting.is_some() => Container::NeverStarted,
        Some(_) | None => Container::Unknown,
    }
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
