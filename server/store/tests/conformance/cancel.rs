//! Calling tasks off.

use graceful_store::{Cancelled, Held, Outcome, State};
use tokio::time::timeout;
use uuid::Uuid;

use super::fixture::{
    Fixture, LONG, claim_one, complete, done, failed, get, get_briefly, nothing_to_claim, settings, submit,
    task,
};

pub(crate) async fn what_waits_is_cancelled_at_once(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    assert_eq!(store.cancel(Uuid::now_v7()).await.unwrap(), Cancelled::Unknown);
    let id = submit(&store, task()).await;
    let Cancelled::Now(found) = store.cancel(id).await.unwrap() else { panic!("it waits") };
    assert_eq!((found.state, found.attempt), (State::Cancelled, 0));
    assert!(found.ended.is_some());
    assert_eq!(*found, get_briefly(&store, id).await);
    nothing_to_claim(&store).await;
}

pub(crate) async fn what_runs_is_asked_to_stop(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    let mut cancellations = store.cancellations();
    let Cancelled::Asked(found) = store.cancel(id).await.unwrap() else { panic!("it runs") };
    assert_eq!((found.state, found.cancel_requested), (State::Running, true));
    assert_eq!(timeout(LONG, cancellations.recv()).await.unwrap().unwrap(), lease);
    assert_eq!(store.renew(&[lease]).await.unwrap(), [Held::CancelRequested]);
    assert_eq!(complete(&store, lease, Outcome::Cancelled).await, State::Cancelled);
    assert_eq!(get(&store, id).await.state, State::Cancelled);
    nothing_to_claim(&store).await;
}

pub(crate) async fn an_attempt_that_fails_when_asked_to_stop_is_cancelled(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    store.cancel(id).await.unwrap();
    assert_eq!(complete(&store, lease, failed("interrupted")).await, State::Cancelled);
    nothing_to_claim(&store).await;
}

pub(crate) async fn an_attempt_that_succeeds_all_the_same_has_succeeded(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    store.cancel(id).await.unwrap();
    assert_eq!(complete(&store, lease, done()).await, State::Succeeded);
}

pub(crate) async fn a_released_attempt_that_was_asked_to_stop_is_cancelled(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    store.cancel(id).await.unwrap();
    assert_eq!(complete(&store, lease, Outcome::Released).await, State::Cancelled);
    nothing_to_claim(&store).await;
}

pub(crate) async fn what_has_ended_is_too_late_to_cancel(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    complete(&store, lease, done()).await;
    let Cancelled::TooLate(found) = store.cancel(id).await.unwrap() else { panic!("it has ended") };
    assert_eq!((found.state, found.cancel_requested), (State::Succeeded, false));
    assert_eq!(store.events(0, 10).await.unwrap().events.len(), 1);
}
