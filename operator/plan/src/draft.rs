//! The plan while it is being written, with the rules about writing that all others keep.

use jiff::Timestamp;

use crate::action::{Action, PodRef, Proof};
use crate::census::{Census, Epochs};
use crate::observed::{Pod, RevisionHash};

pub(crate) struct Draft {
    pub(crate) actions: Vec<Action>,
    pub(crate) epochs: Epochs,
    wake_at: Option<Timestamp>,
    /// Serving pods whose in-flight count is wanted fresh.
    pub(crate) ask_serving: bool,
}

impl Draft {
    pub(crate) fn new(census: &Census<'_>) -> Self {
        Self { actions: Vec::new(), epochs: census.epochs(), wake_at: None, ask_serving: false }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Plan again at this moment, if it is to come.
    pub(crate) fn wake(&mut self, census: &Census<'_>, at: Timestamp) {
        if at > census.now {
            self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// Ends a pod. At most one a Deployment and plan: the second would scale from a number that the first has changed. The next plan,
    /// milliseconds later, takes the next.
    pub(crate) fn retire(&mut self, census: &Census<'_>, pod: &Pod, proof: Proof) {
        let Some(revision) = census.revision(&pod.revision) else {
            return; // its Deployment is gone: the garbage collector has it
        };
        if self.has_acted_on(pod) {
            return;
        }
        if self.has_scaled(&pod.revision) {
            self.wake(census, census.now + jiff::SignedDuration::from_millis(10));
            return;
        }
        self.act(Action::Retire {
            pod: pod_ref(pod),
            revision: pod.revision.clone(),
            replicas: revision.replicas,
            proof,
        });
    }

    /// A pod is acted upon once a plan: the first rule to speak has the higher rank.
    pub(crate) fn has_acted_on(&self, pod: &Pod) -> bool {
        self.actions.iter().any(|action| action.pod().is_some_and(|acted_on| acted_on.uid == pod.uid))
    }

    /// A Deployment is scaled once a plan, retirements included.
    pub(crate) fn has_scaled(&self, hash: &RevisionHash) -> bool {
        self.actions.iter().any(|action| action.scales() == Some(hash))
    }
}

pub(crate) fn pod_ref(pod: &Pod) -> PodRef {
    PodRef { name: pod.name.clone(), uid: pod.uid.clone() }
}
