//! `operator run`, `operator rotate-key` and `operator crd`.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use graceful_operator::{
    GateImage, KeySecret, Lease, NodeDrain, Settings, TAINTS, Timing, Tokens, URGENT_TAINTS,
};
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
    Run(Box<Run>),
    /// Rotate the keys that drains are signed with: the next one becomes the current one, and a new next one is made. Pods go on as they are;
    /// revisions that are made 2 s later are given the new ones. In the cluster: `kubectl -n graceful-system exec deploy/graceful-operator -- /operator rotate-key`.
    RotateKey(Rotate),
    /// Print the CustomResourceDefinition.
    Crd,
}

/// What `operator run` can be told.
#[derive(clap::Args)]
struct Run {
    /// Where /livez, /readyz and /metrics answer.
    #[arg(long, env = "GRACEFUL_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// How log lines look.
    #[arg(long, env = "GRACEFUL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// The name in Events; the pod's, in a cluster.
    #[arg(long, env = "POD_NAME")]
    instance: Option<String>,
    #[command(flatten)]
    nodes: Nodes,
    /// The namespaces whose apps this operator runs, with commas between; all, without.
    #[arg(long, env = "GRACEFUL_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    #[command(flatten)]
    election: Election,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    gate: Gate,
}

/// What the gates of new revisions are made of. Those that run keep what they were made of: a change here restarts nobody.
#[derive(clap::Args)]
struct Gate {
    /// The image of the gates in the pods of new revisions, where an app has spec.gate.
    #[arg(long, env = "GRACEFUL_GATE_IMAGE", default_value = "graceful/gate:dev")]
    gate_image: String,
    /// When that image is pulled; without, as Kubernetes defaults it.
    #[arg(long, env = "GRACEFUL_GATE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    gate_pull_policy: Option<String>,
}

impl Gate {
    fn settings(self) -> GateImage {
        let Self { gate_image: image, gate_pull_policy: pull_policy } = self;
        GateImage { image, pull_policy }
    }
}

/// What drains are signed with.
#[derive(clap::Args)]
struct Keys {
    /// NAMESPACE/NAME of the Secret with the keys that drains are signed with; it must be there, and is filled where it is empty. Without, pods are told
    /// without a token, which those that verify refuse.
    #[arg(long, env = "GRACEFUL_TOKEN_SECRET", value_parser = secret)]
    token_secret: Option<KeySecret>,
    /// Give the public keys to new revisions' pods, so that they verify who drains them.
    #[arg(long, env = "GRACEFUL_TOKEN_VERIFY", default_value_t = true, action = ArgAction::Set)]
    token_verify: bool,
}

impl Keys {
    fn settings(self) -> Option<Tokens> {
        let Self { token_secret, token_verify: verify } = self;
        token_secret.map(|secret| Tokens { secret, verify })
    }
}

/// The release whose keys are rotated.
#[derive(clap::Args)]
struct Rotate {
    /// NAMESPACE/NAME of the Secret with the keys.
    #[arg(long, env = "GRACEFUL_TOKEN_SECRET", value_parser = secret)]
    token_secret: KeySecret,
}

fn secret(text: &str) -> Result<KeySecret, String> {
    place(text).map(|(namespace, name)| KeySecret { namespace, name })
}

/// Which one of several operators leads.
#[derive(clap::Args)]
struct Election {
    /// NAMESPACE/NAME of the Lease by which one of several operators leads; without, this is the only one.
    #[arg(long, env = "GRACEFUL_LEASE", value_parser = place)]
    lease: Option<(String, String)>,
    /// Seconds after which a leader that is heard no more is followed by another.
    #[arg(long, env = "GRACEFUL_LEASE_DURATION", default_value_t = Timing::default().lease_duration.as_secs())]
    lease_duration: u64,
    /// Seconds without a good renewal after which a leader stops.
    #[arg(long, env = "GRACEFUL_RENEW_DEADLINE", default_value_t = Timing::default().renew_deadline.as_secs())]
    renew_deadline: u64,
    /// Seconds between two renewals.
    #[arg(long, env = "GRACEFUL_RETRY_PERIOD", default_value_t = Timing::default().retry_period.as_secs())]
    retry_period: u64,
}

