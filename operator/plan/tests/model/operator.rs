//! The operator of the model: the same loop as the real one, with a crash possible between any two calls.

use std::time::{Duration, Instant};

use graceful_api::{RevisionHash, Signal};
use graceful_plan::last_look;
use graceful_plan::refusals::{Refusals, Subject};
use graceful_plan::{
    Absences, Action, Backoff, BackoffCause, Brake, Child, Deletion, DeletionCost, DrainNote, Lags,
    MARK_RESTS, Mark, PodRef, Proof, Rejections, TemplateVerdict, longest_gap, plan,
};

use super::World;
use super::kubernetes::{Deployment, Snapshot};

/// Pods are asked each second, and have two for their answer.
const ASKED_EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why an action was not done.
pub(super) enum Undone {
    /// The operator died, or a precondition no longer held: the rest of the plan is void.
    Stopped,
    /// The API server refuses it, or is too slow: left alone for a while, and the others go on without it.
    Refused,
}
use Undone::Stopped;

impl World {
    /// One pass. True where anything was done, so that another pass may follow at once.
    pub(super) fn reconcile(&mut self) -> bool {
        if !self.exists {
            return false;
        }
        let view = self.view();
        let plan = plan(&view.observed, self.now);
        self.check_budget(&view.observed, &plan);
        self.check_alarm(&view.observed, &plan);
        if plan.actions.is_empty()
            && plan.report.phase != graceful_api::Phase::Serving
            && plan.report.waiting_for.is_empty()
        {
            self.violate(&format!(
                "P8: {:?}, nothing to do, and no word of what is waited for",
                plan.report.phase
            ));
        }
        self.record(&plan);
        for (uid, conversation) in &plan.conversations {
            if self.conversations.get(uid) != Some(conversation) {
                let now = self.now + jiff::SignedDuration::from_millis(1);
                let dialogue = self.dialogues.entry(uid.clone()).or_default();
                dialogue.begin(*conversation, longest_gap(ASKED_EVERY, TIMEOUT), now);
            }
        }
        self.conversations = plan.conversations;
        let before = self.acted;
        for action in plan.actions {
            if self.random.chance(self.faults.crash) {
                self.crash();
                break;
            }
            if self.paused.is_none() && self.random.chance(self.faults.pause) {
                self.pause(&view, action);
                break;
            }
            self.last_write = self.now;
            self.acted += 1;
            if let Err(Stopped) = self.execute(&view, action) {
                break;
            }
        }
        self.acted > before
    }

    pub(crate) fn crash(&mut self) {
        self.patches.clear();
        self.dialogues.clear();
        self.conversations.clear();
        self.refusals = Refusals::default();
        self.brake = Brake::default();
        self.rejections = Rejections::default();
        self.absences = Absences::default();
        self.lags = Lags::default();
        self.taken_back.clear();
    }

    /// What is left alone for now.
    pub(super) fn backoff(&self, of: &Subject) -> Option<Backoff> {
        self.refusals.of(of, self.now, self.instant())
    }

    /// Leaves it alone, longer each time.
    fn back_off(&mut self, of: Subject, cause: BackoffCause, message: &str) -> Undone {
        self.refusals.note(of, cause, message.to_owned(), self.instant());
        Undone::Refused
    }

    /// The same of a Deployment whose scale did not follow its DELETE.
    fn came_late(&mut self, revision: &RevisionHash, cause: BackoffCause, message: &str) -> Undone {
        let of = Subject::Deployment(revision.clone());
        self.refusals.note_late(&of, cause, message.to_owned(), self.instant());
        Undone::Refused
    }

    /// Now, by the clock that pauses are measured by.
    pub(super) fn instant(&self) -> Instant {
        self.began + Duration::from_secs(self.elapsed().unsigned_abs())
    }

