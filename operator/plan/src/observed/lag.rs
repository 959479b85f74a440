//! How the controllers of a Deployment keep up, as it is seen. `crate::lag` measures it.

use jiff::Timestamp;

use super::Backoff;

/// What is late at one Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Why none of its pods is ended: its controller has not taken up the last change for too long. Nor is one taken out of service, but for spares, pods of a
    /// dying node, and all pods at a deletion.
    pub not_followed: Option<Backoff>,
    /// Whether it is time to write to the Deployment once more, so that its controllers look at it again.
    pub nudge: bool,
    /// Until when another Deployment's ReplicaSet may still use the place of a pod that was ended here.
    pub capacity_until: Option<Timestamp>,
}
