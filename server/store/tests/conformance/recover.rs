//! A process dies; nothing that was accepted is lost, and nothing that it did counts twice.

use graceful_store::{Completion, Held, Lease, NewTask, Outcome, Owned, State};

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

pub(crate) async fn an_orphan_runs_again_and_its_attempt_counts(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let orphan = submit(&store, NewTask { max_attempts: 2, ..task() }).await;
    claim_one(&store).await;
    fixture.crash(store).await;
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    let claim = claim_one(&store).await;
    assert_eq!(claim.lease, Lease { id: orphan, attempt: 2 });
    assert_eq!(told.latest(), Owned { running: 1, ..Owned::default() });
    assert!(get(&store, orphan).await.error.is_some(), "it is said what became of the first attempt");
    complete(&store, claim.lease, done()).await;
}

pub(crate) async fn a_task_that_kills_its_process_ends_dead(fixture: &impl Fixture) {
    let mut store = fixture.open(settings()).await;
    let id = submit(&store, NewTask { max_attempts: 2, ..task() }).await;
    for attempt in [1, 2] {
        assert_eq!(claim_one(&store).await.lease, Lease { id, attempt });
        fixture.crash(store).await;
        store = fixture.open(settings()).await;
    }
    until(&store, "dead", async || get(&store, id).await.state == State::Dead).await;
    let found = get(&store, id).await;
    assert!(found.error.is_some_and(|error| error.contains("attempt 2")));
    let events = store.events(0, 10).await.unwrap().events;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].task_id, events[0].state, events[0].attempt), (id, State::Dead, 2));
    assert!(events[0].error.is_some());
    nothing_to_claim(&store).await;
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
