//! Answers that are lost on the way: whatever was done, nothing is lost, done twice or counted for ever.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use graceful_store::{
    Completion, DEFAULT_QUEUE, Hold, NewTask, Outcome, Owned, QueueSettings, State, Submitted, TaskStore,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::conformance::fixture::{
    LONG, OwnedHistory, claim_one, complete, done, get, key, settings, submit, task, until, watched,
};
use super::wire::Wire;
use super::{SERVER, is_away, maintained, open};

/// A store whose answers can be lost, and one with a safe way.
async fn by_wire() -> (Wire, Arc<dyn TaskStore>, OwnedHistory, Arc<dyn TaskStore>) {
    let url = SERVER.url(&SERVER.create_database().unwrap());
    let wire = Wire::to(SERVER.port()).await;
    let (settings_by_wire, told) = watched();
    let store = open(&wire.url(&url, SERVER.port()), settings_by_wire).await;
    (wire, store, told, open(&url, settings()).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_whose_answer_is_lost_is_found_by_its_key() {
    let (wire, store, _, safe) = by_wire().await;
    let new = NewTask { input: "\"marked\"".to_owned(), idempotency: key("k", b"a"), ..task() };
    wire.lose_answer_to(b"\"marked\"");
    assert!(is_away(store.submit(new.clone(), Hold::default()).await));
    assert!(wire.has_lost());
    assert_eq!(get(&safe, new.id).await.state, State::Queued, "it was accepted, and nobody was told");
    let again = NewTask { id: task().id, ..new.clone() };
    let Submitted::Known(known) = store.submit(again, Hold::default()).await.unwrap() else {
        panic!("a second task");
    };
    assert_eq!(known.id, new.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_whose_answer_is_lost_recognises_itself() {
    let (wire, store, told, safe) = by_wire().await;
    let failed = Outcome::Failed { error: "no".to_owned(), retry: Some(LONG) };
    for (outcome, state) in
        [(done(), State::Succeeded), (failed, State::Queued), (Outcome::Released, State::Queued)]
    {
        let id = submit(&store, task()).await;
        let lease = claim_one(&store).await.lease;
        assert_eq!(lease.id, id);
        wire.lose_answer_to(b"COMMIT");
        assert!(is_away(store.complete(lease, outcome.clone()).await));
        assert!(wire.has_lost());
        assert_eq!(get(&safe, id).await.state, state);
        assert_eq!(told.latest(), Owned { running: 1, ..Owned::default() }, "it is not known to have ended");
        let events = safe.events(0, 100).await.unwrap();
        assert_eq!(store.complete(lease, outcome.clone()).await.unwrap(), Completion::Now(state));
        assert_eq!(told.latest(), Owned::default());
        // Once known, it is over: the attempt no longer has the task.
        assert_eq!(store.complete(lease, outcome).await.unwrap(), Completion::Lost);
        assert_eq!(safe.events(0, 100).await.unwrap(), events, "an end was told twice");
    }
}

/// Bounds a queue, so that it is counted and claimed from in one transaction; others are claimed from by one statement.
async fn bounded(store: &Arc<dyn TaskStore>) {
    let settings = QueueSettings { concurrency: NonZeroU32::new(9), ..QueueSettings::default() };
    store.put_queue(DEFAULT_QUEUE, settings).await.unwrap();
}

async fn is_anybodys_when_its_lease_is_over(
    wire: Wire,
    (store, told): (Arc<dyn TaskStore>, OwnedHistory),
    safe: Arc<dyn TaskStore>,
    id: Uuid,
) {
    let _maintained = maintained(&safe);
    // It may be told of the task before it asks.
    assert!(is_away(store.claim(1).await));
    assert!(wire.has_lost());
    assert_eq!(get(&safe, id).await.state, State::Running);
    until(&store, "nothing is counted", async || told.latest() == Owned::default()).await;
    let claims = timeout(Duration::from_secs(12), safe.claim(1)).await.unwrap().unwrap();
    assert_eq!((claims[0].lease.id, claims[0].lease.attempt), (id, 2));
    complete(&safe, claims[0].lease, done()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_is_lost_is_anybodys_when_its_lease_is_over() {
    let (wire, store, told, safe) = by_wire().await;
    let id = submit(&safe, task()).await;
    // Not as it is prepared: as it is done, with the owner's name in it.
    wire.lose_answer_to(b"test-");
    is_anybodys_when_its_lease_is_over(wire, (store, told), safe, id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counted_claim_whose_answer_is_lost_is_anybodys_when_its_lease_is_over() {
    let (wire, store, told, safe) = by_wire().await;
    bounded(&store).await;
    let id = submit(&safe, task()).await;
    wire.lose_answer_to(b"COMMIT");
    is_anybodys_when_its_lease_is_over(wire, (store, told), safe, id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_cut_before_it_was_sent_claims_nothing() {
    for (is_bounded, begin) in [(true, &b"BEGIN"[..]), (false, b"leased AS ( UPDATE")] {
        let (wire, store, told, safe) = by_wire().await;
        if is_bounded {
            bounded(&store).await;
        }
        let id = submit(&safe, NewTask { max_attempts: 1, ..task() }).await;
        wire.lose_answer_to(begin);
        assert!(is_away(store.claim(1).await));
        assert!(wire.has_lost());
        let claim = claim_one(&safe).await;
        assert_eq!((claim.lease.id, claim.lease.attempt), (id, 1));
        until(&store, "nothing is counted", async || told.latest() == Owned::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_came_after_its_caller_had_gone_recognises_itself() {
    let (_, store, told, _) = by_wire().await;
    let id = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    assert!(timeout(Duration::ZERO, store.complete(lease, done())).await.is_err());
    until(&store, "ended all the same", async || get(&store, id).await.state == State::Succeeded).await;
    until(&store, "not counted", async || told.latest() == Owned::default()).await;
    assert_eq!(store.complete(lease, done()).await.unwrap(), Completion::Now(State::Succeeded));
    assert_eq!(store.complete(lease, done()).await.unwrap(), Completion::Lost);
}
