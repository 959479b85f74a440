use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use graceful_api::{DrainReason, PodState};
use graceful_plan::{DrainingPodReport, PodUid};
use jiff::Timestamp;
use serde_json::json;
use similar::TextDiff;
use strum::VariantArray as _;

use super::*;
use crate::decode::decode;
use crate::execute::{ActionKind, ActionResult};
use crate::index::Scope;
use crate::probe::AskErrorClass;

const INTRO: &str = "# What the operator tells Prometheus\n\n\
    `GET /metrics` on port 8080, OpenMetrics 1.0. Counters begin at 0 with the process; durations are in seconds. A metric about an app has\n\
    the app's namespace in the label `app_namespace`: under `namespace` Prometheus keeps the namespace of what it scrapes, which is the operator's.\n\
    The series of an app that is gone go with it; one that is not planned (InvalidSpec, OperatorFault) has no pods and nothing in flight, since\n\
    nobody looks. Labels are closed lists: no pod, no revision. Made from the code by\n\
    `GRACEFUL_GOLDEN=write cargo test -p graceful-operator metrics`.\n\n\
    | metric | type | labels | what it is |\n|---|---|---|---|\n";

fn report() -> Report {
    Report {
        phase: Phase::Serving,
        waiting_for: String::new(),
        conditions: Vec::new(),
        serving: 2,
        updated: 2,
        draining: 0,
        in_flight: 0,
        current_revision: None,
        revisions: Vec::new(),
        pods: Vec::new(),
        ended_by_others: Vec::new(),
    }
}

fn app(name: &str) -> GracefulApp {
    let template = json!({"spec": {"containers": []}});
    serde_json::from_value(json!({
        "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
        "metadata": {"name": name, "namespace": "apps", "uid": name}, "spec": {"template": template},
    }))
    .unwrap()
}

fn tell(metrics: &Metrics, app: &GracefulApp) {
    metrics.reported(&AppRef::from_obj(app), &report(), 0, Cut::default(), 1);
}

/// A metric's line in the page, from the text that Prometheus reads.
fn page(text: &str) -> String {
    let mut page = INTRO.to_owned();
    for line in text.lines() {
        let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let start = format!("# TYPE {name} ");
        let kind = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default();
        let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        writeln!(page, "| `{shown}` | {kind} | {} | {} |", labels(text, name), words.trim_end_matches('.'))
            .unwrap();
    }
    page
}

