//! Queue workers: deleted after their linger with a grace as long as a drain may take, whatever their template says, and counted until they are gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::alive;
use super::scenarios::{CALM, Limits, Stage, spec, template};

/// An app that takes its SIGTERM for a drain.
fn workers(replicas: u32, grace: Option<u32>) -> Value {
    let mut spec = spec(replicas);
    spec["template"]["metadata"]["labels"]["drains-itself"] = json!("true");
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(grace);
    spec["drain"] = json!({"signal": "Sigterm", "lingerSeconds": 0});
    spec
}

fn ending(stage: &Stage) -> Vec<Value> {
    stage.world.list("pods").into_iter().filter(|p| !alive(p)).collect()
}

/// Its grace would be 1 s by its template. A restarted operator finds it by what is on it, and neither of the two makes a pod in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_worker_drains_itself_for_as_long_as_it_takes() {
    let mut stage = Stage::settled_with(31, workers(1, Some(1))).await;
    let held = stage.hold_a_task();
    stage.change(&template("1"));
    let told = |s: &Stage| {
        let status = &s.app().unwrap()["status"];
        let waiting_for = status["waitingFor"].as_str().unwrap_or_default();
        !ending(s).is_empty()
            && status["drainingReplicas"] == 1
            && status["inFlight"].as_u64() >= Some(1)
            && status["phase"] == "Rolling"
            && waiting_for.contains("SIGTERM sent, it drains itself")
    };
    stage.until("its end to begin, and its count to be told", CALM, told).await;
    let pod = &ending(&stage)[0];
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 604_800);
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
    assert_eq!(annotations["karpenter.sh/do-not-disrupt"], "true");

    stage.change(&json!({"spec": {"replicas": 2}}));
    stage.kill_the_operator().await;
    let waits = |s: &Stage| told(s) && s.app().unwrap()["status"]["observedGeneration"] == 3;
    stage.until("a new operator to tell the same", CALM, waits).await;
    // One serves, one ends: with a surge of 1 there is room for one more of the two that are wanted.
    stage.until("the room to be used", CALM, |s| told(s) && s.asked_for() == 2).await;
    stage.change(&json!({"spec": {"replicas": 3, "rollout": {"maxSurge": 0, "maxUnavailable": 1}}}));
    stage
        .until("the wait for the last", CALM, |s| {
            told(s) && s.app().unwrap()["status"]["observedGeneration"] == 4 && s.asked_for() == 2
        })
        .await;
    drop(held);
    stage.until("all three", CALM, |s| s.settled("1", 3)).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_of_the_app_waits_for_its_queue_workers() {
    let mut stage = Stage::settled_with(32, workers(1, Some(1))).await;
    let held = stage.hold_a_task();
    stage.delete();
    stage
        .until("only the worker to be left", CALM, |s| {
            ending(s).len() == 1 && s.world.list("pods").len() == 1 && s.asked_for() == 0
        })
        .await;
    stage.kill_the_operator().await;
    stage
        .until("a new operator to say so", CALM, |s| {
            let waiting_for = s.app().unwrap()["status"]["waitingFor"].clone();
            waiting_for.as_str().unwrap_or_default().contains("SIGTERM sent, it drains itself")
        })
        .await;
    assert_eq!(stage.world.list("deployments").len(), 1, "its Deployment is there as long as it is");
    drop(held);
    stage.until("the end", CALM, Stage::nothing_left).await;
    stage.lost_nothing();
}

fn said(stage: &Stage, words: &str) -> bool {
    stage.app().unwrap_or_default()["status"]["waitingFor"].as_str().is_some_and(|said| said.contains(words))
}

/// P8: its ReplicaSet would end it with the template's grace of 1 s, so that the scale never comes first: a slow API server is waited for, and that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_worker_waits_for_an_api_server_that_is_slow() {
    let mut stage = Stage::settled_with(35, workers(2, Some(1))).await;
    let held = stage.hold_a_task();
    stage.world.write(|w| w.admission.takes = Duration::from_millis(700));
    stage.change(&template("1"));
    let words = "too slow to end it safely. A dry run of the scale took 0.7 s";
    stage.until("the wait, with what was measured", CALM, |s| said(s, words)).await;
    assert!(ending(&stage).is_empty(), "it was ended all the same");
    stage.world.write(|w| w.admission.takes = Duration::ZERO);
    stage.until("its SIGTERM", CALM, |s| said(s, "SIGTERM sent, it drains itself")).await;
    drop(held);
    stage.until("a rollout", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

/// P1, P8: a policy or webhook that keeps pods. What is refused is said, the worker goes on with what it has, and gets its SIGTERM when it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_worker_whose_end_is_refused_goes_on_and_it_is_said() {
    let mut stage = Stage::settled_with(36, workers(2, Some(1))).await;
    let held = stage.hold_a_task();
    stage.world.write(|w| w.admission.keeps_pods = true);
    stage.change(&template("1"));
    stage.until("the refusal", CALM, |s| said(s, "denied: pods are kept")).await;
    let status = stage.app().unwrap()["status"].clone();
    assert_eq!(status["phase"], "Stalled", "{status}");
    let before = stage.world.open().calls;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(stage.world.open().calls - before < 60, "it is asked for again and again");
    assert!(ending(&stage).is_empty() && stage.deletions() == 0);
    assert_eq!(stage.asked_for(), 3, "no replica is taken back for a pod that was not ended");
    stage.world.write(|w| w.admission.keeps_pods = false);
    stage.until("its SIGTERM", CALM, |s| said(s, "SIGTERM sent, it drains itself")).await;
    drop(held);
    stage.until("a rollout", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

/// P1 and P6 while calls fail, lie and linger, and the operator dies. The template leaves its grace out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_workers_lose_nothing_while_calls_fail_and_the_operator_dies() {
    for seed in [33, 34] {
        let mut stage = Stage::set(seed, 12, workers(3, None)).await;
        let limits = |serving| Limits { serving, pods: 7, kills: true };
        stage.until("the first three pods", limits(0), |s| s.settled("0", 3)).await;
        stage.change(&template("1"));
        stage.until("a rollout", limits(3), |s| s.settled("1", 3)).await;
        stage.change(&json!({"spec": {"replicas": 5}}));
        stage.until("two more", limits(3), |s| s.settled("1", 5)).await;
        stage.change(&json!({"spec": {"replicas": 2}}));
        stage.until("three fewer", limits(2), |s| s.settled("1", 2)).await;
        stage.lost_nothing();
        stage.dice.put_away();
        stage.delete();
        stage.until("the end", limits(0), Stage::nothing_left).await;
        stage.lost_nothing();
    }
}
