//! What a real cluster does to an operator: evicted pods, policies, webhooks that are down, an API server that is slow.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{alive, finished, ready};
use super::events::events;
use super::lifecycle::condition;
use super::scenarios::{CALM, Stage, spec, template};

fn stalled(stage: &Stage, words: &str) -> bool {
    says(stage, "Stalled", words)
}

/// Whether STATUS is this phase, with these words in WAITING-FOR.
fn says(stage: &Stage, phase: &str, words: &str) -> bool {
    let app = stage.app().unwrap_or_default();
    app["status"]["phase"] == phase
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
    let mut stage = Stage::settled_with(31, spec(3)).await;
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
    let mut stage = Stage::settled_with(32, spec(3)).await;
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
    let mut stage = Stage::settled_with(33, spec(2)).await;
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
    let mut stage = Stage::settled_with(34, spec(2)).await;
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
    let mut stage = Stage::settled_with(35, spec(2)).await;
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

/// P6: with 0.7 s a call, which is too slow for a DELETE and its scale, it gets there, kills nobody busy and does not loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_takes_long_gets_there() {
    let mut stage = Stage::settled_with(36, spec(2)).await;
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
    let mut stage = Stage::settled_with(37, spec).await;
    stage.world.write(|w| w.admission.takes = Duration::from_millis(700));
    stage.change(&template("1"));
    stage
        .until("Held, with what was measured", CALM, |s| {
            says(s, "Held", "too slow to end it safely. A dry run of the scale took 0.7 s")
        })
        .await;
    assert_eq!(stage.deletions(), 0);
    stage.world.write(|w| w.admission.takes = Duration::ZERO);
    stage.until("a rollout", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_is_said() {
    let mut stage = Stage::settled_with(38, spec(2)).await;
    // The break-glass, and then the day after.
    stage.relabel("deployments", None);
    stage.until("what to do is said", CALM, |s| stalled(s, "kubectl label deployment -n apps tasks-")).await;
    assert_eq!(events(&stage, "EndedByOthers"), [] as [Value; 0], "they all run on");
    let said = |s: &Stage| events(s, "LabelRemoved");
    stage.until("and in an Event", CALM, |s| !said(s).is_empty()).await;
    assert_eq!(stage.deletions(), 0);
    let (note, name) =
        (said(&stage)[0]["note"].to_string(), stage.world.list("deployments")[0]["metadata"]["name"].clone());
    let command =
        format!("`kubectl label deployment -n apps {} graceful.dev/app=tasks`", name.as_str().unwrap());
    assert!(note.contains(&command), "{note}");
    stage.relabel("deployments", Some("tasks"));
    stage.until("it goes on", CALM, |s| s.settled("0", 2)).await;
    assert_eq!(
        (said(&stage).len(), events(&stage, "EndedByOthers").len()),
        (1, 0),
        "{:?}",
        stage.world.list("events")
    );
    stage.lost_nothing();
}

/// The label taken off, and the app deleted and applied again: what it finds under its name is another app's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_app_left_is_said() {
    let mut stage = Stage::settled_with(40, spec(2)).await;
    let name = stage.relabel("deployments", None);
    stage.delete();
    stage.until("the app is gone", CALM, |s| s.app().is_none()).await;
    stage.begin(spec(2)).await;
    stage
        .until("what to do is said", CALM, |s| {
            stalled(s, "is taken by a Deployment that is not this GracefulApp's: delete it")
        })
        .await;
    assert_eq!(stage.deletions(), 0);
    let key = ("deployments".to_owned(), "apps".to_owned(), name);
    stage.world.write(|w| w.remove(&key));
    stage.until("it goes on", CALM, |s| s.settled("0", 2)).await;
}

fn marked(stage: &Stage) -> usize {
    let drains = |p: &&Value| alive(p) && !p["metadata"]["annotations"]["graceful.dev/drain-since"].is_null();
    stage.world.list("pods").iter().filter(drains).count()
}

/// A webhook on a lost node: it takes all the time it is given, for Services alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_hangs_is_told_and_stops_nothing_else() {
    let mut stage = Stage::settled_with(39, spec(2)).await;
    stage.world.write(|w| w.admission.hangs = Some("services"));
    stage.change(&json!({"spec": {"service": {"ports": [{"port": 81}]}, "template": {"metadata": {"labels": {"try": "1"}}}}}));
    stage
        .until("a rollout all the same", CALM, |s| {
            let pods = s.world.list("pods");
            pods.len() == 2 && pods.iter().all(|p| p["metadata"]["labels"]["try"] == "1" && ready(p))
        })
        .await;
    let held = |s: &Stage| {
        let status = &s.app().unwrap_or_default()["status"];
        let said = status["waitingFor"].as_str().unwrap_or_default();
        status["phase"] == "Held" && said.contains("Service tasks cannot be written: no answer within")
    };
    stage.until("and it is said", CALM, held).await;
    stage.world.write(|w| w.admission.hangs = None);
    stage.until("it goes on by itself", CALM, |s| s.settled("1", 2)).await;
    stage.lost_nothing();
}