    pub(super) fn execute(&mut self, view: &Snapshot, action: Action) -> Result<(), Undone> {
        match action {
            Action::AddFinalizer => self.app.finalizer = true,
            Action::ReleaseFinalizer => {
                let drains = self.pods.iter().any(|p| self.is_awaited(p));
                if drains && !self.surroundings.namespace_terminating && self.app.deletion == Deletion::Drain
                {
                    self.violate("the finalizer lets go of a pod that still drains itself");
                }
                self.exists = false;
            }
            Action::Adopt => self.adopt()?,
            Action::Enlist { pod } => {
                self.writable(&pod)?;
                self.enlist(view, &pod)?;
            }
            Action::Fence { .. } => self.fence()?,
            Action::Unfence { .. } => self.unfence()?,
            Action::LetGo { revision } => self.let_go(&revision)?,
            Action::LetGoService => self.surroundings.service = Child::AsWanted,
            Action::SyncService => self.surroundings.service = Child::AsWanted,
            Action::SyncBudget => self.surroundings.budget = Child::AsWanted,
            Action::DryRunTemplate { .. } => self.dry_run(),
            Action::CreateRevision { revision, replicas } => {
                let (created, policy) = (self.now, self.app.policy);
                self.deployments.entry(revision).or_insert(Deployment {
                    ours: true,
                    replicas,
                    created,
                    policy,
                    proven: false,
                    of_its_replica_set: 0,
                    says: (0, created),
                    lowered: created,
                    given_up: false,
                    failing: None,
                    tries: (created, 0),
                    nudged: None,
                });
                self.surroundings.template = TemplateVerdict::Unknown;
            }
            Action::SyncPolicy { revision } => {
                if revision.is_adopted() {
                    self.violate("the adopted pods' policy is another's");
                }
                let policy = self.app.policy;
                self.deployments.get_mut(&revision).ok_or(Stopped)?.policy = policy;
            }
            Action::Nudge { revision } => {
                let deployment = self.deployments.get_mut(&revision).ok_or(Stopped)?;
                (deployment.given_up, deployment.nudged) = (false, Some(self.now));
                deployment.tries.0 = self.now;
            }
            Action::RecordProven { revision } => {
                self.deployments.get_mut(&revision).ok_or(Stopped)?.proven = true;
            }
            Action::ScaleUp { revision, from, to } => {
                self.scale_to(&revision, from, to)?;
            }
            Action::ScaleDown { revision, from, to } => {
                let live = self.live(&revision);
                if !last_look::may_lower(to, &live) {
                    return Err(Stopped);
                }
                self.scale_to(&revision, from, to)?;
                self.brake.taken(last_look::taken_by(from, to, &live));
            }
            Action::Unroute { pod, epoch, reason, since, cost } => {
                self.writable(&pod)?;
                let i = match cost {
                    DeletionCost::Highest => self.precondition(view, &pod)?,
                    DeletionCost::Lowest => self.pods.iter().position(|p| p.uid == pod.uid).ok_or(Stopped)?,
                };
                let (local, signal) = (self.local, self.policy_of(i).signal);
                let found = &mut self.pods[i];
                // A crash in between leaves the slices of a pod that serves; its annotation was there before them.
                found.bridged = local;
                if local && self.random.chance(self.faults.crash) {
                    self.pods[i].version += 1;
                    self.crash();
                    return Err(Stopped);
                }
                let late = self.random.chance(self.faults.late_endpoints);
                let behind = if late { 1 + (self.random.next() % 12) as i64 } else { 0 };
                let now = self.now;
                let found = &mut self.pods[i];
                if found.routed && found.was_routed && late {
                    found.listed_until = now + jiff::SignedDuration::from_secs(behind);
                }
                found.routed = false;
                if signal == Signal::Sigterm && cost == DeletionCost::Highest {
                    found.mark = Mark::Busy;
                }
                found.cost = if cost == DeletionCost::Highest { i32::MAX } else { i32::MIN };
                found.epoch = Some(epoch);
                found.drain = Some(DrainNote { reason, since });
                found.version += 1;
                self.patched(&pod.uid);
            }
            Action::Unbridge { pod } => {
                self.writable(&pod)?;
                let i = self.precondition(view, &pod)?;
                self.pods[i].bridged = false;
                self.pods[i].version += 1;
            }
            Action::Mark { pod, busy } => {
                self.writable(&pod)?;
                let i = self.precondition(view, &pod)?;
                let until = self.now.saturating_add(MARK_RESTS).expect("soon");
                let found = &mut self.pods[i];
                found.mark = if busy { Mark::Busy } else { Mark::Idle };
                found.mark_rests_until = Some(until);
                found.version += 1;
            }
            Action::Unmark { pod } => {
                self.writable(&pod)?;
                let i = self.precondition(view, &pod)?;
                let until = self.now.saturating_add(MARK_RESTS).expect("soon");
                let found = &mut self.pods[i];
                (found.mark, found.mark_rests_until) = (Mark::Absent, Some(until));
                found.version += 1;
            }
            Action::PutBack { pod, epoch } => {
                self.writable(&pod)?;
                let i = self.precondition(view, &pod)?;
                if self.pods[i].terminating() {
                    self.violate("a pod is put back after its DELETE");
                }
                if self.is_put_back_behind_a_closed_door(i) {
                    self.violate("a pod is put back that has not opened: its clients are refused");
                }
                let worker = self.policy_of(i).signal == Signal::Sigterm;
                let in_step = self.app.hold_while_busy;
                let found = &mut self.pods[i];
                if worker && !in_step {
                    found.mark = Mark::Absent;
                }
                found.listed_until = jiff::Timestamp::MIN;
                found.routed = true;
                found.cost = 0;
                found.epoch = Some(epoch);
                found.drain = None;
                found.version += 1;
                self.patched(&pod.uid);
            }
            Action::Retire { pod, revision, replicas, proof, as_well } => {
                self.retire(&pod, &revision, replicas, proof, &as_well)?;
            }
            Action::DeleteRevision { revision } => {
                if self.pods.iter().any(|p| p.revision == revision && self.is_awaited(p)) {
                    self.violate("a Deployment is deleted under a pod that drains itself");
                }
                self.deployments.remove(&revision);
            }
        }
        Ok(())
    }

