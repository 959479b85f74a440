//! `operator run` and `operator crd`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use clap::{Parser, Subcommand, ValueEnum};
use graceful_operator::{NodeDrain, Settings, TAINTS, URGENT_TAINTS};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Rolls, scales and deletes pods only when their work is done.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator, until SIGTERM.
    Run {
        /// Where /livez, /readyz and /metrics answer.
        #[arg(long, env = "GRACEFUL_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// How log lines look.
        #[arg(long, env = "GRACEFUL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
        /// The name in Events; the pod's, in a cluster.
        #[arg(long, env = "POD_NAME")]
        instance: Option<String>,
        /// Look at nodes: whether their kubelets are heard, and whether they go. Without, no node is drained, and its pods count as busy once
        /// something of them has run.
        #[arg(long, env = "GRACEFUL_NODE_DRAIN", default_value_t = true, action = clap::ArgAction::Set)]
        node_drain: bool,
        /// A node leaves when it is cordoned.
        #[arg(long, env = "GRACEFUL_NODE_DRAIN_ON_CORDON", default_value_t = true, action = clap::ArgAction::Set)]
        node_drain_on_cordon: bool,
        /// A node leaves when it has one of these taints: keys, with commas between.
        #[arg(long, env = "GRACEFUL_NODE_DRAIN_TAINTS", value_delimiter = ',', default_values_t = TAINTS.map(str::to_owned))]
        node_drain_taints: Vec<String>,
        /// A node dies soon, whatever is done, when it has one of these taints.
        #[arg(long, env = "GRACEFUL_NODE_DRAIN_URGENT_TAINTS", value_delimiter = ',', default_values_t = URGENT_TAINTS.map(str::to_owned))]
        node_drain_urgent_taints: Vec<String>,
        /// The namespaces whose apps this operator runs, with commas between; all, without.
        #[arg(long, env = "GRACEFUL_NAMESPACES", value_delimiter = ',')]
        namespaces: Vec<String>,
    },
    /// Print the CustomResourceDefinition.
    Crd,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Crd => {
            print!("{}", graceful_api::crd::crd_yaml());
            Ok(())
        }
        Command::Run {
            listen,
            log_format,
            instance,
            node_drain,
            node_drain_on_cordon,
            node_drain_taints,
            node_drain_urgent_taints,
            namespaces,
        } => {
            log(log_format);
            let node_drain = node_drain.then(|| NodeDrain {
                on_cordon: node_drain_on_cordon,
                taints: named(node_drain_taints),
                urgent_taints: named(node_drain_urgent_taints),
            });
            let settings = Settings { listen, instance, node_drain, namespaces: named(namespaces) };
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(graceful_operator::run(settings, stop_signal()?))
        }
    }
}

/// An empty variable is an empty list.
fn named(list: Vec<String>) -> BTreeSet<String> {
    list.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Done at SIGTERM or Ctrl-C. Listened for from the first moment on.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    // Signals need a runtime to be registered with; the future registers at its first poll, before anything is awaited.
    Ok(async {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn log(format: LogFormat) {
    // kube names each reconcile in a span of its own, which our lines say better. RUST_LOG comes last, and wins.
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::new(format!("kube_runtime=warn,kube_client=warn,{wanted}"));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logger.with_ansi(false).init(),
        LogFormat::Json => logger.json().init(),
    }
}
