//! The pod template of a revision's Deployment: the user's, and what the operator adds to it.
//!
//! Raw JSON in, raw JSON out. What is added: three labels, with `disruption: HoldWhileBusy` the marks of a busy pod, two env variables and a third where drains
//! need a token, a preStop hook where a container has none,
//! and the grace period if the template has none. Nothing else changes, and nothing of the user's is overridden; but for a gate, which comes as a container of its
//! own and takes the name of one port.

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use serde_json::{Map, Value, json};

use crate::gated;
use crate::spec::{Disruption, PreStop};
use crate::validated::Validated;
use crate::{marks, names};

mod gate;

/// What new pods are given that stands in no spec. Whoever made a revision's Deployment chose it, and it stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// The public keys of who may drain them, if they are to ask.
    pub drain_keys: Option<&'a str>,
    /// The gate's image.
    pub gate_image: &'a str,
    /// When it is pulled; Kubernetes' default where it is not said.
    pub gate_pull_policy: Option<&'a str>,
}

/// The user's template with what new pods need.
pub fn pod_template(app: &Validated, given: &Given<'_>) -> Value {
    let mut template = app.template.0.as_object().cloned().unwrap_or_default();
    edit_object(&mut template, "metadata", |metadata| {
        edit_object(metadata, "labels", |labels| {
            labels.insert(names::APP_LABEL.to_owned(), json!(app.name));
            labels.insert(names::REVISION_LABEL.to_owned(), json!(app.revision));
            labels.insert(names::SERVING_LABEL.to_owned(), json!(names::SERVING));
            if app.disruption == Disruption::HoldWhileBusy {
                labels.insert(marks::BUSY_LABEL.to_owned(), json!(marks::BUSY));
            }
        });
        if app.disruption == Disruption::HoldWhileBusy {
            edit_object(metadata, "annotations", |annotations| {
                let ours = marks::ours(|key| annotations.get(key).and_then(Value::as_str));
                annotations.extend(marks::annotations(&ours, true));
            });
        }
    });
    edit_object(&mut template, "spec", |spec| {
        if spec.get(GRACE).is_none_or(Value::is_null) {
            spec.insert(GRACE.to_owned(), json!(app.grace_seconds));
        }
        each_object(spec, "containers", |container| {
            add_env(container, given.drain_keys);
            make_way(container, app);
            add_hook(container, app);
        });
        // A native sidecar outlives the main containers, so that it needs no time for endpoints to propagate: it gets
        // the hook only where it is the one that is asked.
        each_object(spec, "initContainers", |container| {
            if is_sidecar(container) {
                add_env(container, given.drain_keys);
                make_way(container, app);
                if is_in_flight_container(container, app) {
                    add_hook(container, app);
                }
            }
        });
        if let Some(gate) = &app.gate {
            let mut container = gate::container(gate, &app.template.0, given);
            add_env(&mut container, given.drain_keys);
            // First: sidecars start in their order, and end in the other.
            put_first(spec, "initContainers", container);
        }
    });
    Value::Object(template)
}

/// The gate in the template of a Deployment: its image.
pub fn gate_image(template: &PodTemplateSpec) -> Option<&str> {
    gate_of(template)?.image.as_deref()
}

/// The gate in the template of a Deployment: the name that it took, and the app's own number.
pub fn gated_port(template: &PodTemplateSpec) -> Option<(&str, i32)> {
    let gate = gate_of(template)?;
    let names = gate.ports.iter().flatten().filter_map(|port| port.name.as_deref());
    let name = names.into_iter().find(|name| *name != gated::ADMIN_PORT_NAME)?;
    let number = gate.env.iter().flatten().find(|variable| variable.name == gated::env::APP_PORT)?;
    Some((name, number.value.as_ref()?.parse().ok()?))
}

fn gate_of(template: &PodTemplateSpec) -> Option<&Container> {
    template.spec.as_ref()?.init_containers.iter().flatten().find(|c| c.name == gated::CONTAINER)
}

/// What running pods of this revision got at their creation and the spec now wants otherwise, as sentences: the grace
/// period and hooks are baked into a pod. `written` is the template in the revision's Deployment.
pub fn baked_in_differences(app: &Validated, written: &Value) -> Vec<String> {
    // Keys and the gate's image are no part of the spec: those that pods have stay theirs for life.
    let wanted = pod_template(app, &Given::default());
    let mut differences = Vec::new();
    let (has, wants) = (&written["spec"][GRACE], &wanted["spec"][GRACE]);
    // What the user wrote in the template is part of the revision's hash: it cannot differ, and compared with what is stored it would only show
    // the API server's defaults (an httpGet's scheme).
    if app.template.0["spec"][GRACE].is_null() && has != wants {
        differences
            .push(format!("running pods have a grace period of {has} s, and the spec asks for {wants} s"));
    }
    for kind in ["containers", "initContainers"] {
        for container in containers(&wanted, kind) {
            let hook = |template| {
                containers(template, kind).find(|c| c.get("name") == container.get("name")).and_then(pre_stop)
            };
            if hook(&app.template.0).is_none() && pre_stop(container) != hook(written) {
                let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
                differences.push(format!("running pods have another preStop hook in container {name}"));
            }
        }
    }
    differences.extend(gate_differences(app, written));
    differences
}

