use graceful_api::{DrainReason, Signal};

use super::take_back::RETRIED_FOR;
use super::*;
use crate::contact::{Acknowledged, Answer, InFlight, Protocol};
use crate::fixture::{policy, serving};
use crate::ids::Epoch;
use crate::observed::{Containers, CutNote, DrainNote};

const EPOCH: Epoch = Epoch(4);
const IDLE: Proof = Proof::Idle { epoch: EPOCH };
const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(501);

fn pod() -> PodUid {
    PodUid::from("a")
}

fn draining() -> Pod {
    let drain = Some(DrainNote { reason: DrainReason::Rollout, since: NOW });
    Pod { routed: false, epoch: Some(EPOCH), drain, ..serving("a") }
}

fn idle() -> Contact {
    let in_flight = InFlight { total: 0, ..InFlight::default() };
    let protocol = Some(Protocol { epoch: EPOCH, accepting: false, resumable: true });
    Contact {
        answer: Some(Answer { at: NOW, in_flight, protocol, scheduled: None }),
        acknowledged: Some(Acknowledged { epoch: EPOCH, at: NOW }),
        ..Contact::default()
    }
}

/// One of two pods is to go. Its sibling would be killed after 90 s, and may be at work for longer.
fn retirement(pod: &PodUid, proof: Proof) -> Retirement<'_> {
    let policy = DrainPolicy { deadline_seconds: 300, ..policy(Signal::Http) };
    Retirement { pod, replicas: 2, proof, as_well: &[], policy }
}

