//! Deployments, ReplicaSets and pods: just enough of the real controllers, and the real order in which a ReplicaSet picks its victims.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use graceful_api::{DrainPolicy, DrainReason, RevisionHash, Signal};
use graceful_plan::refusals::Subject;
use graceful_plan::{
    Containers, CutNote, DrainNote, Endpoints, Epoch, Failure, Kubelet, Mark, Node, NodeFate, Observed,
    PodUid, Readiness, Revision, TemplateVerdict,
};
use jiff::{SignedDuration, Timestamp};

use super::World;
use super::adoption;
use super::process::{Behaviour, Process};

/// The pods' usual `terminationGracePeriodSeconds`: less than a task, so that a wrong kill is a loss.
pub(crate) const GRACE_SECONDS: i64 = 3;

/// After so many seconds of failures the Deployment controller forgets a Deployment.
const GIVES_UP: i64 = 80;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deployment {
    /// It carries our label.
    pub(crate) ours: bool,
    pub(crate) replicas: u32,
    pub(crate) created: Timestamp,
    pub(crate) policy: DrainPolicy,
    pub(crate) proven: bool,
    /// What its controller has told its ReplicaSet.
    pub(crate) of_its_replica_set: u32,
    /// Its controller has tried too often, and looks no more until something is written to it.
    pub(crate) given_up: bool,
    /// What it says now, and since when.
    pub(crate) says: (u32, Timestamp),
    /// When it last got fewer.
    pub(crate) lowered: Timestamp,
    /// Since when its ReplicaSet cannot make pods.
    pub(crate) failing: Option<Timestamp>,
    /// When that tries again, by itself and after how many seconds.
    pub(crate) tries: (Timestamp, i64),
    /// When the operator last wrote to it for its controllers' sake.
    pub(crate) nudged: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: PodUid,
    pub(crate) revision: RevisionHash,
    pub(crate) created: Timestamp,
    /// One of two, by turns.
    pub(crate) node: u32,
    /// Since when no node takes it.
    pub(crate) homeless_since: Option<Timestamp>,
    /// It carries the labels of the app's pods.
    pub(crate) enlisted: bool,
    /// Its resourceVersion.
    pub(crate) version: u64,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) gone_at: Option<Timestamp>,
    /// When the grace of its DELETE is over, where that is its template's.
    pub(crate) grace_ends: Option<Timestamp>,
    /// It was handed over to its own drain, and is killed then at the latest.
    pub(crate) killed_at: Option<Timestamp>,
    /// Somebody has shortened that.
    pub(crate) shortened: bool,
    pub(crate) routed: bool,
    /// It was Ready with the label once: clients may have it in their tables.
    pub(crate) was_routed: bool,
    /// The EndpointSlice controller has it listed until then, though it is routed to no more.
    pub(crate) listed_until: Timestamp,
    pub(crate) bridged: bool,
    pub(crate) mark: Mark,
    /// The operator has just written it.
    pub(crate) mark_rests_until: Option<Timestamp>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) drain: Option<DrainNote>,
    /// Its deletion cost.
    pub(crate) cost: i32,
    pub(crate) readiness: Readiness,
    pub(crate) containers: Containers,
    pub(crate) boots: u32,
    pub(crate) process: Option<Process>,
    /// Accepted tasks that outlive a crash.
    pub(crate) volume: Vec<Timestamp>,
    /// Its container starts again then.
    pub(crate) starts_at: Option<Timestamp>,
    /// The cut that was written on it before its end.
    pub(crate) cut: Option<u64>,
}

