use std::collections::BTreeSet;

use graceful_api::{DrainPolicy, DrainReason, OnDeadline, ReplaceWhen, Signal};
use graceful_plan::{
    Answer, App, Backoff, BackoffCause, Contact, Deletion, DrainNote, Endpoints, Epoch, Mark, Node, NodeFate,
    Readiness, Revision, Surroundings, plan,
};
use jiff::Timestamp;

use super::*;
use crate::observe::{Sought, WantedChildren};

/// The moment of every plan here.
const NOW: i64 = 10_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A pod that serves.
fn pod(name: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        uid: PodUid::from(name),
        revision: RevisionHash::from("v1"),
        created: at(0),
        enlisted: true,
        terminating: false,
        routed: true,
        epoch: None,
        drain: None,
        cheapest: false,
        bridged: false,
        endpoints: Endpoints::Withdrawn,
        mark: Mark::Absent,
        mark_rests_until: None,
        cut: None,
        ends_since: None,
        grace_ends: None,
        readiness: Readiness::Ready(at(1)),
        containers: Containers::Running,
        node: Node::default(),
        unschedulable: None,
        grace_seconds: 30,
        trouble: None,
        write_backoff: None,
    }
}

/// One that drains since then; its deadline is 60 s later.
fn draining(name: &str, since: i64) -> Pod {
    let drain = Some(DrainNote { reason: DrainReason::ScaleDown, since: at(since) });
    Pod { routed: false, epoch: Some(Epoch(1)), drain, ..pod(name) }
}

/// What each pod answered lately, where it did.
fn seen(pods: Vec<Pod>, in_flight: &[(&str, u64)]) -> Observation {
    let policy = DrainPolicy {
        signal: Signal::Http,
        linger_seconds: 3,
        quiet_seconds: 5,
        deadline_seconds: 60,
        on_deadline: OnDeadline::Hold,
    };
    let revision = Revision {
        hash: RevisionHash::from("v1"),
        name: "tasks-v1".to_owned(),
        replicas: u32::try_from(pods.len()).unwrap(),
        created: at(0),
        policy,
        policy_current: true,
        signal_current: true,
        replica_failure: None,
        end_failure: None,
        has_no_replica_set: false,
        proven: true,
        scale_backoff: None,
        annotation_backoff: None,
        followed: true,
        nudged: None,
    };
    let contacts = in_flight.iter().map(|(name, total)| {
        let in_flight = InFlight { total: *total, ..InFlight::default() };
        let answer = Some(Answer { at: at(NOW - 1), in_flight, protocol: None, scheduled: None });
        (PodUid::from(*name), Contact { answer, tried_at: Some(at(NOW - 1)), ..Contact::default() })
    });
    let observed = Observed {
        app: App {
            name: "tasks".to_owned(),
            namespace: "apps".to_owned(),
            replicas: u32::try_from(pods.iter().filter(|p| p.routed).count()).unwrap(),
            update: RevisionHash::from("v1"),
            policy,
            max_surge: 1,
            max_unavailable: 0,
            min_ready_seconds: 0,
            progress_deadline_seconds: 600,
            surge_timeout_seconds: 120,
            replace_when: ReplaceWhen::Drained,
            paused: false,
            revision_history_limit: 2,
            hold_while_busy: false,
            deletion: Deletion::No,
            finalizer: true,
            finalizer_backoff: None,
        },
        revisions: vec![revision],
        contacts: contacts.collect(),
        pods,
        rejected: BTreeMap::new(),
        absent: BTreeMap::new(),
        lags: BTreeMap::new(),
        surroundings: Surroundings::default(),
    };
    Observation {
        observed,
        app: None,
        wanted: WantedChildren::default(),
        targets: BTreeMap::new(),
        versions: BTreeMap::new(),
        autoscaler_annotations: BTreeMap::new(),
        local_services: Vec::new(),
        bridges: BTreeMap::new(),
        deployments: BTreeMap::new(),
        strangers: Vec::new(),
        endings: BTreeMap::new(),
        sought: Sought::default(),
        adopted_policy: None,
    }
}

