//! A plain Deployment is adopted, given back and left, while calls fail, lie and linger, and the operator dies between any two of them.

mod others;

use std::sync::atomic::Ordering;
use std::time::Duration;

use graceful_api::names;
use graceful_drain::TaskGuard;
use serde_json::{Value, json};

use super::cluster::{ADMIN, alive, ready};
use super::lifecycle::condition;
use super::scenarios::{CALM, Limits, Stage, spec};

/// The user's, and its Service.
const WEB: &str = "web";

/// Its pods are there, and have clients.
pub(super) async fn plain(seed: u64, replicas: u32) -> Stage {
    let mut stage = Stage::bare(seed, 0);
    stage.world.write(|w| {
        w.create("deployments", "apps", deployment(replicas)).unwrap();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": WEB},
            "spec": {"selector": {"tier": WEB}, "ports": [{"port": 80}]}});
        w.create("services", "apps", service).unwrap();
    });
    stage
        .until("the plain pods have clients", CALM, |s| {
            s.world.list("pods").iter().filter(|p| ready(p)).count() == replicas as usize
                && s.ledger.accepted.load(Ordering::Relaxed) > 0
        })
        .await;
    stage
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": WEB, "annotations": {(names::ARGO_SYNC_OPTIONS): "Replace=true"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"tier": WEB, "old": "true"}}, "template": {
            "metadata": {"labels": {"tier": WEB, "old": "true"}},
            "spec": {"containers": [{"name": "server", "image": "x", "ports": [{"name": "admin", "containerPort": ADMIN}]}]},
        }},
    })
}

pub(super) fn adopting(replicas: u32) -> Value {
    let mut spec = spec(replicas);
    spec["service"] = Value::Null;
    spec["template"]["metadata"]["labels"]["tier"] = json!(WEB);
    spec["adopt"] = json!({
        "deployment": WEB,
        "inFlight": {"port": "admin", "path": "/drain", "format": "JsonPointer", "jsonPointers": ["/inFlight/total"]},
        "drain": {"lingerSeconds": 0, "quietSeconds": 1},
    });
    spec
}

fn of(stage: &Stage, kind: &str, name: &str) -> Value {
    let all = stage.world.list(kind);
    all.into_iter().find(|o| o["metadata"]["name"] == name).unwrap_or_default()
}

/// Its pods are drained, and what is left is as it should be. The template's pods serve, and its own revision is at none.
pub(super) fn is_adopted(stage: &Stage, replicas: u64) -> bool {
    let old = of(stage, "deployments", WEB);
    stage.settled("0", replicas) && old["spec"]["replicas"] == 0 && old["spec"]["paused"] == true
}

fn no_client_was_refused(stage: &Stage) {
    stage.lost_nothing();
    assert_eq!(stage.ledger.closed_doors.load(Ordering::Relaxed), 0, "clients met a closed door");
    assert_eq!(stage.ledger.nowhere.load(Ordering::Relaxed), 0, "the Service sent clients nowhere");
}

/// Labels and annotations of ours.
fn marks(object: &Value) -> Vec<String> {
    let kinds = ["labels", "annotations"].into_iter().filter_map(|kind| object["metadata"][kind].as_object());
    kinds.flat_map(serde_json::Map::keys).filter(|key| key.starts_with("graceful.dev/")).cloned().collect()
}

