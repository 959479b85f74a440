//! Calls that were done, and whose answer never came: a load balancer that is replaced, an API server that is restarted.

use std::time::Duration;

use serde_json::json;

use super::scenarios::{CALM, Stage, spec};

/// Each of two may cost a spare, which is taken back while it is Pending. A loaded machine may let one run, with a spare of its own.
const TWO_AND_THEIR_SPARES: usize = 8;

async fn two_fewer(seed: u64, reset: &'static [&'static str]) {
    let mut stage = Stage::settled_with(seed, spec(3)).await;
    stage.world.write(|w| w.admission.resets = reset);
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage
        .until("two fewer", CALM, |s| {
            let deletions = s.deletions();
            assert!(deletions <= TWO_AND_THEIR_SPARES, "{deletions} pods went for two");
            let status = s.app().unwrap_or_default()["status"].clone();
            let said = status["waitingFor"].as_str().unwrap_or_default().to_owned();
            assert!(!said.contains("without an answer") && !said.contains("was not scaled"), "{said}");
            s.settled("0", 1)
        })
        .await;
    stage.world.write(|w| w.admission.resets = &[]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stage.settled("0", 1), "a pod came in the place of one that went");
    stage.lost_nothing();
}

/// P6: the pod is looked at, and its replica goes with it; otherwise a pod would be made in its place each time, and that one drained, and so on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_whose_answer_is_lost_is_looked_up() {
    two_fewer(61, &["DELETE pods"]).await;
}

/// P6: the same of the scale that follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_whose_answer_is_lost_is_looked_up() {
    two_fewer(62, &["PATCH deployments/scale"]).await;
}
