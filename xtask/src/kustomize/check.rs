//! The real kustomize, the one inside the cluster's kubectl, given what we write for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use graceful_api::names::KIND;
use serde_json::{Value, json};

use super::{GVK, KEY, KEYS, STRATEGY};
use crate::api_server::Server;
use crate::run::root;

/// Builds an overlay in both ways of use, and the sample; compares the built-in kinds with the server's.
pub(crate) fn check(server: &Server) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("graceful-{}", server.namespace));
    let judged = in_folder(server, &folder);
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    judged?;
    let sample = build(server, &root().join("samples/kustomize"))?;
    server.dry_run(&sample.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n"))?;
    merges_as_kubernetes_does(server)
}

fn in_folder(server: &Server, folder: &Path) -> anyhow::Result<()> {
    for file in ["kustomization.yaml", "kustomizeconfig.yaml", "openapi.yaml"] {
        let from = root().join("crds/kustomize").join(file);
        write(&folder.join("component").join(file), &fs::read_to_string(&from)?)?;
        write(&folder.join("files").join(file), &fs::read_to_string(&from)?)?;
    }
    let as_component = "components: [../component]";
    let as_files = "configurations: [kustomizeconfig.yaml]\nopenapi: {path: openapi.yaml}";
    for (place, told) in [("overlay", as_component), ("files", as_files)] {
        let place = folder.join(place);
        write(&place.join("objects.yaml"), OBJECTS)?;
        write(&place.join("kustomization.yaml"), &format!("{told}\n{OVERLAY}"))?;
        let built = build(server, &place)?;
        as_told(&built).with_context(|| format!("{told}: kustomize makes of it {}", json!(built)))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().context("a file in a folder")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .with_context(|| path.display().to_string())
}

fn build(server: &Server, folder: &Path) -> anyhow::Result<Vec<Value>> {
    let built = server.kubectl(&["kustomize", &folder.display().to_string()], None)?.stdout;
    serde_saphyr::from_multiple(&built).context("what kustomize wrote")
}

/// Each place that names another object, and one of each list that merges.
const OBJECTS: &str = r#"
apiVersion: graceful.dev/v1alpha1
kind: GracefulApp
metadata: {name: tasks}
spec:
  replicas: 3
  service: {ports: [{name: http, port: 80}, {name: more, port: 81}]}
  template:
    spec:
      serviceAccountName: runner
      priorityClassName: urgent
      imagePullSecrets: [{name: keys}]
      initContainers:
      - name: setup
        image: graceful/server:dev
        envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: keys}}]
        env: [{name: K, valueFrom: {configMapKeyRef: {name: settings, key: k}}}]
      containers:
      - name: server
        image: graceful/server:dev
        env:
        - {name: A, value: a}
        - {name: B, value: b}
        - {name: C, valueFrom: {configMapKeyRef: {name: settings, key: k}}}
        - {name: D, valueFrom: {secretKeyRef: {name: keys, key: k}}}
        envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: keys}}]
        ports: [{name: http, containerPort: 8000}, {name: admin, containerPort: 9808}]
        volumeMounts: [{name: data, mountPath: /data}, {name: settings, mountPath: /etc/settings}]
      - {name: agent, image: agent:1}
      volumes:
      - {name: settings, configMap: {name: settings}}
      - {name: keys, secret: {secretName: keys}}
      - {name: both, projected: {sources: [{configMap: {name: settings}}, {secret: {name: keys}}]}}
      - {name: data, persistentVolumeClaim: {claimName: data}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain}
spec: {template: {spec: {containers: [{name: one, env: [{name: A, value: a}, {name: B, value: b}]}, {name: two}]}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: tasks}
spec: {scaleTargetRef: {apiVersion: graceful.dev/v1alpha1, kind: GracefulApp, name: tasks}}
"#;

const OVERLAY: &str = r#"
namePrefix: my-
resources: [objects.yaml]
configMapGenerator: [{name: settings, literals: [k=1]}]
secretGenerator: [{name: keys, literals: [k=1]}]
images: [{name: graceful/server, newName: registry/server, newTag: "2"}]
replicas: [{name: tasks, count: 7}]
labels: [{pairs: {team: a}, includeTemplates: true}]
patches:
- patch: |
    apiVersion: graceful.dev/v1alpha1
    kind: GracefulApp
    metadata: {name: tasks}
    spec:
      service: {ports: [{port: 81, targetPort: 8081}]}
      template:
        spec:
          containers:
          - {name: server, env: [{name: B, value: patched}], volumeMounts: [{mountPath: /data, readOnly: true}]}
          volumes: [{name: data, emptyDir: {}}]
- patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: plain}
    spec: {template: {spec: {containers: [{name: one, env: [{name: B, value: patched}]}]}}}
"#;

