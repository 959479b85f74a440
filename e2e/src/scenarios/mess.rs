//! What real clusters do: a pod is evicted, a side container crashes, a policy engine changes or refuses what is written, a revision never works.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_api::Phase;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::observer::PodLife;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};
use crate::wire::LoadSpec;

/// The kubelet measures volumes once a minute and looks every ten seconds.
const EVICTS: Duration = Duration::from_secs(150);
/// progressDeadlineSeconds is 15; the rest is for a busy machine.
const STALLS: Duration = Duration::from_secs(45);
/// A loop would have ended dozens of pods by then.
const WOULD_SHOW: Duration = Duration::from_secs(8);
/// The longest pause between two tries is twice what passes in these tests.
const GOES_ON: Duration = Duration::from_secs(120);

/// Fills the volume at /fill when it is asked to. Python of the node, as in [`super::foreign`].
const FILLER: &str = "\
import http.server
class Fill(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open('/fill/it', 'wb').write(b'x' * (16 << 20))
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('', 8099), Fill).serve_forever()
";

/// P1, P6: the record of an evicted pod stays, and must count for nothing: in scaling, in a rollout, in a deletion.
pub(super) async fn evicted_pod_counts_for_nothing(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let mut spec = AppSpec::tasks(&scene.world).replicas(2);
    add_filler(scene, &mut spec);
    given.app(spec).await?;
    given.load(load::usual()).await?;
    let victim = scene.pods().await?.first().map(ResourceExt::name_any).context("no pod")?;
    scene
        .step(format!("when {victim} fills its volume"), async {
            let path = format!("/api/v1/namespaces/{}/pods/{victim}:8099/proxy/fill", scene.namespace);
            scene.client.request_text(http::Request::get(path).body(Vec::new())?).await?;
            Ok(())
        })
        .await?;
    scene.observer.deletes(&victim);
    then.pods("the kubelet evicts it, and another comes in its place", EVICTS, |pods| {
        let failed = pods.iter().filter(|p| finished(p)).count();
        ensure!(failed == 1 && pods.len() == 3, "{failed} of {} pods have failed", pods.len());
        Ok(())
    })
    .await?;
    then.status("both replicas serve again", ROLLS, |s| {
        s.phase == Some(Phase::Serving) && s.serving_replicas == 2
    })
    .await?;
    when.scaled(1).await?;
    let one = |s: &graceful_api::GracefulAppStatus| {
        s.phase == Some(Phase::Serving) && s.serving_replicas == 1 && s.draining_replicas == 0
    };
    then.status("one replica serves", ROLLS, one).await?;
    at_rest(scene).await?;
    let first = scene.app().await?.status.and_then(|s| s.update_revision);
    when.template_changes("second").await?;
    then.status("the second revision serves", ROLLS, |s| {
        one(s) && s.updated_replicas == 1 && s.update_revision != first
    })
    .await?;
    at_rest(scene).await?;
    // What the evicted pod had is lost with its volume, which no operator can prevent; the others lose nothing.
    let view = scene.accounts_closed().await?;
    // A pod that was ended well has finished as well, for the moment before it is gone.
    let record = |p: &PodLife| p.over && p.deleted_ms.is_none();
    let evicted = scene.observer.pods().into_values().filter(record).count();
    ensure!(evicted == 1, "{evicted} pods were evicted");
    scene.say(&format!("{} of {} tasks went with the evicted pod", view.unfinished.len(), view.accepted));
    ensure!(
        view.accepted > 50 && view.unfinished.len() < 40,
        "{} of {} lost",
        view.unfinished.len(),
        view.accepted
    );
    scene.check_promises().await?;
    when.deleted(kube::api::PropagationPolicy::Background).await?;
    then.pods("all is gone but the record", ROLLS, |pods| {
        ensure!(pods.iter().all(finished), "pods are still there");
        Ok(())
    })
    .await
}

