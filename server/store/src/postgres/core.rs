//! What all parts of an open queue share, and how each of them asks the database.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::census::Census;
use super::connections::Connections;
use super::ending::Ending;
use super::failure::{closed, failed, is_connection, late};
use super::hints::Hint;
use super::pulse::Pulse;
use super::running::Running;
use super::submit::Submission;
use super::{ending, hints, pulse, submit};
use crate::Settings;
use crate::error::StoreError;
use crate::room::Room;

/// An answer that took longer is no answer: a client's own patience ends about there, and so does a probe's.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A task whose owner was silent for so long is anybody's.
pub(super) const LEASE: Duration = Duration::from_secs(6);

/// Three chances in each lease.
pub(super) const RENEW: Duration = Duration::from_secs(2);

/// For what keeps tasks going: submissions (2), completions, claims, renewals, the pulse, hints.
const WORK_CONNECTIONS: usize = 8;

/// For those who look, cancel, retry or report progress: they may be many and slow, and must not be in the others' way.
const DESK_CONNECTIONS: usize = 5;

/// Submissions that wait for their batch; more wait for a place among these.
const WAITING_SUBMISSIONS: usize = 4096;

/// Cancellations that a slow listener may be behind.
const CANCELLATIONS: usize = 1024;

#[derive(Debug)]
pub(super) struct Core {
    pub(super) owner: String,
    pub(super) capacity: u64,
    pub(super) kinds: Vec<String>,
    pub(super) keep_events: Duration,
    /// For what keeps tasks going.
    pub(super) work: Connections,
    /// For those who look and ask.
    pub(super) desk: Connections,
    pub(super) stream: String,
    pub(super) running: Arc<Running>,
    pub(super) head: watch::Sender<u64>,
    /// Changes when there may be something to claim.
    pub(super) wake: watch::Sender<()>,
    pub(super) cancellations: broadcast::Sender<Uuid>,
    pub(super) room: Room,
    pub(super) submissions: mpsc::Sender<Submission>,
    pub(super) endings: mpsc::UnboundedSender<Ending>,
    pub(super) hints: mpsc::UnboundedSender<Hint>,
    pub(super) census: Arc<Census>,
    pub(super) pulse: Pulse,
    pub(super) runtime: Handle,
}

impl Core {
    /// The parts, and the loops that run until the set is dropped.
    pub(super) fn start(
        options: PgConnectOptions,
        settings: Settings,
        stream: String,
    ) -> (Arc<Self>, JoinSet<()>) {
        let Settings { owner, capacity, kinds, keep_events, owned } = settings;
        let (submissions, submitted) = mpsc::channel(WAITING_SUBMISSIONS);
        let (endings, ended) = mpsc::unbounded_channel();
        let (hints, given) = mpsc::unbounded_channel();
        let core = Arc::new(Self {
            owner,
            capacity,
            kinds,
            keep_events,
            work: Connections::new(options.clone(), WORK_CONNECTIONS),
            desk: Connections::new(options.clone(), DESK_CONNECTIONS),
            stream,
            running: Running::new(owned),
            head: watch::Sender::new(0),
            wake: watch::Sender::new(()),
            cancellations: broadcast::Sender::new(CANCELLATIONS),
            room: Room::default(),
            submissions,
            endings,
            hints,
            census: Arc::default(),
            pulse: Pulse::default(),
            runtime: Handle::current(),
        });
        let me = Uuid::new_v4().simple().to_string();
        let mut loops = JoinSet::new();
        loops.spawn(submit::run(core.clone(), submitted));
        loops.spawn(ending::run(core.clone(), ended));
        loops.spawn(hints::tell(core.clone(), me.clone(), given));
        loops.spawn(hints::listen(core.clone(), me, options));
        loops.spawn(pulse::run(core.clone()));
        (core, loops)
    }

    /// Runs statements with an end to the waiting for them.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, StoreError> {
        let error = match timeout(patience, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => failed(&error),
            Err(_) => late(patience),
        };
        if is_connection(&error) {
            self.work.forget_idle();
            self.desk.forget_idle();
        }
        Err(error)
    }

    /// There may be something to claim, for us and for others.
    pub(super) fn something_waits(&self) {
        self.wake.send_replace(());
        self.hint(Hint::Waiting);
    }

    /// The log has come to this number.
    pub(super) fn log_grew(&self, head: u64) {
        if self.saw_head(head) {
            self.hint(Hint::Head(head));
        }
    }

    /// Whether it is news.
    pub(super) fn saw_head(&self, head: u64) -> bool {
        self.head.send_if_modified(|known| {
            let news = head > *known;
            *known = head.max(*known);
            news
        })
    }

    pub(super) fn hint(&self, hint: Hint) {
        // Gone only when the store is; hints are no promise.
        self.hints.send(hint).ok();
    }

    /// Waits for a background loop's answer.
    pub(super) async fn answer<T>(
        answer: tokio::sync::oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(late(CALL_TIMEOUT)),
        }
    }
}
