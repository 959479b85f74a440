//! [`Drain`], the handle that everything shares: one lock around [`Core`], and two notifiers. `changed` fires with each
//! change, for the few who follow the counts; `phase_changed` only as the drain enters another phase, since each open connection
//! waits for that: ten thousand idle sockets must not wake whenever a request comes or goes.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::info;
use uuid::Uuid;

use crate::core::{Conflict, Core, Ticket, Work};
use crate::settings::Settings;
use crate::status::{DrainStatus, PROTOCOL, Scheduled, SharedQueue, State};

/// New work came after the latch had closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("draining: no new work is accepted")]
pub struct Refused;

/// One per process, cheap to clone: admits and counts work, and knows where the drain is.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    changed: Notify,
    phase_changed: Notify,
    settings: Settings,
    boot_id: String,
    refused: AtomicU64,
}

impl Drain {
    /// A pod that serves, with a boot id of its own.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            core: Mutex::new(Core::new()),
            changed: Notify::new(),
            phase_changed: Notify::new(),
            settings,
            boot_id: Uuid::new_v4().to_string(),
            refused: AtomicU64::new(0),
        }))
    }

    /// How this pod drains.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// New for each start of the process.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.0.boot_id
    }

    /// Requests and tasks refused since the start because the latch was closed.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn admit(&self, work: Work) -> Result<Ticket, Refused> {
        let admitted = self.change(|core, now| core.admit(work, now));
        admitted.ok_or_else(|| {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            Refused
        })
    }

    /// Sets the counts of a queue that keeps its own: how many tasks of this process wait and run, in absolute numbers.
    /// They are added to what has a guard. The queue calls it in the step that changes them, before anyone learns of the
    /// change, and while the request that brought a task still has its guard. Waiters are woken only if a count changed.
    pub fn set_tasks(&self, queued: u64, running: u64) {
        self.change_if(|core, now| core.set_tasks(queued, running, now));
    }

    /// Since when the oldest of the queue's own tasks has been here, if the queue knows. Without it the age is taken
    /// from when the counts last left zero. It wakes nobody.
    pub fn set_oldest_task(&self, since: Option<Instant>) {
        self.lock().set_oldest_task(since);
    }

    /// Sets which of the queue's own waiting tasks wait for a time that has not come, for information: so that a person can see that a
    /// drain waits for a time and not for a slow task. It wakes nobody.
    pub fn set_scheduled(&self, scheduled: Option<Scheduled>) {
        self.lock().set_scheduled(scheduled);
    }

    /// How many tasks wait in a queue that pods share, for information: they are nobody's. It wakes nobody.
    pub fn set_shared_queued(&self, queued: u64) {
        self.lock().set_shared_queued(queued);
    }

    /// Starts a drain in `epoch`. A pod that accepts goes on accepting for `linger`, or for the rest of a longer linger that already runs, and then latches;
    /// after SIGTERM no linger is lengthened. A closed latch stays closed. The same epoch again changes nothing.
    ///
    /// # Errors
    /// [`Conflict`] when the epoch is at or below any other one seen.
    pub fn start(&self, epoch: u64, linger: Duration) -> Result<DrainStatus, Conflict> {
        self.start_for(epoch, linger, false)
    }

    /// `begun_in_pod`: begun from inside the pod.
    pub(crate) fn start_for(
        &self,
        epoch: u64,
        linger: Duration,
        begun_in_pod: bool,
    ) -> Result<DrainStatus, Conflict> {
        let (new, state) = self.change(|core, now| {
            let new = core.drain(epoch, linger, now)?;
            if new && begun_in_pod {
                core.mark_begun_in_pod();
            }
            Ok((new, core.state()))
        })?;
        if new {
            info!(epoch, linger_seconds = linger.as_secs_f32(), state = state.as_str(), "drain starts");
        }
        Ok(self.status())
    }

    /// Takes the pod back into service in `epoch`.
    ///
    /// # Errors
    /// [`Conflict`] when the epoch is at or below any other one seen, or once SIGTERM has come.
    pub fn resume(&self, epoch: u64) -> Result<DrainStatus, Conflict> {
        self.change(|core, now| core.resume(epoch, now))?;
        info!(epoch, "serves again");
        Ok(self.status())
    }

    /// What SIGTERM does, final: a pod that is not draining lingers for `linger`, then latches. One that is latched
    /// stays so, and lingers no more.
    pub fn terminate(&self, linger: Duration) -> DrainStatus {
        self.change(|core, now| core.terminate(linger, now));
        self.status()
    }

    /// Whether the pod drains though nobody outside has asked for it: SIGTERM has come, or the drain was begun from inside the pod, by its preStop hook.
    /// A readiness probe should fail then. Where the pod is deleted that changes nothing; a container that its kubelet starts anew in place (a failed liveness
    /// probe, a resize) would refuse every client meanwhile. In a drain that the operator asked for it should pass, since the pod is unrouted by its label.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.look(|core, _| core.leaves())
    }

    /// The status now, as `/drain` answers it.
    #[must_use]
    pub fn status(&self) -> DrainStatus {
        self.look(|core, now| DrainStatus {
            protocol: PROTOCOL.to_owned(),
            pod_uid: self.0.settings.pod_uid.clone(),
            boot_id: self.0.boot_id.clone(),
            state: core.state(),
            accepting: core.accepting(),
            epoch: core.epoch(),
            in_flight: core.in_flight(),
            connections: core.connections(),
            oldest_seconds: core.oldest(now).as_secs(),
            resumable: !core.terminating(),
            verifies: self.0.settings.verifies(),
            unknown: core.unknown().map(str::to_owned),
            scheduled: core.scheduled(),
            shared: core.shared_queued().map(|queued| SharedQueue { queued }),
        })
    }

    /// Waits until `wanted` holds of the status. It looks before it waits, so a change that came earlier is not missed.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&DrainStatus) -> bool) -> DrainStatus {
        self.watch(&self.0.changed, || {
            let status = self.status();
            if wanted(&status) { Ok(status) } else { Err(self.look(|core, _| core.latches_at())) }
        })
        .await
    }

    /// Waits until the status differs from what its caller knows, or the process is about to exit.
    pub(crate) async fn news(&self, known: impl Fn(&DrainStatus) -> bool) -> DrainStatus {
        self.wait_until(|status| !known(status) || self.look(|core, _| core.ended())).await
    }

    pub(crate) fn end(&self) {
        self.change(|core, _| core.end());
    }

    /// Waits until nothing accepted is left and nothing new can come.
    pub async fn idle(&self) {
        self.watch(&self.0.phase_changed, || {
            self.look(|core, _| if core.idle() { Ok(()) } else { Err(core.latches_at()) })
        })
        .await;
    }

    /// Waits until SIGTERM has come and the pod is idle: the time to say farewell.
    pub async fn farewell_time(&self) {
        self.watch(&self.0.phase_changed, || {
            self.look(
                |core, _| if core.terminating() && core.idle() { Ok(()) } else { Err(core.latches_at()) },
            )
        })
        .await;
    }

    /// Waits until the state, or whether new work is accepted, differs from what the caller knows.
    pub async fn state_changed(&self, state: State, accepting: bool) {
        let known = (state, accepting);
        self.watch(&self.0.phase_changed, || {
            self.look(
                |core, _| {
                    if (core.state(), core.accepting()) == known { Err(core.latches_at()) } else { Ok(()) }
                },
            )
        })
        .await;
    }

    /// Waits until no upgraded connection is open.
    pub async fn disconnected(&self) {
        let look = || self.look(|core, _| if core.connections() == 0 { Ok(()) } else { Err(None) });
        self.watch(&self.0.changed, look).await;
    }

    /// Waits until the latch is closed and nothing is counted here.
    pub(crate) async fn quiesced(&self) -> u64 {
        // Not `phase_changed`: with work behind, the last request's end is no new phase.
        self.watch(&self.0.changed, || self.look(|core, _| core.quiesced().ok_or_else(|| core.latches_at())))
            .await
    }

    /// Waits until the latch is closed or will close within `tail`: the time at which a server closes the connections that are idle, so that their clients
    /// open new ones, to other pods, instead of meeting a refusal here.
    pub async fn latching(&self, tail: Duration) {
        self.watch(&self.0.phase_changed, || {
            self.look(|core, now| match core.latches_at() {
                Some(at) if at <= now + tail => Ok(()),
                Some(at) => Err(Some(at - tail)),
                None if core.accepting() => Err(None),
                None => Ok(()),
            })
        })
        .await;
    }

    /// Waits until `look` is Ok. It looks again when `notify` fires, and at the time that `look` returned, if any.
    async fn watch<T>(&self, notify: &Notify, mut look: impl FnMut() -> Result<T, Option<Instant>>) -> T {
        loop {
            let mut notified = pin!(notify.notified());
            // Listening starts before looking: a change in between still wakes us.
            notified.as_mut().enable();
            match look() {
                Ok(found) => return found,
                Err(None) => notified.await,
                Err(Some(at)) => tokio::select! {
                    () = notified => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// From the linger on: each answer should be the last of its connection.
    #[must_use]
    pub fn winding_down(&self) -> bool {
        self.look(|core, _| !core.accepting() || core.latches_at().is_some())
    }

    pub(crate) fn shift(&self, from: Work, to: Work) {
        self.change(|core, _| core.shift(from, to));
    }

    pub(crate) fn count(&self, work: Work) -> Ticket {
        self.change(|core, now| core.count(work, now))
    }

    pub(crate) fn release(&self, ticket: Ticket, work: Work) {
        self.change(|core, _| core.release(ticket, work));
    }

    pub(crate) fn disconnect(&self) {
        self.change(|core, _| core.disconnect());
    }

    pub(crate) fn look<T>(&self, read: impl FnOnce(&Core, Instant) -> T) -> T {
        let now = Instant::now();
        let mut core = self.lock();
        let latched = core.advance(now);
        let seen = read(&core, now);
        drop(core);
        self.notify(latched, latched);
        seen
    }

    /// As `change`, but nobody is woken unless the write says that something changed.
    pub(crate) fn change_if(&self, write: impl FnOnce(&mut Core, Instant) -> bool) {
        let now = Instant::now();
        let mut core = self.lock();
        let before = core.phase();
        let changed = write(&mut core, now);
        let new_phase = core.phase() != before;
        drop(core);
        self.notify(changed || new_phase, new_phase);
    }

    pub(crate) fn change<T>(&self, write: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let now = Instant::now();
        let mut core = self.lock();
        let before = core.phase();
        let outcome = write(&mut core, now);
        let new_phase = core.phase() != before;
        drop(core);
        self.notify(true, new_phase);
        outcome
    }

    fn notify(&self, changed: bool, new_phase: bool) {
        if changed {
            self.0.changed.notify_waiters();
        }
        if new_phase {
            self.0.phase_changed.notify_waiters();
        }
    }

    // Nothing panics under the lock; if it ever did, counts that are a little off beat a pod that can't answer.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