async fn adopted_under_faults(seed: u64) {
    let mut stage = plain(seed, 3).await;
    let pods = stage.world.list("pods");
    stage.dice.throw(12);
    stage.begin(adopting(3)).await;
    let limits = Limits { serving: 0, pods: 4, kills: true };
    stage.until("the adoption", limits, |s| is_adopted(s, 3)).await;
    // Each of them got its label and drained; none was replaced by anybody.
    let log = stage.world.open().log.clone();
    for pod in &pods {
        let drained = |event: &Value| {
            event["object"]["metadata"]["uid"] == pod["metadata"]["uid"]
                && event["object"]["metadata"]["annotations"][names::DRAIN_REASON] == "Rollout"
        };
        assert!(log.iter().any(|(_, _, event)| drained(event)), "{} did not drain", pod["metadata"]["name"]);
    }
    assert_eq!(of(&stage, "services", WEB)["spec"]["selector"][names::SERVING_LABEL], "true");
    assert_eq!(
        of(&stage, "deployments", WEB)["metadata"]["annotations"][names::ARGO_SYNC_OPTIONS],
        "Replace=true,Prune=false"
    );
    no_client_was_refused(&stage);

    // The user's own is given back, empty, when the app is deleted.
    stage.delete();
    stage.until("the app to go", Limits { kills: true, ..CALM }, |s| s.app().is_none()).await;
    let back = of(&stage, "deployments", WEB);
    assert_eq!(
        (marks(&back), &back["spec"]["replicas"], &back["spec"]["paused"]),
        (Vec::new(), &json!(0), &json!(false))
    );
    assert_eq!(back["metadata"]["annotations"][names::ARGO_SYNC_OPTIONS], "Replace=true");
    assert_eq!(of(&stage, "services", WEB)["spec"]["selector"], json!({"tier": WEB}));
    stage.lost_nothing();
}

/// P1, P3: an operator may die at each step of an adoption.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_goes_on_wherever_the_operator_died() {
    futures::future::join_all((81..=84).map(adopted_under_faults)).await;
}

async fn given_back_under_faults(seed: u64) {
    let mut stage = plain(seed, 2).await;
    let pods: Vec<_> = stage.world.list("pods").iter().map(|p| p["metadata"]["uid"].clone()).collect();
    // One that is busy for as long keeps its pod from going.
    let tasks = stage.hold_a_task_in_each();
    stage.dice.throw(12);
    stage.begin(adopting(2)).await;
    let limits = Limits { serving: 0, pods: 3, kills: true };
    stage
        .until("a pod of the Deployment to drain", limits, |s| {
            s.world.list("pods").iter().any(|p| !p["metadata"]["annotations"][names::DRAIN_SINCE].is_null())
        })
        .await;
    stage.change(&json!({"metadata": {"annotations": {(names::LEAVE): "true"}}}));
    stage.delete();
    stage.until("the app to go", Limits { kills: true, ..CALM }, |s| s.app().is_none()).await;
    drop(tasks);
    let back = of(&stage, "deployments", WEB);
    assert_eq!(
        (marks(&back), &back["spec"]["replicas"], &back["spec"]["paused"]),
        (Vec::new(), &json!(2), &json!(false))
    );
    assert_eq!(back["spec"]["template"], deployment(2)["spec"]["template"]);
    assert_eq!(of(&stage, "services", WEB)["spec"]["selector"], json!({"tier": WEB}));
    assert_eq!(stage.world.list("deployments").len(), 1);
    let now = stage.world.list("pods");
    let here = |uid: &Value| now.iter().any(|p| alive(p) && p["metadata"]["uid"] == *uid);
    assert!(pods.iter().all(here), "a pod was replaced, though all of them came back");
    no_client_was_refused(&stage);
}

/// P1: the way back, out of the middle of an adoption.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_is_called_off_gives_back_what_it_took() {
    futures::future::join_all((91..=94).map(given_back_under_faults)).await;
}

/// A pod of a Deployment of two drains for the adoption; each has a task that ends when its guard is dropped.
async fn in_mid_adoption(seed: u64) -> (Stage, Vec<TaskGuard>) {
    let mut stage = plain(seed, 2).await;
    let tasks = stage.hold_a_task_in_each();
    stage.begin(adopting(2)).await;
    stage.until("a drain", CALM, |s| s.app().unwrap()["status"]["drainingReplicas"] == 1).await;
    (stage, tasks)
}

/// P6: what was sought for an adoption is not sought again and again once the app goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_goes_in_mid_adoption_asks_for_little() {
    let (mut stage, tasks) = in_mid_adoption(95).await;
    stage.delete();
    stage.until("all drain", CALM, |s| s.app().unwrap()["status"]["drainingReplicas"] == 2).await;
    let before = stage.world.open().calls;
    // Three times as long as the last look is good for, in tests.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = stage.world.open().calls - before;
    assert!(calls < 150, "{calls} calls in 3 s, while nothing changes");
    drop(tasks);
    stage.until("the app to go", CALM, |s| s.app().is_none()).await;
    stage.lost_nothing();
}

