//! What Prometheus sees. Counters move as things happen; gauges are read off the drain and the queue when asked.
//!
//! `docs/metrics.md` lists all of it; a test keeps the list in step.

use std::time::Duration;

use graceful_drain::{Drain, State};
use graceful_store::{Counts, StoreError, Unavailable};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

/// From the few milliseconds in which an idle queue starts a task to the hour after which an attempt times out.
const BUCKETS: [f64; 16] =
    [0.002, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0];

type Label = [(&'static str, &'static str); 1];
/// There are as many kinds as the server was built with: clients can't make more.
type KindLabel = [(&'static str, String); 1];
type Histograms = Family<KindLabel, Histogram, fn() -> Histogram>;

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
    /// It was called off.
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
    accepted: Counter,
    finished: Family<Label, Counter>,
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
    up: Gauge,
    sockets: Gauge,
    state: Family<Label, Gauge>,
    epoch: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let histograms = || Family::new_with_constructor(histogram as fn() -> Histogram);
        let mut metrics = Self {
            registry: Registry::default(),
            accepted: Counter::default(),
            finished: Family::default(),
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
            up: Gauge::default(),
            sockets: Gauge::default(),
            state: Family::default(),
            epoch: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("graceful_server");
        metrics.register(&mut registry);
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
        let Self { accepted, finished, retries, lost, waited, ran, .. } = self;
        to.register("tasks_accepted", "Tasks accepted", accepted.clone());
        to.register("tasks_finished", "Tasks that ended here, by outcome", finished.clone());
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
        let help = "Tasks in the queue, by state; a shared queue says the same on each of its pods";
        to.register("queue_depth", help, depth.clone());
        to.register("queue_up", "1 while the queue can be read, else 0", up.clone());
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

    /// A task ended.
    pub fn finished(&self, outcome: Ended) {
        self.finished.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Tasks were found dead whose processes had died too often.
    pub fn dead_letters(&self, letters: u64) {
        self.finished.get_or_create(&[("outcome", Ended::Dead.as_str())]).inc_by(letters);
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

    /// The text that Prometheus scrapes (OpenMetrics 1.0). `queue` is None while the queue does not answer; its depth is
    /// then absent, for an old one would be a lie.
    #[must_use]
    pub fn text(&self, drain: &Drain, queue: Option<Counts>) -> String {
        let now = drain.status();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mine = now.in_flight;
        for (kind, count) in [("queued", mine.queued), ("running", mine.running), ("request", mine.requests)]
        {
            self.in_flight.get_or_create(&[("kind", kind)]).set(gauge(count));
        }
        self.up.set(i64::from(queue.is_some()));
        match queue {
            Some(Counts { queued, delayed, running, dead }) => {
                let states = [("queued", queued), ("delayed", delayed), ("running", running), ("dead", dead)];
                for (state, count) in states {
                    self.depth.get_or_create(&[("state", state)]).set(gauge(count));
                }
            }
            None => self.depth.clear(),
        }
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
}
