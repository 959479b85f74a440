//! What runs in a pod: it accepts tasks, finishes them, and speaks the drain protocol, or fails to.

use graceful_api::{DrainPolicy, OnDeadline, RevisionHash, Signal};
use graceful_plan::{Answer, Containers, Epoch, InFlight, NodeFate, Protocol, Readiness};
use jiff::{SignedDuration, Timestamp};

use super::World;
use super::kubernetes::Pod;

/// What a template's pods do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Starts, serves, drains.
    #[default]
    Good,
    /// Its image cannot be pulled: it never starts.
    BadImage,
    /// Ends a second after each start.
    CrashLoop,
    /// Becomes Ready after each start, as a pod without a readiness probe does, and ends a second later.
    Flapping,
    /// Runs and is never Ready.
    NeverReady,
    /// As `NeverReady`, and it pulls its work all the same.
    PullsUnready,
    /// Its count is in a side container that crashes now and then; the worker beside it goes on.
    SideCrash,
    /// Serves, and never answers for its in-flight count.
    Silent,
    /// The kubelet rejects its pods (OutOfcpu): they end as they come, and their records stay.
    Rejected,
    /// Admission takes our label off its pods: they run, and neither a ReplicaSet nor the operator knows them.
    Unlabelled,
    /// The API server refuses it.
    Refused,
    /// Says `accepting: false` for its first twenty seconds, though nobody drained it.
    WarmsUpRefusing,
    /// Its epoch is a clock, whatever it is told.
    ClockEpoch,
    /// Takes the epoch of a resumption, and stays closed.
    NeverReopens,
    /// Verifies who drains it, and knows none of our keys: 401.
    KnowsNoKey,
}

/// How long a `WarmsUpRefusing` takes no work.
const WARM_UP: SignedDuration = SignedDuration::from_secs(20);

/// A process and its memory: gone when it restarts.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) behaviour: Behaviour,
    pub(crate) boot: u32,
    pub(crate) warms_until: Option<Timestamp>,
    pub(crate) epoch: u64,
    pub(crate) lingers_until: Option<Timestamp>,
    pub(crate) closed: bool,
    /// Somebody closed it, or began to, since it last opened.
    pub(crate) closed_by_hand: bool,
    /// When each task ends.
    pub(crate) tasks: Vec<Timestamp>,
    /// When it last had one.
    pub(crate) last_busy: Timestamp,
}

impl Process {
    pub(crate) fn new(boot: u32, behaviour: Behaviour, now: Timestamp) -> Self {
        Self {
            behaviour,
            boot,
            warms_until: (behaviour == Behaviour::WarmsUpRefusing).then(|| now + WARM_UP),
            epoch: 0,
            lingers_until: None,
            closed: false,
            closed_by_hand: false,
            tasks: Vec::new(),
            last_busy: Timestamp::MIN,
        }
    }

    pub(crate) fn answer(&self, now: Timestamp, graceful: bool) -> Answer {
        let total = self.tasks.len() as u64;
        Answer {
            at: now,
            in_flight: InFlight { total, queued: 0, running: total, requests: 0 },
            protocol: graceful.then_some(Protocol {
                epoch: self.says(now),
                accepting: !self.closed && self.warms_until.is_none(),
                resumable: true,
            }),
            scheduled: None,
        }
    }

    fn says(&self, now: Timestamp) -> Epoch {
        match self.behaviour {
            Behaviour::ClockEpoch => Epoch(u64::try_from(now.as_second()).expect("after 1970")),
            _ => Epoch(self.epoch),
        }
    }

    /// `PUT /drain`. False is a 409.
    pub(crate) fn drain(&mut self, epoch: Epoch, linger: u32, now: Timestamp) -> bool {
        self.warms_until = None;
        let draining = self.closed || self.lingers_until.is_some();
        if epoch.0 == self.epoch && draining {
            return true;
        }
        if epoch.0 <= self.epoch {
            return false;
        }
        self.epoch = epoch.0;
        self.lingers_until = Some(now + SignedDuration::from_secs(i64::from(linger)));
        true
    }

