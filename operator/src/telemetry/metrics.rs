//! The metrics. Labels are bounded: an app's namespace and name, and closed lists of words. No pod, no revision.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use graceful_api::{Cut, GracefulApp, Phase};
use graceful_plan::Report;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::app_ref::AppRef;
use crate::decode::Decoded;
use crate::error::FailureClass;
use crate::index::Index;
use crate::leader::Leadership;

/// Labels of a metric about an app. Not `namespace`: Prometheus puts the namespace of the target, the operator's own, under that name, and would
/// rename ours to `exported_namespace`.
const NAMESPACE: &str = "app_namespace";
const NAME: &str = "app_name";

/// One label from a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct App {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AppLabels {
    app: App,
    key: &'static str,
    value: &'static str,
}

impl EncodeLabelSet for App {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        [(NAMESPACE, self.namespace.as_str()), (NAME, self.name.as_str())].encode(encoder)
    }
}

impl EncodeLabelSet for AppLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let Self { app, key, value } = self;
        [(NAMESPACE, app.namespace.as_str()), (NAME, app.name.as_str()), (*key, *value)].encode(encoder)
    }
}

/// All metrics, and the registry that prints them.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Counter,
    reconcile_errors: Family<ClassLabel, Counter>,
    reconcile_seconds: Histogram,
    last_reconcile: Gauge,
    leading: Gauge,
    actions: Family<ActionLabels, Counter>,
    questions: Family<ClassLabel, Counter>,
    pods: Family<AppLabels, Gauge>,
    in_flight: Family<AppLabels, Gauge>,
    phase: Family<AppLabels, Gauge>,
    cut_tasks: Family<App, Gauge>,
    ended_by_others: Family<App, Counter>,
    /// Apps that have gauges, and the index that says which apps there are.
    told: Mutex<HashSet<AppRef>>,
    apps: OnceLock<Index<Decoded<GracefulApp>>>,
    leadership: Leadership,
}

