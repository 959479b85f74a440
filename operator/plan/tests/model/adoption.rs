//! A plain Deployment beside the app, with a Service of the user's over its pods: taken over, given back, or left behind.

use graceful_api::{DrainPolicy, RevisionHash, Signal};
use graceful_plan::{Adoption, Containers, PodRef, Surroundings};
use jiff::Timestamp;

use super::kubernetes::{Deployment, Snapshot};
use super::operator::Undone::{self, Stopped};
use super::{POLICY, World};

/// The Deployment, and the user's Service over its pods and the app's: people call both the same.
pub(crate) const WEB: &str = "web";

/// What is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plain {
    /// Its selector asks for the serving label.
    pub(crate) fenced: bool,
    /// The operator had it ask for that, at some time.
    pub(crate) was_fenced: bool,
    /// Somebody has put its selector back since.
    pub(crate) put_back: bool,
    /// An autoscaler scales the Deployment.
    pub(crate) scaler: bool,
}

/// Nobody told its pods of epochs.
const OF_THE_DEPLOYMENT: DrainPolicy = DrainPolicy { signal: Signal::None, ..POLICY };

impl World {
    /// It was there long before the app, which adopts it.
    pub(crate) fn plain_deployment(&mut self, replicas: u32) {
        let created = Timestamp::UNIX_EPOCH;
        let deployment = Deployment {
            ours: false,
            replicas,
            created,
            policy: OF_THE_DEPLOYMENT,
            proven: true,
            of_its_replica_set: replicas,
            given_up: false,
            says: (replicas, created),
            lowered: created,
            failing: None,
            tries: (created, 0),
            nudged: None,
        };
        self.deployments.insert(RevisionHash::adopted(), deployment);
        self.plain = Some(Plain::default());
    }

    fn adopted(&self) -> Option<&Deployment> {
        self.deployments.get(&RevisionHash::adopted())
    }

    /// Around what is seen of the app.
    pub(super) fn beside(&self, surroundings: &mut Surroundings) {
        let (Some(plain), Some(adopted)) = (self.plain, self.adopted()) else { return };
        let its = || self.pods.iter().filter(|p| p.revision.is_adopted());
        let leaving = self.app.deletion != graceful_plan::Deletion::No;
        if !adopted.ours && !leaving {
            let ready = |p: &&super::Pod| matches!(p.readiness, graceful_plan::Readiness::Ready(_));
            let settled = its().filter(ready).count() == adopted.replicas as usize;
            surroundings.adoption = match settled {
                true => Adoption::Ready { deployment: WEB.to_owned() },
                false => Adoption::Waits {
                    message: format!("Deployment {WEB} is adopted once its own rollout is complete"),
                    needs_a_person: false,
                },
            };
        } else if adopted.ours && !leaving && (adopted.replicas > 0 || its().next().is_some()) {
            let scaler =
                plain.scaler.then(|| format!("HorizontalPodAutoscaler late scales Deployment {WEB}"));
            surroundings.adoption = Adoption::Taken { scaler, warnings: Vec::new() };
        }
        let service = || vec![WEB.to_owned()];
        // It leads to the app's own pods as well, also once the Deployment is let go of.
        let ours = self.deployments.values().any(|d| d.ours);
        if ours && !plain.fenced {
            surroundings.unfenced_services = service();
            if adopted.ours && !plain.was_fenced && (adopted.replicas > 0 || its().next().is_some()) {
                surroundings.fenceable = service();
            }
        }
        if plain.fenced {
            surroundings.fenced = service();
        }
    }

    /// Whether the Service, as its selector is, has this pod: without a fence by a label that all have.
    pub(super) fn is_selected(&self, pod: &super::Pod) -> bool {
        match self.plain {
            Some(plain) if plain.fenced => pod.enlisted && pod.is_listed(self.now),
            Some(_) => true,
            None => pod.is_listed(self.now),
        }
    }

    pub(super) fn adopt(&mut self) -> Result<(), Undone> {
        let adopted =
            self.deployments.get_mut(&RevisionHash::adopted()).filter(|d| !d.ours).ok_or(Stopped)?;
        adopted.ours = true;
        Ok(())
    }

