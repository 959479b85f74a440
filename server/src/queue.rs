//! [`Queue`]: the store as the server sees it: opened in the background, closed while it can't be used, opened again.
//!
//! # Flow
//! Closed → open (tried until it works, with growing pauses) → looked after each second → closed again if the store says
//! that it is damaged → open … While it is closed all of its users get [`Unavailable::Closed`].
//!
//! # Guarantees
//! - What the store owns is in the drain's counts before anyone can use the store.
//! - While a file that is there could not be opened yet, the pod is not idle: nobody knows what is in it.
//! - SIGTERM ends the process also when the queue cannot be opened.

mod sampling;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use graceful_drain::{Drain, RequestGuard, State, TaskGuard};
use graceful_store::{
    Counts, DEFAULT_QUEUE, Hold, NewTask, OpenError, Owned, StoreError, StoreSettings, Submitted, TaskStore,
    Unavailable, postgres, sqlite,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::pauses::{self, Pauses};
use crate::tally::Tally;
use crate::volume;

/// A store that was well for so long starts again with the first pause.
const WELL: Duration = Duration::from_secs(30);

/// Long enough for a predecessor's lock to go, and short beside any grace period.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// Trouble that lasts is logged again once a minute.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);

/// Makes a store.
pub type Opener = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn TaskStore>, OpenError>> + Send + Sync>;

/// The durable queue, whether it can be reached just now or not.
#[derive(Debug)]
pub struct Queue {
    tally: Arc<Tally>,
    current: watch::Sender<Option<Arc<dyn TaskStore>>>,
    damaged: Notify,
    ready: AtomicBool,
    shared: bool,
    metrics: Arc<Metrics>,
    complained: Complained,
}

/// When each kind of trouble was logged last.
#[derive(Debug, Default)]
struct Complained(Mutex<HashMap<Unavailable, Instant>>);

impl Complained {
    /// Whether trouble of this kind is to be logged: the first, and then one a minute, since an outage has thousands.
    fn is_news(&self, why: Unavailable) -> bool {
        let mut said = self.0.lock();
        let news = said.get(&why).is_none_or(|at| at.elapsed() > COMPLAIN_AGAIN);
        if news {
            said.insert(why, Instant::now());
        }
        news
    }
}

impl Queue {
    /// A queue that is opened in the background, and counts in `drain`. (`settings.owned` and `settings.letters` are set here.)
    #[must_use]
    pub fn open(
        engine: Engine,
        mut settings: StoreSettings,
        drain: Drain,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let tally = Tally::new(drain.clone());
        let counts = tally.clone();
        settings.owned = Arc::new(move |owned| counts.owned(owned));
        let told = metrics.clone();
        settings.letters = Arc::new(move |letters| {
            letters.iter().for_each(|kind| told.gave_up(kind));
            warn!(
                letters = letters.len(),
                "tasks are dead letters: their processes died too often while they ran"
            );
        });
        let shared = match &engine {
            Engine::Sqlite(folder) => {
                info!(folder = %folder.display(), "the queue is in a file of this process's own");
                volume::warn_of_loss(folder);
                false
            }
            Engine::Postgres(_) => {
                info!("the queue is in a PostgreSQL that pods share");
                true
            }
        };
        let unknown = unknown_tasks(&engine, &drain);
        let opener: Opener = Box::new(move || {
            let (engine, settings) = (engine.clone(), settings.clone());
            Box::pin(async move {
                Ok(match engine {
                    Engine::Sqlite(folder) => sqlite::open(&folder, settings).await? as Arc<dyn TaskStore>,
                    Engine::Postgres(url) => postgres::open(&url.0, settings).await?,
                })
            })
        });
        Self::keep_with(opener, shared, drain, metrics, unknown, tally)
    }

    /// Like [`Queue::open`], of any store. What it owns is not in the drain's counts.
    #[must_use]
    pub fn keep(
        open: Opener,
        shared: bool,
        drain: Drain,
        metrics: Arc<Metrics>,
        unknown: Option<TaskGuard>,
    ) -> Arc<Self> {
        let tally = Tally::new(drain.clone());
        Self::keep_with(open, shared, drain, metrics, unknown, tally)
    }

    fn keep_with(
        open: Opener,
        shared: bool,
        drain: Drain,
        metrics: Arc<Metrics>,
        unknown: Option<TaskGuard>,
        tally: Arc<Tally>,
    ) -> Arc<Self> {
        let queue = Arc::new(Self {
            tally,
            current: watch::Sender::new(None),
            damaged: Notify::new(),
            ready: AtomicBool::new(false),
            shared,
            metrics,
            complained: Complained::default(),
        });
        let unknown = Arc::new(Mutex::new(unknown));
        tokio::spawn(let_the_process_end(queue.clone(), drain.clone(), unknown.clone()));
        let keeper = Keeper { queue: queue.clone(), open, drain, said: None };
        tokio::spawn(keeper.keep(unknown));
        tokio::spawn(sampling::keep(queue.clone()));
        queue
    }

    /// The store, if it is open.
    ///
    /// # Errors
    /// [`Unavailable::Closed`] while it is not.
    pub fn store(&self) -> Result<Arc<dyn TaskStore>, StoreError> {
        self.current.borrow().clone().ok_or_else(|| StoreError::Unavailable {
            why: Unavailable::Closed,
            detail: "the queue is not open yet, or no longer".to_owned(),
        })
    }

    /// Waits until the store is open.
    pub async fn opened(&self) -> Arc<dyn TaskStore> {
        let mut current = self.watch();
        let open = current.wait_for(Option::is_some).await.ok().and_then(|store| store.clone());
        match open {
            Some(store) => store,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Waits until `store` is no longer the one to use.
    pub async fn replaced(&self, store: &Arc<dyn TaskStore>) {
        let other =
            |now: &Option<Arc<dyn TaskStore>>| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, store));
        let _ = self.watch().wait_for(other).await;
    }

    /// The store as it comes and goes. Whoever keeps one for long should follow this: a damaged file can be opened
    /// again only once all have let go of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<dyn TaskStore>>> {
        self.current.subscribe()
    }

    /// Whether it has been open. It then stays ready, also while the database is away: if all pods became unready at
    /// once, the Service would have none left to say "try again later".
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// What Prometheus is told.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where attempts that run are counted.
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Whether tasks that wait are the cluster's, and not this process's own.
    #[must_use]
    pub fn shared(&self) -> bool {
        self.shared
    }

    /// Puts a task on disk. The request stays counted until the task is.
    ///
    /// # Errors
    /// When the queue is full, or can't be written just now.
    pub async fn submit(&self, task: NewTask, request: &RequestGuard) -> Result<Submitted, StoreError> {
        let answer = self.store()?.submit(task, Hold::new(request.clone())).await;
        self.noticed(&answer);
        answer
    }

    /// Puts tasks on disk, all in one go; the answers are in their order. The request stays counted until the tasks are.
    ///
    /// # Errors
    /// When the queue can't be written just now.
    pub async fn submit_many(
        &self,
        tasks: Vec<NewTask>,
        request: &RequestGuard,
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        let answer = self.store()?.submit_many(tasks, Hold::new(request.clone())).await;
        self.noticed(&answer);
        answer
    }

    /// How many tasks there are in the whole queue, up to a second old.
    ///
    /// # Errors
    /// When the queue can't be read just now.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let answer = self.store()?.counts().await;
        self.noticed(&answer);
        answer
    }

    /// How often a task of this queue may be started that does not say so itself, where the queue says; as far as is known here.
    #[must_use]
    pub fn attempts(&self, queue: &str) -> Option<u16> {
        self.store().ok()?.queue_settings(queue)?.max_attempts
    }

    /// Logs why the queue could not do something. That it is closed, and why, is said by its keeper.
    fn complain(&self, error: &StoreError) {
        if let StoreError::Unavailable { why, detail } = error
            && *why != Unavailable::Closed
            && self.complained.is_news(*why)
        {
            warn!(%why, detail, "the queue is unavailable");
        }
    }

    /// Looks at what a store answered: trouble is counted, and a store that is damaged is closed and opened again.
    pub fn noticed<T>(&self, answer: &Result<T, StoreError>) {
        if let Err(error) = answer {
            self.metrics.queue_trouble(error);
            self.complain(error);
            if beyond_repair(error, self.shared) {
                self.damaged.notify_one();
            }
        }
    }
}

