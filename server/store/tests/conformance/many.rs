//! Many at once: handed in, found, cancelled, retried, deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use graceful_store::{
    Change, Changed, Filter, Hold, NewTask, Outcome, QueueSettings, State, StoreError, StoreSettings,
    Submitted, TaskStore,
};
use uuid::Uuid;

use super::fixture::{Fixture, claim, claim_one, complete, done, get, key, settings, submit, task, watched};

fn fatal() -> Outcome {
    Outcome::Failed { error: "no luck".to_owned(), retry: None }
}

/// So many that have ended so.
async fn ended(store: &Arc<dyn TaskStore>, tasks: usize, outcome: Outcome) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..tasks {
        ids.push(submit(store, task()).await);
        complete(store, claim_one(store).await.lease, outcome.clone()).await;
    }
    ids
}

fn in_states(states: &[State]) -> Filter {
    Filter { states: states.to_vec(), ..Filter::default() }
}

async fn all(store: &Arc<dyn TaskStore>, filter: &Filter, limit: usize) -> Vec<Uuid> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let found = store.find(filter, after, limit).await.unwrap();
        assert!(found.ids.len() <= limit);
        ids.extend(found.ids);
        after = found.next;
        if after.is_none() {
            return ids;
        }
    }
}

async fn change(store: &Arc<dyn TaskStore>, ids: &[Uuid], change: Change) -> (u64, u64) {
    let Changed { done, asked } = store.change(ids.to_vec(), change, Hold::default()).await.unwrap();
    (done, asked)
}

pub(crate) async fn many_are_submitted_at_once_and_answered_each(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let mut tasks: Vec<_> = (0..300).map(|_| task()).collect();
    tasks[7].queue = "mial".to_owned();
    let long = format!("\"{}\"", "x".repeat(3000));
    tasks[8].input.clone_from(&long);
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let answers = store.submit_many(tasks, Hold::default()).await.unwrap();
    assert_eq!(answers.len(), 300);
    for (place, answer) in answers.into_iter().enumerate() {
        let expected = if place == 7 { Submitted::NoQueue } else { Submitted::New };
        assert_eq!(answer.unwrap(), expected, "{place}");
    }
    assert_eq!(get(&store, ids[8]).await.input, long);
    let mut claimed = BTreeSet::new();
    while claimed.len() < 299 {
        claimed.extend(claim(&store, 100).await.into_iter().map(|claim| claim.lease.id));
    }
    assert!(!claimed.contains(&ids[7]) && ids.iter().all(|id| *id == ids[7] || claimed.contains(id)));
    assert_eq!(store.submit_many(Vec::new(), Hold::default()).await.unwrap().len(), 0);
}

pub(crate) async fn many_are_submitted_again_under_their_keys(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let batch = |content: &'static [u8]| -> Vec<NewTask> {
        (0..3).map(|n| NewTask { idempotency: key(&format!("k/{n}"), content), ..task() }).collect()
    };
    let first = batch(b"a");
    let ids: Vec<_> = first.iter().map(|task| task.id).collect();
    for answer in store.submit_many(first, Hold::default()).await.unwrap() {
        assert_eq!(answer.unwrap(), Submitted::New);
    }
    for (answer, id) in store.submit_many(batch(b"a"), Hold::default()).await.unwrap().into_iter().zip(&ids) {
        assert!(matches!(answer.unwrap(), Submitted::Known(known) if known.id == *id));
    }
    for (answer, id) in store.submit_many(batch(b"b"), Hold::default()).await.unwrap().into_iter().zip(&ids) {
        assert_eq!(answer.unwrap(), Submitted::KeyReused { id: *id });
    }
}

