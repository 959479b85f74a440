//! What Prometheus sees: OpenTelemetry's HTTP names in Prometheus' form for the traffic, names of our own for the drain. `docs/gate.md` lists all of it; a test
//! keeps the list in step.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use graceful_drain::{Drain, State};
use hyper::{Method, StatusCode, Version};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The convention's own, and past them what this gate is for: answers that take minutes.
const BUCKETS: [f64; 18] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0,
    3600.0,
];

type Label = [(&'static str, &'static str); 1];
type RequestLabels = (Label, ([(&'static str, u32); 1], Label));

/// Why a client got no answer of the app's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing listens at the app's port, or nothing accepts.
    NotThere,
    /// The app ended the exchange before it had begun its answer, or said what is no answer.
    Died,
    /// The app did not begin its answer in time.
    Late,
}

impl Fault {
    const ALL: [Self; 3] = [Self::NotThere, Self::Died, Self::Late];

    const fn as_str(self) -> &'static str {
        match self {
            Self::NotThere => "not_there",
            Self::Died => "died",
            Self::Late => "late",
        }
    }
}

/// How a question for the app's own count went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Count,
    NoAnswer,
}

impl Asked {
    const ALL: [Self; 2] = [Self::Count, Self::NoAnswer];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::NoAnswer => "no_answer",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    duration: Family<RequestLabels, Histogram, fn() -> Histogram>,
    active: Gauge,
    connections: Gauge,
    sockets: Gauge,
    faults: Family<Label, Counter>,
    asked: Family<Label, Counter>,
    behind: Gauge,
    refused: Counter,
    in_flight: Family<Label, Gauge>,
    state: Family<Label, Gauge>,
    epoch: Gauge,
    /// What `refused` was moved to at the last look.
    refused_seen: AtomicU64,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            active: Gauge::default(),
            connections: Gauge::default(),
            sockets: Gauge::default(),
            faults: Family::default(),
            asked: Family::default(),
            behind: Gauge::default(),
            refused: Counter::default(),
            in_flight: Family::default(),
            state: Family::default(),
            epoch: Gauge::default(),
            refused_seen: AtomicU64::new(0),
        };
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.registry = registry;
        for fault in Fault::ALL {
            metrics.faults.get_or_create(&[("reason", fault.as_str())]).inc_by(0);
        }
        for how in Asked::ALL {
            metrics.asked.get_or_create(&[("outcome", how.as_str())]).inc_by(0);
        }
        metrics
    }
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        let help = "From a request's head until the last byte of its answer, or until its client or the app had gone";
        to.register_with_unit("http_server_request_duration", help, Unit::Seconds, self.duration.clone());
        to.register("http_server_active_requests", "Requests that are being answered", self.active.clone());
        let to = to.sub_registry_with_prefix("graceful_gate");
        to.register("connections", "Clients' connections that are open", self.connections.clone());
        to.register("sockets", "Upgraded connections (WebSockets) that are open", self.sockets.clone());
        to.register(
            "app_faults",
            "Requests and connections that the app failed, by reason",
            self.faults.clone(),
        );
        to.register("app_questions", "Questions for the app's own count, by outcome", self.asked.clone());
        to.register("app_in_flight", "What the app said last that it has in hand", self.behind.clone());
        to.register(
            "refused",
            "Requests and connections refused because the latch was closed",
            self.refused.clone(),
        );
        let help = "What must end before the pod may go, by kind: requests, and what the app has in hand";
        to.register("in_flight", help, self.in_flight.clone());
        to.register("drain_state", "1 for the state the pod is in", self.state.clone());
        to.register("drain_epoch", "Highest drain epoch seen", self.epoch.clone());
    }

    /// A client's connection, open until this is dropped.
    pub(crate) fn connection(&self) -> Open {
        Open::new(&self.connections)
    }

    /// An upgraded connection, open until this is dropped.
    pub(crate) fn socket(&self) -> Open {
        Open::new(&self.sockets)
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.faults.get_or_create(&[("reason", fault.as_str())]).inc();
    }

    pub(crate) fn asked(&self, how: Asked) {
        self.asked.get_or_create(&[("outcome", how.as_str())]).inc();
    }

    pub(crate) fn behind(&self, count: u64) {
        self.behind.set(gauge(count));
    }

    /// The text that Prometheus scrapes (OpenMetrics 1.0). Gauges of the drain are read off it now.
    pub(crate) fn text(&self, drain: &Drain) -> String {
        let now = drain.status();
        for (kind, count) in [("request", now.in_flight.requests), ("app", now.in_flight.running)] {
            self.in_flight.get_or_create(&[("kind", kind)]).set(gauge(count));
        }
        let refused = drain.refused();
        let seen = self.refused_seen.swap(refused, std::sync::atomic::Ordering::Relaxed);
        self.refused.inc_by(refused.saturating_sub(seen));
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

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Something open: counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One request's time, from its head until this is dropped.
#[derive(Debug)]
pub(crate) struct Timed {
    metrics: Arc<Metrics>,
    since: Instant,
    method: &'static str,
    version: &'static str,
    /// None: its client had gone before there was an answer. nginx's 499 stands for it.
    status: Option<StatusCode>,
}

impl Timed {
    pub(crate) fn new(metrics: &Arc<Metrics>, method: &Method, version: Version) -> Self {
        metrics.active.inc();
        let version = match version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        Self { metrics: metrics.clone(), since: Instant::now(), method: known(method), version, status: None }
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.metrics.active.dec();
        let status = self.status.map_or(499, |status| u32::from(status.as_u16()));
        let labels = (
            [("http_request_method", self.method)],
            ([("http_response_status_code", status)], [("network_protocol_version", self.version)]),
        );
        let took = self.since.elapsed();
        self.metrics.duration.get_or_create(&labels).observe(took.as_secs_f64());
        tracing::debug!(method = self.method, status, seconds = took.as_secs_f64(), "request");
    }
}

/// Clients may not make labels: what is no method that everybody knows is `_OTHER`, as the convention has it.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}
