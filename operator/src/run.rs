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
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::app_ref::AppRef;
use crate::clock::{Clock, heard_by};
use crate::decode::Decoded;
use crate::error::CALL_DEADLINE;
use crate::execute::Supplies;
use crate::index::Index;
use crate::keys::{Keep, KeySecret, Keyring, in_use, keep};
use crate::leader::{Campaign, Lease, leading};
use crate::memory::Memory;
use crate::observe::{GateImage, NodeDrain, Sources};
use crate::operator::Operator;
use crate::probe::{Asker, MARKS, Pace, Probes, Trigger, Triggered};
use crate::pulse::Pulse;
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
    /// The Lease by which one of several operators leads. None: this is the only one.
    pub lease: Option<Lease>,
    /// What drains are signed with. None: pods are told without a token.
    pub tokens: Option<Tokens>,
    /// What the gates of new revisions are made of.
    pub gate_image: GateImage,
}

/// Drain tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Where the keys are kept.
    pub secret: KeySecret,
    /// New revisions' pods are to verify. Without, only those that have keys already are sent tokens: what comes before a return to an operator without.
    pub verify: bool,
}

/// How long a stop waits for the calls that are under way: each is one API call with its own deadline, nearly always milliseconds. A crash
/// at any moment is safe as well.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Runs until `stop` is done.
///
/// # Errors
/// When the API server's address cannot be found, the health port is taken, the lease's durations contradict each other, or leadership is lost: what a
/// process that led remembers is not to be trusted once another has led, so that it ends.
pub async fn run(settings: Settings, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    if let Some(lease) = &settings.lease {
        lease.timing.check(CALL_DEADLINE).map_err(anyhow::Error::msg)?;
    }
    let config = Config::infer().await.context("find the API server")?;
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("listen on {}", settings.listen))?;
    info!(server = %config.cluster_url, listen = %settings.listen, "the operator starts");
    let watching = client(config.clone(), None)?;
    let calling = client(config.clone(), Some(CALL_DEADLINE + Duration::from_secs(3)))?;
    // On connections of its own: a renewal must not queue behind other calls.
    let renewing = client(config, Some(CALL_DEADLINE))?;
    run_with(watching, calling, renewing, listener, settings, stop).await?;
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

/// The operator on given clients: one for watches, which may be silent for minutes, one for calls, one for the lease.
///
/// # Errors
/// When a part without which it would be blind or mute has ended, or leadership is lost: it is to be started anew.
pub async fn run_with(
    watching: Client,
    calling: Client,
    renewing: Client,
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let clock = Clock::default();
    let heard = |client| heard_by(&clock, client);
    let Settings { instance, lease, .. } = &settings;
    let campaign = lease.clone().map(|lease| Campaign::new(heard(renewing), lease, instance.as_deref()));
    let means = Means {
        watching: heard(watching),
        calling: heard(calling),
        campaign,
        asker: Asker::default(),
        clock: clock.clone(),
        pulse: Arc::default(),
    };
    run_on(means, listener, settings, stop).await
}

/// What the operator reaches the world by; tests have others.
pub(crate) struct Means {
    pub(crate) watching: Client,
    pub(crate) calling: Client,
    pub(crate) campaign: Option<Campaign>,
    pub(crate) asker: Asker,
    /// Set by what the clients hear.
    pub(crate) clock: Clock,
    /// What `/livez` judges.
    pub(crate) pulse: Arc<Pulse>,
}

pub(crate) async fn run_on(
    means: Means,
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (trigger, triggered) = Trigger::new();
    let follows = Follows::new(&means.watching, &settings.namespaces, settings.node_drain.clone());
    let (operator, campaign) = build(means, &settings, &follows, &trigger);
    let mut tasks = JoinSet::new();
    let ready = Arc::new(AtomicBool::new(false));
    let metrics = Arc::clone(&operator.metrics);
    let health = Health { metrics, pulse: Arc::clone(&operator.pulse), ready: Arc::clone(&ready) };
    tasks.spawn(async move {
        if let Err(error) = serve(listener, health).await {
            warn!("health and metrics answer no more: {error}");
        }
    });
    let (apps, listed, all_listed) = (follows.apps(), follows.listed(), follows.listed());
    for watch in follows.drive(&operator, &trigger) {
        tasks.spawn(watch);
    }
    let (tried, keys_tried) = tokio::sync::watch::channel(settings.tokens.is_none());
    if let Some(Tokens { secret, .. }) = settings.tokens {
        let Sources { client, clock, .. } = &operator.sources;
        let keys = Keep {
            secret,
            client: client.clone(),
            keyring: operator.supplies.keyring.clone(),
            leadership: operator.leadership.clone(),
            clock: clock.clone(),
            tried,
        };
        tasks.spawn(keep_keys(keys, Arc::clone(&operator)));
    }
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let talking = Arc::clone(&operator);
    let work = work(operator, apps, triggered, (listed, keys_tried), ready, stopped);
    tokio::pin!(work);
    let (work_ended, hears_work_ended) = oneshot::channel();
    let campaign = campaign_when_listed(all_listed, campaign, hears_work_ended);
    tokio::pin!(campaign);
    tokio::select! {
        // First: nothing that another part says is to be done once another operator leads.
        biased;
        why = &mut campaign => {
            let why = why.unwrap_or_default();
            error!("leadership is lost, and this process ends: {why}");
            anyhow::bail!("leadership is lost: {why}")
        }
        () = &mut work => anyhow::bail!("the loop has ended by itself"),
        // A watch that is dead without a word would leave us blind for ever: a new process begins with everything listed.
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => anyhow::bail!("a watch, the drain keys' task or the health port has died: {error}"),
            Some(Ok(())) | None => anyhow::bail!("a watch, the drain keys' task or the health port has ended"),
        },
        () = stop => {
            info!("stopping");
            stopping.send_replace(true);
            // The term goes on meanwhile: a plan that stops between a DELETE and its scale would leave a spare.
            let ended = async {
                let ended = tokio::time::timeout(STOP_WITHIN, work).await.is_ok();
                if !ended {
                    warn!("a call was still under way after {STOP_WITHIN:?}; the next operator goes on from what is there");
                }
                // What is said to pods stops as well, before another may say something else.
                talking.probes.silence();
                // Nobody listens where the term ended meanwhile.
                let _lost = work_ended.send(ended);
            };
            let (_why, ()) = tokio::join!(tokio::time::timeout(STOP_WITHIN + RELEASE_WITHIN, campaign), ended);
            Ok(())
        }
    }
}

