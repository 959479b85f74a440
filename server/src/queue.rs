//! The queue, in process: the module behind which the durable one comes next. The rest of the server sees
//! [`Queue::submit`], [`Queue::next`], [`Queue::message`], [`Queue::length`] and the [`Claimed`] task.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graceful_drain::{RequestGuard, TaskGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// Finished tasks are forgotten after this time even when there is room: long enough for any client that still asks.
const REMEMBER: Duration = Duration::from_secs(3600);

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full;

/// Tasks that wait, run, or have ended a short while ago.
#[derive(Debug)]
pub struct Queue {
    tasks: Mutex<Tasks>,
    ready: Notify,
    unfinished: AtomicUsize,
    capacity: usize,
    keep_finished: usize,
}

#[derive(Debug, Default)]
struct Tasks {
    waiting: VecDeque<Waiting>,
    states: HashMap<Uuid, Progress>,
    finished: VecDeque<(Instant, Uuid)>,
}

#[derive(Debug)]
struct Waiting {
    id: Uuid,
    guard: TaskGuard,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Unfinished,
    Processed,
}

impl Queue {
    /// An empty queue with room for `capacity` waiting tasks, that remembers `keep_finished` ended ones.
    #[must_use]
    pub fn new(capacity: usize, keep_finished: usize) -> Self {
        Self {
            tasks: Mutex::default(),
            ready: Notify::new(),
            unfinished: AtomicUsize::new(0),
            capacity,
            keep_finished,
        }
    }

    /// Queues a task. Once this returns an id the task is accepted, and counted in flight until it has ended.
    ///
    /// # Errors
    /// [`Full`] when as many wait as may.
    pub fn submit(&self, request: &RequestGuard) -> Result<Uuid, Full> {
        let mut tasks = self.lock();
        if tasks.waiting.len() >= self.capacity {
            return Err(Full);
        }
        let id = Uuid::new_v4();
        tasks.states.insert(id, Progress::Unfinished);
        tasks.waiting.push_back(Waiting { id, guard: request.queue_task(), since: Instant::now() });
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        drop(tasks);
        self.ready.notify_one();
        Ok(id)
    }

    /// The task that has waited longest, now running. For one caller at a time.
    pub async fn next(self: &Arc<Self>) -> Claimed {
        loop {
            let first = self.lock().waiting.pop_front();
            if let Some(Waiting { id, mut guard, since }) = first {
                guard.start();
                return Claimed { id, waited: since.elapsed(), queue: self.clone(), _guard: guard };
            }
            self.ready.notified().await;
        }
    }

    /// What the API says of a task; None for one that is not held here (any more).
    #[must_use]
    pub fn message(&self, id: Uuid) -> Option<String> {
        self.lock().states.get(&id).map(|progress| match progress {
            Progress::Unfinished => format!("Task {id} queued"),
            Progress::Processed => processed(id),
        })
    }

    /// Tasks that wait or run.
    #[must_use]
    pub fn length(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    fn finish(&self, id: Uuid) {
        let now = Instant::now();
        let mut tasks = self.lock();
        tasks.states.insert(id, Progress::Processed);
        tasks.finished.push_back((now, id));
        while let Some(&(at, oldest)) = tasks.finished.front()
            && (tasks.finished.len() > self.keep_finished || now - at > REMEMBER)
        {
            tasks.finished.pop_front();
            tasks.states.remove(&oldest);
        }
    }

    // A panic under this lock leaves at worst one task half written; a server that answers nobody would be worse.
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What clients are told when a task has ended.
#[must_use]
pub fn processed(id: Uuid) -> String {
    format!("Task {id} processed")
}

/// A running task; in flight until dropped.
#[derive(Debug)]
pub struct Claimed {
    /// Its name.
    pub id: Uuid,
    /// How long it was queued.
    pub waited: Duration,
    queue: Arc<Queue>,
    _guard: TaskGuard,
}

impl Claimed {
    /// The work is done: from now on the API says so. The task stays in flight until dropped.
    pub fn finish(&self) {
        self.queue.finish(self.id);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.queue.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use graceful_drain::{Drain, InFlight, Settings};

    use super::*;

    fn request() -> (Drain, RequestGuard) {
        let drain = Drain::new(Settings::default());
        let request = drain.try_request().expect("open");
        (drain, request)
    }

    #[tokio::test]
    async fn an_accepted_task_is_in_flight_from_queued_until_it_is_dropped() {
        let (drain, request) = request();
        let queue = Arc::new(Queue::new(8, 8));
        let id = queue.submit(&request).unwrap();
        drop(request);
        assert_eq!(drain.status().in_flight, InFlight { queued: 1, running: 0, requests: 0 });
        assert_eq!(queue.message(id).unwrap(), format!("Task {id} queued"));
        let claimed = queue.next().await;
        assert_eq!(drain.status().in_flight, InFlight { queued: 0, running: 1, requests: 0 });
        claimed.finish();
        assert_eq!(queue.message(id).unwrap(), format!("Task {id} processed"));
        assert_eq!(
            (queue.length(), drain.status().in_flight.total()),
            (1, 1),
            "until its report went through"
        );
        drop(claimed);
        assert_eq!((queue.length(), drain.status().in_flight.total()), (0, 0));
    }

    #[tokio::test]
    async fn a_full_queue_takes_no_more_and_counts_none() {
        let (drain, request) = request();
        let queue = Queue::new(2, 8);
        queue.submit(&request).unwrap();
        queue.submit(&request).unwrap();
        assert_eq!(queue.submit(&request), Err(Full));
        assert_eq!((queue.length(), drain.status().in_flight.queued), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn finished_tasks_are_forgotten_beyond_the_cap_and_after_an_hour() {
        let (_drain, request) = request();
        let queue = Arc::new(Queue::new(8, 2));
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(queue.submit(&request).unwrap());
            queue.next().await.finish();
        }
        assert_eq!(queue.message(ids[0]), None, "over the cap");
        assert!(queue.message(ids[1]).is_some() && queue.message(ids[2]).is_some());
        tokio::time::advance(REMEMBER + Duration::from_secs(1)).await;
        queue.submit(&request).unwrap();
        queue.next().await.finish();
        assert_eq!((queue.message(ids[1]), queue.message(ids[2])), (None, None), "too old");
    }
}