/// The Events of one reason that follow from this view: the pod each is about, and its words.
fn tell(told: &mut Announced, seen: &Observation, reason: &str) -> Vec<(Option<String>, String)> {
    let report = plan(&seen.observed, at(NOW)).report;
    let found = happenings(told, &report, seen).into_iter().filter(|h| h.is(reason));
    found.map(|h| (h.pod.map(|(name, _)| name), h.note)).collect()
}

/// The pods that Events of one reason are about.
fn about(told: &mut Announced, seen: &Observation, reason: &str) -> BTreeSet<String> {
    tell(told, seen, reason).into_iter().filter_map(|(pod, _)| pod).collect()
}

#[test]
fn each_pod_that_is_held_has_an_event_of_its_own() {
    let told = &mut Announced::default();
    let young = NOW - 10;
    let both = |second| vec![draining("a", 0), draining("b", second)];
    let first = tell(told, &seen(both(young), &[("a", 3), ("b", 1)]), "DrainHeld");
    let words = "pod a is past its deadline of 60 s and held, with 3 in flight: wait, or `kubectl -n apps delete pod a`: it then has its grace \
                 period of 30 s to finish";
    assert_eq!(first, [(Some("a".to_owned()), words.to_owned())]);
    assert_eq!(about(told, &seen(both(young), &[("a", 2), ("b", 1)]), "DrainHeld"), [].into(), "once");
    let second = seen(both(0), &[("a", 2), ("b", 1)]);
    assert_eq!(about(told, &second, "DrainHeld"), ["b".to_owned()].into(), "an hour later");
    assert_eq!(about(told, &second, "DrainHeld"), [].into());
}

#[test]
fn a_pod_that_is_held_is_said_in_every_phase() {
    let mut view = seen(vec![draining("a", 0), pod("b")], &[("a", 3), ("b", 0)]);
    view.observed.surroundings.warnings =
        vec![graceful_plan::Warning { reason: Reason::Refused, message: "no Service".to_owned() }];
    assert_eq!(plan(&view.observed, at(NOW)).report.phase, Phase::Stalled);
    assert_eq!(about(&mut Announced::default(), &view, "DrainHeld"), ["a".to_owned()].into());
}

#[test]
fn a_second_cause_of_a_stall_is_told_as_well() {
    let told = &mut Announced::default();
    let mut is_new = |why: &str| {
        told.is_new(&ConditionReport {
            kind: ConditionType::Stalled,
            holds: true,
            reason: Reason::Refused,
            message: why.to_owned(),
        })
    };
    assert!(is_new("denied: change freeze, try 1"));
    assert!(!is_new("denied: change freeze, try 2"), "a number is no news");
    assert!(is_new("no webhook answers for Services"));
    assert!(!is_new("denied: change freeze, try 3"), "told in this stall");
    assert_eq!(('a'..='z').filter(|c| is_new(&c.to_string())).count(), WORDS_OF_A_STALL - 2);
}

/// A restarted operator has asked nobody yet: a pod past its deadline may be idle by now.
#[test]
fn a_pod_is_said_to_be_held_once_it_was_asked() {
    let told = &mut Announced::default();
    assert_eq!(about(told, &seen(vec![draining("a", 0)], &[]), "DrainHeld"), [].into());
    let asked = seen(vec![draining("a", 0)], &[("a", 1)]);
    assert_eq!(about(told, &asked, "DrainHeld"), ["a".to_owned()].into());
    let mut crashed = draining("c", 0);
    crashed.containers = Containers::Crashed;
    assert_eq!(
        about(told, &seen(vec![crashed], &[]), "DrainHeld"),
        ["c".to_owned()].into(),
        "nobody asks it"
    );
}

/// No pod is past its deadline there: it is the API server that is waited for.
#[test]
fn a_drain_that_is_held_for_the_api_server_is_said_of_the_app() {
    let told = &mut Announced::default();
    let mut view = seen(vec![draining("a", NOW - 10), pod("b")], &[("a", 3), ("b", 0)]);
    view.observed.revisions[0].scale_backoff = Some(Backoff {
        cause: BackoffCause::TooSlow,
        message: "the API server is too slow".to_owned(),
        until: at(NOW + 10),
    });
    let words = |view: &Observation, told: &mut Announced| tell(told, view, "ControlPlaneSlow");
    let first = words(&view, told);
    assert!(matches!(first.as_slice(), [(None, note)] if note.contains("too slow")), "{first:?}");
    assert_eq!(words(&view, told), []);
}