/// The times that a gate was given. What else it was given is part of the revision.
fn gate_differences(app: &Validated, written: &Value) -> Vec<String> {
    const TIMES: [&str; 2] = [gated::env::QUIET, gated::env::LINGER];
    let settings = app.gate.iter().flat_map(|gate| &gate.settings).filter(|(name, _)| TIMES.contains(name));
    let there = containers(written, "initContainers").find(|c| has(c, "name", gated::CONTAINER));
    let env = there.and_then(|c| c.get("env")).and_then(Value::as_array);
    let differs = |(name, wanted): &(&str, String)| {
        let has = env?.iter().find(|variable| variable["name"] == *name)?["value"].as_str()?;
        (has != wanted)
            .then(|| format!("running pods' gates have {name}={has}, and the spec asks for {wanted}"))
    };
    settings.filter_map(differs).collect()
}

fn containers<'a>(template: &'a Value, kind: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    template["spec"][kind].as_array().into_iter().flatten().filter_map(Value::as_object)
}

const GRACE: &str = "terminationGracePeriodSeconds";

fn pre_stop(container: &Map<String, Value>) -> Option<&Value> {
    container.get("lifecycle")?.get("preStop").filter(|hook| !hook.is_null())
}

fn has(container: &Map<String, Value>, key: &str, value: &str) -> bool {
    container.get(key).and_then(Value::as_str) == Some(value)
}

fn is_sidecar(container: &Map<String, Value>) -> bool {
    has(container, "restartPolicy", "Always")
}

/// The gated port is the gate's by name, and the app's by number.
fn make_way(container: &mut Map<String, Value>, app: &Validated) {
    if let Some(gate) = app.gate.as_ref().filter(|gate| has(container, "name", &gate.app_container)) {
        gate::by_number(container, gate);
    }
}

fn is_in_flight_container(container: &Map<String, Value>, app: &Validated) -> bool {
    has(container, "name", &app.policy.in_flight.container)
}

/// Ours come first, so that the user's own variables can refer to them; a name that is there already is the user's.
fn add_env(container: &mut Map<String, Value>, drain_keys: Option<&str>) {
    let theirs = match container.remove("env") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let ours = [(names::POD_NAME_ENV, "metadata.name"), (names::POD_UID_ENV, "metadata.uid")]
        .map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    let keys = drain_keys.map(|keys| json!({"name": names::DRAIN_KEYS_ENV, "value": keys}));
    let given = |ours: &Value| theirs.iter().any(|theirs| theirs["name"] == ours["name"]);
    let mut env: Vec<_> = ours.into_iter().chain(keys).filter(|variable| !given(variable)).collect();
    env.extend(theirs);
    container.insert("env".to_owned(), Value::Array(env));
}

fn add_hook(container: &mut Map<String, Value>, app: &Validated) {
    if app.pre_stop == PreStop::None || pre_stop(container).is_some() {
        return;
    }
    let linger = app.policy.drain.linger_seconds;
    let hook = match (&app.gate, &app.pre_stop_command) {
        (Some(gate), _) => gate::wait_idle(gate),
        (None, Some(command)) if is_in_flight_container(container, app) => {
            json!({"exec": {"command": command}})
        }
        (None, _) if linger == 0 => return,
        (None, _) => json!({"sleep": {"seconds": linger}}),
    };
    edit_object(container, "lifecycle", |lifecycle| {
        lifecycle.insert("preStop".to_owned(), hook);
    });
}

/// Edits the object under a key, made where it is absent or null. [`Validated`] has refused any other type there.
fn edit_object(parent: &mut Map<String, Value>, key: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut member = match parent.remove(key) {
        Some(Value::Object(member)) => member,
        _ => Map::new(),
    };
    edit(&mut member);
    parent.insert(key.to_owned(), Value::Object(member));
}

fn put_first(parent: &mut Map<String, Value>, key: &str, first: Map<String, Value>) {
    let rest = match parent.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let all = std::iter::once(Value::Object(first)).chain(rest).collect();
    parent.insert(key.to_owned(), Value::Array(all));
}

/// Edits each object of the list under a key, if there is one.
fn each_object(parent: &mut Map<String, Value>, key: &str, edit: impl FnMut(&mut Map<String, Value>)) {
    let list = parent.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(edit);
}

#[cfg(test)]
mod tests;
