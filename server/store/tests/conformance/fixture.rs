//! What an engine brings, and what the promises begin with.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use graceful_store::{
    Claim, Completion, DEFAULT_QUEUE, Hold, Idempotency, Lease, MOST_INTERRUPTIONS, NewTask, Outcome, Owned,
    State, StoreError, StoreSettings, Submitted, TaskRecord, TaskStore, Unavailable,
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Longer than any engine needs for anything, a dead process's lease included.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Long enough that what has not come by then does not come; no promise rests on it alone.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// One queue, opened as often as a promise asks.
pub(crate) trait Fixture: Sync {
    /// Opens the fixture's queue.
    fn open(&self, settings: StoreSettings) -> impl Future<Output = Arc<dyn TaskStore>> + Send;

    /// Puts so many tasks there that have succeeded, of the kind `old` and older than any other but the nil id's; the next
    /// [`TaskStore::maintain`] may forget them.
    fn fill(&self, tasks: u32) -> impl Future<Output = ()> + Send;

    /// Ends a store as a process's death does: nothing is given back.
    fn crash(&self, store: Arc<dyn TaskStore>) -> impl Future<Output = ()> + Send {
        async { drop(store) }
    }
}

/// What the store has told of what it owns.
#[derive(Debug, Default, Clone)]
pub(crate) struct OwnedHistory(Arc<Mutex<Vec<Owned>>>);

impl OwnedHistory {
    pub(crate) fn latest(&self) -> Owned {
        self.0.lock().unwrap().last().copied().unwrap_or_default()
    }
}

/// A process's settings.
pub(crate) fn settings() -> StoreSettings {
    watched().0
}

/// A process's settings, and what it is told.
pub(crate) fn watched() -> (StoreSettings, OwnedHistory) {
    let told = OwnedHistory::default();
    let sink = told.clone();
    let settings = StoreSettings {
        owner: format!("test-{}", Uuid::new_v4()),
        capacity: 1_000_000,
        kinds: vec!["sleep".to_owned(), "mail".to_owned()],
        keep_events: Duration::from_secs(3600),
        max_interruptions: MOST_INTERRUPTIONS.get(),
        keep_dead: Duration::from_secs(3600),
        owned: Arc::new(move |owned| sink.0.lock().unwrap().push(owned)),
        letters: Arc::new(|_| {}),
    };
    (settings, told)
}

/// A task of no special kind.
pub(crate) fn task() -> NewTask {
    NewTask {
        id: Uuid::now_v7(),
        kind: "sleep".to_owned(),
        input: "{}".to_owned(),
        client_id: None,
        queue: DEFAULT_QUEUE.to_owned(),
        concurrency_key: None,
        priority: 0,
        delay: Duration::ZERO,
        timeout: None,
        max_attempts: 3,
        keep: Duration::from_secs(3600),
        keep_dead: None,
        idempotency: None,
        trace: None,
    }
}

/// A client's own name for a submission.
pub(crate) fn key(key: &str, fingerprint: &[u8]) -> Option<Idempotency> {
    Some(Idempotency { key: key.to_owned(), fingerprint: fingerprint.to_vec(), older: None })
}

/// Submits; the task's id.
pub(crate) async fn submit(store: &Arc<dyn TaskStore>, task: NewTask) -> Uuid {
    let id = task.id;
    assert_eq!(store.submit(task, Hold::default()).await.unwrap(), Submitted::New);
    id
}

/// So many at once, of 1 MiB each.
pub(crate) async fn submit_mebibytes(
    store: &Arc<dyn TaskStore>,
    count: usize,
) -> Vec<Result<Submitted, StoreError>> {
    let large = NewTask { input: format!("\"{}\"", "x".repeat(1 << 20)), ..task() };
    let each = |_| store.submit(NewTask { id: Uuid::now_v7(), ..large.clone() }, Hold::default());
    join_all((0..count).map(each)).await
}

/// Turned away, since too many wait.
pub(crate) fn is_busy<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable { why: Unavailable::Busy, .. }))
}

/// Claims up to `most`, once there is one; keeps the store's clock going meanwhile, as the server does.
pub(crate) async fn claim(store: &Arc<dyn TaskStore>, most: usize) -> Vec<Claim> {
    timeout(LONG, ticking(store, store.claim(most))).await.expect("nothing to claim came").unwrap()
}

/// Claims one.
pub(crate) async fn claim_one(store: &Arc<dyn TaskStore>) -> Claim {
    let mut claims = claim(store, 1).await;
    assert_eq!(claims.len(), 1);
    claims.remove(0)
}

/// Sees that nothing can be claimed for a while.
pub(crate) async fn nothing_to_claim(store: &Arc<dyn TaskStore>) {
    let claimed = timeout(SHORT, ticking(store, store.claim(1))).await;
    assert!(claimed.is_err(), "claimed {claimed:?}");
}

/// Waits for `work` while the store is maintained.
pub(crate) async fn ticking<T>(store: &Arc<dyn TaskStore>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = tick.tick() => store.maintain().await.unwrap(),
        }
    }
}

/// Ends an attempt that has its task.
pub(crate) async fn complete(store: &Arc<dyn TaskStore>, lease: Lease, outcome: Outcome) -> State {
    match store.complete(lease, outcome).await.unwrap() {
        Completion::Now(state) => state,
        Completion::Lost => panic!("{lease:?} was lost"),
    }
}

/// A failure that is tried again at once.
pub(crate) fn failed(error: &str) -> Outcome {
    Outcome::Failed { error: error.to_owned(), retry: Some(Duration::ZERO) }
}

/// A success.
pub(crate) fn done() -> Outcome {
    Outcome::Succeeded("1".to_owned())
}

/// A task that is there.
pub(crate) async fn get(store: &Arc<dyn TaskStore>, id: Uuid) -> TaskRecord {
    store.get(id).await.unwrap().expect("the task is gone")
}

/// The same as all calls but [`TaskStore::get`] tell it: without its attempts.
pub(crate) async fn get_briefly(store: &Arc<dyn TaskStore>, id: Uuid) -> TaskRecord {
    TaskRecord { attempts: None, ..get(store, id).await }
}

/// Maintains until `so`.
pub(crate) async fn until(store: &Arc<dyn TaskStore>, what: &str, so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        store.maintain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