    /// Whether the pod was told to close, and answers: it could have been told to open first. (One that is labelled already has its clients, and what never answers is put
    /// back as it is.)
    fn is_put_back_behind_a_closed_door(&self, i: usize) -> bool {
        let pod = &self.pods[i];
        let heard = self.dialogues.get(&pod.uid).is_some_and(|d| d.contact().answer.is_some());
        let closes = pod.process.as_ref().is_some_and(|p| {
            (p.closed || p.lingers_until.is_some())
                && !p.closed_by_hand
                && p.behaviour != super::Behaviour::ClockEpoch
        });
        self.policy_of(i).signal == Signal::Http && !pod.routed && heard && closes && !self.refuses(i)
    }

    pub(super) fn live(&self, revision: &RevisionHash) -> Vec<graceful_plan::Pod> {
        self.observe().observed.pods.into_iter().filter(|p| p.revision == *revision).collect()
    }

    pub(super) fn scale(&mut self, revision: &RevisionHash, from: u32, to: u32) -> Result<(), Undone> {
        let now = self.now;
        let deployment = self.deployments.get_mut(revision).filter(|d| d.replicas == from).ok_or(Stopped)?;
        if to < from {
            deployment.lowered = now;
        }
        deployment.replicas = to;
        self.refusals.cleared(&Subject::Deployment(revision.clone()));
        Ok(())
    }

    /// To another number, and a spare that runs by then shows that the last scale came late.
    fn scale_to(&mut self, revision: &RevisionHash, from: u32, to: u32) -> Result<(), Undone> {
        self.permitted(revision)?;
        self.scale(revision, from, to)?;
        let now = self.instant();
        let taken_back = self.taken_back.get(revision).map(|at| now.duration_since(*at));
        if last_look::spare_ran(self.live(revision).iter(), from, taken_back) {
            self.came_late(revision, BackoffCause::TooSlow, "its ReplicaSet follows late");
        }
        Ok(())
    }

    /// uid and resourceVersion, as the view had them.
    pub(super) fn precondition(&self, view: &Snapshot, pod: &PodRef) -> Result<usize, Undone> {
        let version = view.versions.get(&pod.uid);
        let found = self.pods.iter().position(|p| p.uid == pod.uid && Some(&p.version) == version);
        found.ok_or(Stopped)
    }

    pub(super) fn permitted(&mut self, revision: &RevisionHash) -> Result<(), Undone> {
        if self.refuses_until > self.now {
            let of = Subject::Deployment(revision.clone());
            return Err(self.back_off(of, BackoffCause::Refused, "denied: change freeze"));
        }
        Ok(())
    }

    fn writable(&mut self, pod: &PodRef) -> Result<(), Undone> {
        if self.random.chance(self.faults.refuse_pod) {
            let denied = "denied: this pod is not to be changed";
            return Err(self.back_off(Subject::Pod(pod.uid.clone()), BackoffCause::Refused, denied));
        }
        self.refusals.cleared(&Subject::Pod(pod.uid.clone()));
        Ok(())
    }

    /// Calls take their time: pods go on meanwhile, and are heard.
    pub(super) fn seconds_pass(&mut self) {
        for _ in 0..=self.delays.next() % 2 {
            self.now += jiff::SignedDuration::from_secs(1);
            self.processes();
            self.converse();
        }
    }

    /// The DELETE itself, and the SIGTERM that comes of it.
    pub(super) fn deleted(&mut self, i: usize, proof: Proof, grace_seconds: Option<u32>) {
        let lost = self.ledger.lost;
        match proof {
            Proof::HandedOver { grace_seconds, .. } => self.hand_over(i, grace_seconds),
            _ => self.end_within(i, true, grace_seconds.map_or(self.grace_seconds, i64::from)),
        }
        if grace_seconds.is_some() && self.app.policy.on_deadline == graceful_api::OnDeadline::Terminate {
            // Such a grace is the deadline, and the user chose that it ends what is not done by then.
            self.ledger.cut += self.ledger.lost - lost;
            self.ledger.lost = lost;
        }
    }

    pub(super) fn note(&mut self, proof: Proof) {
        match proof {
            Proof::Idle { .. }
            | Proof::Quiet { .. }
            | Proof::TokenRefused { .. }
            | Proof::HandedOver { .. } => {
                self.deeds.proven_idle += 1;
            }
            Proof::Cut { .. } => self.deeds.cut += 1,
            Proof::NotRunning | Proof::NeverWorked { .. } => {}
        }
    }
}
