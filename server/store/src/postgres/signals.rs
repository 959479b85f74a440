//! What happens in the queue, told to those who wait for it: here at once, in other processes by [`hints`](super::hints).

use tokio::sync::{broadcast, mpsc, watch};

use super::hints::Hint;
use crate::task::Lease;

/// Cancellations that a slow listener may be behind.
const CANCELLATIONS: usize = 1024;

#[derive(Debug)]
pub(super) struct Signals {
    head: watch::Sender<u64>,
    claimable: watch::Sender<()>,
    queues: watch::Sender<()>,
    cancellations: broadcast::Sender<Lease>,
    hints: mpsc::UnboundedSender<Hint>,
}

impl Signals {
    /// `hints` are the ones to send to other processes.
    pub(super) fn new(hints: mpsc::UnboundedSender<Hint>) -> Self {
        Self {
            head: watch::Sender::new(0),
            claimable: watch::Sender::new(()),
            queues: watch::Sender::new(()),
            cancellations: broadcast::Sender::new(CANCELLATIONS),
            hints,
        }
    }

    /// The highest number of any event that we know of.
    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Changes when there may be something to claim.
    pub(super) fn claimable(&self) -> watch::Receiver<()> {
        self.claimable.subscribe()
    }

    /// Attempts that someone wants to stop.
    pub(super) fn cancellations(&self) -> broadcast::Receiver<Lease> {
        self.cancellations.subscribe()
    }

    /// We have queued a task, or more than one.
    pub(super) fn something_waits(&self) {
        self.look_for_work();
        self.hint(Hint::Waiting);
    }

    /// We have brought the log to this number.
    pub(super) fn log_grew(&self, head: u64) {
        if self.saw_head(head) {
            self.hint(Hint::Head(head));
        }
    }

    /// A cancellation of a running task was written. Nobody may be listening: its runner is then told by its next renewal (`Held::CancelRequested`).
    pub(super) fn cancel_requested(&self, attempt: Lease) {
        self.cancellations.send(attempt).ok();
        self.hint(Hint::Cancel(attempt));
    }

    /// We have changed a queue.
    pub(super) fn queues_changed(&self) {
        self.look_for_work();
        self.hint(Hint::Queues);
    }

    /// Changes when another process has changed a queue.
    pub(super) fn queues(&self) -> watch::Receiver<()> {
        self.queues.subscribe()
    }

    /// Wakes this process's claims: there may be something.
    pub(super) fn look_for_work(&self) {
        self.claimable.send_replace(());
    }

    /// The log has this number. Whether that is news.
    pub(super) fn saw_head(&self, head: u64) -> bool {
        self.head.send_if_modified(|known| {
            let news = head > *known;
            *known = head.max(*known);
            news
        })
    }

    /// Another process's hint.
    pub(super) fn heard(&self, hint: Hint) {
        match hint {
            Hint::Waiting => self.look_for_work(),
            Hint::Queues => {
                self.queues.send_replace(());
            }
            Hint::Head(number) => {
                self.saw_head(number);
            }
            Hint::Cancel(attempt) => {
                self.cancellations.send(attempt).ok();
            }
        }
    }

    fn hint(&self, hint: Hint) {
        // Nobody sends them once the store is dropped; hints are no promise.
        self.hints.send(hint).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_that_is_heard_late_takes_nothing_back() {
        let signals = Signals::new(mpsc::unbounded_channel().0);
        signals.heard(Hint::Head(9));
        signals.heard(Hint::Head(3));
        assert_eq!(*signals.head().borrow(), 9);
    }
}
