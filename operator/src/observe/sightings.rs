//! What observing remembers of one app between two looks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use graceful_plan::{Absences, Lags, PodUid, Rejections};
use jiff::Timestamp;

use super::adoption::Seeker;
use super::endpoints::Withdrawals;
use super::nodes::Departures;
use super::policies::Policies;
use crate::requeue::Desired;

/// One app's. Each part is kept by the module that reads it.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// When the last live view was taken, or this memory began.
    pub(super) viewed_live: Option<Instant>,
    /// The newest GracefulApp that was read live: a watch that shows an older one is behind.
    pub(super) newest: Option<Desired>,
    /// Nodes that go.
    pub(super) departures: Departures,
    /// Pods that drain, and whether Services still send clients to them.
    pub(super) withdrawals: Withdrawals,
    /// NetworkPolicies, where there is a gate that they may shut off.
    pub(super) policies: Policies,
    /// Pods of a node whose clock is ahead: since when they are Ready by that clock, and since when we know.
    pub(super) ready_ahead: HashMap<PodUid, (Timestamp, Timestamp)>,
    /// Pods that ended before they were ever Ready.
    pub(super) rejections: Rejections,
    /// Deployments that their controller has not taken up.
    pub(super) lags: Lags,
    /// Pods that are asked for and do not come.
    pub(super) absences: Absences,
    /// The Deployment in `spec.adopt`.
    pub(super) seeker: Seeker,
    /// When the namespace was last read for whether it goes.
    pub(super) namespace_read: Option<Instant>,
}

impl Sightings {
    /// When to look again, at what no watch shows.
    pub(crate) fn due(&self) -> Option<Duration> {
        [self.withdrawals.due(), self.seeker.due()].into_iter().flatten().min()
    }

    /// A watch can go blind without a word.
    pub(super) fn distrust_watches(&self, trust: Duration) -> bool {
        self.viewed_live.is_some_and(|at| at.elapsed() >= trust)
    }
}
