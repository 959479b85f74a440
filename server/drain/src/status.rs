//! What a pod answers on `/drain`: the words of the protocol, version 1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Epochs stay below 2^53, the largest range that every JSON reader keeps exact.
pub const EPOCH_LIMIT: u64 = 1 << 53;

/// The one version of the protocol there is.
pub const PROTOCOL: &str = "v1";

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// New work is accepted, and no end is in sight.
    Serving,
    /// New work is still accepted while endpoints propagate; answers carry `Connection: close`.
    Lingering,
    /// New work is refused, and what was accepted goes on.
    Draining,
    /// New work is refused, and nothing accepted is left.
    Idle,
    /// SIGTERM has come. `accepting` and `inFlight` tell how far it is.
    Terminating,
}

impl State {
    /// All of them, in the order of a pod's life.
    pub const ALL: [Self; 5] =
        [Self::Serving, Self::Lingering, Self::Draining, Self::Idle, Self::Terminating];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "Serving",
            Self::Lingering => "Lingering",
            Self::Draining => "Draining",
            Self::Idle => "Idle",
            Self::Terminating => "Terminating",
        }
    }
}

/// What was accepted and has not ended, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "InFlightOnTheWire", into = "InFlightOnTheWire")]
pub struct InFlight {
    /// Tasks accepted that have not started.
    pub queued: u64,
    /// Tasks that run, until all that belongs to them (a report, say) is done.
    pub running: u64,
    /// Requests, from acceptance until the last byte of the response's body was handed over.
    pub requests: u64,
}

impl InFlight {
    /// All kinds together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.queued + self.running + self.requests
    }
}

#[derive(Serialize, Deserialize)]
struct InFlightOnTheWire {
    total: u64,
    queued: u64,
    running: u64,
    requests: u64,
}

impl From<InFlight> for InFlightOnTheWire {
    fn from(counts: InFlight) -> Self {
        let InFlight { queued, running, requests } = counts;
        Self { total: counts.total(), queued, running, requests }
    }
}

impl From<InFlightOnTheWire> for InFlight {
    fn from(wire: InFlightOnTheWire) -> Self {
        let InFlightOnTheWire { total: _, queued, running, requests } = wire;
        Self { queued, running, requests }
    }
}

/// The answer of `GET`, `PUT` and `DELETE /drain`. The operator takes it as the whole pod's; a pod of several processes needs one that answers
/// for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// `v1`.
    pub protocol: String,
    /// The pod's uid, from `GRACEFUL_POD_UID`; empty outside a cluster.
    pub pod_uid: String,
    /// A uuid that is new for each start of the process: with it, a restart cannot pass for an idle pod.
    pub boot_id: String,
    /// Where the pod is in its life.
    pub state: State,
    /// Whether new work is let in.
    pub accepting: bool,
    /// The highest epoch seen; 0 before the first.
    pub epoch: u64,
    /// What was accepted and has not ended.
    pub in_flight: InFlight,
    /// Upgraded connections (WebSockets) that are open. They are told and closed at the end; they hold nothing up.
    pub connections: u64,
    /// Age of the oldest thing in flight, in whole seconds; 0 when there is none.
    pub oldest_seconds: u64,
    /// Whether `DELETE /drain` can still bring the pod back.
    pub resumable: bool,
    /// `PUT` and `DELETE` need a token of the operator's. Left out where they do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verifies: bool,
    /// Why the pod cannot say yet what it has in flight, where it cannot: `inFlight` is then no answer. Left out where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// The queued tasks that wait for a time of their own, if there are any. For information: they are in flight
    /// like the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Scheduled>,
    /// The queue that this pod shares with others, if it does. For information: it holds no drain up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedQueue>,
}

/// Queued tasks whose time has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// How many of the queued tasks they are.
    pub tasks: u64,
    /// When the first of them is due, by this pod's clock.
    pub next: Timestamp,
}

/// A queue that belongs to no pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedQueue {
    /// Tasks that wait in it for any pod to take them; up to a second old.
    pub queued: u64,
}

impl DrainStatus {
    /// Nothing accepted is left and nothing new can come in. Both halves are needed: a lone zero is not idle.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.unknown.is_none() && !self.accepting && self.in_flight.total() == 0
    }

    /// A weak `ETag` of what decides something: boot id, state, accepting, epoch, the counts in flight and whether they are known. The age of
    /// the oldest, the number of sockets, a shared queue's length and what is scheduled move all the time and decide
    /// nothing, so they wake nobody up.
    #[must_use]
    pub fn etag(&self) -> String {
        let InFlight { queued, running, requests } = self.in_flight;
        let open = if self.accepting { "open" } else { "shut" };
        let state = self.state.as_str();
        let unknown = if self.unknown.is_some() { ".unknown" } else { "" };
        format!("W/\"{}.{state}.{open}.{}.{queued}.{running}.{requests}{unknown}\"", self.boot_id, self.epoch)
    }
}
