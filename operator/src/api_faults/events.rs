//! What people are told of each pod.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::scenarios::{CALM, Stage, spec, template};

pub(super) fn events(stage: &Stage, reason: &str) -> Vec<Value> {
    stage.world.list("events").into_iter().filter(|e| e["reason"] == reason).collect()
}

/// kube's recorder made one Event of all that had the same reason, with the first one's words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pod_that_drains_has_an_event_of_its_own() {
    let mut stage = Stage::settled_with(31, spec(3)).await;
    let names = stage.world.list("pods").into_iter().map(|p| p["metadata"]["name"].clone().to_string());
    let names: BTreeSet<_> = names.collect();
    stage.change(&template("1"));
    stage.until("a rollout", CALM, |s| s.settled("1", 3)).await;
    for reason in ["DrainStarted", "DrainEnded"] {
        let of = |e: &Value| (e["related"]["kind"] == "Pod").then(|| e["related"]["name"].to_string());
        // The last of them comes a moment after the status.
        let about = |s: &Stage| events(s, reason).iter().filter_map(of).collect::<BTreeSet<_>>();
        stage.until(reason, CALM, |s| names.is_subset(&about(s))).await;
        assert!(
            events(&stage, reason)
                .iter()
                .all(|e| e["note"].as_str().unwrap().contains(e["related"]["name"].as_str().unwrap()))
        );
    }
}

/// P2: the pod drains itself; that somebody ended it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_somebody_deletes_is_said() {
    let mut stage = Stage::settled_with(32, spec(2)).await;
    let name = stage.world.list("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let key = ("pods".to_owned(), "apps".to_owned(), name.clone());
    stage.world.write(|w| w.delete(&key, &json!({}))).unwrap();
    stage
        .until("a Warning about it", CALM, |s| {
            events(s, "EndedByOthers")
                .iter()
                .any(|e| e["related"]["name"] == name.as_str() && e["type"] == "Warning")
        })
        .await;
    stage.until("another in its place", CALM, |s| s.settled("0", 2)).await;
    let told = events(&stage, "EndedByOthers").len();
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("one fewer", CALM, |s| s.settled("0", 1)).await;
    assert_eq!(
        events(&stage, "EndedByOthers").len(),
        told,
        "what the operator ends is not said to be others'"
    );
}

/// The same mistake was told once in an operator's life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_that_is_made_again_is_said_again() {
    let mut stage = Stage::settled_with(39, spec(1)).await;
    let told = |s: &Stage| -> u64 {
        let count = |e: &Value| e["series"]["count"].as_u64().unwrap_or(1);
        events(s, "InvalidSpec").iter().map(count).sum()
    };
    for times in 1..=2 {
        stage.change(&json!({"spec": {"disruption": "OfTheFuture"}}));
        stage.until("Stalled", CALM, |s| s.app().unwrap()["status"]["phase"] == "Stalled").await;
        stage.until("a Warning about it", CALM, |s| told(s) == times).await;
        let metrics = stage.metrics().await;
        assert!(metrics.contains("app_name=\"tasks\",phase=\"Stalled\"} 1"), "{metrics}");
        assert!(!metrics.contains("graceful_app_pods{"), "nobody looks at them: {metrics}");
        stage.change(&json!({"spec": {"disruption": "Allow"}}));
        stage.until("its correction", CALM, |s| s.settled("0", 1)).await;
    }
    assert_eq!(told(&stage), 2);
    assert_eq!(events(&stage, "InvalidSpec").len(), 1, "counted on one Event");
}

/// Its record has no deletionTimestamp, and fell out of every report without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_the_kubelet_evicts_is_said_once() {
    let mut stage = Stage::settled_with(40, spec(2)).await;
    let _task = stage.hold_a_task();
    stage.evict_one();
    let told = |s: &Stage| events(s, "EndedByOthers");
    stage.until("a Warning about it", CALM, |s| !told(s).is_empty()).await;
    let serves = |s: &Stage| s.app().unwrap()["status"]["servingReplicas"] == 2;
    stage.until("another in its place", CALM, serves).await;
    stage.kill_the_operator().await;
    stage.change(&json!({"spec": {"replicas": 1}}));
    let one = |s: &Stage| s.world.list("pods").len() == 2 && s.asked_for() == 1;
    stage.until("one fewer", CALM, one).await;
    let note = told(&stage)[0]["note"].as_str().unwrap().to_owned();
    assert!(note.contains("ended with phase Failed (Evicted), at its last answer with "), "{note}");
    assert_eq!(told(&stage).len(), 1, "once, and not again by another operator");
}

/// They are told when they end, for a Deployment that leaves the view may only have lost its label.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_go_with_their_deployment_are_said() {
    let mut stage = Stage::settled_with(41, spec(2)).await;
    let pods = stage.world.list("pods");
    let uids: BTreeSet<_> = pods.iter().map(|p| p["metadata"]["uid"].to_string()).collect();
    stage.world.write(|w| {
        let key = w.all.keys().find(|(plural, ..)| plural == "deployments").unwrap().clone();
        w.delete(&key, &json!({})).unwrap();
    });
    let told = |s: &Stage| -> Vec<_> {
        events(s, "EndedByOthers").iter().map(|e| e["related"]["uid"].to_string()).collect()
    };
    stage.until("a Warning about each", CALM, |s| told(s).len() >= 2).await;
    stage.until("others in their place", CALM, |s| s.settled("0", 2)).await;
    assert_eq!(told(&stage).len(), 2, "each once");
    assert_eq!(told(&stage).into_iter().collect::<BTreeSet<_>>(), uids);
    assert_eq!(events(&stage, "LabelRemoved"), [] as [Value; 0]);
}

/// Somebody takes a pod aside to look at it: its ReplicaSet lets it go and makes another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_taken_aside_is_not_said_to_be_gone() {
    let mut stage = Stage::settled_with(42, spec(2)).await;
    let name = stage.relabel("pods", None);
    stage
        .until("a Warning about it", CALM, |s| {
            events(s, "LabelRemoved").iter().any(|e| e["related"]["name"] == name.as_str())
        })
        .await;
    assert_eq!(events(&stage, "EndedByOthers"), [] as [Value; 0], "it runs on");
}
