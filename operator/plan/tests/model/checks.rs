//! What must hold of each plan and each kill, checked with the knowledge that only a model has.

use graceful_api::Signal;
use graceful_plan::{Action, Containers, Deletion, NodeFate, Observed, Plan, PodUid, Proof};

use super::World;

/// A pod that is drained, put back and renumbered by turns is patched a few times; one that is told again with a back-off, three times and then
/// after 2, 4, 8 … seconds.
const MOST_PATCHES: usize = 9;
const WINDOW: i64 = 30;

impl World {
    /// A view stays as it is, and the clock goes on: until the moment at which a plan asks to be made again, it is the same plan. Otherwise something
    /// would be done, or told, later than it should.
    pub(super) fn check_alarm(&mut self, observed: &Observed, plan: &Plan) {
        self.plans += 1;
        if !self.plans.is_multiple_of(4) {
            return;
        }
        let gist = |plan: &Plan| {
            let mut actions = plan.actions.clone();
            for action in &mut actions {
                if let Action::Unroute { since, .. } = action {
                    *since = jiff::Timestamp::MIN;
                }
            }
            let conditions: Vec<_> =
                plan.report.conditions.iter().map(|c| (c.kind, c.holds, c.reason)).collect();
            (actions, plan.conversations.clone(), plan.report.phase, conditions)
        };
        let hour = self.now + jiff::SignedDuration::from_hours(1);
        let alarm = plan.wake_at.unwrap_or(hour).min(hour);
        let between = alarm.duration_since(self.now);
        for at in [self.now + between / 2, alarm - jiff::SignedDuration::from_millis(1)] {
            let (then, now) = (gist(&graceful_plan::plan(observed, at)), gist(plan));
            if at > self.now && then != now {
                self.violate(&format!(
                    "the plan is another at {at}, and asks for none before {alarm}: {now:?}, then {then:?}"
                ));
            }
        }
    }

    /// P6: what a pod answers never makes a write loop. An operator that died has forgotten how often it has tried, and a user may change his mind:
    /// the count is of what happens between.
    pub(super) fn patched(&mut self, uid: &PodUid) {
        let from = self.now - jiff::SignedDuration::from_secs(WINDOW);
        let patches = self.patches.entry(uid.clone()).or_default();
        patches.retain(|at| *at > from);
        patches.push(self.now);
        let many = patches.len();
        if many > MOST_PATCHES {
            self.violate(&format!("P6: {uid} was patched {many} times within {WINDOW} s"));
        }
    }

    /// P3 on the very view that was planned on: no drain below the budget, no pod above the surge.
    pub(super) fn check_budget(&mut self, seen: &Observed, plan: &Plan) {
        let app = &seen.app;
        // What the operator cannot know of older pods it need not; a pod of the update revision must have said that it takes work.
        let accepts = |p: &graceful_plan::Pod| {
            let contact = seen.contacts.get(&p.uid);
            let said = contact.and_then(|c| c.answer.as_ref());
            // One that refuses our token was told no epoch.
            let refuses = contact.is_some_and(|c| c.refused.is_some());
            let as_told = |s: graceful_plan::Protocol| s.accepting && (refuses || p.epoch <= Some(s.epoch));
            // Which revision is to stay, and so has to have answered, an app that leaves decides by itself.
            let leaves = app.deletion == Deletion::Leave;
            leaves || p.revision != app.update || said.is_some_and(|a| a.protocol.is_none_or(as_told))
        };
        let serves = |p: &&graceful_plan::Pod| {
            !p.terminating
                && p.routed
                && matches!(p.readiness, graceful_plan::Readiness::Ready(_))
                && accepts(p)
        };
        // What dies with its node is not relied on, and not kept.
        let lasts = |p: &&graceful_plan::Pod| p.stays() || p.node.fate == NodeFate::Emptied;
        let serving = seen.pods.iter().filter(serves).filter(lasts).count();
        let unrouted = plan.actions.iter().filter(|a| match a {
            Action::Unroute { pod, reason, .. } => {
                *reason != graceful_api::DrainReason::Delete
                    && seen.pods.iter().filter(serves).filter(lasts).any(|p| p.uid == pod.uid)
            }
            _ => false,
        });
        let unrouted = unrouted.count();
        let floor = app.replicas.saturating_sub(app.max_unavailable) as usize;
        if unrouted > 0 && serving - unrouted < floor {
            self.violate(&format!(
                "P3: {unrouted} drains start with {serving} serving and a floor of {floor}"
            ));
        }
        let made: u32 = plan
            .actions
            .iter()
            .map(|a| match a {
                Action::CreateRevision { replicas, .. } => *replicas,
                // Replicas that only say what is there make nothing.
                Action::ScaleUp { revision, from, to } => {
                    let there = seen.pods.iter().filter(|p| p.is_active() && p.revision == *revision).count();
                    to.saturating_sub((*from).max(u32::try_from(there).expect("few")))
                }
                _ => 0,
            })
            .sum();
        // One that drains itself after its DELETE counts until it is gone, or nobody knows whether it is.
        let drains_itself = |p: &graceful_plan::Pod| {
            let there = self.pods.iter().any(|it| it.uid == p.uid && it.killed_at.is_some());
            let known = p.node.kubelet != graceful_plan::Kubelet::Silent;
            p.terminating && there && known && app.replace_when == graceful_api::ReplaceWhen::Drained
        };
        let live = seen.pods.iter().filter(|p| p.is_active() || drains_itself(p)).filter(lasts).count();
        let ceiling = (app.replicas + app.max_surge) as usize;
        if made > 0 && live + made as usize > ceiling {
            self.violate(&format!("P3: {made} pods made beside {live} with a ceiling of {ceiling}"));
        }
    }

