//! The tail: one task in each process that reads the queue's numbered events and publishes them, in order, each once.
//! With a shared queue each pod has one, so that each client hears of all, whichever pod it is on.

use std::sync::Arc;
use std::time::Duration;

use graceful_store::{Events, StoreError, TaskStore};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::hub::Hub;
use crate::queue::Queue;

/// Events that are read at once.
const PAGE: usize = 512;
/// How long to wait before a queue that is away is asked again.
const AWAY: Duration = Duration::from_millis(250);

impl Hub {
    /// Follows the queue from its head on, through its closings and openings, until the process ends. What is older is
    /// for those who ask for it by number.
    pub async fn follow(self, queue: Arc<Queue>) {
        loop {
            let store = queue.opened().await;
            self.open(&store);
            tokio::select! {
                () = self.publish_all(&*store) => {}
                () = queue.replaced(&store) => {}
            }
            self.close();
        }
    }

    async fn publish_all(&self, store: &dyn TaskStore) {
        let mut head = store.head();
        let mut away = false;
        let mut asked = false;
        loop {
            // Seen before it is read: what comes in between wakes us again.
            head.mark_unchanged();
            match self.read_on(store).await {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        info!("events can be read again");
                    }
                    if std::mem::take(&mut asked) {
                        self.looked();
                    }
                    asked = self.wait(&mut head).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        warn!(%error, "cannot read events; retrying");
                    }
                    sleep(AWAY).await;
                }
            }
        }
    }

    /// Publishes all there is.
    async fn read_on(&self, store: &dyn TaskStore) -> Result<(), StoreError> {
        loop {
            // A gap (events that expired while the queue was away) is seen by each client, which asks for what is
            // missing and is told that it is gone.
            let Events { events, oldest: _ } = store.events(self.published(), PAGE).await?;
            for event in &events {
                self.publish(store.stream(), event);
            }
            if events.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Until there may be more. True when someone waits for an answer.
    async fn wait(&self, head: &mut watch::Receiver<u64>) -> bool {
        tokio::select! {
            () = self.asked_to_look() => true,
            changed = head.changed() => {
                if changed.is_err() {
                    // The queue is closed: nothing comes any more.
                    self.asked_to_look().await;
                }
                changed.is_err()
            }
        }
    }
}