/// A file that is damaged must be let go of, so that a sound one can take its place. A shared database is mended where it
/// is: another store on it would not know of what this one's attempts hold, and call the pod idle.
fn beyond_repair(error: &StoreError, shared: bool) -> bool {
    match error {
        StoreError::Full => false,
        StoreError::Unavailable { why, detail: _ } => match why {
            Unavailable::Closed => true,
            Unavailable::Corrupt => !shared,
            Unavailable::Disk | Unavailable::Connection | Unavailable::Busy | Unavailable::Engine => false,
        },
    }
}

/// Stands for what a file holds until it could be opened.
fn unknown_tasks(engine: &Engine, drain: &Drain) -> Option<TaskGuard> {
    match engine {
        Engine::Sqlite(folder) if !matches!(sqlite_file(folder).try_exists(), Ok(false)) => {
            drain.try_task().ok()
        }
        Engine::Sqlite(_) | Engine::Postgres(_) => None,
    }
}

fn sqlite_file(folder: &Path) -> std::path::PathBuf {
    folder.join("tasks.db")
}

/// After SIGTERM, a queue that stays closed holds the process for [`LAST_CHANCE`] at most. What is in the file was on disk
/// before, and is there for the next process that opens it; waiting for it would only end in a SIGKILL.
async fn let_the_process_end(queue: Arc<Queue>, drain: Drain, unknown: Arc<Mutex<Option<TaskGuard>>>) {
    drain.wait_until(|status| status.state == State::Terminating && !status.accepting).await;
    let mut current = queue.watch();
    while timeout(LAST_CHANCE, current.wait_for(Option::is_some)).await.is_ok() {
        let _ = current.wait_for(Option::is_none).await;
    }
    let guard = unknown.lock().take();
    let Owned { queued, running, .. } = queue.tally.forsake();
    if guard.is_some() || queued + running > 0 {
        error!(
            queued,
            running,
            "the queue cannot be opened and the process is to end; what is in the file waits there for the next start"
        );
    }
}

