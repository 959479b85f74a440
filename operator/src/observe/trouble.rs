//! What keeps a pod from running or becoming Ready, in the scheduler's or the kubelet's own words.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt;

use super::pods::condition;

/// The longest a message may be: it goes into a status and an Event (1024 bytes at most). Image pull errors are the longest, and their
/// beginning says it.
const LONGEST: usize = 400;

/// The pod's own reason, if it is not well.
pub(crate) fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref();
    let scheduled = condition(status, "PodScheduled").filter(|c| c.status == "False");
    if let Some(unscheduled) = scheduled {
        let words = unscheduled.message.as_deref().or(unscheduled.reason.as_deref());
        let said = cut(&format!("not scheduled: {}", words.unwrap_or("no node takes it")));
        // The scheduler does not say which.
        let of_a_volume = words.is_some_and(|w| w.contains("olume"));
        let named =
            claim(pod).filter(|_| of_a_volume).map(|claim| bound_to_its_node(&claim)).unwrap_or_default();
        return Some(format!("{said}{named}"));
    }
    let containers = || {
        let status = status.into_iter();
        status.flat_map(|s| {
            s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten())
        })
    };
    // A container that cannot start says more than one that merely waits for it.
    let worst = containers().find_map(failing);
    if let Some(words) = worst {
        return Some(cut(&words));
    }
    if let Some(message) = status.and_then(|s| s.message.as_deref()).filter(|m| !m.is_empty()) {
        let reason = status.and_then(|s| s.reason.as_deref()).map(|r| format!("{r}: ")).unwrap_or_default();
        return Some(cut(&format!("{reason}{message}")));
    }
    if let Some(words) = first_of_all(pod) {
        return Some(words);
    }
    let ready = condition(status, "Ready")?;
    if ready.status == "True" {
        return None;
    }
    let unready: Vec<_> = status
        .into_iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
        .filter(|c| !c.ready && c.state.as_ref().is_some_and(|s| s.running.is_some()))
        .map(|c| c.name.as_str())
        .collect();
    let coming = containers().find(|c| c.state.as_ref().is_some_and(|s| s.waiting.is_some()));
    if let (Some(container), true) = (coming, unready.is_empty()) {
        let name = &container.name;
        return Some(format!(
            "container {name} is being created: its image is pulled, or its volumes are mounted (`kubectl -n {} describe pod {}` has the kubelet's words){}",
            pod.namespace().unwrap_or_default(),
            pod.name_any(),
            claim(pod).map(|claim| attached_elsewhere(&claim)).unwrap_or_default()
        ));
    }
    if !unready.is_empty() {
        return Some(format!("container {} runs, and its readiness probe does not pass", unready.join(", ")));
    }
    ready.message.as_deref().filter(|m| !m.is_empty()).map(cut)
}

/// The first volume claim that the pod shares with others: one of its own (ephemeral) has its name.
fn claim(pod: &Pod) -> Option<String> {
    let claims = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    claims.filter_map(|v| v.persistent_volume_claim.as_ref()).map(|c| c.claim_name.clone()).next()
}

/// The attach controller says Multi-Attach in an Event alone, and nobody else says anything.
fn attached_elsewhere(claim: &str) -> String {
    format!(
        "; if volume claim {claim} can be mounted on one node alone (ReadWriteOnce) and another pod has it, set spec.rollout.maxSurge to 0 and \
         maxUnavailable to 1, so that a pod goes before its replacement comes"
    )
}

/// A volume that is on one node alone, which a surge on another cannot have.
fn bound_to_its_node(claim: &str) -> String {
    format!(
        "; it is about volume claim {claim}, and a pod that has to go first is let go with spec.rollout.maxSurge 0 and maxUnavailable 1"
    )
}

/// What comes before the containers: the kubelet that has taken the pod, and the init container that runs just now.
fn first_of_all(pod: &Pod) -> Option<String> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let scheduled = condition(Some(status), "PodScheduled").is_some_and(|c| c.status == "True");
    let begun = status.start_time.is_some();
    if let (Some(node), true, false) = (&spec.node_name, scheduled, begun) {
        return Some(format!("scheduled to node {node}, whose kubelet has not begun with it yet"));
    }
    let sidecar = |name: &str| {
        let mut all = spec.init_containers.iter().flatten();
        all.any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    let mut running = status.init_container_statuses.iter().flatten();
    let init =
        running.find(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()) && !sidecar(&c.name))?;
    let since = init.state.as_ref().and_then(|s| s.running.as_ref()).and_then(|r| r.started_at.as_ref());
    let since = since.map(|at| format!(" since {}", at.0)).unwrap_or_default();
    Some(format!("init container {} runs{since}, and the others wait for it to end", init.name))
}

