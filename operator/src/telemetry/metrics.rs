//! The metrics. Labels are bounded: an app's namespace and name, and closed lists of words. No pod, no revision.

use std::time::Duration;

use graceful_api::{Cut, Phase};
use graceful_plan::Report;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::probe::AppRef;

/// One label from a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Word {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Act {
    action: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct App {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AppWord {
    app: App,
    key: &'static str,
    value: &'static str,
}

impl EncodeLabelSet for App {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        [("namespace", self.namespace.as_str()), ("name", self.name.as_str())].encode(encoder)
    }
}

impl EncodeLabelSet for AppWord {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let Self { app, key, value } = self;
        [("namespace", app.namespace.as_str()), ("name", app.name.as_str()), (*key, *value)].encode(encoder)
    }
}

/// All metrics, and the registry that prints them.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Counter,
    reconcile_errors: Family<Word, Counter>,
    reconcile_seconds: Histogram,
    last_reconcile: Gauge,
    actions: Family<Act, Counter>,
    questions: Family<Word, Counter>,
    pods: Family<AppWord, Gauge>,
    in_flight: Family<AppWord, Gauge>,
    phase: Family<AppWord, Gauge>,
    cut_tasks: Family<App, Gauge>,
}

const PHASES: [(Phase, &str); 7] = [
    (Phase::Deleting, "Deleting"),
    (Phase::Stalled, "Stalled"),
    (Phase::Paused, "Paused"),
    (Phase::Held, "Held"),
    (Phase::Rolling, "Rolling"),
    (Phase::Draining, "Draining"),
    (Phase::Serving, "Serving"),
];

impl Metrics {
    pub(crate) fn new() -> Self {
        // From a plan out of memory (a millisecond) to one that met every time-out (a minute).
        let buckets = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
        let mut metrics = Self {
            registry: Registry::default(),
            reconciles: Counter::default(),
            reconcile_errors: Family::default(),
            reconcile_seconds: Histogram::new(buckets),
            last_reconcile: Gauge::default(),
            actions: Family::default(),
            questions: Family::default(),
            pods: Family::default(),
            in_flight: Family::default(),
            phase: Family::default(),
            cut_tasks: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let operator = self.registry.sub_registry_with_prefix("graceful_operator");
        operator.register("reconciles", "Plans made", self.reconciles.clone());
        operator.register("reconcile_errors", "Plans that failed, by class", self.reconcile_errors.clone());
        operator.register(
            "reconcile_duration_seconds",
            "From trigger to report",
            self.reconcile_seconds.clone(),
        );
        operator.register(
            "last_reconcile_timestamp_seconds",
            "When a plan last ended",
            self.last_reconcile.clone(),
        );
        operator.register("actions", "Calls that change something, by kind and result", self.actions.clone());
        operator.register("probes", "Questions put to pods, by class of answer", self.questions.clone());
        let app = self.registry.sub_registry_with_prefix("graceful_app");
        app.register("pods", "Pods by state: serving, updated, draining", self.pods.clone());
        app.register("in_flight", "What pods have in flight, as far as they told", self.in_flight.clone());
        app.register("phase", "1 for the phase the app is in", self.phase.clone());
        app.register(
            "cut_tasks",
            "Tasks in flight in pods that were ended at a deadline",
            self.cut_tasks.clone(),
        );
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _infallible = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn reconciled(&self, took: Duration, error: Option<&'static str>) {
        self.reconciles.inc();
        if let Some(class) = error {
            self.reconcile_errors.get_or_create(&Word { class }).inc();
        }
        self.reconcile_seconds.observe(took.as_secs_f64());
        self.last_reconcile.set(jiff::Timestamp::now().as_second());
    }

    pub(crate) fn acted(&self, action: &'static str, result: &'static str) {
        self.actions.get_or_create(&Act { action, result }).inc();
    }

    pub(crate) fn asked(&self, class: &'static str) {
        self.questions.get_or_create(&Word { class }).inc();
    }

    pub(crate) fn reported(&self, app: &AppRef, report: &Report, serving_in_flight: u64, cut: Cut) {
        let app = label(app);
        let set = |family: &Family<AppWord, Gauge>, key, value, n: u64| {
            let labels = AppWord { app: app.clone(), key, value };
            family.get_or_create(&labels).set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        set(&self.pods, "state", "serving", report.serving.into());
        set(&self.pods, "state", "updated", report.updated.into());
        set(&self.pods, "state", "draining", report.draining.into());
        set(&self.in_flight, "of", "draining", report.in_flight);
        set(&self.in_flight, "of", "serving", serving_in_flight);
        for (phase, word) in PHASES {
            set(&self.phase, "phase", word, u64::from(phase == report.phase));
        }
        self.cut_tasks.get_or_create(&app).set(i64::try_from(cut.tasks).unwrap_or(i64::MAX));
    }

    /// Takes the gauges of an app that is gone away.
    pub(crate) fn forget(&self, app: &AppRef) {
        let app = label(app);
        let remove = |family: &Family<AppWord, Gauge>, key, value| {
            family.remove(&AppWord { app: app.clone(), key, value });
        };
        for state in ["serving", "updated", "draining"] {
            remove(&self.pods, "state", state);
            remove(&self.in_flight, "of", state);
        }
        for (_, word) in PHASES {
            remove(&self.phase, "phase", word);
        }
        self.cut_tasks.remove(&app);
    }
}

fn label(app: &AppRef) -> App {
    App { namespace: app.namespace.clone().unwrap_or_default(), name: app.name.clone() }
}
