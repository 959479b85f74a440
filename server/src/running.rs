//! [`Running`]: what a handler knows of the task it runs, and how it says how far it is.

use std::sync::Arc;

use graceful_store::{Backoff, Claim, Lease};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::backoff;
use crate::trace::Traceparent;

/// Progress goes to disk and to all who watch; what is longer belongs elsewhere, with a link to it here.
const LONGEST_PROGRESS: usize = 16 * 1024;

/// One attempt at one task, from inside. Clones are the same attempt: move one to a blocking thread. The attempt is in
/// flight, with its place and its lease, until the last of them is dropped.
#[derive(Debug, Clone)]
pub struct Running(Arc<Attempt>);

#[derive(Debug)]
struct Attempt {
    lease: Lease,
    max_attempts: u16,
    backoff: Backoff,
    client_id: Option<String>,
    parent: Option<Traceparent>,
    /// Its receivers learn by its drop that nothing of the attempt runs any more.
    progress: watch::Sender<Option<String>>,
    cancel: CancellationToken,
}

impl Running {
    pub(crate) fn new(
        claim: &Claim,
        parent: Option<Traceparent>,
        progress: watch::Sender<Option<String>>,
        cancel: CancellationToken,
    ) -> Self {
        let Claim { lease, max_attempts, backoff, client_id, .. } = claim;
        Self(Arc::new(Attempt {
            lease: *lease,
            max_attempts: *max_attempts,
            backoff: backoff.unwrap_or(backoff::USUAL),
            client_id: client_id.clone(),
            parent,
            progress,
            cancel,
        }))
    }

    /// The task's id, the same in each attempt: an idempotency key for what the handler does elsewhere.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0.lease.id
    }

    /// 1 for the first attempt. Above 1, an earlier one may have done part of the work.
    #[must_use]
    pub fn attempt(&self) -> u16 {
        self.0.lease.attempt
    }

    /// How often the task may be started.
    #[must_use]
    pub fn max_attempts(&self) -> u16 {
        self.0.max_attempts
    }

    /// How long the task waits after a failure, as its queue says.
    pub(crate) fn backoff(&self) -> Backoff {
        self.0.backoff
    }

    /// Whose task it is.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_deref()
    }

    /// The trace that the task belongs to, to pass on to what the handler calls (as the header `traceparent`).
    #[must_use]
    pub fn trace(&self) -> Option<Traceparent> {
        self.0.parent
    }

    /// Says how far it is: anything that is JSON. Returns at once and may be called as often as needed, from any
    /// thread: the latest is written a few times a second, and those before it are dropped.
    pub fn progress(&self, progress: impl Serialize) {
        match serde_json::to_string(&progress) {
            Ok(text) if text.len() > LONGEST_PROGRESS => {
                let bytes = text.len();
                warn!(bytes, most = LONGEST_PROGRESS, "progress is too long; it is dropped");
            }
            Ok(text) => {
                self.0.progress.send_replace(Some(text));
            }
            Err(error) => warn!(%error, "progress is not JSON; it is dropped"),
        }
    }

    /// Waits until the attempt should end: a client cancelled the task, its time is over, or another pod has it now.
    /// Clean up and return; what is returned after a client's cancel may still be a success, if the work was done.
    pub async fn cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    /// Whether the attempt should end. Ask it now and then where nothing can be awaited.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }
}