    /// `DELETE /drain`.
    pub(crate) fn resume(&mut self, epoch: Epoch) -> bool {
        if epoch.0 <= self.epoch {
            return false;
        }
        let stays =
            self.behaviour == Behaviour::NeverReopens && (self.closed || self.lingers_until.is_some());
        *self = Self {
            epoch: epoch.0,
            lingers_until: None,
            closed: stays,
            closed_by_hand: false,
            ..self.clone()
        };
        true
    }
}

impl World {
    /// Containers start, crash and restart; tasks arrive and end.
    pub(super) fn processes(&mut self) {
        let now = self.now;
        self.schedule();
        for i in 0..self.pods.len() {
            let behaviour = self.behaviour(&self.pods[i].revision);
            let restart = self.random.chance(self.faults.restart);
            self.run(i, behaviour);
            // Of a crash that no kubelet sees nobody could know.
            let seen = !self.is_unheard(&self.pods[i]);
            if restart && seen && self.pods[i].process.is_some() && self.pods[i].is_active() {
                self.crash_container(i);
            }
            self.work(i);
        }
        self.pods.retain(|p| p.gone_at.is_none_or(|at| at > now));
    }

    /// Terminating pods hold their places until they are gone.
    fn schedule(&mut self) {
        let taken = self.pods.iter().filter(|p| p.homeless_since.is_none()).count();
        let mut free = self.places.map_or(usize::MAX, |places| places.saturating_sub(taken));
        let taking: Vec<_> = (0_u32..2).filter(|node| self.takes_pods(*node as usize)).collect();
        for pod in self.pods.iter_mut().filter(|p| p.homeless_since.is_some() && p.is_active()) {
            let by_turns = taking.iter().find(|node| **node == pod.node).or(taking.first());
            if let Some(node) = by_turns.filter(|_| free > 0) {
                free -= 1;
                pod.homeless_since = None;
                pod.node = *node;
                pod.created = self.now;
            }
        }
    }

    fn run(&mut self, i: usize, behaviour: Behaviour) {
        let (now, unheard) = (self.now, self.is_unheard(&self.pods[i]));
        let pod = &mut self.pods[i];
        if unheard
            || !pod.is_active()
            || pod.homeless_since.is_some()
            || pod.starts_at.is_some_and(|at| at > now)
        {
            return;
        }
        let age = now.duration_since(pod.created).as_secs();
        let (container, readiness) = match (behaviour, age) {
            (Behaviour::Rejected, age) if age > 0 => (Containers::Finished, Readiness::Never),
            (Behaviour::BadImage | Behaviour::Rejected | Behaviour::Unlabelled | Behaviour::Refused, _)
            | (_, 0) => (Containers::NeverStarted, Readiness::Never),
            (Behaviour::CrashLoop, age) if age % 3 == 1 => (Containers::Running, Readiness::Never),
            (Behaviour::CrashLoop, _) => (Containers::Crashed, Readiness::Never),
            (Behaviour::Flapping, age) if age % 4 < 2 => (Containers::Running, Readiness::Ready(now)),
            (Behaviour::Flapping, _) => (Containers::CrashedEmpty, Readiness::Lost(now)),
            (Behaviour::NeverReady | Behaviour::PullsUnready, _) | (_, 1) => {
                (Containers::Running, Readiness::Never)
            }
            (Behaviour::SideCrash, age) if age % 5 == 4 => (Containers::HalfCrashed, Readiness::Lost(now)),
            (
                Behaviour::Good
                | Behaviour::Silent
                | Behaviour::SideCrash
                | Behaviour::WarmsUpRefusing
                | Behaviour::ClockEpoch
                | Behaviour::NeverReopens
                | Behaviour::KnowsNoKey,
                _,
            ) => match pod.readiness {
                Readiness::Ready(since) => (Containers::Running, Readiness::Ready(since)),
                Readiness::Never | Readiness::Lost(_) => (Containers::Running, Readiness::Ready(now)),
            },
        };
        if (container, readiness) != (pod.containers, pod.readiness) {
            pod.version += 1;
        }
        if container == Containers::Running && pod.process.is_none() {
            pod.boots += 1;
            let tasks = std::mem::take(&mut pod.volume);
            pod.process = Some(Process { tasks, ..Process::new(pod.boots, behaviour, now) });
        }
        if matches!(container, Containers::Crashed | Containers::CrashedEmpty) {
            let had = pod.process.take().map_or(0, |p| p.tasks.len());
            self.ledger.unpromised += u32::try_from(had).expect("few");
        }
        (pod.containers, pod.readiness) = (container, readiness);
    }

