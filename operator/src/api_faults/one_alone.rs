//! What costs one app must cost that app alone: objects that cannot be read, a panic, and the mere number of others.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::scenarios::{CALM, Stage, spec, template};
use super::world::merge;

fn app(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": name}, "spec": spec})
}

fn add(stage: &Stage, plural: &str, object: Value) {
    stage.world.write(|w| w.create(plural, "apps", object)).unwrap();
}

fn edit(stage: &Stage, plural: &str, name: &str, patch: &Value) {
    let key = (plural.to_owned(), "apps".to_owned(), name.to_owned());
    stage.world.write(|w| {
        w.edit(&key, &json!({}), |object| {
            merge(object, patch);
            Ok(())
        })
        .unwrap()
    });
}

fn get(stage: &Stage, plural: &str, name: &str) -> Value {
    let named = |o: &Value| o["metadata"]["name"] == name;
    stage.world.list(plural).into_iter().find(named).unwrap_or_default()
}

fn stalled(app: &Value) -> (&str, &str) {
    let conditions = app["status"]["conditions"].as_array();
    let stalled = conditions.into_iter().flatten().find(|c| c["type"] == "Stalled" && c["status"] == "True");
    let text = |key: &str| stalled.and_then(|s| s[key].as_str()).unwrap_or_default();
    (text("reason"), text("message"))
}

/// 0 replicas of it, with a Service.
fn empty() -> Value {
    spec(0)
}