/// A pod that its kubelet evicted: it has no deletionTimestamp, and its record stays.
fn evicted(name: &str) -> Pod {
    Pod { containers: Containers::Finished, readiness: Readiness::Lost(at(NOW)), ..pod(name) }
}

const OTHERS: &str = "EndedByOthers";

#[test]
fn what_an_evicted_pod_had_in_flight_is_said_once() {
    let told = &mut Announced::default();
    let before = seen(vec![pod("a"), pod("b")], &[("a", 3), ("b", 0)]);
    assert_eq!(tell(told, &before, OTHERS), []);
    let mut after = seen(vec![evicted("a"), evicted("b"), pod("c")], &[("a", 3), ("b", 0), ("c", 0)]);
    after.endings =
        [(PodUid::from("a"), "was evicted (Evicted: The node was low on memory.)".to_owned())].into();
    let note = |pod: &str, words: &str| (Some(pod.to_owned()), format!("pod {pod} {words} in flight"));
    assert_eq!(
        tell(told, &after, OTHERS),
        [
            note("a", "was evicted (Evicted: The node was low on memory.), at its last answer with 3"),
            note("b", "has finished, and the operator did not end it, at its last answer with 0"),
        ]
    );
    assert_eq!(tell(told, &after, OTHERS), [], "its record stays for days");
    // After a live view, an older one may come once more.
    let older = seen(vec![pod("a"), pod("b"), pod("c")], &[("a", 3), ("b", 0)]);
    assert_eq!(tell(told, &older, OTHERS), []);
    assert_eq!(tell(told, &after, OTHERS), []);
    let cleaned = seen(vec![pod("c")], &[("c", 0)]);
    assert_eq!(tell(told, &cleaned, OTHERS), [], "and is removed");
}

#[test]
fn a_pod_that_is_evicted_while_it_drains_is_said_where_it_was_busy() {
    let told = &mut Announced::default();
    let busy = [("a", 2), ("b", 0)];
    tell(told, &seen(vec![draining("a", NOW - 10), draining("b", NOW - 10), pod("c")], &busy), OTHERS);
    let ended = |name: &str| Pod { containers: Containers::Finished, ..draining(name, NOW - 10) };
    let after = seen(vec![ended("a"), ended("b"), pod("c")], &busy);
    assert_eq!(about(told, &after, OTHERS), ["a".to_owned()].into());
}

/// Its record says Running until it is removed, by the garbage collector of Kubernetes or by us.
#[test]
fn a_pod_whose_node_is_shut_down_is_said_with_its_last_count() {
    let told = &mut Announced::default();
    let flight = [("a", 2), ("b", 0), ("d", 1), ("e", 0)];
    let draining = || [draining("d", NOW - 10), draining("e", NOW - 10)];
    let [d, e] = draining();
    tell(told, &seen(vec![pod("a"), pod("b"), pod("c"), d, e], &flight), OTHERS);
    let shut_down = |mut pod: Pod| {
        pod.node.fate = NodeFate::ShutDown;
        pod
    };
    let [d, e] = draining().map(shut_down);
    let collected = Pod { terminating: true, grace_ends: Some(at(NOW)), ..shut_down(pod("a")) };
    let after = seen(vec![collected, shut_down(pod("b")), pod("c"), d, e], &flight);
    let words = "is on a node that was shut down (node.kubernetes.io/out-of-service), and ended with it, at its last answer with";
    let note = |pod: &str, count| (Some(pod.to_owned()), format!("pod {pod} {words} {count} in flight"));
    assert_eq!(tell(told, &after, OTHERS), [note("a", 2), note("b", 0), note("d", 1)]);
    assert_eq!(tell(told, &seen(vec![pod("c")], &[]), OTHERS), [], "each once");
}

