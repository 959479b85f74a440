//! `operator run`: the wiring. Client, watches, loop, probes, health; and a clean end at any moment.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use graceful_api::GracefulApp;
use kube::runtime::controller::{Action, Controller};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::leader::Leadership;
use crate::memory::Memory;
use crate::operator::{Operator, reconcile};
use crate::probe::{AppRef, Asker, Probes, Trigger};
use crate::report::Recorder;
use crate::telemetry::{Health, Metrics, serve};
use crate::watch::Follows;

/// What `operator run` can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where `/livez`, `/readyz` and `/metrics` answer.
    pub listen: SocketAddr,
    /// The name in Events: the pod's.
    pub instance: Option<String>,
}

/// How long a stop waits for the calls that are under way: each is one API call with its own deadline, nearly always milliseconds. A crash
/// at any moment is safe as well.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Runs until `stop` is done.
///
/// # Errors
/// When the API server's address cannot be found, or the health port is taken.
pub async fn run(settings: Settings, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let config = Config::infer().await.context("find the API server")?;
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("listen on {}", settings.listen))?;
    info!(server = %config.cluster_url, listen = %settings.listen, "the operator starts");
    let watching = client(config.clone(), None)?;
    let writing = client(config, Some(Duration::from_secs(10)))?;
    run_with(&watching, writing, listener, settings.instance, stop).await;
    info!("the operator has stopped");
    Ok(())
}

/// Without retries of its own: a 429 means something here, and a write that is repeated blindly may act on what has changed.
fn client(mut config: Config, read_timeout: Option<Duration>) -> anyhow::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = read_timeout;
    config.write_timeout = Some(Duration::from_secs(10));
    config.reset_reader_on_write = true;
    Client::try_from(config).context("make a client for the API server")
}

/// The operator on given clients: one for watches, which may be silent for minutes, one for calls.
pub async fn run_with(
    watching: &Client,
    calling: Client,
    listener: TcpListener,
    instance: Option<String>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    run_on(watching, calling, listener, instance, Asker::default(), stop).await;
}

/// The same with an asker that tests may let reach loopback.
pub(crate) async fn run_on(
    watching: &Client,
    calling: Client,
    listener: TcpListener,
    instance: Option<String>,
    asker: Asker,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let metrics = Arc::new(Metrics::new());
    let (trigger, triggered) = Trigger::new();
    let follows = Follows::new(watching);
    metrics.follow(follows.apps());
    let operator = Arc::new(Operator {
        stores: follows.stores(),
        probes: Probes::new(asker, trigger.clone(), Arc::clone(&metrics)),
        memory: Memory::default(),
        pulse: Arc::default(),
        recorder: Recorder::new(calling.clone(), instance),
        client: calling,
        metrics: Arc::clone(&metrics),
        leadership: Leadership::Sole,
    });
    let mut tasks = JoinSet::new();
    let ready = Arc::new(AtomicBool::new(false));
    let health = Health { metrics, pulse: Arc::clone(&operator.pulse), ready: Arc::clone(&ready) };
    tasks.spawn(async move {
        if let Err(error) = serve(listener, health).await {
            warn!("health and metrics answer no more: {error}");
        }
    });
    let (apps, listed) = (follows.apps(), follows.listed());
    for watch in follows.drive(&operator, &trigger) {
        tasks.spawn(watch);
    }
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let work = work(operator, apps, triggered, listed, ready, stopped);
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => warn!("the loop has ended by itself"),
        () = stop => {
            info!("stopping");
            stopping.send_replace(true);
            if tokio::time::timeout(STOP_WITHIN, work).await.is_err() {
                warn!("a call was still under way after {STOP_WITHIN:?}; the next operator goes on from what is there");
            }
        }
    }
}

/// The loop: one plan at a time for each app, as many apps at once as there are.
async fn work(
    operator: Arc<Operator>,
    apps: kube::runtime::reflector::Store<GracefulApp>,
    triggered: UnboundedReceiver<AppRef>,
    listed: impl Future<Output = ()>,
    ready: Arc<AtomicBool>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let mut stop = stopped.clone();
    // Nothing is decided before everything is known.
    tokio::select! {
        () = listed => {}
        _ = stop.wait_for(|stop| *stop) => return,
    }
    ready.store(true, Ordering::Relaxed);
    info!(apps = apps.len(), "all is listed, the work begins");
    let triggers: BoxStream<'static, AppRef> =
        stream::unfold(triggered, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed();
    // Triggers come from our own watches and probes alone.
    Controller::for_stream(stream::pending(), apps)
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move {
            let _stopping = stopped.wait_for(|stop| *stop).await;
        })
        .run(
            |app, operator: Arc<Operator>| async move { Ok::<_, Infallible>(reconcile(&operator, &app).await) },
            |_, _: &Infallible, _| Action::await_change(),
            operator,
        )
        .for_each(|_| async {})
        .await;
}
