//! What is resolved, and what is refused in which words.

use serde_json::{Value, json};

use super::*;

fn app(spec: &Value) -> GracefulApp {
    named("tasks", spec)
}

fn named(name: &str, spec: &Value) -> GracefulApp {
    serde_json::from_value(json!({
        "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
        "metadata": {"name": name, "namespace": "apps", "uid": "u1", "generation": 4}, "spec": spec,
    }))
    .unwrap()
}

fn minimal() -> Value {
    json!({"template": {"spec": {"containers": [
        {"name": "web", "image": "x:1", "ports": [
            {"name": "http", "containerPort": 8000}, {"name": "admin", "containerPort": 9808}]},
    ]}}})
}

/// The minimal spec with one value set, by JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = minimal();
    let mut at = &mut spec;
    for key in pointer.split('/').skip(1) {
        at = match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[key],
        };
    }
    *at = value;
    spec
}

fn errors(spec: &Value) -> Vec<String> {
    let errors = Validated::try_from(&app(spec)).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_minimal_app_has_the_documented_defaults() {
    let app = Validated::try_from(&app(&minimal())).unwrap();
    assert_eq!((app.replicas, app.generation, app.uid.as_str()), (1, 4, "u1"));
    assert_eq!(app.budget, Budget { surge: 1, unavailable: 0 });
    assert_eq!(
        app.policy.to_annotation(),
        r#"{"inFlight":{"container":"web","port":9808,"path":"/drain","question":{"format":"Graceful"},"pollIntervalSeconds":1,"timeoutSeconds":2},"drain":{"signal":"Http","lingerSeconds":3,"quietSeconds":5,"deadlineSeconds":300,"onDeadline":"Hold"}}"#
    );
    assert_eq!((app.grace_seconds, app.grace_warning), (318, None));
    assert_eq!((app.min_ready_seconds, app.progress_deadline_seconds), (0, 600));
    assert_eq!((app.paused, app.revision_history_limit, app.disruption), (false, 2, Disruption::Hold));
}

#[test]
fn the_samples_are_valid() {
    let sqlite = include_str!("../../../../samples/tasks.yaml");
    let postgres = include_str!("../../../../samples/tasks-postgres.yaml");
    for text in [sqlite, postgres] {
        let (_, text) = text.split_once("---\n").unwrap_or(("", text));
        let sample: GracefulApp = serde_saphyr::from_str(text).unwrap();
        let app = Validated::try_from(&sample).unwrap();
        assert_eq!((app.name.as_str(), app.replicas), ("tasks", 3));
        assert_eq!((app.policy.in_flight.container.as_str(), app.policy.in_flight.port), ("server", 9808));
    }
}

#[test]
fn the_sample_with_a_gate_leaves_the_app_its_ports() {
    let sample: GracefulApp = serde_saphyr::from_str(include_str!("../../../../samples/gate.yaml")).unwrap();
    let gate = Validated::try_from(&sample).unwrap().gate.unwrap();
    assert_eq!((gate.app_port, gate.admin_port, gate.listen_port), (8000, 9809, 9810));
}

#[test]
fn the_signal_follows_the_format() {
    let mut spec = with("/inFlight", json!({"format": "JsonPointer", "jsonPointers": ["/task_lenth"]}));
    let signal = |spec: &Value| Validated::try_from(&app(spec)).unwrap().policy.drain.signal;
    assert_eq!(signal(&spec), Signal::None, "nothing is known of the app");
    spec["drain"] = json!({"signal": "Sigterm"});
    assert_eq!(signal(&spec), Signal::Sigterm);
    assert_eq!(signal(&minimal()), Signal::Http);
}

#[test]
fn the_in_flight_port_may_be_named_numbered_or_in_a_sidecar() {
    let place = |spec: &Value| {
        let policy = Validated::try_from(&app(spec)).unwrap().policy.in_flight;
        (policy.container, policy.port)
    };
    assert_eq!(place(&with("/inFlight", json!({"port": 8000}))), ("web".to_owned(), 8000));
    assert_eq!(
        place(&with("/inFlight", json!({"port": 7}))),
        ("web".to_owned(), 7),
        "one container: no doubt"
    );
    let sidecar = json!([{"name": "agent", "restartPolicy": "Always", "ports": [{"name": "drain", "containerPort": 5}]}]);
    let mut spec = with("/template/spec/initContainers", sidecar);
    spec["inFlight"] = json!({"port": "drain"});
    assert_eq!(place(&spec), ("agent".to_owned(), 5));
    spec["inFlight"] = json!({"port": 7});
    assert!(
        errors(&spec)[0].starts_with("spec.inFlight.port: no container declares port 7"),
        "two: whose is it?"
    );
    spec["template"]["spec"]["initContainers"][0]["restartPolicy"] = Value::Null;
    spec["inFlight"] = json!({"port": "drain"});
    assert_eq!(errors(&spec).len(), 1, "an init container that ends cannot be asked");
}

#[test]
fn what_kubernetes_takes_is_taken() {
    let web = json!({"name": "web", "ports": [{"name": "admin", "containerPort": 1, "protocol": null}],
        "resources": {"limits": {"cpu": 0.5, "memory": 1_000_000}}, "env": null, "fromTheFuture": [{}]});
    let mut spec = with("/template/spec/containers", json!([web]));
    spec["template"]["metadata"] = json!({"creationTimestamp": null, "labels": null});
    assert!(Validated::try_from(&app(&spec)).is_ok());
}

#[test]
fn each_error_names_its_field_and_says_what_to_write() {
    for (pointer, value, expected) in [
        (
            "/inFlight",
            json!({"port": "amdin"}),
            r#"spec.inFlight.port: no container has a port named "amdin" (there are: http, admin); add"#,
        ),
        ("/inFlight", json!({"path": "drain"}), r#"spec.inFlight.path: "drain" must start with /"#),
        (
            "/inFlight",
            json!({"whenAbsent": "Busy"}),
            "spec.inFlight.whenAbsent: needs format: Prometheus; set it",
        ),
        (
            "/inFlight",
            json!({"jsonPointers": ["/n"]}),
            "spec.inFlight.jsonPointers: needs format: JsonPointer; set it",
        ),
        ("/inFlight", json!({"metrics": ["n"]}), "spec.inFlight.metrics: needs format: Prometheus; set it"),
        ("/inFlight", json!({"format": "JsonPointer"}), "spec.inFlight.jsonPointers: is missing; say where"),
        (
            "/inFlight",
            json!({"format": "JsonPointer", "jsonPointers": ["/m", "n"]}),
            r#"spec.inFlight.jsonPointers: "n" must start with /"#,
        ),
        ("/inFlight", json!({"format": "Prometheus"}), "spec.inFlight.metrics: is missing; name the metric"),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": ["a", "a b"]}),
            r#"spec.inFlight.metrics: "a b" is not a metric; write"#,
        ),
        (
            "/inFlight",
            json!({"idleAt": 1}),
            "spec.inFlight.idleAt: needs another format: with Graceful the pod itself says",
        ),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": ["n"], "idleAt": 1001}),
            "spec.inFlight.idleAt: must be 0 to 1000",
        ),
        (
            "/drain",
            json!({"deadlineSeconds": 604_801}),
            "spec.drain.deadlineSeconds: must be 1 to 604800 (7 days)",
        ),
        ("/drain", json!({"preStopCommand": []}), "spec.drain.preStopCommand: is empty; write a command"),
        ("/rollout", json!({"maxSurge": 0, "maxUnavailable": 0}), "spec.rollout.maxUnavailable: both are 0"),
        (
            "/rollout",
            json!({"maxSurge": "x"}),
            r#"spec.rollout.maxSurge: "x" is neither a number nor a percentage"#,
        ),
        (
            "/rollout",
            json!({"minReadySeconds": 600}),
            "spec.rollout.progressDeadlineSeconds: must be longer than minReadySeconds",
        ),
        ("/template/spec/restartPolicy", json!("Never"), "spec.template.spec.restartPolicy: must be Always"),
        ("/template/spec/hostNetwork", json!(true), "spec.template.spec.hostNetwork: is not supported"),
        (
            "/template/spec/terminationGracePeriodSeconds",
            json!(2),
            "spec.drain.lingerSeconds: (3) is longer than",
        ),
        ("/template/spec", Value::Null, "spec.template.spec: is missing"),
        (
            "/template/metadata",
            json!({"labels": {"graceful.dev/serving": "x"}}),
            "spec.template.metadata.labels: graceful.dev/serving is set by",
        ),
    ] {
        let errors = errors(&with(pointer, value));
        assert_eq!(errors.len(), 1, "{expected}: {errors:?}");
        assert!(errors[0].starts_with(expected), "expected {expected}\n     got {}", errors[0]);
    }
    let mut http = with("/inFlight", json!({"format": "Prometheus", "metrics": ["n"]}));
    http["drain"] = json!({"signal": "Http"});
    assert!(errors(&http)[0].starts_with("spec.drain.signal: Http needs inFlight.format: Graceful"));
}

