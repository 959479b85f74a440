//! [`Hub`]: what all who listen share. Numbered events go into a ring, each encoded once; a client that falls behind loses
//! its place in the ring, and costs no copy. Who wants hints has another ring with both, in order: a hint wakes nobody
//! else.
//!
//! Guarantee: whoever subscribes and then reads [`Hub::published`] gets each event above that number from the ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use graceful_drain::{Drain, State};
use graceful_store::{Event, TaskStore};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::frame::Frame;
use super::hint::{Hint, What};
use super::limits::{Limits, Places};
use super::origin::Origins;
use super::recent::Recent;
use crate::identity::Pod;
use crate::metrics::Metrics;

/// Hints are for people who watch: beyond what one can read they are skipped, so that they never push an event out of
/// the ring.
const HINTS_A_SECOND: u32 = 1000;
/// Each hint wakes all who listen to hints. Beyond so many of them there are fewer: 100,000 wake-ups a second are a
/// fraction of a core.
const LISTENERS_A_HINT: usize = 100;
/// How long the last events may take from the queue to the ring once the pod is idle.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// What clients are told, and may do.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Which pod this is, as clients are told.
    pub pod: Pod,
    /// How many may listen.
    pub limits: Limits,
    /// Which pages of other sites may.
    pub origins: Origins,
    /// Frames a client may fall behind before it is dropped. They are kept once, for all clients together.
    pub behind: usize,
}

impl Default for HubSettings {
    /// Room for more than a second at 1,000 tasks a second, in a few MB.
    fn default() -> Self {
        Self { pod: Pod::default(), limits: Limits::default(), origins: Origins::default(), behind: 4096 }
    }
}

/// Sends to all who listen. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Events without hints.
    events: broadcast::Sender<Arc<Frame>>,
    /// Events and hints.
    all: broadcast::Sender<Arc<Frame>>,
    published: AtomicU64,
    log: Mutex<Log>,
    pod_state: watch::Sender<PodState>,
    /// Whatever goes to `all` goes under this lock, so that it is in the order in which it was said.
    spoken: Mutex<Spoken>,
    look: Notify,
    looked: watch::Sender<bool>,
    places: Places,
    settings: HubSettings,
    drain: Drain,
    metrics: Arc<Metrics>,
}

/// What each connection is told of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodState {
    pub(crate) state: State,
    pub(crate) accepting: bool,
    /// All that was accepted has ended, and has been published: each client leaves in its own place of the spread.
    pub(crate) closing: bool,
    /// Streams there have been; what a client knows of one says nothing of the next.
    pub(crate) streams: u32,
}

/// Where events are kept.
#[derive(Debug, Default)]
struct Log {
    /// While it is open. Nobody else keeps it for long: a damaged file can be opened again only once all have let go.
    store: Option<Arc<dyn TaskStore>>,
    /// The stream's name, of the last one when none is open.
    stream: Option<Arc<str>>,
}

/// What hints go by.
#[derive(Debug)]
struct Spoken {
    budget: Budget,
    /// Tasks that no longer wait.
    gone_on: Recent,
}

/// So many a second.
#[derive(Debug)]
struct Budget {
    since: Instant,
    left: u32,
}

impl Budget {
    fn take(&mut self, now: Instant, listeners: usize) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, left: HINTS_A_SECOND };
        }
        let some = self.left > 0;
        let price = u32::try_from(listeners / LISTENERS_A_HINT).unwrap_or(u32::MAX).max(1);
        self.left = self.left.saturating_sub(price);
        some
    }
}

impl Hub {
    /// A hub that nobody listens to yet. Spawn [`Hub::attend`] and [`Hub::follow`].
    #[must_use]
    pub fn new(settings: HubSettings, drain: Drain, metrics: Arc<Metrics>) -> Self {
        let now = drain.status();
        let pod_state = PodState { state: now.state, accepting: now.accepting, closing: false, streams: 0 };
        Self(Arc::new(Shared {
            events: broadcast::Sender::new(settings.behind),
            all: broadcast::Sender::new(settings.behind),
            published: AtomicU64::new(0),
            log: Mutex::default(),
            pod_state: watch::Sender::new(pod_state),
            spoken: Mutex::new(Spoken {
                budget: Budget { since: Instant::now(), left: HINTS_A_SECOND },
                gone_on: Recent::default(),
            }),
            look: Notify::new(),
            looked: watch::Sender::new(false),
            places: Places::new(settings.limits),
            settings,
            drain,
            metrics,
        }))
    }

