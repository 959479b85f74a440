//! Ends pods as the real operator does, step by step as `graceful_plan::retirement` says, with a crash possible around the DELETE and its scale.

use std::collections::BTreeMap;
use std::time::Duration;

use graceful_api::RevisionHash;
use graceful_plan::refusals::Subject;
use graceful_plan::retirement::{Delete, End, Retirement, Scale, Scaled, Step};
use graceful_plan::{BackoffCause, Contact, Dialogue, PodRef, PodUid, Proof};

use super::World;
use super::kubernetes::Snapshot;
use super::operator::Undone::{self, Refused, Stopped};

/// What a call takes, and what it takes while the API server is slow.
const CALL: Duration = Duration::ZERO;
const SLOW_CALL: Duration = Duration::from_secs(2);

/// One retirement, as far as it has come.
struct Ending<'a> {
    pod: &'a PodRef,
    revision: &'a RevisionHash,
    replicas: u32,
    proof: Proof,
    /// The versions of the pods as they were looked at.
    looked_at: Snapshot,
}

impl World {
    pub(super) fn retire(
        &mut self,
        pod: &PodRef,
        revision: &RevisionHash,
        replicas: u32,
        proof: Proof,
        as_well: &[(PodUid, Proof)],
    ) -> Result<(), Undone> {
        let policy = self.deployments.get(revision).ok_or(Stopped)?.policy;
        let what = Retirement { pod: &pod.uid, replicas, proof, as_well, policy };
        let live = self.live(revision);
        let found = live.iter().find(|p| p.uid == pod.uid);
        let others = live.iter().filter(|p| p.is_active() && p.uid != pod.uid).count();
        let ending = Ending { pod, revision, replicas, proof, looked_at: self.observe() };
        let others = u32::try_from(others).expect("few");
        let mut step = what.looked(found, others, self.is_at(&ending));
        if !matches!(step, Step::Over(_)) && self.delays.chance(self.faults.stale) {
            self.seconds_pass();
        }
        loop {
            step = match step {
                Step::Try(dry) => {
                    self.permitted(revision)?;
                    let took = if self.slow_until > self.now { SLOW_CALL } else { CALL };
                    let of = Subject::Deployment(revision.clone());
                    dry.permitted(took, self.refusals.came_late(&of, self.instant()), Some(took))
                }
                Step::Measure(measure) => measure.followed(),
                Step::List(list) => list.read(&self.live(revision), &self.contacts(), self.now),
                Step::LowerCost(lower) => {
                    let i = self.precondition(&ending.looked_at, pod)?;
                    self.pods[i].cost = i32::MIN;
                    lower.written()
                }
                Step::Note(note) => {
                    let i = self.precondition(&ending.looked_at, pod)?;
                    self.pods[i].cut = note.cut().map(|cut| cut.tasks.unwrap_or_default());
                    if self.random.chance(self.faults.crash) {
                        self.crash();
                        return Err(Stopped);
                    }
                    note.written()
                }
                Step::Hear(hear) => hear.heard(self.dialogues.get(&pod.uid).map(Dialogue::contact), self.now),
                Step::ScaleFirst { to } => return self.scale_first(&ending, to),
                Step::Delete(delete) => self.delete(&ending, delete)?,
                Step::Scale(scale) => self.take_back(&ending, scale)?,
                Step::Ask(ask) => {
                    let now = self.deployments.get(revision).map(|d| d.replicas);
                    let done = now == Some(ask.to());
                    ask.found(done)
                }
                Step::LookAgain(again) if self.is_at(&ending) => {
                    let next = again.seen(&self.live(revision));
                    // The ReplicaSet acts between the look and what follows from it.
                    self.controllers();
                    next
                }
                Step::LookAgain(again) => again.changed(),
                Step::Over(end) => return self.ended(&ending, end),
            }
        }
    }

    fn ended(&mut self, ending: &Ending<'_>, end: End) -> Result<(), Undone> {
        let of = Subject::Deployment(ending.revision.clone());
        match end {
            End::Done | End::Finished => Ok(()),
            End::FoundDone => {
                self.refusals.cleared(&of);
                self.taken_back.insert(ending.revision.clone(), self.instant());
                Err(Stopped)
            }
            End::Changed(_) => Err(Stopped),
            End::TooSlow(took) => {
                let told = format!(
                    "the API server is too slow to retire safely: a scale takes {} s",
                    took.as_secs()
                );
                self.refusals.note(of, BackoffCause::TooSlow, told, self.instant());
                Err(Refused)
            }
            End::NotTakenBack { cause, why, .. } => {
                self.refusals.note_late(&of, cause, why, self.instant());
                Err(Stopped)
            }
        }
    }

    /// Its Deployment has the replicas that the plan saw.
    fn is_at(&self, ending: &Ending<'_>) -> bool {
        self.deployments.get(ending.revision).is_some_and(|d| d.replicas == ending.replicas)
    }

    fn contacts(&self) -> BTreeMap<PodUid, Contact> {
        self.dialogues.iter().map(|(uid, dialogue)| (uid.clone(), dialogue.contact().clone())).collect()
    }

    fn scale_first(&mut self, ending: &Ending<'_>, to: u32) -> Result<(), Undone> {
        let i = self.precondition(&ending.looked_at, ending.pod)?;
        self.judge(i, ending.proof);
        self.note(ending.proof);
        self.brake.ended();
        self.scale(ending.revision, ending.replicas, to)?;
        // A slow API server's ReplicaSet controller is slow as well.
        self.controller_back = self.now + jiff::SignedDuration::from_secs(2);
        Ok(())
    }

    /// Of exactly the pod that was looked at.
    fn delete<'a>(&mut self, ending: &Ending<'_>, delete: Delete<'a>) -> Result<Step<'a>, Undone> {
        let i = self.precondition(&ending.looked_at, ending.pod)?;
        self.judge(i, ending.proof);
        self.note(ending.proof);
        self.deeds.ended += 1;
        self.brake.ended();
        if let Proof::Cut { .. } = ending.proof {
            let process = self.pods[i].process.as_mut();
            let tasks = process.map_or(0, |p| std::mem::take(&mut p.tasks).len());
            if self.pods[i].cut.is_none() {
                self.violate("a pod is cut without its count");
            }
            let waiting = std::mem::take(&mut self.pods[i].volume).len();
            self.ledger.cut += u32::try_from(tasks + waiting).expect("few");
        }
        self.deleted(i, ending.proof, delete.grace_seconds());
        // The ReplicaSet may be faster than the scale, and start a spare.
        if self.random.chance(500) {
            self.controllers();
        }
        if self.random.chance(self.faults.crash) {
            self.crash();
            return Err(Stopped);
        }
        Ok(delete.done(CALL))
    }

    /// The scale may meet a conflict, or its answer may be lost, whether it was done or not.
    fn take_back(&mut self, ending: &Ending<'_>, scale: Scale) -> Result<Step<'static>, Undone> {
        let scaled = if !self.random.chance(self.faults.conflict) {
            self.taken_back.insert(ending.revision.clone(), self.instant());
            self.scale(ending.revision, ending.replicas, scale.to())?;
            Scaled::Done
        } else if self.delays.chance(500) {
            Scaled::Conflict("the Deployment was changed".to_owned())
        } else {
            if self.delays.chance(500) {
                self.scale(ending.revision, ending.replicas, scale.to())?;
            }
            Scaled::Unanswered("the answer was lost".to_owned())
        };
        Ok(scale.answered(scaled, CALL))
    }
}