/// What it knows nothing of: records of before its own time, and the end of a pod after our own DELETE.
#[test]
fn a_record_alone_says_nothing() {
    let told = &mut Announced::default();
    assert_eq!(tell(told, &seen(vec![evicted("a")], &[]), OTHERS), []);
    assert_eq!(tell(told, &seen(vec![evicted("a")], &[]), OTHERS), []);
    tell(told, &seen(vec![draining("b", NOW - 10), pod("c")], &[("b", 1)]), OTHERS);
    let ours = Pod { containers: Containers::Finished, terminating: true, ..draining("b", NOW - 10) };
    assert_eq!(tell(told, &seen(vec![ours, pod("c")], &[("b", 0)]), OTHERS), []);
    // Of a revision that never worked, or a spare: it is ended while it has its label.
    let never = Pod { readiness: Readiness::Never, ..pod("d") };
    tell(told, &seen(vec![never.clone(), pod("c")], &[("c", 1)]), OTHERS);
    let ours = Pod { containers: Containers::Finished, terminating: true, ..never };
    assert_eq!(tell(told, &seen(vec![ours, pod("c")], &[("c", 1)]), OTHERS), []);
    assert_eq!(tell(told, &seen(vec![pod("c")], &[("c", 1)]), OTHERS), []);
    let never = Pod { readiness: Readiness::Never, ..pod("e") };
    tell(told, &seen(vec![never, pod("c")], &[("c", 1)]), OTHERS);
    assert_eq!(tell(told, &seen(vec![pod("c")], &[("c", 1)]), OTHERS), [], "it ended between two views");
}