    /// Whether anyone listens to hints: one need not be made where nobody does.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.all.receiver_count() > 0
    }

    /// Tells who wants to know what happens to a task before its end. That it is queued is not told once it has gone on.
    pub fn hint(&self, hint: &Hint) {
        let Shared { all, spoken, .. } = &*self.0;
        let Spoken { budget, gone_on } = &mut *spoken.lock();
        match hint.what {
            What::Queued if gone_on.has(hint.task_id) => return,
            What::Started { .. } => gone_on.note(hint.task_id),
            What::Queued | What::Progress { .. } | What::Retrying { .. } => {}
        }
        let listeners = all.receiver_count();
        if listeners > 0 && budget.take(Instant::now(), listeners) {
            // An error means that nobody listens any more.
            let _ = all.send(Frame::hint(hint));
        }
    }

    /// Follows the drain and tells each client of its changes, until the process ends.
    pub async fn attend(self) {
        let Shared { drain, pod_state, .. } = &*self.0;
        let follow = async {
            loop {
                let known = *pod_state.borrow();
                drain.state_changed(known.state, known.accepting).await;
                self.tell_drain();
            }
        };
        tokio::select! {
            () = follow => {}
            () = drain.farewell_time() => {}
        }
        self.last_look().await;
        pod_state.send_modify(|pod| pod.closing = true);
    }

    fn tell_drain(&self) {
        let now = self.0.drain.status();
        self.0.pod_state.send_modify(|pod| (pod.state, pod.accepting) = (now.state, now.accepting));
    }

    /// What ended before the pod was idle is in the queue by now, though perhaps not yet in the ring.
    async fn last_look(&self) {
        let Shared { look, looked, .. } = &*self.0;
        if self.log().is_none() {
            return;
        }
        look.notify_one();
        let mut done = looked.subscribe();
        if timeout(LAST_LOOK, done.wait_for(|looked| *looked)).await.is_err() {
            debug!("the queue did not answer: clients hear of the last events when they come back");
        }
    }

    /// Someone wants to know that the queue has been read to its end.
    pub(super) async fn asked_to_look(&self) {
        self.0.look.notified().await;
    }

    /// The queue has been read to its end since [`Hub::asked_to_look`].
    pub(super) fn looked(&self) {
        self.0.looked.send_replace(true);
    }

    /// Events are read from here: of another stream those after its head, of one that is known those after the last
    /// one published.
    pub(super) fn open(&self, store: &Arc<dyn TaskStore>) {
        let mut log = self.lock();
        // An older copy of the file gives its numbers a second time: to whoever listens that is another stream.
        let head = *store.head().borrow();
        let known = log.stream.as_deref() == Some(store.stream()) && head >= self.published();
        if !known {
            self.0.published.store(head, Ordering::SeqCst);
            log.stream = Some(store.stream().into());
        }
        log.store = Some(store.clone());
        drop(log);
        self.0.pod_state.send_if_modified(|pod| {
            pod.streams += u32::from(!known);
            !known
        });
    }

    /// There is nothing to read events from.
    pub(super) fn close(&self) {
        self.lock().store = None;
    }

    // Nothing panics under the lock.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock()
    }

    /// The next event.
    pub(super) fn publish(&self, stream: &str, event: &Event) {
        let Shared { events, all, published, spoken, .. } = &*self.0;
        // First the number, then the event: see the guarantee above.
        published.store(event.number, Ordering::SeqCst);
        let mut spoken = spoken.lock();
        spoken.gone_on.note(event.task_id);
        if events.receiver_count() + all.receiver_count() > 0 {
            let frame = Frame::end(stream, event);
            let _ = events.send(frame.clone());
            let _ = all.send(frame);
        }
    }

    /// The number of the newest event that is in the ring, or is about to be.
    pub(crate) fn published(&self) -> u64 {
        self.0.published.load(Ordering::SeqCst)
    }

    /// A place in the ring, at its end: in the one with hints, or without.
    pub(crate) fn subscribe(&self, hints: bool) -> broadcast::Receiver<Arc<Frame>> {
        if hints { self.0.all.subscribe() } else { self.0.events.subscribe() }
    }

    /// Where events are kept, while the queue is open. Not to be kept for long.
    pub(crate) fn log(&self) -> Option<Arc<dyn TaskStore>> {
        self.lock().store.clone()
    }

    /// The name of the stream whose events are published, once there has been one.
    pub(crate) fn stream(&self) -> Option<Arc<str>> {
        self.lock().stream.clone()
    }

    /// The pod's state, and each change of it.
    pub(crate) fn pod_state(&self) -> watch::Receiver<PodState> {
        self.0.pod_state.subscribe()
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(crate) fn settings(&self) -> &HubSettings {
        &self.0.settings
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.0.drain
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn hints_are_skipped_beyond_so_many_a_second() {
        let start = Instant::now();
        let mut budget = Budget { since: start, left: HINTS_A_SECOND };
        let taken = (0..5000).filter(|_| budget.take(start, 1)).count();
        assert_eq!(taken, 1000);
        assert!(budget.take(start + Duration::from_secs(1), 1), "a second later there is room again");
    }

    #[test]
    fn many_listeners_get_fewer_hints() {
        let start = Instant::now();
        let mut budget = Budget { since: start, left: HINTS_A_SECOND };
        assert_eq!((0..5000).filter(|_| budget.take(start, 10_000)).count(), 10);
    }

    fn hub() -> Hub {
        let drain = Drain::new(graceful_drain::Settings::default());
        Hub::new(HubSettings::default(), drain, Arc::default())
    }

    fn hint(task: u128, what: What) -> Hint {
        Hint { task_id: Uuid::from_u128(task), kind: "sleep".to_owned(), client_id: None, what }
    }

    fn end(task: u128, number: u64) -> Event {
        Event {
            number,
            task_id: Uuid::from_u128(task),
            kind: "sleep".to_owned(),
            client_id: None,
            state: graceful_store::State::Succeeded,
            attempt: 1,
            error: None,
            at: 0,
        }
    }

    #[tokio::test]
    async fn a_task_is_not_told_to_be_queued_once_it_has_gone_on() {
        let hub = hub();
        let mut heard = hub.subscribe(true);
        let started = What::Started { attempt: 1 };
        hub.hint(&hint(1, What::Queued));
        hub.hint(&hint(1, started.clone()));
        // The submitter of this one was woken late, and of the next one, which another pod has run, too.
        hub.hint(&hint(2, started));
        hub.hint(&hint(2, What::Queued));
        hub.publish("s", &end(3, 1));
        hub.hint(&hint(3, What::Queued));
        let mut said = Vec::new();
        while let Ok(frame) = heard.try_recv() {
            let frame: serde_json::Value = serde_json::from_str(&frame.json).unwrap();
            said.push((
                frame["type"].as_str().unwrap().to_owned(),
                frame["task_id"].as_str().unwrap().to_owned(),
            ));
        }
        let expected = [("task.queued", 1), ("task.started", 1), ("task.started", 2), ("task.succeeded", 3)];
        assert_eq!(said, expected.map(|(what, task)| (what.to_owned(), Uuid::from_u128(task).to_string())));
    }

    #[tokio::test]
    async fn a_hint_wakes_only_who_wants_hints() {
        let hub = hub();
        let mut idle = hub.subscribe(false);
        assert!(!hub.is_heard(), "nobody wants hints");
        let mut keen = hub.subscribe(true);
        hub.hint(&hint(1, What::Queued));
        assert!(keen.try_recv().is_ok() && idle.is_empty());
        hub.publish("s", &end(1, 1));
        assert!(keen.try_recv().is_ok() && idle.try_recv().is_ok(), "an end is for all");
    }
}