impl Pod {
    pub(crate) fn terminating(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// It was given this node.
    pub(crate) fn on(&self, node: usize) -> bool {
        self.node as usize == node && self.homeless_since.is_none()
    }

    /// A ReplicaSet counts it.
    pub(crate) fn is_active(&self) -> bool {
        !self.terminating() && self.containers != Containers::Finished
    }

    pub(crate) fn busy(&self) -> bool {
        self.process.as_ref().is_some_and(|p| !p.tasks.is_empty()) || !self.volume.is_empty()
    }

    /// Clients are sent to it.
    pub(crate) fn is_listed(&self, now: Timestamp) -> bool {
        self.routed || self.listed_until > now
    }

    /// As an operator sees it that has looked all the time, or for the first time just now.
    fn endpoints(&self, now: Timestamp) -> Endpoints {
        match self.drain {
            Some(_) if self.listed_until > now => Endpoints::Listed {
                slice: "tasks-abc".to_owned(),
                managed_by: "endpointslice-controller.k8s.io".to_owned(),
            },
            Some(note) if self.listed_until > note.since => Endpoints::WithdrawnAt(self.listed_until),
            Some(_) | None => Endpoints::Withdrawn,
        }
    }

    fn seen(&self, behaviour: Behaviour, grace_seconds: i64, now: Timestamp) -> graceful_plan::Pod {
        graceful_plan::Pod {
            name: self.name.clone(),
            uid: self.uid.clone(),
            revision: self.revision.clone(),
            created: self.created,
            enlisted: self.enlisted,
            terminating: self.terminating(),
            routed: self.routed,
            cheapest: self.cost == i32::MIN,
            endpoints: self.endpoints(now),
            bridged: self.bridged,
            mark: self.mark,
            mark_rests_until: self.mark_rests_until,
            epoch: self.epoch,
            drain: self.drain,
            cut: self.cut.map(|tasks| CutNote { tasks: Some(tasks) }),
            ends_since: self.deleted_at,
            grace_ends: self.killed_at.or(self.grace_ends).or(self.gone_at),
            readiness: self.readiness,
            containers: self.containers,
            node: Node {
                name: self.homeless_since.is_none().then(|| format!("node{}", self.node + 1)),
                ..Node::default()
            },
            grace_seconds: u32::try_from(grace_seconds).expect("few"),
            unschedulable: self.homeless_since,
            write_backoff: None,
            trouble: match (self.containers, behaviour) {
                _ if self.homeless_since.is_some() => Some(
                    "not scheduled: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules"
                        .to_owned(),
                ),
                (Containers::Finished, Behaviour::Rejected) => {
                    Some("OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu".to_owned())
                }
                (Containers::NeverStarted, Behaviour::BadImage) => Some("ImagePullBackOff".to_owned()),
                (Containers::Crashed | Containers::CrashedEmpty, _) => Some("CrashLoopBackOff".to_owned()),
                (Containers::HalfCrashed, _) => Some("container exporter: CrashLoopBackOff".to_owned()),
                _ => None,
            },
        }
    }
}

/// What a watch cache held at some moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) at: Timestamp,
    pub(crate) observed: Observed,
    /// resourceVersions of the pods.
    pub(crate) versions: BTreeMap<PodUid, u64>,
}

