//! Others write to the Service and the budget: what is ours is put right exactly, what is theirs is left and said, and nobody is fought for ever.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lifecycle::condition;
use super::scenarios::{CALM, Stage, spec};
use super::world::{Key, merge};

fn child(stage: &Stage, plural: &str) -> Value {
    stage.world.list(plural).pop().unwrap_or_default()
}

fn key(plural: &str, name: &str) -> Key {
    (plural.to_owned(), "apps".to_owned(), name.to_owned())
}

fn edit(stage: &Stage, plural: &str, name: &str, patch: &Value) {
    let edited = stage.world.write(|w| {
        w.edit(&key(plural, name), &json!({}), |object| {
            merge(object, patch);
            Ok(())
        })
    });
    edited.unwrap();
}

fn warning(stage: &Stage) -> String {
    let app = stage.app().unwrap_or_default();
    condition(&app, "Warning")["message"].as_str().unwrap_or_default().to_owned()
}

/// Nothing is written for a good while.
async fn at_rest(stage: &Stage) {
    let writes = || stage.world.open().writes;
    let (mut before, mut since) = (writes(), Instant::now());
    let started = Instant::now();
    while since.elapsed() < Duration::from_millis(2_500) {
        assert!(started.elapsed() < Duration::from_secs(20), "it is written again and again");
        stage.world.changed().await;
        let now = writes();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Case 8: with one more key in its selector the Service had no endpoints under STATUS Serving, and the budget let evictions pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_that_others_narrowed_is_put_right() {
    let mut stage = Stage::settled_with(21, spec(1)).await;
    let (service, budget) = (child(&stage, "services"), child(&stage, "poddisruptionbudgets"));
    edit(&stage, "services", "tasks", &json!({"spec": {"selector": {"track": "blue"}}}));
    let labels = json!({"spec": {"selector": {"matchLabels": {"track": "blue"}}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    edit(&stage, "poddisruptionbudgets", "tasks-graceful", &labels);
    stage
        .until("both as they were", CALM, |s| {
            child(s, "services")["spec"] == service["spec"]
                && child(s, "poddisruptionbudgets")["spec"] == budget["spec"]
        })
        .await;
    at_rest(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_others_delete_is_made_again() {
    let mut stage = Stage::settled_with(22, spec(1)).await;
    for (plural, name) in [("services", "tasks"), ("poddisruptionbudgets", "tasks-graceful")] {
        let spec = child(&stage, plural)["spec"].clone();
        stage.world.write(|w| w.delete(&key(plural, name), &json!({}))).unwrap();
        stage.until("it to be there again", CALM, |s| child(s, plural)["spec"] == spec).await;
    }
}

/// P8: two budgets on one pod make the eviction API fail outright, so ours goes for as long as another is there, and both are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_the_users_own_makes_ours_step_aside() {
    let mut stage = Stage::settled_with(25, spec(1)).await;
    let ours = child(&stage, "poddisruptionbudgets");
    // As somebody writes it who copies the selector of the Service.
    let selector = json!({"matchLabels": {"graceful.dev/app": "tasks", "graceful.dev/serving": "true"}});
    let theirs = json!({"metadata": {"name": "mine"}, "spec": {"minAvailable": 1, "selector": selector}});
    stage.world.write(|w| w.create("poddisruptionbudgets", "apps", theirs)).unwrap();
    let names = |s: &Stage| {
        let budgets = s.world.list("poddisruptionbudgets");
        budgets.iter().map(|b| b["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    stage.until("ours to go", CALM, |s| names(s) == ["mine"]).await;
    let said = |s: &Stage| ["mine", "tasks-graceful"].iter().all(|name| warning(s).contains(name));
    stage.until("a Warning that names both", CALM, said).await;
    assert_eq!(condition(&stage.app().unwrap(), "Warning")["reason"], "ForeignDisruptionBudget");
    at_rest(&stage).await;
    stage.world.write(|w| w.delete(&key("poddisruptionbudgets", "mine"), &json!({}))).unwrap();
    stage
        .until("ours to be back", CALM, |s| {
            names(s) == ["tasks-graceful"]
                && child(s, "poddisruptionbudgets")["spec"] == ours["spec"]
                && condition(&s.app().unwrap(), "Warning")["status"] != "True"
        })
        .await;
}

/// P6: a port of somebody else's meant a write in every plan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_another_manager_is_left_and_said_without_a_write_in_every_plan() {
    let mut stage = Stage::settled_with(23, spec(1)).await;
    let ports = json!([child(&stage, "services")["spec"]["ports"][0], {"name": "debug", "port": 9999}]);
    edit(&stage, "services", "tasks", &json!({"spec": {"ports": ports}}));
    stage.until("a Warning that names it", CALM, |s| warning(s).contains("spec.ports 9999/TCP")).await;
    at_rest(&stage).await;
    assert_eq!(child(&stage, "services")["spec"]["ports"], ports);
    assert_eq!(stage.app().unwrap()["status"]["phase"], "Serving");
    // What is ours beside it is put right, and it stays.
    edit(&stage, "services", "tasks", &json!({"spec": {"selector": {"track": "blue"}}}));
    stage.until("the selector", CALM, |s| child(s, "services")["spec"]["selector"]["track"].is_null()).await;
    assert_eq!(child(&stage, "services")["spec"]["ports"], ports);
}

/// Two controllers that put one field right in turn would write for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fight_with_another_controller_is_bounded_and_said() {
    let mut stage = Stage::settled_with(24, spec(1)).await;
    let rival = json!({"spec": {"selector": {"track": "blue"}}});
    let started = Instant::now();
    let mut undone = 0;
    while started.elapsed() < Duration::from_secs(5) {
        if child(&stage, "services")["spec"]["selector"]["track"].is_null() {
            edit(&stage, "services", "tasks", &rival);
            undone += 1;
        }
        stage.world.changed().await;
    }
    assert!((3..=4).contains(&undone), "it was put right {undone} times in 5 s");
    stage
        .until("Stalled, with who does what", CALM, |s| {
            let app = s.app().unwrap();
            let stalled = condition(&app, "Stalled");
            stalled["status"] == "True"
                && stalled["reason"] == "ChangedByOthers"
                && stalled["message"].as_str().unwrap_or_default().contains("spec.selector")
        })
        .await;
}

/// A controller that is sure of its label: each of its writes would be answered at once by one of ours, without end and without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_is_written_back_each_time_is_left_alone_for_a_while_and_said() {
    let mut stage = Stage::settled_with(59, spec(2)).await;
    let world = stage.world.clone();
    let meddler = tokio::spawn(async move {
        loop {
            for pod in world.list("pods") {
                let labelled = pod["metadata"]["labels"]["graceful.dev/serving"] == "true";
                let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
                if labelled {
                    let key = ("pods".to_owned(), "apps".to_owned(), name);
                    let _gone = world.write(|w| {
                        w.edit(&key, &json!({}), |pod| {
                            pod["metadata"]["labels"].as_object_mut().unwrap().remove("graceful.dev/serving");
                            Ok(())
                        })
                    });
                }
            }
            world.changed().await;
        }
    });
    let said = |s: &Stage| {
        let app = s.app().unwrap_or_default();
        condition(&app, "Stalled")["message"]
            .as_str()
            .is_some_and(|m| m.contains("somebody else writes the label"))
    };
    stage.until("it is said", CALM, said).await;
    let written = |s: &Stage| s.world.open().log.iter().filter(|(_, plural, _)| plural == "pods").count();
    let before = written(&stage);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let more = written(&stage) - before;
    assert!(more < 20, "{more} writes in 4 s");
    meddler.abort();
    let routed = |s: &Stage| {
        s.world.list("pods").iter().all(|pod| pod["metadata"]["labels"]["graceful.dev/serving"] == "true")
    };
    // Each may take the longest pause, where the machine gave the two time for many rounds.
    stage.until("both to have it again", CALM, routed).await;
    stage.until("all serve", CALM, |s| s.settled("0", 2)).await;
}
