//! Runs the scenarios against a cluster, `e2e [FILTER]`; `e2e demo`; or `e2e bench rollout|scale`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use graceful_e2e::harness::world::{Surroundings, Tools, World};
use graceful_e2e::harness::{charts, runner};
use graceful_e2e::{bench, demo, scale, scenarios};

/// The end-to-end tests. `cargo xtask e2e` prepares all they need.
#[derive(Parser)]
struct Args {
    /// What to run instead of the scenarios.
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Only scenarios whose name contains this.
    filter: Option<String>,
    /// Keep the namespaces.
    #[arg(long)]
    keep: bool,
    /// Take the charts as they are installed.
    #[arg(long, global = true)]
    installed: bool,
    /// Decides every random choice; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Scenarios side by side.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Context in the kubeconfig, for a cluster that is not ours.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Registry that the images were pushed to; without it they are loaded on the nodes.
    #[arg(long, global = true)]
    registry: Option<String>,
    /// This machine as pods see it, where the cluster is its own.
    #[arg(long, global = true, env = "GRACEFUL_HOST_ADDRESS")]
    host_address: Option<IpAddr>,
    /// A PostgreSQL that pods reach, with an empty database that scenarios may use in turn.
    #[arg(long, global = true)]
    postgres_url: Option<String>,
    /// The kubectl to use.
    #[arg(long, global = true, env = "GRACEFUL_KUBECTL", default_value = "kubectl")]
    kubectl: PathBuf,
    /// The helm to use.
    #[arg(long, global = true, env = "GRACEFUL_HELM", default_value = "helm")]
    helm: PathBuf,
    /// The kubeconfig of the cluster.
    #[arg(long, global = true, env = "KUBECONFIG", default_value = "")]
    kubeconfig: PathBuf,
}

/// Other things to do with the same cluster.
#[derive(Subcommand)]
enum Instead {
    /// Two rollouts under load, beside the same pods without Graceful.
    Demo,
    /// Measures: rollout, scale.
    Bench {
        /// The bench: rollout or scale.
        name: String,
        #[command(flatten)]
        scale: scale::Options,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when all went well.
async fn run(args: Args) -> anyhow::Result<bool> {
    let Args {
        instead,
        filter,
        keep,
        installed,
        seed,
        jobs,
        context,
        registry,
        host_address,
        postgres_url,
        kubectl,
        helm,
        kubeconfig,
    } = args;
    let seed = seed.unwrap_or_else(rand::random);
    let tools = Tools { kubectl, helm, kubeconfig };
    let surroundings = Surroundings { host: host_address, postgres_url };
    let world = World::connect(tools, context, registry, surroundings, seed, keep).await?;
    match instead {
        Some(Instead::Demo) => return demo::run(&world).await,
        Some(Instead::Bench { name, scale }) => {
            return bench::run(&world, &name, &scale, installed).await.map(|()| true);
        }
        None => {}
    }
    let chosen: Vec<_> = scenarios::all()
        .into_iter()
        .filter(|s| match &filter {
            Some(filter) => s.name.contains(filter.as_str()),
            None if s.is_long() => {
                println!("left out {}: it takes many minutes; `cargo xtask e2e {}` runs it", s.name, s.name);
                false
            }
            None => true,
        })
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "no scenario's name contains {filter:?}");
    println!("e2e: {} scenarios, {jobs} side by side, seed {seed}", chosen.len());
    if !installed {
        charts::install(&world).await?;
    }
    runner::run(&world, chosen, jobs.max(1)).await
}
