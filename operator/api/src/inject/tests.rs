//! Golden templates: what goes in and exactly what comes out.

use serde_json::{Value, json};

use super::*;
use crate::spec::GracefulApp;

fn validated(spec: &Value) -> Validated {
    let app: GracefulApp = serde_json::from_value(json!({
        "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
        "metadata": {"name": "tasks", "namespace": "default", "uid": "u1"}, "spec": spec,
    }))
    .unwrap();
    Validated::try_from(&app).unwrap()
}

fn env() -> [Value; 2] {
    [("GRACEFUL_POD_NAME", "metadata.name"), ("GRACEFUL_POD_UID", "metadata.uid")]
        .map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}))
}

/// Keeps P2, P4.
#[test]
fn a_plain_template_gets_labels_env_hook_and_grace() {
    let app = validated(&json!({
        "drain": {"preStopCommand": ["/server", "pre-stop"], "lingerSeconds": 4, "deadlineSeconds": 60},
        "template": {"spec": {"containers": [
            {"name": "server", "image": "x:1", "ports": [{"name": "admin", "containerPort": 9808}]},
            {"name": "logs", "image": "y:1"},
        ]}},
    }));
    let [name, uid] = env();
    assert_eq!(
        pod_template(&app, &Given::default()),
        json!({
            "metadata": {"labels": {
                "graceful.dev/app": "tasks",
                "graceful.dev/revision": app.revision,
                "graceful.dev/serving": "true",
            }},
            "spec": {
                "terminationGracePeriodSeconds": 79,
                "containers": [
                    {"name": "server", "image": "x:1", "ports": [{"name": "admin", "containerPort": 9808}],
                     "env": [name, uid], "lifecycle": {"preStop": {"exec": {"command": ["/server", "pre-stop"]}}}},
                    {"name": "logs", "image": "y:1", "env": [name, uid], "lifecycle": {"preStop": {"sleep": {"seconds": 4}}}},
                ],
            },
        })
    );
}

#[test]
fn what_the_user_wrote_is_never_overridden_and_unknown_fields_stay() {
    let template = json!({
        "metadata": {"labels": {"tier": "web"}, "annotations": {"a": "b"}, "fromTheFuture": 1},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "fromTheFuture": {"x": [1]},
            "nodeSelector": null,
            "initContainers": [
                {"name": "migrate", "image": "m:1"},
                {"name": "mesh", "image": "s:1", "restartPolicy": "Always", "env": null},
            ],
            "containers": [{
                "name": "web", "image": "x:1", "fromTheFuture": true,
                "ports": [{"name": "admin", "containerPort": 1, "fromTheFuture": 2}],
                "env": [{"name": "GRACEFUL_POD_UID", "value": "mine"}],
                "lifecycle": {"postStart": {"sleep": {"seconds": 1}}, "preStop": {"httpGet": {"port": 1}}},
            }],
        },
    });
    let app = validated(&json!({"template": template, "drain": {"preStopCommand": ["/x"]}}));
    let [name, uid] = env();
    let mut expected = template;
    for (label, value) in [
        ("graceful.dev/app", "tasks"),
        ("graceful.dev/revision", app.revision.as_str()),
        ("graceful.dev/serving", "true"),
    ] {
        expected["metadata"]["labels"][label] = json!(value);
    }
    expected["spec"]["initContainers"][1]["env"] = json!([name, uid]);
    expected["spec"]["containers"][0]["env"] = json!([name, {"name": "GRACEFUL_POD_UID", "value": "mine"}]);
    assert_eq!(pod_template(&app, &Given::default()), expected);
}

