//! What bad input and the ways to end get, on an API server that works.

use std::time::Duration;

use graceful_api::marks::{AUTOSCALERS, BUSY_LABEL, OURS};
use graceful_api::names;
use serde_json::{Value, json};

use super::cluster::key;
use super::scenarios::{CALM, Stage, node, spec, template};

pub(super) fn condition<'a>(app: &'a Value, kind: &str) -> &'a Value {
    let conditions = app["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

fn pods(stage: &Stage) -> Vec<String> {
    stage.world.list("pods").iter().map(|p| p["metadata"]["uid"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_template_touches_nothing_and_its_correction_goes_through() {
    let mut stage = Stage::settled_with(11, spec(2)).await;
    let before = pods(&stage);
    stage.change(&json!({"spec": {"template": {"metadata": {"labels": {"try": "1", "refuse": "me"}}}}}));
    stage
        .until("Stalled, with the API server's words", CALM, |s| {
            let app = s.app().unwrap();
            app["status"]["phase"] == "Stalled"
                && condition(&app, "Stalled")["message"]
                    .as_str()
                    .unwrap_or_default()
                    .contains("refused by the test")
        })
        .await;
    assert_eq!(pods(&stage), before);
    stage.change(&json!({"spec": {"template": {"metadata": {"labels": {"refuse": null}}}}}));
    stage.until("the correction", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_contradicts_itself_touches_nothing_and_does_not_hold_a_deletion() {
    let mut stage = Stage::settled_with(12, spec(2)).await;
    let before = pods(&stage);
    stage.change(&json!({"spec": {"inFlight": {"port": "nowhere"}, "replicas": 1}}));
    stage
        .until("Stalled, with the field's name", CALM, |s| {
            let app = s.app().unwrap();
            let stalled = condition(&app, "Stalled");
            stalled["reason"] == "InvalidSpec"
                && stalled["message"].as_str().unwrap_or_default().contains("spec.inFlight.port")
        })
        .await;
    assert_eq!(pods(&stage), before);
    stage.delete();
    stage.until("the end", CALM, Stage::nothing_left).await;
    stage.lost_nothing();
}

/// Nobody can correct it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_contradicts_itself_does_not_hold_its_namespace_though_it_was_to_be_left() {
    let mut stage = Stage::settled_with(16, spec(1)).await;
    stage.change(&json!({"metadata": {"annotations": {(names::LEAVE): "true"}}, "spec": {"inFlight": {"port": "nowhere"}}}));
    stage.delete();
    stage
        .until("its field's name", CALM, |s| {
            condition(&s.app().unwrap(), "Stalled")["reason"] == "InvalidSpec"
        })
        .await;
    stage.world.write(|w| w.admission.namespace_goes = true);
    stage.change(&json!({"metadata": {"labels": {"looked": "at"}}}));
    stage.until("the app to go", CALM, |s| s.app().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphaning_deletion_leaves_the_pods_and_takes_the_budget() {
    let mut stage = Stage::settled_with(13, spec(2)).await;
    let before = pods(&stage);
    stage.change(&json!({"metadata": {"finalizers": ["graceful.dev/drain", "orphan"]}}));
    stage.delete();
    stage
        .until("our finalizer to go", CALM, |s| {
            s.app().unwrap()["metadata"]["finalizers"] == json!(["orphan"])
        })
        .await;
    stage.change(&json!({"metadata": {"finalizers": []}}));
    stage.until("the app to go", CALM, |s| s.app().is_none()).await;
    assert!(stage.world.list("poddisruptionbudgets").is_empty());
    assert_eq!(stage.world.list("services").len(), 1);
    assert_eq!(pods(&stage), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_at_a_deadline_is_counted_and_shown() {
    let mut spec = spec(1);
    spec["drain"] = json!({"lingerSeconds": 0, "deadlineSeconds": 1, "onDeadline": "Terminate"});
    let mut stage = Stage::settled_with(14, spec).await;
    // Work that would take for ever.
    let held = stage.hold_a_task();
    stage.change(&template("1"));
    stage
        .until("the cut in status", CALM, |s| {
            s.settled("1", 1) && s.app().unwrap()["status"]["cut"]["pods"] == 1
        })
        .await;
    let cut = &stage.app().unwrap()["status"]["cut"];
    let lost = stage.ledger.lost.load(std::sync::atomic::Ordering::Relaxed);
    assert!(lost >= 1, "the held task was in flight");
    assert_eq!(cut["tasks"], lost);
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_others_made_is_not_taken_over() {
    let mut stage = Stage::bare(15, 0);
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tasks"}, "spec": {"selector": {"a": "b"}}});
    stage.world.write(|w| w.create("services", "apps", theirs.clone()).unwrap());
    stage.begin(spec(1)).await;
    stage
        .until("it to be Stalled, and to say why", CALM, |s| {
            let Some(app) = s.app() else { return false };
            let says = |kind: &str| {
                let condition = condition(&app, kind);
                condition["status"] == "True"
                    && condition["message"].as_str().unwrap_or_default().contains("a Service named tasks")
            };
            says("Warning") && says("Stalled") && app["status"]["servingReplicas"] == 1
        })
        .await;
    assert_eq!(stage.world.list("services")[0]["spec"], theirs["spec"]);
    stage.delete();
    stage.until("the app to go", CALM, |s| s.app().is_none()).await;
    assert_eq!(stage.world.list("services").len(), 1);
}

/// Whatever is drained there is made there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_tolerates_a_cordon_is_drained_once() {
    let mut spec = spec(2);
    spec["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let mut stage = Stage::settled_with(57, spec).await;
    cordon(&stage);
    let left_alone = |s: &Stage| {
        let app = s.app().unwrap_or_default();
        let warned =
            app["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["reason"] == "NodeKept");
        s.settled("0", 2) && warned
    };
    stage.until("all pods are new, and left alone", CALM, left_alone).await;
    let ended = stage.deletions();
    assert!(ended >= 2, "both were there before the cordon");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(stage.deletions(), ended, "it goes on");
    stage.lost_nothing();
}

pub(super) fn cordon(stage: &Stage) {
    stage.world.write(|w| {
        let first = ("nodes".to_owned(), String::new(), "n1".to_owned());
        let cordon = |node: &mut Value| {
            node["spec"]["unschedulable"] = json!(true);
            Ok(())
        };
        w.edit(&first, &json!({}), cordon).unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cordoned_is_emptied() {
    let mut stage = Stage::settled_with(56, spec(2)).await;
    stage.world.write(|w| w.create("nodes", "", node("n2")).unwrap());
    cordon(&stage);
    stage
        .until("all pods are on the other node", CALM, |s| {
            s.settled("0", 2) && s.world.list("pods").iter().all(|pod| pod["spec"]["nodeName"] == "n2")
        })
        .await;
    stage.lost_nothing();
}

/// The budget is narrowed to busy pods only once each pod says whether it is one: until then it holds all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_for_busy_pods_waits_for_their_marks() {
    let mut stage = Stage::settled_with(58, spec(2)).await;
    let narrow = |s: &Stage| {
        let budget = &s.world.list("poddisruptionbudgets")[0];
        !budget["spec"]["selector"]["matchLabels"]["graceful.dev/busy"].is_null()
    };
    let annotation = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].clone();
    assert!(!narrow(&stage), "Hold holds all pods");
    stage.change(&json!({"spec": {"disruption": "HoldWhileBusy"}}));
    let in_step = |p: &Value| {
        let (evict, disrupt) = if p["metadata"]["labels"]["graceful.dev/busy"].is_null() {
            (json!("true"), Value::Null)
        } else {
            (json!("false"), json!("true"))
        };
        annotation(p, "cluster-autoscaler.kubernetes.io/safe-to-evict") == evict
            && annotation(p, "karpenter.sh/do-not-disrupt") == disrupt
    };
    let done = |s: &Stage| {
        let pods = s.world.list("pods");
        let marked = pods.iter().all(|p| !annotation(p, "graceful.dev/autoscaler-annotations").is_null());
        assert!(marked || !narrow(s), "a pod without a mark may be evicted");
        narrow(s) && pods.iter().all(in_step)
    };
    stage.until("each pod says whether it is busy", CALM, done).await;
    // A new revision's are born busy.
    stage.change(&template("1"));
    let born = |s: &Stage| {
        s.world.list("pods").iter().any(|p| {
            p["metadata"]["labels"]["try"] == "1" && p["metadata"]["labels"]["graceful.dev/busy"] == "true"
        })
    };
    stage.until("a pod of the new revision", CALM, born).await;
    stage.until("the rollout", CALM, |s| s.settled("1", 2) && narrow(s)).await;
    stage.lost_nothing();
    // Where a mark cannot be written, a pod may be busy without it.
    let pods = stage.world.list("pods");
    stage.world.write(|w| {
        w.admission.refuses_pods = true;
        let as_if_idle = |pod: &mut Value| {
            let metadata = &mut pod["metadata"];
            metadata["labels"].as_object_mut().unwrap().remove("graceful.dev/busy");
            metadata["annotations"].as_object_mut().unwrap().remove("karpenter.sh/do-not-disrupt");
            metadata["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] = json!("true");
            Ok(())
        };
        for pod in pods {
            let _ended_meanwhile = w.edit(&key(&pod), &json!({}), as_if_idle);
        }
    });
    stage.until("the budget to hold all pods", CALM, |s| !narrow(s)).await;
}

/// Autoscalers go by a pod's annotations, whatever our mode is: they are taken off as it changes, of pods that a template of before makes busy as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_are_taken_off_once_evictions_wait_for_nothing() {
    let mut spec = spec(2);
    spec["disruption"] = json!("HoldWhileBusy");
    let mut stage = Stage::settled_with(59, spec).await;
    let marks = [BUSY_LABEL, OURS, AUTOSCALERS[0].key, AUTOSCALERS[1].key];
    let marked = |pod: &Value| {
        let metadata = &pod["metadata"];
        marks.iter().any(|key| !metadata["labels"][key].is_null() || !metadata["annotations"][key].is_null())
    };
    let count = |s: &Stage| s.world.list("pods").iter().filter(|pod| marked(pod)).count();
    assert_eq!(count(&stage), 2);
    stage.change(&json!({"spec": {"disruption": "Allow"}}));
    stage.until("no mark", CALM, |s| count(s) == 0 && s.settled("0", 2)).await;
    stage.change(&json!({"spec": {"replicas": 3}}));
    stage.until("the third, born busy and unmarked", CALM, |s| s.settled("0", 3) && count(s) == 0).await;
    let template = &stage.world.list("deployments")[0]["spec"]["template"];
    assert!(marked(template), "which is written once");
    stage.lost_nothing();
}

/// P8: a policy that keeps a Deployment at some replicas keeps the app as well: in its own words, and no longer than it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_a_policy_on_scales_holds_says_so_and_ends_with_it() {
    for (seed, least, words) in [(71, 2, "makes replicas 2 of it"), (72, 0, "denied: change freeze")] {
        let mut stage = Stage::settled_with(seed, spec(3)).await;
        stage.world.write(|w| {
            w.admission.least_replicas = least;
            w.admission.refuses_scales = least == 0;
        });
        stage.delete();
        let held = |s: &Stage| {
            let status = s.app().unwrap_or_default()["status"].clone();
            let said = status["waitingFor"].as_str().unwrap_or_default().to_owned();
            status["phase"] == "Deleting" && said.contains(words) && said.contains("no pod of it is ended")
        };
        stage.until("it says in whose words it waits", CALM, held).await;
        let deletions = stage.deletions();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.deletions(), deletions, "a pod is ended whose replica cannot be taken back");
        stage.world.write(|w| (w.admission.least_replicas, w.admission.refuses_scales) = (0, false));
        stage.until("it is gone", CALM, Stage::nothing_left).await;
        stage.lost_nothing();
    }
}

/// `/livez` is told of each plan, from the moment that it is asked for to its end: neither is forgotten, or the process would be ended for nothing or for no hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pulse_is_of_the_plans_that_are_made() {
    let mut stage = Stage::settled_with(65, spec(2)).await;
    stage.change(&template("1"));
    stage.until("the rollout", CALM, |s| s.settled("1", 2)).await;
    stage.until("nothing waits and nothing runs", CALM, |s| s.pulse.counts() == (0, 0)).await;
    // A write that has no answer: its plan goes on, and what changes meanwhile is asked for.
    stage.world.write(|w| w.admission.takes = Duration::from_millis(500));
    stage.change(&template("2"));
    stage.until("a plan is under way", CALM, |s| s.pulse.counts() == (0, 1)).await;
    // Changed at each look, since a plan that is short may be over before another is asked for.
    let limit = std::cell::Cell::new(3);
    stage
        .until("and another is waited for", CALM, |s| {
            limit.set(3 + (limit.get() + 1) % 5);
            s.change(&json!({"spec": {"revisionHistoryLimit": limit.get()}}));
            s.pulse.counts() == (1, 1)
        })
        .await;
    stage.world.write(|w| w.admission.takes = Duration::ZERO);
    stage.until("the next rollout", CALM, |s| s.settled("2", 2)).await;
    stage.until("nothing waits and nothing runs", CALM, |s| s.pulse.counts() == (0, 0)).await;
    stage.lost_nothing();
}