/// P1, P7: the count is in a container that crashes again and again; the worker beside it is busy, and knows nothing of drains.
pub(super) async fn side_container_crashes_beside_a_busy_worker(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let mut spec = AppSpec::tasks(&scene.world).replicas(2).task_seconds("12-15");
    let image = scene.world.image("server");
    let pod = &mut spec.0["template"]["spec"];
    let exporter = json!({
        "name": "exporter",
        "image": image,
        "imagePullPolicy": scene.world.pull_policy(),
        "securityContext": {"runAsUser": 0},
        "env": [
            {"name": "GRACEFUL_DATA", "value": "/w"},
            {"name": "GRACEFUL_LISTEN_PORT", "value": "8001"},
            {"name": "GRACEFUL_ADMIN_LISTEN_PORT", "value": "9809"},
        ],
        "ports": [{"name": "metrics", "containerPort": 9809}],
        "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 2, "failureThreshold": 1, "initialDelaySeconds": 6},
    });
    pod["containers"].as_array_mut().context("no containers")?.push(exporter);
    // Nothing of the pod outlives a crash: what does not run there has nothing left to lose.
    pod["volumes"] = json!([]);
    pod["containers"][0]["volumeMounts"] = json!([]);
    pod["containers"][0]["securityContext"] = json!({"runAsUser": 0});
    spec = spec.env("GRACEFUL_DATA", "/w").set(
        "/inFlight",
        json!({"port": "metrics", "path": "/metrics", "format": "Prometheus",
            "metrics": ["graceful_server_in_flight{kind=\"running\"}"]}),
    );
    spec = spec.set(
        "/drain",
        json!({"deadlineSeconds": 600, "quietSeconds": 300, "preStop": "None", "lingerSeconds": 0}),
    );
    scene.load().await?;
    // It is not held to "settled": a container that crashes makes its pod unready now and then.
    scene.apply(spec).await?;
    then.status("both replicas were seen to serve", ROLLS, |s| s.serving_replicas == 2).await?;
    given.load(LoadSpec { sockets: 0, rate_per_second: 2.0, ..load::usual() }).await?;
    then.pods("the exporter is in its back-off", ROLLS, |pods| {
        ensure!(pods.iter().any(|p| waits(p, "exporter")), "it runs everywhere");
        Ok(())
    })
    .await?;
    scene.load().await?.stop(false).await?;
    let before = live(scene).await?;
    when.scaled(1).await?;
    // The longest task and more: the pods stay for as long as their work may run.
    tokio::time::sleep(Duration::from_secs(17)).await;
    let now = live(scene).await?;
    ensure!(before.is_subset(&now), "a pod with a busy worker was ended: {before:?}, now {now:?}");
    then.nothing_lost_but_requests().await?;
    Ok(())
}

/// Its endpoint does not answer and its readiness probe does not pass: it never worked, and must not stand in the way of its own fix.
pub(super) async fn revision_that_never_worked_then_its_correction(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    let good = scene.spec()?;
    when.app_changes("the new template listens elsewhere and is never Ready", |app| {
        app.env("GRACEFUL_ADMIN_LISTEN_PORT", "9810")
            .set("/template/spec/containers/0/readinessProbe/httpGet/path", "/nope")
    })
    .await?;
    then.status("it is Stalled", STALLS, |s| s.phase == Some(Phase::Stalled)).await?;
    when.app_changes("it is corrected", |_| good.env("MARK", "corrected")).await?;
    then.status("the correction serves at once", STALLS, |s| s.updated_replicas > 0).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1, P6: a policy engine that adds an annotation to the pod template of each Deployment that is written: no write of ours carries it in.
pub(super) async fn policy_engine_that_mutates(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2)).await?;
    given.load(load::usual()).await?;
    let annotation = r#"Object{spec: Object.spec{template: Object.spec.template{metadata: Object.spec.template.metadata{annotations: Object.spec.template.metadata.annotations{team: "a"}}}}}"#;
    let policy = json!({
        "matchConstraints": constraints(scene, "deployments", &["CREATE", "UPDATE"]),
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": annotation}}],
    });
    let installed = Policy::install(scene, "MutatingAdmissionPolicy", policy, json!({})).await?;
    let judged = async {
        when.scaled(3).await?;
        then.rolled_out().await?;
        when.scaled(1).await?;
        then.rolled_out().await?;
        at_rest(scene).await?;
        when.template_changes("second").await?;
        then.rolled_out().await?;
        at_rest(scene).await?;
        then.nothing_lost().await?;
        when.deleted(kube::api::PropagationPolicy::Background).await?;
        then.pods("all is gone", ROLLS, |pods| {
            ensure!(pods.is_empty(), "{} pods", pods.len());
            Ok(())
        })
        .await
    };
    installed.remove_after(scene, judged.await).await
}

