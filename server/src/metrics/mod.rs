//! What Prometheus sees. Counters move as things happen; gauges are read off the drain when asked, and off what was seen of the queue
//! last.
//!
//! - `process`: what is told of any process
//! - `sample`: what is told of the queue, so that no scrape waits for it
//!
//! `docs/metrics.md` lists all of it; a test keeps the list in step.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use graceful_drain::{Drain, State};
use graceful_store::{Counts, QueueRecord, StoreError, Unavailable};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use tokio::time::Instant;

use self::process::Process;
use self::sample::Sample;

/// From the few milliseconds in which an idle queue starts a task to the hour after which an attempt times out.
const BUCKETS: [f64; 16] =
    [0.002, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0];

mod process;
mod sample;

/// From what a look from memory takes to the half minute after which the queue is given up.
const REQUEST_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

type Label = [(&'static str, &'static str); 1];
/// There are as many kinds as the server was built with: clients can't make more.
type KindLabel = [(&'static str, String); 1];
type Histograms = Family<KindLabel, Histogram, fn() -> Histogram>;
/// As many as there may be queues.
type QueueLabel = [(&'static str, String); 1];
/// As many as there are routes, and statuses that they answer.
type RequestLabels = [(&'static str, String); 3];
type Requests = Family<RequestLabels, Histogram, fn() -> Histogram>;

/// Why a submit or a socket was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The pod drains: 503.
    Draining,
    /// The queue is full: 429.
    Full,
    /// As many listen as may: 503, or 429 for one client or address.
    Crowded,
    /// A page of another site: 403.
    Origin,
    /// The queue can't be written just now: 503.
    Unavailable,
    /// The submission can't be used: 400 and its like.
    Invalid,
    /// No token, or not the right one: 401 and 403. Counts requests of all kinds.
    Token,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Draining,
        Self::Full,
        Self::Crowded,
        Self::Origin,
        Self::Unavailable,
        Self::Invalid,
        Self::Token,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Crowded => "crowded",
            Self::Origin => "origin",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Token => "token",
        }
    }
}

/// How a task ended, as metrics and reports say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Its work is done.
    Processed,
    /// It was given up.
    Dead,
    /// The task was called off.
    Cancelled,
}

impl Ended {
    const ALL: [Self; 3] = [Self::Processed, Self::Dead, Self::Cancelled];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a report of a task's end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The collector took it.
    Delivered,
    /// It was given up.
    Abandoned,
}

impl Report {
    const ALL: [Self; 2] = [Self::Delivered, Self::Abandoned];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Abandoned => "abandoned",
        }
    }
}

/// All metrics of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    counts: Sample<Counts>,
    queues: Sample<Arc<Vec<QueueRecord>>>,
    accepted: Counter,
    finished: Family<Label, Counter>,
    dead: Family<KindLabel, Counter>,
    retries: Counter,
    lost: Counter,
    overrunning: Family<KindLabel, Gauge>,
    refused: Family<Label, Counter>,
    reports: Family<Label, Counter>,
    trouble: Family<Label, Counter>,
    slow_clients: Counter,
    waited: Histograms,
    ran: Histograms,
    in_flight: Family<Label, Gauge>,
    depth: Family<Label, Gauge>,
    waiting: Family<QueueLabel, Gauge>,
    oldest: Family<QueueLabel, Gauge<f64, AtomicU64>>,
    paused: Family<QueueLabel, Gauge>,
    requests: Requests,
    up: Gauge,
    age: Gauge<f64, AtomicU64>,
    sockets: Gauge,
    state: Family<Label, Gauge>,
    epoch: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

fn request_histogram() -> Histogram {
    Histogram::new(REQUEST_BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let histograms = || Family::new_with_constructor(histogram as fn() -> Histogram);
        let mut metrics = Self {
            registry: Registry::default(),
            counts: Sample::default(),
            queues: Sample::default(),
            accepted: Counter::default(),
            finished: Family::default(),
            dead: Family::default(),
            retries: Counter::default(),
            lost: Counter::default(),
            overrunning: Family::default(),
            refused: Family::default(),
            reports: Family::default(),
            trouble: Family::default(),
            slow_clients: Counter::default(),
            waited: histograms(),
            ran: histograms(),
            in_flight: Family::default(),
            depth: Family::default(),
            waiting: Family::default(),
            oldest: Family::default(),
            paused: Family::default(),
            requests: Family::new_with_constructor(request_histogram as fn() -> Histogram),
            up: Gauge::default(),
            age: Gauge::default(),
            sockets: Gauge::default(),
            state: Family::default(),
            epoch: Gauge::default(),
        };
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("graceful_server"));
        registry.register_collector(Box::new(Process::default()));
        metrics.registry = registry;
        metrics.begin_at_zero();
        metrics
    }
}

