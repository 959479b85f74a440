//! The eviction API: `kubectl drain`, an autoscaler. It asks the PodDisruptionBudgets, and what it ends has the pod's own grace.

use graceful_plan::{Containers, Mark};

use super::World;

/// What `spec.disruption` asks for. The planner knows of the last one alone; the others differ in whether there is a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disruption {
    Allow,
    #[default]
    Hold,
    HoldWhileBusy,
}

/// What became of the evictions of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evictions {
    pub(crate) refused: u32,
    /// Pods that were ended, and how many of them had work.
    pub(crate) allowed: u32,
    pub(crate) busy: u32,
}

impl World {
    pub(crate) fn disrupt(&mut self, disruption: Disruption) {
        self.disruption = disruption;
        self.app.hold_while_busy = disruption == Disruption::HoldWhileBusy;
    }

    /// Somebody asks for an eviction of the nth pod.
    pub(crate) fn evict_by_api(&mut self, nth: usize) {
        let live: Vec<_> = (0..self.pods.len()).filter(|i| !self.pods[*i].terminating()).collect();
        let Some(&i) = live.get(nth % live.len().max(1)) else { return };
        if self.is_held(i) {
            self.evictions.refused += 1;
            return;
        }
        self.evictions.allowed += 1;
        self.evictions.busy += u32::from(self.pods[i].busy());
        self.deeds.exits += 1;
        // What a crash left in a volume waits for a start that does not come: the crash is to blame.
        self.ledger.unpromised += u32::try_from(std::mem::take(&mut self.pods[i].volume).len()).expect("few");
        // P2: what is no longer than the grace is finished in it. That of anything longer is its owner's choice.
        self.end(i, i64::from(self.task_seconds) <= self.grace_seconds);
    }

    /// A budget of ours selects it. As Kubernetes has it, none counts for a pod that has not begun, or has finished.
    fn is_held(&self, i: usize) -> bool {
        let pod = &self.pods[i];
        if matches!(pod.containers, Containers::NeverStarted | Containers::Finished) {
            return false;
        }
        // While one has no clear mark, that budget is over all of them.
        let all_marked = self.pods.iter().filter(|p| p.is_active()).all(|p| p.mark.is_clear());
        match self.disruption {
            Disruption::Allow => false,
            Disruption::Hold => true,
            Disruption::HoldWhileBusy => pod.mark != Mark::Idle || !all_marked,
        }
    }
}
