//! A gate before apps whose every answer takes longer than their pods' grace: streams of gRPC by tonic, and plain TCP connections. Neither knows of the gate.
//! Then the same with the gate or the app killed in mid-drain.

use anyhow::{Context, ensure};
use graceful_api::PodState;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, crash, load};
use crate::wire::{LoadSpec, Speaks};

/// A stream takes eight.
const GRACE_SECONDS: u32 = 5;
/// As the operator names the gate's container, which `comm` cuts to 15 characters.
const GATE: &str = "graceful-gate";

/// P1: two rollouts and a scale-down under streams of gRPC: each is read to its end, with its status, and no call is refused.
pub(super) async fn grpc_streams_behind_a_gate(scene: &Scene) -> anyhow::Result<()> {
    rolled_twice_and_scaled(scene, app(scene, "grpc", &json!({"port": "http"})), Speaks::Grpc).await
}

/// P1: the same with TCP connections, whose server learns its client's address by the PROXY protocol.
pub(super) async fn tcp_connections_behind_a_gate(scene: &Scene) -> anyhow::Result<()> {
    let proxy_protocol = json!([{"name": "GRACEFUL_GATE_PROXY_PROTOCOL", "value": "V1"}]);
    let gate = json!({"port": "http", "protocol": "Tcp", "env": proxy_protocol});
    rolled_twice_and_scaled(scene, app(scene, "echo", &gate), Speaks::Echo).await
}

async fn rolled_twice_and_scaled(scene: &Scene, spec: AppSpec, speaks: Speaks) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(spec).await?;
    given.load(streams(speaks)).await?;
    for mark in ["second", "third"] {
        when.template_changes(mark).await?;
        then.rolled_out().await?;
    }
    when.scaled(1).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P7: in mid-drain first the gate of a pod is killed, and in the next rollout the app of one. What went through them is cut; all else is whole, the drains end, and the
/// rollouts with them.
pub(super) async fn gate_and_app_killed_in_mid_drain(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(app(scene, "grpc", &json!({"port": "http"}))).await?;
    given.load(streams(Speaks::Grpc)).await?;
    let mut may_be_cut = 0;
    for (mark, process) in [("second", GATE), ("third", "loadgen")] {
        when.template_changes(mark).await?;
        let (pod, in_flight) = busy_and_draining(scene).await?;
        scene
            .step(format!("when {process} of {} is killed", pod.name_any()), crash::kill(&pod, process))
            .await?;
        may_be_cut += in_flight;
        then.rolled_out().await?;
    }
    let view = scene.accounts_closed().await?;
    let cut = view.unfinished.len() as u64;
    ensure!(cut > 0, "nothing was cut: this proves nothing");
    ensure!(cut <= may_be_cut, "{cut} streams were cut, and {may_be_cut} went through what was killed");
    // Once the gate is new it accepts nothing: a draining pod is unrouted. Clients of the one that was killed may have had its connection still.
    let failed = view.requests.unanswered();
    ensure!(failed <= may_be_cut, "{failed} calls failed: {:?}", view.requests);
    ensure!(view.finished > may_be_cut, "{} of {} streams were whole", view.finished, view.accepted);
    Ok(())
}

/// The pod is Guaranteed and passes Pod Security's strictest level with the gate in it, and each of its containers has the requests that an autoscaler on CPU divides by.
pub(super) async fn gated_pods_stay_guaranteed_and_restricted(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let resources = json!({"cpu": "50m", "memory": "64Mi"});
    let spec = app(
        scene,
        "grpc",
        &json!({"port": "http", "resources": {"requests": resources, "limits": resources}}),
    )
    .replicas(1)
    .set("/template/spec/containers/0/resources", json!({"requests": resources, "limits": resources}))
    .set(
        "/template/spec/securityContext",
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}),
    )
    .set(
        "/template/spec/containers/0/securityContext",
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
    );
    given.app(spec).await?;
    scene.step("when the namespace becomes restricted", restrict(scene)).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.pods("they are Guaranteed, and each container has requests", ROLLS, |pods| {
        ensure!(!pods.is_empty(), "no pods");
        pods.iter().try_for_each(is_guaranteed)
    })
    .await
}

async fn restrict(scene: &Scene) -> anyhow::Result<()> {
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    namespaces.patch(&scene.namespace, &PatchParams::default(), &Patch::Merge(&labels)).await?;
    Ok(())
}

fn is_guaranteed(pod: &Pod) -> anyhow::Result<()> {
    let (name, spec) = (pod.name_any(), pod.spec.as_ref().context("a pod without a spec")?);
    let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    ensure!(class == Some("Guaranteed"), "{name} is {class:?}");
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let cpu = requests.is_some_and(|requests| requests.contains_key("cpu"));
        ensure!(cpu, "{name}: {} requests no CPU", container.name);
    }
    Ok(())
}

/// A pod that is past its latch with streams in it, and how many: from there on they only become fewer.
async fn busy_and_draining(scene: &Scene) -> anyhow::Result<(Pod, u64)> {
    eventually("a pod drains with streams in it", ROLLS, || async {
        let draining = scene.app().await?.status.context("no status yet")?.draining;
        let busy = draining.iter().find_map(|pod| {
            let running = pod.in_flight.as_ref()?.total;
            (pod.state == PodState::Draining && running > 1).then(|| (pod.pod.clone(), running))
        });
        let (name, running) = busy.with_context(|| format!("draining: {draining:?}"))?;
        Ok((scene.api::<Pod>().get(&name).await?, running))
    })
    .await
}

/// Some two dozen streams at a time, half of the clients with a connection of their own for each.
fn streams(speaks: Speaks) -> LoadSpec {
    LoadSpec { clients: 24, rate_per_second: 3.0, sockets: 0, speaks, ..load::usual() }
}

/// The load generator's image is the app's as well: `what` it is.
fn app(scene: &Scene, what: &str, gate: &Value) -> AppSpec {
    AppSpec(json!({
        "replicas": 2,
        "template": {
            "metadata": {"labels": {"app": NAME}},
            "spec": {
                "terminationGracePeriodSeconds": GRACE_SECONDS,
                "containers": [{
                    "name": "app",
                    "image": scene.world.image("loadgen"),
                    "imagePullPolicy": scene.world.pull_policy(),
                    "args": [what, "--listen", "0.0.0.0:8000"],
                    "env": [],
                    "ports": [{"name": "http", "containerPort": 8000}],
                    "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }],
            },
        },
        "service": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        "gate": gate,
        "drain": {"lingerSeconds": 2, "deadlineSeconds": 60},
        "rollout": {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 60},
    }))
}
