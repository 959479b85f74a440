//! [`SqliteStore`]: each call is sent to the thread that owns the connection it needs, and awaited.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, oneshot, watch};
use uuid::Uuid;

use super::clock::span;
use super::command::{Command, Reply};
use super::fault::{Failure, closed, corrupt};
use super::queues::oldest;
use super::reader::{self, Reader};
use crate::TaskStore;
use crate::error::{StoreError, Unavailable};
use crate::event::Events;
use crate::queue::{QueuePut, QueueRecord, QueueRemoved, QueueSettings};
use crate::room::Room;
use crate::task::{
    Cancelled, Change, Changed, Claim, Completion, Counts, Cursor, Filter, Found, Held, Hold, Lease, NewTask,
    Outcome, Page, Retried, Submitted, TaskRecord,
};

/// How long one call of [`TaskStore::maintain`] forgets; what is left waits for the next, a second later. A chunk takes a few
/// milliseconds, so that a fifth of the time goes to forgetting where more comes than can be kept, and submissions wait for one
/// chunk at most. By a number of chunks it once fell behind what can be submitted.
const FORGETTING: Duration = Duration::from_millis(200);

/// What the threads and the callers both see.
#[derive(Debug)]
pub(super) struct Shared {
    counts: Mutex<Counts>,
    suspect_is_due: AtomicBool,
    queues: RwLock<BTreeMap<String, QueueSettings>>,
    head: watch::Sender<u64>,
    pub(super) cancellations: broadcast::Sender<Lease>,
    damage: OnceLock<String>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            counts: Mutex::default(),
            suspect_is_due: AtomicBool::new(false),
            queues: RwLock::default(),
            head: watch::Sender::new(0),
            cancellations: broadcast::Sender::new(1024),
            damage: OnceLock::new(),
        }
    }

    pub(super) fn tell(&self, counts: Counts, suspect_is_due: bool, head: u64) {
        *self.counts.lock() = counts;
        self.suspect_is_due.store(suspect_is_due, Ordering::Relaxed);
        self.head.send_if_modified(|known| std::mem::replace(known, head) != head);
    }

    pub(super) fn tell_queues(&self, settings: BTreeMap<String, QueueSettings>) {
        *self.queues.write() = settings;
    }

    /// The file is damaged: from now on nothing is done with it.
    pub(super) fn damaged(&self, detail: &str) {
        if self.damage.set(detail.to_owned()).is_ok() {
            tracing::error!(
                detail,
                "the queue's file is damaged; it is used no more until it is opened anew"
            );
        }
    }

    pub(super) fn damage(&self) -> Option<Failure> {
        self.damage.get().map(|detail| Failure { why: Unavailable::Corrupt, detail: detail.clone() })
    }
}

/// A queue in a SQLite file. Dropping it waits for what has been begun and lets the file go.
pub struct SqliteStore {
    pub(super) writer: Sender<Command>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// For look-ups of a row or a few.
    pub(super) lookups: Option<Reader>,
    /// For lists, which may take longer.
    pub(super) lists: Option<Reader>,
    pub(super) shared: Arc<Shared>,
    pub(super) room: Room,
    pub(super) stream: String,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("stream", &self.stream).field("shared", &self.shared).finish()
    }
}

impl SqliteStore {
    async fn write<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(command(reply)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn read<T: Send + 'static>(
        &self,
        reader: Option<&Reader>,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let result = match (self.shared.damage(), reader) {
            (Some(failure), _) => return Err(failure.error()),
            (None, None) => return Err(closed()),
            (None, Some(reader)) => reader.ask(query).await.ok_or_else(closed)?,
        };
        result.map_err(|error| {
            let failure = Failure::from(error);
            if failure.why == Unavailable::Corrupt {
                self.shared.damaged(&failure.detail);
                // Those who wait for tasks are to learn of it; a writer that has gone has told them.
                let _ = self.writer.send(Command::Damaged);
                return corrupt(&failure.detail);
            }
            failure.error()
        })
    }
}

#[async_trait]
impl TaskStore for SqliteStore {
    async fn submit(&self, task: NewTask, hold: Hold) -> Result<Submitted, StoreError> {
        let hold = self.room.take(std::slice::from_ref(&task), hold)?;
        self.write(|reply| Command::Submit(Box::new(task), hold, reply)).await
    }

    async fn submit_many(
        &self,
        tasks: Vec<NewTask>,
        hold: Hold,
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        let hold = self.room.take(&tasks, hold)?;
        self.write(|reply| Command::SubmitMany(tasks, hold, reply)).await
    }

    async fn claim(&self, most: usize) -> Result<Vec<Claim>, StoreError> {
        if most == 0 {
            return Ok(Vec::new());
        }
        Ok(self.write(|reply| Command::Claim(most, reply)).await?.take())
    }

    async fn suspect_is_due(&self) -> Result<bool, StoreError> {
        match self.shared.damage() {
            Some(failure) => Err(failure.error()),
            None => Ok(self.shared.suspect_is_due.load(Ordering::Relaxed)),
        }
    }

