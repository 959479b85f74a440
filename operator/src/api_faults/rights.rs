//! What the operator asks the API server for in the whole life of an app is what the chart's roles give: nothing is missing, and nothing is given for nothing.

#[path = "../../tests/rules/mod.rs"]
mod rules;

use std::collections::BTreeSet;

use graceful_api::names;
use serde_json::{Value, json};

use super::adoption::{adopting, is_adopted, plain};
use super::cluster::{GATE, alive};
use super::elected::fast;
use super::events::events;
use super::lifecycle::cordon;
use super::scenarios::{CALM, Stage, node, template};
use super::tokens::{empty_secret, secret};
use super::world::merge;
use crate::clock::Clock;
use crate::run::Tokens;

/// Adopted from a plain Deployment, then given a gate and a Service that answers on each node with its own pods, moved off a node, and deleted: by two operators
/// that elect a leader, and sign.
async fn whole_life() -> Stage {
    let mut stage = plain(71, 2).await;
    empty_secret(&stage.world);
    stage.tokens = Some(Tokens { secret: secret(), verify: true });
    let mut spec = adopting(2);
    let ports = json!([{"name": "http", "containerPort": 8000}, spec["template"]["spec"]["containers"][0]["ports"][0]]);
    spec["template"]["spec"]["containers"][0]["ports"] = ports;
    stage.world.write(|w| {
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": "tasks"}, "spec": spec});
        w.create("gracefulapps", "apps", app).unwrap();
    });
    let (operator, stop) = stage.elected("operator-0", fast(), Clock::default()).await;
    stage.until("the adoption", CALM, |s| is_adopted(s, 2)).await;

    let service = json!({"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [{"port": 80, "targetPort": "http"}]});
    let mut change = template("1");
    merge(
        &mut change,
        &json!({"spec": {"service": service, "gate": {"port": "http"}, "drain": {"lingerSeconds": 1}}}),
    );
    stage.change(&change);
    let gated =
        |s: &Stage| s.world.list("pods").iter().all(|p| p["spec"]["initContainers"][0]["name"] == GATE);
    stage.until("a gate, and a Service", CALM, |s| s.settled("1", 2) && gated(s)).await;

    // The same mistake twice is counted on one Event.
    for times in 1..=2 {
        stage.change(&json!({"spec": {"disruption": "OfTheFuture"}}));
        let told = |s: &Stage| {
            events(s, "InvalidSpec").iter().map(|e| e["series"]["count"].as_u64().unwrap_or(1)).sum::<u64>()
        };
        stage.until("a Warning about it", CALM, |s| told(s) == times).await;
        stage.change(&json!({"spec": {"disruption": null}}));
        stage.until("its correction", CALM, |s| s.settled("1", 2)).await;
    }

    // Another leader reads a node that is said to stay, before it puts back what drains for it.
    let tasks = stage.hold_a_task_in_each();
    stage.world.write(|w| w.create("nodes", "", node("n2")).unwrap());
    cordon(&stage);
    let drains = |p: &Value| p["metadata"]["annotations"][names::DRAIN_REASON] == "NodeDrain";
    stage.until("a pod drains", CALM, |s| s.world.list("pods").iter().any(drains)).await;
    stop.send(()).unwrap();
    operator.await.unwrap().unwrap();
    uncordon(&stage);
    let (_next, stop) = stage.elected("operator-1", fast(), Clock::default()).await;
    stage.until("none drains for it", CALM, |s| !s.world.list("pods").iter().any(drains)).await;
    drop(tasks);
    stage.until("all is as before", CALM, |s| s.settled("1", 2)).await;
    cordon(&stage);
    let left =
        |s: &Stage| s.world.list("pods").iter().filter(|p| alive(p) && p["spec"]["nodeName"] == "n1").count();
    stage.until("the node is empty", CALM, |s| left(s) == 0 && s.settled("1", 2)).await;

    stage.delete();
    stage.until("the app is gone", CALM, |s| s.app().is_none()).await;
    stage.lost_nothing();
    drop(stop);
    stage
}

fn uncordon(stage: &Stage) {
    let node = ("nodes".to_owned(), String::new(), "n1".to_owned());
    stage.world.write(|w| {
        w.edit(&node, &json!({}), |node| {
            node["spec"]["unschedulable"] = json!(false);
            Ok(())
        })
        .unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_allows_what_is_asked_for_and_nothing_else() {
    let mut given = BTreeSet::new();
    for (resources, verbs) in rules::rules() {
        for resource in resources {
            given.extend(verbs.iter().map(|verb| (resource.to_owned(), *verb)));
        }
    }
    let stage = whole_life().await;
    let asked = stage.world.open().asked.clone();
    let denied: Vec<_> = asked.difference(&given).collect();
    let superfluous: Vec<_> = given.difference(&asked).collect();
    assert!(denied.is_empty(), "the chart's roles do not allow {denied:?}");
    assert!(superfluous.is_empty(), "nothing asks for {superfluous:?}, which the chart's roles allow");
}