/// P1, P8: a change freeze: no Deployment may be scaled. Nothing is ended that could not be taken back; after it all goes on by itself.
pub(super) async fn change_freeze_on_scales(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    let before = live(scene).await?;
    let policy = json!({
        "matchConstraints": constraints(scene, "deployments/scale", &["UPDATE"]),
        "failurePolicy": "Fail",
        "validations": [{"expression": "false", "message": "change freeze until Monday"}],
    });
    let installed =
        Policy::install(scene, "ValidatingAdmissionPolicy", policy, json!({"validationActions": ["Deny"]}))
            .await?;
    let judged = async {
        when.scaled(1).await?;
        then.status("it is Stalled, in the policy's words", STALLS, |s| {
            s.phase == Some(Phase::Stalled) && s.waiting_for.contains("change freeze until Monday")
        })
        .await?;
        tokio::time::sleep(WOULD_SHOW).await;
        let now = live(scene).await?;
        ensure!(before == now, "the pods were {before:?} and are {now:?}");
        Ok(())
    };
    installed.remove_after(scene, judged.await).await?;
    then.status("it goes on by itself", GOES_ON, |s| {
        s.phase == Some(Phase::Serving) && s.serving_replicas == 1
    })
    .await?;
    then.nothing_lost().await?;
    Ok(())
}

/// A policy of the test's own namespace alone.
struct Policy {
    kind: &'static str,
    name: String,
}

impl Policy {
    async fn install(scene: &Scene, kind: &'static str, spec: Value, binding: Value) -> anyhow::Result<Self> {
        let name = scene.namespace.clone();
        let mut bound = json!({"policyName": name});
        if let (Some(bound), Some(more)) = (bound.as_object_mut(), binding.as_object()) {
            bound.extend(more.clone());
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec},
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}Binding"),
                "metadata": {"name": name}, "spec": bound},
        ]});
        let file = std::env::temp_dir().join(format!("{name}.json"));
        std::fs::write(&file, list.to_string())?;
        let path = file.to_str().context("a path")?.to_owned();
        let applied = scene
            .step(format!("when a {kind} is installed"), async {
                scene.world.kubectl(&["apply", "-f", &path]).await?;
                // The API server learns of it within some seconds.
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok(())
            })
            .await;
        std::fs::remove_file(&file)?;
        applied.map(|()| Self { kind, name })
    }

    /// Cluster-wide objects go whatever came of the test.
    async fn remove_after(self, scene: &Scene, judged: anyhow::Result<()>) -> anyhow::Result<()> {
        let Self { kind, name } = self;
        let binding = format!("{kind}Binding/{name}");
        let policy = format!("{kind}/{name}");
        let removed = scene.world.kubectl(&["delete", &binding, &policy]).await;
        judged.and(removed.map(drop))
    }
}

fn constraints(scene: &Scene, resource: &str, operations: &[&str]) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
        "resourceRules": [
            {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": [resource], "operations": operations},
        ],
    })
}

fn add_filler(scene: &Scene, spec: &mut AppSpec) {
    let pod = &mut spec.0["template"]["spec"];
    let usr =
        |path: &str, sub: &str| json!({"name": "usr", "mountPath": path, "subPath": sub, "readOnly": true});
    let filler = json!({
        "name": "filler",
        "image": scene.world.image("server"),
        "imagePullPolicy": scene.world.pull_policy(),
        "command": ["/usr/bin/python3", "-c", FILLER],
        "ports": [{"name": "fill", "containerPort": 8099}],
        "volumeMounts": [
            {"name": "usr", "mountPath": "/usr", "readOnly": true}, usr("/lib", "lib"), usr("/lib64", "lib64"),
            {"name": "fill", "mountPath": "/fill"},
        ],
    });
    if let Some(containers) = pod["containers"].as_array_mut() {
        containers.push(filler);
    }
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.push(json!({"name": "usr", "hostPath": {"path": "/usr", "type": "Directory"}}));
        volumes.push(json!({"name": "fill", "emptyDir": {"sizeLimit": "1Mi"}}));
    }
}

/// Nothing comes and nothing goes.
async fn at_rest(scene: &Scene) -> anyhow::Result<()> {
    let before: BTreeSet<_> = scene.observer.pods().into_keys().collect();
    tokio::time::sleep(WOULD_SHOW).await;
    let now: BTreeSet<_> = scene.observer.pods().into_keys().collect();
    let new: Vec<_> = now.difference(&before).collect();
    ensure!(new.is_empty(), "{} pods of {NAME} came though all was at rest", new.len());
    Ok(())
}

pub(super) async fn live(scene: &Scene) -> anyhow::Result<BTreeSet<String>> {
    let there = |p: &&Pod| p.metadata.deletion_timestamp.is_none() && !finished(p);
    Ok(scene.pods().await?.iter().filter(there).filter_map(ResourceExt::uid).collect())
}

fn finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"))
}

fn waits(pod: &Pod, container: &str) -> bool {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.filter(|c| c.name == container).any(|c| c.state.as_ref().is_some_and(|s| s.waiting.is_some()))
}
