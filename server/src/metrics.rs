//! What Prometheus sees. Counters move as things happen; gauges are read off the drain when asked.

use std::time::Duration;

use graceful_drain::{Drain, State};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a tenth of a second to ten minutes: what a pod's grace period is made of.
const BUCKETS: [f64; 12] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

type Label = [(&'static str, &'static str); 1];

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
}

/// How a task that ran ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its work is done.
    Processed,
    /// It was given up.
    Dead,
    /// It was called off while it ran.
    Cancelled,
}

/// How a report of a task's end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The collector took it.
    Delivered,
    /// It was given up.
    Abandoned,
}

/// All metrics of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Counter,
    finished: Family<Label, Counter>,
    refused: Family<Label, Counter>,
    reports: Family<Label, Counter>,
    slow_clients: Counter,
    waited: Histogram,
    ran: Histogram,
    depth: Family<Label, Gauge>,
    requests: Gauge,
    sockets: Gauge,
    state: Family<Label, Gauge>,
    epoch: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("graceful_server");
        let mut metrics = Self {
            accepted: Counter::default(),
            finished: Family::default(),
            refused: Family::default(),
            reports: Family::default(),
            slow_clients: Counter::default(),
            waited: Histogram::new(BUCKETS),
            ran: Histogram::new(BUCKETS),
            depth: Family::default(),
            requests: Gauge::default(),
            sockets: Gauge::default(),
            state: Family::default(),
            epoch: Gauge::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry);
        metrics.registry = registry;
        // Series that exist from the start: a rate over one that appears with its first event misses that event.
        for outcome in [Ended::Processed, Ended::Dead, Ended::Cancelled] {
            metrics.finished.get_or_create(&ended(outcome)).inc_by(0);
        }
        for why in [Refusal::Draining, Refusal::Full, Refusal::Crowded, Refusal::Origin, Refusal::Unavailable]
        {
            metrics.refused.get_or_create(&reason(why)).inc_by(0);
        }
        for outcome in [Report::Delivered, Report::Abandoned] {
            metrics.reports.get_or_create(&report(outcome)).inc_by(0);
        }
        metrics
    }
}

fn ended(outcome: Ended) -> Label {
    [(
        "outcome",
        match outcome {
            Ended::Processed => "processed",
            Ended::Dead => "dead",
            Ended::Cancelled => "cancelled",
        },
    )]
}

fn reason(why: Refusal) -> Label {
    [(
        "reason",
        match why {
            Refusal::Draining => "draining",
            Refusal::Full => "full",
            Refusal::Crowded => "crowded",
            Refusal::Origin => "origin",
            Refusal::Unavailable => "unavailable",
        },
    )]
}

fn report(outcome: Report) -> Label {
    [(
        "outcome",
        match outcome {
            Report::Delivered => "delivered",
            Report::Abandoned => "abandoned",
        },
    )]
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        to.register("tasks_accepted", "Tasks accepted", self.accepted.clone());
        to.register("tasks_finished", "Tasks that ended, by outcome", self.finished.clone());
        to.register("requests_refused", "Submits and sockets refused, by reason", self.refused.clone());
        to.register("reports", "Reports of ended tasks, by outcome", self.reports.clone());
        to.register(
            "slow_clients_dropped",
            "Sockets dropped because they did not keep up",
            self.slow_clients.clone(),
        );
        to.register_with_unit("task_wait", "Time a task was queued", Unit::Seconds, self.waited.clone());
        to.register_with_unit("task_duration", "Time a task ran", Unit::Seconds, self.ran.clone());
        to.register("queue_depth", "Tasks in this pod, queued or running", self.depth.clone());
        to.register(
            "requests_in_flight",
            "Requests accepted whose answer has not ended",
            self.requests.clone(),
        );
        to.register("sockets", "Open WebSockets", self.sockets.clone());
        to.register("drain_state", "1 for the state the pod is in", self.state.clone());
        to.register("drain_epoch", "Highest drain epoch seen", self.epoch.clone());
    }

    /// A task was accepted.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A submit or a socket was refused.
    pub fn refused(&self, why: Refusal) {
        self.refused.get_or_create(&reason(why)).inc();
    }

    /// A task that ran has ended.
    pub fn finished(&self, outcome: Ended, waited: Duration, ran: Duration) {
        self.finished.get_or_create(&ended(outcome)).inc();
        self.waited.observe(waited.as_secs_f64());
        self.ran.observe(ran.as_secs_f64());
    }

    /// A report was delivered or given up.
    pub fn reported(&self, outcome: Report) {
        self.reports.get_or_create(&report(outcome)).inc();
    }

    /// A socket was dropped because its client did not keep up.
    pub fn slow_client(&self) {
        self.slow_clients.inc();
    }

    /// The text that Prometheus scrapes (OpenMetrics 1.0).
    #[must_use]
    pub fn text(&self, drain: &Drain) -> String {
        let now = drain.status();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.depth.get_or_create(&[("state", "queued")]).set(gauge(now.in_flight.queued));
        self.depth.get_or_create(&[("state", "running")]).set(gauge(now.in_flight.running));
        self.requests.set(gauge(now.in_flight.requests));
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
