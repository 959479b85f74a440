//! What the plan wants said to one pod. `converse` decides it, and `dialogue` holds it.

use crate::ids::Epoch;

/// What is to be said to one pod, and kept up until the plan says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// Serving: asked now and then, for the report, under the global rate cap.
    Survey,
    /// Asked at once and every pollIntervalSeconds: a decision, or a person reading STATUS, needs a recent count.
    Ask,
    /// `PUT /drain` until it is answered in this epoch, then watched (long poll) until it is idle.
    Drain {
        /// The drain's number, as it stands on the pod.
        epoch: Epoch,
        /// Passed on in the request.
        linger_seconds: u32,
    },
    /// Asked every pollIntervalSeconds, counting zeros in a row since the first one in this epoch.
    CountZeros {
        /// The drain's number, as it stands on the pod.
        epoch: Epoch,
    },
    /// `DELETE /drain?epoch=` until it says that it accepts again.
    Resume {
        /// The resumption's number. It stands on a pod that is routed to; on one that is put back it is written once the pod has opened in it.
        epoch: Epoch,
    },
}