    pub(super) fn enlist(&mut self, view: &Snapshot, pod: &PodRef) -> Result<(), Undone> {
        let i = self.precondition(view, pod)?;
        self.pods[i].enlisted = true;
        self.pods[i].version += 1;
        self.patched(&pod.uid);
        Ok(())
    }

    /// A live list shows the label on each of its pods, or nothing is written.
    pub(super) fn fence(&mut self) -> Result<(), Undone> {
        let has_begun = |p: &super::Pod| p.is_active() && p.containers != Containers::NeverStarted;
        let has_it = |p: &super::Pod| p.enlisted && (p.routed || p.drain.is_some());
        if self.pods.iter().any(|p| p.revision.is_adopted() && has_begun(p) && !has_it(p)) {
            return Err(Stopped);
        }
        let plain = self.plain.as_mut().ok_or(Stopped)?;
        // Whoever comes late with it, a former leader perhaps, finds on the Service that it was fenced before.
        if plain.was_fenced {
            return Ok(());
        }
        (plain.fenced, plain.was_fenced) = (true, true);
        Ok(())
    }

    pub(super) fn unfence(&mut self) -> Result<(), Undone> {
        self.plain.as_mut().ok_or(Stopped)?.fenced = false;
        Ok(())
    }

    pub(super) fn let_go(&mut self, revision: &RevisionHash) -> Result<(), Undone> {
        // Of one at 0 the ReplicaSet takes what is left, which it was told to.
        let in_use = self.deployments.get(revision).is_some_and(|d| d.replicas > 0);
        let drains =
            |p: &super::Pod| p.revision == *revision && p.is_active() && (p.drain.is_some() || !p.routed);
        if in_use && self.pods.iter().any(drains) {
            self.violate("a Deployment is let go of while a pod of it drains: nobody would put that back");
        }
        if revision.is_adopted() && in_use && self.plain.is_some_and(|p| p.fenced) {
            self.violate("its Service asks for a label that pods of the Deployment will not have");
        }
        self.deployments.get_mut(revision).filter(|d| d.ours).ok_or(Stopped)?.ours = false;
        if let Some(plain) = self.plain.as_mut().filter(|_| revision.is_adopted()) {
            plain.put_back = false;
        }
        Ok(())
    }

    /// GitOps puts the Service's selector back.
    pub(crate) fn put_selector_back(&mut self) {
        if let Some(plain) = &mut self.plain {
            plain.put_back |= plain.fenced;
            plain.fenced = false;
        }
    }

    /// An autoscaler is put on the Deployment, or is pointed at the app.
    pub(crate) fn autoscaler(&mut self, there: bool) {
        if let Some(plain) = &mut self.plain {
            plain.scaler = there;
        }
    }

    /// Somebody scales it up, as `kubectl scale` does.
    pub(crate) fn raise(&mut self, by: u32) {
        if let Some(adopted) = self.deployments.get_mut(&RevisionHash::adopted()).filter(|d| d.ours) {
            adopted.replicas += by;
            self.deeds.edits += 1;
        }
    }

    /// Somebody takes the serving label off a pod of it that serves.
    pub(crate) fn take_label_off(&mut self, nth: usize) {
        let serves = |p: &super::Pod| p.is_active() && p.enlisted && p.routed && p.drain.is_none();
        let its: Vec<_> = (0..self.pods.len())
            .filter(|i| self.pods[*i].revision.is_adopted() && serves(&self.pods[*i]))
            .collect();
        if let Some(i) = its.get(nth % its.len().max(1)) {
            self.pods[*i].routed = false;
            self.pods[*i].version += 1;
        }
    }

    /// Whatever a client of it meets then is not the operator's doing.
    pub(super) fn is_put_back(&self) -> bool {
        self.plain.is_some_and(|plain| plain.put_back)
    }

    /// Somebody fences it again, where the operator no longer does.
    pub(crate) fn fence_by_hand(&mut self) {
        if let Some(plain) = &mut self.plain {
            plain.fenced |= std::mem::take(&mut plain.put_back);
        }
    }

    /// Its pods are there before the app is.
    pub(crate) fn warm_up(&mut self) {
        let app_is_there = std::mem::replace(&mut self.exists, false);
        (0..4).for_each(|_| self.tick());
        self.exists = app_is_there;
    }
}