/// Names with their new names, lists merged, everything else as it was.
fn as_told(built: &[Value]) -> anyhow::Result<()> {
    let of = |kind: &str| built.iter().find(|object| object["kind"] == kind).context(kind.to_owned());
    let name = |kind: &str| of(kind).map(|object| object["metadata"]["name"].clone());
    let (settings, keys) = (name("ConfigMap")?, name("Secret")?);
    let app = of("GracefulApp")?;
    let pod = &app["spec"]["template"]["spec"];
    let [container, init] = [&pod["containers"], &pod["initContainers"]].map(|list| by(list, "name"));
    let (server, setup) = (container("server"), init("setup"));
    let (env, volume, mount) =
        (by(&server["env"], "name"), by(&pod["volumes"], "name"), by(&server["volumeMounts"], "mountPath"));
    let sources = &volume("both")["projected"]["sources"];
    let expected = [
        (&server["envFrom"][0]["configMapRef"]["name"], settings.clone()),
        (&server["envFrom"][1]["secretRef"]["name"], keys.clone()),
        (&setup["envFrom"][0]["configMapRef"]["name"], settings.clone()),
        (&setup["envFrom"][1]["secretRef"]["name"], keys.clone()),
        (&setup["env"][0]["valueFrom"]["configMapKeyRef"]["name"], settings.clone()),
        (&env("C")["valueFrom"]["configMapKeyRef"]["name"], settings.clone()),
        (&env("D")["valueFrom"]["secretKeyRef"]["name"], keys.clone()),
        (&volume("settings")["configMap"]["name"], settings.clone()),
        (&volume("keys")["secret"]["secretName"], keys.clone()),
        (&sources[0]["configMap"]["name"], settings),
        (&sources[1]["secret"]["name"], keys.clone()),
        (&pod["imagePullSecrets"][0]["name"], keys),
        (&pod["serviceAccountName"], json!("my-runner")),
        (&pod["priorityClassName"], json!("my-urgent")),
        (&of("HorizontalPodAutoscaler")?["spec"]["scaleTargetRef"]["name"], json!("my-tasks")),
        (&server["image"], json!("registry/server:2")),
        (&setup["image"], json!("registry/server:2")),
        (&container("agent")["image"], json!("agent:1")),
        (&app["spec"]["replicas"], json!(7)),
        (&app["spec"]["template"]["metadata"]["labels"]["team"], json!("a")),
        (&env("A")["value"], json!("a")),
        (&env("B")["value"], json!("patched")),
        (&mount("/data")["readOnly"], json!(true)),
        (&mount("/data")["name"], json!("data")),
        (&mount("/etc/settings")["name"], json!("settings")),
        (&volume("data")["emptyDir"], json!({})),
        (&by(&app["spec"]["service"]["ports"], "name")("more")["targetPort"], json!(8081)),
        (&app["spec"]["service"]["ports"].as_array().map_or(0, Vec::len).into(), json!(2)),
    ];
    for (index, (found, wanted)) in expected.iter().enumerate() {
        ensure!(*found == wanted, "expectation {index}: {found} is not {wanted}");
    }
    let plain = &of("Deployment")?["spec"]["template"]["spec"]["containers"];
    ensure!(plain.as_array().map(Vec::len) == Some(2), "a patch of a Deployment lost a container: {plain}");
    let one = by(&by(plain, "name")("one")["env"], "name");
    ensure!(one("A")["value"] == "a" && one("B")["value"] == "patched", "a Deployment's list did not merge");
    Ok(())
}

/// Finds an item of a list by its key; null when there is none.
fn by<'a>(list: &'a Value, key: &'a str) -> impl Fn(&str) -> &'a Value {
    move |wanted| {
        list.as_array().into_iter().flatten().find(|item| item[key] == wanted).unwrap_or(&Value::Null)
    }
}

/// Every built-in kind merges as the API server's own document says. Of a custom resource that says nothing, which is why ours does.
fn merges_as_kubernetes_does(server: &Server) -> anyhow::Result<()> {
    let theirs: Value =
        serde_json::from_str(&server.kubectl(&["get", "--raw", "/openapi/v2"], None)?.stdout)?;
    let ours: Value = serde_saphyr::from_str(&super::openapi())?;
    let [real, known] = [&theirs, &ours].map(|document| {
        let definitions = document["definitions"].as_object().into_iter().flatten();
        let kinds = definitions.filter_map(|(_, schema)| match schema[GVK].as_array()?.as_slice() {
            [gvk] => Some((gvk["kind"].as_str()?, gvk.to_string(), schema)),
            _ => None,
        });
        let kinds = kinds
            .filter(|(kind, ..)| *kind != KIND && !kind.ends_with("List") && !NOBODY_PATCHES.contains(kind));
        let merged = kinds.flat_map(|(_, gvk, schema)| {
            let mut found = BTreeSet::new();
            merges(document, schema, "", &mut found);
            found.into_iter().map(move |field| format!("{gvk} {field}"))
        });
        merged.collect::<BTreeSet<_>>()
    });
    let [missing, invented] = [real.difference(&known), known.difference(&real)].map(Vec::from_iter);
    ensure!(
        missing.is_empty() && invented.is_empty(),
        "crds/kustomize/openapi.yaml lacks {missing:#?} and has {invented:#?}, which Kubernetes has not"
    );
    Ok(())
}

/// Kinds that the cluster writes itself, and the CRD, whose only such list is far down in its schema.
const NOBODY_PATCHES: [&str; 4] = ["ComponentStatus", "Node", "CSINode", "CustomResourceDefinition"];

/// Each field below that is merged in a way of its own, and how.
fn merges(document: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/definitions/")) {
        return merges(document, &document["definitions"][name], path, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        // Nobody patches a status by kustomize, and metadata's own lists (finalizers, owners) no more often.
        if name == "status" || name == "metadata" {
            continue;
        }
        let path = format!("{path}.{name}");
        if field.get(STRATEGY).is_some() {
            let keys = if field[KEYS].is_null() { json!([field[KEY]]) } else { field[KEYS].clone() };
            found.insert(format!("{path}: {} by {keys}", field[STRATEGY]));
        }
        merges(document, field, &path, found);
        merges(document, &field["items"], &path, found);
    }
}
