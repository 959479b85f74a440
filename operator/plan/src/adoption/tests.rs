use graceful_api::{Phase, Signal};
use jiff::Timestamp;

use super::*;
use crate::fixture::{app, observed, policy, revision, serving};
use crate::observed::{Observed, Surroundings};
use crate::{Deletion, PodUid, plan};

fn of_the_deployment(name: &str) -> Pod {
    Pod { revision: RevisionHash::adopted(), ..serving(name) }
}

/// The Deployment web of these pods, which is taken.
fn taken(pods: &[Pod]) -> Observed {
    let replicas = u32::try_from(pods.len()).unwrap();
    let name = "web".to_owned();
    let adopted = Revision { replicas, name, policy: policy(Signal::None), ..revision("adopted") };
    let around = Surroundings { template: crate::TemplateVerdict::Accepted, ..Surroundings::default() };
    Observed {
        revisions: vec![adopted],
        pods: pods.to_vec(),
        surroundings: around,
        ..observed(app(2, policy(Signal::Http)))
    }
}

fn planned(observed: &Observed) -> crate::Plan {
    plan(observed, Timestamp::from_second(600).unwrap())
}

fn enlisted(actions: &[Action]) -> Vec<&str> {
    let names = actions.iter().filter_map(|a| match a {
        Action::Enlist { pod } => Some(pod.name.as_str()),
        _ => None,
    });
    names.collect()
}

/// Beside a Deployment that is not the app's yet, its pods would be made twice over.
#[test]
fn nothing_is_made_before_the_deployment_is_taken() {
    let mut seen = observed(app(2, policy(Signal::Http)));
    let mut with = |adoption| {
        seen.surroundings.adoption = adoption;
        planned(&seen)
    };
    let ready = with(Adoption::Ready { deployment: "web".to_owned() });
    assert_eq!(ready.actions, [Action::Adopt]);
    assert_eq!(ready.report.phase, Phase::Rolling);
    let waits = |needs_a_person| Adoption::Waits { message: "an HPA is on it".to_owned(), needs_a_person };
    let waiting = with(waits(false));
    assert_eq!((waiting.actions.len(), waiting.report.phase), (0, Phase::Rolling));
    assert_eq!(waiting.report.waiting_for, "an HPA is on it");
    assert_eq!(with(waits(true)).report.phase, Phase::Stalled);
    // An app that runs is not held up by a name that leads nowhere any more.
    let mut seen = taken(&[]);
    seen.revisions[0] = revision("r");
    seen.surroundings.adoption = waits(true);
    assert!(planned(&seen).report.phase != Phase::Stalled);
}

/// P4's exception, and no client's loss: a Service that asked for the label first would send nobody to pods without it.
#[test]
fn a_service_asks_for_the_label_once_every_pod_has_it() {
    let unlabelled = Pod { enlisted: false, ..of_the_deployment("b") };
    let mut seen = taken(&[of_the_deployment("a"), unlabelled]);
    seen.surroundings.unfenced_services = vec!["web".to_owned()];
    seen.surroundings.fenceable = vec!["web".to_owned()];
    let fences = |plan: &crate::Plan| plan.actions.iter().any(|a| matches!(a, Action::Fence { .. }));
    let first = planned(&seen);
    assert_eq!(enlisted(&first.actions), ["b"]);
    assert!(!fences(&first));
    assert_ne!(first.report.phase, Phase::Stalled, "the operator is about to do it");
    seen.pods[1].enlisted = true;
    assert!(fences(&planned(&seen)));
    // Somebody has put it back.
    seen.surroundings.fenceable.clear();
    let put_back = planned(&seen);
    assert!(!fences(&put_back));
    assert_eq!(put_back.report.phase, Phase::Stalled);
}

/// P4, P6: the executor's live look refuses to fence then, and ends the plan: the pod would never get its label back.
#[test]
fn a_pod_that_lost_its_label_gets_it_back_before_a_service_asks_for_it() {
    let stripped = Pod { routed: false, ..of_the_deployment("b") };
    let mut seen = taken(&[of_the_deployment("a"), stripped]);
    seen.surroundings.unfenced_services = vec!["web".to_owned()];
    seen.surroundings.fenceable = vec!["web".to_owned()];
    let plan = planned(&seen);
    assert!(!plan.actions.iter().any(|a| matches!(a, Action::Fence { .. })), "{:?}", plan.actions);
    let back = |a: &Action| matches!(a, Action::PutBack { pod, .. } if pod.name == "b");
    assert!(plan.actions.iter().any(back), "{:?}", plan.actions);
}

