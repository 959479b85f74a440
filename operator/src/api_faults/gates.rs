//! A gate comes into the pods of an app that ran without one, and goes again: each revision's pods are asked where theirs answer, under load.

use serde_json::{Value, json};

use super::cluster::GATE;
use super::lifecycle::condition;
use super::scenarios::{CALM, Limits, Stage, spec, template};

/// With a port to gate, and a Service by its name.
fn app(replicas: u32) -> Value {
    let mut app = spec(replicas);
    let ports = &mut app["template"]["spec"]["containers"][0]["ports"];
    ports.as_array_mut().unwrap().push(json!({"name": "http", "containerPort": 8000}));
    app["service"]["ports"][0]["targetPort"] = json!("http");
    app
}

/// How many of the pods have a gate.
fn gated(stage: &Stage) -> usize {
    stage.world.list("pods").iter().filter(|p| p["spec"]["initContainers"][0]["name"] == GATE).count()
}

/// Keeps P1, P3, P5 while calls fail and the operator dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_comes_and_goes_under_load() {
    let mut stage = Stage::set(31, 12, app(3)).await;
    let limits = |serving| Limits { serving, pods: 4, kills: true };
    stage.until("three pods without a gate", limits(0), |s| s.settled("0", 3) && gated(s) == 0).await;
    stage.change(&json!({"spec": {"gate": {"port": "http"}}}));
    stage.until("all with one", limits(3), |s| s.settled("0", 3) && gated(s) == 3).await;
    let image = |stage: &Stage| {
        let status = stage.app().unwrap()["status"].clone();
        let mut revisions = status["revisions"].as_array().unwrap().iter();
        revisions.find(|r| r["hash"] == status["updateRevision"]).unwrap()["gate"].clone()
    };
    assert_eq!(image(&stage), "graceful/gate:test");
    stage.change(&template("1"));
    stage.until("another template behind it", limits(3), |s| s.settled("1", 3) && gated(s) == 3).await;
    stage.change(&json!({"spec": {"gate": null}}));
    stage.until("none again", limits(3), |s| s.settled("1", 3) && gated(s) == 0).await;
    assert_eq!(image(&stage), Value::Null);
    stage.lost_nothing();
}

/// P1, P8: what comes past the gate is not counted, so that nothing is drained while a Service leads there; and a change of the Service is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_past_the_gate_holds_the_drains_and_is_named() {
    let mut stage = Stage::settled_with(32, app(2)).await;
    let front = json!({
        "metadata": {"name": "front"},
        "spec": {"selector": {"graceful.dev/app": "tasks", "graceful.dev/serving": "true"},
            "ports": [{"port": 81, "targetPort": "http"}, {"port": 80, "targetPort": 8000}]},
    });
    stage.world.write(|w| w.create("services", "apps", front)).unwrap();
    stage.change(&json!({"spec": {"gate": {"port": "http"}}}));
    stage
        .until("Stalled, with the command", CALM, |s| {
            let app = s.app().unwrap();
            let stalled = condition(&app, "Stalled");
            let message = stalled["message"].as_str().unwrap_or_default();
            stalled["reason"] == "UnfencedService"
                && message.contains("patch service front --type json")
                && message.contains(r#"{"op":"add","path":"/spec/ports/1/targetPort","value":"http"}"#)
        })
        .await;
    assert!(stage.world.list("pods").len() > gated(&stage), "an old pod is there still");
    // What the command says.
    let key = ("services".to_owned(), "apps".to_owned(), "front".to_owned());
    let edited = stage.world.write(|w| {
        w.edit(&key, &json!({}), |service| {
            service["spec"]["ports"][1]["targetPort"] = json!("http");
            Ok(())
        })
    });
    edited.unwrap();
    stage.until("the rollout", CALM, |s| s.settled("0", 2) && gated(s) == 2).await;
    stage.lost_nothing();
}
