//! The plan while it is being written, with the rules about writing that all others keep.

use std::collections::BTreeMap;

use graceful_api::RevisionHash;

use crate::action::{Action, PodRef};
use crate::ids::{Epoch, PodUid};
use crate::observed::Pod;
use crate::snapshot::{Epochs, Snapshot};

/// The actions of one plan, as the rules give them.
///
/// # Guarantees
/// A plan acts upon a pod once, and scales a Deployment once. The rules speak in the order of [`plan`](crate::plan()), which is their rank: what one has decided
/// stands, and what a later one says of the same pod or Deployment is dropped by [`Draft::act`].
pub(crate) struct Draft {
    pub(crate) actions: Vec<Action>,
    pub(crate) epochs: Epochs,
    /// Unrouted pods that are told to accept again, and get their label once they have: no rule of lower rank acts on them.
    pub(crate) reopening: BTreeMap<PodUid, Epoch>,
    /// Serving pods whose in-flight count is wanted fresh.
    pub(crate) ask_serving: bool,
    /// The same, for their marks: nothing waits for it.
    pub(crate) ask_for_marks: bool,
}

impl Draft {
    pub(crate) fn new(snapshot: &Snapshot<'_>) -> Self {
        Self {
            actions: Vec::new(),
            epochs: snapshot.epochs(),
            reopening: BTreeMap::new(),
            ask_serving: false,
            ask_for_marks: false,
        }
    }

    /// Takes the action, unless a rule of higher rank has one for the same pod or Deployment. Says whether it is taken.
    pub(crate) fn act(&mut self, action: Action) -> bool {
        let pod = action.pod().is_some_and(|pod| self.acts_on(&pod.uid));
        let scaled = action.scales().is_some_and(|revision| self.scales(revision));
        let taken = !pod && !scaled;
        if taken {
            self.actions.push(action);
        }
        taken
    }

    /// Has the pod told to accept again, unless a rule of higher rank acts on it.
    pub(crate) fn reopen(&mut self, pod: &Pod, epoch: Epoch) {
        if !self.acts_on(&pod.uid) {
            self.reopening.insert(pod.uid.clone(), epoch);
        }
    }

    pub(crate) fn acts_on(&self, uid: &PodUid) -> bool {
        self.reopening.contains_key(uid)
            || self.actions.iter().any(|action| action.pod().is_some_and(|pod| pod.uid == *uid))
    }

    /// Whether the plan scales this revision's Deployment, retirements included.
    pub(crate) fn scales(&self, hash: &RevisionHash) -> bool {
        self.actions.iter().any(|action| action.scales() == Some(hash))
    }
}

pub(crate) fn pod_ref(pod: &Pod) -> PodRef {
    PodRef { name: pod.name.clone(), uid: pod.uid.clone() }
}