#[test]
fn a_pod_that_is_gone_between_two_views_is_said() {
    let told = &mut Announced::default();
    tell(told, &seen(vec![pod("a"), pod("b")], &[("a", 3), ("b", 1)]), OTHERS);
    let deleted = Pod { terminating: true, grace_ends: Some(at(NOW + 30)), ..pod("b") };
    let after = seen(vec![deleted], &[("b", 1)]);
    assert_eq!(about(told, &after, OTHERS), ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(tell(told, &after, OTHERS), []);
    assert_eq!(tell(told, &seen(vec![], &[]), OTHERS), [], "each once");
}

/// The break-glass takes the label off a Deployment, and its pods run on; a Deployment that is deleted takes them with it.
#[test]
fn a_pod_whose_deployment_left_the_view_is_said_when_it_ends() {
    let told = &mut Announced::default();
    let flight = [("a", 3), ("b", 1), ("c", 2)];
    tell(told, &seen(vec![pod("a"), pod("b"), draining("c", NOW - 10)], &flight), OTHERS);
    let left = |strangers: Vec<Pod>| Observation { strangers, ..seen(vec![], &[]) };
    let run_on = left(vec![pod("a"), pod("b"), draining("c", NOW - 10)]);
    assert_eq!(tell(told, &run_on, OTHERS), []);
    assert_eq!(tell(told, &run_on, OTHERS), []);
    let ends = Pod { terminating: true, ..pod("a") };
    let note =
        "pod a is ended by others (a delete, of its Deployment perhaps), at its last answer with 3 in flight";
    let after = left(vec![ends, pod("b")]);
    assert_eq!(tell(told, &after, OTHERS), [(Some("a".to_owned()), note.to_owned())]);
    assert_eq!(about(told, &left(vec![]), OTHERS), ["b".to_owned()].into());
    // Known to be let go: nothing of them is ours to tell.
    tell(told, &seen(vec![pod("d")], &[("d", 1)]), OTHERS);
    told.others.let_go_of(&RevisionHash::from("v1"));
    assert_eq!(tell(told, &left(vec![]), OTHERS), []);
}

#[test]
fn a_drain_that_is_let_go_is_not_said_to_end() {
    let told = &mut Announced::default();
    tell(told, &seen(vec![draining("a", NOW - 10)], &[("a", 3)]), "DrainEnded");
    let left = Observation { strangers: vec![draining("a", NOW - 10)], ..seen(vec![], &[]) };
    let said = tell(told, &left, "DrainCancelled");
    assert!(matches!(said.as_slice(), [(Some(_), note)] if note.contains("runs on")), "{said:?}");
}

/// Of an app's first revision it is told that it serves, of a later one that it is rolled out as well.
#[test]
fn a_rollout_is_told_as_it_begins_and_as_it_ends() {
    let told = &mut Announced::default();
    let reasons = |told: &mut Announced, view: &Observation| {
        let report = plan(&view.observed, at(NOW)).report;
        let found = happenings(told, &report, view).into_iter().map(|h| h.reason);
        found.filter(|reason| reason.starts_with("Rollout")).collect::<Vec<_>>()
    };
    let first = || seen(vec![pod("a")], &[("a", 0)]);
    let mut nothing_yet = first();
    (nothing_yet.observed.revisions, nothing_yet.observed.pods) = (Vec::new(), Vec::new());
    assert_eq!(reasons(told, &nothing_yet), [""; 0]);
    assert_eq!(reasons(told, &seen(vec![pod("a")], &[])), [""; 0], "nobody has heard it yet");
    assert_eq!(reasons(told, &first()), ["RolloutFinished"]);
    assert_eq!(reasons(told, &first()), [""; 0], "once");

    let v2 = RevisionHash::from("v2");
    let mut second = seen(vec![pod("a"), pod("b")], &[("a", 0), ("b", 0)]);
    second.observed.app.update = v2.clone();
    second.observed.app.replicas = 1;
    second.observed.pods[1].revision = v2.clone();
    let mut not_made_yet = seen(vec![pod("a")], &[("a", 0)]);
    not_made_yet.observed.app.update = v2.clone();
    assert_eq!(reasons(told, &not_made_yet), ["RolloutStarted"], "before its Deployment is there");
    let newer = Revision { hash: v2, replicas: 1, ..second.observed.revisions[0].clone() };
    second.observed.revisions.push(newer);
    assert_eq!(reasons(told, &second), [""; 0]);
    // Another leader takes over.
    let told = &mut Announced::default();
    let status = GracefulAppStatus {
        phase: Some(Phase::Rolling),
        current_revision: Some("v1".to_owned()),
        update_revision: Some("v2".to_owned()),
        ..GracefulAppStatus::default()
    };
    told.goes_on_from(Some(&status), &second.observed.app.update);
    assert_eq!(reasons(told, &second), [""; 0], "it was told");
    second.observed.pods.remove(0);
    second.observed.revisions[0].replicas = 0;
    assert_eq!(reasons(told, &second), ["RolloutFinished"]);
}

/// Who looks an hour later must find why an app's pods all closed at once, the budget notwithstanding.
#[test]
fn a_node_that_dies_soon_is_told_once_in_the_same_words() {
    let told = &mut Announced::default();
    let on_it = |pods: &[&str]| {
        let node = Node { name: Some("n1".to_owned()), fate: NodeFate::Dying, ..Node::default() };
        let here = |name: &str| Pod { node: node.clone(), ..pod(name) };
        let mut all: Vec<_> = pods.iter().map(|name| here(name)).collect();
        all.push(pod("elsewhere"));
        seen(all, &[])
    };
    let mut said = |view: &Observation| {
        let events = tell(told, view, "NodeDies").into_iter();
        events.map(|(_, words)| words).collect::<Vec<_>>()
    };
    let begins = "n1 has a taint that says it is about to be shut down";
    let both = said(&on_it(&["a", "b"]));
    assert!(
        matches!(both.as_slice(), [words] if words.contains(begins) && words.contains("2 pods")),
        "{both:?}"
    );
    assert_eq!(said(&on_it(&["a", "b"])), [""; 0], "once");
    let one = said(&on_it(&["a"]));
    assert!(
        matches!(one.as_slice(), [words] if words.contains(begins) && words.contains("1 pod ")),
        "{one:?}"
    );
    assert_eq!(said(&on_it(&["a"])), [""; 0], "once");
    assert_eq!(said(&on_it(&["a", "b"])), both, "what was said before, and was other words since");
    assert_eq!(said(&on_it(&[])), [""; 0]);
    assert_eq!(said(&on_it(&["a", "b"])), both, "another notice");
}