    /// The process ends. What it had is in the pod's volume, or lost, which no operator can prevent.
    fn crash_container(&mut self, i: usize) {
        self.deeds.exits += 1;
        // What a pull consumer had taken is its queue's again: a crash loop that was never Ready is cleared away without asking (ADR 2).
        let pulls = self.behaviour(&self.pods[i].revision) == Behaviour::PullsUnready;
        let (now, durable) = (self.now, self.random.chance(500) && !pulls);
        let pod = &mut self.pods[i];
        let tasks = pod.process.take().map_or(Vec::new(), |p| p.tasks);
        if durable {
            pod.volume = tasks;
        } else {
            self.ledger.unpromised += u32::try_from(tasks.len()).expect("few");
        }
        pod.version += 1;
        pod.containers = if durable { Containers::Crashed } else { Containers::CrashedEmpty };
        if pod.readiness != Readiness::Never {
            pod.readiness = Readiness::Lost(now);
        }
        pod.starts_at = Some(now + SignedDuration::from_secs(3));
    }

    /// Tasks reach pods that are routed to; a few stragglers reach those that are unrouted and still accept.
    fn work(&mut self, i: usize) {
        let now = self.now;
        let due = self.task_every > 0
            && (self.elapsed() + i64::try_from(i).expect("few")) % i64::from(self.task_every) == 0;
        let straggles = self.random.chance(200);
        let behaviour = self.behaviour(&self.pods[i].revision);
        let worker = self.policy_of(i).signal == Signal::Sigterm;
        let ends = now + SignedDuration::from_secs(i64::from(self.task_seconds));
        let listed = self.is_selected(&self.pods[i]);
        let pod = &mut self.pods[i];
        let pulls = behaviour == Behaviour::PullsUnready && pod.containers == Containers::Running;
        let ready = matches!(pod.readiness, Readiness::Ready(_));
        // A queue worker takes work for as long as it runs, whoever is routed to it.
        let pulls = pulls || (worker && ready);
        pod.was_routed |= ready && pod.routed;
        // Nobody has ever heard of one that was unrouted before it was Ready.
        let routed = pulls || (ready && (listed || (straggles && pod.was_routed)));
        let dies = self.nodes[pod.node as usize] == NodeFate::Dying;
        let Some(process) = &mut pod.process else {
            if pod.killed_at.is_some() {
                pod.gone_at.get_or_insert(now);
            }
            return;
        };
        if process.warms_until.is_some_and(|until| until <= now) {
            process.warms_until = None;
        }
        if process.lingers_until.is_some_and(|until| until <= now) {
            process.lingers_until = None;
            process.closed = true;
        }
        if !process.tasks.is_empty() {
            process.last_busy = now;
        }
        let before = process.tasks.len();
        process.tasks.retain(|end| *end > now);
        self.ledger.finished += u32::try_from(before - process.tasks.len()).expect("few");
        // Closed by us, and not by hand; and not by an app that says to have been told when it was not.
        let by_us = process.closed
            && !process.closed_by_hand
            && behaviour != Behaviour::ClockEpoch
            && pod.drain.is_some()
            && pod.epoch == Some(Epoch(process.epoch));
        let refused = due && ready && by_us && listed && !dies && pod.deleted_at.is_none();
        if due && routed && !process.closed && process.warms_until.is_none() && pod.deleted_at.is_none() {
            process.tasks.push(ends);
            process.last_busy = now;
            self.ledger.accepted += 1;
        }
        if refused && !self.is_put_back() {
            self.violate("a pod has closed its door while its Service sends clients to it");
        }
        self.drain_itself(i);
    }