/// Work that runs on after its attempt is over.
#[derive(Debug)]
pub struct Overrunning(Gauge);

impl Drop for Overrunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        let Self { accepted, finished, dead, retries, lost, waited, ran, .. } = self;
        to.register("tasks_accepted", "Tasks accepted", accepted.clone());
        to.register("tasks_finished", "Tasks that ended here, by outcome", finished.clone());
        to.register("tasks_dead", "Tasks that were given up here, by kind", dead.clone());
        to.register("task_retries", "Attempts that failed and will be followed by another", retries.clone());
        to.register("task_leases_lost", "Attempts whose task another pod has taken over", lost.clone());
        let help = "Time that a task was due before it was started, by kind";
        to.register_with_unit("task_wait", help, Unit::Seconds, waited.clone());
        let help = "Time that an attempt ran, by kind";
        to.register_with_unit("task_duration", help, Unit::Seconds, ran.clone());

        let help = "Attempts that are over and whose work still runs, on a thread of its own or without an await, by kind";
        to.register("task_attempts_overrunning", help, self.overrunning.clone());

        let Self { refused, reports, trouble, slow_clients, .. } = self;
        to.register(
            "requests_refused",
            "Submits and sockets refused, and requests without the right token, by reason",
            refused.clone(),
        );
        to.register("reports", "Reports of ended tasks to --report-url, by outcome", reports.clone());
        to.register("queue_errors", "Calls that the queue could not do, by reason", trouble.clone());
        let help = "Sockets and streams dropped because they did not keep up";
        to.register("slow_clients_dropped", help, slow_clients.clone());

        let Self { in_flight, depth, up, sockets, state, epoch, .. } = self;
        let help = "What this pod must end before it may go, by kind: queued and running tasks, requests";
        to.register("in_flight", help, in_flight.clone());
        let help = "Tasks in the queue, by state, as it was read last; a shared queue says the same on each of its pods. Not for inFlight: use graceful_server_in_flight";
        to.register("queue_depth", help, depth.clone());
        let Self { waiting, oldest, paused, requests, .. } = self;
        let help = "Tasks that wait and are due, by queue; a shared queue says the same on each of its pods";
        to.register("queue_waiting", help, waiting.clone());
        let help = "How long the task has been due that has waited the longest, by queue; 0 where none waits";
        to.register_with_unit("queue_oldest_waiting", help, Unit::Seconds, oldest.clone());
        to.register("queue_paused", "1 while the queue is paused, else 0", paused.clone());
        let help = "Time from a request's head to its answer's, by method, route and status";
        to.register_with_unit("http_request_duration", help, Unit::Seconds, requests.clone());
        to.register("queue_up", "1 while the queue can be read, else 0", up.clone());
        let help = "How long ago the depth of the queue was read, which is done every 2 s; it is absent while the queue cannot be read, and from 30 s on";
        to.register_with_unit("queue_figures_age", help, Unit::Seconds, self.age.clone());
        to.register("sockets", "Open WebSockets and event streams", sockets.clone());
        to.register("drain_state", "1 for the state the pod is in", state.clone());
        to.register("drain_epoch", "Highest drain epoch seen", epoch.clone());
    }

    /// Series exist from the start: a rate over one that appears with its first event misses that event.
    fn begin_at_zero(&self) {
        for outcome in Ended::ALL {
            self.finished.get_or_create(&[("outcome", outcome.as_str())]).inc_by(0);
        }
        for why in Refusal::ALL {
            self.refused.get_or_create(&[("reason", why.as_str())]).inc_by(0);
        }
        for outcome in Report::ALL {
            self.reports.get_or_create(&[("outcome", outcome.as_str())]).inc_by(0);
        }
        for why in Unavailable::ALL {
            self.trouble.get_or_create(&[("reason", why.as_str())]).inc_by(0);
        }
    }

    /// A task was accepted.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A submit or a socket was refused.
    pub fn refused(&self, why: Refusal) {
        self.refused.get_or_create(&[("reason", why.as_str())]).inc();
    }

    /// An attempt began, so long after its task was due.
    pub fn started(&self, kind: &str, waited: Duration) {
        self.waited.get_or_create(&[("kind", kind.to_owned())]).observe(waited.as_secs_f64());
    }

    /// An attempt is over, and its work runs on until the guard is dropped.
    #[must_use]
    pub fn overrunning(&self, kind: &str) -> Overrunning {
        let gauge = self.overrunning.get_or_create(&[("kind", kind.to_owned())]).clone();
        gauge.inc();
        Overrunning(gauge)
    }

    /// An attempt ended, however it did.
    pub fn ran(&self, kind: &str, ran: Duration) {
        self.ran.get_or_create(&[("kind", kind.to_owned())]).observe(ran.as_secs_f64());
    }

    /// A request was answered, so long after its head came. `route` is as it is declared: clients make no series.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels =
            [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A task of this kind was given up.
    pub fn gave_up(&self, kind: &str) {
        self.finished(Ended::Dead);
        self.dead.get_or_create(&[("kind", kind.to_owned())]).inc();
    }

    /// A task ended.
    pub fn finished(&self, outcome: Ended) {
        self.finished.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// An attempt failed, and there will be another.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// An attempt's lease was over, and another has the task.
    pub fn lost(&self) {
        self.lost.inc();
    }

    /// A report was delivered or given up.
    pub fn reported(&self, outcome: Report) {
        self.reports.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// The queue could not do what it was asked. (That it is full is no trouble of its own.)
    pub fn queue_trouble(&self, error: &StoreError) {
        if let StoreError::Unavailable { why, detail: _ } = error {
            self.trouble.get_or_create(&[("reason", why.as_str())]).inc();
        }
    }

    /// A socket was dropped because its client did not keep up.
    pub fn slow_client(&self) {
        self.slow_clients.inc();
    }

    /// The queue was asked then how much is in it; None: it cannot be read.
    pub fn counted(&self, at: Instant, counts: Option<Counts>) {
        self.counts.took(at, counts);
    }

    /// The same of what is in each queue.
    pub fn listed(&self, at: Instant, queues: Option<Vec<QueueRecord>>) {
        self.queues.took(at, queues.map(Arc::new));
    }

    /// The text that Prometheus scrapes (OpenMetrics 1.0). It waits for nothing. While the queue does not answer, its depth and what
    /// is in each queue is absent, for an old figure would be a lie.
    #[must_use]
    pub fn text(&self, drain: &Drain) -> String {
        let now = drain.status();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mine = now.in_flight;
        for (kind, count) in [("queued", mine.queued), ("running", mine.running), ("request", mine.requests)]
        {
            self.in_flight.get_or_create(&[("kind", kind)]).set(gauge(count));
        }
        let (counts, age) = self.counts.latest();
        self.up.set(i64::from(counts.is_some()));
        self.age.set(age.as_secs_f64());
        match counts {
            Some(Counts { queued, delayed, running, dead }) => {
                let states = [("queued", queued), ("delayed", delayed), ("running", running), ("dead", dead)];
                for (state, count) in states {
                    self.depth.get_or_create(&[("state", state)]).set(gauge(count));
                }
            }
            None => self.depth.clear(),
        }
        let (queues, _) = self.queues.latest();
        self.tell_queues(queues.as_deref().map_or(&[], Vec::as_slice));
        self.sockets.set(gauge(now.connections));
        self.epoch.set(gauge(now.epoch));
        for state in State::ALL {
            self.state.get_or_create(&[("state", state.as_str())]).set(i64::from(state == now.state));
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// One that was removed has no series any more.
    fn tell_queues(&self, queues: &[QueueRecord]) {
        self.waiting.clear();
        self.oldest.clear();
        self.paused.clear();
        for QueueRecord { name, paused, counts, settings: _ } in queues {
            let label = [("queue", name.clone())];
            self.waiting.get_or_create(&label).set(i64::try_from(counts.queued).unwrap_or(i64::MAX));
            self.oldest.get_or_create(&label).set(counts.oldest.unwrap_or_default().as_secs_f64());
            self.paused.get_or_create(&label).set(i64::from(*paused));
        }
    }
}