impl World {
    /// The ReplicaSet controller, which counts no finished pod, and the garbage collector for pods whose Deployment is gone.
    pub(super) fn controllers(&mut self) {
        if self.random.chance(self.faults.idle_controller / 4) {
            let away = i64::try_from(self.random.next() % 5).expect("few");
            self.controller_back = self.now + SignedDuration::from_secs(away);
        }
        if self.now < self.controller_back {
            return;
        }
        // A webhook on ReplicaSets that takes long, or a Deployment controller that is busy with others: their own controller goes on.
        if self.random.chance(self.faults.idle_controller / 4) {
            let away = i64::try_from(self.random.next() % 6).expect("few");
            self.deployments_followed = self.now + SignedDuration::from_secs(away);
        }
        let (now, take, full) = (self.now, self.replica_sets_take, self.replica_sets_full);
        for deployment in self.deployments.values_mut() {
            if full.is_some_and(|since| deployment.created >= since) {
                deployment.failing.get_or_insert(now);
                continue;
            }
            if deployment.says.0 != deployment.replicas {
                (deployment.says, deployment.given_up) = ((deployment.replicas, now), false);
                deployment.tries.0 = now;
            }
            let tried = now.duration_since(deployment.says.1).as_secs();
            deployment.given_up |= deployment.of_its_replica_set != deployment.replicas && tried == GIVES_UP;
            if now >= self.deployments_followed && tried >= take && !deployment.given_up {
                deployment.of_its_replica_set = deployment.replicas;
            }
        }
        let wanted: Vec<_> = self
            .deployments
            .iter()
            .filter(|(_, d)| !self.lacks_replica_set(d))
            .map(|(h, d)| (h.clone(), d.of_its_replica_set))
            .collect();
        for (hash, replicas) in wanted {
            let active: Vec<usize> = (0..self.pods.len())
                .filter(|i| self.pods[*i].revision == hash && self.pods[*i].is_active())
                .collect();
            let have = u32::try_from(active.len()).expect("few");
            let failing = self.deployments.get_mut(&hash).expect("it is there");
            let room = self.quota.map_or(usize::MAX, |quota| quota.saturating_sub(self.pods.len()));
            let mut missing = replicas.saturating_sub(have) as usize;
            // One that has failed waits, twice as long each time, whatever room there is by then.
            if missing > 0 && failing.failing.is_some() && self.now < failing.tries.0 {
                missing = 0;
            } else {
                let pause = if missing > room { (2 * failing.tries.1).clamp(1, 1000) } else { 0 };
                failing.tries = (self.now + SignedDuration::from_secs(pause), pause);
                failing.failing = (missing > room).then(|| failing.failing.unwrap_or(self.now));
            }
            if self.behaviour(&hash) == Behaviour::Unlabelled {
                self.deeds.strays += missing.min(room);
                continue;
            }
            for _ in 0..missing.min(room) {
                self.make_pod(&hash);
            }
            let beside =
                |i: usize| active.iter().filter(|j| self.pods[**j].node == self.pods[i].node).count();
            let mut order: Vec<_> =
                active.iter().map(|i| (victim_order(&self.pods[*i], beside(*i)), *i)).collect();
            order.sort();
            for (_, i) in order.into_iter().take(have.saturating_sub(replicas) as usize) {
                // One with all the grace that a drain may take drains itself: the ledger tells whether it did.
                let drains_itself = self.grace_seconds >= i64::from(self.app.policy.deadline_seconds);
                // So does one whose admission cannot be closed, with what slips in after its zero: a ReplicaSet that is told to delete it may do so late.
                let let_go = self.pods[i].cost == i32::MIN && self.policy_of(i).signal != Signal::Http;
                let too_late_to_know = self.crashed_since_the_scale(i);
                if self.pods[i].busy() && !drains_itself && !let_go && !too_late_to_know {
                    let what = format!("the ReplicaSet of {hash} took the busy pod {}", self.pods[i].name);
                    self.violate(&what);
                }
                // A worker's spare has taken work before a late ReplicaSet took it back, within its template's grace: ADR 19 says so, and a Warning.
                let spare = self.pods[i].drain.is_some_and(|note| note.reason == DrainReason::Spare);
                let said = spare && !drains_itself && self.policy_of(i).signal == Signal::Sigterm;
                self.deeds.ended += 1;
                self.end(i, !said && !too_late_to_know);
            }
        }
        for i in 0..self.pods.len() {
            if !self.deployments.contains_key(&self.pods[i].revision) && !self.pods[i].terminating() {
                if self.pods[i].busy() {
                    let what = format!("a Deployment was deleted under the busy pod {}", self.pods[i].name);
                    self.violate(&what);
                }
                self.end(i, true);
            }
        }
    }

    fn make_pod(&mut self, hash: &RevisionHash) {
        self.names += 1;
        let name = format!("tasks-{hash}-{}", self.names);
        self.pods.push(Pod {
            uid: PodUid(format!("uid-{}", self.names)),
            name,
            revision: hash.clone(),
            created: self.now,
            node: self.names % 2,
            homeless_since: Some(self.now).filter(|_| self.places.is_some() || !self.all_take_pods()),
            enlisted: !hash.is_adopted(),
            version: 1,
            deleted_at: None,
            gone_at: None,
            grace_ends: None,
            killed_at: None,
            shortened: false,
            routed: true,
            was_routed: false,
            listed_until: Timestamp::MIN,
            bridged: false,
            mark: if self.app.hold_while_busy { Mark::Busy } else { Mark::Absent },
            mark_rests_until: None,
            epoch: None,
            drain: None,
            cost: 0,
            readiness: Readiness::Never,
            containers: Containers::NeverStarted,
            boots: 0,
            process: None,
            volume: Vec::new(),
            starts_at: None,
            cut: None,
        });
    }