/// The labels of a metric's series, with the values of those that are always there.
fn labels(text: &str, name: &str) -> String {
    let mut keys: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let rest = rest.strip_prefix("_total").unwrap_or(rest);
        let Some((inside, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            continue;
        };
        for (key, value) in inside.split(',').filter_map(|pair| pair.split_once('=')) {
            if !keys.iter().any(|(known, _)| known == key) {
                keys.push((key.to_owned(), BTreeSet::new()));
            }
            let values = keys.iter_mut().find(|(known, _)| known == key).map(|(_, values)| values);
            values.unwrap().insert(format!("`{}`", value.trim_matches('"')));
        }
    }
    let words = keys.iter().map(|(key, values)| match key.as_str() {
        "action" | "result" | "state" | "of" | "phase" | "class" => {
            format!("`{key}`: {}", values.iter().cloned().collect::<Vec<_>>().join(", "))
        }
        _ => format!("`{key}`"),
    });
    words.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_page_lists_every_metric() {
    let metrics = Metrics::new(Leadership::Sole);
    for class in FailureClass::VARIANTS {
        metrics.reconciled(Duration::ZERO, Some(*class));
    }
    for kind in ActionKind::VARIANTS {
        ActionResult::VARIANTS.iter().for_each(|result| metrics.acted(*kind, *result));
        let of_a_call = FailureClass::VARIANTS.iter().filter(|class| **class != FailureClass::Panic);
        of_a_call.for_each(|class| metrics.acted(*kind, *class));
    }
    metrics.asked("ok");
    for class in AskErrorClass::VARIANTS {
        metrics.asked(*class);
    }
    tell(&metrics, &app("a"));
    let made = page(&metrics.text());
    assert!(made.contains("`app_namespace`; `app_name`; `phase`"), "{made}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operator-metrics.md");
    if std::env::var_os("GRACEFUL_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let diff = TextDiff::from_lines(&kept, &made);
    assert!(
        made == kept,
        "the operator tells something else; write the page anew with\n  \
         GRACEFUL_GOLDEN=write cargo test -p graceful-operator metrics\n{}",
        diff.unified_diff().context_radius(0).header("docs/operator-metrics.md", "now")
    );
}

#[test]
fn pods_that_are_held_are_counted() {
    let metrics = Metrics::new(Leadership::Sole);
    let pod = |held| DrainingPodReport {
        pod: "a".to_owned(),
        uid: PodUid::from("a"),
        reason: DrainReason::Rollout,
        state: PodState::Draining,
        in_flight: None,
        since: Timestamp::UNIX_EPOCH,
        deadline: Timestamp::UNIX_EPOCH,
        held,
        last_contact: None,
        error: None,
    };
    let report = Report { draining: 3, pods: vec![pod(true), pod(false), pod(true)], ..report() };
    metrics.reported(&AppRef::from_obj(&app("a")), &report, 0, Cut::default(), 0);
    let text = metrics.text();
    assert!(text.contains("state=\"held\"} 2") && text.contains("state=\"draining\"} 3"), "{text}");
}

/// What was told of its pods last would stand for ever: they are not looked at.
#[test]
fn of_an_app_that_is_not_planned_the_phase_alone_is_told() {
    let metrics = Metrics::new(Leadership::Sole);
    let (known, new) = (app("known"), app("new"));
    tell(&metrics, &known);
    for app in [&known, &new] {
        metrics.stalled(&AppRef::from_obj(app));
    }
    let text = metrics.text();
    let value = |name: &str, app: &str, label: &str| {
        let series = format!("{name}{{app_namespace=\"apps\",app_name=\"{app}\"{label}}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned)
    };
    for app in ["known", "new"] {
        let phase = |word| value("graceful_app_phase", app, &format!(",phase=\"{word}\""));
        assert_eq!(
            (phase("Stalled").as_deref(), phase("Serving").as_deref()),
            (Some("1"), Some("0")),
            "{app}: {text}"
        );
        assert_eq!(value("graceful_app_pods", app, ",state=\"serving\""), None);
        assert_eq!(value("graceful_app_in_flight", app, ",of=\"serving\""), None);
    }
    assert_eq!(value("graceful_app_ended_by_others_total", "known", "").as_deref(), Some("1"), "{text}");
}

/// P8: what is told of is there. A namespace that was deleted kept its gauges for as long as the operator ran.
#[test]
fn an_app_that_is_gone_has_no_series_whoever_told_of_it_last() {
    let index = Index::new(|_| Vec::new(), &[Scope::All]);
    let decoded = |app: &GracefulApp| decode::<GracefulApp>(&serde_json::to_string(app).unwrap());
    let metrics = Metrics::new(Leadership::Sole);
    metrics.follow(index.clone());
    let (stays, goes) = (app("stays"), app("goes"));
    for app in [&stays, &goes] {
        index.apply(decoded(app));
        tell(&metrics, app);
    }
    assert!(metrics.text().contains("app_name=\"goes\""));
    index.remove(&decoded(&goes));
    metrics.forget(&AppRef::from_obj(&goes));
    tell(&metrics, &goes); // by a plan that was under way
    let text = metrics.text();
    assert!(!text.contains("goes"), "{text}");
    assert!(
        text.contains("graceful_app_pods{app_namespace=\"apps\",app_name=\"stays\",state=\"serving\"} 2"),
        "{text}"
    );
    // A list without it, after a watch that was away while it went.
    index.begin(&Scope::All);
    index.finish(&Scope::All);
    assert!(!metrics.text().contains("stays"));
}
