//! How the probes, the watches and the clock ask for a new plan.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::app_ref::AppRef;

/// Asks for a new plan of one app. Asking twice is as good as once.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    sender: mpsc::UnboundedSender<AppRef>,
    waiting: Waiting,
}

/// The end that the loop listens to.
#[derive(Debug)]
pub(crate) struct Triggered {
    receiver: mpsc::UnboundedReceiver<AppRef>,
    waiting: Waiting,
}

/// Who waits in the channel: one entry an app, so that it is bounded by them.
type Waiting = Arc<Mutex<HashSet<AppRef>>>;

impl Trigger {
    pub(crate) fn new() -> (Self, Triggered) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        (Self { sender, waiting: Arc::clone(&waiting) }, Triggered { receiver, waiting })
    }

    /// Plan this app again.
    pub(crate) fn pull(&self, app: &AppRef) {
        if self.waiting.lock().insert(app.clone()) {
            // Nobody listens any more: the operator is stopping.
            let _stopping = self.sender.send(app.clone());
        }
    }
}

impl Triggered {
    /// The next app that a plan is wanted of. None once nobody can ask.
    pub(crate) async fn recv(&mut self) -> Option<AppRef> {
        let app = self.receiver.recv().await?;
        self.waiting.lock().remove(&app);
        Some(app)
    }
}
