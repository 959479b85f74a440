//! What kustomize must be told of a GracefulApp: where its template names other objects, and which of its lists merge by a key.
//!
//! Kustomize knows both of its built-in kinds and of no other. The names are found by walking the CRD's own schema, so that a field of
//! a newer Kubernetes is not forgotten. A schema that is given to kustomize replaces the one it has (for all kinds, not only
//! ours), hence the built-in kinds that have such lists are in it too; `cargo xtask charts` compares them with the API server's.

pub(crate) mod check;

use std::collections::{BTreeMap, BTreeSet};

use graceful_api::names;
use serde_json::{Map, Value, json};

/// The transformer configuration: references by name, labels and annotations of the template, replicas.
pub(crate) fn config() -> String {
    let ours = |path: &str| json!({"group": names::GROUP, "kind": names::KIND, "path": path});
    let created = |path: &str| {
        let mut field = ours(path);
        field["create"] = json!(true);
        field
    };
    let mut references: Vec<Value> = named()
        .into_iter()
        .map(|(target, paths)| {
            let fields: Vec<_> = paths.iter().map(|path| ours(path)).collect();
            let mut reference = json!({"kind": target.kind, "fieldSpecs": fields});
            if let Some(version) = target.version {
                reference["version"] = json!(version);
            }
            reference
        })
        .collect();
    // And who names a GracefulApp.
    let scalers = ["HorizontalPodAutoscaler", "ScaledObject"]
        .map(|kind| json!({"kind": kind, "path": "spec/scaleTargetRef/name"}));
    references.push(json!({"kind": names::KIND, "fieldSpecs": scalers}));
    generated(&json!({
        "nameReference": references,
        "commonLabels": [created("spec/template/metadata/labels")],
        "templateLabels": [created("spec/template/metadata/labels")],
        "commonAnnotations": [created("spec/template/metadata/annotations")],
        "replicas": [created("spec/replicas")],
    }))
}

/// The OpenAPI document: no types, but which lists merge, and by what.
pub(crate) fn openapi() -> String {
    generated(&json!({"swagger": "2.0", "info": {"title": "Lists that merge by a key", "version": "v1"},
        "paths": {}, "definitions": definitions()}))
}

fn generated(value: &Value) -> String {
    graceful_api::crd::generated(value).unwrap_or_default()
}

/// What a field names; a version tells it from a kind of the same name elsewhere, as kustomize's own configuration has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    kind: &'static str,
    version: Option<&'static str>,
}

const fn target(kind: &'static str, version: Option<&'static str>) -> Target {
    Target { kind, version }
}

/// Every path of the pod template, and of the gate beside it, that names an object of the namespace or the cluster.
fn named() -> BTreeMap<Target, BTreeSet<String>> {
    let crd = serde_json::to_value(graceful_api::crd()).unwrap_or_default();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let mut found = BTreeMap::new();
    walk(&spec["template"], "spec/template", &mut found);
    walk(&spec["gate"], "spec/gate", &mut found);
    found
}

fn walk(schema: &Value, path: &str, found: &mut BTreeMap<Target, BTreeSet<String>>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        // Kubernetes takes none in a template.
        if name == "ephemeralContainers" {
            continue;
        }
        let path = format!("{path}/{name}");
        let below = if property.get("items").is_some() { &property["items"] } else { property };
        if let Some((target, suffix)) = reference(name, below) {
            found.entry(target).or_default().insert(format!("{path}{suffix}"));
        }
        walk(below, &path, found);
    }
}

/// Whether a field of this name refers to another object, and where below it the name stands.
fn reference(name: &str, schema: &Value) -> Option<(Target, &'static str)> {
    let v1 = Some("v1");
    let has_name = schema["properties"].get("name").is_some();
    match name {
        "configMapRef" | "configMapKeyRef" | "configMap" if has_name => {
            Some((target("ConfigMap", v1), "/name"))
        }
        "secretName" => Some((target("Secret", v1), "")),
        "secret" | "secretKeyRef" | "imagePullSecrets" if has_name => Some((target("Secret", v1), "/name")),
        // secretRef, and those of the volume drivers.
        _ if (name == "secretRef" || name.ends_with("SecretRef")) && has_name => {
            Some((target("Secret", v1), "/name"))
        }
        "claimName" => Some((target("PersistentVolumeClaim", v1), "")),
        "serviceAccountName" | "serviceAccount" => Some((target("ServiceAccount", v1), "")),
        "priorityClassName" => Some((target("PriorityClass", v1), "")),
        "storageClassName" => Some((target("StorageClass", v1), "")),
        "runtimeClassName" => Some((target("RuntimeClass", None), "")),
        "resourceClaimName" => Some((target("ResourceClaim", None), "")),
        "resourceClaimTemplateName" => Some((target("ResourceClaimTemplate", None), "")),
        _ => None,
    }
}

