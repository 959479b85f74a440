//! A store that answers its figures until it is told to be silent, and nothing else: a database that hangs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graceful_store::{
    Cancelled, Change, Changed, Claim, Completion, Counts, Cursor, Events, Filter, Found, Held, Hold, Lease,
    NewTask, Outcome, Page, QueuePut, QueueRecord, QueueRemoved, QueueSettings, Retried, StoreError,
    Submitted, TaskRecord, TaskStore,
};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct Silent {
    pub(crate) counts: Counts,
    pub(crate) queues: Vec<QueueRecord>,
    silent: watch::Sender<bool>,
    head: watch::Sender<u64>,
    stops: broadcast::Sender<Lease>,
}

impl Silent {
    pub(crate) fn new(counts: Counts, queues: Vec<QueueRecord>) -> Arc<Self> {
        let (silent, head, stops) =
            (watch::Sender::new(false), watch::Sender::new(0), broadcast::Sender::new(1));
        Arc::new(Self { counts, queues, silent, head, stops })
    }

    pub(crate) fn hush(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    async fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
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
                self.answer(self.queues.clone()).await
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
    claim(usize) -> Vec<Claim>;
    suspect_is_due() -> bool;
    claim_suspect() -> Option<Claim>;
    renew(&[Lease]) -> Vec<Held>;
    progress(Lease, String) -> Held;
    complete(Lease, Outcome) -> Completion;
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