/// P1: its ReplicaSet would take it with the clients that the label gives it.
#[test]
fn a_spare_that_has_started_gets_clients_once_there_is_a_replica_for_it() {
    let mut seen = taken(&[Pod { enlisted: false, ..of_the_deployment("a") }]);
    assert_eq!(enlisted(&planned(&seen).actions), ["a"]);
    seen.revisions[0].replicas = 0;
    let plan = planned(&seen);
    assert_eq!(enlisted(&plan.actions), [""; 0]);
    let raised = |a: &Action| matches!(a, Action::ScaleUp { from: 0, to: 1, .. });
    assert!(plan.actions.iter().any(raised), "{:?}", plan.actions);
}

/// P8: a refusal is of the one Service, is told, and is left alone for its pause.
#[test]
fn a_service_that_cannot_be_fenced_holds_up_no_other() {
    let mut seen = taken(&[of_the_deployment("a")]);
    seen.surroundings.unfenced_services = vec!["one".to_owned(), "two".to_owned()];
    seen.surroundings.fenceable = seen.surroundings.unfenced_services.clone();
    seen.surroundings.services_backoff =
        [("one".to_owned(), refused("Service one cannot be changed"))].into();
    let plan = planned(&seen);
    let fenced = plan.actions.iter().filter_map(|a| match a {
        Action::Fence { service } => Some(service.as_str()),
        _ => None,
    });
    assert_eq!(fenced.collect::<Vec<_>>(), ["two"]);
    assert_eq!(plan.report.phase, Phase::Stalled);
    assert!(plan.report.waiting_for.contains("Service one cannot be changed"), "{}", plan.report.waiting_for);
}

fn refused(message: &str) -> crate::Backoff {
    crate::Backoff {
        cause: crate::BackoffCause::Refused,
        message: message.to_owned(),
        until: Timestamp::from_second(700).unwrap(),
    }
}

/// P1, P6: an autoscaler that comes later would make each pod anew that is ended, or end busy ones.
#[test]
fn nothing_of_the_deployment_drains_while_somebody_else_scales_it() {
    let mut seen = taken(&[of_the_deployment("a"), of_the_deployment("b")]);
    seen.revisions.push(Revision { replicas: 1, ..revision("r") });
    seen.pods.push(serving("c"));
    seen.contacts.insert(PodUid::from("c"), heard());
    let unroutes =
        |seen: &Observed| planned(seen).actions.iter().any(|a| matches!(a, Action::Unroute { .. }));
    assert!(unroutes(&seen));
    let warnings = vec!["Deployment web is not paused any more".to_owned()];
    seen.surroundings.adoption = Adoption::Taken { scaler: None, warnings: warnings.clone() };
    assert!(unroutes(&seen), "a warning holds nothing up");
    let said = |seen: &Observed| {
        let report = planned(seen).report;
        let warning = |c: &crate::ConditionReport| c.kind == graceful_api::conditions::ConditionType::Warning;
        let warning = report.conditions.iter().find(|c| warning(c)).map(|c| c.message.clone());
        (report.phase, report.waiting_for, warning.unwrap_or_default())
    };
    assert!(said(&seen).2.contains("not paused any more"), "{:?}", said(&seen));
    let scaler = Some("HorizontalPodAutoscaler late scales Deployment web".to_owned());
    seen.surroundings.adoption = Adoption::Taken { scaler, warnings };
    assert!(!unroutes(&seen));
    let (phase, waiting_for, _) = said(&seen);
    assert_eq!(phase, Phase::Stalled);
    assert!(waiting_for.contains("HorizontalPodAutoscaler late"), "{waiting_for}");
}

fn heard() -> crate::Contact {
    let answer = crate::Answer {
        at: Timestamp::UNIX_EPOCH,
        in_flight: crate::InFlight { total: 0, queued: 0, running: 0, requests: 0 },
        protocol: None,
        scheduled: None,
    };
    crate::Contact { answer: Some(answer), tried_at: Some(Timestamp::UNIX_EPOCH), ..Default::default() }
}