/// The same for what ends pods: the app waits, and says for what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_hangs_on_scales_ends_no_pod() {
    let mut stage = Stage::settled_with(40, spec(3)).await;
    stage.world.write(|w| w.admission.hangs = Some("deployments"));
    stage.change(&json!({"spec": {"replicas": 2}}));
    let held = |s: &Stage| {
        let status = &s.app().unwrap_or_default()["status"];
        let said = status["waitingFor"].as_str().unwrap_or_default();
        status["phase"] == "Held" && said.contains("no answer within")
    };
    stage.until("Held, and it is said for what", CALM, held).await;
    let before = stage.world.open().calls;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(stage.world.open().calls - before < 30, "it is asked again and again");
    assert_eq!(stage.deletions(), 0);
    stage.world.write(|w| w.admission.hangs = None);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 2)).await;
    stage.lost_nothing();
}

/// And for a new revision: whoever gates on Stalled must not take a slow webhook for a refusal of the template.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_hangs_on_a_new_revision_is_told_as_slow() {
    let mut stage = Stage::settled_with(42, spec(2)).await;
    stage.world.write(|w| w.admission.hangs = Some("deployments"));
    stage.change(&json!({"spec": {"template": {"metadata": {"labels": {"try": "1"}}}}}));
    let held = |s: &Stage| {
        let app = s.app().unwrap_or_default();
        let said = app["status"]["waitingFor"].as_str().unwrap_or_default();
        app["status"]["phase"] == "Held"
            && said.contains("a dry run of spec.template: no answer within")
            && condition(&app, "Stalled")["status"] == "False"
            && condition(&app, "Reconciling")["reason"] == "ControlPlaneSlow"
    };
    stage.until("Held, and it is said for what", CALM, held).await;
    stage.world.write(|w| w.admission.hangs = None);
    stage
        .until("it is asked again by itself", CALM, |s| {
            let pods = s.world.list("pods");
            pods.len() == 2 && pods.iter().all(|p| p["metadata"]["labels"]["try"] == "1" && ready(p))
        })
        .await;
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_that_admission_changes_ends_nothing() {
    let mut stage = Stage::settled_with(41, spec(3)).await;
    stage.world.write(|w| w.admission.least_replicas = 3);
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("Stalled, and why", CALM, |s| stalled(s, "makes replicas 3 of it")).await;
    no_more_deletions(&stage, Duration::from_secs(2), 0).await;
    assert_eq!(stage.deletions(), 0);
    stage.world.write(|w| w.admission.least_replicas = 0);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 1)).await;
    stage.lost_nothing();
}