/// `held`: draining, past its deadline and not cut. `ended_by_others`: terminating, and something may be at work in it.
const STATES: [&str; 5] = ["serving", "updated", "draining", "held", "ended_by_others"];

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
    pub(crate) fn new(leadership: Leadership) -> Self {
        // From a plan out of memory (a millisecond) to one that met every time-out (a minute).
        let buckets = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
        let mut metrics = Self {
            registry: Registry::default(),
            reconciles: Counter::default(),
            reconcile_errors: Family::default(),
            reconcile_seconds: Histogram::new(buckets),
            last_reconcile: Gauge::default(),
            leading: Gauge::default(),
            actions: Family::default(),
            questions: Family::default(),
            pods: Family::default(),
            in_flight: Family::default(),
            phase: Family::default(),
            cut_tasks: Family::default(),
            ended_by_others: Family::default(),
            told: Mutex::default(),
            apps: OnceLock::new(),
            leadership,
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
        operator.register(
            "leading",
            "1 while this operator leads, 0 while it stands by",
            self.leading.clone(),
        );
        operator.register(
            "actions",
            "Calls that change something, by kind and result; void: not done, or not followed by what was planned, as a Retire whose pod was \
             ended and whose scale failed (see ScaleAfterDelete)",
            self.actions.clone(),
        );
        operator.register("probes", "Questions put to pods, by class of answer", self.questions.clone());
        let app = self.registry.sub_registry_with_prefix("graceful_app");
        app.register(
            "pods",
            "Pods by state; updated ones serve as well, held ones (past their deadline) drain as well",
            self.pods.clone(),
        );
        app.register("in_flight", "What pods have in flight, as far as they told", self.in_flight.clone());
        app.register("phase", "1 for the phase the app is in", self.phase.clone());
        app.register(
            "cut_tasks",
            "Tasks in flight in pods that were ended at a deadline",
            self.cut_tasks.clone(),
        );
        app.register(
            "ended_by_others",
            "Pods at work that others ended: a delete, an eviction, a node that shuts down, a Deployment that somebody scaled",
            self.ended_by_others.clone(),
        );
    }

    /// From now on only apps in this index have gauges.
    pub(crate) fn follow(&self, apps: Index<Decoded<GracefulApp>>) {
        let _followed_already = self.apps.set(apps);
    }

    pub(crate) fn text(&self) -> String {
        self.forget_the_gone();
        // A term ends without a word: what is shown is decided when somebody looks.
        self.leading.set(i64::from(self.leadership.held()));
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _infallible = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn reconciled(&self, took: Duration, failure: Option<FailureClass>) {
        self.reconciles.inc();
        if let Some(class) = failure {
            self.reconcile_errors.get_or_create(&ClassLabel { class: class.into() }).inc();
        }
        self.reconcile_seconds.observe(took.as_secs_f64());
        self.last_reconcile.set(jiff::Timestamp::now().as_second());
    }

    pub(crate) fn acted(&self, action: impl Into<&'static str>, result: impl Into<&'static str>) {
        let (action, result) = (action.into(), result.into());
        self.actions.get_or_create(&ActionLabels { action, result }).inc();
    }

    pub(crate) fn asked(&self, class: impl Into<&'static str>) {
        let class = class.into();
        self.questions.get_or_create(&ClassLabel { class }).inc();
    }

    pub(crate) fn reported(
        &self,
        app: &AppRef,
        report: &Report,
        serving_in_flight: u64,
        cut: Cut,
        ended_by_others: usize,
    ) {
        self.told.lock().insert(app.clone());
        let app = label(app);
        let ended_by_others = u64::try_from(ended_by_others).unwrap_or(u64::MAX);
        self.ended_by_others.get_or_create(&app).inc_by(ended_by_others);
        let set = |family: &Family<AppLabels, Gauge>, key, value, n: u64| {
            let labels = AppLabels { app: app.clone(), key, value };
            family.get_or_create(&labels).set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        let pods = [
            report.serving.into(),
            report.updated.into(),
            report.draining.into(),
            report.pods.iter().filter(|p| p.held).count() as u64,
            report.ended_by_others.len() as u64,
        ];
        for (state, n) in STATES.into_iter().zip(pods) {
            set(&self.pods, "state", state, n);
        }
        set(&self.in_flight, "of", "draining", report.in_flight);
        set(&self.in_flight, "of", "serving", serving_in_flight);
        let ended = report.ended_by_others.iter().filter_map(|p| p.in_flight).map(|f| f.total);
        set(&self.in_flight, "of", "ended_by_others", ended.fold(0, u64::saturating_add));
        self.in_phase(&app, report.phase);
        self.cut_tasks.get_or_create(&app).set(i64::try_from(cut.tasks).unwrap_or(i64::MAX));
    }

    /// Of an app that is not planned (an invalid spec, a fault of ours): its pods are not looked at, and what was told of them last would stand for
    /// as long as that lasts. What is counted stays.
    pub(crate) fn stalled(&self, app: &AppRef) {
        self.told.lock().insert(app.clone());
        let app = label(app);
        self.forget_pods(&app);
        self.in_phase(&app, Phase::Stalled);
    }

    fn in_phase(&self, app: &App, now: Phase) {
        for (phase, word) in PHASES {
            let labels = AppLabels { app: app.clone(), key: "phase", value: word };
            self.phase.get_or_create(&labels).set(i64::from(phase == now));
        }
    }

    /// A plan that was under way while its app went has told of it once more, and a deletion that fell between two watches was never told: what is
    /// shown is decided by who is there when somebody looks.
    fn forget_the_gone(&self) {
        let Some(apps) = self.apps.get() else { return };
        let gone_from_it =
            |app: &&AppRef| apps.get(app.namespace.as_deref().unwrap_or_default(), &app.name).is_none();
        let gone: Vec<_> = self.told.lock().iter().filter(gone_from_it).cloned().collect();
        for app in gone {
            self.forget(&app);
        }
    }

    /// Takes the series of an app that is gone away.
    pub(crate) fn forget(&self, app: &AppRef) {
        self.told.lock().remove(app);
        let app = label(app);
        self.forget_pods(&app);
        for (_, word) in PHASES {
            self.phase.remove(&AppLabels { app: app.clone(), key: "phase", value: word });
        }
        self.cut_tasks.remove(&app);
        self.ended_by_others.remove(&app);
    }

    fn forget_pods(&self, app: &App) {
        let remove = |family: &Family<AppLabels, Gauge>, key, value| {
            family.remove(&AppLabels { app: app.clone(), key, value });
        };
        for state in STATES {
            remove(&self.pods, "state", state);
        }
        for of in ["draining", "serving", "ended_by_others"] {
            remove(&self.in_flight, "of", of);
        }
    }
}

fn label(app: &AppRef) -> App {
    App { namespace: app.namespace.clone().unwrap_or_default(), name: app.name.clone() }
}

#[cfg(test)]
mod tests;