/// Keeps a queue open.
struct Keeper {
    queue: Arc<Queue>,
    open: Opener,
    drain: Drain,
    /// The trouble that was logged last, until it is over.
    said: Option<String>,
}

impl Keeper {
    async fn keep(mut self, unknown: Arc<Mutex<Option<TaskGuard>>>) {
        let mut pauses = Pauses::up_to(pauses::LONGEST);
        loop {
            match (self.open)().await {
                Ok(store) => {
                    info!(stream = store.stream(), "the queue is open");
                    self.said = None;
                    // Its tasks are in the drain's counts by now.
                    drop(unknown.lock().take());
                    let opened = Instant::now();
                    self.queue.current.send_replace(Some(store.clone()));
                    self.queue.ready.store(true, Ordering::Relaxed);
                    self.look_after(store).await;
                    self.queue.current.send_replace(None);
                    if opened.elapsed() > WELL {
                        pauses.over();
                    }
                }
                Err(trouble) => self.say(&trouble.to_string()),
            }
            pauses.wait().await;
        }
    }

    /// Returns when the store is damaged.
    async fn look_after(&mut self, store: Arc<dyn TaskStore>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick() => {}
                () = self.queue.damaged.notified() => {}
            }
            match self.once(&store).await {
                Ok(()) if self.said.is_some() => {
                    info!("the queue can be used again");
                    self.said = None;
                }
                Ok(()) => {}
                Err(trouble) => {
                    self.say(&trouble.to_string());
                    if beyond_repair(&trouble, self.queue.shared) {
                        return;
                    }
                }
            }
        }
    }

    async fn once(&self, store: &Arc<dyn TaskStore>) -> Result<(), StoreError> {
        store.maintain().await?;
        if store.shared() {
            let counts = store.counts().await?;
            self.drain.set_shared_queued(counts.queued + counts.delayed);
        }
        Ok(())
    }

    /// Once, and again when it changes.
    fn say(&mut self, trouble: &str) {
        if self.said.as_deref() == Some(trouble) {
            return;
        }
        if self.queue.ready() {
            warn!(trouble, "cannot use the queue; retrying");
        } else {
            error!(trouble, "cannot open the queue; retrying");
        }
        self.said = Some(trouble.to_owned());
    }
}

/// What a submission gets that does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often it may be started.
    pub max_attempts: u16,
    /// How long it is remembered once it has ended.
    pub keep: Duration,
}

impl Defaults {
    /// A new task of this kind, with this input (JSON text), that was checked.
    #[must_use]
    pub fn task(&self, kind: &str, input: String) -> NewTask {
        let Self { timeout, max_attempts, keep } = *self;
        NewTask {
            id: Uuid::now_v7(),
            kind: kind.to_owned(),
            input,
            client_id: None,
            queue: DEFAULT_QUEUE.to_owned(),
            concurrency_key: None,
            priority: 0,
            delay: Duration::ZERO,
            timeout: Some(timeout),
            max_attempts,
            keep,
            keep_dead: None,
            idempotency: None,
            trace: None,
        }
    }
}

/// What clients are told when a task has ended.
#[must_use]
pub fn processed(id: Uuid) -> String {
    format!("Task {id} processed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_once_a_minute_and_not_for_each_who_asks() {
        let complained = Complained::default();
        let lines = |why| (0..1000).filter(|_| complained.is_news(why)).count();
        assert_eq!((lines(Unavailable::Connection), lines(Unavailable::Disk)), (1, 1));
        tokio::time::advance(COMPLAIN_AGAIN).await;
        assert_eq!(lines(Unavailable::Connection), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((lines(Unavailable::Connection), lines(Unavailable::Disk)), (1, 1));
    }
}
