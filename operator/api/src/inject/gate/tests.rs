//! Golden templates of gated pods, and what of an upgrade of the operator touches them.

use serde_json::{Value, json};

use super::super::{Given, baked_in_differences, gate_image, gated_port, pod_template};
use crate::spec::GracefulApp;
use crate::validated::Validated;

const GIVEN: Given<'_> =
    Given { drain_keys: None, gate_image: "graceful/gate:1", gate_pull_policy: Some("IfNotPresent") };

fn validated(spec: &Value) -> Validated {
    let app: GracefulApp = serde_json::from_value(json!({
        "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
        "metadata": {"name": "tasks", "namespace": "default", "uid": "u1"}, "spec": spec,
    }))
    .unwrap();
    Validated::try_from(&app).unwrap()
}

/// An app that was written without a thought of a gate.
fn plain() -> Value {
    json!({
        "template": {"spec": {
            "initContainers": [{"name": "migrate", "image": "m:1"}],
            "containers": [
                {"name": "web", "image": "x:1", "ports": [{"name": "http", "containerPort": 8000}, {"containerPort": 9100}],
                 "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                 "livenessProbe": {"tcpSocket": {"port": "http"}},
                 "startupProbe": {"httpGet": {"path": "/healthz", "port": 8000}},
                 "lifecycle": {"postStart": {"httpGet": {"path": "/warm", "port": "http"}}}},
                {"name": "logs", "image": "y:1", "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}},
            ],
        }},
        "inFlight": {"port": "http", "path": "/v1/get_queue_length/", "format": "JsonPointer", "jsonPointers": ["/task_lenth"]},
    })
}

fn gated(gate: Value) -> Value {
    let mut spec = plain();
    spec["gate"] = gate;
    spec
}

fn env(more: &[(&str, &str)]) -> Value {
    let fields = [("GRACEFUL_POD_NAME", "metadata.name"), ("GRACEFUL_POD_UID", "metadata.uid")];
    let fields =
        fields.map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    let more = more.iter().map(|(name, value)| json!({"name": name, "value": value}));
    fields.into_iter().chain(more).collect()
}

/// Keeps P1, P2: golden: the gate has the name, and the app its number in all that knew it by the name.
#[test]
fn the_gate_takes_the_name_and_the_app_keeps_its_number() {
    let app = validated(&gated(json!({"port": "http"})));
    let question = r#"{"idleAt":0,"jsonPointers":["/task_lenth"],"path":"/v1/get_queue_length/","pollIntervalSeconds":1,"timeoutSeconds":2}"#;
    let wait_idle = json!({"httpGet": {"path": "/wait-idle", "port": 9808, "scheme": "HTTP"}});
    assert_eq!(
        pod_template(&app, &GIVEN)["spec"],
        json!({
            "terminationGracePeriodSeconds": 318,
            "initContainers": [
                {"name": "graceful-gate", "image": "graceful/gate:1", "imagePullPolicy": "IfNotPresent", "restartPolicy": "Always",
                 "env": env(&[
                    ("GRACEFUL_GATE_LISTEN_PORT", "9809"),
                    ("GRACEFUL_GATE_APP_LISTEN_PORT", "8000"),
                    ("GRACEFUL_ADMIN_LISTEN_PORT", "9808"),
                    ("GRACEFUL_GATE_PROTOCOL", "Http"),
                    ("GRACEFUL_GATE_OPEN_SOCKETS", "Hold"),
                    ("GRACEFUL_LINGER_SECONDS", "3"),
                    ("GRACEFUL_GATE_IN_FLIGHT", question),
                    ("GRACEFUL_GATE_QUIET_SECONDS", "5"),
                 ]),
                 "ports": [{"name": "http", "containerPort": 9809, "protocol": "TCP"},
                           {"name": "graceful-admin", "containerPort": 9808, "protocol": "TCP"}],
                 "startupProbe": {"httpGet": {"path": "/readyz", "port": 9808, "scheme": "HTTP"}, "periodSeconds": 1, "failureThreshold": 60},
                 "lifecycle": {"preStop": {"exec": {"command": ["/graceful-gate", "pre-stop"]}}},
                 "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                 "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}},
                {"name": "migrate", "image": "m:1"},
            ],
            "containers": [
                {"name": "web", "image": "x:1", "ports": [{"containerPort": 8000}, {"containerPort": 9100}], "env": env(&[]),
                 "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8000}},
                 "livenessProbe": {"tcpSocket": {"port": 8000}},
                 "startupProbe": {"httpGet": {"path": "/healthz", "port": 8000}},
                 "lifecycle": {"postStart": {"httpGet": {"path": "/warm", "port": 8000}}, "preStop": wait_idle}},
                // The name is of the other container: the kubelet looks for it in this one alone, and says so.
                {"name": "logs", "image": "y:1", "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}, "env": env(&[]),
                 "lifecycle": {"preStop": wait_idle}},
            ],
        })
    );
}

