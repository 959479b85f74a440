//! An app that is not ours: Python's own HTTP server, which knows nothing of Graceful.
//!
//! Assumption: the nodes have Python at /usr/bin/python3 with its library below /usr, as Debian has it. It is mounted
//! from there, so that no image must be made of it.

use anyhow::ensure;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::python::{Python, program};
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};
use crate::wire::LoadSpec;

/// The app's whole program.
const PROGRAM: &str = include_str!("../../assets/foreign.py");

/// P1: drained by its own queue length, whose zero must hold, then replaced by the task server in one step: each pod is asked in the
/// language of its own revision.
pub(super) async fn python_app_drains_and_moves_to_the_protocol(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    program(scene, &[("foreign.py", PROGRAM)]).await?;
    given.app(python(scene)).await?;
    given.load(LoadSpec { sockets: 0, ..load::usual() }).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;

    let graceful = AppSpec::tasks(&scene.world).replicas(2);
    when.app_changes("image, port and format change at once", |_| graceful).await?;
    then.status("a Python pod drains while a new one serves", ROLLS, |s| {
        s.draining_replicas > 0 && s.updated_replicas > 0
    })
    .await?;
    then.rolled_out().await?;
    for pod in scene.pods().await? {
        let command = pod.spec.as_ref().and_then(|s| s.containers[0].command.clone());
        ensure!(command.is_none(), "{} still runs {command:?}", pod.name_any());
    }
    then.nothing_lost().await?;
    Ok(())
}

/// P1: the same app, unchanged and unaware, with tasks longer than its grace: the gate beside it closes its door, and its own count is waited for. No client is
/// refused, since the gate closes once no EndpointSlice lists the pod.
pub(super) async fn python_app_behind_a_gate(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    program(scene, &[("foreign.py", PROGRAM)]).await?;
    given.app(gated(scene)).await?;
    given.load(LoadSpec { sockets: 0, ..load::usual() }).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    when.scaled(1).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1: asked through its Prometheus metrics, and never quiet: clients that keep their connection go on sending to a pod that
/// no Service routes to. It gets its SIGTERM after its linger, and the app's own drain loses nothing, whatever its template's grace is.
pub(super) async fn prometheus_and_sigterm_with_clients_that_never_let_go(
    scene: &Scene,
) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let spec = AppSpec::tasks(&scene.world)
        .replicas(2)
        .set(
            "/inFlight",
            json!({
                "port": "admin",
                "path": "/metrics",
                "format": "Prometheus",
                "metrics": ["graceful_server_in_flight"],
            }),
        )
        .drain("signal", "Sigterm");
    scene.observer.app_drains_itself();
    given.app(spec).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// Its pods: any image will do, since all that runs comes from the node.
fn python(scene: &Scene) -> AppSpec {
    let python = Python::bare();
    let from_field = |path: &str| -> Value { json!({"fieldRef": {"fieldPath": path}}) };
    AppSpec(json!({
        "replicas": 2,
        "template": {
            "metadata": {"labels": {"app": NAME}},
            "spec": {
                // Above the task's length: what comes after the last zero has the app's own grace.
                "terminationGracePeriodSeconds": 20,
                "containers": [{
                    "name": "server",
                    "image": scene.world.image("server"),
                    "imagePullPolicy": scene.world.pull_policy(),
                    "command": ["/usr/bin/python3", "/program/foreign.py"],
                    "env": [
                        {"name": "TASK_SECONDS", "value": "4"},
                        {"name": "WEBHOOK", "value": "http://loadgen:8080/report"},
                        {"name": "POD_UID", "valueFrom": from_field("metadata.uid")},
                    ],
                    "ports": [{"name": "http", "containerPort": 8000}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "volumeMounts": python.mounts(),
                }],
                "volumes": python.volumes(),
            },
        },
        "service": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        "inFlight": {"port": "http", "path": "/stats", "format": "JsonPointer", "jsonPointers": ["/queue/length"]},
        "drain": {"lingerSeconds": 1, "quietSeconds": 3, "deadlineSeconds": 40},
        "rollout": {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 15},
    }))
}

/// The gate has the port's name that the Service routes to, and the app its number alone.
fn gated(scene: &Scene) -> AppSpec {
    let mut spec = python(scene);
    let pod = &mut spec.0["template"]["spec"];
    // Shorter than a task: what the operator does not wait for is killed.
    pod["terminationGracePeriodSeconds"] = json!(5);
    pod["initContainers"] = json!([{
        "name": "gate",
        "image": scene.world.image("gate"),
        "imagePullPolicy": scene.world.pull_policy(),
        "restartPolicy": "Always",
        "env": [
            {"name": "GRACEFUL_GATE_LISTEN_PORT", "value": "8080"},
            {"name": "GRACEFUL_GATE_APP_LISTEN_PORT", "value": "8000"},
            {"name": "GRACEFUL_GATE_QUIET_SECONDS", "value": "2"},
            {"name": "GRACEFUL_GATE_IN_FLIGHT", "value": r#"{"path": "/stats", "jsonPointers": ["/queue/length"]}"#},
        ],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9808}],
        "lifecycle": {"preStop": {"exec": {"command": ["/graceful-gate", "pre-stop"]}}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
        },
    }]);
    let app = &mut pod["containers"][0];
    app["ports"] = json!([{"containerPort": 8000}]);
    app["readinessProbe"]["httpGet"]["port"] = json!(8000);
    app["lifecycle"] = json!({"preStop": {"httpGet": {"port": 9808, "path": "/wait-idle"}}});
    app["env"][0]["value"] = json!("8");
    let fields = spec.0.as_object_mut().expect("an object");
    fields.remove("inFlight");
    fields.insert("drain".to_owned(), json!({"lingerSeconds": 2, "deadlineSeconds": 60}));
    spec
}
