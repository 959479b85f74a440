//! The promises of the state machine, one a test.

use super::*;

const NOW: Duration = Duration::ZERO;
const LINGER: Duration = Duration::from_secs(3);

/// A core, and its clock in seconds since the start.
fn core() -> (Core, impl Fn(f64) -> Instant) {
    let start = Instant::now();
    (Core::new(), move |seconds| start + Duration::from_secs_f64(seconds))
}

/// Keeps P7.
#[test]
fn a_lone_zero_is_not_idle() {
    let (mut core, at) = core();
    assert!(!core.idle(), "nothing in flight, but the door is open");
    core.drain(1, LINGER, at(0.0)).unwrap();
    core.advance(at(2.9));
    assert_eq!((core.idle(), core.state()), (false, State::Lingering), "still accepting");
    core.advance(at(3.0));
    assert_eq!((core.idle(), core.state()), (true, State::Idle));
}

/// Keeps P1.
#[test]
fn the_latch_is_on_time_without_a_timer() {
    let (mut core, at) = core();
    core.drain(1, LINGER, at(0.0)).unwrap();
    assert!(core.admit(Work::Request, at(2.999)).is_some(), "stragglers are served");
    assert!(core.admit(Work::Request, at(3.0)).is_none(), "though nobody looked in between");
    assert_eq!(core.state(), State::Draining);
}

/// Keeps P1.
#[test]
fn past_the_latch_only_what_is_counted_can_count_more() {
    let (mut core, at) = core();
    let request = core.admit(Work::Request, at(0.0)).unwrap();
    core.drain(1, NOW, at(1.0)).unwrap();
    assert_eq!(core.state(), State::Draining);
    let task = core.count(Work::Queued, at(1.0));
    core.release(request, Work::Request);
    assert_eq!(core.state(), State::Draining, "the request's task holds it");
    core.shift(Work::Queued, Work::Running);
    assert_eq!(core.in_flight(), InFlight { queued: 0, running: 1, requests: 0 });
    core.release(task, Work::Running);
    assert!(core.idle());
}

#[test]
fn the_same_epoch_changes_nothing_and_an_older_one_is_refused() {
    let (mut core, at) = core();
    core.drain(7, LINGER, at(0.0)).unwrap();
    core.drain(7, Duration::from_secs(60), at(1.0)).unwrap();
    assert_eq!(core.latches_at(), Some(at(3.0)), "a retry does not lengthen the linger");
    assert_eq!(core.drain(6, LINGER, at(1.0)), Err(Conflict::Stale { asked: 6, seen: 7 }));
    assert_eq!(core.resume(7, at(1.0)), Err(Conflict::Stale { asked: 7, seen: 7 }));
}

/// Keeps P1.
#[test]
fn a_late_drain_cannot_undo_a_resume() {
    let (mut core, at) = core();
    core.drain(7, NOW, at(0.0)).unwrap();
    core.resume(8, at(1.0)).unwrap();
    core.resume(8, at(1.0)).expect("a retry is no conflict");
    assert_eq!(core.state(), State::Serving);
    assert!(core.drain(7, NOW, at(2.0)).is_err(), "the drain's own late retry");
    assert!(core.drain(8, NOW, at(2.0)).is_err(), "the resume's epoch is not a drain's");
    assert!(core.accepting());
}

#[test]
fn a_resume_fences_a_drain_that_never_arrived() {
    let (mut core, at) = core();
    core.resume(8, at(0.0)).unwrap();
    assert!(core.drain(7, NOW, at(1.0)).is_err());
    assert!(core.accepting());
}

#[test]
fn a_newer_epoch_keeps_the_latch_closed_and_never_shortens_a_linger() {
    let (mut core, at) = core();
    core.drain(1, LINGER, at(0.0)).unwrap();
    core.drain(2, NOW, at(1.0)).unwrap();
    assert_eq!(core.latches_at(), Some(at(3.0)), "what the first promised holds");
    core.drain(3, LINGER, at(2.0)).unwrap();
    assert_eq!(core.latches_at(), Some(at(5.0)));
    core.advance(at(5.0));
    core.drain(4, LINGER, at(6.0)).unwrap();
    assert_eq!((core.accepting(), core.epoch()), (false, 4), "a closed door is not opened again");
}

/// Keeps P2.
#[test]
fn sigterm_is_final() {
    let (mut core, at) = core();
    core.drain(1, NOW, at(0.0)).unwrap();
    core.terminate(LINGER, at(1.0));
    assert_eq!(core.resume(2, at(1.0)), Err(Conflict::Terminating));
    assert_eq!((core.state(), core.accepting()), (State::Terminating, false), "an idle pod lingers no more");
}

/// Keeps P2.
#[test]
fn sigterm_lingers_unless_the_door_is_closed_already() {
    let (mut core, at) = core();
    core.terminate(LINGER, at(0.0));
    assert_eq!((core.state(), core.latches_at()), (State::Terminating, Some(at(3.0))));
    core.drain(1, Duration::from_secs(60), at(1.0)).expect("its epoch can still be set");
    assert_eq!(core.latches_at(), Some(at(3.0)), "but nothing is lengthened any more");
    core.terminate(NOW, at(2.0));
    assert!(!core.accepting());
}

#[test]
fn sigterm_shortens_a_long_linger() {
    let (mut core, at) = core();
    core.drain(1, Duration::from_secs(3600), at(0.0)).unwrap();
    core.terminate(LINGER, at(10.0));
    assert_eq!(core.latches_at(), Some(at(13.0)));
}

