use super::*;

const WISH: Desired = Desired { generation: Some(1), going: false };

fn in_phase(phase: Phase) -> Requeue {
    let mut requeue = Requeue::default();
    requeue.found(phase);
    requeue
}

fn ms(duration: Duration) -> u128 {
    duration.as_millis()
}

#[test]
fn what_moves_is_looked_at_more_often_than_what_waits_or_rests() {
    let looks = [Phase::Rolling, Phase::Held, Phase::Serving]
        .map(|phase| ms(in_phase(phase).planned(Execution::Complete, Due::default(), 1.0)));
    assert_eq!(looks, [10_001, 60_001, 300_001]);
    let spread = [Phase::Rolling, Phase::Serving]
        .map(|phase| ms(in_phase(phase).planned(Execution::Complete, Due::default(), 0.7)));
    assert_eq!(spread, [10_001, 210_001], "only what rests is spread");
}

#[test]
fn the_first_that_is_due_is_looked_at() {
    let second = Duration::from_secs;
    let (plan, retry, report) = (Some(second(3)), Some(second(2)), Some(second(4)));
    let look = |due| ms(in_phase(Phase::Rolling).planned(Execution::Complete, due, 1.0));
    assert_eq!(look(Due { plan, retry, report, look: None }), 2_001);
    assert_eq!(look(Due { plan, retry: None, report, look: None }), 3_001);
    assert_eq!(look(Due { report, ..Due::default() }), 4_001);
    assert_eq!(
        look(Due { plan: Some(second(30)), ..Due::default() }),
        10_001,
        "but never later than the phase asks for"
    );
}

#[test]
fn surprises_in_a_row_are_answered_less_and_less_often() {
    let mut requeue = in_phase(Phase::Rolling);
    let mut look = |execution| ms(requeue.planned(execution, Due::default(), 1.0));
    assert_eq!([0; 4].map(|_| look(Execution::Surprised)), [21, 41, 81, 161]);
    assert_eq!(look(Execution::GrewOld), 21, "slow progress is progress");
    assert_eq!(look(Execution::Surprised), 21);
    assert_eq!(look(Execution::Complete), 10_001);
    let longest = (0..20).map(|_| look(Execution::Surprised)).max();
    assert_eq!(longest, Some(10_001));
}

#[test]
fn a_pause_after_a_failure_ends_by_itself_or_by_another_wish() {
    let (mut requeue, now) = (in_phase(Phase::Rolling), Instant::now());
    assert_eq!(ms(requeue.failed(Fault::Call, WISH, now)), 200);
    assert_eq!(ms(requeue.failed(Fault::Call, WISH, now)), 400);
    assert_eq!(requeue.failures(), 2);
    assert_eq!(requeue.pause_left(WISH, now + Duration::from_millis(100)).map(ms), Some(300));
    assert_eq!(
        requeue.pause_left(Desired { generation: Some(2), ..WISH }, now),
        None,
        "the user has changed something"
    );
    assert_eq!(requeue.pause_left(WISH, now), None, "and has ended the pause");
    requeue.failed(Fault::Call, WISH, now);
    assert_eq!(requeue.pause_left(WISH, now + Duration::from_millis(800)), None);
    for _ in 0..20 {
        assert!(requeue.failed(Fault::Call, WISH, now) <= Duration::from_secs(30));
    }
    requeue.planned(Execution::Complete, Due::default(), 1.0);
    assert_eq!(
        ms(requeue.failed(Fault::Panic, WISH, now)),
        10_000,
        "counted anew, and longer for a fault of ours"
    );
}
