//! `graceful-gate run`: binds, wires and serves; returns when the process may exit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use graceful_drain::{Drain, Exit, Settings, Signals, pre_stop, serve_behind};
use graceful_logs::LogFormat;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::app::Attention;
use crate::config::{Cli, Command, Places, PreStop, Protocol, Run};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::shards::{Shards, Side};
use crate::{admin, app, http, logs, tcp};

/// The whole of `main`: parses the command line, does what it says, and ends the process with the right code.
///
/// # Errors
/// When it can't start: a port is taken, or the log's filter can't be read. Flags that can't be used end the process here.
pub async fn command_line() -> anyhow::Result<()> {
    match Cli::read() {
        Command::Run(flags) => {
            // First: a SIGTERM may come before anything else is ready, and PID 1 never hears it without a handler.
            let signals = Signals::install().context("cannot listen for signals")?;
            logs::start(flags.log_format, &flags.log)?;
            let exit = run(*flags, signals).await?;
            // Not by returning: an abort must not wait for anything.
            std::process::exit(exit.code())
        }
        Command::PreStop(PreStop { admin_port, linger_seconds }) => {
            logs::start(LogFormat::Auto, "info")?;
            pre_stop(admin_port.get(), Duration::from_secs(linger_seconds)).await?;
            Ok(())
        }
    }
}

async fn run(flags: Run, signals: Signals) -> anyhow::Result<Exit> {
    // Not through anyhow: clap knows how to show it, and which exit code it has.
    let places = flags.places().unwrap_or_else(|error| error.exit());
    enough_descriptors(flags.max_connections.get());
    let public = listen("--listen-port", places.listen).await?;
    let admin = listen("--admin-port", places.admin).await?;

    let linger = Duration::from_secs(flags.linger_seconds);
    let drain = Drain::new(Settings { linger, ..Settings::from_env() });
    let metrics = Arc::new(Metrics::default());
    let attention = Attention {
        question: flags.in_flight.clone(),
        authorization: flags.in_flight_authorization.clone(),
        quiet: Duration::from_secs(flags.quiet_seconds),
        on_drain: flags.on_drain.clone(),
    };
    app::attend(attention, places.app, &drain, &metrics);
    let admin_app = admin::routes(&drain, &metrics);
    info!(
        public = %public.local_addr()?,
        admin = %admin.local_addr()?,
        app = %places.app,
        protocol = ?flags.protocol,
        boot_id = drain.boot_id(),
        pod_uid = drain.settings().pod_uid,
        "serving"
    );
    let shards = Shards::start(|| side(&flags, places, &drain, &metrics));
    let shards = shards.context("cannot start the threads that serve clients")?;
    let public = Listener::open(public, shards, &flags, &drain, &metrics);
    Ok(serve_behind((admin, admin_app), drain, signals, public.close()).await)
}

fn side(flags: &Run, Places { app, .. }: Places, drain: &Drain, metrics: &Arc<Metrics>) -> Side {
    match flags.protocol {
        Protocol::Http => Side::Http(http::Gate::new(flags, app, drain.clone(), metrics.clone())),
        Protocol::Tcp => Side::Tcp(tcp::Gate::new(flags, app, drain.clone(), metrics.clone())),
    }
}

/// A client takes two descriptors, one of them towards the app. Soft limits are often 1,024 beside a hard one of a million.
fn enough_descriptors(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(100);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_err() {
        warn!(soft, hard, "cannot raise the limit of open descriptors");
    }
    if hard < wanted {
        warn!(hard, wanted, "fewer descriptors than --max-connections may take; clients past it will wait");
    }
}

async fn listen(flag: &str, port: u16) -> anyhow::Result<TcpListener> {
    bind(port).await.with_context(|| format!("{flag} {port}: cannot listen; give a free port"))
}

/// All addresses: IPv6 and IPv4 where the kernel has both, IPv4 where it has no IPv6.
async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}