/// P5: in every container, since the one that is asked may become another without a new revision; and no reason to say that anything differs, or to restart
/// anything (P5).
#[test]
fn keys_are_an_env_variable_and_no_part_of_the_revision() {
    let keys = r#"{"keys":[]}"#;
    let containers = json!([
        {"name": "web", "image": "x:1", "ports": [{"name": "admin", "containerPort": 9808}]},
        {"name": "off", "image": "y:1", "env": [{"name": "GRACEFUL_DRAIN_KEYS", "value": ""}]},
    ]);
    let app = validated(&json!({"template": {"spec": {"containers": containers}}}));
    let written = pod_template(&app, &Given { drain_keys: Some(keys), ..Given::default() });
    let env = |n: usize| written["spec"]["containers"][n]["env"].as_array().unwrap().clone();
    assert_eq!(env(0).last(), Some(&json!({"name": "GRACEFUL_DRAIN_KEYS", "value": keys})));
    assert_eq!(env(1).len(), 3, "what is there already is the user's");
    assert_eq!(env(1).last(), Some(&json!({"name": "GRACEFUL_DRAIN_KEYS", "value": ""})));
    assert_eq!(baked_in_differences(&app, &written), [""; 0]);
}

/// P7: from birth, since it may be busy before anybody has asked it.
#[test]
fn a_pod_that_is_held_while_busy_is_born_busy() {
    let app = validated(&json!({
        "disruption": "HoldWhileBusy",
        "template": {
            "metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "false"}},
            "spec": {"containers": [{"name": "web", "image": "x:1", "ports": [{"name": "admin", "containerPort": 9808}]}]},
        },
    }));
    let metadata = &pod_template(&app, &Given::default())["metadata"];
    assert_eq!(metadata["labels"]["graceful.dev/busy"], "true");
    assert_eq!(
        metadata["annotations"],
        json!({"karpenter.sh/do-not-disrupt": "false", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "graceful.dev/autoscaler-annotations": "cluster-autoscaler.kubernetes.io/safe-to-evict"})
    );
}

#[test]
fn a_sidecar_that_is_asked_gets_the_command() {
    let app = validated(&json!({
        "drain": {"preStopCommand": ["/agent", "wait"], "lingerSeconds": 0},
        "template": {"spec": {
            "initContainers": [{"name": "agent", "image": "a:1", "restartPolicy": "Always",
                "ports": [{"name": "admin", "containerPort": 9808}]}],
            "containers": [{"name": "web", "image": "x:1"}],
        }},
    }));
    let template = pod_template(&app, &Given::default());
    let command = &template["spec"]["initContainers"][0]["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(command, &json!(["/agent", "wait"]));
    assert_eq!(template["spec"]["containers"][0].get("lifecycle"), None, "no sleep for a linger of 0");
}

#[test]
fn pre_stop_none_leaves_hooks_alone() {
    let containers =
        json!([{"name": "web", "image": "x:1", "ports": [{"name": "admin", "containerPort": 1}]}]);
    let app =
        validated(&json!({"drain": {"preStop": "None"}, "template": {"spec": {"containers": containers}}}));
    assert_eq!(pod_template(&app, &Given::default())["spec"]["containers"][0].get("lifecycle"), None);
}

#[test]
fn what_the_api_server_fills_in_is_no_difference() {
    let app = validated(&json!({"template": {"spec": {"containers": [
        {"name": "web", "image": "x:1", "ports": [{"name": "admin", "containerPort": 1}],
         "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": 80}}}},
        {"name": "logs", "image": "y:1", "lifecycle": {"preStop": {"exec": {}}}},
    ]}}}));
    let mut written = pod_template(&app, &Given::default());
    let hook = &mut written["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"];
    hook["scheme"] = json!("HTTP");
    assert_eq!(baked_in_differences(&app, &written), Vec::<String>::new());
}

/// Keeps P8.
#[test]
fn what_is_baked_into_running_pods_and_differs_is_said() {
    let template = json!({"spec": {"containers": [
        {"name": "web", "image": "x:1", "ports": [{"name": "admin", "containerPort": 1}]},
    ]}});
    let before = validated(&json!({"template": template}));
    let after =
        validated(&json!({"template": template, "drain": {"deadlineSeconds": 20, "lingerSeconds": 5}}));
    assert_eq!(before.revision, after.revision);
    let written = pod_template(&before, &Given::default());
    assert_eq!(baked_in_differences(&before, &written), Vec::<String>::new());
    assert_eq!(
        baked_in_differences(&after, &written),
        [
            "running pods have a grace period of 318 s, and the spec asks for 40 s",
            "running pods have another preStop hook in container web",
        ]
    );
}
