//! The demo: the sample rolled out twice under load, beside the same pods without Graceful, and a table of what was lost.
//!
//! All three run at the same time under the same load, so that none has the machine for itself.

mod table;
mod watch;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::app::{AppSpec, NAME};
use crate::harness::plain::{self, Care};
use crate::harness::scene::Scene;
use crate::harness::usage::{Usage, operator_usage};
use crate::harness::wait::eventually;
use crate::harness::world::World;
use crate::harness::{charts, load};
use crate::wire::{LedgerView, LoadSpec};
use table::Row;

/// Where the sample lives; it stays when the demo is over.
const NAMESPACE: &str = "demo";
/// Tasks of very different lengths, the longest far above the careless control's grace.
const TASK_SECONDS: &str = "2-12";
/// Shorter than the longest task: what many Deployments have without knowing.
const CARELESS: Care = Care { grace: 5, pre_stop_sleep: None };
/// At least so many tasks through each, and so many sockets: enough for the careless control to lose some in every run.
const TASKS: u64 = 300;
const SOCKETS: u32 = 20;
/// The templates after the first: one rollout each.
const ROLLOUTS: [&str; 2] = ["second", "third"];

/// Runs it. True when Graceful lost nothing and the careless control lost something.
pub async fn run(world: &World) -> anyhow::Result<bool> {
    println!("demo: three times the same pods under the same load, rolled out {} times", ROLLOUTS.len());
    charts::install(world).await?;
    let namespaces = [NAMESPACE, "demo-careless", "demo-careful"];
    for namespace in namespaces {
        clear(world, namespace).await?;
    }
    let graceful = Scene::in_namespace(world, "GracefulApp", namespaces[0].to_owned()).await?;
    let careless = Scene::in_namespace(world, "plain, grace 5 s", namespaces[1].to_owned()).await?;
    let careful = Scene::in_namespace(world, "plain, careful", namespaces[2].to_owned()).await?;
    let spec = sample(world)?;
    let before = operator_usage(world).await?;
    let (ours, short, ample) = tokio::try_join!(
        with_graceful(&graceful, &spec),
        without(&careless, &spec, CARELESS),
        without(&careful, &spec, plain::CAREFUL),
    )?;
    let used = Usage::between(&before, &operator_usage(world).await?);
    for control in [&careless, &careful] {
        control.remove_namespace().await?;
    }
    let rows = [
        Row::new("plain Deployment, grace 5 s, tasks up to 12 s", &short),
        Row::new("plain Deployment, grace 90 s, preStop sleep 5 s", &ample),
        Row::new("GracefulApp", &ours),
    ];
    table::print(&rows);
    println!("\noperator during the demo: {used}");
    what_next(world);
    let [short, _, ours] = &rows;
    ensure!(ours.accepted >= TASKS, "only {} tasks were accepted: too few to prove anything", ours.accepted);
    println!(
        "demo: accepted={} finished={} lost={} control_lost={}",
        ours.accepted, ours.finished, ours.lost, short.lost
    );
    Ok(ours.lost == 0 && short.lost > 0)
}

/// The sample as users apply it, but for shorter tasks and the ledger's address.
fn sample(world: &World) -> anyhow::Result<AppSpec> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/tasks.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let sample: serde_json::Value = serde_saphyr::from_str(&text)?;
    ensure!(sample["metadata"]["name"] == NAME, "the sample is not called {NAME}");
    Ok(AppSpec(sample["spec"].clone())
        .image(&world.image("server"))
        .set("/template/spec/containers/0/imagePullPolicy", world.pull_policy())
        .env("GRACEFUL_REPORT_URL", "http://loadgen:8080/report")
        .task_seconds(TASK_SECONDS))
}

fn spec_of_load() -> LoadSpec {
    LoadSpec { clients: 8, sockets: SOCKETS, ..load::usual() }
}

/// Both rollouts with Graceful, with kubectl's own lines beside it.
async fn with_graceful(scene: &Scene, spec: &AppSpec) -> anyhow::Result<LedgerView> {
    let (given, when, then) = scene.steps();
    given.app(spec.clone()).await?;
    let lines = watch::start(scene)?;
    given.load(spec_of_load()).await?;
    for mark in ROLLOUTS {
        when.template_changes(mark).await?;
        then.rolled_out().await?;
    }
    enough_tasks(scene).await?;
    lines.stop().await;
    let view = scene.accounts_closed().await?;
    scene.check_promises().await?;
    Ok(view)
}

/// Both rollouts of a plain Deployment.
async fn without(scene: &Scene, spec: &AppSpec, care: Care) -> anyhow::Result<LedgerView> {
    let (given, ..) = scene.steps();
    plain::deploy(scene, spec, care).await?;
    given.load(spec_of_load()).await?;
    for mark in ROLLOUTS {
        plain::roll_out(scene, mark).await?;
    }
    enough_tasks(scene).await?;
    scene.accounts_closed().await
}

async fn enough_tasks(scene: &Scene) -> anyhow::Result<()> {
    eventually("enough tasks were accepted", Duration::from_secs(180), || async {
        let accepted = scene.load().await?.ledger().await?.accepted;
        ensure!(accepted >= TASKS, "{accepted} of {TASKS}");
        Ok(())
    })
    .await
}

/// Removes what an earlier demo left.
async fn clear(world: &World, namespace: &str) -> anyhow::Result<()> {
    let all: Api<Namespace> = Api::all(world.client.clone());
    if all.get_opt(namespace).await?.is_none() {
        return Ok(());
    }
    all.delete(namespace, &DeleteParams::default()).await?;
    eventually("the last demo's namespace is gone", Duration::from_secs(120), || async {
        if all.get_opt(namespace).await?.is_some() {
            bail!("{namespace} is still there");
        }
        Ok(())
    })
    .await
}

fn what_next(world: &World) {
    let kubectl = match &world.context {
        Some(context) => format!("kubectl --context {context}"),
        None => "cargo xtask cluster kubectl --".to_owned(),
    };
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"try": "a rollout"}}}}});
    println!("\nThe cluster stays up, and the sample in namespace {NAMESPACE}. Try next:");
    println!("  {kubectl} -n {NAMESPACE} get gracefulapps --watch");
    println!("  {kubectl} -n {NAMESPACE} patch gracefulapp {NAME} --type merge -p '{patch}'");
    println!("  {kubectl} -n {NAMESPACE} scale gracefulapp/{NAME} --replicas=2");
    println!("  {kubectl} -n {NAMESPACE} describe gracefulapp {NAME}");
    if world.context.is_none() {
        println!(
            "  curl -X POST http://10.250.0.1:30000/v1/create-task/     (its API: http://10.250.0.1:30000/docs)"
        );
        println!("  cargo xtask cluster down\n");
    }
}
