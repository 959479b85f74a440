use graceful_api::Signal;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::fixture::{app, observed, policy, revision, serving};
use crate::ids::Epoch;
use crate::observed::DrainNote;
use crate::plan;

const NOW: Timestamp = Timestamp::constant(600, 0);

fn leaving(revisions: Vec<Revision>, pods: Vec<Pod>) -> Observed {
    let mut app = app(1, policy(Signal::None));
    app.deletion = Deletion::Leave;
    Observed { revisions, pods, ..observed(app) }
}

fn of(hash: &str, name: &str) -> Pod {
    Pod { revision: RevisionHash::from(hash), ..serving(name) }
}

fn draining(pod: Pod) -> Pod {
    let since = NOW - SignedDuration::from_secs(10);
    let drain = Some(DrainNote { reason: graceful_api::DrainReason::ScaleDown, since });
    Pod { routed: false, epoch: Some(Epoch(3)), drain, ..pod }
}

/// It has said just now that it has nothing in hand.
fn idle() -> crate::Contact {
    let in_flight = crate::InFlight { total: 0, queued: 0, running: 0, requests: 0 };
    let answer = crate::Answer { at: NOW, in_flight, protocol: None, scheduled: None };
    crate::Contact { answer: Some(answer), tried_at: Some(NOW), ..Default::default() }
}

fn actions(observed: &Observed) -> Vec<Action> {
    plan(observed, NOW).actions
}

#[test]
fn what_serves_is_let_go_and_nothing_of_it_is_ended() {
    let mut seen = leaving(vec![revision("r")], vec![serving("a")]);
    seen.surroundings.service = Child::Unwanted;
    seen.surroundings.budget = Child::Unwanted;
    let let_go = Action::LetGo { revision: RevisionHash::from("r") };
    assert_eq!(actions(&seen), [Action::SyncBudget, Action::LetGoService, let_go, Action::ReleaseFinalizer]);
}

/// Nothing is made anew for an app whose Deployment was let go of, and whose operator died then.
#[test]
fn a_crash_before_the_finalizer_makes_nothing_anew() {
    assert_eq!(actions(&leaving(Vec::new(), Vec::new())), [Action::ReleaseFinalizer]);
}

#[test]
fn what_drains_of_the_one_that_stays_returns() {
    let two = Revision { replicas: 2, policy: policy(Signal::None), ..revision("r") };
    let seen = leaving(vec![two], vec![serving("a"), draining(serving("b"))]);
    let planned = actions(&seen);
    let returned = planned.iter().any(|a| matches!(a, Action::PutBack { pod, .. } if pod.name == "b"));
    assert!(returned && planned.len() == 1, "{planned:?}");
}

#[test]
fn a_rollout_is_carried_to_its_end_even_if_it_is_paused() {
    let mut seen = leaving(vec![revision("r"), revision("o")], vec![serving("a"), of("o", "b")]);
    seen.app.paused = true;
    seen.contacts.insert(crate::PodUid::from("a"), idle());
    let planned = plan(&seen, NOW);
    let unroutes = |a: &Action| matches!(a, Action::Unroute { pod, .. } if pod.name == "b");
    assert!(planned.actions.iter().any(unroutes), "{:?}", planned.actions);
    let said = planned.report.waiting_for;
    assert!(said.contains("Deployment tasks-r stays") && said.contains("1 left"), "{said}");
}

/// A revision that never worked is none to be left behind, where another serves.
#[test]
fn a_revision_that_never_worked_does_not_stay() {
    let never = Pod { readiness: crate::Readiness::Never, ..of("r", "a") };
    let bad = Revision { proven: false, ..revision("r") };
    let seen = leaving(vec![bad, revision("o")], vec![never, of("o", "b")]);
    assert_eq!(as_left(&seen).unwrap().app.update, RevisionHash::from("o"));
}

/// Leaving is the way back out of an adoption that has not come to its end.
#[test]
fn the_adopted_deployment_stays_while_a_pod_of_it_serves() {
    let with = |old: Pod| {
        let old_one = Revision { replicas: 1, ..revision("adopted") };
        leaving(vec![revision("r"), old_one], vec![serving("a"), old])
    };
    assert_eq!(as_left(&with(of("adopted", "b"))).unwrap().app.update, RevisionHash::adopted());
    assert_eq!(as_left(&with(draining(of("adopted", "b")))).unwrap().app.update, RevisionHash::from("r"));
    let empty = Revision { replicas: 0, ..revision("adopted") };
    let seen = leaving(vec![revision("r"), empty], vec![serving("a")]);
    let let_go = |hash: &str| Action::LetGo { revision: RevisionHash::from(hash) };
    // The one that stays last: after a crash in between the other would be taken for it, and grown.
    assert_eq!(actions(&seen), [let_go("adopted"), let_go("r"), Action::ReleaseFinalizer]);
}

/// P1: in a first rollout without surge no pod of the Deployment serves while the first of the new ones does not work.
#[test]
fn what_worked_stays_where_nothing_serves() {
    let never = Pod { readiness: crate::Readiness::Never, ..of("r", "a") };
    let bad = Revision { proven: false, policy: policy(Signal::None), ..revision("r") };
    let old = Revision { policy: policy(Signal::None), ..revision("adopted") };
    let mut seen = leaving(vec![bad, old], vec![never, draining(of("adopted", "b"))]);
    assert_eq!(as_left(&seen).unwrap().app.update, RevisionHash::adopted());
    let back = |a: &Action| matches!(a, Action::PutBack { pod, .. } if pod.name == "b");
    assert!(actions(&seen).iter().any(back), "{:?}", actions(&seen));
    seen.pods.pop();
    assert_eq!(as_left(&seen).unwrap().app.update, RevisionHash::from("r"), "there is nothing else");
}

