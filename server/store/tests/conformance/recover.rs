//! A process dies; nothing that was accepted is lost, and nothing that it did counts twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use graceful_store::{Completion, Held, Hold, Lease, NewTask, Outcome, Owned, Retried, State, StoreSettings};

use super::fixture::{
    Fixture, claim, claim_one, complete, done, failed, get, key, nothing_to_claim, settings, submit, task,
    until, watched,
};

pub(crate) async fn what_was_accepted_is_there_after_a_crash(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let waits = submit(&store, NewTask { idempotency: key("k", b"a"), ..task() }).await;
    let high = submit(&store, NewTask { priority: 3, ..task() }).await;
    complete(&store, claim_one(&store).await.lease, done()).await;
    let (before, stream) = ((get(&store, waits).await, get(&store, high).await), store.stream().to_owned());
    fixture.crash(store).await;
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    assert_eq!((get(&store, waits).await, get(&store, high).await), before);
    assert_eq!(store.stream(), stream);
    let queued = if store.shared() { 0 } else { 1 };
    assert_eq!(told.latest(), Owned { queued, ..Owned::default() });
    assert_eq!(claim_one(&store).await.lease, Lease { id: waits, attempt: 1 });
    nothing_to_claim(&store).await;
}

pub(crate) async fn an_orphan_runs_again_and_has_all_its_attempts(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let orphan = submit(&store, NewTask { max_attempts: 1, ..task() }).await;
    claim_one(&store).await;
    fixture.crash(store).await;
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    let claim = claim_one(&store).await;
    assert_eq!(claim.lease, Lease { id: orphan, attempt: 2 });
    assert_eq!(told.latest(), Owned { running: 1, ..Owned::default() });
    assert_eq!(claim.max_attempts, 2, "the one that was interrupted cost none");
    assert!(get(&store, orphan).await.error.is_some(), "it is said what became of the first attempt");
    assert_eq!(complete(&store, claim.lease, failed("no")).await, State::Dead);
}

pub(crate) async fn a_task_that_kills_its_process_ends_dead(fixture: &impl Fixture) {
    let letters = Arc::new(AtomicU64::new(0));
    let counting = || {
        let letters = letters.clone();
        let letters = Arc::new(move |made: &[String]| {
            assert!(made.iter().all(|kind| kind == "sleep"));
            letters.fetch_add(made.len() as u64, Ordering::SeqCst);
        });
        StoreSettings { max_interruptions: 2, letters, ..settings() }
    };
    let mut store = fixture.open(counting()).await;
    let id = submit(&store, NewTask { keep: Duration::ZERO, ..task() }).await;
    for attempt in [1, 2] {
        assert_eq!(claim_one(&store).await.lease, Lease { id, attempt });
        fixture.crash(store).await;
        store = fixture.open(counting()).await;
    }
    until(&store, "dead", async || get(&store, id).await.state == State::Dead).await;
    let found = get(&store, id).await;
    assert!(found.error.is_some_and(|error| error.contains("attempt 2")));
    let events = store.events(0, 10).await.unwrap().events;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].task_id, events[0].state, events[0].attempt), (id, State::Dead, 2));
    assert!(events[0].error.is_some());
    nothing_to_claim(&store).await;
    assert_eq!(letters.load(Ordering::SeqCst), 1, "it is counted as it is made");
    let again = store.retry(id, Hold::default()).await.unwrap();
    assert!(matches!(again, Retried::Now(_)), "a dead letter is kept for its own time: {again:?}");
    assert_eq!(claim_one(&store).await.lease, Lease { id, attempt: 3 });
    fixture.crash(store).await;
    let store = fixture.open(counting()).await;
    assert_eq!(claim_one(&store).await.lease, Lease { id, attempt: 4 }, "its interruptions are forgiven");
}

pub(crate) async fn a_task_that_was_interrupted_often_runs_alone(fixture: &impl Fixture) {
    let mut store = fixture.open(settings()).await;
    let suspect = submit(&store, task()).await;
    for attempt in 1..=3 {
        assert_eq!(claim_one(&store).await.lease, Lease { id: suspect, attempt });
        fixture.crash(store).await;
        store = fixture.open(settings()).await;
    }
    until(&store, "it may run again", async || store.suspect_is_due().await.unwrap()).await;
    let other = submit(&store, NewTask { priority: -1, ..task() }).await;
    let beside = claim(&store, 5).await;
    assert_eq!(beside.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), [other]);
    nothing_to_claim(&store).await;
    let alone = store.claim_suspect().await.unwrap().expect("it is due");
    assert_eq!(alone.lease, Lease { id: suspect, attempt: 4 });
    assert_eq!(store.claim_suspect().await.unwrap(), None);
    assert!(!store.suspect_is_due().await.unwrap());
    assert_eq!(complete(&store, alone.lease, Outcome::Released).await, State::Queued);
    assert_eq!(store.claim_suspect().await.unwrap().expect("it is back in its line").lease, alone.lease);
    assert_eq!(complete(&store, alone.lease, done()).await, State::Succeeded);
}

pub(crate) async fn a_dead_processs_attempt_changes_nothing(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    let old = claim_one(&store).await.lease;
    fixture.crash(store).await;
    let store = fixture.open(settings()).await;
    let new = claim_one(&store).await.lease;
    for outcome in [done(), failed("late"), Outcome::Cancelled, Outcome::Released] {
        assert_eq!(store.complete(old, outcome).await.unwrap(), Completion::Lost);
    }
    assert_eq!(store.progress(old, "1".to_owned()).await.unwrap(), Held::Lost);
    assert_eq!(store.renew(&[old, new]).await.unwrap(), [Held::Lost, Held::Yes]);
    assert_eq!(get(&store, id).await.state, State::Running);
    complete(&store, new, done()).await;
}

pub(crate) async fn numbers_go_on_after_a_restart(fixture: &impl Fixture) {
    let mut store = fixture.open(settings()).await;
    for round in 1..=3 {
        submit(&store, task()).await;
        submit(&store, task()).await;
        for claim in claim(&store, 2).await {
            complete(&store, claim.lease, done()).await;
        }
        fixture.crash(store).await;
        store = fixture.open(settings()).await;
        let numbers: Vec<_> =
            store.events(0, 100).await.unwrap().events.iter().map(|event| event.number).collect();
        assert_eq!(numbers, (1..=2 * round).collect::<Vec<_>>());
        assert_eq!(*store.head().borrow(), 2 * round, "who begins at the head must not begin at 0");
    }
}