fn poisoned(patch: &Value) -> Value {
    let mut spec = empty();
    merge(&mut spec, patch);
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_cannot_be_read_costs_itself_alone_and_says_so() {
    let mut stage = Stage::settled_with(21, spec(2)).await;
    let deep = (0..150).fold(json!(1), |inner, _| json!({ "a": inner }));
    let poison = [
        ("a-number", json!({"rollout": {"maxSurge": 3_000_000_000_u64}}), "spec.rollout.maxSurge"),
        (
            "a-port",
            json!({"service": {"ports": [{"port": 80, "targetPort": 99_999_999_999_u64}]}}),
            "spec.service",
        ),
        ("a-word", json!({"disruption": "OfTheFuture"}), "spec.disruption"),
        ("deep", json!({"template": {"metadata": {"x": deep}}}), "nested deeper"),
    ];
    for (name, patch, _) in &poison {
        add(&stage, "gracefulapps", app(name, &poisoned(patch)));
    }
    // A new operator lists them all at its start.
    stage.kill_the_operator().await;
    stage.change(&template("1"));
    stage.until("the sound app to roll", CALM, |s| s.settled("1", 2)).await;
    stage
        .until("each to say what is wrong with it", CALM, |s| {
            poison.iter().all(|(name, _, words)| {
                let app = get(s, "gracefulapps", name);
                let (reason, message) = stalled(&app);
                app["status"]["phase"] == "Stalled" && reason == "InvalidSpec" && message.contains(words)
            })
        })
        .await;
    assert_eq!(stage.world.list("deployments").len(), 2, "nothing was made of what cannot be read");
    // And goes on when it can be read again.
    edit(&stage, "gracefulapps", "a-word", &json!({"spec": {"disruption": "Allow"}}));
    stage
        .until("its correction", CALM, |s| get(s, "gracefulapps", "a-word")["status"]["phase"] == "Serving")
        .await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_becomes_unreadable_keeps_what_it_has_and_its_deletion_still_drains() {
    let mut stage = Stage::settled_with(22, spec(2)).await;
    stage.change(&json!({"spec": {"replicas": 1, "rollout": {"maxSurge": 3_000_000_000_u64}}}));
    stage.until("Stalled", CALM, |s| stalled(&s.app().unwrap()).0 == "InvalidSpec").await;
    stage.kill_the_operator().await;
    let held = stage.hold_a_task();
    stage.delete();
    stage
        .until("the drain to wait for a task", CALM, |s| {
            s.app().unwrap()["status"]["phase"] == "Deleting" && s.world.list("pods").len() == 1
        })
        .await;
    drop(held);
    stage.until("the end", CALM, Stage::nothing_left).await;
    stage.lost_nothing();
}

/// A time that Kubernetes stores and this build cannot hold.
const OF_NO_CALENDAR: &str = "9999-12-31T23:59:59Z";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_cannot_be_read_stops_its_app_with_a_word() {
    let mut stage = Stage::settled_with(23, spec(2)).await;
    let name = stage.world.list("deployments")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let bad = json!({"status": {"conditions": [{"type": "Available", "status": "True", "lastUpdateTime": OF_NO_CALENDAR}]}});
    edit(&stage, "deployments", &name, &bad);
    stage.change(&json!({"spec": {"replicas": 0}}));
    stage
        .until("a word", CALM, |s| stalled(&s.app().unwrap()).1.contains(&format!("Deployment {name}")))
        .await;
    assert_eq!(stage.world.list("pods").len(), 2);
    edit(&stage, "deployments", &name, &json!({"status": {"conditions": null}}));
    stage.until("no pods", CALM, |s| s.world.list("pods").is_empty()).await;
    stage.lost_nothing();
}

/// Keeps P7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_cannot_be_read_is_busy() {
    let mut stage = Stage::settled_with(24, spec(2)).await;
    let pod = stage.world.list("pods")[0].clone();
    let name = pod["metadata"]["name"].as_str().unwrap();
    edit(&stage, "pods", name, &json!({"status": {"startTime": OF_NO_CALENDAR}}));
    stage.kill_the_operator().await;
    stage.change(&json!({"spec": {"replicas": 1}}));
    // The one that can be read is asked, drained and ended; the other is kept, and nothing is scaled in its place.
    for _ in 0..300 {
        stage.world.changed().await;
        let there = get(&stage, "pods", name);
        assert_eq!(there["metadata"]["deletionTimestamp"], Value::Null, "an unreadable pod was ended");
    }
    assert_eq!(stage.ledger.lost.load(Ordering::Relaxed), 0);
    edit(&stage, "pods", name, &json!({"status": {"startTime": pod["status"]["startTime"]}}));
    stage.until("one pod", CALM, |s| s.settled("0", 1)).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_its_app_alone_backs_off_and_is_said() {
    let mut stage = Stage::settled_with(25, spec(1)).await;
    let mut panics = app("a-panics", &empty());
    panics["metadata"]["annotations"] = json!({"test/panic": "yes"});
    add(&stage, "gracefulapps", panics);
    stage
        .until("a word", CALM, |s| {
            let app = get(s, "gracefulapps", "a-panics");
            let (reason, message) = stalled(&app);
            reason == "OperatorFault" && message.contains("a test wants a panic")
        })
        .await;
    let before = stage.world.open().calls;
    stage.change(&template("1"));
    stage.until("the other app to roll", CALM, |s| s.settled("1", 1)).await;
    assert!(stage.world.open().calls - before < 1_000, "its own report must not wake it");
    let fix = json!({"metadata": {"annotations": {"test/panic": null}}, "spec": {"replicas": 0, "disruption": "Allow"}});
    edit(&stage, "gracefulapps", "a-panics", &fix);
    stage
        .until("the fix", CALM, |s| get(s, "gracefulapps", "a-panics")["status"]["phase"] == "Serving")
        .await;
    stage.lost_nothing();
}

/// Calls and listed objects that `apps` new apps in one namespace need to settle.
async fn cost_of(apps: usize) -> (u64, u64) {
    let mut stage = Stage::bare(26, 0);
    for n in 0..apps {
        add(&stage, "gracefulapps", app(&format!("a{n}"), &empty()));
        // As many Services of other people.
        let theirs = json!({"metadata": {"name": format!("theirs-{n}")}, "spec": {"selector": {"their": n.to_string()}}});
        add(&stage, "services", theirs);
    }
    stage.kill_the_operator().await;
    stage
        .until("all apps to settle", CALM, |s| {
            s.world.list("gracefulapps").iter().all(|a| a["status"]["phase"] == "Serving")
        })
        .await;
    let objects = stage.world.open();
    (objects.calls, objects.listed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_costs_does_not_grow_with_the_number_of_apps() {
    let (few, many) = (10, 80);
    let (calls_of_few, listed_of_few) = cost_of(few).await;
    let (calls_of_many, listed_of_many) = cost_of(many).await;
    let each = |n: u64, of: usize| n as f64 / of as f64;
    eprintln!(
        "{calls_of_few} calls, {listed_of_few} objects; {calls_of_many} calls, {listed_of_many} objects"
    );
    assert!(each(calls_of_many, many) < 1.3 * each(calls_of_few, few));
    assert!(each(listed_of_many, many) < 1.3 * each(listed_of_few, few));
}

/// Two operators in one cluster: each runs the apps of its own namespaces, and needs no right beyond them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apps_of_another_operator_are_left_alone() {
    let mut stage = Stage::bare(51, 0);
    stage.world.write(|w| {
        w.has_roles_alone = true;
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "theirs"}, "spec": spec(1)});
        w.create("gracefulapps", "another", app).unwrap();
    });
    stage.begin(spec(1)).await;
    stage.until("our app serves", CALM, |s| s.settled("0", 1)).await;
    stage.change(&template("1"));
    stage.until("our app's rollout", CALM, |s| s.settled("1", 1)).await;
    let apps = stage.world.list("gracefulapps");
    let theirs = apps.iter().find(|app| app["metadata"]["name"] == "theirs").unwrap();
    assert!(theirs["status"].is_null() && theirs["metadata"]["finalizers"].is_null(), "{theirs}");
    assert!(stage.world.list("deployments").iter().all(|d| d["metadata"]["namespace"] != "another"));
}

/// A watched namespace that is deleted takes our Role with it: an operator that starts then runs the others' apps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_may_not_be_listed_keeps_no_other_waiting() {
    let mut stage = Stage::bare(64, 0);
    stage.world.write(|w| w.admission.without_role = Some("many"));
    let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": "late"}, "spec": spec(1)});
    stage.world.write(|w| w.create("gracefulapps", "many", app).unwrap());
    stage.begin(spec(2)).await;
    stage
        .until("the other namespace's app serves", CALM, |s| {
            let apps = s.world.list("gracefulapps");
            apps.iter().any(|a| a["metadata"]["namespace"] == "apps" && a["status"]["phase"] == "Serving")
        })
        .await;
    // The controllers of this world play in the other namespace alone.
    let made = |s: &Stage| s.world.list("deployments").iter().any(|d| d["metadata"]["namespace"] == "many");
    assert!(!made(&stage));
    stage.world.write(|w| w.admission.without_role = None);
    stage.until("the Role is back", CALM, made).await;
}
