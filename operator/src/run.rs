//! `operator run`: the wiring. Client, watches, loop, probes, health; and a clean end at any moment.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use graceful_api::GracefulApp;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::app_ref::AppRef;
use crate::decode::Decoded;
use crate::error::CALL_DEADLINE;
use crate::index::Index;
use crate::leader::Leadership;
use crate::memory::Memory;
use crate::observe::{NodeDrain, Sources};
use crate::operator::Operator;
use crate::probe::{Asker, Probes, Trigger, Triggered};
use crate::reconcile::reconcile;
use crate::report::{Recorder, Reporter};
use crate::schedule::{Next, Schedule};
use crate::telemetry::{Health, Metrics, serve};
use crate::watch::Follows;

/// What `operator run` can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where `/livez`, `/readyz` and `/metrics` answer.
    pub listen: SocketAddr,
    /// The name in Events: the pod's.
    pub instance: Option<String>,
    /// Which nodes go; none reads no node.
    pub node_drain: Option<NodeDrain>,
    /// The namespaces whose apps this operator runs; all, where none is named. Another operator may run those of others.
    pub namespaces: BTreeSet<String>,
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
    let writing = client(config, Some(CALL_DEADLINE + Duration::from_secs(3)))?;
    run_with(&watching, writing, listener, settings, stop).await?;
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
///
/// # Errors
/// When a part without which it would be blind or mute has ended: it is to be started anew.
pub async fn run_with(
    watching: &Client,
    calling: Client,
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    run_on(watching, calling, listener, settings, Asker::default(), stop).await
}

/// The same with an asker that tests may let reach loopback.
pub(crate) async fn run_on(
    watching: &Client,
    calling: Client,
    listener: TcpListener,
    settings: Settings,
    asker: Asker,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let (trigger, triggered) = Trigger::new();
    let follows = Follows::new(watching, settings.node_drain);
    metrics.follow(follows.apps());
    let operator = Arc::new(Operator {
        reporter: Reporter {
            recorder: Recorder::new(calling.clone(), settings.instance),
            client: calling.clone(),
            metrics: Arc::clone(&metrics),
        },
        sources: Sources {
            client: calling,
            stores: follows.stores(),
            probes: Probes::new(asker, trigger.clone(), Arc::clone(&metrics)),
        },
        memory: Memory::default(),
        pulse: Arc::default(),
        metrics: Arc::clone(&metrics),
        namespaces: settings.namespaces,
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
        () = &mut work => anyhow::bail!("the loop has ended by itself"),
        // A watch that is dead without a word would leave us blind for ever: a new process begins with everything listed.
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => anyhow::bail!("a watch or the health port has died: {error}"),
            Some(Ok(())) | None => anyhow::bail!("a watch or the health port has ended"),
        },
        () = stop => {
            info!("stopping");
            stopping.send_replace(true);
            if tokio::time::timeout(STOP_WITHIN, work).await.is_err() {
                warn!("a call was still under way after {STOP_WITHIN:?}; the next operator goes on from what is there");
            }
            Ok(())
        }
    }
}

/// The loop: one plan at a time for each app, a bounded number of apps at once.
async fn work(
    operator: Arc<Operator>,
    apps: Index<Decoded<GracefulApp>>,
    mut triggered: Triggered,
    listed: impl Future<Output = ()>,
    ready: Arc<AtomicBool>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    // Nothing is decided before everything is known.
    tokio::select! {
        () = listed => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    ready.store(true, Ordering::Relaxed);
    info!(apps = apps.all().len(), "all is listed, the work begins");
    let object = |app: &AppRef| apps.get(app.namespace.as_deref().unwrap_or_default(), &app.name);
    let mut schedule = Schedule::default();
    let (mut plans, mut whose) = (JoinSet::new(), HashMap::new());
    loop {
        schedule.ring(Instant::now());
        while let Some(app) = schedule.next() {
            let Some(object) = object(&app) else {
                // What a plan that was under way as it went has begun anew goes as well.
                operator.forget_ref(&app);
                schedule.gone(&app);
                continue;
            };
            let operator = Arc::clone(&operator);
            let plan = plans.spawn(async move { reconcile(&operator, &object).await });
            whose.insert(plan.id(), app);
        }
        let alarm = schedule.alarm();
        tokio::select! {
            asked = triggered.recv() => match asked {
                Some(app) => {
                    let going = object(&app).is_some_and(|app| app.metadata.deletion_timestamp.is_some());
                    schedule.ask(&app, going);
                }
                None => break,
            },
            Some(ended) = plans.join_next_with_id() => {
                let (id, next) = match ended {
                    Ok((id, next)) => (id, next),
                    Err(error) => {
                        error!("a plan died: {error}");
                        (error.id(), AFTER_DEATH)
                    }
                };
                if let Some(app) = whose.remove(&id) {
                    schedule.ended(&app, next, Instant::now());
                }
            }
            () = async { tokio::time::sleep_until(alarm.unwrap_or_else(Instant::now)).await }, if alarm.is_some() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    while plans.join_next().await.is_some() {}
}

/// A plan is meant to catch its own panics; should one get by, its app waits as after any other.
const AFTER_DEATH: Next = Next { after: Duration::from_secs(300), urgent: false, strained: false };