/// Keeps P5.
#[test]
fn an_app_without_a_gate_is_as_it_was() {
    let template = pod_template(&validated(&plain()), &GIVEN);
    assert_eq!(template["spec"]["initContainers"], json!([{"name": "migrate", "image": "m:1"}]));
    let web = &template["spec"]["containers"][0];
    assert_eq!(web["ports"][0], json!({"name": "http", "containerPort": 8000}));
    assert_eq!(web["lifecycle"]["preStop"], json!({"sleep": {"seconds": 3}}));
}

/// P5: the image of an upgraded operator comes with the next rollout, and neither rolls anything nor is held against what runs.
#[test]
fn another_image_is_no_difference_and_no_other_revision() {
    let app = validated(&gated(json!({"port": "http"})));
    let written = pod_template(&app, &GIVEN);
    assert_eq!(baked_in_differences(&app, &written), [""; 0]);
    let typed = serde_json::from_value(written).unwrap();
    assert_eq!(gate_image(&typed), Some("graceful/gate:1"));
    assert_eq!(gated_port(&typed), Some(("http", 8000)));
    let plain = serde_json::from_value(pod_template(&validated(&plain()), &GIVEN)).unwrap();
    assert_eq!((gate_image(&plain), gated_port(&plain)), (None, None));
}

/// Keeps P8: the times in `spec.drain` are no part of the revision, and running gates keep theirs.
#[test]
fn what_running_gates_were_given_and_differs_is_said() {
    let before = gated(json!({"port": "http"}));
    let written = pod_template(&validated(&before), &GIVEN);
    let mut after = before.clone();
    after["drain"] = json!({"quietSeconds": 9});
    let (before, after) = (validated(&before), validated(&after));
    assert_eq!(before.revision, after.revision);
    let differences = baked_in_differences(&after, &written);
    assert_eq!(
        differences,
        ["running pods' gates have GRACEFUL_GATE_QUIET_SECONDS=5, and the spec asks for 9"]
    );
}

