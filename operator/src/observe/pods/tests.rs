use serde_json::{Value, json};

use super::*;
use graceful_plan::Kubelet;

const WEB: AppContainers<'_> = AppContainers { container: "web", gate: None };

fn object(status: &Value) -> PodObject {
    serde_json::from_value(json!({
        "metadata": {
            "name": "tasks-abc-rs-1", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"graceful.dev/app": "tasks", "graceful.dev/revision": "abc", "graceful.dev/serving": "true"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "tasks-abc-rs", "uid": "r", "controller": true},
            ],
        },
        "spec": {"nodeName": "n1", "containers": []},
        "status": status,
    }))
    .unwrap()
}

fn parsed(status: &Value) -> Pod {
    parse(&object(status), Some(WEB), |_| Node::default(), Timestamp::now())
}

fn with_container(state: &Value) -> Containers {
    let mut status = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0});
    status.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
    parsed(&json!({"phase": "Running", "containerStatuses": [status]})).containers
}

/// Keeps P7.
#[test]
fn silence_about_the_container_is_not_idleness() {
    let taken_up = json!({"startTime": "2026-01-01T00:00:02Z"});
    assert_eq!(parsed(&taken_up).containers, Containers::Unknown);
    assert_eq!(parsed(&json!({})).containers, Containers::NeverStarted, "its kubelet has not even seen it");
    assert_eq!(with_container(&json!({})), Containers::Unknown);
    assert_eq!(
        parse(&object(&taken_up), None, |_| Node::default(), Timestamp::now()).containers,
        Containers::Unknown
    );
}

#[test]
fn the_kubelet_s_word_on_the_container() {
    assert_eq!(with_container(&json!({"state": {"running": {}}})), Containers::Running);
    let waiting = json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}});
    assert_eq!(with_container(&waiting), Containers::NeverStarted);
    let again = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3,
        "lastState": {"terminated": {"exitCode": 1}}});
    assert_eq!(with_container(&again), Containers::CrashedEmpty);
    assert_eq!(with_container(&json!({"state": {"terminated": {"exitCode": 1}}})), Containers::CrashedEmpty);
    assert_eq!(parsed(&json!({"phase": "Failed"})).containers, Containers::Finished);
}

