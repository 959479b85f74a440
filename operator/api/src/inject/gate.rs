//! The gate's own container, and what changes in the app's for it.

use serde_json::{Map, Value, json};

use super::{Given, containers};
use crate::gated::{self, Gated};
use crate::quantity::{quantity, same};

/// Where the gate's image has its program.
const PROGRAM: &str = "/graceful-gate";
/// Answered once the pod is latched and idle.
const WAIT_IDLE: &str = "/wait-idle";
/// What the gate needs at rest is a few MiB and no CPU. Requests, since an autoscaler that goes by CPU fails at a container without; a tenth of a CPU carries some
/// thousand requests a second, and 64 MiB some hundreds of busy connections.
const USUAL: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "64Mi")];
/// For a user that is not root, where the pod's would be: the image's.
const USER: u32 = 65532;

/// A native sidecar: it is up before the app, and ends after it.
///
/// The startup probe holds the app's start back until the gate listens, and shows a gate that cannot. There is no readiness probe: the app's own say how the pod
/// is, and a gate that is late on a busy node must not make a draining pod its ReplicaSet's first victim. Nor a liveness probe, which would cut requests.
pub(super) fn container(gate: &Gated, template: &Value, given: &Given<'_>) -> Map<String, Value> {
    let Gated { port, listen_port, admin_port, settings, env, resources, app_container: _, app_port: _ } =
        gate;
    let ours = settings.iter().map(|(name, value)| json!({"name": name, "value": value}));
    let env: Vec<Value> = ours.chain(env.iter().map(|variable| json!(variable))).collect();
    let container = json!({
        "name": gated::CONTAINER,
        "image": given.gate_image,
        "restartPolicy": "Always",
        "env": env,
        "ports": [
            {"name": port, "containerPort": listen_port, "protocol": "TCP"},
            {"name": gated::ADMIN_PORT_NAME, "containerPort": admin_port, "protocol": "TCP"},
        ],
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": admin_port, "scheme": "HTTP"},
            "periodSeconds": 1,
            "failureThreshold": 60,
        },
        "lifecycle": {"preStop": {"exec": {"command": [PROGRAM, "pre-stop"]}}},
        "resources": resources.clone().unwrap_or_else(|| usual_resources(template)),
        "securityContext": security_context(template),
    });
    let mut container = container.as_object().cloned().unwrap_or_default();
    if let Some(policy) = given.gate_pull_policy {
        container.insert("imagePullPolicy".to_owned(), json!(policy));
    }
    container
}

/// Its SIGTERM comes once the pod is latched and idle.
pub(super) fn wait_idle(gate: &Gated) -> Value {
    json!({"httpGet": {"path": WAIT_IDLE, "port": gate.admin_port, "scheme": "HTTP"}})
}

/// The app's port is known by its number alone: to Services, which follow the name to the gate, and to the app's own probes and hooks.
pub(super) fn by_number(container: &mut Map<String, Value>, gate: &Gated) {
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut().filter(|port| has(port, "name", gate)) {
            port.remove("name");
        }
    }
    let renumber = |handler: &mut Value| {
        for kind in ["httpGet", "tcpSocket"] {
            let call = handler.get_mut(kind).and_then(Value::as_object_mut);
            if let Some(call) = call.filter(|call| has(call, "port", gate)) {
                call.insert("port".to_owned(), json!(gate.app_port));
            }
        }
    };
    ["livenessProbe", "readinessProbe", "startupProbe"]
        .iter()
        .for_each(|probe| container.get_mut(*probe).into_iter().for_each(renumber));
    let hooks = container.get_mut("lifecycle").and_then(Value::as_object_mut);
    hooks.into_iter().flat_map(Map::values_mut).for_each(renumber);
}

fn has(object: &Map<String, Value>, key: &str, gate: &Gated) -> bool {
    object.get(key).and_then(Value::as_str) == Some(&gate.port)
}

/// What Pod Security's level `restricted` asks for. The user is the image's, or any that the cluster gives it.
fn security_context(template: &Value) -> Value {
    let mut context = json!({
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if template["spec"]["securityContext"]["runAsUser"] == json!(0) {
        context["runAsUser"] = json!(USER);
    }
    context
}

/// Beside containers that make their pod Guaranteed, it must not make it anything less.
fn usual_resources(template: &Value) -> Value {
    let usual: Map<String, Value> =
        USUAL.iter().map(|(name, amount)| ((*name).to_owned(), json!(amount))).collect();
    if is_guaranteed(template) {
        json!({"requests": usual, "limits": usual})
    } else {
        json!({"requests": usual})
    }
}

/// Kubernetes' own rule: each container has limits of CPU and memory, and requests equal to them or none. Resources of the pod as a whole settle it without any
/// container's.
fn is_guaranteed(template: &Value) -> bool {
    let of_the_pod = !template["spec"]["resources"].is_null();
    let limited = |container: &Map<String, Value>| {
        USUAL.iter().all(|(name, _)| {
            let of =
                |kind: &str| container.get("resources").map(|r| r[kind][*name].clone()).unwrap_or_default();
            let (limit, request) = (of("limits"), of("requests"));
            quantity(&limit).is_some_and(|n| n > 0.0) && (request.is_null() || same(&limit, &request))
        })
    };
    let mut all = ["containers", "initContainers"].into_iter().flat_map(|kind| containers(template, kind));
    !of_the_pod && all.all(limited)
}

#[cfg(test)]
mod tests;
