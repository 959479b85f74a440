//! Submissions: durable, once a key, bounded, counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graceful_store::{Hold, Idempotency, NewTask, State, StoreError, StoreSettings, Submitted};

use super::fixture::{
    Fixture, claim, claim_one, complete, done, get, get_briefly, key, settings, submit, task, until, watched,
};

pub(crate) async fn a_task_is_there_once_it_is_accepted(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    for round in 0..50_u16 {
        let new = NewTask {
            kind: "mail".to_owned(),
            input: format!(r#"{{"to": "{round}"}}"#),
            client_id: Some("ada".to_owned()),
            priority: -7,
            timeout: Some(Duration::from_secs(9)),
            max_attempts: 4,
            delay: Duration::from_secs(60),
            ..task()
        };
        let id = submit(&store, new.clone()).await;
        let found = get(&store, id).await;
        assert_eq!((found.id, found.state, found.attempt, found.max_attempts), (id, State::Queued, 0, 4));
        assert_eq!((found.kind, found.input, found.client_id), (new.kind, new.input, new.client_id));
        assert_eq!((found.priority, found.timeout), (-7, new.timeout));
        assert_eq!(found.due - found.created, 60_000);
        assert_eq!((found.output, found.progress, found.error), (None, None, None));
        assert_eq!((found.started, found.ended, found.cancel_requested), (None, None, false));
    }
}

pub(crate) async fn the_same_key_is_the_same_task(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let first = submit(&store, NewTask { idempotency: key("k", b"a"), ..task() }).await;
    let again = NewTask { idempotency: key("k", b"a"), ..task() };
    let Submitted::Known(known) = store.submit(again.clone(), Hold::default()).await.unwrap() else {
        panic!("a second task");
    };
    assert_eq!(*known, get_briefly(&store, first).await);
    // It is remembered as long as the task is.
    let claim = claim_one(&store).await;
    complete(&store, claim.lease, done()).await;
    let Submitted::Known(known) = store.submit(again, Hold::default()).await.unwrap() else {
        panic!("a second task");
    };
    assert_eq!((known.id, known.state), (first, State::Succeeded));
}

pub(crate) async fn a_key_with_other_content_is_refused(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, NewTask { idempotency: key("k", b"a"), ..task() }).await;
    let other = NewTask { idempotency: key("k", b"b"), ..task() };
    let refused = other.id;
    assert_eq!(store.submit(other, Hold::default()).await.unwrap(), Submitted::KeyReused { id });
    assert_eq!(store.get(refused).await.unwrap(), None);
    submit(&store, NewTask { idempotency: key("another", b"b"), ..task() }).await;
}

pub(crate) async fn a_key_that_an_older_version_stored_is_known(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let id = submit(&store, NewTask { idempotency: key("k", b"old rule"), ..task() }).await;
    let again = |older: &[u8]| {
        let own = key("k", b"new rule").map(|own| Idempotency { older: Some(older.to_vec()), ..own });
        store.submit(NewTask { idempotency: own, ..task() }, Hold::default())
    };
    let known = again(b"old rule").await.unwrap();
    assert!(matches!(&known, Submitted::Known(found) if found.id == id), "{known:?}");
    assert_eq!(again(b"other").await.unwrap(), Submitted::KeyReused { id });
}

pub(crate) async fn one_key_submitted_at_once_is_one_task(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let store = Arc::clone(&store);
        clients.spawn(async move {
            let new = NewTask { idempotency: key("k", b"a"), ..task() };
            let own = new.id;
            match store.submit(new, Hold::default()).await.unwrap() {
                Submitted::New => (own, true),
                Submitted::Known(known) => (known.id, false),
                Submitted::KeyReused { .. } => panic!("the content is the same"),
                Submitted::NoQueue => panic!("its queue is always there"),
            }
        });
    }
    let answers = clients.join_all().await;
    assert_eq!(answers.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(answers.iter().filter(|(_, new)| *new).count(), 1);
}

pub(crate) async fn a_full_queue_says_so(fixture: &impl Fixture) {
    let store = fixture.open(StoreSettings { capacity: 2, ..settings() }).await;
    submit(&store, NewTask { idempotency: key("k", b"a"), ..task() }).await;
    submit(&store, NewTask { delay: Duration::from_secs(60), ..task() }).await;
    if !store.shared() {
        assert!(matches!(store.submit(task(), Hold::default()).await, Err(StoreError::Full)));
    }
    // A shared queue's count may be a second old.
    until(&store, "full", async || {
        let new = task();
        let id = new.id;
        match store.submit(new, Hold::default()).await {
            Ok(_) => false,
            Err(StoreError::Full) => store.get(id).await.unwrap().is_none(),
            Err(other) => panic!("{other}"),
        }
    })
    .await;
    // What is known already takes no room.
    let again = NewTask { idempotency: key("k", b"a"), ..task() };
    assert!(matches!(store.submit(again, Hold::default()).await, Ok(Submitted::Known(_))));
    // Room comes as tasks are claimed.
    claim(&store, 10).await;
    until(&store, "room again", async || store.submit(task(), Hold::default()).await.is_ok()).await;
}

pub(crate) async fn a_hold_is_let_go_only_once_the_task_is_counted(fixture: &impl Fixture) {
    /// Says as it goes whether the task was counted by then.
    struct Guard(Box<dyn Fn() + Send + Sync>);
    impl Drop for Guard {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    for round in 1..=20_u64 {
        let let_go = Arc::new(AtomicBool::new(false));
        let guard = {
            let (let_go, told, shared) = (Arc::clone(&let_go), told.clone(), store.shared());
            Guard(Box::new(move || {
                // A shared queue's waiting tasks are nobody's own.
                assert!(shared || told.latest().queued >= round, "let go before it was counted");
                let_go.store(true, Ordering::SeqCst);
            }))
        };
        assert_eq!(store.submit(task(), Hold::new(guard)).await.unwrap(), Submitted::New);
        assert!(let_go.load(Ordering::SeqCst), "held on to");
    }
}