    /// The user deletes a pod; the record of an evicted one as well.
    pub(crate) fn kubectl_delete_pod(&mut self, nth: usize) {
        let live: Vec<_> = (0..self.pods.len()).filter(|i| !self.pods[*i].terminating()).collect();
        if let Some(i) = live.get(nth % live.len().max(1)) {
            self.deeds.exits += 1;
            self.end(*i, false);
        }
    }

    /// Somebody shortens the grace of a pod that drains itself.
    pub(crate) fn shorten(&mut self, nth: usize, seconds: i64) {
        let until = self.now + SignedDuration::from_secs(seconds);
        let mut draining: Vec<_> = self.pods.iter_mut().filter(|p| p.killed_at.is_some()).collect();
        let count = draining.len().max(1);
        if let Some(pod) = draining.get_mut(nth % count) {
            pod.killed_at = pod.killed_at.min(Some(until));
            pod.shortened = true;
            pod.version += 1;
            self.deeds.exits += 1;
        }
    }

    /// The kubelet evicts a pod, or its node shuts down: what it had is lost, and its record stays.
    pub(crate) fn evict(&mut self, nth: usize) {
        let now = self.now;
        let mut living: Vec<_> = self.pods.iter_mut().filter(|p| p.is_active()).collect();
        let count = living.len().max(1);
        let Some(pod) = living.get_mut(nth % count) else {
            return;
        };
        let had = pod.process.take().map_or(0, |p| p.tasks.len()) + std::mem::take(&mut pod.volume).len();
        pod.containers = Containers::Finished;
        if pod.readiness != Readiness::Never {
            pod.readiness = Readiness::Lost(now);
        }
        pod.version += 1;
        self.deeds.exits += 1;
        self.ledger.unpromised += u32::try_from(had).expect("few");
    }

    /// The scheduler puts pods on either node.
    pub(super) fn all_take_pods(&self) -> bool {
        (0..self.nodes.len()).all(|node| self.takes_pods(node))
    }

    pub(super) fn takes_pods(&self, node: usize) -> bool {
        self.nodes[node] == NodeFate::Stays && self.node_silent[node].is_none()
    }

    /// A node ends: what ran there is gone, and a new one comes in its place.
    pub(crate) fn node_ends(&mut self, node: usize) {
        for i in 0..self.pods.len() {
            let pod = &mut self.pods[i];
            if pod.node as usize != node || pod.homeless_since.is_some() {
                continue;
            }
            let had = pod.process.take().map_or(0, |p| p.tasks.len()) + std::mem::take(&mut pod.volume).len();
            self.ledger.unpromised += u32::try_from(had).expect("few");
            pod.deleted_at.get_or_insert(self.now);
            pod.gone_at = Some(self.now);
            pod.version += 1;
            self.deeds.exits += 1;
        }
        self.nodes[node] = NodeFate::Stays;
    }

    /// A node's agent stops being heard, and its pods are said to be not Ready; what runs there runs on, and answers or does not.
    pub(crate) fn node_falls_silent(&mut self, node: usize, seconds: i64, answers: bool) {
        self.node_silent[node] = Some((self.now + SignedDuration::from_secs(seconds), answers));
        for pod in self.pods.iter_mut().filter(|p| p.on(node) && p.is_active()) {
            if matches!(pod.readiness, Readiness::Ready(_)) {
                pod.readiness = Readiness::Lost(self.now);
                pod.version += 1;
            }
        }
    }

    /// Nobody hears its node.
    pub(super) fn is_unheard(&self, pod: &Pod) -> bool {
        pod.homeless_since.is_none() && self.node_silent[pod.node as usize].is_some()
    }