/// "Serving" is never said of a spec that is refused, neither at first nor while it is tried again: a CI that waits for it would go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_stays_told_while_it_is_tried_again() {
    let mut stage = Stage::settled_with(42, spec(2)).await;
    stage.world.write(|w| w.admission.service_webhook_is_down = true);
    let from = stage.world.open().version();
    stage.change(&json!({"spec": {"service": {"ports": [{"port": 81}]}}}));
    stage.until("it is said", CALM, |s| stalled(s, "failed calling webhook")).await;
    tokio::time::sleep(2 * crate::writes::REFUSAL_HOLDS).await;
    let tries = |s: &Stage| {
        let generation = s.app().unwrap_or_default()["metadata"]["generation"].clone();
        let objects = s.world.open();
        let later = objects.log.iter().filter(|(v, plural, _)| *v > from && plural == "gracefulapps");
        let of_now = later
            .map(|(.., e)| e["object"]["status"].clone())
            .filter(|s| s["observedGeneration"] == generation);
        of_now.map(|status| status["phase"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let phases = tries(&stage);
    assert!(!phases.is_empty() && phases.iter().all(|phase| phase == "Stalled"), "{phases:?}");
    assert!(phases.len() < 4, "written again and again: {phases:?}");
    stage.world.write(|w| w.admission.service_webhook_is_down = false);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 2)).await;
}

/// P7: what the pod says after the plan was made counts as well. Admission stays open under signal None.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_works_again_is_not_ended() {
    let mut spec = spec(1);
    spec["inFlight"] = json!({"port": "admin", "format": "JsonPointer", "jsonPointers": ["/inFlight/total"]});
    spec["drain"] = json!({"signal": "None", "lingerSeconds": 0, "quietSeconds": 2, "deadlineSeconds": 600});
    let mut stage = Stage::settled_with(43, spec).await;
    stage.world.write(|w| w.admission.takes = Duration::from_millis(700));
    let before = stage.world.open().dry_scales;
    stage.change(&json!({"spec": {"replicas": 0}}));
    stage.until("it is about to be ended", CALM, |s| s.world.open().dry_scales > before).await;
    // An established connection brings a task: heard within a second, and the pod would be ended in one and a half.
    let (name, task) = stage.hold_a_task_where_it_drains();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let there =
        |s: &Stage| s.world.list("pods").iter().any(|p| p["metadata"]["name"] == name.as_str() && alive(p));
    assert!(there(&stage), "a pod that was heard busy was ended");
    drop(task);
    stage.world.write(|w| w.admission.takes = Duration::ZERO);
    stage.until("now it goes", CALM, |s| s.settled("0", 0)).await;
    stage.lost_nothing();
}

/// P3: what a plan counted on may be gone when its last actions come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_plan_is_not_carried_out_to_its_end() {
    let mut stage = Stage::settled_with(44, spec(7)).await;
    stage.world.write(|w| w.admission.takes = Duration::from_millis(700));
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("the first is taken out of service", CALM, |s| marked(s) > 0).await;
    stage.change(&json!({"spec": {"replicas": 7}}));
    stage.until("the plan has ended", CALM, |s| marked(s) == 0 || marked(s) > 4).await;
    assert!(
        marked(&stage) <= 4,
        "{} of seven were taken out of service, on a plan of seconds ago",
        marked(&stage)
    );
    stage.world.write(|w| w.admission.takes = Duration::ZERO);
    stage.until("all serve", CALM, |s| s.settled("0", 7)).await;
    stage.lost_nothing();
}

/// Its deadline came, its end was refused, and it finished: nothing was cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_was_refused_is_not_counted() {
    let mut spec = spec(1);
    spec["drain"] = json!({"lingerSeconds": 0, "deadlineSeconds": 1, "onDeadline": "Terminate"});
    let mut stage = Stage::settled_with(45, spec).await;
    let task = stage.hold_a_task();
    stage.world.write(|w| w.admission.keeps_pods = true);
    stage.change(&json!({"spec": {"replicas": 0}}));
    stage.until("its end is refused", CALM, |s| stalled(s, "denied: pods are kept")).await;
    drop(task);
    stage.world.write(|w| w.admission.keeps_pods = false);
    stage.until("it goes", CALM, |s| s.settled("0", 0)).await;
    let marks = |e: &Value| {
        (!e["object"]["metadata"]["deletionTimestamp"].is_null())
            .then(|| e["object"]["metadata"]["annotations"]["graceful.dev/cut"].clone())
    };
    let marks: Vec<_> = stage
        .world
        .open()
        .log
        .iter()
        .filter(|(_, plural, _)| plural == "pods")
        .filter_map(|(.., e)| marks(e))
        .collect();
    assert!(
        !marks.is_empty() && marks.iter().all(Value::is_null),
        "what carries a count is counted as cut: {marks:?}"
    );
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_a_pod_that_comes_to_nothing_is_no_loop() {
    let mut stage = Stage::settled_with(46, spec(2)).await;
    stage.world.write(|w| w.admission.ignores_pods = true);
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("it is said", CALM, |s| stalled(s, "changes the labels or annotations that we write")).await;
    let before = stage.world.open().calls;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stage.world.open().calls - before < 30, "written again and again");
    stage.world.write(|w| w.admission.ignores_pods = false);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 1)).await;
    stage.lost_nothing();
}