    /// A pod that was handed over to its own drain exits when it is done, and is killed when its grace is over.
    fn drain_itself(&mut self, i: usize) {
        let now = self.now;
        let cut = self.policy_of(i).on_deadline == OnDeadline::Terminate;
        let pod = &mut self.pods[i];
        let Some(killed_at) = pod.killed_at else { return };
        let left = pod.process.as_ref().map_or(0, |p| p.tasks.len());
        if left > 0 && now < killed_at {
            return;
        }
        let left = u32::try_from(left).expect("few");
        match (pod.shortened, cut) {
            (true, _) => self.ledger.unpromised += left,
            (false, true) => self.ledger.cut += left,
            (false, false) => self.ledger.lost += left,
        }
        pod.process = None;
        pod.gone_at = Some(now);
    }

    pub(super) fn policy_of(&self, i: usize) -> DrainPolicy {
        self.deployments.get(&self.pods[i].revision).map_or(self.app.policy, |d| d.policy)
    }

    /// A pod's SIGTERM: it drains itself, and what is not finished when the grace period ends is lost. `promised` says whose fault that is.
    pub(super) fn end(&mut self, i: usize, promised: bool) {
        self.end_within(i, promised, self.grace_seconds);
    }

    /// The same with a grace of the DELETE's own.
    pub(super) fn end_within(&mut self, i: usize, promised: bool, grace_seconds: i64) {
        let now = self.now;
        let gone = now + SignedDuration::from_secs(2);
        let grace = now + SignedDuration::from_secs(grace_seconds);
        let pod = &mut self.pods[i];
        (pod.deleted_at, pod.grace_ends) = (Some(now), Some(grace));
        pod.version += 1;
        // What waits in a volume for the next start has none.
        let waiting = u32::try_from(std::mem::take(&mut pod.volume).len()).expect("few");
        let tasks = pod.process.take().map_or(Vec::new(), |p| p.tasks);
        pod.gone_at = Some(tasks.iter().copied().max().map_or(gone, |last| last.min(grace)).max(gone));
        let lost = u32::try_from(tasks.iter().filter(|end| **end > grace).count()).expect("few");
        self.ledger.finished += u32::try_from(tasks.len()).expect("few") - lost;
        let lost = lost + waiting;
        if promised {
            self.ledger.lost += lost;
        } else {
            self.ledger.unpromised += lost;
        }
    }

    /// Its SIGTERM begins a drain of its own, within a grace of the DELETE's own.
    pub(super) fn hand_over(&mut self, i: usize, grace_seconds: u32) {
        let now = self.now;
        let pod = &mut self.pods[i];
        pod.deleted_at = Some(now);
        pod.killed_at = Some(now + SignedDuration::from_secs(i64::from(grace_seconds)));
        pod.version += 1;
        let waiting = std::mem::take(&mut pod.volume).len();
        self.ledger.lost += u32::try_from(waiting).expect("few");
    }

    pub(crate) fn behaviour(&self, revision: &RevisionHash) -> Behaviour {
        self.behaviours.get(revision).copied().unwrap_or_default()
    }

    /// Who may be asked: a process that runs, of a pod that is not silent.
    pub(super) fn answers(&self, pod: &Pod) -> bool {
        let cut_off = pod.homeless_since.is_none()
            && self.node_silent[pod.node as usize].is_some_and(|(_, answers)| !answers);
        pod.process.is_some()
            && !cut_off
            && pod.containers != Containers::HalfCrashed
            && self.behaviour(&pod.revision) != Behaviour::Silent
    }
}