    /// It drains itself after its DELETE, and not on a node that a view of late shows as silent: for such a pod nothing waits.
    pub(super) fn is_awaited(&self, pod: &Pod) -> bool {
        let heard = self.now.duration_since(self.node_heard_since[pod.node as usize]);
        pod.killed_at.is_some() && !self.is_unheard(pod) && heard > super::OLDEST_VIEW
    }

    /// Its container crashed, with work in its volume, after its Deployment was last scaled down: no look before that scale could have shown it (ADR 12).
    fn crashed_since_the_scale(&self, i: usize) -> bool {
        let pod = &self.pods[i];
        let lowered = self.deployments.get(&pod.revision).map(|d| d.lowered);
        let crashed = (pod.containers == Containers::Crashed).then_some(pod.readiness);
        matches!((crashed, lowered), (Some(Readiness::Lost(at)), Some(lowered)) if at >= lowered)
    }

    /// Somebody has shut a node down, and says so. What ran there is lost; its pods are still listed, but for those that were ending.
    pub(crate) fn out_of_service(&mut self, node: usize) {
        for pod in self.pods.iter_mut().filter(|p| p.on(node) && p.killed_at.is_some()) {
            let had = pod.process.take().map_or(0, |p| p.tasks.len());
            pod.gone_at = Some(self.now);
            self.ledger.unpromised += u32::try_from(had).expect("few");
        }
        for pod in self.pods.iter_mut().filter(|p| p.on(node) && p.is_active()) {
            let had = pod.process.take().map_or(0, |p| p.tasks.len()) + std::mem::take(&mut pod.volume).len();
            self.ledger.unpromised += u32::try_from(had).expect("few");
            pod.readiness = Readiness::Lost(self.now);
            pod.containers = Containers::Unknown;
            pod.starts_at = Some(Timestamp::MAX);
            pod.version += 1;
            self.deeds.exits += 1;
        }
        self.nodes[node] = NodeFate::ShutDown;
    }

    /// Somebody drains a pod by hand, past the operator.
    pub(crate) fn drain_by_hand(&mut self, nth: usize) {
        let now = self.now;
        let mut running: Vec<_> = self.pods.iter_mut().filter_map(|p| p.process.as_mut()).collect();
        let count = running.len().max(1);
        if let Some(process) = running.get_mut(nth % count) {
            process.closed_by_hand = process.drain(Epoch(process.epoch + 1), 1, now);
        }
    }

    /// Whether the Deployment came when a quota left no room for another ReplicaSet.
    fn lacks_replica_set(&self, deployment: &Deployment) -> bool {
        self.replica_sets_full.is_some_and(|since| deployment.created >= since)
    }

    /// What is there now.
    pub(crate) fn observe(&self) -> Snapshot {
        let revision = |(hash, d): (&RevisionHash, &Deployment)| Revision {
            hash: hash.clone(),
            name: if hash.is_adopted() { adoption::WEB.to_owned() } else { format!("tasks-{hash}") },
            replicas: d.replicas,
            created: d.created,
            policy: d.policy,
            policy_current: *hash != self.app.update || d.policy == self.app.policy,
            signal_current: *hash != self.app.update || d.policy.signal == self.app.policy.signal,
            replica_failure: d.failing.map(|since| Failure {
                message: match self.lacks_replica_set(d) {
                    false => "pods \"x\" is forbidden: exceeded quota: pods".to_owned(),
                    true => "Failed to create new replica set \"x\": exceeded quota: replicasets".to_owned(),
                },
                since,
            }),
            end_failure: None,
            has_no_replica_set: d.failing.is_some() && self.lacks_replica_set(d),
            proven: d.proven,
            scale_backoff: None,
            annotation_backoff: None,
            followed: d.of_its_replica_set == d.replicas,
            nudged: d.nudged,
        };
        Snapshot {
            at: self.now,
            observed: Observed {
                app: self.app.clone(),
                revisions: self.deployments.iter().filter(|(_, d)| d.ours).map(revision).collect(),
                pods: self
                    .pods
                    .iter()
                    .filter(|p| self.deployments.get(&p.revision).is_none_or(|d| d.ours))
                    .map(|p| {
                        let mut seen = p.seen(self.behaviour(&p.revision), self.grace_seconds, self.now);
                        if p.homeless_since.is_none() && self.nodes_unread {
                            seen.node.kubelet = Kubelet::Unread;
                        } else if p.homeless_since.is_none() {
                            seen.node.fate = self.nodes[p.node as usize];
                            if self.is_unheard(p) {
                                seen.node.kubelet = Kubelet::Silent;
                            }
                        }
                        seen
                    })
                    .collect(),
                contacts: BTreeMap::new(),
                rejected: BTreeMap::new(),
                absent: BTreeMap::new(),
                lags: BTreeMap::new(),
                surroundings: self.surroundings.clone(),
            },
            versions: self.pods.iter().map(|p| (p.uid.clone(), p.version)).collect(),
        }
    }