/// A ReplicaSet knows its pods by our labels, and makes them without end where admission takes these off. A Deployment without them is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_that_admission_takes_our_labels_off() {
    for (seed, kind) in [(47, "pods"), (48, "deployments")] {
        let mut stage = Stage::settled_with(seed, spec(2)).await;
        stage.world.write(|w| w.admission.takes_ours_off = Some(kind));
        stage.change(&template("1"));
        stage
            .until("Stalled, and by whom", CALM, |s| stalled(s, "an admission webhook or policy takes"))
            .await;
        assert_eq!(stage.world.list("deployments").len(), 1, "{kind}");
        stage.world.write(|w| w.admission.takes_ours_off = None);
        stage.until("it goes on by itself", CALM, |s| s.settled("1", 2)).await;
        stage.lost_nothing();
    }
}

/// The first Deployment of an app is made without a dry run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_deployment_that_nobody_would_drain_goes_again() {
    let mut stage = Stage::bare(49, 0);
    stage.world.write(|w| w.admission.takes_ours_off = Some("deployments"));
    stage.begin(spec(2)).await;
    stage.until("Stalled, and by whom", CALM, |s| stalled(s, "an admission webhook or policy takes")).await;
    stage.until("it is gone", CALM, |s| s.world.list("deployments").is_empty()).await;
    stage.world.write(|w| w.admission.takes_ours_off = None);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finalizer_that_admission_takes_off_is_said_and_no_loop() {
    let mut stage = Stage::bare(50, 0);
    stage.world.write(|w| w.admission.takes_finalizers = true);
    stage.begin(spec(2)).await;
    stage
        .until("Stalled, and by whom", CALM, |s| stalled(s, "takes the finalizer graceful.dev/drain off"))
        .await;
    let before = stage.world.open().calls;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(stage.world.open().calls - before < 30, "written again and again");
    stage.world.write(|w| w.admission.takes_finalizers = false);
    stage.until("it goes on by itself", CALM, |s| s.settled("0", 2)).await;
    stage.lost_nothing();
}

/// A webhook on ReplicaSets: each pod that goes is made again meanwhile, unless its ReplicaSet deletes it itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_that_follows_late_makes_no_loop() {
    let mut stage = Stage::settled_with(51, spec(3)).await;
    stage.world.write(|w| w.admission.replica_sets_take = Duration::from_secs(3));
    stage.change(&template("1"));
    stage.until("a rollout", CALM, |s| s.settled("1", 3)).await;
    // Each of three may cost a spare that ran, and those their own.
    assert!(stage.deletions() <= 12, "{} pods went for three", stage.deletions());
    stage.lost_nothing();
}

/// Each pod that is written to would be let go, and another made in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_costs_pods_their_label_costs_one() {
    let mut stage = Stage::settled_with(52, spec(3)).await;
    stage.world.write(|w| w.admission.unlabels_pods = true);
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("it is said", CALM, |s| stalled(s, "takes the label graceful.dev/app")).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let lost = |p: &&Value| p["metadata"]["labels"]["graceful.dev/app"].is_null();
    assert_eq!(stage.world.list("pods").iter().filter(lost).count(), 1);
    stage.world.write(|w| w.admission.unlabels_pods = false);
    stage
        .until("it goes on by itself", CALM, |s| s.app().unwrap_or_default()["status"]["phase"] == "Serving")
        .await;
}

