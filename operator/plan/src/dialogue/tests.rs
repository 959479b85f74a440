use super::*;

const GAP: SignedDuration = SignedDuration::from_secs(5);
const DRAIN: Conversation = Conversation::Drain { epoch: Epoch(1), linger_seconds: 3 };
const PUT: Request = Request::Drain { epoch: Epoch(1), linger_seconds: 3 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn reading(total: u64, boot: Option<&str>) -> Reading {
    let protocol = boot.map(|_| Protocol { epoch: Epoch(1), accepting: false, resumable: true });
    Reading {
        in_flight: InFlight { total, ..InFlight::default() },
        protocol,
        scheduled: None,
        boot_id: boot.map(str::to_owned),
    }
}

fn hear(dialogue: &mut Dialogue, total: u64, boot: Option<&str>, second: i64) -> News {
    dialogue.heard(Request::Status, reading(total, boot), at(second))
}

#[test]
fn a_changed_boot_id_is_a_restart_with_its_last_known_count() {
    let mut dialogue = Dialogue::default();
    hear(&mut dialogue, 4, Some("a"), 1);
    assert_eq!(dialogue.contact.restarted, None);
    hear(&mut dialogue, 0, Some("b"), 2);
    assert_eq!(dialogue.contact.restarted, Some(Restarted { times: 1, last_known: 4 }));
}

/// An app of several processes is not one that restarts at every answer.
#[test]
fn boot_ids_that_come_back_are_several_processes() {
    let mut dialogue = Dialogue::default();
    hear(&mut dialogue, 1, Some("a"), 1);
    hear(&mut dialogue, 1, Some("b"), 1);
    assert!(!dialogue.contact.several, "one restart");
    hear(&mut dialogue, 1, Some("a"), 1);
    assert!(dialogue.contact.several);
    assert_eq!(dialogue.contact.restarted, None);
    hear(&mut dialogue, 1, Some("c"), 1);
    assert_eq!(dialogue.contact.restarted, None);
}

#[test]
fn a_new_container_is_a_restart_where_no_boot_id_tells() {
    let mut dialogue = Dialogue::default();
    dialogue.runs_as("c1");
    hear(&mut dialogue, 2, None, 1);
    dialogue.begin(Conversation::CountZeros { epoch: Epoch(1) }, GAP, at(2));
    hear(&mut dialogue, 0, None, 2);
    dialogue.runs_as("c1");
    assert_eq!(dialogue.contact.restarted, None);
    assert!(dialogue.contact.zero_run.is_some());
    dialogue.runs_as("c2");
    assert_eq!(dialogue.contact.restarted, Some(Restarted { times: 1, last_known: 0 }));
    assert_eq!(dialogue.contact.zero_run, None, "another process may have found work");
}

#[test]
fn an_error_keeps_the_last_answer_and_its_own_beginning() {
    let mut dialogue = Dialogue::default();
    hear(&mut dialogue, 3, None, 1);
    let fail = |dialogue: &mut Dialogue, second| dialogue.failed("late".to_owned(), at(second));
    assert_eq!(fail(&mut dialogue, 2), News::Changed);
    assert_eq!(fail(&mut dialogue, 5), News::Same);
    assert_eq!(dialogue.contact.answer.as_ref().unwrap().at, at(1));
    assert_eq!(dialogue.contact.error.as_ref().unwrap().since, at(2));
    assert_eq!(hear(&mut dialogue, 3, None, 6), News::Changed);
    assert_eq!(dialogue.contact.error, None);
}

#[test]
fn a_run_of_zeros_ends_with_a_count_a_failure_another_drain_or_a_gap() {
    let mut dialogue = Dialogue::default();
    let count = |dialogue: &mut Dialogue, total, second, epoch| {
        dialogue.begin(Conversation::CountZeros { epoch: Epoch(epoch) }, GAP, at(second));
        hear(dialogue, total, None, second);
        dialogue.contact.zero_run.map_or(0, |q| q.reads)
    };
    let reads: Vec<_> = (1..=3).map(|second| count(&mut dialogue, 0, second, 1)).collect();
    assert_eq!(reads, [1, 2, 3]);
    assert_eq!(count(&mut dialogue, 0, 9, 1), 1, "after a gap");
    assert_eq!(count(&mut dialogue, 0, 10, 2), 1, "in another drain");
    assert_eq!(count(&mut dialogue, 1, 11, 2), 0, "a count");
    assert_eq!(count(&mut dialogue, 0, 12, 2), 1);
    dialogue.failed("409".to_owned(), at(13));
    assert_eq!(dialogue.contact.zero_run, None);
}

#[test]
fn a_drain_is_told_until_the_process_that_speaks_now_has_answered_it() {
    let mut dialogue = Dialogue::default();
    dialogue.begin(DRAIN, GAP, at(0));
    assert_eq!(dialogue.request(), PUT);
    dialogue.heard(PUT, reading(2, Some("a")), at(1));
    let acknowledged = |second| Some(Acknowledged { epoch: Epoch(1), at: at(second) });
    assert_eq!((dialogue.request(), dialogue.contact.acknowledged), (Request::Status, acknowledged(1)));
    hear(&mut dialogue, 0, Some("b"), 2);
    assert_eq!((dialogue.request(), dialogue.contact.acknowledged), (PUT, None), "it was restarted");
    dialogue.heard(PUT, reading(0, Some("b")), at(3));
    assert_eq!(dialogue.contact.acknowledged, acknowledged(3));
    dialogue.heard(PUT, reading(0, Some("b")), at(5));
    assert_eq!(dialogue.contact.acknowledged, acknowledged(3), "told once more, and known before");
    dialogue.failed("late".to_owned(), at(4));
    assert_eq!(dialogue.request(), PUT, "the failure may hide a restart");
}

#[test]
fn a_refusal_stands_until_another_process_speaks_or_we_have_other_keys() {
    let mut dialogue = Dialogue::default();
    hear(&mut dialogue, 0, Some("a"), 0);
    dialogue.begin(DRAIN, GAP, at(0));
    assert_eq!(dialogue.refused("unknown key".to_owned(), at(1)), News::Changed);
    assert_eq!(dialogue.refused("unknown key".to_owned(), at(2)), News::Same);
    dialogue.begin(Conversation::CountZeros { epoch: Epoch(1) }, GAP, at(2));
    hear(&mut dialogue, 0, Some("a"), 3);
    dialogue.failed("late".to_owned(), at(4));
    let refused = dialogue.contact.refused.clone().unwrap();
    assert_eq!((refused.message.as_str(), refused.since), ("unknown key", at(1)));
    hear(&mut dialogue, 0, Some("b"), 5);
    assert_eq!(dialogue.contact.refused, None, "its own environment may be another");
    dialogue.refused("unknown key".to_owned(), at(6));
    dialogue.forgive();
    assert_eq!(dialogue.contact.refused, None);
}

/// The plan may want it drained again before its answer is heard.
#[test]
fn what_is_told_to_open_is_not_idle_by_what_it_said_before() {
    let mut dialogue = Dialogue::default();
    dialogue.begin(DRAIN, GAP, at(0));
    dialogue.heard(PUT, reading(0, Some("a")), at(1));
    dialogue.begin(Conversation::Resume { epoch: Epoch(2) }, GAP, at(2));
    dialogue.begin(DRAIN, GAP, at(2));
    assert_eq!((dialogue.request(), dialogue.contact.acknowledged), (PUT, None));
}

#[test]
fn a_pod_that_was_given_the_time_and_does_not_open_cannot() {
    let (mut dialogue, resume) = (Dialogue::default(), Conversation::Resume { epoch: Epoch(2) });
    let since = |dialogue: &Dialogue| dialogue.contact.opening;
    dialogue.begin(resume, GAP, at(0));
    dialogue.begin(DRAIN, GAP, at(2));
    assert_eq!(since(&dialogue), None, "we have changed our mind");
    dialogue.begin(resume, GAP, at(5));
    dialogue.heard(Request::Status, reading(0, Some("a")), at(6));
    dialogue.failed("500".to_owned(), at(7));
    dialogue.begin(Conversation::Resume { epoch: Epoch(3) }, GAP, at(8));
    dialogue.begin(DRAIN, GAP, at(15));
    assert_eq!(since(&dialogue), Some(at(5)));
    dialogue.heard(PUT, reading(0, Some("b")), at(16));
    assert_eq!(since(&dialogue), None, "another process may");
}

/// After a 409 the pod is asked for its own view: that it has seen the epoch does not mean that it drains.
#[test]
fn a_refused_drain_is_not_acknowledged() {
    let mut dialogue = Dialogue::default();
    dialogue.begin(DRAIN, GAP, at(0));
    dialogue.failed("409".to_owned(), at(1));
    hear(&mut dialogue, 0, Some("a"), 1);
    assert_eq!(dialogue.contact.acknowledged, None);
}

#[test]
fn a_resumption_is_told_until_the_pod_accepts() {
    let mut dialogue = Dialogue::default();
    let ask = Request::Resume { epoch: Epoch(1) };
    dialogue.begin(Conversation::Resume { epoch: Epoch(1) }, GAP, at(0));
    dialogue.heard(ask, reading(0, Some("a")), at(1));
    assert_eq!(dialogue.request(), ask, "it still refuses");
    let mut open = reading(0, Some("a"));
    open.protocol = open.protocol.map(|p| Protocol { accepting: true, ..p });
    dialogue.heard(ask, open, at(2));
    assert_eq!(dialogue.request(), Request::Status);
}
