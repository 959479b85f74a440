//! What of a gate is refused, in which words, and what is part of a revision's name.

use serde_json::{Value, json};

use crate::spec::GracefulApp;
use crate::validated::Validated;

fn spec() -> Value {
    json!({
        "gate": {"port": "http"},
        "template": {"spec": {"containers": [
            {"name": "web", "image": "x:1", "ports": [{"name": "http", "containerPort": 8000}]},
        ]}},
        "service": {"ports": [{"port": 80, "targetPort": "http"}]},
    })
}

fn read(spec: &Value) -> Result<Validated, Vec<String>> {
    let app: GracefulApp = serde_json::from_value(json!({
        "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
        "metadata": {"name": "tasks", "namespace": "apps", "uid": "u1"}, "spec": spec,
    }))
    .unwrap();
    Validated::try_from(&app).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn beside(spec: &mut Value, container: Value) {
    spec["template"]["spec"]["containers"].as_array_mut().unwrap().push(container);
}

fn revision(edit: impl Fn(&mut Value)) -> String {
    let mut spec = spec();
    edit(&mut spec);
    read(&spec).unwrap().revision.0
}

/// P5: golden: what a gate adds to a revision's name, and that it adds nothing where there is none.
#[test]
fn a_gate_is_part_of_the_name_and_its_defaults_are_not() {
    let plain = revision(|_| ());
    assert_eq!(plain, "4rz4vz7j");
    let spelt_out = json!({"port": "http", "protocol": "Http", "openSockets": "Hold", "env": []});
    assert_eq!(revision(|s| s["gate"] = spelt_out.clone()), plain);
    assert_eq!(revision(|s| s["drain"] = json!({"quietSeconds": 9, "lingerSeconds": 1})), plain);
    for gate in [
        json!({"port": "http", "protocol": "Tcp"}),
        json!({"port": "http", "openSockets": "Farewell"}),
        json!({"port": "http", "onDrain": {"path": "/stop"}}),
        json!({"port": "http", "resources": {"requests": {"cpu": "1"}}}),
        json!({"port": "http", "env": [{"name": "GRACEFUL_LOG", "value": "debug"}]}),
    ] {
        assert_ne!(revision(|s| s["gate"] = gate.clone()), plain, "{gate}");
    }
    // Running gates ask what they were made to ask: another question has to come with a rollout.
    let question = json!({"format": "JsonPointer", "jsonPointers": ["/n"], "port": "http", "path": "/q"});
    assert_ne!(revision(|s| s["inFlight"] = question.clone()), plain);
    // And the template's own name is what it is without a gate.
    let mut without = spec();
    without["gate"] = Value::Null;
    without["inFlight"] = json!({"port": "http"});
    let without = read(&without).unwrap();
    assert_eq!(without.revision, crate::RevisionHash::of(&without.template));
    assert_eq!((without.gate, without.policy.in_flight.app_container), (None, None));
}

#[test]
fn each_error_names_its_field_and_says_what_to_write() {
    type Edit = fn(&mut Value);
    let table: [(Edit, &str); 15] = [
        (
            |s| s["gate"]["port"] = json!("web"),
            r#"spec.gate.port: no container has a port named "web" (there are: http); add {name: web, containerPort: 8000} to"#,
        ),
        (
            |s| beside(s, json!({"name": "b", "ports": [{"name": "http", "containerPort": 1}]})),
            r#"spec.gate.port: containers web and b both have a port named "http", and clients would reach one of them past"#,
        ),
        (
            |s| s["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(80),
            r#"spec.gate.port: "http" has hostPort 80, which leads past the gate; remove the hostPort"#,
        ),
        (
            |s| s["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = json!("UDP"),
            r#"spec.gate.port: "http" is UDP, and the gate is for TCP"#,
        ),
        (
            |s| s["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(0),
            "spec.gate.port: 0 is not a port; use 1 to 65535",
        ),
        (
            |s| beside(s, json!({"name": "graceful-gate"})),
            "spec.template.spec: has a container named graceful-gate, the gate's own name; rename it",
        ),
        (
            |s| s["service"]["ports"][0]["targetPort"] = json!(8000),
            "spec.service.ports: port 80 goes to 8000, the app's own number, past the gate; write targetPort: http",
        ),
        (
            |s| s["service"]["ports"][0] = json!({"port": 8000}),
            "spec.service.ports: port 8000 goes to 8000, the app's",
        ),
        (
            |s| s["drain"] = json!({"signal": "None"}),
            "spec.drain.signal: is None, and a gate is told over HTTP; remove it",
        ),
        (
            |s| s["drain"] = json!({"preStopCommand": ["/x"]}),
            "spec.drain.preStopCommand: has no place beside spec.gate",
        ),
        (
            |s| s["inFlight"] = json!({"path": "/mine"}),
            "spec.inFlight.format: is Graceful, which the gate itself speaks; write JsonPointer or",
        ),
        (
            |s| s["inFlight"] = json!({"format": "JsonPointer", "jsonPointers": ["/n"]}),
            r#"spec.inFlight.port: no container has a port named "admin"; write http for the app's own"#,
        ),
        (
            |s| s["gate"]["onDrain"] = json!({"path": "stop"}),
            r#"spec.gate.onDrain.path: "stop" must start with /"#,
        ),
        (
            |s| s["gate"]["env"] = json!([{"name": "GRACEFUL_GATE_PROTOCOL", "value": "Tcp"}]),
            "spec.gate.env: GRACEFUL_GATE_PROTOCOL is spec.gate.protocol; remove it here",
        ),
        (
            |s| s["gate"]["resources"] = json!({"limits": {"cpu": "many"}}),
            r#"spec.gate.resources.limits.cpu: "many" is no quantity; write one as in 100m or 64Mi"#,
        ),
    ];
    for (edit, expected) in table {
        let mut spec = spec();
        edit(&mut spec);
        let errors = read(&spec).unwrap_err();
        assert_eq!(errors.len(), 1, "{expected}: {errors:?}");
        assert!(errors[0].starts_with(expected), "expected {expected}\n     got {}", errors[0]);
    }
}

#[test]
fn a_gate_may_stand_before_a_native_sidecar_and_is_told_over_http() {
    let mut spec = spec();
    spec["template"]["spec"]["initContainers"] = json!([{"name": "front", "restartPolicy": "Always", "ports": [{"name": "front", "containerPort": 80}]}]);
    spec["gate"]["port"] = json!("front");
    spec["drain"] = json!({"signal": "Http"});
    let app = read(&spec).unwrap();
    assert_eq!(app.gate.unwrap().app_container, "front");
    assert_eq!(app.policy.drain.signal, crate::Signal::Http);
}

#[test]
fn the_number_that_is_asked_is_not_the_gates() {
    let mut spec = spec();
    spec["inFlight"] = json!({"format": "Prometheus", "metrics": ["n"], "port": 9808, "path": "/metrics"});
    let gate = read(&spec).unwrap().gate.unwrap();
    assert_eq!((gate.admin_port, gate.listen_port), (9809, 9810));
}
