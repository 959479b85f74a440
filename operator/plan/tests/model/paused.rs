//! A second operator that is stale: a leader that was paused after it asked whether it leads and before its call was sent. Another leads meanwhile, from nothing but
//! what is in the cluster; long after, that one call arrives, with the preconditions of then. The next call is not made, since leadership is asked for before each.

use graceful_api::DrainReason;
use graceful_plan::last_look::{self, Verdict};
use graceful_plan::{Action, DeletionCost, NodeFate, Proof, Readiness};
use jiff::{SignedDuration, Timestamp};

use super::World;
use super::kubernetes::{Deployment, Snapshot};

/// The call that is to come.
pub(crate) struct Paused {
    /// What it was planned on.
    view: Snapshot,
    action: Action,
    /// What it had read just before: the Deployment that it writes to, and the versions of pods.
    deployment: Option<Deployment>,
    live: Snapshot,
    goes_on: Timestamp,
}

/// What is seen of others' pauses in the runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Late {
    /// Calls that came late and were void.
    pub(crate) void: u32,
    /// Calls that came late and changed something.
    pub(crate) effective: u32,
    /// Of those, drains that the budget did not allow any more.
    pub(crate) below_the_floor: u32,
}

impl World {
    /// Its lease is 15 s: whoever follows has led for a while when it goes on.
    pub(super) fn pause(&mut self, view: &Snapshot, action: Action) {
        let seconds = i64::try_from(15 + self.random.next() % 20).expect("few");
        let revision = match &action {
            Action::ScaleUp { revision, .. }
            | Action::ScaleDown { revision, .. }
            | Action::SyncPolicy { revision }
            | Action::RecordProven { revision }
            | Action::Nudge { revision }
            | Action::LetGo { revision }
            | Action::DeleteRevision { revision } => Some(revision),
            _ => None,
        };
        let deployment = revision.and_then(|r| self.deployments.get(r)).cloned();
        let goes_on = self.now + SignedDuration::from_secs(seconds);
        self.paused = Some(Paused { view: view.clone(), action, deployment, live: self.observe(), goes_on });
        // The other operator remembers nothing of it.
        self.crash();
    }

    /// The call arrives.
    pub(super) fn goes_on(&mut self) {
        let Some(paused) = self.paused.take_if(|p| p.goes_on <= self.now) else { return };
        if !self.exists {
            return;
        }
        let before = (self.pods.iter().map(|p| p.version).sum::<u64>(), self.deployments.clone());
        self.arrives(paused);
        let after = (self.pods.iter().map(|p| p.version).sum::<u64>(), &self.deployments);
        if (before.0, &before.1) == after {
            self.late_calls.void += 1;
        } else {
            self.late_calls.effective += 1;
        }
    }

    fn arrives(&mut self, paused: Paused) {
        let Paused { view, action, deployment, live, .. } = paused;
        match action {
            // That is two calls, of which the first moves the version.
            Action::Retire { proof: Proof::Cut { .. }, .. } => {}
            // Of exactly the pod that was looked at; the scale that belongs to it does not follow.
            Action::Retire { pod, revision, replicas, proof, .. } => {
                let found: Vec<_> =
                    live.observed.pods.iter().filter(|p| p.revision == revision).cloned().collect();
                let it = found.iter().find(|p| p.uid == pod.uid);
                let Verdict::Go { grace_seconds, .. } = last_look::check(it, proof, replicas, 0) else {
                    return;
                };
                let Ok(i) = self.precondition(&live, &pod) else { return };
                // Where admission stays open a zero of then says nothing of now: such a pod has its grace for what has come since.
                if !matches!(proof, Proof::Quiet { .. } | Proof::TokenRefused { .. }) {
                    self.judge(i, proof);
                }
                self.note(proof);
                self.deeds.ended += 1;
                self.deleted(i, proof, grace_seconds);
            }
            Action::Unroute { ref pod, reason, cost: DeletionCost::Highest, .. } => {
                let served = self.pods.iter().any(|p| p.uid == pod.uid && serves(self, p));
                let done = self.execute(&view, action).is_ok();
                if done && served && reason != DrainReason::Delete && self.below_the_floor() {
                    self.late_calls.below_the_floor += 1;
                }
            }
            // A POST: what is there already it cannot change.
            Action::CreateRevision { ref revision, .. } if self.deployments.contains_key(revision) => {}
            // By uid and resourceVersion.
            Action::ScaleUp { ref revision, .. }
            | Action::ScaleDown { ref revision, .. }
            | Action::SyncPolicy { ref revision }
            | Action::RecordProven { ref revision }
            | Action::Nudge { ref revision }
            | Action::LetGo { ref revision }
            | Action::DeleteRevision { ref revision } => {
                if deployment.is_some() && self.deployments.get(revision) == deployment.as_ref() {
                    drop(self.execute(&view, action));
                }
            }
            _ => drop(self.execute(&view, action)),
        }
    }

    /// P3 as it is, and not as somebody saw it.
    fn below_the_floor(&self) -> bool {
        let floor = self.app.replicas.saturating_sub(self.app.max_unavailable) as usize;
        self.pods.iter().filter(|p| serves(self, p)).count() < floor
    }
}

fn serves(world: &World, pod: &super::Pod) -> bool {
    let fate = world.nodes[pod.node as usize];
    let lasts = !matches!(fate, NodeFate::Dying | NodeFate::ShutDown);
    pod.is_active() && pod.routed && lasts && matches!(pod.readiness, Readiness::Ready(_))
}