#[test]
fn a_list_that_cannot_be_summed_is_refused_by_its_name() {
    for (list, format) in [("metrics", "Prometheus"), ("jsonPointers", "JsonPointer")] {
        let member = |n: usize| if list == "metrics" { format!("q{n}") } else { format!("/q/{n}") };
        let of = |members: Vec<String>| with("/inFlight", json!({"format": format, list: members}));
        let refused = |members: Vec<String>| errors(&of(members)).join("; ");
        assert!(Validated::try_from(&app(&of((0..16).map(member).collect()))).is_ok());
        assert_eq!(refused(vec![]), format!("spec.inFlight.{list}: is empty; name one at least"));
        let many = format!("spec.inFlight.{list}: has 17 members; use at most 16");
        assert_eq!(refused((0..17).map(member).collect()), many);
        let twice = format!("spec.inFlight.{list}: has \"{}\" twice; remove one of the two", member(1));
        assert_eq!(refused([1, 2, 1].map(member).to_vec()), twice);
    }
    let spaced = json!({"format": "Prometheus", "metrics": ["q{a=\"b\"}", "q { a = \"b\" }"]});
    assert!(errors(&with("/inFlight", spaced))[0].contains("twice"), "the same, spelt twice");
}

/// The object is the one that the API server has decoded: the old fields are in the schema, so that nothing prunes them before they are seen here.
#[test]
fn the_single_fields_of_before_are_refused_with_what_to_write() {
    for (in_flight, expected) in [
        (
            json!({"format": "Prometheus", "metric": "q{state=\"running\"}"}),
            r#"spec.inFlight.metric: write metrics: ["q{state=\"running\"}"]"#,
        ),
        (
            json!({"format": "JsonPointer", "jsonPointer": "/task_lenth"}),
            r#"spec.inFlight.jsonPointer: write jsonPointers: ["/task_lenth"]"#,
        ),
        (
            json!({"format": "Prometheus", "metrics": ["q"], "metric": "q"}),
            r#"spec.inFlight.metric: write metrics: ["q"]"#,
        ),
    ] {
        assert_eq!(errors(&with("/inFlight", in_flight)), [expected]);
    }
    let crd = serde_json::to_value(crate::crd()).unwrap();
    let kept = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["inFlight"];
    for field in ["metric", "jsonPointer"] {
        assert_eq!(kept["properties"][field]["type"], "string", "{field} would be pruned without a word");
    }
}

