//! A gate before an app that is not ours: FastAPI on uvicorn with WebSockets and background tasks, which knows nothing of it.
//!
//! Assumption: the nodes are of this machine. Its Python and the packages are mounted from there, so that no image must be made of them.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::python::{Python, program};
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};
use crate::wire::LoadSpec;

const APP: &str = include_str!("../../assets/fastapi/app.py");

/// The gate's container, as docs/gate.md names it.
const GATE: &str = "graceful-gate";

/// Longer than the template's grace: what is not waited for is killed.
const TASK_SECONDS: u32 = 8;
const GRACE_SECONDS: u32 = 5;

/// The close code that says "come back".
const SERVICE_RESTART: u16 = 1012;

/// P1, P5: an app that runs without a gate gets one by a line in its spec, and then another template, and is scaled down: no task is lost and no client refused.
pub(super) async fn fastapi_gets_a_gate(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    program(scene, &[("app.py", APP)]).await?;
    given.app(fastapi(scene)?).await?;
    // Without a gate nobody closes the door: a client that keeps its connection would go on sending to a pod that drains, and that is never quiet then.
    given.load(LoadSpec { sockets: 0, fresh: true, ..load::usual() }).await?;
    when.app_changes("a gate is written into its spec", |app| {
        app.set("/gate", json!({"port": "http", "openSockets": "Farewell"}))
    })
    .await?;
    then.status("a pod without a gate drains while one with it serves", ROLLS, |s| {
        s.draining_replicas > 0 && s.updated_replicas > 0
    })
    .await?;
    then.rolled_out().await?;
    then.pods("each has a gate, and the app its number alone", ROLLS, all_are_gated).await?;
    then.status("the gate's image is told", ROLLS, |s| {
        let update = s.revisions.iter().find(|r| Some(&r.hash) == s.update_revision.as_ref());
        update.is_some_and(|r| r.gate.as_deref() == Some(&scene.world.image("gate")))
    })
    .await?;
    // From here on with clients that keep their connections, and sockets.
    given.load(LoadSpec { sockets: 8, ..load::usual() }).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.all_sockets_connected().await?;
    when.scaled(1).await?;
    then.rolled_out().await?;
    let view = scene.load().await?.ledger().await?;
    ensure!(!view.sockets.closes.is_empty(), "no socket ended in a whole rollout");
    for close in &view.sockets.closes {
        ensure!(close.code == Some(SERVICE_RESTART), "closed without 1012: {close:?}");
    }
    then.nothing_lost().await?;
    Ok(())
}

/// P2: somebody deletes pods: the gate drains them within their grace, and the app's SIGTERM waits for it.
pub(super) async fn gated_pods_that_others_delete(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    program(scene, &[("app.py", APP)]).await?;
    let spec = fastapi(scene)?.set("/gate", json!({"port": "http", "openSockets": "Farewell"})).grace(60);
    given.app(spec).await?;
    given.load(LoadSpec { sockets: 0, ..load::usual() }).await?;
    let first = scene.pods().await?.first().map(Pod::name_any).context("no pod")?;
    when.pod_deleted(&first).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1: a gate is up before its app, and answers for it. A revision whose image is not there must not hold its own correction up.
pub(super) async fn bad_image_behind_a_gate_then_its_correction(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    program(scene, &[("app.py", APP)]).await?;
    let good = fastapi(scene)?.set("/gate", json!({"port": "http"}));
    let image = good.0["template"]["spec"]["containers"][0]["image"].clone();
    given.app(good).await?;
    given.load(LoadSpec { sockets: 0, ..load::usual() }).await?;
    when.app_changes("its image becomes one that is not there", |app| app.image("graceful/nowhere:none"))
        .await?;
    then.status("a new pod cannot start", ROLLS, |s| s.waiting_for.contains("graceful/nowhere:none")).await?;
    when.app_changes("it is corrected", |app| {
        app.set("/template/spec/containers/0/image", image).env("MARK", "good")
    })
    .await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

fn all_are_gated(pods: &[Pod]) -> anyhow::Result<()> {
    for pod in pods {
        let (name, spec) = (pod.name_any(), pod.spec.as_ref().context("a pod without a spec")?);
        let sidecars = spec.init_containers.iter().flatten();
        ensure!(sidecars.map(|c| c.name.as_str()).eq([GATE]), "{name} has no gate");
        let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
        ensure!(ports.clone().all(|p| p.name.is_none()), "{name}: the app's port still has a name");
        let statuses = pod
            .status
            .iter()
            .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
        for container in statuses {
            let (restarts, of) = (container.restart_count, &container.name);
            ensure!(restarts == 0, "{name}: container {of} was restarted {restarts} times");
        }
    }
    Ok(())
}

/// As its users have it: any image will do, since all that runs comes from the node.
fn fastapi(scene: &Scene) -> anyhow::Result<AppSpec> {
    let python = Python::with_packages("GRACEFUL_FASTAPI")?;
    let from_field = |name: &str, path: &str| -> Value {
        json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    };
    let command = "/usr/bin/python3 -m uvicorn app:app --host 0.0.0.0 --port 8000 --no-access-log";
    Ok(AppSpec(json!({
        "replicas": 2,
        "template": {
            "metadata": {"labels": {"app": NAME}},
            "spec": {
                "terminationGracePeriodSeconds": GRACE_SECONDS,
                // A checkout may be where nobody else may look.
                "securityContext": {"runAsUser": 0},
                "containers": [{
                    "name": "server",
                    "image": scene.world.image("server"),
                    "imagePullPolicy": scene.world.pull_policy(),
                    "command": command.split(' ').collect::<Vec<_>>(),
                    "env": [
                        {"name": "TASK_SECONDS", "value": TASK_SECONDS.to_string()},
                        {"name": "WEBHOOK", "value": "http://loadgen:8080/report"},
                        from_field("POD_UID", "metadata.uid"),
                        from_field("POD_NAME", "metadata.name"),
                        from_field("POD_NAMESPACE", "metadata.namespace"),
                        {"name": "PYTHONPATH", "value": "/program:/packages"},
                        {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
                    ],
                    "ports": [{"name": "http", "containerPort": 8000}],
                    "readinessProbe": {"httpGet": {"path": "/v1/health", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5},
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                    "volumeMounts": python.mounts(),
                }],
                "volumes": python.volumes(),
            },
        },
        "service": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        "inFlight": {"port": "http", "path": "/v1/get_queue_length/", "format": "JsonPointer", "jsonPointers": ["/task_lenth"]},
        "drain": {"lingerSeconds": 2, "quietSeconds": 3, "deadlineSeconds": 60},
        "rollout": {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 60},
    })))
}
