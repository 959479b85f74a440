//! The observer is shown each kind of broken promise, and must see it.

use serde_json::json;

use super::*;
use crate::wire::PodWork;

/// A Ready pod that runs and serves, unless `change` says otherwise.
fn pod(name: &str, change: impl Into<serde_json::Value>) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "labels": {(names::SERVING_LABEL): "true"}},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}},
            }],
        },
    });
    for (pointer, value) in change.into().as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn observer(pods: &[Pod]) -> Observer {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let observer = Observer { seen, task: tokio::spawn(async {}).abort_handle() };
    observer.expect(Some(Limits { most: 3, fewest: 2 }));
    for pod in pods {
        observer.seen.lock().event(watcher::Event::Apply(pod.clone()));
    }
    observer
}

fn deleted() -> serde_json::Value {
    json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"})
}

fn drained() -> serde_json::Value {
    json!({"/metadata/labels": {}, "/metadata/annotations": {(names::DRAIN_REASON): "Rollout"}})
}

#[tokio::test]
async fn a_pod_too_many_is_a_violation_unless_it_never_ran() {
    let mut pods: Vec<Pod> = ["a", "b", "c", "d"].iter().map(|n| pod(n, json!({}))).collect();
    assert_eq!(observer(&pods).findings(None).violations.len(), 1);
    pods[3] = pod("d", json!({"/status/containerStatuses": []}));
    pods.push(pod("d", {
        let mut change = deleted();
        change["/status/containerStatuses"] = json!([]);
        change
    }));
    assert!(observer(&pods).findings(None).violations.is_empty());
}

#[tokio::test]
async fn a_serving_pod_that_goes_without_a_drain_is_a_violation_unless_the_test_deleted_it() {
    let pods = [pod("a", json!({})), pod("b", json!({})), pod("c", json!({})), pod("a", deleted())];
    let observer = observer(&pods);
    assert_eq!(observer.findings(None).violations.len(), 1);
    observer.deletes("a");
    assert!(observer.findings(None).violations.is_empty());
}

#[tokio::test]
async fn a_terminating_pod_makes_room() {
    let pods = [
        pod("a", json!({})),
        pod("b", json!({})),
        pod("c", json!({})),
        pod("a", deleted()),
        pod("d", json!({})),
    ];
    let observer = observer(&pods);
    observer.deletes("a");
    assert!(observer.findings(None).violations.is_empty());
}

#[tokio::test]
async fn a_drain_that_leaves_too_few_is_a_violation() {
    let enough = [pod("a", json!({})), pod("b", json!({})), pod("c", json!({})), pod("a", drained())];
    assert!(observer(&enough).findings(None).violations.is_empty());
    let few = [pod("a", json!({})), pod("b", json!({})), pod("a", drained())];
    assert_eq!(observer(&few).findings(None).violations.len(), 1);
}

#[tokio::test]
async fn a_report_after_the_operators_delete_is_a_violation() {
    let gone = pod("a", {
        let mut change = drained();
        change["/metadata/deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        change
    });
    let observer = observer(&[pod("a", json!({})), pod("b", json!({})), pod("c", json!({})), gone]);
    let work = |last_report_ms| PodWork { finished: 1, last_report_ms, boots: Vec::new() };
    let mut ledger = LedgerView::default();
    ledger.pods.insert("a".into(), work(now_ms() - 10_000));
    assert!(observer.findings(Some((&ledger, 0))).violations.is_empty());
    ledger.pods.insert("a".into(), work(now_ms() + 10_000));
    assert_eq!(observer.findings(Some((&ledger, 0))).violations.len(), 1);
}

#[tokio::test]
async fn a_replacement_for_a_drained_pod_is_a_spare() {
    let mut gone = drained();
    gone["/metadata/deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let pods = [pod("a", json!({})), pod("a", gone), pod("b", json!({}))];
    let findings = observer(&pods).findings(None);
    assert_eq!((findings.spares, findings.spares_ran), (1, 1));
}

#[tokio::test]
async fn a_spare_may_finish_what_it_pulled_before_anybody_was_sent_to_it() {
    let gone = || {
        let mut change = drained();
        change["/metadata/deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        change
    };
    let starting = json!({"/status/conditions": []});
    for (first, broken) in [(starting, 0), (json!({}), 1)] {
        // Unrouted, then Ready, then taken.
        let pods =
            [pod("a", json!({})), pod("a", gone()), pod("b", first), pod("b", drained()), pod("b", gone())];
        let observer = observer(&pods);
        observer.expect(None);
        let mut ledger = LedgerView::default();
        let last_report_ms = now_ms() + 10_000;
        ledger.pods.insert("b".into(), PodWork { finished: 1, last_report_ms, boots: Vec::new() });
        let late: Vec<_> = observer.findings(Some((&ledger, 0))).violations;
        assert_eq!(late.iter().filter(|v| v.contains("after its deletion")).count(), broken, "{late:?}");
    }
}