#[test]
fn a_crash_loses_what_no_volume_holds() {
    let crashed = |volumes: Value| {
        let mut pod = object(&json!({"phase": "Running", "containerStatuses": [{
            "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        }]}));
        pod.spec.as_mut().unwrap().volumes = serde_json::from_value(volumes).unwrap();
        parse(&pod, Some(WEB), |_| Node::default(), Timestamp::now()).containers
    };
    let read_only = json!([{"name": "c", "configMap": {"name": "c"}}, {"name": "t", "projected": {}}]);
    assert_eq!(crashed(read_only), Containers::CrashedEmpty);
    assert_eq!(crashed(json!([{"name": "data", "emptyDir": {}}])), Containers::Crashed);
    assert_eq!(crashed(json!([{"name": "data", "aKindFromTheFuture": {}}])), Containers::Crashed);
}

#[test]
fn a_pod_without_a_node_runs_nowhere() {
    let mut pod = object(&json!({"phase": "Pending"}));
    pod.spec.as_mut().unwrap().node_name = None;
    let parsed =
        parse(&pod, Some(WEB), |_| Node { kubelet: Kubelet::Silent, ..Node::default() }, Timestamp::now());
    assert_eq!((parsed.containers, parsed.node.is_heard()), (Containers::NeverStarted, true));
}

#[test]
fn never_ready_is_told_from_no_longer_ready() {
    let ready = |status: &str, since: &str| {
        let condition = json!({"type": "Ready", "status": status, "lastTransitionTime": since});
        parsed(&json!({"startTime": "2026-01-01T00:00:02Z", "conditions": [condition]})).readiness
    };
    assert_eq!(ready("False", "2026-01-01T00:00:02Z"), Readiness::Never);
    assert_eq!(ready("False", "2026-01-01T00:00:03Z"), Readiness::Never);
    let later = "2026-01-01T00:05:00Z".parse().unwrap();
    assert_eq!(ready("False", "2026-01-01T00:05:00Z"), Readiness::Lost(later));
    assert_eq!(ready("Unknown", "2026-01-01T00:05:00Z"), Readiness::Lost(later));
    assert_eq!(ready("True", "2026-01-01T00:05:00Z"), Readiness::Ready(later));
    assert_eq!(parsed(&json!({})).readiness, Readiness::Never);
}

#[test]
fn a_pod_that_wears_our_labels_is_not_ours_for_that() {
    let mut pod = object(&json!({}));
    assert!(belongs_to(&pod.metadata, "tasks-abc", "abc"));
    assert!(!belongs_to(&pod.metadata, "tasks-ab", "abc"));
    assert!(!belongs_to(&pod.metadata, "tasks-abc", "xyz"));
    pod.metadata.owner_references.as_mut().unwrap()[0].controller = None;
    assert!(!belongs_to(&pod.metadata, "tasks-abc", "abc"));
}

#[test]
fn the_drain_is_read_from_the_pod_or_not_at_all() {
    let mut pod = object(&json!({}));
    let mut annotate = |pairs: &[(&str, &str)]| {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        pod.metadata.annotations = Some(map);
        parse(&pod, None, |_| Node::default(), Timestamp::now())
    };
    let marked = annotate(&[
        (names::DRAIN_EPOCH, "7"),
        (names::DRAIN_REASON, "ScaleDown"),
        (names::DRAIN_SINCE, "2026-01-01T00:00:00Z"),
    ]);
    assert_eq!(marked.epoch, Some(Epoch(7)));
    assert_eq!(marked.drain.unwrap().reason, DrainReason::ScaleDown);
    let garbled = annotate(&[(names::DRAIN_EPOCH, "seven"), (names::DRAIN_REASON, "Whim")]);
    assert_eq!((garbled.epoch, garbled.drain), (None, None));
    for insane in ["9999-12-30T22:00:00Z", "-9999-01-02T01:59:59Z", "1970-01-01T00:00:00Z", "soon"] {
        let noted = annotate(&[(names::DRAIN_REASON, "Rollout"), (names::DRAIN_SINCE, insane)]);
        assert_eq!(noted.drain, None, "{insane}");
    }
}

/// Keeps P7.
#[test]
fn a_pod_that_cannot_be_read_may_be_busy_and_does_not_serve() {
    let mut pod = serde_json::to_value(object(&json!({"phase": "Pending"}))).unwrap();
    pod["status"]["startTime"] = json!("9999-12-31T23:59:59Z");
    let decoded = crate::decode::decode::<PodObject>(&pod.to_string());
    assert!(decoded.fault().is_some());
    assert!(belongs_to(&decoded.metadata, "tasks-abc", "abc"));
    let pod = parse(
        &decoded,
        Some(WEB),
        |_| Node { kubelet: Kubelet::Silent, ..Node::default() },
        Timestamp::now(),
    );
    assert_eq!(pod.containers, Containers::Unknown);
    assert!(matches!(pod.readiness, Readiness::Lost(_)));
    assert!(pod.trouble.unwrap().contains("cannot read this pod"));
}

#[test]
fn trouble_is_told_in_the_pod_s_own_words() {
    let words = |status: &Value| parsed(status).trouble.unwrap();
    let waiting = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ErrImagePull", "message": "no\n such image"}}});
    assert_eq!(words(&json!({"containerStatuses": [waiting]})), "container web: ErrImagePull: no such image");
    let unscheduled =
        json!({"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"});
    assert_eq!(words(&json!({"conditions": [unscheduled]})), "not scheduled: 0/2 nodes are available");
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:05:00Z"});
    assert_eq!(parsed(&json!({"conditions": [ready]})).trouble, None);
    let rejected = json!({"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: no cpu"});
    assert_eq!(words(&rejected), "OutOfcpu: Pod was rejected: no cpu");
    let late = json!({"phase": "Failed", "startTime": "2026-01-01T00:00:02Z", "conditions": [
        {"type": "Ready", "status": "False", "reason": "PodFailed", "lastTransitionTime": "2026-01-01T00:00:09Z"}]});
    assert_eq!(parsed(&late).readiness, Readiness::Never, "it was rejected, and never Ready");
    let scheduled = json!({"type": "PodScheduled", "status": "True"});
    let taken = words(&json!({"conditions": [scheduled]}));
    assert_eq!(taken, "scheduled to node n1, whose kubelet has not begun with it yet");
    let waits = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "PodInitializing"}}});
    let runs = json!({"name": "migrate", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:03Z"}}});
    let unready = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:02Z"});
    let initializing = json!({"startTime": "2026-01-01T00:00:02Z", "conditions": [scheduled, unready],
        "initContainerStatuses": [runs], "containerStatuses": [waits]});
    let waits = "init container migrate runs since 2026-01-01T00:00:03Z, and the others wait for it to end";
    assert_eq!(words(&initializing), waits);
}

/// A pod with these containers, and native sidecars, each with its state.
fn with_containers(ordinary: &[(&str, Value)], sidecars: &[(&str, Value)]) -> Containers {
    judged_by(WEB, ordinary, sidecars)
}

fn judged_by(
    app_containers: AppContainers<'_>,
    ordinary: &[(&str, Value)],
    sidecars: &[(&str, Value)],
) -> Containers {
    let status = |(name, state): &(&str, Value)| {
        let mut status = json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        if !state["waiting"].is_null() && state["waiting"]["reason"] == "CrashLoopBackOff" {
            status["restartCount"] = json!(2);
        }
        status
    };
    let statuses = |containers: &[(&str, Value)]| containers.iter().map(status).collect::<Vec<_>>();
    let mut pod = serde_json::to_value(object(&json!({
        "phase": "Running", "startTime": "2026-01-01T00:00:02Z",
        "containerStatuses": statuses(ordinary), "initContainerStatuses": statuses(sidecars),
    })))
    .unwrap();
    let names = |containers: &[(&str, Value)], policy: Option<&str>| -> Vec<_> {
        containers.iter().map(|(name, _)| json!({"name": name, "restartPolicy": policy})).collect()
    };
    pod["spec"]["containers"] = json!(names(ordinary, None));
    pod["spec"]["initContainers"] = json!(names(sidecars, Some("Always")));
    parse(&serde_json::from_value(pod).unwrap(), Some(app_containers), |_| Node::default(), Timestamp::now())
        .containers
}

/// Keeps P7 and ADR 2: a gate is up before its app, whatever becomes of that. A revision whose image cannot be pulled must not hold its own fix up.
#[test]
fn a_gate_alone_is_not_busy() {
    let gated = AppContainers { container: "web", gate: Some("graceful-gate") };
    let runs = || json!({"running": {}});
    let judge = |web: Value| judged_by(gated, &[("web", web)], &[("graceful-gate", runs())]);
    assert_eq!(judge(json!({"waiting": {"reason": "ImagePullBackOff"}})), Containers::NeverStarted);
    assert_eq!(judge(json!({"waiting": {"reason": "PodInitializing"}})), Containers::NeverStarted);
    assert_eq!(judge(json!({"waiting": {"reason": "CrashLoopBackOff"}})), Containers::CrashedEmpty);
    assert_eq!(judge(runs()), Containers::Running);
    assert_eq!(judge(json!({})), Containers::Unknown);
    let beside = |mesh: Value| {
        let pulls = json!({"waiting": {"reason": "ImagePullBackOff"}});
        judged_by(gated, &[("web", pulls)], &[("graceful-gate", runs()), ("mesh", mesh)])
    };
    assert_eq!(beside(runs()), Containers::Running, "what else lasts may have work of its own");
    let crashed = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let gate_crashed = judged_by(gated, &[("web", runs())], &[("graceful-gate", crashed)]);
    assert_eq!(gate_crashed, Containers::Running, "the app goes on without its gate");
}

#[test]
fn a_pod_in_which_anything_that_lasts_runs_may_be_busy() {
    let runs = || json!({"running": {}});
    let pulls = || json!({"waiting": {"reason": "ImagePullBackOff"}});
    let crashes = || json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let judge = |web: Value, worker: Value| with_containers(&[("web", web), ("worker", worker)], &[]);
    assert_eq!(judge(crashes(), runs()), Containers::Running, "the worker beside the counter runs");
    assert_eq!(judge(pulls(), runs()), Containers::Running);
    assert_eq!(judge(runs(), pulls()), Containers::Running);
    assert_eq!(judge(pulls(), pulls()), Containers::NeverStarted);
    assert_eq!(judge(crashes(), pulls()), Containers::CrashedEmpty);
    assert_eq!(judge(pulls(), json!({})), Containers::Unknown, "no word on one of them");
    let beside_a_sidecar = |web: Value, mesh: Value| with_containers(&[("web", web)], &[("mesh", mesh)]);
    assert_eq!(beside_a_sidecar(pulls(), runs()), Containers::Running, "a native sidecar lasts as well");
    assert_eq!(beside_a_sidecar(pulls(), pulls()), Containers::NeverStarted);
}

#[test]
fn a_node_with_a_clock_that_is_ahead_hides_no_readiness() {
    let ready = |status: &str, reason: &str, since: &str| {
        parsed(&json!({"phase": "Running", "startTime": "2026-01-01T01:00:00Z", "conditions": [
            {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": since}]}))
        .readiness
    };
    assert_eq!(ready("False", "ContainersNotReady", "2026-01-01T01:00:00Z"), Readiness::Never);
    assert!(matches!(ready("False", "ContainersNotReady", "2026-01-01T01:20:00Z"), Readiness::Lost(_)));
    // The node controller's clock is an hour behind the node's: it turned the condition False before the pod's start, as it seems.
    assert!(matches!(ready("False", "NodeNotReady", "2026-01-01T00:20:00Z"), Readiness::Lost(_)));
    assert!(matches!(ready("False", "NodeNotReady", "2026-01-01T01:00:00Z"), Readiness::Lost(_)));
    assert!(matches!(ready("False", "ContainersNotReady", "2026-01-01T00:59:59Z"), Readiness::Lost(_)));
}
