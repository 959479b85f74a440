//! How the probes, the watches and the clock ask for a new plan.

use tokio::sync::mpsc;

use super::AppRef;

/// Asks for a new plan of one app. Asking twice is as good as once.
#[derive(Clone, Debug)]
pub(crate) struct Trigger(mpsc::UnboundedSender<AppRef>);

impl Trigger {
    /// The trigger, and the end that the loop listens to. Unbounded, since the loop does nothing but fold doubles: it holds one entry an app.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<AppRef>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Plan this app again.
    pub(crate) fn pull(&self, app: &AppRef) {
        // Nobody listens any more: the operator is stopping.
        let _stopping = self.0.send(app.clone());
    }
}
