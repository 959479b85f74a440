//! A store that answers its figures until it is told to be silent or slow, or to fail, runs the attempts that it was given, and answers
//! nothing else: a database that hangs.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graceful_store::{
    Cancelled, Change, Changed, Claim, Completion, Counts, Cursor, Events, Filter, Found, Held, Hold, Lease,
    NewTask, Outcome, Page, QueuePut, QueueRecord, QueueRemoved, QueueSettings, Retried, State, StoreError,
    Submitted, TaskRecord, TaskStore, Unavailable,
};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use uuid::Uuid;

/// What becomes of a look at what is in each queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Listing {
    #[default]
    Works,
    Fails,
    Hangs,
}

#[derive(Debug)]
pub(crate) struct Silent {
    pub(crate) counts: Counts,
    pub(crate) queues: Vec<QueueRecord>,
    silent: watch::Sender<bool>,
    /// How long each answer takes.
    slow: watch::Sender<Duration>,
    listing: watch::Sender<Listing>,
    tasks: watch::Sender<VecDeque<Claim>>,
    suspects: watch::Sender<VecDeque<Claim>>,
    head: watch::Sender<u64>,
    stops: broadcast::Sender<Lease>,
}

impl Silent {
    pub(crate) fn new(counts: Counts, queues: Vec<QueueRecord>) -> Arc<Self> {
        Arc::new(Self {
            counts,
            queues,
            silent: watch::Sender::new(false),
            slow: watch::Sender::default(),
            listing: watch::Sender::default(),
            tasks: watch::Sender::default(),
            suspects: watch::Sender::default(),
            head: watch::Sender::new(0),
            stops: broadcast::Sender::new(1),
        })
    }

    pub(crate) fn hush(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    pub(crate) fn slow_down(&self, to: Duration) {
        self.slow.send_replace(to);
    }

    pub(crate) fn listing(&self, listing: Listing) {
        self.listing.send_replace(listing);
    }

    /// To be claimed.
    pub(crate) fn give(&self, task: Claim) {
        self.tasks.send_modify(|tasks| tasks.push_back(task));
    }

    /// To be claimed to run alone.
    pub(crate) fn give_suspect(&self, suspect: Claim) {
        self.suspects.send_modify(|suspects| suspects.push_back(suspect));
    }

    async fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        let slow = *self.slow.borrow();
        sleep(slow).await;
        self.silent.subscribe().wait_for(|silent| !silent).await.unwrap();
        Ok(answer)
    }
}

/// The answer that never comes.
macro_rules! never {
    ($($name:ident ( $($type:ty),* ) -> $answer:ty;)*) => {
        #[async_trait]
        impl TaskStore for Silent {
            $(async fn $name(&self, $(_: $type),*) -> Result<$answer, StoreError> {
                std::future::pending().await
            })*

            async fn counts(&self) -> Result<Counts, StoreError> {
                self.answer(self.counts).await
            }

            async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
                // Who waits is answered once the listing works again.
                self.listing.subscribe().wait_for(|listing| *listing != Listing::Hangs).await.unwrap();
                if *self.listing.borrow() == Listing::Fails {
                    let detail = "the queues cannot be read".to_owned();
                    return Err(StoreError::Unavailable { why: Unavailable::Engine, detail });
                }
                self.answer(self.queues.clone()).await
            }

            async fn claim(&self, most: usize) -> Result<Vec<Claim>, StoreError> {
                self.tasks.subscribe().wait_for(|tasks| !tasks.is_empty()).await.unwrap();
                let mut claims = Vec::new();
                self.tasks.send_modify(|tasks| claims.extend(tasks.drain(..most.min(tasks.len()))));
                Ok(claims)
            }

            async fn suspect_is_due(&self) -> Result<bool, StoreError> {
                Ok(!self.suspects.borrow().is_empty())
            }

            async fn claim_suspect(&self) -> Result<Option<Claim>, StoreError> {
                let mut claim = None;
                self.suspects.send_modify(|suspects| claim = suspects.pop_front());
                Ok(claim)
            }

            async fn complete(&self, _: Lease, _: Outcome) -> Result<Completion, StoreError> {
                Ok(Completion::Now(State::Succeeded))
            }

            async fn maintain(&self) -> Result<(), StoreError> {
                self.answer(()).await
            }

            fn renew_every(&self) -> Option<Duration> {
                None
            }

            fn queue_settings(&self, _: &str) -> Option<QueueSettings> {
                None
            }

            fn head(&self) -> watch::Receiver<u64> {
                self.head.subscribe()
            }

            fn stream(&self) -> &str {
                "silent"
            }

            fn cancellations(&self) -> broadcast::Receiver<Lease> {
                self.stops.subscribe()
            }

            fn shared(&self) -> bool {
                true
            }
        }
    };
}

never! {
    submit(NewTask, Hold) -> Submitted;
    submit_many(Vec<NewTask>, Hold) -> Vec<Result<Submitted, StoreError>>;
    renew(&[Lease]) -> Vec<Held>;
    progress(Lease, String) -> Held;
    cancel(Uuid) -> Cancelled;
    retry(Uuid, Hold) -> Retried;
    get(Uuid) -> Option<TaskRecord>;
    list(&Filter, Option<Cursor>, usize) -> Page;
    find(&Filter, Option<Cursor>, usize) -> Found;
    change(Vec<Uuid>, Change, Hold) -> Changed;
    put_queue(&str, QueueSettings) -> QueuePut;
    pause_queue(&str, bool) -> bool;
    remove_queue(&str) -> QueueRemoved;
    events(u64, usize) -> Events;
}
