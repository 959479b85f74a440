//! Pods as nobody should write them: odd times, huge numbers, fields of other types. Each is refused by its type, or parsed. Nothing panics.

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::pods::{self, AppContainers};

fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            "9999-12-30T22:00:00Z",
            "-009999-01-02T01:59:59Z",
            "0000-00-00T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "2026-02-30T25:61:61Z",
            "2026-01-01T00:00:00+14:00",
            "18446744073709551615",
            "-1",
            "9007199254740993",
            "",
            "True",
            "false",
            "Failed",
            "Rollout",
        ])
        .prop_map(|s| json!(s)),
        any::<i64>().prop_map(|n| json!(n)),
        "\\PC{0,12}".prop_map(|s| json!(s)),
        Just(json!(null)),
        Just(json!({"running": {"startedAt": "9999-12-31T23:59:59Z"}})),
        Just(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
        Just(json!({"terminated": {"exitCode": -2_147_483_648i64, "finishedAt": "0001-01-01T00:00:00Z"}})),
        Just(json!([])),
    ]
}

/// Where a pod may be odd.
const POINTERS: [&str; 19] = [
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/metadata/uid",
    "/metadata/annotations/graceful.dev~1drain-epoch",
    "/metadata/annotations/graceful.dev~1drain-reason",
    "/metadata/annotations/graceful.dev~1drain-since",
    "/metadata/labels/graceful.dev~1serving",
    "/metadata/labels/graceful.dev~1revision",
    "/spec/nodeName",
    "/spec/volumes",
    "/status/phase",
    "/status/startTime",
    "/status/conditions/0/lastTransitionTime",
    "/status/conditions/0/status",
    "/status/containerStatuses",
    "/status/containerStatuses/0/restartCount",
    "/status/containerStatuses/0/state",
    "/status/containerStatuses/0/lastState",
    "/status/podIP",
];

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": null,
            "labels": {"graceful.dev/serving": "true", "graceful.dev/revision": "r"},
            "annotations": {
                "graceful.dev/drain-epoch": "7", "graceful.dev/drain-reason": "Rollout",
                "graceful.dev/drain-since": "2026-01-01T00:00:05Z",
            },
        },
        "spec": {"nodeName": "n", "volumes": [], "containers": [{"name": "web"}]},
        "status": {
            "phase": "Running", "startTime": "2026-01-01T00:00:01Z", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:03Z"}],
            "containerStatuses": [{
                "name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}}, "lastState": {},
            }],
        },
    })
}

proptest! {
    #[test]
    fn any_pod_is_parsed_or_refused_by_its_type(oddities in prop::collection::vec((prop::sample::select(POINTERS.to_vec()), odd()), 1..5)) {
        let mut object = pod();
        for (pointer, value) in oddities {
            if let Some(field) = object.pointer_mut(pointer) {
                *field = value;
            }
        }
        if let Ok(object) = serde_json::from_value::<Pod>(object) {
            for container in [Some("web"), Some("none"), None] {
                let workers = container.map(|container| AppContainers { container, gate: None });
                let parsed = pods::parse(&object, workers, |_| graceful_plan::Node::default(), jiff::Timestamp::now());
                prop_assert_eq!(parsed.terminating, object.metadata.deletion_timestamp.is_some());
            }
        }
    }
}

#[test]
fn each_place_is_one_of_a_pod_s() {
    for pointer in POINTERS {
        assert!(pod().pointer(pointer).is_some(), "{pointer}");
    }
}
