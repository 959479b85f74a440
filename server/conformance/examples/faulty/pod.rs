//! The state, shared: a lock around it, and notices for those who wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::core::{Conflict, Core, Door};
use crate::faults::faulty;

/// Of a SIGTERM that nobody announced.
const LINGER: Duration = Duration::from_millis(1500);
/// Idle connections are closed so long before the latch.
const TAIL: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct Pod(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    core: Mutex<Core>,
    changed: Notify,
    /// Idle connections close.
    pub(crate) winding: Notify,
    /// Open WebSockets are told.
    pub(crate) farewell: Notify,
    pub(crate) boot: String,
    pub(crate) uid: String,
    questions: AtomicU64,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let boot = Uuid::new_v4().to_string();
        let boot = if faulty("boot-id-is-fixed") { "the-one".to_owned() } else { boot };
        Self(Arc::new(Shared {
            core: Mutex::new(Core::new()),
            changed: Notify::new(),
            winding: Notify::new(),
            farewell: Notify::new(),
            boot,
            uid: std::env::var("GRACEFUL_POD_UID").unwrap_or_default(),
            questions: AtomicU64::new(0),
        }))
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        let mut core = self.0.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.advance();
        core
    }

    pub(crate) fn changed(&self) {
        self.0.changed.notify_waiters();
    }

    /// As several processes behind one port would have them. (An answer asks more than once.)
    pub(crate) fn boot(&self) -> String {
        let n = self.0.questions.fetch_add(1, Ordering::Relaxed);
        if faulty("boot-ids-alternate") && n / 3 % 2 == 1 {
            "the-other".to_owned()
        } else {
            self.0.boot.clone()
        }
    }

    pub(crate) async fn until(&self, wanted: impl Fn(&Core) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let door = {
                let core = self.core();
                if wanted(&core) {
                    return;
                }
                core.door
            };
            match door {
                Door::Lingering(until) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
                Door::Open | Door::Shut => changed.await,
            }
        }
    }

    pub(crate) fn drain(&self, epoch: u64, linger: Duration) -> Result<(), Conflict> {
        self.core().drain(epoch, linger)?;
        self.changed();
        self.wind_down();
        if faulty("linger-timer-lives-on") && !linger.is_zero() {
            let pod = self.clone();
            tokio::spawn(async move {
                sleep(linger).await;
                pod.core().door = Door::Shut;
            });
        }
        if linger.is_zero() {
            self.misbehave_once_shut();
        }
        Ok(())
    }

    /// What comes a while after the latch.
    fn misbehave_once_shut(&self) {
        let pod = self.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(600)).await;
            if faulty("latch-reopens") {
                pod.core().door = Door::Open;
            }
            if faulty("a-timer-works-on") && pod.core().idle() {
                pod.core().running += 1;
                sleep(Duration::from_millis(300)).await;
                pod.core().running -= 1;
            }
        });
    }

    /// Idle connections close shortly before the latch does.
    fn wind_down(&self) {
        let Door::Lingering(until) = self.core().door else {
            self.0.winding.notify_waiters();
            return;
        };
        let pod = self.clone();
        tokio::spawn(async move {
            sleep_until(until - TAIL).await;
            if !matches!(pod.core().door, Door::Open) {
                pod.0.winding.notify_waiters();
            }
        });
    }

    pub(crate) fn resume(&self, epoch: u64) -> Result<(), Conflict> {
        self.core().resume(epoch)?;
        self.changed();
        Ok(())
    }

    pub(crate) fn terminate(&self) {
        self.core().terminate(LINGER);
        self.changed();
        self.wind_down();
    }

    pub(crate) fn say_farewell(&self) {
        self.0.farewell.notify_waiters();
    }

    pub(crate) fn age(&self) -> Duration {
        self.core().since.map_or(Duration::ZERO, |since| Instant::now() - since)
    }
}