#[test]
fn all_that_can_be_said_of_a_gate_reaches_it() {
    let mut spec = gated(json!({
        "port": "http", "protocol": "Tcp", "openSockets": "Farewell", "onDrain": {"path": "/stop", "body": "{}"},
        "resources": {"requests": {"cpu": 0.5}, "limits": {"memory": "1Gi"}},
        "env": [{"name": "GRACEFUL_GATE_PROXY_PROTOCOL", "value": "V2"}],
    }));
    spec["inFlight"] = json!({"port": 9100, "path": "/metrics", "format": "Prometheus", "whenAbsent": "Zero", "idleAt": 1,
        "metrics": ["jobs", "q{state=\"running\"}"], "timeoutSeconds": 5});
    spec["template"]["spec"]["containers"][0]["ports"][1] = json!({"name": "admin", "containerPort": 9808});
    let app = validated(&spec);
    let gate = pod_template(&app, &GIVEN)["spec"]["initContainers"][0].clone();
    let value = |name: &str| {
        let found = gate["env"].as_array().unwrap().iter().find(|v| v["name"] == name);
        found.and_then(|v| v["value"].as_str()).unwrap().to_owned()
    };
    assert_eq!(value("GRACEFUL_ADMIN_LISTEN_PORT"), "9809", "9808 is the app's");
    assert_eq!(value("GRACEFUL_GATE_LISTEN_PORT"), "9810");
    assert_eq!(
        (value("GRACEFUL_GATE_PROTOCOL"), value("GRACEFUL_GATE_OPEN_SOCKETS")),
        ("Tcp".into(), "Farewell".into())
    );
    assert_eq!(value("GRACEFUL_GATE_ON_DRAIN"), r#"{"body":"{}","path":"/stop"}"#);
    assert_eq!(
        value("GRACEFUL_GATE_IN_FLIGHT"),
        r#"{"idleAt":1,"metrics":["jobs","q{state=\"running\"}"],"path":"/metrics","pollIntervalSeconds":1,"port":9100,"timeoutSeconds":5,"whenAbsent":"Zero"}"#
    );
    assert_eq!(value("GRACEFUL_GATE_PROXY_PROTOCOL"), "V2");
    assert_eq!(gate["resources"], json!({"requests": {"cpu": 0.5}, "limits": {"memory": "1Gi"}}));
    let policy = &app.policy.in_flight;
    assert_eq!(
        (policy.container.as_str(), policy.port, policy.path.as_str()),
        ("graceful-gate", 9809, "/drain")
    );
    assert_eq!(policy.app_container.as_deref(), Some("web"));
}

#[test]
fn without_a_question_the_app_is_not_asked() {
    let mut spec = gated(json!({"port": "http"}));
    spec.as_object_mut().unwrap().remove("inFlight");
    let gate = pod_template(&validated(&spec), &GIVEN)["spec"]["initContainers"][0].to_string();
    assert!(!gate.contains("GRACEFUL_GATE_IN_FLIGHT") && !gate.contains("QUIET"), "{gate}");
}

#[test]
fn a_gate_makes_its_pod_no_less_guaranteed_and_no_more_root() {
    let gate = |edit: &dyn Fn(&mut Value)| {
        let mut spec = gated(json!({"port": "http"}));
        edit(&mut spec["template"]["spec"]);
        pod_template(&validated(&spec), &GIVEN)["spec"]["initContainers"][0].clone()
    };
    let usual = json!({"cpu": "100m", "memory": "64Mi"});
    let limits = json!({"limits": {"cpu": 1, "memory": "1Gi"}});
    let all = |pod: &mut Value, resources: &Value| {
        for kind in ["containers", "initContainers"] {
            pod[kind].as_array_mut().unwrap().iter_mut().for_each(|c| c["resources"] = resources.clone());
        }
    };
    let guaranteed = gate(&|pod| all(pod, &limits));
    assert_eq!(guaranteed["resources"], json!({"requests": usual, "limits": usual}));
    let spelt_otherwise =
        json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    assert_eq!(gate(&|pod| all(pod, &spelt_otherwise))["resources"]["limits"], usual);
    let burstable = json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "100m"}});
    assert_eq!(gate(&|pod| all(pod, &burstable))["resources"], json!({"requests": usual}));
    let one_without = |pod: &mut Value| {
        all(pod, &limits);
        pod["initContainers"][0]["resources"] = json!({});
    };
    assert_eq!(
        gate(&one_without)["resources"],
        json!({"requests": usual}),
        "an init container counts as well"
    );
    assert_eq!(gate(&|_| ())["securityContext"].get("runAsUser"), None);
    let root = gate(&|pod| pod["securityContext"] = json!({"runAsUser": 0}));
    assert_eq!(root["securityContext"]["runAsUser"], 65532);
}

/// P4, as for any app: keys are given to whoever is asked, and no hook is added where none is wanted; but the gate's own is always there.
#[test]
fn keys_reach_the_gate_and_pre_stop_none_leaves_the_app_alone() {
    let mut spec = gated(json!({"port": "http"}));
    spec["drain"] = json!({"preStop": "None"});
    let given = Given { drain_keys: Some("{\"keys\":[]}"), ..GIVEN };
    let pod = &pod_template(&validated(&spec), &given)["spec"];
    let env = pod["initContainers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "GRACEFUL_DRAIN_KEYS", "value": "{\"keys\":[]}"})));
    assert_eq!(pod["containers"][0]["lifecycle"].get("preStop"), None);
    assert!(pod["initContainers"][0]["lifecycle"]["preStop"].is_object());
}
