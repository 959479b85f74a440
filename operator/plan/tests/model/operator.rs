//! The operator of the model: the same loop as the real one, with a crash possible between any two calls.

use graceful_api::{RevisionHash, Signal};
use graceful_plan::retire::{self, Verdict};
use graceful_plan::{
    Absences, Action, Answer, Backoff, BackoffCause, Brake, Child, Containers, Conversation, Deletion,
    DeletionCost, DrainMark, Lags, Mark, NodeFate, Observed, Plan, PodRef, PodUid, Proof, Reading,
    Rejections, Request, TemplateVerdict, plan,
};

use super::World;
use super::kubernetes::{Deployment, Snapshot};

/// A pod that is drained, put back and renumbered by turns is patched a few times; one that is told again with a back-off, three times and then
/// after 2, 4, 8 … seconds.
const MOST_PATCHES: usize = 9;
const WINDOW: i64 = 30;

/// After a mark was written.
const REST: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

/// Between two zeros of a quiet run: pods are asked each second, and what is lost fails.
const LONGEST_GAP: jiff::SignedDuration = jiff::SignedDuration::from_secs(7);

/// Why an action was not done.
enum Undone {
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
                dialogue.begin(*conversation, LONGEST_GAP, now);
            }
        }
        self.conversations = plan.conversations;
        let before = self.acted;
        for action in plan.actions {
            if self.random.chance(self.faults.crash) {
                self.crash();
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

    /// A view stays as it is, and the clock goes on: until the moment at which a plan asks to be made again, it is the same plan. Otherwise something
    /// would be done, or told, later than it should.
    fn check_alarm(&mut self, observed: &Observed, plan: &Plan) {
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
    fn patched(&mut self, uid: &PodUid) {
        let from = self.now - jiff::SignedDuration::from_secs(WINDOW);
        let patches = self.patches.entry(uid.clone()).or_default();
        patches.retain(|at| *at > from);
        patches.push(self.now);
        let many = patches.len();
        if many > MOST_PATCHES {
            self.violate(&format!("P6: {uid} was patched {many} times within {WINDOW} s"));
        }
    }

    pub(crate) fn crash(&mut self) {
        self.patches.clear();
        self.dialogues.clear();
        self.conversations.clear();
        self.backoffs.clear();
        self.brake = Brake::default();
        self.rejections = Rejections::default();
        self.absences = Absences::default();
        self.lags = Lags::default();
        self.taken_back.clear();
        self.late.clear();
    }

    /// What is left alone for now, and a little longer: what is not tried again by then has no reason to be.
    pub(super) fn backoff(&self, of: &str) -> Option<Backoff> {
        let known = |h: &Backoff| h.until + jiff::SignedDuration::from_secs(5) > self.now;
        self.backoffs.get(of).map(|(_, h)| h.clone()).filter(known)
    }

    /// Leaves it alone, longer each time.
    fn back_off(&mut self, of: &str, cause: BackoffCause, message: &str) -> Undone {
        let times = self.backoffs.get(of).map_or(0, |(times, _)| *times);
        let pause = jiff::SignedDuration::from_secs(5 << times.min(4));
        let backoff = Backoff { cause, message: message.to_owned(), until: self.now + pause };
        self.backoffs.insert(of.to_owned(), (times + 1, backoff));
        Undone::Refused
    }

    /// P3 on the very view that was planned on: no drain below the budget, no pod above the surge.
    fn check_budget(&mut self, seen: &Observed, plan: &Plan) {
        let app = &seen.app;
        // What the operator cannot know of older pods it need not; a pod of the update revision must have said that it takes work.
        let accepts = |p: &graceful_plan::Pod| {
            let contact = seen.contacts.get(&p.uid);
            let said = contact.and_then(|c| c.answer.as_ref());
            // One that refuses our token was told no epoch.
            let untold = contact.is_some_and(|c| c.refused.is_some());
            let as_told = |s: graceful_plan::Protocol| s.accepting && (untold || p.epoch <= Some(s.epoch));
            p.revision != app.update || said.is_some_and(|a| a.protocol.is_none_or(as_told))
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
                    let there =
                        seen.pods.iter().filter(|p| p.is_counted() && p.revision == *revision).count();
                    to.saturating_sub((*from).max(u32::try_from(there).expect("few")))
                }
                _ => 0,
            })
            .sum();
        // One that drains itself after its DELETE counts until it is gone.
        let drains_itself = |p: &graceful_plan::Pod| {
            let there = self.pods.iter().any(|it| it.uid == p.uid && it.killed_at.is_some());
            p.terminating && there && app.replace_when == graceful_api::ReplaceWhen::Drained
        };
        let live = seen.pods.iter().filter(|p| p.is_counted() || drains_itself(p)).filter(lasts).count();
        let ceiling = (app.replicas + app.max_surge) as usize;
        if made > 0 && live + made as usize > ceiling {
            self.violate(&format!("P3: {made} pods made beside {live} with a ceiling of {ceiling}"));
        }
    }

    fn execute(&mut self, view: &Snapshot, action: Action) -> Result<(), Undone> {
        match action {
            Action::AddFinalizer => self.app.finalizer = true,
            Action::ReleaseFinalizer => {
                let drains = self.pods.iter().any(|p| p.killed_at.is_some());
                if drains && !self.surroundings.namespace_terminating && self.app.deletion == Deletion::Drain
                {
                    self.violate("the finalizer lets go of a pod that still drains itself");
                }
                self.exists = false;
            }
            Action::SyncService => self.surroundings.service = Child::AsWanted,
            Action::SyncBudget => self.surroundings.budget = Child::AsWanted,
            Action::DryRunTemplate { .. } => self.dry_run(),
            Action::CreateRevision { revision, replicas } => {
                let (created, policy) = (self.now, self.app.policy);
                self.deployments.entry(revision).or_insert(Deployment {
                    replicas,
                    created,
                    policy,
                    proven: false,
                    of_its_replica_set: 0,
                    says: (0, created),
                    given_up: false,
                    failing: None,
                    tries: (created, 0),
                    nudged: None,
                });
                self.surroundings.template = TemplateVerdict::Unknown;
            }
            Action::SyncPolicy { revision } => {
                let policy = self.app.policy;
                self.deployments.get_mut(&revision).ok_or(Stopped)?.policy = policy;
            }
            Action::Nudge { revision } => {
                let deployment = self.deployments.get_mut(&revision).ok_or(Stopped)?;
                (deployment.given_up, deployment.nudged) = (false, Some(self.now));
                deployment.tries.0 = self.now;
            }
            Action::MarkProven { revision } => {
                self.deployments.get_mut(&revision).ok_or(Stopped)?.proven = true;
            }
            Action::ScaleUp { revision, from, to } => {
                self.permitted(&revision)?;
                self.scale(&revision, from, to)?;
                let running = self.live(&revision).iter().filter(|p| p.has_begun()).count();
                let lately = |at: &jiff::Timestamp| self.now.duration_since(*at).as_secs() < 60;
                if running > from as usize && self.taken_back.get(&revision).is_some_and(lately) {
                    self.late.insert(revision.clone());
                    self.back_off(&revision.0, BackoffCause::TooSlow, "its ReplicaSet follows late");
                }
            }
            Action::ScaleDown { revision, from, to } => {
                if !retire::may_lower(to, &self.live(&revision)) {
                    return Err(Stopped);
                }
                self.permitted(&revision)?;
                self.scale(&revision, from, to)?;
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
                let found = &mut self.pods[i];
                found.routed = false;
                if signal == Signal::Sigterm && cost == DeletionCost::Highest {
                    found.mark = Mark::Busy;
                }
                found.cost = if cost == DeletionCost::Highest { i32::MAX } else { i32::MIN };
                found.epoch = Some(epoch);
                found.drain = Some(DrainMark { reason, since });
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
                let until = self.now.saturating_add(REST).expect("soon");
                let found = &mut self.pods[i];
                found.mark = if busy { Mark::Busy } else { Mark::Idle };
                found.mark_rests_until = Some(until);
                found.version += 1;
            }
            Action::PutBack { pod, epoch } => {
                self.writable(&pod)?;
                let i = self.precondition(view, &pod)?;
                if self.pods[i].terminating() {
                    self.violate("a pod is put back after its DELETE");
                }
                let found = &mut self.pods[i];
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
                if self.pods.iter().any(|p| p.revision == revision && p.killed_at.is_some()) {
                    self.violate("a Deployment is deleted under a pod that drains itself");
                }
                self.deployments.remove(&revision);
            }
        }
        Ok(())
    }

    fn live(&self, revision: &RevisionHash) -> Vec<graceful_plan::Pod> {
        self.observe().observed.pods.into_iter().filter(|p| p.revision == *revision).collect()
    }

    fn scale(&mut self, revision: &RevisionHash, from: u32, to: u32) -> Result<(), Undone> {
        let deployment = self.deployments.get_mut(revision).filter(|d| d.replicas == from).ok_or(Stopped)?;
        deployment.replicas = to;
        Ok(())
    }

    /// uid and resourceVersion, as the view had them.
    fn precondition(&self, view: &Snapshot, pod: &PodRef) -> Result<usize, Undone> {
        let version = view.versions.get(&pod.uid);
        let found = self.pods.iter().position(|p| p.uid == pod.uid && Some(&p.version) == version);
        found.ok_or(Stopped)
    }

    fn permitted(&mut self, revision: &RevisionHash) -> Result<(), Undone> {
        if self.refuses_until > self.now {
            return Err(self.back_off(&revision.0, BackoffCause::Refused, "denied: change freeze"));
        }
        self.backoffs.remove(&revision.0);
        Ok(())
    }

    fn writable(&mut self, pod: &PodRef) -> Result<(), Undone> {
        if self.random.chance(self.faults.refuse_pod) {
            return Err(self.back_off(
                &pod.uid.0,
                BackoffCause::Refused,
                "denied: this pod is not to be changed",
            ));
        }
        self.backoffs.remove(&pod.uid.0);
        Ok(())
    }

    /// The kill: the scale tried dry first, with a crash possible before the DELETE and between it and the scale.
    fn retire(
        &mut self,
        pod: &PodRef,
        revision: &RevisionHash,
        replicas: u32,
        proof: Proof,
        as_well: &[(PodUid, Proof)],
    ) -> Result<(), Undone> {
        let live = self.live(revision);
        let found = live.iter().find(|p| p.uid == pod.uid);
        let others = live.iter().filter(|p| p.is_counted() && p.uid != pod.uid).count();
        let others = u32::try_from(others).expect("few");
        let Verdict::Go { scale_to, grace_seconds } = retire::check(found, proof, replicas, others) else {
            return Err(Stopped);
        };
        let i = self.pods.iter().position(|p| p.uid == pod.uid).ok_or(Stopped)?;
        if scale_to != replicas {
            if self.refuses_until > self.now {
                return Err(self.back_off(&revision.0, BackoffCause::Refused, "denied: change freeze"));
            }
            let (slow, policy) = (self.slow_until > self.now, self.deployments[revision].policy);
            let may = retire::may_scale_first(&pod.uid, proof, as_well, policy, &live);
            if slow && !may {
                let told = "the API server is too slow to retire safely: a scale takes 2 s";
                return Err(self.back_off(&revision.0, BackoffCause::TooSlow, told));
            }
            if slow || (may && self.late.contains(revision)) {
                self.judge(i, proof);
                self.note(proof);
                self.pods[i].cost = i32::MIN;
                self.brake.ended();
                self.scale(revision, replicas, scale_to)?;
                // A slow API server's ReplicaSet controller is slow as well.
                self.controller_back = self.now + jiff::SignedDuration::from_secs(2);
                return Ok(());
            }
        }
        self.judge(i, proof);
        self.note(proof);
        self.deeds.ended += 1;
        self.brake.ended();
        let cut = matches!(proof, Proof::Cut { .. });
        let tasks = self.pods[i].process.as_ref().map_or(0, |p| p.tasks.len());
        if cut {
            self.pods[i].cut = Some(tasks as u64);
            self.ledger.cut += u32::try_from(tasks).expect("few");
            if let Some(p) = &mut self.pods[i].process {
                p.tasks.clear();
            }
            let waiting = std::mem::take(&mut self.pods[i].volume).len();
            self.ledger.cut += u32::try_from(waiting).expect("few");
        }
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
        // The ReplicaSet may be faster than the scale, and start a spare.
        if self.random.chance(500) {
            self.controllers();
        }
        if self.random.chance(self.faults.crash) {
            self.crash();
            return Err(Stopped);
        }
        if scale_to == replicas {
            return Ok(());
        }
        // A conflict is tried again while every spare is Pending; a scale that never comes leaves a spare that runs.
        let mut tries = 0;
        while self.random.chance(self.faults.conflict) {
            tries += 1;
            if tries == 3 || !retire::may_lower(scale_to, &self.live(revision)) {
                return Err(self.back_off(
                    &revision.0,
                    BackoffCause::Refused,
                    "no scale went through after a DELETE",
                ));
            }
            self.controllers();
        }
        self.backoffs.remove(&revision.0);
        self.taken_back.insert(revision.clone(), self.now);
        self.scale(revision, replicas, scale_to)
    }

    fn note(&mut self, proof: Proof) {
        match proof {
            Proof::Idle { .. } | Proof::Quiet { .. } | Proof::Untold { .. } | Proof::HandedOver { .. } => {
                self.deeds.proven_idle += 1;
            }
            Proof::Cut { .. } => self.deeds.cut += 1,
            Proof::NotRunning | Proof::NeverWorked { .. } => {}
        }
    }

    /// The promise itself, with the knowledge that only a model has.
    fn judge(&mut self, i: usize, proof: Proof) {
        let pod = &self.pods[i];
        let open = pod.process.as_ref().is_some_and(|p| !p.closed);
        let quiet = i64::from(self.app.policy.quiet_seconds);
        let lately =
            pod.process.as_ref().is_some_and(|p| p.last_busy.duration_since(self.now).as_secs() > -quiet);
        let broken = match proof {
            Proof::Idle { .. } if pod.busy() => Some("it is busy"),
            Proof::Idle { .. } if open => Some("it still accepts"),
            Proof::Quiet { .. } | Proof::Untold { .. } if lately => Some("it was busy a moment ago"),
            Proof::Untold { .. } if !self.refuses(i) => Some("it could have been told"),
            Proof::Untold { grace_seconds, .. } if grace_seconds < self.app.policy.deadline_seconds => {
                Some("it has less than its deadline for what slips in")
            }
            Proof::HandedOver { .. } if !pod.volume.is_empty() => Some("what waits in its volume has nobody"),
            Proof::HandedOver { grace_seconds, .. } if grace_seconds < self.app.policy.deadline_seconds => {
                Some("it has less than its deadline for its own drain")
            }
            Proof::HandedOver { .. } if self.policy_of(i).signal != Signal::Sigterm => {
                Some("it does not drain itself on SIGTERM")
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

    /// What the probes do in a second: each conversation one exchange, which may be lost.
    pub(super) fn converse(&mut self) {
        let conversations: Vec<_> = self.conversations.iter().map(|(u, c)| (u.clone(), *c)).collect();
        for (uid, conversation) in conversations {
            let lost = self.random.chance(self.faults.lose);
            let Some(i) =
                self.pods.iter().position(|p| p.uid == uid && (!p.terminating() || p.killed_at.is_some()))
            else {
                // What a terminating pod said last is remembered for as long as it is there.
                if !self.pods.iter().any(|p| p.uid == uid) {
                    self.dialogues.remove(&uid);
                }
                continue;
            };
            if conversation == Conversation::Survey && self.random.chance(900) {
                continue;
            }
            // What is lost is the request, or the answer after the pod has obeyed.
            let obeyed = self.answers(&self.pods[i]) && (!lost || self.random.chance(500));
            let request = self.dialogues.entry(uid.clone()).or_default().request();
            let taken = !obeyed || self.say(i, request);
            if lost || !obeyed {
                self.unheard(&uid, "no answer in 2 s");
            } else if taken {
                self.heard(i, &uid, request);
            } else if self.refuses(i) {
                // Asked once more, whether it is the pod that is meant.
                self.heard(i, &uid, Request::Status);
                let why = "401: the token's key is not known".to_owned();
                self.dialogues.entry(uid.clone()).or_default().refused(why, self.now);
            } else {
                // The pod's own view says which epoch it has seen.
                self.unheard(&uid, "409");
                self.heard(i, &uid, Request::Status);
            }
        }
    }

    fn unheard(&mut self, uid: &PodUid, message: &str) {
        self.dialogues.entry(uid.clone()).or_default().failed(message.to_owned(), self.now);
    }

    /// False is a 409, or a 401 of one that refuses. A language other than Graceful has no word for either.
    fn say(&mut self, i: usize, request: Request) -> bool {
        let (now, graceful) = (self.now, self.graceful(i));
        if graceful && request != Request::Status && self.refuses(i) {
            return false;
        }
        let Some(process) = self.pods[i].process.as_mut().filter(|_| graceful) else {
            return true;
        };
        match request {
            Request::Drain { epoch, linger_seconds } => process.drain(epoch, linger_seconds, now),
            Request::Resume { epoch } => process.resume(epoch),
            Request::Status => true,
        }
    }

    fn refuses(&self, i: usize) -> bool {
        self.behaviour(&self.pods[i].revision) == super::Behaviour::KnowsNoKey
    }

    fn graceful(&self, i: usize) -> bool {
        self.policy_of(i).signal == Signal::Http
    }

    fn heard(&mut self, i: usize, uid: &PodUid, request: Request) {
        let (now, graceful) = (self.now, self.graceful(i));
        let Some(process) = &self.pods[i].process else {
            return;
        };
        let boot = process.boot;
        let mut answer = process.answer(now, graceful);
        // A late answer: what this very process said some time ago.
        if graceful && self.random.chance(self.faults.repeat) {
            let said = self.said.iter().filter(|(of, at_boot, _)| of == uid && *at_boot == boot);
            answer = said.map(|(_, _, a)| a.clone()).nth_back(1).unwrap_or(answer);
        }
        self.said.push((uid.clone(), boot, answer.clone()));
        let Answer { at: _, in_flight, protocol, scheduled } = answer;
        let boot_id = graceful.then(|| boot.to_string());
        let dialogue = self.dialogues.entry(uid.clone()).or_default();
        dialogue.runs_as(&boot.to_string());
        dialogue.heard(request, Reading { in_flight, protocol, scheduled, boot_id }, now);
    }

    /// One line a second that has news: when, phase, sentence; then what is done.
    fn record(&mut self, plan: &Plan) {
        let mut line = format!(
            "{:>4} s  {:<9}{}",
            self.elapsed(),
            format!("{:?}", plan.report.phase),
            plan.report.waiting_for
        );
        for action in &plan.actions {
            line.push_str("\n            → ");
            line.push_str(&words(action));
        }
        self.transcript.push(line.trim_end().to_owned());
    }
}

/// An action as a person would say it.
fn words(action: &Action) -> String {
    match action {
        Action::AddFinalizer => "add the finalizer".to_owned(),
        Action::ReleaseFinalizer => "release the finalizer".to_owned(),
        Action::SyncService => "sync the Service".to_owned(),
        Action::SyncBudget => "sync the PodDisruptionBudget".to_owned(),
        Action::DryRunTemplate { revision } => format!("dry run of {revision}"),
        Action::CreateRevision { revision, replicas } => {
            format!("create {revision} with {replicas} replicas")
        }
        Action::SyncPolicy { revision } => format!("sync the policy of {revision}"),
        Action::MarkProven { revision } => format!("mark {revision} as proven"),
        Action::Nudge { revision } => format!("nudge the controller of {revision}"),
        Action::ScaleUp { revision, from, to } => format!("scale {revision} up, {from} to {to}"),
        Action::ScaleDown { revision, from, to } => format!("scale {revision} down, {from} to {to}"),
        Action::Unroute { pod, epoch, reason, .. } => {
            format!("unroute {} for {reason}, epoch {epoch}", pod.name)
        }
        Action::Unbridge { pod } => format!("end the linger of {}", pod.name),
        Action::Mark { pod, busy: true } => format!("mark {} as busy", pod.name),
        Action::Mark { pod, busy: false } => format!("mark {} as idle", pod.name),
        Action::PutBack { pod, epoch } => format!("put {} back, epoch {epoch}", pod.name),
        Action::Retire { pod, replicas, proof, .. } => {
            let proof = match proof {
                Proof::Idle { epoch } => format!("idle in epoch {epoch}"),
                Proof::Quiet { epoch } => format!("quiet in epoch {epoch}"),
                Proof::Untold { epoch, grace_seconds } => {
                    format!("quiet in epoch {epoch}, since it refuses to be told, grace {grace_seconds} s")
                }
                Proof::HandedOver { epoch, grace_seconds } => {
                    format!("SIGTERM begins its own drain, epoch {epoch}, grace {grace_seconds} s")
                }
                Proof::Cut { epoch, tasks } => match tasks {
                    Some(n) => format!("cut with {n} in flight, epoch {epoch}"),
                    None => format!("cut unheard, epoch {epoch}"),
                },
                Proof::NotRunning => "nothing runs in it".to_owned(),
                Proof::NeverWorked { grace_seconds } => {
                    format!("its revision never worked, grace {grace_seconds} s")
                }
            };
            format!("delete {} ({proof}), its Deployment from {replicas}", pod.name)
        }
        Action::DeleteRevision { revision } => format!("delete Deployment {revision}"),
    }
}