impl Election {
    fn settings(self) -> Option<Lease> {
        let Self { lease, lease_duration, renew_deadline, retry_period } = self;
        let (namespace, name) = lease?;
        let seconds = Duration::from_secs;
        let timing = Timing {
            lease_duration: seconds(lease_duration),
            renew_deadline: seconds(renew_deadline),
            retry_period: seconds(retry_period),
            ..Timing::default()
        };
        Some(Lease { namespace, name, timing })
    }
}

fn place(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("{text:?} is not NAMESPACE/NAME")),
    }
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
        Command::Run(run) => {
            let Run { listen, log_format, instance, nodes, namespaces, election, keys, gate } = *run;
            log(log_format);
            let (node_drain, lease, tokens) = (nodes.settings(), election.settings(), keys.settings());
            let namespaces = named(namespaces);
            let gate_image = gate.settings();
            let settings = Settings { listen, instance, node_drain, namespaces, lease, tokens, gate_image };
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
                // First: as process 1 of a container, a SIGTERM that nobody handles yet is lost.
                let stop = stop_signal()?;
                graceful_operator::run(settings, stop).await
            })
        }
        Command::RotateKey(Rotate { token_secret }) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            println!("rotated: {}", runtime.block_on(graceful_operator::rotate(token_secret))?);
            Ok(())
        }
    }
}

/// Which nodes go.
#[derive(clap::Args)]
struct Nodes {
    /// Look at nodes: whether their kubelets are heard, and whether they go. Without it no node is read or drained, and a pod counts as busy from
    /// the moment it has a node.
    #[arg(long, env = "GRACEFUL_NODE_DRAIN", default_value_t = true, action = ArgAction::Set)]
    node_drain: bool,
    /// A node is emptied when it is cordoned.
    #[arg(long, env = "GRACEFUL_NODE_DRAIN_ON_CORDON", default_value_t = true, action = ArgAction::Set)]
    node_drain_on_cordon: bool,
    /// A node is emptied when it has one of these taints: keys, with commas between.
    #[arg(long, env = "GRACEFUL_NODE_DRAIN_TAINTS", value_delimiter = ',', default_values_t = TAINTS.map(str::to_owned))]
    node_drain_taints: Vec<String>,
    /// A node dies soon, whatever is done, when it has one of these taints.
    #[arg(long, env = "GRACEFUL_NODE_DRAIN_URGENT_TAINTS", value_delimiter = ',', default_values_t = URGENT_TAINTS.map(str::to_owned))]
    node_drain_urgent_taints: Vec<String>,
}

impl Nodes {
    fn settings(self) -> Option<NodeDrain> {
        let Self { node_drain, node_drain_on_cordon: on_cordon, node_drain_taints, node_drain_urgent_taints } =
            self;
        node_drain.then(|| NodeDrain {
            on_cordon,
            taints: named(node_drain_taints),
            urgent_taints: named(node_drain_urgent_taints),
        })
    }
}

/// An empty variable is an empty list.
fn named(list: Vec<String>) -> BTreeSet<String> {
    list.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Resolves at SIGTERM or Ctrl-C; both are handled from here on.
///
/// # Errors
/// When a handler cannot be installed.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
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
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => logger.with_ansi(false).init(),
        LogFormat::Json => logger.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use nix::sys::signal::{Signal, raise};

    use super::*;

    /// Were it not handled, it would end this test's process; and it is not lost because nobody waits for it yet.
    #[tokio::test]
    async fn a_sigterm_before_anything_waits_for_it_stops_the_operator() {
        let stop = stop_signal().unwrap();
        raise(Signal::SIGTERM).unwrap();
        stop.await;
        assert!(stop_signal().unwrap().now_or_never().is_none(), "none has come since");
    }
}