/// The kinds, and what several of them share.
fn definitions() -> Value {
    let mut all = Map::new();
    let template = || ("template", shared("PodTemplateSpec"));
    let spec = |fields: Vec<Field>| vec![("spec", object(fields))];
    for (name, fields) in [
        ("Container", container()),
        ("PodSpec", pod_spec()),
        ("PodTemplateSpec", vec![("spec", shared("PodSpec"))]),
    ] {
        all.insert(name.to_owned(), object(fields));
    }
    let env = || list("env", &["name"], vec![]);
    let service_ports = || list("ports", &["port", "protocol"], vec![]);
    let job =
        || object(vec![template(), ("scheduling", object(vec![list("resourceClaims", &["name"], vec![])]))]);
    let webhooks = || vec![list("webhooks", &["name"], vec![list("matchConditions", &["name"], vec![])])];
    let ours = (names::GROUP, names::VERSION);
    let [core, apps, batch, policy, admission] =
        ["", "apps", "batch", "policy", "admissionregistration.k8s.io"].map(|group| (group, "v1"));
    for ((group, version), kind, fields) in [
        (
            ours,
            names::KIND,
            spec(vec![template(), ("service", object(vec![service_ports()])), ("gate", object(vec![env()]))]),
        ),
        (core, "Pod", vec![("spec", shared("PodSpec"))]),
        (core, "PodTemplate", vec![template()]),
        (core, "ReplicationController", spec(vec![template()])),
        (core, "Service", spec(vec![service_ports()])),
        (core, "ServiceAccount", vec![list("secrets", &["name"], vec![])]),
        (apps, "DaemonSet", spec(vec![template()])),
        (apps, "Deployment", spec(vec![template(), ("strategy", json!({STRATEGY: "retainKeys"}))])),
        (apps, "ReplicaSet", spec(vec![template()])),
        (apps, "StatefulSet", spec(vec![template()])),
        (batch, "CronJob", spec(vec![("jobTemplate", object(vec![("spec", job())]))])),
        (batch, "Job", vec![("spec", job())]),
        (policy, "PodDisruptionBudget", spec(vec![("selector", json!({STRATEGY: "replace"}))])),
        (admission, "MutatingAdmissionPolicy", spec(vec![list("matchConditions", &["name"], vec![])])),
        (
            admission,
            "ValidatingAdmissionPolicy",
            spec(vec![list("matchConditions", &["name"], vec![]), list("variables", &["name"], vec![])]),
        ),
        (admission, "MutatingWebhookConfiguration", webhooks()),
        (admission, "ValidatingWebhookConfiguration", webhooks()),
    ] {
        let mut definition = object(fields);
        definition[GVK] = json!([{"group": group, "version": version, "kind": kind}]);
        all.insert(kind.to_owned(), definition);
    }
    Value::Object(all)
}

fn pod_spec() -> Vec<Field> {
    let containers = |name| {
        (
            name,
            json!({"type": "array", "items": shared("Container"), STRATEGY: "merge", KEY: "name", KEYS: ["name"]}),
        )
    };
    // Of a list item that is replaced, what is not in the patch goes: a volume has one source.
    let replaced = |name| {
        let (name, mut list) = list(name, &["name"], vec![]);
        list[STRATEGY] = json!("merge,retainKeys");
        (name, list)
    };
    vec![
        containers("containers"),
        containers("initContainers"),
        containers("ephemeralContainers"),
        replaced("volumes"),
        replaced("resourceClaims"),
        list("imagePullSecrets", &["name"], vec![]),
        list("hostAliases", &["ip"], vec![]),
        list("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], vec![]),
        list("schedulingGates", &["name"], vec![]),
        list("evictionResponders", &["name"], vec![]),
    ]
}

fn container() -> Vec<Field> {
    vec![
        list("env", &["name"], vec![]),
        list("ports", &["containerPort", "protocol"], vec![]),
        list("volumeMounts", &["mountPath"], vec![]),
        list("volumeDevices", &["devicePath"], vec![]),
    ]
}

type Field = (&'static str, Value);

const GVK: &str = "x-kubernetes-group-version-kind";
const STRATEGY: &str = "x-kubernetes-patch-strategy";
const KEY: &str = "x-kubernetes-patch-merge-key";
const KEYS: &str = "x-kubernetes-list-map-keys";

fn shared(definition: &str) -> Value {
    json!({"$ref": format!("#/definitions/{definition}")})
}

fn object(fields: Vec<Field>) -> Value {
    let properties: Map<_, _> = fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect();
    json!({"type": "object", "properties": properties})
}

/// A list whose items merge by these keys.
fn list(name: &'static str, keys: &[&str], items: Vec<Field>) -> Field {
    (name, json!({"type": "array", "items": object(items), STRATEGY: "merge", KEY: keys.first(), KEYS: keys}))
}
