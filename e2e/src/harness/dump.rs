//! What the world looked like when a test failed: all of it into a folder, the telling part onto the screen.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::charts;
use super::scene::Scene;

/// Writes the state under `target/e2e/<namespace>/` and prints the part that usually tells; never fails itself.
pub async fn dump(scene: &Scene) -> PathBuf {
    let folder = folder().join(&scene.namespace);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("no state dump: {}: {error}", folder.display());
        return folder;
    }
    let namespace = scene.namespace.as_str();
    for (file, kind) in [
        ("app.yaml", "gracefulapps"),
        ("deployments.yaml", "deployments,replicasets"),
        ("pods.yaml", "pods"),
        ("services.yaml", "services,endpointslices,poddisruptionbudgets"),
    ] {
        save(&folder, file, scene.world.kubectl(&["-n", namespace, "get", kind, "-o", "yaml"]).await);
    }
    let wide = ["-n", namespace, "get", "gracefulapps,deployments,pods", "-o", "wide", "--show-labels"];
    let overview = save(&folder, "overview.txt", scene.world.kubectl(&wide).await);
    let by_time = ["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"];
    let events = save(&folder, "events.txt", scene.world.kubectl(&by_time).await);
    let log =
        ["-n", charts::NAMESPACE, "logs", charts::OPERATOR, "--all-containers", "--tail=400", "--timestamps"];
    let log = save(&folder, "operator.log", scene.world.kubectl(&log).await);
    for pod in scene.pods().await.unwrap_or_default() {
        pod_log(scene, &folder, &pod).await;
    }
    if let Some(load) = scene.load_if_any() {
        let ledger = load.ledger().await.and_then(|view| Ok(serde_json::to_string_pretty(&view)?));
        save(&folder, "ledger.json", ledger);
    }
    save(&folder, "observed.txt", Ok(format!("{:#?}", scene.observer.pods())));

    let ours: Vec<&str> = log.lines().filter(|l| l.contains(namespace)).collect();
    for (title, lines, last) in [
        ("objects", overview.lines().collect::<Vec<_>>(), 40),
        ("events", events.lines().collect(), 20),
        ("operator", ours, 20),
    ] {
        eprintln!("---- {}: {title}", scene.name);
        for line in &lines[lines.len().saturating_sub(last)..] {
            eprintln!("{line}");
        }
    }
    eprintln!("---- {}: all of it is in {}", scene.name, folder.display());
    folder
}

/// Where dumps go.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e")
}

async fn pod_log(scene: &Scene, folder: &Path, pod: &Pod) {
    let name = pod.name_any();
    let log = ["-n", scene.namespace.as_str(), "logs", &name, "--tail=500", "--timestamps"];
    save(folder, &format!("{name}.log"), scene.world.kubectl(&log).await);
}

fn save(folder: &Path, file: &str, content: anyhow::Result<String>) -> String {
    let content = content.unwrap_or_else(|error| format!("{error:#}\n"));
    if let Err(error) = std::fs::write(folder.join(file), &content) {
        eprintln!("cannot write {file}: {error}");
    }
    content
}