async fn left_under_faults(seed: u64) {
    let mut stage = Stage::settled_with(seed, spec(2)).await;
    let pods: Vec<_> = stage.world.list("pods").iter().map(|p| p["metadata"]["uid"].clone()).collect();
    stage.dice.throw(12);
    stage.change(&json!({"metadata": {"annotations": {(names::LEAVE): "true"}}}));
    stage.delete();
    stage.until("the app to go", Limits { serving: 2, pods: 2, kills: true }, |s| s.app().is_none()).await;
    let now: Vec<_> = stage.world.list("pods").iter().map(|p| p["metadata"]["uid"].clone()).collect();
    assert_eq!(now, pods, "leaving replaced a pod");
    for kind in ["deployments", "services"] {
        let left = stage.world.list(kind);
        assert_eq!(left.len(), 1, "{kind}");
        assert_eq!(marks(&left[0]), Vec::<String>::new(), "{kind}");
    }
    assert!(stage.world.list("poddisruptionbudgets").is_empty());
    stage.lost_nothing();
}

/// P1: what serves stays, as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_touches_no_pod() {
    futures::future::join_all((101..=104).map(left_under_faults)).await;
}

/// What stands in the way is told with what helps, nothing is made, and the adoption goes on by itself once it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_of_an_adoption_is_told() {
    let mut stage = plain(111, 1).await;
    let hpa = json!({"metadata": {"name": "busy"}, "spec": {"maxReplicas": 9,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": WEB}}});
    stage.world.write(|w| w.create("horizontalpodautoscalers", "apps", hpa)).unwrap();
    stage.begin(adopting(1)).await;
    let says = |s: &Stage, words: &str| {
        let app = s.app().unwrap();
        let stalled = condition(&app, "Stalled");
        stalled["reason"] == "AdoptionWaits"
            && stalled["message"].as_str().unwrap_or_default().contains(words)
    };
    stage.until("the autoscaler is named", CALM, |s| says(s, "kubectl -n apps patch hpa busy")).await;
    assert_eq!(
        (stage.world.list("deployments").len(), marks(&of(&stage, "deployments", WEB))),
        (1, Vec::new())
    );
    stage.change(&json!({"spec": {"adopt": {"deployment": "wbe"}}}));
    stage.until("the typing error", CALM, |s| says(s, "there is no Deployment wbe")).await;
    stage.change(&json!({"spec": {"adopt": {"deployment": WEB, "inFlight": {"port": "nowhere"}}}}));
    let key = |plural: &str, name: &str| (plural.to_owned(), "apps".to_owned(), name.to_owned());
    stage.world.write(|w| w.remove(&key("horizontalpodautoscalers", "busy")));
    stage
        .until("the port", CALM, |s| says(s, "spec.adopt.inFlight.port: no container has a port named"))
        .await;
    stage.change(&json!({"spec": {"adopt": {"inFlight": {"port": "admin"}}}}));
    stage.until("the adoption", CALM, |s| is_adopted(s, 1)).await;
    no_client_was_refused(&stage);
}

/// Somebody writes the Service's selector.
fn select(stage: &Stage, serving: Value) {
    let key = ("services".to_owned(), "apps".to_owned(), WEB.to_owned());
    stage.world.write(|w| {
        w.edit(&key, &json!({}), |service| {
            let selector = service["spec"]["selector"].as_object_mut().unwrap();
            match serving {
                Value::Null => drop(selector.remove(names::SERVING_LABEL)),
                value => drop(selector.insert(names::SERVING_LABEL.to_owned(), value)),
            }
            Ok(())
        })
        .unwrap();
    });
}

/// A selector that somebody puts back is left, and stops the drains; once it asks for the label again they go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_that_is_put_back_stops_drains() {
    let mut stage = plain(121, 2).await;
    let tasks = stage.hold_a_task_in_each();
    stage.begin(adopting(2)).await;
    let fenced = |s: &Stage| of(s, "services", WEB)["spec"]["selector"][names::SERVING_LABEL] == "true";
    stage.until("a drain", CALM, |s| fenced(s) && s.app().unwrap()["status"]["drainingReplicas"] == 1).await;
    select(&stage, Value::Null);
    drop(tasks);
    stage
        .until("it is told", CALM, |s| condition(&s.app().unwrap(), "Stalled")["reason"] == "UnfencedService")
        .await;
    let before = stage.deletions();
    let started = std::time::Instant::now();
    stage.until("quietSeconds pass, three times over", CALM, |_| started.elapsed().as_secs() >= 3).await;
    assert_eq!(stage.deletions(), before, "a pod was ended while clients were sent to it");
    assert!(!fenced(&stage), "the operator fights over a selector");
    select(&stage, json!("true"));
    stage.until("the adoption", CALM, |s| is_adopted(s, 2)).await;
    no_client_was_refused(&stage);
}

/// P1: what somebody else runs behind the same Service keeps its clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_others_share_is_not_fenced_over_their_heads() {
    let mut stage = plain(131, 1).await;
    let mut canary = deployment(1);
    canary["metadata"] = json!({"name": "canary"});
    let labels = json!({"tier": WEB, "canary": "true"});
    canary["spec"]["selector"]["matchLabels"] = labels.clone();
    canary["spec"]["template"]["metadata"]["labels"] = labels;
    stage.world.write(|w| w.create("deployments", "apps", canary)).unwrap();
    let of_others = |s: &Stage| s.world.list("pods").into_iter().find(|p| p["owner"] == "canary");
    stage.until("its pod", CALM, |s| of_others(s).is_some_and(|p| ready(&p))).await;
    let name = of_others(&stage).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    stage.begin(adopting(1)).await;
    let words = format!("Service {WEB} also sends clients to pod {name}, which is not of this app");
    stage
        .until("it is told", CALM, |s| {
            let app = s.app().unwrap();
            let stalled = condition(&app, "Stalled");
            stalled["status"] == "True" && stalled["message"].as_str().unwrap_or_default().contains(&words)
        })
        .await;
    let fenced = |s: &Stage| of(s, "services", WEB)["spec"]["selector"][names::SERVING_LABEL] == "true";
    assert!(!fenced(&stage), "the canary would get no clients any more");
    let key = ("pods".to_owned(), "apps".to_owned(), name);
    stage.world.write(|w| {
        w.edit(&key, &json!({}), |pod| {
            pod["metadata"]["labels"][names::SERVING_LABEL] = json!("true");
            Ok(())
        })
        .unwrap();
    });
    let drained = |s: &Stage| of(s, "deployments", WEB)["spec"]["replicas"] == 0;
    stage.until("the adoption", CALM, |s| fenced(s) && drained(s)).await;
    no_client_was_refused(&stage);
}

/// What cannot be read of a Deployment to adopt holds up nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_runs_goes_on_while_the_one_to_adopt_cannot_be_read() {
    let mut stage = Stage::settled_with(141, spec(1)).await;
    stage.world.write(|w| {
        w.create("deployments", "apps", deployment(0)).unwrap();
        w.admission.hides = Some("horizontalpodautoscalers");
    });
    stage.change(&json!({"spec": {"adopt": adopting(1)["adopt"]}}));
    stage
        .until("it is told", CALM, |s| {
            let app = s.app().unwrap();
            condition(&app, "Warning")["message"].as_str().unwrap_or_default().contains("cannot be read")
        })
        .await;
    stage.change(&json!({"spec": {"replicas": 2}}));
    stage.until("two serve", CALM, |s| s.settled("0", 2)).await;
    stage.world.write(|w| w.admission.hides = None);
    stage.until("the adoption", CALM, |s| of(s, "deployments", WEB)["spec"]["paused"] == true).await;
    stage.lost_nothing();
}
