//! What a real cluster does to an operator: evicted pods, policies, webhooks that are down, an API server that is slow.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{alive, finished, ready};
use super::scenarios::{CALM, Stage, spec, template};

fn stalled(stage: &Stage, words: &str) -> bool {
    let app = stage.app().unwrap_or_default();
    app["status"]["phase"] == "Stalled"
        && app["status"]["waitingFor"].as_str().is_some_and(|said| said.contains(words))
}

fn running(stage: &Stage) -> usize {
    stage.world.list("pods").iter().filter(|p| alive(p) && !finished(p) && ready(p)).count()
}

/// Each of two may cost a spare; and where a loaded machine lets a spare run, that is drained like any other, with a spare of its own. A loop would
/// pass this within a second.
const TWO_AND_THEIR_SPARES: usize = 8;

/// For so long at most so many more are deleted: a ReplicaSet that looked just before the last scale makes a spare just after it, and takes it back.
async fn no_more_deletions(stage: &Stage, time: Duration, but: usize) {
    let (before, started) = (stage.deletions(), std::time::Instant::now());
    while started.elapsed() < time {
        stage.world.changed().await;
        let more = stage.deletions() - before;
        assert!(more <= but, "pods are ended again and again: {more} in {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_an_evicted_pod_counts_for_nothing() {
    let mut stage = Stage::set(31, 0, spec(3)).await;
    stage.until("three pods", CALM, |s| s.settled("0", 3)).await;
    stage.evict_one();
    stage.until("another in its place", CALM, |s| running(s) == 3).await;
    stage.change(&json!({"spec": {"replicas": 1}}));
    // One that serves, and the record; and no spare is on its way any more, for its replica was taken back.
    let settled = |s: &Stage| running(s) == 1 && s.world.list("pods").len() == 2 && s.asked_for() == 1;
    stage.until("two fewer", CALM, settled).await;
    assert!(stage.deletions() <= TWO_AND_THEIR_SPARES, "{} pods went for two", stage.deletions());
    no_more_deletions(&stage, Duration::from_secs(2), 1).await;
    stage.lost_nothing();
    stage.delete();
    stage.until("the end", CALM, |s| s.app().is_none()).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_that_is_refused_ends_nothing_until_it_goes_through() {
    let mut stage = Stage::set(32, 0, spec(3)).await;
    stage.until("three pods", CALM, |s| s.settled("0", 3)).await;
    stage.world.write(|w| w.admission.refuses_scales = true);
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("Stalled, in the policy's words", CALM, |s| stalled(s, "denied: change freeze")).await;
    assert_eq!(stage.deletions(), 0);
    no_more_deletions(&stage, Duration::from_secs(3), 0).await;
    stage.world.write(|w| w.admission.refuses_scales = false);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 1)).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_admission_rides_on_our_write_into_a_template() {
    let mut stage = Stage::set(33, 0, spec(2)).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    let templates = |s: &Stage| -> Vec<Value> {
        s.world.list("deployments").iter().map(|d| d["spec"]["template"].clone()).collect()
    };
    let before = templates(&stage);
    stage.world.write(|w| w.admission.mutates_templates = true);
    stage.change(&json!({"spec": {"drain": {"deadlineSeconds": 77}}}));
    stage.until("it is said", CALM, |s| stalled(s, "would change its pod template")).await;
    // Scaling is not touched by it.
    stage.change(&json!({"spec": {"replicas": 3}}));
    stage.until("one more", CALM, |s| running(s) == 3).await;
    assert_eq!(templates(&stage), before);
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_webhook_that_is_down_does_not_stop_drains() {
    let mut stage = Stage::set(34, 0, spec(2)).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    stage.world.write(|w| w.admission.service_webhook_is_down = true);
    stage.change(&json!({"spec": {"service": {"ports": [{"port": 81}]}, "template": {"metadata": {"labels": {"try": "1"}}}}}));
    stage
        .until("a rollout all the same", CALM, |s| {
            let pods = s.world.list("pods");
            pods.len() == 2 && pods.iter().all(|p| p["metadata"]["labels"]["try"] == "1" && ready(p))
        })
        .await;
    stage.until("and it is said", CALM, |s| stalled(s, "failed calling webhook")).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_may_not_be_written_are_left_alone() {
    let mut stage = Stage::set(35, 0, spec(2)).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    stage.world.write(|w| w.admission.refuses_pods = true);
    stage.change(&template("1"));
    stage.until("Stalled, in the policy's words", CALM, |s| stalled(s, "denied: pods are frozen")).await;
    let version = stage.world.open().version();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Of the pods nothing is written; status may still be on its trailing edge.
    assert!(stage.world.open().version() - version <= 3);
    stage.world.write(|w| w.admission.refuses_pods = false);
    stage.until("it goes on by itself", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

/// P6 with two seconds a call: it gets there, kills nobody busy and does not loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_takes_long_gets_there() {
    let mut stage = Stage::set(36, 0, spec(2)).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    stage.world.write(|w| w.admission.takes = Duration::from_millis(700));
    stage.change(&template("1"));
    stage.until("a rollout", CALM, |s| s.settled("1", 2)).await;
    assert!(stage.deletions() <= TWO_AND_THEIR_SPARES, "{} pods went for two", stage.deletions());
    stage.lost_nothing();
}

/// The same where a wrong choice of the ReplicaSet would lose something: the pods' grace is shorter than a drain may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_wrong_choice_would_lose_something_a_slow_api_server_is_waited_for() {
    let mut spec = spec(2);
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let mut stage = Stage::set(37, 0, spec).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    stage.world.write(|w| w.admission.takes = Duration::from_millis(700));
    stage.change(&template("1"));
    stage
        .until("Held, with what was measured", CALM, |s| {
            let app = s.app().unwrap_or_default();
            let said = app["status"]["waitingFor"].as_str().unwrap_or_default().to_owned();
            app["status"]["phase"] == "Held"
                && said.contains("too slow to retire safely: a dry run of the scale took 0.7 s")
        })
        .await;
    assert_eq!(stage.deletions(), 0);
    stage.world.write(|w| w.admission.takes = Duration::ZERO);
    stage.until("a rollout", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_is_said() {
    let mut stage = Stage::set(38, 0, spec(2)).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    // The break-glass, and then the day after.
    stage.world.write(|w| {
        let key = w.all.keys().find(|(plural, ..)| plural == "deployments").unwrap().clone();
        w.edit(&key, &json!({}), |d| {
            d["metadata"]["labels"].as_object_mut().unwrap().remove("graceful.dev/app");
            Ok(())
        })
        .unwrap();
    });
    stage.until("what to do is said", CALM, |s| stalled(s, "kubectl label deployment -n apps tasks-")).await;
    assert_eq!(stage.deletions(), 0);
    stage.lost_nothing();
}