/// P1: without the budget whoever drains the node ends its pods as they are.
#[test]
fn pods_on_a_node_that_is_drained_move_first() {
    let mut goes = serving("b");
    goes.node.fate = crate::NodeFate::Emptied;
    let mut seen = leaving(vec![Revision { replicas: 2, ..revision("r") }], vec![serving("a"), goes]);
    seen.app.replicas = 2;
    let finalizer = |seen: &Observed| actions(seen).contains(&Action::ReleaseFinalizer);
    assert!(!finalizer(&seen), "{:?}", actions(&seen));
    // No drain starts while a Service is not fenced: to wait for one would be in vain.
    let mut unfenced = seen.clone();
    unfenced.surroundings.unfenced_services = vec!["front".to_owned()];
    assert!(finalizer(&unfenced));
    seen.pods[1].node.fate = crate::NodeFate::Stays;
    assert!(finalizer(&seen));
}

/// P8: also where nothing was adopted.
#[test]
fn a_service_that_cannot_be_let_go_of_is_told_and_left_for_its_pause() {
    let mut seen = leaving(vec![revision("r")], vec![serving("a")]);
    seen.surroundings.service = Child::Unwanted;
    let message = "Service tasks cannot be changed: denied".to_owned();
    let until = NOW + SignedDuration::from_secs(20);
    let backoff = crate::Backoff { cause: crate::BackoffCause::Refused, message, until };
    seen.surroundings.services_backoff = [("tasks".to_owned(), backoff)].into();
    let planned = plan(&seen, NOW);
    assert_eq!(planned.actions, []);
    assert_eq!(planned.wake_at, Some(until));
    let said = planned.report.waiting_for;
    assert!(said.contains("Service tasks cannot be changed: denied"), "{said}");
}

/// New pods of a plain Deployment have no label of ours: a Service that asks for it still would send them nobody.
#[test]
fn services_select_as_before_first() {
    let mut seen = leaving(vec![revision("adopted")], vec![of("adopted", "a")]);
    seen.surroundings.fenced = vec!["web".to_owned()];
    assert_eq!(actions(&seen), [Action::Unfence { service: "web".to_owned() }]);
    seen.surroundings.fenced.clear();
    let let_go = Action::LetGo { revision: RevisionHash::adopted() };
    assert_eq!(actions(&seen), [let_go, Action::ReleaseFinalizer]);
}

/// Left before a Service was fenced: the app's own pods do not drain until it is, and nobody else would do it.
#[test]
fn a_service_that_is_not_fenced_yet_is_while_others_pods_have_to_drain() {
    let old = Revision { replicas: 1, ..revision("adopted") };
    let mut seen = leaving(vec![revision("r"), old], vec![serving("a"), of("adopted", "b")]);
    seen.surroundings.unfenced_services = vec!["web".to_owned()];
    seen.surroundings.fenceable = vec!["web".to_owned()];
    let fence = Action::Fence { service: "web".to_owned() };
    let unroutes = |seen: &Observed| actions(seen).iter().any(|a| matches!(a, Action::Unroute { .. }));
    assert!(actions(&seen).contains(&fence) && !unroutes(&seen));
    // None is fenced for the last moment before it is to select as it did.
    let mut alone = seen.clone();
    alone.pods.remove(0);
    assert!(!actions(&alone).contains(&fence));
    // Put back by somebody, it is not the operator's to write: the app says so.
    seen.surroundings.fenceable.clear();
    let said = plan(&seen, NOW).report.waiting_for;
    assert!(said.contains("kubectl -n apps patch service web"), "{said}");
}

/// A Service that leads to the adopted Deployment's pods alone is as it should be where they stay.
#[test]
fn a_service_that_leads_to_those_that_stay_holds_nothing_up() {
    let old = Revision { replicas: 1, ..revision("adopted") };
    let mut seen = leaving(vec![revision("r"), old], vec![serving("a"), of("adopted", "b")]);
    seen.contacts.insert(crate::PodUid::from("b"), idle());
    let lacks = vec!["old: true".to_owned()];
    seen.surroundings.left_behind = vec![crate::LeftBehind { service: "web".to_owned(), lacks }];
    let planned = plan(&seen, NOW);
    let unroutes = |a: &Action| matches!(a, Action::Unroute { pod, .. } if pod.name == "a");
    assert!(planned.actions.iter().any(unroutes), "{:?}", planned.actions);
    let said = planned.report.waiting_for;
    assert!(!said.contains("spec.template.metadata.labels"), "{said}");
}

/// P1: with no Ready pod behind it, the Service as it was would lead clients to one that ends.
#[test]
fn no_service_is_given_back_while_a_pod_behind_it_ends() {
    let grace_ends = Some(NOW + SignedDuration::from_secs(30));
    let ends = Pod { terminating: true, grace_ends, ..draining(of("adopted", "b")) };
    let old = Revision { replicas: 0, ..revision("adopted") };
    let mut seen = leaving(vec![revision("r"), old], vec![serving("a"), ends]);
    seen.surroundings.fenced = vec!["web".to_owned()];
    assert_eq!(actions(&seen), []);
    let said = plan(&seen, NOW).report.waiting_for;
    assert!(said.contains("pod b has drained and ends, until 1970-01-01T00:10:30Z at the latest"), "{said}");
    seen.pods.pop();
    assert!(actions(&seen).contains(&Action::Unfence { service: "web".to_owned() }));
}