pub(crate) async fn a_full_queue_takes_as_many_as_it_can(fixture: &impl Fixture) {
    let store = fixture.open(StoreSettings { capacity: 5, ..settings() }).await;
    let batch = || (0..4).map(|_| task()).collect::<Vec<_>>();
    let mut taken = 0;
    let mut refused = 0;
    for _ in 0..3 {
        // A shared queue's count may be a second old; it never takes more than a batch too many.
        store.counts().await.unwrap();
        for answer in store.submit_many(batch(), Hold::default()).await.unwrap() {
            match answer {
                Ok(Submitted::New) => taken += 1,
                Err(StoreError::Full) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(taken + refused, 12);
    assert!((5..=8).contains(&taken), "{taken}");
}

pub(crate) async fn what_is_found_is_what_is_listed_and_pages_join(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let dead = ended(&store, 5, fatal()).await;
    ended(&store, 3, done()).await;
    let waits = submit(&store, NewTask { kind: "mail".to_owned(), ..task() }).await;
    for filter in [
        Filter::default(),
        in_states(&[State::Dead]),
        in_states(&[State::Queued, State::Running]),
        Filter { kind: Some("mail".to_owned()), ..Filter::default() },
        Filter { client_id: Some("nobody".to_owned()), ..Filter::default() },
    ] {
        let page = store.list(&filter, None, 100).await.unwrap();
        let listed: Vec<_> = page.tasks.into_iter().map(|task| task.id).collect();
        for limit in [1, 2, 100] {
            assert_eq!(all(&store, &filter, limit).await, listed, "{filter:?}, {limit}");
        }
    }
    let newest_first: Vec<_> = dead.into_iter().rev().collect();
    assert_eq!(all(&store, &in_states(&[State::Dead]), 2).await, newest_first);
    assert_eq!(all(&store, &in_states(&[State::Queued]), 2).await, [waits]);
    // More than are looked through at a time: a call ends, and says where to go on.
    fixture.fill(30_000).await;
    let old = Filter { kind: Some("nothing".to_owned()), ..Filter::default() };
    let first = store.find(&old, None, 1000).await.unwrap();
    assert!(first.ids.is_empty() && first.next.is_some());
    assert_eq!(
        all(&store, &Filter { kind: Some("old".to_owned()), ..Filter::default() }, 7000).await.len(),
        30_000
    );
}

pub(crate) async fn many_are_cancelled_or_asked_to_stop(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let mut told = store.cancellations();
    let dead = ended(&store, 1, fatal()).await;
    let runs = submit(&store, task()).await;
    let lease = claim_one(&store).await.lease;
    let waits = [submit(&store, task()).await, submit(&store, task()).await];
    let ids = [dead[0], waits[0], runs, Uuid::now_v7(), waits[1]];
    assert_eq!(change(&store, &ids, Change::Cancel).await, (2, 1));
    assert_eq!(told.recv().await.unwrap(), lease);
    for id in waits {
        assert_eq!(get(&store, id).await.state, State::Cancelled);
    }
    assert!(get(&store, runs).await.cancel_requested);
    assert_eq!(get(&store, dead[0]).await.state, State::Dead);
    let events = store.events(1, 9).await.unwrap().events;
    let cancelled: BTreeSet<_> = events.iter().map(|event| event.task_id).collect();
    assert_eq!((events.len(), cancelled), (2, waits.into()));
    assert_eq!(complete(&store, lease, fatal()).await, State::Cancelled);
    assert_eq!(change(&store, &ids, Change::Cancel).await, (0, 0));
}

pub(crate) async fn many_are_retried_where_their_queue_is_there(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    store.put_queue("mail", QueueSettings::default()).await.unwrap();
    let of_mail = submit(&store, NewTask { queue: "mail".to_owned(), ..task() }).await;
    complete(&store, claim_one(&store).await.lease, fatal()).await;
    store.remove_queue("mail").await.unwrap();
    let dead = ended(&store, 2, fatal()).await;
    let succeeded = ended(&store, 1, done()).await;
    let ids = [dead[0], of_mail, succeeded[0], dead[1]];
    assert_eq!(change(&store, &ids, Change::Retry).await, (2, 0));
    let claims = claim(&store, 9).await;
    let again: BTreeSet<_> = claims.iter().map(|claim| (claim.lease.id, claim.lease.attempt)).collect();
    assert_eq!(again, dead.iter().map(|id| (*id, 2)).collect());
    let task = get(&store, dead[0]).await;
    assert_eq!((task.max_attempts, task.attempts.unwrap().len()), (4, 2), "with all its attempts before it");
}

pub(crate) async fn many_are_deleted_with_all_that_is_known_of_them(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let dead = ended(&store, 2, fatal()).await;
    let long =
        NewTask { input: format!("\"{}\"", "x".repeat(5000)), idempotency: key("again", b"a"), ..task() };
    let large = submit(&store, long.clone()).await;
    complete(&store, claim_one(&store).await.lease, done()).await;
    let waits = submit(&store, task()).await;
    assert_eq!(change(&store, &[dead[0], dead[1], large, waits], Change::Delete).await, (3, 0));
    for id in [dead[0], dead[1], large] {
        assert_eq!(store.get(id).await.unwrap(), None);
    }
    assert_eq!(get(&store, waits).await.state, State::Queued, "it has not ended");
    super::fixture::until(&store, "they are counted no more", async || {
        store.counts().await.unwrap().dead == 0
    })
    .await;
    assert_eq!(store.events(0, 9).await.unwrap().events.len(), 3, "that they ended is still told");
    submit(&store, NewTask { id: Uuid::now_v7(), ..long }).await;
}

pub(crate) async fn owned_follows_a_change_of_many(fixture: &impl Fixture) {
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    let own = u64::from(!store.shared());
    let ids: Vec<_> = {
        let batch: Vec<_> = (0..9).map(|_| task()).collect();
        let ids = batch.iter().map(|task| task.id).collect();
        store.submit_many(batch, Hold::default()).await.unwrap();
        ids
    };
    assert_eq!(told.latest().queued, 9 * own);
    assert_eq!(change(&store, &ids, Change::Cancel).await, (9, 0));
    assert_eq!(told.latest().queued, 0);
    assert_eq!(change(&store, &ids, Change::Retry).await, (9, 0));
    assert_eq!(told.latest().queued, 9 * own);
}