/// The operator, and what makes it lead.
fn build(
    means: Means,
    settings: &Settings,
    follows: &Follows,
    trigger: &Trigger,
) -> (Arc<Operator>, Option<Campaign>) {
    let Means { calling, campaign, asker, clock, pulse, .. } = means;
    let leadership = campaign.as_ref().map(Campaign::leadership).unwrap_or_default();
    let calling = leading(calling, leadership.clone());
    let asker = asker.led_by(leadership.clone());
    let metrics = Arc::new(Metrics::new(leadership.clone()));
    let keyring = Keyring::new(settings.tokens.as_ref().is_some_and(|tokens| tokens.verify));
    metrics.follow(follows.apps());
    let operator = Operator {
        reporter: Reporter {
            recorder: Recorder::new(calling.clone(), settings.instance.clone()),
            client: calling.clone(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
        },
        probes: Probes::new(asker, keyring.clone(), trigger.clone(), Arc::clone(&metrics), clock.clone()),
        sources: Sources { client: calling, stores: follows.stores(), keyring: keyring.clone(), clock },
        supplies: Supplies { mark_pace: Pace::of(MARKS), keyring, gate_image: settings.gate_image.clone() },
        memory: Memory::new(campaign.is_some()),
        pulse,
        metrics,
        namespaces: settings.namespaces.clone(),
        leadership,
    };
    (Arc::new(operator), campaign)
}

/// Which keys are in use, the stores say; what refused the old ones is told again.
async fn keep_keys(keys: Keep, operator: Arc<Operator>) {
    let stores = &operator.sources.stores;
    let named = || in_use(&stores.deployments, &stores.pods);
    keep(keys, named, || operator.probes.forget_refusals()).await;
}

/// For a release that the API server does not answer; without it the lease runs out by itself.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// Stands for election once all is listed, since a leader that is still blind would only keep others from leading. Says why leadership is lost;
/// without a lease it never is.
async fn campaign_when_listed(
    listed: impl Future<Output = ()>,
    campaign: Option<Campaign>,
    mut hears_work_ended: oneshot::Receiver<bool>,
) -> Option<String> {
    let work_ended = async |hears: &mut oneshot::Receiver<bool>| hears.await.unwrap_or(false);
    tokio::select! {
        () = listed => {}
        _ = work_ended(&mut hears_work_ended) => return None,
    }
    match campaign {
        Some(campaign) => campaign.run(work_ended(&mut hears_work_ended)).await,
        None => {
            work_ended(&mut hears_work_ended).await;
            None
        }
    }
}

/// The loop: one reconcile at a time for each app, a bounded number of apps at once.
async fn work(
    operator: Arc<Operator>,
    apps: Index<Decoded<GracefulApp>>,
    mut triggered: Triggered,
    (listed, mut keys_tried): (impl Future<Output = ()>, tokio::sync::watch::Receiver<bool>),
    ready: Arc<AtomicBool>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    // Nothing is decided before everything is known.
    tokio::select! {
        () = listed => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    ready.store(true, Ordering::Relaxed);
    info!(apps = apps.all().len(), "all is listed");
    let object = |app: &AppRef| apps.get(app.namespace.as_deref().unwrap_or_default(), &app.name);
    if !stand_by(&operator, &mut triggered, &mut stopped).await {
        return;
    }
    // Or the first plan might make a revision without keys, or tell a pod without a token. Milliseconds, and a call's deadline at most.
    tokio::select! {
        _ = keys_tried.wait_for(|tried| *tried) => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    operator.sources.clock.begin_to_use();
    let mut schedule = Schedule::default();
    // Of those that asked while this operator stood by, nothing was kept: all are looked at.
    for app in apps.all() {
        let (app, going) = (AppRef::from_obj(&**app), app.metadata.deletion_timestamp.is_some());
        operator.pulse.asked(&app);
        schedule.ask(&app, going);
    }
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
                        error!("reconciling an app died: {error}");
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

/// Waits until this operator leads; false where it is stopped before. It plans nothing meanwhile, and is alive all the same.
async fn stand_by(
    operator: &Operator,
    triggered: &mut Triggered,
    stopped: &mut tokio::sync::watch::Receiver<bool>,
) -> bool {
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return false,
            () = operator.leadership.gained() => return true,
            asked = triggered.recv() => match asked {
                Some(app) => operator.pulse.forget(&app),
                None => return false,
            },
        }
    }
}

/// A plan is meant to catch its own panics; should one get by, its app waits as after any other.
const AFTER_DEATH: Next = Next { after: Duration::from_secs(300), urgent: false, strained: false };