/// P1: a pod that no Service has let go of does not drain, nor one whose label nobody has written yet.
#[test]
fn no_pod_drains_before_the_services_follow() {
    let new = |name: &str| serving(name);
    let mut seen = taken(&[of_the_deployment("a"), of_the_deployment("b")]);
    seen.revisions.push(Revision { replicas: 1, ..revision("r") });
    seen.pods.push(new("c"));
    seen.contacts.insert(PodUid::from("c"), heard());
    let unroutes =
        |seen: &Observed| planned(seen).actions.iter().any(|a| matches!(a, Action::Unroute { .. }));
    assert!(unroutes(&seen), "one is above spec.replicas");
    let mut unfenced = seen.clone();
    unfenced.surroundings.unfenced_services = vec!["web".to_owned()];
    assert!(!unroutes(&unfenced));
    let mut behind = seen.clone();
    let left = crate::LeftBehind { service: "web".to_owned(), lacks: vec!["app: web".to_owned()] };
    behind.surroundings.left_behind = vec![left];
    assert!(!unroutes(&behind));
    assert!(planned(&behind).report.waiting_for.contains("add {app: web} to spec.template.metadata.labels"));
    for pod in seen.pods.iter_mut().take(2) {
        pod.enlisted = false;
    }
    assert!(!unroutes(&seen));
}

#[test]
fn the_deployment_stays_with_no_pods() {
    let mut seen = taken(&[]);
    seen.app.revision_history_limit = 0;
    seen.app.replicas = 0;
    seen.revisions.push(Revision { replicas: 0, ..revision("r") });
    seen.revisions.push(Revision { replicas: 0, ..revision("o") });
    let plan = planned(&seen);
    let gone = |hash: &str| Action::DeleteRevision { revision: RevisionHash::from(hash) };
    assert!(plan.actions.contains(&gone("o")) && !plan.actions.contains(&gone("adopted")));
}

#[test]
fn drained_is_said_once_nothing_of_it_is_left() {
    let drained = |seen: &Observed| {
        let report = planned(seen).report;
        let drained = report
            .conditions
            .into_iter()
            .find(|c| c.kind == graceful_api::conditions::ConditionType::Drained);
        let drained = drained.unwrap();
        (drained.holds, drained.reason, drained.message)
    };
    let (holds, reason, message) = drained(&taken(&[of_the_deployment("a")]));
    assert!(!holds && message.contains("1 pod of Deployment web is left"), "{message}");
    assert_eq!(reason, Reason::Adopting);
    assert!(drained(&taken(&[])).0);
    // Before it is taken, whoever waits for this would remove it, and its pods, from the repository.
    for revisions in [Vec::new(), vec![revision("r")]] {
        let mut seen = Observed { revisions, ..taken(&[]) };
        seen.surroundings.adoption = Adoption::Ready { deployment: "web".to_owned() };
        let ready = drained(&seen);
        assert_eq!((ready.0, ready.1), (false, Reason::Adopting));
        seen.surroundings.adoption =
            Adoption::Waits { message: "an HPA is on it".to_owned(), needs_a_person: true };
        let (holds, reason, message) = drained(&seen);
        assert_eq!((holds, reason), (false, Reason::AdoptionWaits));
        assert!(message.contains("an HPA is on it"), "{message}");
    }
}

/// A deletion without `graceful.dev/leave` ends the pods, and the user's Deployment and Services are the user's again.
#[test]
fn a_deletion_gives_the_empty_deployment_back() {
    let mut seen = taken(&[]);
    seen.app.deletion = Deletion::Drain;
    seen.surroundings.fenced = vec!["web".to_owned()];
    let let_go = Action::LetGo { revision: RevisionHash::adopted() };
    let unfence = Action::Unfence { service: "web".to_owned() };
    assert_eq!(planned(&seen).actions, [let_go.clone(), unfence, Action::ReleaseFinalizer]);
    // The finalizer goes after all of it.
    seen.surroundings.services_backoff =
        [("web".to_owned(), refused("Service web cannot be changed"))].into();
    assert_eq!(planned(&seen).actions, [let_go]);
    seen.revisions[0].annotation_backoff = Some(refused("Deployment web cannot be let go"));
    assert_eq!(planned(&seen).actions, []);
}
