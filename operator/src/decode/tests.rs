use kube::ResourceExt;
use kube::core::{ObjectList, WatchEvent};
use serde_json::{Value, json};

use super::*;

fn app(spec: &Value) -> Value {
    json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "spec": spec,
        "metadata": {"name": "poison", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["graceful.dev/drain"]}})
}

/// `depth` objects, each the only field of the next.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }))
}

fn fault_of(spec: &Value) -> FieldError {
    let decoded: Decoded<GracefulApp> = decode(&app(spec).to_string());
    assert_eq!(decoded.name_any(), "poison");
    assert_eq!(decoded.spec.replicas, 0);
    assert_eq!(decoded.finalizers(), ["graceful.dev/drain"]);
    assert!(decoded.metadata.deletion_timestamp.is_some());
    decoded.fault().unwrap().clone()
}

#[test]
fn what_cannot_be_read_is_named_by_its_field() {
    let poison = [
        (json!({"template": {}, "replicas": 3_000_000_000_000_u64}), "spec.replicas"),
        (json!({"template": {}, "rollout": {"maxSurge": 3_000_000_000_u64}}), "spec.rollout.maxSurge"),
        (json!({"template": {}, "disruption": "OfTheFuture"}), "spec.disruption"),
        (
            json!({"template": {}, "service": {"ports": [{"port": 80, "targetPort": 99_999_999_999_u64}]}}),
            "spec.service.ports[0].targetPort",
        ),
    ];
    for (spec, field) in poison {
        let fault = fault_of(&spec);
        assert_eq!(fault.field, field);
        assert!(!fault.message.contains(" at line "), "{fault}");
    }
    let deep = fault_of(&json!({"template": {"metadata": nested(150)}}));
    assert!(deep.message.contains("nested deeper than the 128 levels"), "{deep}");
    assert!(deep.field.starts_with("spec"), "{deep}");
}

#[test]
fn one_that_cannot_be_read_costs_no_list_and_no_watch() {
    // Built as text: a value as deep as this one would overflow the stack as it is printed or dropped.
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let bad = format!(
        r#"{{"metadata":{{"name":"poison","uid":"u","resourceVersion":"7"}},"spec":{{"template":{deep}}}}}"#
    );
    let good = json!({"metadata": {"name": "good"}, "spec": {"template": {}, "replicas": 2}});
    let list = format!(
        r#"{{"kind":"GracefulAppList","metadata":{{"resourceVersion":"9"}},"items":[{bad},{good}]}}"#
    );
    let list: ObjectList<Decoded<GracefulApp>> = serde_json::from_str(&list).unwrap();
    assert!(list.items[0].fault().is_some());
    assert_eq!(list.items[0].uid().as_deref(), Some("u"));
    assert!(list.items[1].fault().is_none());
    assert_eq!(list.items[1].spec.replicas, 2);
    let event: WatchEvent<Decoded<GracefulApp>> =
        serde_json::from_str(&format!(r#"{{"type":"MODIFIED","object":{bad}}}"#)).unwrap();
    let WatchEvent::Modified(object) = event else { panic!("it is {event:?}") };
    assert_eq!(object.resource_version().as_deref(), Some("7"));
}

#[test]
fn a_status_of_another_version_is_no_fault_of_the_spec() {
    let mut object = app(&json!({"template": {}, "replicas": 4}));
    object["status"] = json!({"phase": "OfTheFuture", "cut": {"pods": 2, "tasks": 5}});
    let decoded: Decoded<GracefulApp> = decode(&object.to_string());
    assert!(decoded.fault().is_none());
    assert_eq!(decoded.spec.replicas, 4);
    assert_eq!(decoded.status.as_ref().unwrap().cut, Cut { pods: 2, tasks: 5 });
}

#[test]
fn metadata_is_read_field_by_field_if_it_has_to_be() {
    let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
        "deletionTimestamp": "of no calendar", "managedFields": [{"time": "9999-12-31T23:59:59Z"}]}});
    let decoded: Decoded<Deployment> = decode(&object.to_string());
    assert!(decoded.fault().is_some());
    assert_eq!(decoded.name_any(), "p");
    assert_eq!(decoded.labels()["a"], "b");
    assert!(decoded.metadata.deletion_timestamp.is_some(), "that it goes is known, whatever the time says");
}

#[test]
fn of_other_peoples_services_only_what_they_select_and_where_they_lead_is_kept() {
    let spec = json!({"selector": {"a": "b"}, "ports": [{"name": "web", "port": 80, "targetPort": 8000}], "clusterIP": "10.96.0.7"});
    let theirs: Decoded<Service> = decode(
        &json!({"metadata": {"name": "s", "annotations": {"big": "x".repeat(1000)}}, "spec": spec})
            .to_string(),
    );
    let kept = theirs.spec.as_ref().unwrap();
    assert_eq!(kept.selector.as_ref().unwrap()["a"], "b");
    assert_eq!(serde_json::to_value(&kept.ports).unwrap(), json!([{"port": 80, "targetPort": 8000}]));
    assert!(kept.cluster_ip.is_none() && theirs.metadata.annotations.is_none());
    let ours: Decoded<Service> = decode(
        &json!({"metadata": {"name": "s", "annotations": {(names::APP_UID): "u"}}, "spec": spec}).to_string(),
    );
    assert_eq!(serde_json::to_value(&ours.spec).unwrap(), spec);
}
