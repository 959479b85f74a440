//! How attempts end, and who may end them.

use std::time::Duration;

use graceful_store::{Completion, Held, Hold, Lease, NewTask, Outcome, Retried, State};
use tokio::time::Instant;
use uuid::Uuid;

use super::fixture::{
    Fixture, claim_one, complete, done, failed, get, get_briefly, nothing_to_claim, settings, submit, task,
};

pub(crate) async fn success_keeps_the_output(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    let output = r#"{"sum": 3}"#.to_owned();
    assert_eq!(complete(&store, lease, Outcome::Succeeded(output.clone())).await, State::Succeeded);
    let found = get(&store, id).await;
    assert_eq!((found.state, found.output, found.error), (State::Succeeded, Some(output), None));
    assert!(found.ended >= found.started);
    nothing_to_claim(&store).await;
}

pub(crate) async fn a_failure_is_tried_again_after_its_back_off(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    let (began, wait) = (Instant::now(), Duration::from_millis(300));
    let outcome = Outcome::Failed { error: "no route".to_owned(), retry: Some(wait) };
    assert_eq!(complete(&store, lease, outcome).await, State::Queued);
    let found = get(&store, id).await;
    assert_eq!((found.state, found.error.as_deref(), found.attempt), (State::Queued, Some("no route"), 1));
    assert_eq!(claim_one(&store).await.lease, Lease { id, attempt: 2 });
    assert!(began.elapsed() >= wait - Duration::from_millis(2), "{:?}", began.elapsed());
}

pub(crate) async fn the_last_attempt_is_a_dead_letter(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, NewTask { max_attempts: 3, ..task() }).await;
    for (attempt, then) in [(1, State::Queued), (2, State::Queued), (3, State::Dead)] {
        let claim = claim_one(&store).await;
        assert_eq!((claim.lease, claim.max_attempts), (Lease { id, attempt }, 3));
        assert_eq!(complete(&store, claim.lease, failed(&format!("no {attempt}"))).await, then);
    }
    let found = get(&store, id).await;
    assert_eq!((found.state, found.attempt, found.error.as_deref()), (State::Dead, 3, Some("no 3")));
    assert!(found.ended.is_some());
    nothing_to_claim(&store).await;
}

pub(crate) async fn a_failure_for_good_is_dead_at_once(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    let outcome = Outcome::Failed { error: "bad input".to_owned(), retry: None };
    assert_eq!(complete(&store, lease, outcome).await, State::Dead);
    assert_eq!(get(&store, id).await.error.as_deref(), Some("bad input"));
    nothing_to_claim(&store).await;
}

pub(crate) async fn a_released_attempt_does_not_count(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let first = submit(&store, NewTask { max_attempts: 1, ..task() }).await;
    submit(&store, task()).await;
    for _ in 0..3 {
        let lease = claim_one(&store).await.lease;
        assert_eq!(lease, Lease { id: first, attempt: 1 }, "it keeps its place in line");
        assert_eq!(complete(&store, lease, Outcome::Released).await, State::Queued);
        let found = get(&store, first).await;
        assert_eq!((found.state, found.attempt, found.started), (State::Queued, 0, None));
    }
}

pub(crate) async fn only_the_attempt_that_has_the_task_ends_it(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let unknown = Lease { id: Uuid::now_v7(), attempt: 1 };
    assert_eq!(store.complete(unknown, done()).await.unwrap(), Completion::Lost);
    let waiting = Lease { id, attempt: 0 };
    assert_eq!(store.complete(waiting, done()).await.unwrap(), Completion::Lost);
    let first = claim_one(&store).await.lease;
    complete(&store, first, failed("once")).await;
    let second = claim_one(&store).await.lease;
    for outcome in [done(), failed("late"), Outcome::Cancelled, Outcome::Released] {
        assert_eq!(store.complete(first, outcome).await.unwrap(), Completion::Lost);
    }
    assert_eq!(store.renew(&[first, second, unknown]).await.unwrap(), [Held::Lost, Held::Yes, Held::Lost]);
    let found = get(&store, id).await;
    assert_eq!((found.state, found.attempt, found.error.as_deref()), (State::Running, 2, Some("once")));
    complete(&store, second, done()).await;
    assert_eq!(store.complete(second, failed("twice")).await.unwrap(), Completion::Lost);
    assert_eq!(store.renew(&[second]).await.unwrap(), [Held::Lost]);
    assert_eq!(get(&store, id).await.state, State::Succeeded);
}

pub(crate) async fn a_dead_task_can_be_retried_with_all_its_attempts(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, NewTask { max_attempts: 2, ..task() }).await;
    for round in 0..3_u16 {
        for attempt in [2 * round + 1, 2 * round + 2] {
            let lease = claim_one(&store).await.lease;
            // The number goes on, for it fences.
            assert_eq!(lease, Lease { id, attempt });
            complete(&store, lease, failed("no")).await;
        }
        assert_eq!(get(&store, id).await.state, State::Dead);
        let Retried::Now(found) = store.retry(id, Hold::default()).await.unwrap() else {
            panic!("it is dead")
        };
        assert_eq!(*found, get_briefly(&store, id).await);
        assert_eq!(
            (found.state, found.attempt, found.max_attempts),
            (State::Queued, 2 * round + 2, 2 * round + 4)
        );
        assert_eq!((found.ended, found.cancel_requested), (None, false));
    }
}

pub(crate) async fn a_cancelled_task_can_be_retried(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    store.cancel(id).await.unwrap();
    complete(&store, lease, Outcome::Cancelled).await;
    assert!(matches!(store.retry(id, Hold::default()).await.unwrap(), Retried::Now(_)));
    let lease = claim_one(&store).await.lease;
    assert_eq!(store.renew(&[lease]).await.unwrap(), [Held::Yes], "the old wish to cancel is gone");
    complete(&store, lease, done()).await;
    assert_eq!(get(&store, id).await.state, State::Succeeded);
}

pub(crate) async fn what_has_not_ended_badly_is_not_retried(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    assert_eq!(store.retry(Uuid::now_v7(), Hold::default()).await.unwrap(), Retried::Unknown);
    let id = submit(&store, task()).await;
    let refused = async |state| match store.retry(id, Hold::default()).await.unwrap() {
        Retried::NotEnded(found) => assert_eq!(found.state, state),
        other => panic!("{other:?}"),
    };
    refused(State::Queued).await;
    let lease = claim_one(&store).await.lease;
    refused(State::Running).await;
    complete(&store, lease, done()).await;
    refused(State::Succeeded).await;
}

pub(crate) async fn progress_is_the_running_attempts_own(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let first = claim_one(&store).await.lease;
    assert_eq!(store.progress(first, "0.5".to_owned()).await.unwrap(), Held::Yes);
    assert_eq!(get(&store, id).await.progress.as_deref(), Some("0.5"));
    complete(&store, first, failed("no")).await;
    let second = claim_one(&store).await.lease;
    assert_eq!(get(&store, id).await.progress, None, "another attempt's");
    assert_eq!(store.progress(first, "0.9".to_owned()).await.unwrap(), Held::Lost);
    store.cancel(id).await.unwrap();
    assert_eq!(store.progress(second, "0.1".to_owned()).await.unwrap(), Held::CancelRequested);
    assert_eq!(get(&store, id).await.progress.as_deref(), Some("0.1"));
}