    async fn claim_suspect(&self) -> Result<Option<Claim>, StoreError> {
        Ok(self.write(Command::Suspect).await?.take().pop())
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Held>, StoreError> {
        let leases = leases.to_vec();
        self.read(self.lookups.as_ref(), move |connection| reader::renew(connection, &leases)).await
    }

    fn renew_every(&self) -> Option<Duration> {
        None
    }

    async fn progress(&self, lease: Lease, progress: String) -> Result<Held, StoreError> {
        self.write(|reply| Command::Progress(lease, progress, reply)).await
    }

    async fn complete(&self, lease: Lease, outcome: Outcome) -> Result<Completion, StoreError> {
        self.write(|reply| Command::Complete(lease, outcome, reply)).await
    }

    async fn cancel(&self, id: Uuid) -> Result<Cancelled, StoreError> {
        self.write(|reply| Command::Cancel(id, reply)).await
    }

    async fn retry(&self, id: Uuid, hold: Hold) -> Result<Retried, StoreError> {
        self.write(|reply| Command::Retry(id, hold, reply)).await
    }

    async fn get(&self, id: Uuid) -> Result<Option<TaskRecord>, StoreError> {
        self.read(self.lookups.as_ref(), move |connection| reader::get_whole(connection, id)).await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let filter = filter.clone();
        let counts = *self.shared.counts.lock();
        self.read(self.lists.as_ref(), move |connection| {
            reader::list(connection, &filter, after, limit, &counts)
        })
        .await
    }

    async fn find(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Found, StoreError> {
        let filter = filter.clone();
        let counts = *self.shared.counts.lock();
        self.read(self.lists.as_ref(), move |connection| {
            reader::find(connection, &filter, after, limit, &counts)
        })
        .await
    }

    async fn change(&self, ids: Vec<Uuid>, change: Change, hold: Hold) -> Result<Changed, StoreError> {
        self.write(|reply| Command::Change(ids, change, hold, reply)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        match self.shared.damage() {
            Some(failure) => Err(failure.error()),
            None => Ok(*self.shared.counts.lock()),
        }
    }

    async fn put_queue(&self, name: &str, settings: QueueSettings) -> Result<QueuePut, StoreError> {
        self.write(|reply| Command::PutQueue(name.to_owned(), settings, reply)).await
    }

    async fn pause_queue(&self, name: &str, paused: bool) -> Result<bool, StoreError> {
        self.write(|reply| Command::PauseQueue(name.to_owned(), paused, reply)).await
    }

    async fn remove_queue(&self, name: &str) -> Result<QueueRemoved, StoreError> {
        self.write(|reply| Command::RemoveQueue(name.to_owned(), reply)).await
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let (now, mut queues) = self.write(Command::Queues).await?;
        self.read(self.lists.as_ref(), move |connection| {
            for queue in queues.iter_mut().filter(|queue| queue.counts.queued > 0) {
                let since = oldest(connection, &queue.name, now)?;
                queue.counts.oldest = since.map(|since| span(now.saturating_sub(since)));
            }
            Ok(queues)
        })
        .await
    }

    fn queue_settings(&self, name: &str) -> Option<QueueSettings> {
        self.shared.queues.read().get(name).copied()
    }

    async fn events(&self, after: u64, limit: usize) -> Result<Events, StoreError> {
        self.read(self.lookups.as_ref(), move |connection| reader::events(connection, after, limit)).await
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    fn stream(&self) -> &str {
        &self.stream
    }

    fn cancellations(&self) -> broadcast::Receiver<Lease> {
        self.shared.cancellations.subscribe()
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        let end = Instant::now() + FORGETTING;
        while self.write(Command::Forget).await? && Instant::now() < end {}
        Ok(())
    }

    fn shared(&self) -> bool {
        false
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Errors say that the thread has gone already.
        let _ = self.writer.send(Command::Close);
        drop(self.lookups.take());
        drop(self.lists.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::time::timeout;

    use super::*;
    use crate::sqlite::open;
    use crate::tests::{LONG, all_but_lists, settings};

    #[tokio::test]
    async fn a_list_that_takes_long_keeps_nobody_from_looking_cancelling_or_submitting() {
        let folder = std::env::temp_dir().join(format!("graceful-store-{}", Uuid::new_v4()));
        let store = open(&folder, settings()).await.unwrap();
        let (asked, mut began) = tokio::sync::mpsc::channel(1);
        let (go_on, told) = channel::<()>();
        let held = tokio::spawn({
            let store = store.clone();
            async move {
                store
                    .read(store.lists.as_ref(), move |_| {
                        asked.blocking_send(()).unwrap();
                        Ok(told.recv())
                    })
                    .await
            }
        });
        began.recv().await.unwrap();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.list(&Filter::default(), None, 1).await }
        });
        timeout(LONG, all_but_lists(&*store)).await.expect("somebody waits for a list");
        assert!(!waiting.is_finished(), "the list waits for the one before it");
        go_on.send(()).unwrap();
        held.await.unwrap().unwrap().unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().tasks.len(), 1);
        drop(store);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