    /// The promise itself, with the knowledge that only a model has.
    pub(super) fn judge(&mut self, i: usize, proof: Proof) {
        let pod = &self.pods[i];
        let open = pod.process.as_ref().is_some_and(|p| !p.closed);
        let quiet = i64::from(self.app.policy.quiet_seconds);
        let lately =
            pod.process.as_ref().is_some_and(|p| p.last_busy.duration_since(self.now).as_secs() > -quiet);
        let broken = match proof {
            Proof::Idle { .. } if pod.busy() => Some("it is busy"),
            Proof::Idle { .. } if open => Some("it still accepts"),
            Proof::Quiet { .. } | Proof::TokenRefused { .. } if lately => Some("it was busy a moment ago"),
            Proof::TokenRefused { .. } if !self.refuses(i) => Some("it could have been told"),
            Proof::TokenRefused { grace_seconds, .. } if grace_seconds < self.app.policy.deadline_seconds => {
                Some("it has less than its deadline for what slips in")
            }
            Proof::HandedOver { .. } if !pod.volume.is_empty() => Some("what waits in its volume has nobody"),
            Proof::HandedOver { grace_seconds, .. } if grace_seconds < self.app.policy.deadline_seconds => {
                Some("it has less than its deadline for its own drain")
            }
            Proof::HandedOver { .. } if self.policy_of(i).signal != Signal::Sigterm => {
                Some("it does not drain itself on SIGTERM")
            }
            Proof::Idle { .. }
            | Proof::Quiet { .. }
            | Proof::TokenRefused { .. }
            | Proof::HandedOver { .. }
                if self.is_selected(pod)
                    && !(self.is_put_back()
                        && matches!(proof, Proof::Idle { .. } | Proof::HandedOver { .. }))
                    && self.app.deletion != Deletion::Drain
                    && self.nodes[pod.node as usize] != NodeFate::Dying =>
            {
                Some("its Service sends clients to it")
            }
            Proof::NotRunning if pod.busy() => Some("it is busy"),
            // Its kubelet may start it after the DELETE, and where no other endpoint is left clients are sent to it.
            Proof::NotRunning | Proof::NeverWorked { .. }
                if pod.routed
                    && self.nodes[pod.node as usize] != NodeFate::ShutDown
                    && pod.containers != Containers::Crashed
                    && pod.containers != Containers::CrashedEmpty =>
            {
                Some("it may start all the same, and is routed to")
            }
            Proof::Cut { .. } if self.app.policy.on_deadline != graceful_api::OnDeadline::Terminate => {
                Some("nobody chose to terminate")
            }
            _ if pod.routed && !matches!(proof, Proof::NotRunning | Proof::NeverWorked { .. }) => {
                Some("it serves")
            }
            _ => None,
        };
        if let Some(why) = broken {
            let what = format!("P1: {} killed on {proof:?}, but {why}", pod.name);
            self.violate(&what);
        }
    }
}
