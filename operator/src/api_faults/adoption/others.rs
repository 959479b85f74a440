//! Others write to the Deployment, its Services and its scale while it is adopted: what they do is told, nobody is fought for ever, and no client or task pays for it.

use graceful_api::names;
use serde_json::{Value, json};

use super::super::lifecycle::condition;
use super::super::scenarios::{CALM, Stage};
use super::{
    WEB, adopting, deployment, in_mid_adoption, is_adopted, marks, no_client_was_refused, of, plain, select,
};

/// Labels, annotations and `paused` of the Deployment are as its user wrote them.
fn is_untouched(stage: &Stage) -> bool {
    let web = of(stage, "deployments", WEB);
    marks(&web).is_empty() && web["spec"]["paused"].is_null()
}

fn stalled(stage: &Stage, words: &[&str]) -> bool {
    let app = stage.app().unwrap();
    let stalled = condition(&app, "Stalled");
    let message = stalled["message"].as_str().unwrap_or_default();
    stalled["status"] == "True" && words.iter().all(|words| message.contains(words))
}

/// P8: what a webhook takes off our writes is found before the first of them: nobody's objects would be left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_webhook_would_make_of_an_adoption_is_told_and_not_done() {
    let mut stage = plain(151, 1).await;
    stage.world.write(|w| w.admission.strips = Some(("deployments", names::ADOPTED)));
    stage.begin(adopting(1)).await;
    stage.until("the Deployment's", CALM, |s| stalled(s, &["Deployment web", names::ADOPTED])).await;
    assert!(is_untouched(&stage), "{}", of(&stage, "deployments", WEB));
    stage.world.write(|w| w.admission.strips = Some(("services", names::FENCED)));
    stage.until("the Service's", CALM, |s| stalled(s, &["Service web", names::FENCED])).await;
    assert_eq!(of(&stage, "services", WEB)["spec"]["selector"], json!({"tier": WEB}));
    stage.world.write(|w| w.admission.strips = None);
    stage.until("the adoption", CALM, |s| is_adopted(s, 1)).await;
    no_client_was_refused(&stage);
}

fn hpa(stage: &Stage, there: bool) {
    let hpa = json!({"metadata": {"name": "late"}, "spec": {"maxReplicas": 9,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": WEB}}});
    let key = ("horizontalpodautoscalers".to_owned(), "apps".to_owned(), "late".to_owned());
    stage.world.write(|w| match there {
        true => drop(w.create("horizontalpodautoscalers", "apps", hpa)),
        false => drop(w.remove(&key)),
    });
}

/// P1, P6: an autoscaler that comes in the middle of it would make anew each pod that is ended, or end busy ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_that_comes_later_stops_the_drains() {
    let (mut stage, tasks) = in_mid_adoption(171).await;
    hpa(&stage, true);
    stage
        .until("it is named", CALM, |s| stalled(s, &["HorizontalPodAutoscaler late", "patch hpa late"]))
        .await;
    let before = stage.deletions();
    drop(tasks);
    let some_time = async |stage: &mut Stage| {
        let started = std::time::Instant::now();
        stage.until("quietSeconds pass, three times over", CALM, |_| started.elapsed().as_secs() >= 3).await;
    };
    some_time(&mut stage).await;
    assert_eq!(stage.deletions(), before, "a pod was ended that the autoscaler would make anew");
    stage.world.write(|w| w.admission.hides = Some("horizontalpodautoscalers"));
    some_time(&mut stage).await;
    assert_eq!(stage.deletions(), before, "one that cannot be read is not gone");
    stage.world.write(|w| w.admission.hides = None);
    hpa(&stage, false);
    stage.until("the adoption", CALM, |s| is_adopted(s, 2)).await;
    no_client_was_refused(&stage);
}

/// P6, P8: whoever puts `spec.replicas` back each time is told of, and pods come and go slowly until that stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_is_scaled_up_again_and_again_is_told() {
    let mut stage = plain(181, 1).await;
    stage.begin(adopting(1)).await;
    let raise = |s: &Stage| {
        let web = of(s, "deployments", WEB);
        if web["spec"]["replicas"] == 0 {
            let key = ("deployments".to_owned(), "apps".to_owned(), WEB.to_owned());
            let back = |web: &mut Value| {
                web["spec"]["replicas"] = json!(1);
                Ok(())
            };
            s.world.write(|w| drop(w.edit(&key, &json!({}), back)));
        }
    };
    stage
        .until("it is told", CALM, |s| {
            raise(s);
            stalled(s, &["Deployment web was scaled up by somebody else", "--show-managed-fields"])
        })
        .await;
    stage.until("the adoption", CALM, |s| is_adopted(s, 1)).await;
    no_client_was_refused(&stage);
}

/// P8: a canary that comes behind the Service once that is fenced gets no clients, and nobody would know why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_come_behind_a_fenced_service_are_told() {
    let mut stage = plain(191, 1).await;
    let tasks = stage.hold_a_task_in_each();
    stage.begin(adopting(1)).await;
    let fenced = |s: &Stage| of(s, "services", WEB)["spec"]["selector"][names::SERVING_LABEL] == "true";
    stage.until("the fence", CALM, fenced).await;
    let mut canary = deployment(1);
    canary["metadata"] = json!({"name": "canary"});
    let labels = json!({"tier": WEB, "canary": "true"});
    canary["spec"]["selector"]["matchLabels"] = labels.clone();
    canary["spec"]["template"]["metadata"]["labels"] = labels;
    stage.world.write(|w| w.create("deployments", "apps", canary)).unwrap();
    stage
        .until("it is told", CALM, |s| {
            let app = s.app().unwrap();
            let warning = condition(&app, "Warning")["message"].as_str().unwrap_or_default().to_owned();
            warning.contains("Service web sends no clients to pod canary-")
                && warning.contains(names::SERVING_LABEL)
        })
        .await;
    drop(tasks);
    stage.until("the drain goes on", CALM, |s| of(s, "deployments", WEB)["spec"]["replicas"] == 0).await;
}

/// P6: where GitOps replaces whole objects, our annotation goes with the selector: the Service is not fenced at each sync without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_replaced_again_and_again_is_told() {
    let mut stage = plain(201, 1).await;
    let tasks = stage.hold_a_task_in_each();
    stage.begin(adopting(1)).await;
    let fenced = |s: &Stage| of(s, "services", WEB)["spec"]["selector"][names::SERVING_LABEL] == "true";
    let replace = |s: &Stage| {
        let key = ("services".to_owned(), "apps".to_owned(), WEB.to_owned());
        let back = |service: &mut Value| {
            service["spec"]["selector"] = json!({"tier": WEB});
            service["metadata"]["annotations"] = json!({});
            Ok(())
        };
        s.world.write(|w| drop(w.edit(&key, &json!({}), back)));
    };
    stage
        .until("it is told", CALM, |s| {
            if fenced(s) {
                replace(s);
            }
            stalled(s, &["Service web was fenced", "Replace=true"])
        })
        .await;
    select(&stage, json!("true"));
    drop(tasks);
    stage.until("the adoption", CALM, |s| is_adopted(s, 1)).await;
}