fn name(step: &Step<'_>) -> &'static str {
    match step {
        Step::Try(_) => "try",
        Step::Measure(_) => "measure",
        Step::List(_) => "list",
        Step::LowerCost(_) => "lower the cost",
        Step::Note(_) => "note",
        Step::Hear(_) => "hear",
        Step::ScaleFirst { .. } => "scale first",
        Step::Delete(_) => "delete",
        Step::Scale(_) => "scale",
        Step::Ask(_) => "ask",
        Step::LookAgain(_) => "look again",
        Step::Over(_) => "over",
    }
}

/// What each call meets; the live list has the pod and its sibling.
struct Met {
    found: Pod,
    others: u32,
    dry_run: Duration,
    came_late: bool,
    pod_write: Option<Duration>,
    sibling: Pod,
    contact: Option<Contact>,
    delete: Duration,
    scales: Vec<Scaled>,
    done_all_the_same: bool,
}

impl Default for Met {
    fn default() -> Self {
        Self {
            found: draining(),
            others: 1,
            dry_run: SOON,
            came_late: false,
            pod_write: Some(SOON),
            sibling: serving("b"),
            contact: Some(idle()),
            delete: SOON,
            scales: Vec::new(),
            done_all_the_same: false,
        }
    }
}

/// The steps that were taken, and how it ended; none where the ReplicaSet ends the pod. A DELETE moves the pod off the list.
fn steps(what: Retirement<'_>, mut met: Met) -> (String, Option<End>) {
    let mut taken = Vec::new();
    let mut step = what.looked(Some(&met.found), met.others, true);
    loop {
        taken.push(name(&step));
        step = match step {
            Step::Try(dry) => dry.permitted(met.dry_run, met.came_late, met.pod_write),
            Step::Measure(measure) => measure.followed(),
            Step::List(list) => {
                let contacts = met.contact.iter().map(|c| (pod(), c.clone())).collect();
                list.read(&[met.found.clone(), met.sibling.clone()], &contacts, NOW)
            }
            Step::LowerCost(lower) => lower.written(),
            Step::Note(note) => note.written(),
            Step::Hear(hear) => hear.heard(met.contact.as_ref(), NOW),
            Step::Delete(delete) => delete.done(met.delete),
            Step::Scale(scale) => scale.answered(met.scales.pop().unwrap_or(Scaled::Done), met.delete),
            Step::Ask(ask) => ask.found(met.done_all_the_same),
            Step::LookAgain(again) => again.seen(std::slice::from_ref(&met.sibling)),
            Step::ScaleFirst { .. } => return (taken.join(", "), None),
            Step::Over(end) => return (taken.join(", "), Some(end)),
        };
    }
}

/// Keeps P1.
#[test]
fn nothing_is_deleted_before_its_scale_was_tried_and_the_pod_heard_again() {
    let pod = pod();
    let (taken, end) = steps(retirement(&pod, IDLE), Met::default());
    assert_eq!(taken, "try, hear, delete, scale, over");
    assert_eq!(end, Some(End::Done));

    let busy = Contact { acknowledged: None, ..idle() };
    for contact in [None, Some(busy)] {
        let (taken, end) = steps(retirement(&pod, IDLE), Met { contact, ..Met::default() });
        assert_eq!(taken, "try, hear, over");
        assert!(matches!(end, Some(End::Changed(_))), "{end:?}");
    }
}

/// Keeps P1.
#[test]
fn a_pod_that_is_not_as_it_was_seen_is_left_alone() {
    let pod = pod();
    let (taken, end) = steps(retirement(&pod, IDLE), Met { found: serving("a"), ..Met::default() });
    assert_eq!(taken, "over", "it was put back");
    assert!(matches!(end, Some(End::Changed(_))), "{end:?}");
    let step = retirement(&pod, IDLE).looked(Some(&draining()), 1, false);
    assert!(matches!(step, Step::Over(End::Changed(_))), "its Deployment has other replicas: {step:?}");
    let found = Pod { containers: Containers::Finished, ..draining() };
    assert_eq!(steps(retirement(&pod, IDLE), Met { found, ..Met::default() }).1, Some(End::Finished));
}

#[test]
fn a_pod_without_a_replica_is_ended_without_a_scale() {
    let pod = pod();
    let (taken, end) = steps(retirement(&pod, IDLE), Met { others: 2, ..Met::default() });
    assert_eq!((taken.as_str(), end), ("hear, delete, over", Some(End::Done)));
}

/// Keeps P1: with the scale late, the ReplicaSet would choose between a spare that runs and a busy sibling.
#[test]
fn behind_a_slow_api_server_nothing_of_ours_is_deleted() {
    let pod = pod();
    let slow = || Met { dry_run: LATE, ..Met::default() };
    let (taken, end) = steps(retirement(&pod, IDLE), slow());
    assert_eq!((taken.as_str(), end), ("try, list, over", Some(End::TooSlow(LATE))));

    // Its sibling may go as well: the ReplicaSet may take either.
    let sibling = || Pod { uid: PodUid::from("b"), ..draining() };
    let as_well = [(PodUid::from("b"), Proof::Cut { epoch: EPOCH, tasks: None })];
    let both = Retirement { as_well: &as_well, ..retirement(&pod, IDLE) };
    assert_eq!(steps(both, Met { sibling: sibling(), ..slow() }).1, Some(End::TooSlow(LATE)), "uncounted");
    let as_well = [(PodUid::from("b"), Proof::NotRunning)];
    let both = Retirement { as_well: &as_well, ..retirement(&pod, IDLE) };
    let crashed = || Pod { containers: Containers::CrashedEmpty, ..sibling() };
    let (taken, end) = steps(both, Met { sibling: crashed(), ..slow() });
    assert_eq!((taken.as_str(), end), ("try, list, lower the cost, hear, scale first", None));
    let as_well = [(PodUid::from("b"), IDLE)];
    let both = Retirement { as_well: &as_well, ..retirement(&pod, IDLE) };
    let unheard = steps(both, Met { sibling: sibling(), ..slow() });
    assert_eq!(unheard.1, Some(End::TooSlow(LATE)), "what its sibling said does not stand");
}

#[test]
fn a_slow_write_to_pods_asks_how_late_the_controllers_are() {
    let pod = pod();
    let taken = |came_late, pod_write| {
        steps(retirement(&pod, IDLE), Met { came_late, pod_write, ..Met::default() }).0
    };
    assert_eq!(taken(true, Some(SOON)), "try, list, hear, delete, scale, over");
    for slow in [None, Some(LATE)] {
        assert_eq!(taken(false, slow), "try, list, measure, hear, delete, scale, over");
        assert_eq!(taken(true, slow), "try, list, measure, measure, hear, delete, scale, over");
    }
}

/// Keeps P1: what is cut is counted before it ends, and nothing else is.
#[test]
fn the_count_of_a_cut_goes_on_the_pod_before_its_delete() {
    let pod = pod();
    let cut = Proof::Cut { epoch: EPOCH, tasks: Some(3) };
    assert_eq!(steps(retirement(&pod, cut), Met::default()).0, "try, note, hear, delete, scale, over");
    let noted = |proof, note: Option<CutNote>| {
        let found = Pod { cut: note, ..draining() };
        match retirement(&pod, proof).looked(Some(&found), 2, true) {
            Step::Note(note) => Some(note.cut()),
            _ => None,
        }
    };
    let earlier = || Some(CutNote { tasks: Some(9) });
    assert_eq!(noted(cut, None), Some(Some(Cut { tasks: Some(3) })));
    assert_eq!(noted(cut, earlier()), Some(Some(Cut { tasks: Some(3) })), "it is written anew");
    assert_eq!(noted(IDLE, earlier()), Some(None), "the note goes");
    assert_eq!(noted(IDLE, None), None);
}

/// Keeps P1.
#[test]
fn a_scale_is_retried_only_while_no_spare_runs() {
    let pod = pod();
    let conflict = || Scaled::Conflict("it was changed".to_owned());
    let after = |met| steps(retirement(&pod, IDLE), met);
    let (taken, end) = after(Met { scales: vec![conflict()], ..Met::default() });
    assert_eq!(taken, "try, hear, delete, scale, look again, scale, over");
    assert_eq!(end, Some(End::Done));

    let cause = |end| match end {
        Some(End::NotTakenBack { cause, .. }) => Some(cause),
        _ => None,
    };
    let (taken, end) = after(Met { scales: vec![conflict(); 9], ..Met::default() });
    assert_eq!(taken.matches("look again").count(), 5);
    assert_eq!(cause(end), Some(BackoffCause::TooSlow));
    let refused = vec![Scaled::Refused("change freeze".to_owned())];
    let (taken, end) = after(Met { scales: refused, ..Met::default() });
    assert_eq!(taken, "try, hear, delete, scale, over");
    assert_eq!(cause(end), Some(BackoffCause::Refused));

    // So late, a spare may run: it is looked for before anything is lowered, and a conflict is the end.
    let (taken, end) = after(Met { delete: LATE, ..Met::default() });
    assert_eq!((taken.as_str(), end), ("try, hear, delete, look again, scale, over", Some(End::Done)));
    let met = Met { delete: RETRIED_FOR, scales: vec![conflict()], ..Met::default() };
    let (taken, end) = after(met);
    assert_eq!(taken, "try, hear, delete, look again, scale, over");
    assert_eq!(cause(end), Some(BackoffCause::TooSlow));
}

/// Keeps P1.
#[test]
fn a_spare_that_runs_is_never_left_to_its_replica_set() {
    let pod = pod();
    let looked = retirement(&pod, IDLE).looked(Some(&draining()), 1, true);
    let Step::Try(dry) = looked else { panic!("a scale is tried dry") };
    assert_eq!(dry.to(), 1);
    let Step::Hear(hear) = dry.permitted(SOON, false, Some(SOON)) else { panic!("then the pod is heard") };
    let Step::Delete(delete) = hear.heard(Some(&idle()), NOW) else { panic!("then it is deleted") };
    let Step::LookAgain(again) = delete.done(LATE) else { panic!("that was late") };
    let end = again.seen(&[serving("b"), serving("spare")]);
    assert!(
        matches!(end, Step::Over(End::NotTakenBack { cause: BackoffCause::TooSlow, .. })),
        "its sibling might be taken: {end:?}"
    );
}

#[test]
fn a_scale_without_an_answer_is_looked_for() {
    let pod = pod();
    let after = |done_all_the_same, delete| {
        let scales = vec![Scaled::Unanswered("connection reset".to_owned())];
        steps(retirement(&pod, IDLE), Met { scales, done_all_the_same, delete, ..Met::default() })
    };
    let (taken, end) = after(true, SOON);
    assert_eq!((taken.as_str(), end), ("try, hear, delete, scale, ask, over", Some(End::FoundDone)));
    let (taken, end) = after(false, SOON);
    assert_eq!(taken, "try, hear, delete, scale, ask, look again, scale, over");
    assert_eq!(end, Some(End::Done));
    let (_, end) = after(false, RETRIED_FOR);
    let why = "connection reset".to_owned();
    assert_eq!(end, Some(End::NotTakenBack { to: 1, cause: BackoffCause::TooSlow, why }));
}