#[test]
fn the_oldest_is_the_oldest_that_is_left() {
    let (mut core, at) = core();
    let first = core.admit(Work::Request, at(0.0)).unwrap();
    let second = core.admit(Work::Queued, at(4.0)).unwrap();
    core.shift(Work::Queued, Work::Running);
    assert_eq!(core.oldest(at(10.0)), Duration::from_secs(10));
    core.release(first, Work::Request);
    assert_eq!(core.oldest(at(10.0)), Duration::from_secs(6), "queued time counts");
    core.release(second, Work::Running);
    assert_eq!(core.oldest(at(10.0)), Duration::ZERO);
}

#[test]
fn a_queue_s_own_tasks_hold_the_drain_and_its_zero_is_a_zero() {
    let (mut core, at) = core();
    assert!(core.set_tasks(2, 1, at(0.0)));
    core.drain(1, NOW, at(1.0)).unwrap();
    assert_eq!((core.state(), core.idle()), (State::Draining, false));
    assert_eq!(core.in_flight(), InFlight { queued: 2, running: 1, requests: 0 });
    assert!(core.set_tasks(0, 1, at(2.0)), "absolute, not added up");
    assert_eq!(core.in_flight().total(), 1);
    assert!(core.set_tasks(0, 0, at(3.0)));
    assert_eq!((core.state(), core.idle()), (State::Idle, true));
    assert!(!core.set_tasks(0, 0, at(4.0)), "the same counts are no news");
}

#[test]
fn a_task_that_comes_back_on_its_own_is_counted_past_the_latch() {
    let (mut core, at) = core();
    core.drain(1, NOW, at(0.0)).unwrap();
    assert!(core.idle());
    core.set_tasks(1, 0, at(1.0));
    assert_eq!(core.state(), State::Draining, "whatever the latch says: a zero must be one");
}

#[test]
fn guards_and_the_queue_s_own_counts_add_up() {
    let (mut core, at) = core();
    let request = core.admit(Work::Request, at(0.0)).unwrap();
    let guarded = core.count(Work::Queued, at(0.0));
    core.set_tasks(3, 2, at(0.0));
    assert_eq!(core.in_flight(), InFlight { queued: 4, running: 2, requests: 1 });
    core.release(request, Work::Request);
    core.release(guarded, Work::Queued);
    assert_eq!(core.in_flight(), InFlight { queued: 3, running: 2, requests: 0 });
}

#[test]
fn the_oldest_task_is_as_old_as_the_queue_says() {
    let (mut core, at) = core();
    core.set_tasks(1, 0, at(10.0));
    assert_eq!(core.oldest(at(12.0)), Duration::from_secs(2), "at most so old: there was none before");
    core.set_oldest_task(Some(at(4.0)));
    assert_eq!(core.oldest(at(12.0)), Duration::from_secs(8));
    let request = core.admit(Work::Request, at(1.0)).unwrap();
    assert_eq!(core.oldest(at(12.0)), Duration::from_secs(11), "a request may be older");
    core.release(request, Work::Request);
    core.set_tasks(0, 0, at(13.0));
    assert_eq!(core.oldest(at(14.0)), Duration::ZERO);
}

#[test]
fn what_is_behind_is_busy_until_it_is_proven_idle() {
    let (mut core, at) = core();
    core.expect_behind();
    assert_eq!(
        (core.state(), core.in_flight().total()),
        (State::Serving, 0),
        "while serving, what it said last"
    );
    let request = core.admit(Work::Request, at(0.0)).unwrap();
    core.drain(1, NOW, at(1.0)).unwrap();
    assert_eq!(core.quiesced(), None, "a request is being answered");
    core.release(request, Work::Request);
    assert_eq!(
        (core.idle(), core.in_flight().running),
        (false, 1),
        "it said zero before the latch, which proves nothing"
    );
    let quiesced = core.quiesced().unwrap();
    core.set_behind(0, at(2.0));
    assert!(!core.idle(), "a lone zero is not idle");
    core.set_behind(3, at(2.0));
    assert_eq!((core.in_flight().running, core.oldest(at(5.0)).as_secs()), (3, 3));
    assert!(core.prove_behind(quiesced, at(9.0)));
    assert_eq!((core.idle(), core.state(), core.in_flight().total()), (true, State::Idle, 0));
    core.set_behind(1, at(10.0));
    assert!(!core.idle(), "work that shows later takes the proof back");
    core.set_behind(0, at(11.0));
    assert!(!core.idle(), "and another has to be made");
}

/// Keeps P7.
#[test]
fn what_was_never_heard_is_unknown_and_what_falls_silent_is_busy() {
    let (mut core, at) = core();
    assert!(!core.set_unknown("nothing is behind".to_owned()) && core.unknown().is_none());
    core.expect_behind();
    assert!(core.set_unknown("refused".to_owned()));
    assert!(!core.set_unknown("refused".to_owned()), "no news");
    assert_eq!(core.unknown(), Some("refused"));
    assert!(core.set_behind(0, at(1.0)), "that it is known is news, though the count was zero before");
    assert_eq!(core.unknown(), None);
    assert!(!core.set_unknown("silent".to_owned()) && core.unknown().is_none(), "it was heard once");
    core.drain(1, NOW, at(2.0)).unwrap();
    assert_eq!(core.in_flight().total(), 1);
}

#[test]
fn a_proof_from_before_a_resume_proves_nothing() {
    let (mut core, at) = core();
    core.expect_behind();
    core.drain(1, NOW, at(0.0)).unwrap();
    let quiesced = core.quiesced().unwrap();
    assert!(core.prove_behind(quiesced, at(1.0)));
    core.resume(2, at(2.0)).unwrap();
    core.drain(3, NOW, at(3.0)).unwrap();
    assert!(!core.idle(), "clients were served in between");
    assert!(!core.prove_behind(quiesced, at(4.0)));
    assert!(!core.idle());
    assert!(core.prove_behind(core.quiesced().unwrap(), at(5.0)) && core.idle());
}
