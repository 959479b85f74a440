//! What callers ask of the writer, and how they are answered once it is on disk.

use std::sync::mpsc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::fault::Failure;
use crate::error::StoreError;
use crate::queue::{QueuePut, QueueRecord, QueueRemoved, QueueSettings};
use crate::task::{
    Cancelled, Change, Changed, Claim, Completion, Held, Hold, Lease, Millis, NewTask, Outcome, Retried,
    Submitted,
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One thing to do, and who waits for it.
pub(super) enum Command {
    Submit(Box<NewTask>, Hold, Reply<Submitted>),
    SubmitMany(Vec<NewTask>, Hold, Reply<Vec<Result<Submitted, StoreError>>>),
    Claim(usize, Reply<Delivery>),
    /// One of those that run alone, if one is due.
    Suspect(Reply<Delivery>),
    Progress(Lease, String, Reply<Held>),
    Complete(Lease, Outcome, Reply<Completion>),
    Cancel(Uuid, Reply<Cancelled>),
    Retry(Uuid, Hold, Reply<Retried>),
    Change(Vec<Uuid>, Change, Hold, Reply<Changed>),
    PutQueue(String, QueueSettings, Reply<QueuePut>),
    PauseQueue(String, bool, Reply<bool>),
    RemoveQueue(String, Reply<QueueRemoved>),
    /// All queues, as they are.
    Queues(Reply<(Millis, Vec<QueueRecord>)>),
    /// Claimed for someone who is no longer there.
    PutBack(Vec<Lease>),
    /// Forgets some of what is past its time; whether there may be more.
    Forget(Reply<bool>),
    /// A reader met damage.
    Damaged,
    Close,
}

impl Command {
    /// Answers without having done anything.
    pub(super) fn refuse(self, failure: &Failure) {
        match self {
            Self::Submit(_, hold, reply) => answer(reply, Err(failure.error()), hold)(None),
            Self::SubmitMany(_, hold, reply) => answer(reply, Err(failure.error()), hold)(None),
            Self::Change(_, _, hold, reply) => answer(reply, Err(failure.error()), hold)(None),
            Self::Claim(_, reply) | Self::Suspect(reply) => {
                answer(reply, Err(failure.error()), Hold::default())(None);
            }
            Self::Progress(_, _, reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::Complete(_, _, reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::Cancel(_, reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::Retry(_, hold, reply) => answer(reply, Err(failure.error()), hold)(None),
            Self::PutQueue(_, _, reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::PauseQueue(_, _, reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::RemoveQueue(_, reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::Queues(reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::Forget(reply) => answer(reply, Err(failure.error()), Hold::default())(None),
            Self::PutBack(_) | Self::Damaged | Self::Close => {}
        }
    }
}

/// An answer that is ready, to be given once its transaction has ended; told whether that failed.
pub(super) type Answer = Box<dyn FnOnce(Option<&Failure>) + Send>;

pub(super) fn answer<T: Send + 'static>(
    reply: Reply<T>,
    result: Result<T, StoreError>,
    hold: Hold,
) -> Answer {
    Box::new(move |failure| {
        drop(hold);
        // A caller that has gone needs no answer; claims see to themselves.
        let _ = reply.send(match failure {
            None => result,
            Some(failure) => Err(failure.error()),
        });
    })
}

/// Claimed tasks on their way to the claimer: if they don't arrive, they go back.
pub(super) struct Delivery {
    claims: Vec<Claim>,
    back: mpsc::Sender<Command>,
}

impl Delivery {
    pub(super) fn new(claims: Vec<Claim>, back: mpsc::Sender<Command>) -> Self {
        Self { claims, back }
    }

    /// They have arrived.
    pub(super) fn take(mut self) -> Vec<Claim> {
        std::mem::take(&mut self.claims)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            let leases = self.claims.iter().map(|claim| claim.lease).collect();
            // A store that is closed has no use for them; they are found as orphans.
            let _ = self.back.send(Command::PutBack(leases));
        }
    }
}
