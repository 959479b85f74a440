//! `operator run` and `operator crd`.

use std::net::SocketAddr;

use clap::{Parser, Subcommand, ValueEnum};
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
        Command::Run { listen, log_format, instance, namespaces } => {
            log(log_format);
            let namespaces = namespaces.into_iter().filter(|n| !n.is_empty()).collect();
            let settings = graceful_operator::Settings { listen, instance, namespaces };
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(graceful_operator::run(settings, stop_signal()?))
        }
    }
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
