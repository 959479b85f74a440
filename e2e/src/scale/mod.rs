//! `bench scale`: what an app costs, with few of them and with thousands, over this machine's real API server.
//!
//! The operator runs as a process of the host: with the rights of the chart, the memory limit of the chart, and through
//! a relay. The one that is deployed is scaled to nothing meanwhile.
//!
//! - [`rows`]: what is measured. [`measure`]: how. [`report`]: the table, and the aims.
//! - [`process`], [`group`], [`account`]: the operator. [`counters`], [`quiet`]: what it says, and when it is done.
//! - [`calls`], [`relay`]: what it costs the API server. [`apps`]: the apps. [`marks`]: all that is removed again.
//! - [`kubelet`], [`answers`]: nodes and pods that are not there, and the process that answers for them.

mod account;
mod answers;
mod apps;
mod calls;
mod counters;
mod group;
mod kubelet;
mod marks;
mod measure;
mod process;
mod quiet;
mod relay;
mod report;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use graceful_process::allow_open_files;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use account::{ACCOUNT, Server};
use answers::Answers;
use group::Group;
use kubelet::Kubelet;
use measure::{Figures, Surroundings};
use process::Program;
use relay::Relay;
use report::{Conditions, Results};
use rows::Row;

use crate::harness::charts;
use crate::harness::world::World;

/// A poll for each pod that drains, and some for all else.
const DESCRIPTORS: u64 = 8_192;

/// What `bench scale` can be told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rows of the table: 500 (apps without pods), 500ns (each in its namespace), 500x2 (two pods each).
    #[arg(long, value_delimiter = ',', default_value = rows::DEFAULT)]
    rows: Vec<Row>,
    /// The operator's binary [default: the one that was built with this].
    #[arg(long)]
    operator: Option<PathBuf>,
    /// How long an operator at rest is watched.
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
    /// Another memory limit than the chart's; 0 for none.
    #[arg(long)]
    memory_mebibytes: Option<u64>,
}

/// Runs it on this machine's cluster, which nobody else may use meanwhile. `installed`: the charts as they are.
pub async fn run(world: &World, options: &Options, installed: bool, out: &Path) -> anyhow::Result<()> {
    ensure!(
        world.ours,
        "`bench scale` needs this machine's own cluster: it runs the operator and the pods' answers here"
    );
    if !installed {
        charts::install(world).await?;
    }
    let before = deployed(world).await?;
    if before > 0 {
        charts::scale(world, 0).await?;
    }
    let measured = on_a_clean_cluster(world, options, out).await;
    let swept = marks::sweep(&world.client).await.context("removing what the bench has made");
    let restored = if before > 0 { charts::scale(world, before).await } else { Ok(()) };
    let results = measured?;
    let text = serde_json::to_string_pretty(&results)?;
    fs::write(out.join("scale.json"), text + "\n")?;
    print!("\n{}", report::aim_lines(&results.aims));
    swept.and(restored)
}

async fn on_a_clean_cluster(world: &World, options: &Options, out: &Path) -> anyhow::Result<Results> {
    marks::sweep(&world.client).await.context("removing what an earlier bench has left")?;
    allow_open_files(DESCRIPTORS)?;
    fs::create_dir_all(out)?;
    let server = Server::of(world)?;
    let relay = Relay::start(server.address.clone()).await?;
    let kubeconfig = Secret(out.join("scale-kubeconfig"));
    server.write_kubeconfig(world, relay.address, &kubeconfig.0).await?;
    calls::count(&world.client, charts::NAMESPACE, ACCOUNT).await?;
    let log = out.join("scale-operator.log");
    fs::write(&log, "")?;
    let program =
        Program { binary: binary(options)?, kubeconfig: kubeconfig.0.clone(), group: limit(options)?, log };
    let answers =
        if options.rows.iter().any(|row| row.replicas > 0) { Some(Answers::start().await?) } else { None };
    let pods = answers.as_ref().map(Answers::pods);
    let _kubelet = match &pods {
        Some(pods) => Some(Kubelet::start(&world.client, pods.clone()).await?),
        None => None,
    };
    let around = Surroundings {
        client: &world.client,
        program: &program,
        relay: &relay,
        pods: pods.as_deref(),
        rest: Duration::from_secs(options.rest_seconds),
    };
    let load_before = load()?;
    let rows = tokio::select! {
        rows = all_rows(&around, &options.rows) => rows,
        why = told_to_stop() => bail!("{}", why?),
    };
    Ok(Results {
        aims: report::aims(&rows),
        rows,
        run: Conditions {
            date: format!("{:.0}", Timestamp::now()),
            cores: std::thread::available_parallelism()?.get(),
            load_before,
            load_after: load()?,
            memory_limit_mebibytes: program.group.as_ref().map(|group| group.limit >> 20),
        },
    })
}

