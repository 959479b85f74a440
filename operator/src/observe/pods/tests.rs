use serde_json::{Value, json};

use super::*;

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
    parse(&object(status), Some("web"), |_| true)
}

fn with_container(state: &Value) -> Container {
    let mut status = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0});
    status.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
    parsed(&json!({"phase": "Running", "containerStatuses": [status]})).container
}

#[test]
fn silence_about_the_container_is_not_idleness() {
    let taken_up = json!({"startTime": "2026-01-01T00:00:02Z"});
    assert_eq!(parsed(&taken_up).container, Container::Unknown);
    assert_eq!(parsed(&json!({})).container, Container::NeverStarted, "its kubelet has not even seen it");
    assert_eq!(with_container(&json!({})), Container::Unknown);
    assert_eq!(parse(&object(&taken_up), None, |_| true).container, Container::Unknown);
}

#[test]
fn the_kubelet_s_word_on_the_container() {
    assert_eq!(with_container(&json!({"state": {"running": {}}})), Container::Running);
    let waiting = json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}});
    assert_eq!(with_container(&waiting), Container::NeverStarted);
    let again = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3,
        "lastState": {"terminated": {"exitCode": 1}}});
    assert_eq!(with_container(&again), Container::CrashedEmpty);
    assert_eq!(with_container(&json!({"state": {"terminated": {"exitCode": 1}}})), Container::CrashedEmpty);
    assert_eq!(parsed(&json!({"phase": "Failed"})).container, Container::Finished);
}

#[test]
fn a_crash_loses_what_no_volume_holds() {
    let crashed = |volumes: Value| {
        let mut pod = object(&json!({"phase": "Running", "containerStatuses": [{
            "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        }]}));
        pod.spec.as_mut().unwrap().volumes = serde_json::from_value(volumes).unwrap();
        parse(&pod, Some("web"), |_| true).container
    };
    let read_only = json!([{"name": "c", "configMap": {"name": "c"}}, {"name": "t", "projected": {}}]);
    assert_eq!(crashed(read_only), Container::CrashedEmpty);
    assert_eq!(crashed(json!([{"name": "data", "emptyDir": {}}])), Container::Crashed);
    assert_eq!(crashed(json!([{"name": "data", "aKindFromTheFuture": {}}])), Container::Crashed);
}

#[test]
fn a_pod_without_a_node_runs_nowhere() {
    let mut pod = object(&json!({"phase": "Pending"}));
    pod.spec.as_mut().unwrap().node_name = None;
    let parsed = parse(&pod, Some("web"), |_| false);
    assert_eq!((parsed.container, parsed.node_ready), (Container::NeverStarted, true));
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
    assert!(belongs_to(&pod, "tasks-abc", "abc"));
    assert!(!belongs_to(&pod, "tasks-ab", "abc"));
    assert!(!belongs_to(&pod, "tasks-abc", "xyz"));
    pod.metadata.owner_references.as_mut().unwrap()[0].controller = None;
    assert!(!belongs_to(&pod, "tasks-abc", "abc"));
}

#[test]
fn the_drain_is_read_from_the_pod_or_not_at_all() {
    let mut pod = object(&json!({}));
    let mut annotate = |pairs: &[(&str, &str)]| {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        pod.metadata.annotations = Some(map);
        parse(&pod, None, |_| true)
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
}