/// P5: how a pod is asked is no part of its revision's name: nothing is rolled by a change of it.
#[test]
fn another_question_is_no_new_revision() {
    let revision =
        |in_flight: Value| Validated::try_from(&app(&with("/inFlight", in_flight))).unwrap().revision;
    let graceful = revision(json!({}));
    for in_flight in [
        json!({"format": "Prometheus", "metrics": ["a"]}),
        json!({"format": "Prometheus", "metrics": ["a", "b"], "whenAbsent": "Zero", "idleAt": 1}),
        json!({"format": "JsonPointer", "jsonPointers": ["/a", "/b"]}),
    ] {
        assert_eq!(revision(in_flight), graceful);
    }
    assert_eq!(graceful.as_str(), "bkrj75d7", "a spec without these fields has the name that it had");
}

#[test]
fn all_errors_are_told_at_once() {
    let mut spec = with("/inFlight", json!({"port": "x", "metrics": ["n"]}));
    spec["drain"] = json!({"deadlineSeconds": 0});
    assert_eq!(errors(&spec).len(), 3);
}

#[test]
fn a_name_leaves_room_for_the_pods_of_its_replica_sets() {
    let fits = "a".repeat(names::MAX_APP_NAME);
    assert!(Validated::try_from(&named(&fits, &minimal())).is_ok());
    let pod = format!("{}-{}-{}", names::deployment_name(&fits, "hhhhhhhh"), "r".repeat(10), "ppppp");
    assert_eq!(pod.len(), 63);
    for bad in ["a.b", "9a", "a-", &"a".repeat(names::MAX_APP_NAME + 1)] {
        assert_eq!(Validated::try_from(&named(bad, &minimal())).unwrap_err()[0].field, "metadata.name");
    }
}

#[test]
fn a_grace_shorter_than_a_drain_is_warned_of() {
    let short = with("/template/spec/terminationGracePeriodSeconds", json!(30));
    let app = Validated::try_from(&app(&short)).unwrap();
    assert_eq!(app.grace_seconds, 30);
    assert!(app.grace_warning.unwrap().contains("raise it to 318"));
}