    /// A dry run of the update revision.
    pub(crate) fn dry_run(&mut self) {
        let behaviour = self.behaviour(&self.app.update);
        self.surroundings.template = match behaviour {
            Behaviour::Refused => {
                TemplateVerdict::Refused("spec.containers[0].image: Required value".to_owned())
            }
            _ => TemplateVerdict::Accepted,
        };
    }

    pub(super) fn remember(&mut self) {
        self.history.push(self.observe());
        let keep_from = self.history.len().saturating_sub(20);
        self.history.drain(..keep_from);
    }

    /// The view that the operator gets: the newest, or an older one that still holds its own last writes. The spec is always as read last.
    pub(super) fn view(&mut self) -> Snapshot {
        let mut snapshot = self.history.last().cloned().unwrap_or_else(|| self.observe());
        if self.random.chance(self.faults.stale) {
            let old: Vec<_> = self.history.iter().filter(|s| s.at > self.last_write).cloned().collect();
            if !old.is_empty() {
                let nth = usize::try_from(self.random.next()).unwrap_or(0) % old.len();
                snapshot = old[nth].clone();
            }
        }
        snapshot.observed.app = self.app.clone();
        snapshot.observed.surroundings = self.surroundings.clone();
        self.beside(&mut snapshot.observed.surroundings);
        snapshot.observed.contacts =
            self.dialogues.iter().map(|(uid, dialogue)| (uid.clone(), dialogue.contact().clone())).collect();
        snapshot.observed.lags = self.lags.update(&snapshot.observed.revisions, self.now);
        let (pods, now) = (&self.pods, self.instant());
        self.refusals.keep_pods(|uid| pods.iter().any(|p| p.uid == *uid), now);
        for revision in &mut snapshot.observed.revisions {
            revision.scale_backoff = self.backoff(&Subject::Deployment(revision.hash.clone()));
        }
        for pod in &mut snapshot.observed.pods {
            pod.write_backoff = self.backoff(&Subject::Pod(pod.uid.clone()));
        }
        snapshot.observed.rejected = self.rejections.update(&snapshot.observed.pods, self.now);
        snapshot.observed.absent =
            self.absences.update(&snapshot.observed.revisions, &snapshot.observed.pods, self.now);
        snapshot.observed.surroundings.brake = self.brake.update(&snapshot.observed, self.now);
        snapshot
    }
}

/// The real order: Pending before Running, not Ready before Ready, lower deletion cost, more pods of its own beside it, Ready for less time,
/// more restarts, newer.
fn victim_order(pod: &Pod, beside: usize) -> impl Ord + use<> {
    let pending = pod.containers == Containers::NeverStarted;
    let ready_since = match pod.readiness {
        Readiness::Ready(since) => Some(since),
        Readiness::Lost(_) | Readiness::Never => None,
    };
    (
        !pending,
        ready_since.is_some(),
        pod.cost,
        Reverse(beside),
        Reverse(ready_since),
        Reverse(pod.boots),
        Reverse(pod.created),
    )
}
