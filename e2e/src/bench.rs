//! Benches on the real cluster, each with its figures in `target/bench/NAME.json`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::usage::{Usage, operator_usage};
use crate::harness::world::World;
use crate::harness::{charts, load};
use crate::scale;
use crate::wire::LoadSpec;

/// Every task takes as long, so that the best possible rollout can be worked out.
const TASK_SECONDS: u32 = 4;
const LINGER_SECONDS: u32 = 1;
const REPLICAS: u32 = 4;
/// Rollouts measured; with four pods each, twelve kills.
const ROLLOUTS: u32 = 3;
/// Bare API writes measured between the rollouts.
const WRITES: u32 = 30;

/// The figures of `bench rollout`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rollout {
    /// From a pod's last report reaching the ledger to its DELETE reaching a watch, in milliseconds.
    idle_to_delete_ms: Range,
    /// One bare write of a ConfigMap to the same API server, in milliseconds.
    api_write_ms: Range,
    /// A whole rollout, in seconds.
    rollout_seconds: Range,
    /// The best possible for these tasks and this budget: one pod after the other, each a start and its last task.
    best_possible_seconds: f64,
    /// From a pod's creation to its readiness, in seconds.
    pod_start_seconds: Range,
    replicas: u32,
    task_seconds: u32,
    linger_seconds: u32,
    accepted: u64,
    lost: u64,
    spare_pods: usize,
    spare_pods_ran: usize,
    operator: Usage,
}

/// Smallest, median and largest.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    samples: usize,
    least: f64,
    median: f64,
    most: f64,
}

impl Range {
    fn of(mut all: Vec<f64>) -> anyhow::Result<Self> {
        all.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (all.first(), all.last()) else { bail!("nothing was measured") };
        Ok(Self { samples: all.len(), least: *least, median: all[all.len() / 2], most: *most })
    }
}

/// Runs one bench by name. `installed`: with the charts as they are.
pub async fn run(world: &World, name: &str, scale: &scale::Options, installed: bool) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder)?;
    match name {
        "rollout" => bench_rollout(world, installed, &folder).await,
        "scale" => scale::run(world, scale, installed, &folder).await,
        _ => bail!("no bench {name}: there are rollout and scale"),
    }
}

async fn bench_rollout(world: &World, installed: bool, folder: &Path) -> anyhow::Result<()> {
    if !installed {
        charts::install(world).await?;
    }
    let scene = Scene::new(world, "bench-rollout").await?;
    let figures = rollout(&scene).await;
    if !world.keep {
        scene.remove_namespace().await?;
    }
    let figures = figures?;
    let text = serde_json::to_string_pretty(&figures)?;
    println!("{text}");
    std::fs::write(folder.join("rollout.json"), text + "\n")?;
    ensure!(figures.lost == 0, "{} tasks were lost", figures.lost);
    Ok(())
}

async fn rollout(scene: &Scene) -> anyhow::Result<Rollout> {
    let (given, when, then) = scene.steps();
    let spec = AppSpec::tasks(&scene.world)
        .replicas(REPLICAS)
        .task_seconds(&TASK_SECONDS.to_string())
        .drain("lingerSeconds", LINGER_SECONDS);
    given.app(spec).await?;
    given.load(LoadSpec { sockets: 0, rate_per_second: 8.0, ..load::usual() }).await?;
    let before = operator_usage(&scene.world).await?;
    let mut rollouts = Vec::new();
    for n in 0..ROLLOUTS {
        let begun = Instant::now();
        when.template_changes(&format!("bench {n}")).await?;
        then.rolled_out().await?;
        rollouts.push(begun.elapsed().as_secs_f64());
    }
    let writes = scene.step("bare API writes", api_writes(scene)).await?;
    let after = operator_usage(&scene.world).await?;
    let (ledger, offset) = scene.load().await?.ledger_with_offset().await?;
    let mut idle_to_delete = Vec::new();
    let mut starts = Vec::new();
    for (uid, life) in scene.observer.pods() {
        starts.extend(life.started.map(|s| s.as_secs_f64()));
        let (Some(deleted), Some(work)) = (life.deleted_ms, ledger.pods.get(&uid)) else { continue };
        let last = work.last_report_ms.saturating_add_signed(offset);
        idle_to_delete.push(deleted as f64 - last as f64);
    }
    let view = then.nothing_lost_but_requests().await?;
    let spares = scene.figures().clone();
    let starts = Range::of(starts).context("pod starts")?;
    Ok(Rollout {
        idle_to_delete_ms: Range::of(idle_to_delete).context("kills")?,
        api_write_ms: Range::of(writes).context("writes")?,
        rollout_seconds: Range::of(rollouts).context("rollouts")?,
        best_possible_seconds: f64::from(REPLICAS) * (starts.median + f64::from(TASK_SECONDS)),
        pod_start_seconds: starts,
        replicas: REPLICAS,
        task_seconds: TASK_SECONDS,
        linger_seconds: LINGER_SECONDS,
        accepted: view.accepted,
        lost: view.unfinished.len() as u64,
        spare_pods: spares.spares,
        spare_pods_ran: spares.spares_ran,
        operator: Usage::between(&before, &after),
    })
}

/// Times single patches of a small object, one after the other.
async fn api_writes(scene: &Scene) -> anyhow::Result<Vec<f64>> {
    let maps = scene.api::<ConfigMap>();
    let map = serde_json::from_value(json!({"metadata": {"name": "written"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    let mut all = Vec::new();
    for n in 0..WRITES {
        let patch = Patch::Merge(json!({"data": {"n": n.to_string()}}));
        let begun = Instant::now();
        maps.patch("written", &PatchParams::default(), &patch).await?;
        let took: Duration = begun.elapsed();
        all.push(took.as_secs_f64() * 1000.0);
    }
    Ok(all)
}