/// How a pod that has finished was ended, in the words of whoever ended it.
pub(crate) fn ending(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let phase = status.phase.as_deref().filter(|phase| matches!(*phase, "Failed" | "Succeeded"))?;
    let disrupted = condition(Some(status), "DisruptionTarget").filter(|c| c.status == "True");
    let said = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(cut);
    // The kubelet's own; or, where the node is lost, those of who cleaned up after it.
    let (reason, message) = match said(&status.reason) {
        Some(reason) => (Some(reason), said(&status.message)),
        None => disrupted.map_or((None, None), |c| (said(&c.reason), said(&c.message))),
    };
    Some(match (reason, message) {
        (Some(reason), Some(message)) => format!("ended with phase {phase} ({reason}: {message})"),
        (Some(reason), None) => format!("ended with phase {phase} ({reason})"),
        (None, _) => format!("has finished (phase {phase}), and the operator did not end it"),
    })
}

/// A container that the kubelet cannot start, or that ended.
fn failing(container: &ContainerStatus) -> Option<String> {
    let name = &container.name;
    let ended = |state: Option<&ContainerState>| {
        let ended = state?.terminated.as_ref()?;
        if ended.exit_code == 0
            && ended.reason.as_deref() == Some("Completed")
            && container.restart_count == 0
        {
            return None; // an init container that has done its part
        }
        let reason = ended.reason.as_deref().unwrap_or("it ended");
        let words = ended.message.as_deref().map(|m| format!(": {}", m.trim())).unwrap_or_default();
        Some(format!("{reason}, exit code {}{words}", ended.exit_code))
    };
    let state = container.state.as_ref();
    if let Some(waiting) = state.and_then(|s| s.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let words = waiting.message.as_deref().map(|m| format!(": {}", m.trim())).unwrap_or_default();
        let last = ended(container.last_state.as_ref()).map(|l| format!(" (last: {l})")).unwrap_or_default();
        return Some(format!("container {name}: {reason}{words}{last}"));
    }
    if let Some(ended) = ended(state) {
        return Some(format!("container {name}: {ended}"));
    }
    let last = ended(container.last_state.as_ref()).filter(|_| !container.ready)?;
    Some(format!("container {name} was restarted {} × (last: {last})", container.restart_count))
}

fn cut(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ended(status: &Value) -> Option<String> {
        ending(&serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status})).unwrap())
    }

    #[test]
    fn the_end_of_a_pod_is_told_in_the_words_of_who_ended_it() {
        let words = |status: Value| ended(&status).unwrap();
        let message = "The node was low on resource: memory.\nThreshold quantity: 100Mi.";
        assert_eq!(
            words(json!({"phase": "Failed", "reason": "Evicted", "message": message})),
            "ended with phase Failed (Evicted: The node was low on resource: memory. Threshold quantity: 100Mi.)"
        );
        assert_eq!(
            words(json!({"phase": "Succeeded", "reason": "Terminated"})),
            "ended with phase Succeeded (Terminated)"
        );
        let lost = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": "PodGC: node not found"});
        assert_eq!(
            words(json!({"phase": "Failed", "conditions": [lost]})),
            "ended with phase Failed (DeletionByPodGC: PodGC: node not found)"
        );
        assert_eq!(
            words(json!({"phase": "Failed", "message": ""})),
            "has finished (phase Failed), and the operator did not end it"
        );
        assert_eq!(ended(&json!({"phase": "Running", "reason": "NodeLost"})), None);
    }

    #[test]
    fn a_claim_that_another_pod_may_hold_is_named() {
        let words = |volumes: Value| {
            let waiting = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}}});
            let pod = json!({
                "metadata": {"name": "a", "namespace": "apps"},
                "spec": {"containers": [], "nodeName": "n", "volumes": volumes},
                "status": {"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [waiting],
                    "conditions": [{"type": "Ready", "status": "False"}]},
            });
            trouble(&serde_json::from_value(pod).unwrap()).unwrap()
        };
        let claim = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "books"}}]);
        assert!(words(claim.clone()).contains("set spec.rollout.maxSurge to 0 and maxUnavailable to 1"));
        assert!(words(claim).contains("volume claim books") && !words(json!([])).contains("claim"));
    }

    #[test]
    fn a_claim_that_no_other_node_can_serve_is_named() {
        let words = |said: &str| {
            let pod = json!({
                "metadata": {"name": "a"},
                "spec": {"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "books"}}]},
                "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]},
            });
            trouble(&serde_json::from_value(pod).unwrap()).unwrap()
        };
        let bound = words("0/2 nodes are available: 1 node(s) had volume node affinity conflict");
        assert!(
            bound.contains("conflict; it is about volume claim books") && bound.contains("maxSurge 0"),
            "{bound}"
        );
        assert!(
            words("1 node(s) didn't match PersistentVolume's node affinity").contains("volume claim books")
        );
        assert!(!words("0/2 nodes are available: 2 Insufficient cpu").contains("books"));
    }
}