/// A webhook on pods and on ReplicaSets: a spare would have clients before it could be taken out of service, and its ReplicaSet would end it with their work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_that_would_have_clients_is_not_made() {
    let mut spec = spec(3);
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let mut stage = Stage::settled_with(53, spec).await;
    stage.world.write(|w| {
        w.admission.replica_sets_take = Duration::from_secs(2);
        w.admission.pods_take = Duration::from_millis(1500);
    });
    stage.change(&template("1"));
    stage
        .until("Held, with what was measured", CALM, |s| {
            let measured = "takes more than 500 ms to notice a change, and a write to a pod takes 1.5 s";
            says(s, "Held", measured)
        })
        .await;
    assert_eq!(stage.deletions(), 0);
    // Either alone does no harm.
    stage.world.write(|w| w.admission.pods_take = Duration::ZERO);
    stage.until("a rollout", CALM, |s| s.settled("1", 3)).await;
    stage.lost_nothing();
}

/// In a deletion as well it is said what is refused, and by whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_may_not_be_removed_is_said_in_a_deletion() {
    let mut stage = Stage::settled_with(54, spec(2)).await;
    stage.world.write(|w| w.admission.keeps_services = true);
    stage.delete();
    stage
        .until("it is said", CALM, |s| {
            let app = s.app().unwrap_or_default();
            let said = app["status"]["waitingFor"].as_str().unwrap_or_default().to_owned();
            said.contains("Service tasks cannot be removed: ") && said.contains("denied: services are kept")
        })
        .await;
    // And not tried with each plan: a hanging one would hold up each.
    let before = stage.world.open().refused_services;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let tries = stage.world.open().refused_services - before;
    assert!(tries <= 2, "{tries} tries in 5 s, of one each 3 s");
    stage.world.write(|w| w.admission.keeps_services = false);
    stage.until("it is gone", CALM, |s| s.app().is_none()).await;
    stage.lost_nothing();
}

/// The same once a spare has come too late already: what is known to be late is not taken for granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_that_has_come_late_is_no_reason_to_make_another() {
    let mut spec = spec(4);
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let mut stage = Stage::settled_with(55, spec).await;
    stage.world.write(|w| w.admission.replica_sets_take = Duration::from_secs(2));
    stage.change(&template("1"));
    stage.until("one has gone", CALM, |s| s.deletions() > 0).await;
    stage.world.write(|w| w.admission.pods_take = Duration::from_millis(1500));
    let held = |s: &Stage| s.app().unwrap_or_default()["status"]["phase"] == "Held";
    stage.until("Held", CALM, held).await;
    // The spares of before are their ReplicaSet's to take.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let gone = stage.deletions();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(stage.deletions(), gone);
    stage.world.write(|w| w.admission.pods_take = Duration::ZERO);
    stage.world.write(|w| w.admission.replica_sets_take = Duration::ZERO);
    stage.lost_nothing();
}

/// P6: somebody raises the Deployment again and again (an autoscaler that targets it, where no policy guards it), and the operator lowers it: what its ReplicaSet takes
/// for that counts as ended, and the app is stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_a_replica_set_takes_after_our_scale_count_as_ended() {
    let mut stage = Stage::settled_with(56, spec(2)).await;
    // It does not hear of the pods that come meanwhile, and has replicas in mind that have none.
    stage.dice.go_blind("pods");
    let raised = |s: &Stage| {
        s.world.write(|w| {
            let key = w.all.keys().find(|key| key.0 == "deployments").unwrap().clone();
            w.edit(&key, &json!({}), |object| {
                if object["spec"]["replicas"].as_u64() <= Some(2) {
                    object["spec"]["replicas"] = json!(5);
                }
                Ok(())
            })
            .unwrap();
        });
        stalled(s, "pods were ended for this spec")
    };
    stage.until("it is stopped", CALM, raised).await;
    assert!(stage.deletions() < 40, "{} pods went for none", stage.deletions());
    stage.lost_nothing();
}