/// One after the other; a row that fails is a row that says so.
async fn all_rows(around: &Surroundings<'_>, rows: &[Row]) -> Vec<Figures> {
    println!("{}", report::HEADER);
    let mut all = Vec::new();
    for row in rows {
        let mut figures = Figures {
            row: row.to_string(),
            apps: row.apps,
            replicas: row.replicas,
            new: None,
            restart: None,
            rest: None,
            rollout_of_one: None,
            rollout_of_all: None,
            removal: None,
            failed: None,
        };
        let measured = measure::measure(around, *row, &mut figures).await;
        let removed = marks::remove_namespaces(around.client).await.context("removing the row's namespaces");
        if let Err(error) = measured.and(removed.map(drop)) {
            figures.failed = Some(format!("{error:#}"));
        }
        print!("{}", report::lines(&figures));
        all.push(figures);
    }
    all
}

/// How many operators are deployed, which must be the ones of the chart.
async fn deployed(world: &World) -> anyhow::Result<u32> {
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), charts::NAMESPACE);
    let found = deployments.get_opt(ACCOUNT).await?;
    Ok(found.and_then(|d| d.spec.replicas).map_or(0, i32::unsigned_abs))
}

/// The operator beside this program: both are built in one go.
fn binary(options: &Options) -> anyhow::Result<PathBuf> {
    let given = options.operator.clone();
    let binary = match given {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("operator"),
    };
    binary.canonicalize().with_context(|| format!("no operator at {}: give --operator", binary.display()))
}

/// A cgroup of the chart's limit, or of the one that was asked for.
fn limit(options: &Options) -> anyhow::Result<Option<Group>> {
    let mebibytes = match options.memory_mebibytes {
        Some(0) => return Ok(None),
        Some(given) => given,
        None => chart_limit()?,
    };
    let group = Group::make(mebibytes << 20)?;
    if group.is_none() {
        eprintln!("this machine has no memory cgroup of version 1: the operator runs without its limit");
    }
    Ok(group)
}

/// `resources.limits.memory` of the chart, in MiB.
fn chart_limit() -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Values {
        resources: Resources,
    }
    #[derive(Deserialize)]
    struct Resources {
        limits: Limits,
    }
    #[derive(Deserialize)]
    struct Limits {
        memory: String,
    }
    let text = include_str!("../../../charts/graceful-operator/values.yaml");
    let values: Values = serde_saphyr::from_str(text).context("the chart's values")?;
    let Values { resources: Resources { limits: Limits { memory } } } = values;
    let mebibytes = memory.strip_suffix("Mi").and_then(|number| number.parse().ok());
    mebibytes.with_context(|| format!("the chart's memory limit {memory} is not in Mi"))
}

/// At Ctrl-C or SIGTERM: what was made is removed all the same.
async fn told_to_stop() -> anyhow::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok("interrupted")
}

fn load() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// A file with a token in it; removed when dropped.
struct Secret(PathBuf);

impl Drop for Secret {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_s_limit_is_read() {
        assert!(chart_limit().unwrap() > 0);
    }
}
