//! EndpointSlices that follow late: their controller is busy, or away with the API server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::scenarios::{CALM, Stage, spec};

/// Lists every pod there is, as the EndpointSlice controller does before it has heard of a drain. That of another Service lists them for ever.
fn list_them_all(stage: &Stage) {
    let endpoints: Vec<_> = stage
        .world
        .list("pods")
        .iter()
        .map(|p| json!({"addresses": ["127.0.0.1"], "targetRef": {"kind": "Pod", "uid": p["metadata"]["uid"]}}))
        .collect();
    for (name, service) in [("tasks-abc", "tasks"), ("others-abc", "others")] {
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints,
        });
        stage.world.write(|w| w.create("endpointslices", "apps", slice).unwrap());
    }
}

fn follow(stage: &Stage) {
    let key = ("endpointslices".to_owned(), "apps".to_owned(), "tasks-abc".to_owned());
    stage.world.write(|w| w.remove(&key));
}

fn waiting_for(stage: &Stage) -> String {
    let app: Value = stage.app().unwrap_or_default();
    app["status"]["waitingFor"].as_str().unwrap_or_default().to_owned()
}

fn lives(stage: &Stage) -> usize {
    stage.world.list("pods").iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count()
}

/// Keeps P8: what is waited for is named. No client is refused by a pod that its Service still sends clients to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_an_endpoint_slice_lists_is_not_told_to_close() {
    let mut stage = Stage::settled_with(61, spec(2)).await;
    list_them_all(&stage);
    stage.change(&json!({"spec": {"replicas": 1}}));
    let said = |s: &Stage| waiting_for(s).contains("EndpointSlice tasks-abc still lists it");
    stage.until("it is said", CALM, said).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stage.closed().is_empty(), "one was told to close");
    assert_eq!(lives(&stage), 2);
    follow(&stage);
    stage.until("one fewer", CALM, |s| s.settled("0", 1)).await;
    stage.lost_nothing();
}

/// Keeps P7: what cannot be read is as good as listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_slices_that_cannot_be_read_are_waited_for() {
    let mut stage = Stage::settled_with(62, spec(2)).await;
    stage.world.write(|w| w.admission.hides = Some("endpointslices"));
    stage.change(&json!({"spec": {"replicas": 1}}));
    let said = |s: &Stage| waiting_for(s).contains("cannot be read: cannot list EndpointSlices");
    stage.until("it is said", CALM, said).await;
    assert!(stage.closed().is_empty(), "one was told to close");
    stage.world.write(|w| w.admission.hides = None);
    stage.until("one fewer", CALM, |s| s.settled("0", 1)).await;
    stage.lost_nothing();
}

/// A pod that is put back has opened before it gets its label: neither a slow write of another's nor a leader that dies in between has its clients refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_put_back_opens_before_it_gets_its_label() {
    let mut stage = Stage::settled_with(63, spec(4)).await;
    let _tasks: Vec<_> = stage.hold_a_task_in_each();
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("three are closed", CALM, |s| s.closed().len() == 3).await;
    stage.world.write(|w| w.admission.pods_take = Duration::from_millis(1500));
    stage.change(&json!({"spec": {"replicas": 4}}));
    let routed = |s: &Stage| {
        let label = |p: &Value| p["metadata"]["labels"]["graceful.dev/serving"] == "true";
        s.world.list("pods").iter().filter(|p| label(p)).count()
    };
    stage.until("all are open", CALM, |s| s.closed().is_empty()).await;
    assert!(routed(&stage) < 4, "the labels were written first");
    stage.until("one is put back", CALM, |s| routed(s) == 2).await;
    stage.kill_the_operator().await;
    stage.world.write(|w| w.admission.pods_take = Duration::ZERO);
    stage.until("all serve", CALM, |s| s.closed().is_empty() && routed(s) == 4).await;
    assert_eq!(stage.ledger.closed_doors.load(Ordering::Relaxed), 0, "clients were refused");
}
