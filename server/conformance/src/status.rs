//! What an answer of `/drain` says, as far as the rules reason about it. The schema is held elsewhere: here, what is missing is simply not known.

use serde::Deserialize;

/// A status, read with as little demand as possible, so that one missing field fails one rule and not all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(default)]
    pub(crate) pod_uid: String,
    pub(crate) boot_id: String,
    pub(crate) state: String,
    pub(crate) accepting: bool,
    pub(crate) epoch: u64,
    pub(crate) in_flight: InFlight,
    #[serde(default)]
    pub(crate) connections: u64,
    #[serde(default)]
    pub(crate) resumable: bool,
    #[serde(default)]
    pub(crate) verifies: bool,
    /// Why it does not know yet what it has in flight.
    #[serde(default)]
    pub(crate) unknown: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct InFlight {
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) queued: u64,
    #[serde(default)]
    pub(crate) running: u64,
    #[serde(default)]
    pub(crate) requests: u64,
}

impl Status {
    /// Nothing accepted is left, and nothing can come.
    pub(crate) fn idle(&self) -> bool {
        self.unknown.is_none() && !self.accepting && self.in_flight.total == 0
    }

    /// What decides something, and what the `ETag` therefore covers.
    pub(crate) fn decides(&self) -> (String, String, bool, u64, InFlight, bool) {
        let known = self.unknown.is_none();
        (self.boot_id.clone(), self.state.clone(), self.accepting, self.epoch, self.in_flight, known)
    }

    /// For a sentence about what was seen.
    pub(crate) fn told(&self) -> String {
        let Self { state, accepting, epoch, in_flight, .. } = self;
        format!("{state}, accepting: {accepting}, epoch {epoch}, {} in flight", in_flight.total)
    }
}
