//! `docs/metrics.md` lists what the server tells Prometheus, and no more.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use graceful_drain::{Drain, Settings};
use graceful_server::metrics::Metrics;
use graceful_store::{Counts, QueueCounts, QueueRecord, QueueSettings};
use similar::TextDiff;
use tokio::time::Instant;

const INTRO: &str = "# What the task server tells Prometheus\n\n\
    `GET /metrics` on the admin port (9808), OpenMetrics 1.0. Counters begin at 0 with the process; durations are in seconds.\n\
    All series of a metric exist from the start, but for those by kind of task, by queue and by route. Made from the code by\n\
    `GRACEFUL_GOLDEN=write cargo test -p graceful-server --test metrics`.\n\n\
    | metric | type | labels | what it is |\n|---|---|---|---|\n";

/// A metric's line in the page, from the text that Prometheus reads.
fn page(text: &str) -> String {
    let mut page = INTRO.to_owned();
    for line in text.lines() {
        let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let about = |what: &str| {
            let start = format!("# {what} {name} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
        };
        let kind = about("TYPE");
        let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        writeln!(page, "| `{shown}` | {kind} | {} | {} |", labels(text, name), words.trim_end_matches('.'))
            .unwrap();
    }
    page
}

/// The labels of a metric's series, with their values where these are fixed.
fn labels(text: &str, name: &str) -> String {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let rest = ["_total", "_count"].into_iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
        let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for one in inside.0.split("\",") {
            let (label, value) = one.split_once("=\"").unwrap();
            all.entry(label.to_owned()).or_default().insert(format!("`{}`", value.trim_end_matches('"')));
        }
    }
    let each = all.into_iter().map(|(label, values)| match label.as_str() {
        "kind" if name.contains("task") => "`kind` of task".to_owned(),
        "queue" | "method" | "route" | "status" => format!("`{label}`"),
        _ => format!("`{label}`: {}", values.into_iter().collect::<Vec<_>>().join(", ")),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn queue(counts: QueueCounts) -> QueueRecord {
    QueueRecord { name: "mail".to_owned(), settings: QueueSettings::default(), paused: true, counts }
}

#[test]
fn a_queue_that_was_removed_is_told_no_more() {
    let (metrics, drain) = (Metrics::default(), Drain::new(Settings::default()));
    let oldest = Some(std::time::Duration::from_millis(90_500));
    let mail = queue(QueueCounts { queued: 7, oldest, ..QueueCounts::default() });
    metrics.listed(Instant::now(), Some(vec![mail]));
    let told = metrics.text(&drain);
    for series in [
        "graceful_server_queue_waiting{queue=\"mail\"} 7\n",
        "graceful_server_queue_oldest_waiting_seconds{queue=\"mail\"} 90.5\n",
        "graceful_server_queue_paused{queue=\"mail\"} 1\n",
    ] {
        assert!(told.contains(series), "{series}: {told}");
    }
    metrics.listed(Instant::now(), Some(Vec::new()));
    assert!(!metrics.text(&drain).contains("queue=\"mail\""));
}

#[test]
fn the_page_lists_every_metric() {
    let metrics = Metrics::default();
    metrics.started("sleep", std::time::Duration::ZERO);
    metrics.ran("sleep", std::time::Duration::ZERO);
    let _overrunning = metrics.overrunning("sleep");
    metrics.gave_up("sleep");
    metrics.answered("GET", "/v1/tasks", 200, std::time::Duration::ZERO);
    let queues = vec![queue(QueueCounts::default())];
    metrics.counted(Instant::now(), Some(Counts::default()));
    metrics.listed(Instant::now(), Some(queues));
    let made = page(&metrics.text(&Drain::new(Settings::default())));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("GRACEFUL_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let diff = TextDiff::from_lines(&kept, &made);
    assert!(
        made == kept,
        "the server tells something else; write the page anew with\n  \
         GRACEFUL_GOLDEN=write cargo test -p graceful-server --test metrics\n{}",
        diff.unified_diff().context_radius(0).header("docs/metrics.md", "now")
    );
}

#[test]
fn the_depth_of_a_queue_that_does_not_answer_is_absent() {
    let (metrics, drain) = (Metrics::default(), Drain::new(Settings::default()));
    let counts = Counts { queued: 3, ..Counts::default() };
    metrics.counted(Instant::now(), Some(counts));
    let known = metrics.text(&drain);
    assert!(known.contains("graceful_server_queue_depth{state=\"queued\"} 3\n"), "{known}");
    assert!(known.contains("graceful_server_queue_up 1\n"), "{known}");
    metrics.counted(Instant::now(), None);
    let unknown = metrics.text(&drain);
    assert!(!unknown.contains("graceful_server_queue_depth{"), "an old figure is a lie: {unknown}");
    assert!(unknown.contains("graceful_server_queue_up 0\n"), "{unknown}");
}
