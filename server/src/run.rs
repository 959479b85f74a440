//! `server run`: binds, wires and serves; returns when the process may exit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use graceful_drain::{Drain, Exit, Settings, Signals, serve};
use tokio::net::TcpListener;
use tracing::info;

use crate::api::{self, Api};
use crate::config::{ReportUrl, Run};
use crate::events::hub::{self, Hub};
use crate::events::limits::Limits;
use crate::identity::Pod;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::report::Reporter;
use crate::worker::Worker;

/// Serves until a signal has drained it.
///
/// # Errors
/// When a port is taken, or the process may not have signals or an HTTP client.
pub async fn run(run: Run) -> anyhow::Result<Exit> {
    let Run {
        port,
        admin_port,
        concurrency,
        task_seconds,
        queue_capacity,
        keep_finished,
        report_url,
        max_sockets,
        max_sockets_per_client,
        max_sockets_per_ip,
        allowed_origins,
        linger_seconds,
        log_format: _,
        log: _,
    } = run;
    // First: a SIGTERM may come before anything else is ready, and PID 1 never hears it without a handler.
    let signals = Signals::install().context("cannot listen for signals")?;
    let public =
        bind(port).await.with_context(|| format!("--port {port}: cannot listen; give a free port"))?;
    let admin = bind(admin_port)
        .await
        .with_context(|| format!("--admin-port {admin_port}: cannot listen; give a free port"))?;

    let drain = Drain::new(Settings { linger: Duration::from_secs(linger_seconds), ..Settings::from_env() });
    let metrics = Arc::new(Metrics::default());
    let queue = Arc::new(Queue::new(queue_capacity.get(), keep_finished));
    let limits =
        Limits { total: max_sockets, per_client: max_sockets_per_client, per_address: max_sockets_per_ip };
    let listening = hub::Settings { pod: Pod::from_env(), limits, origins: allowed_origins };
    let hub = Hub::new(listening, drain.clone(), metrics.clone());
    tokio::spawn(hub.clone().attend());
    let reporter = report_url
        .map(|ReportUrl(url)| {
            let pod_uid = drain.settings().pod_uid.clone();
            Reporter::new(url, pod_uid, drain.boot_id().to_owned(), metrics.clone())
        })
        .transpose()
        .context("--report-url: cannot make an HTTP client")?;
    let worker = Worker { task_seconds, hub: hub.clone(), reporter, metrics: metrics.clone() };
    tokio::spawn(worker.work(queue.clone(), concurrency.get()));

    info!(
        public = %public.local_addr()?,
        admin = %admin.local_addr()?,
        boot_id = drain.boot_id(),
        pod_uid = drain.settings().pod_uid,
        "serving; see /docs"
    );
    let api = Api { drain: drain.clone(), queue, hub, metrics };
    let admin_app = api::admin(&api);
    Ok(serve((public, api::public(api)), (admin, admin_app), drain, signals).await)
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
