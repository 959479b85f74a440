//! A model cluster: Deployments, ReplicaSets that choose victims in the real order, pods that do tasks, and an operator that may crash
//! between any two calls. Time moves in whole seconds. Faults come from a seeded generator, so a failure repeats.

mod adoption;
mod checks;
mod conversations;
mod evictions;
mod kubernetes;
mod operator;
mod paused;
mod process;
mod retire;
mod transcript;

use std::collections::BTreeMap;
use std::time::Instant;

use graceful_api::{DrainPolicy, OnDeadline, ReplaceWhen, RevisionHash, Signal};
use graceful_plan::refusals::Refusals;
use graceful_plan::{
    Absences, Answer, App, Brake, Conversation, Deletion, Dialogue, Lags, NodeFate, PodUid, Rejections,
    Surroundings,
};
use jiff::{SignedDuration, Timestamp};

pub(crate) use adoption::Plain;
pub(crate) use evictions::Disruption;
use evictions::Evictions;
pub(crate) use kubernetes::{Deployment, Pod};
use paused::{Late, Paused};
pub(crate) use process::Behaviour;

/// Chances in a thousand, each second or call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The operator dies between two of its calls.
    pub(crate) crash: u32,
    /// It is paused just before one of them, past its lease, and makes that call when another has led for a while.
    pub(crate) pause: u32,
    /// A question to a pod, or its answer, is lost.
    pub(crate) lose: u32,
    /// The operator plans on a view that is some seconds old (never older than its own last write), or ends a pod some seconds after its plan.
    pub(crate) stale: u32,
    /// The ReplicaSet controller is away for some seconds.
    pub(crate) idle_controller: u32,
    /// An answer comes that the process gave earlier.
    pub(crate) repeat: u32,
    /// A policy, a quota or a webhook begins to refuse scales, for some seconds.
    pub(crate) refuse: u32,
    /// The API server becomes slow, for some seconds.
    pub(crate) slow: u32,
    /// A scale after a DELETE meets a conflict.
    pub(crate) conflict: u32,
    /// A write to a pod is refused.
    pub(crate) refuse_pod: u32,
    /// The EndpointSlice controller follows some seconds late when a pod loses its label.
    pub(crate) late_endpoints: u32,
    /// A container crashes, and starts again in place some seconds later. Half of them find their tasks in a volume.
    pub(crate) restart: u32,
}

/// How old a view of the operator may be.
const OLDEST_VIEW: SignedDuration = SignedDuration::from_secs(20);

/// All of it.
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) app: App,
    pub(crate) behaviours: BTreeMap<RevisionHash, Behaviour>,
    pub(crate) surroundings: Surroundings,
    pub(crate) exists: bool,
    pub(crate) deployments: BTreeMap<RevisionHash, Deployment>,
    pub(crate) pods: Vec<Pod>,
    /// The Service over a plain Deployment, where there is one.
    pub(crate) plain: Option<Plain>,
    pub(crate) faults: Faults,
    /// A task arrives at each pod that takes one, every so many seconds; zero is never.
    pub(crate) task_every: u32,
    pub(crate) task_seconds: u32,
    /// The pods' `terminationGracePeriodSeconds`.
    pub(crate) grace_seconds: i64,
    pub(crate) ledger: Ledger,
    /// What broke a promise.
    pub(crate) violations: Vec<String>,
    /// Each plan's words, for the golden scenarios.
    pub(crate) transcript: Vec<String>,
    /// Plans made.
    plans: usize,
    /// Actions executed in the last second.
    pub(crate) acted: usize,
    pub(crate) deeds: Deeds,
    /// Set by [`World::disrupt`].
    disruption: Disruption,
    pub(crate) evictions: Evictions,
    /// The Service has `externalTrafficPolicy: Local`.
    pub(crate) local: bool,
    /// A quota: so many pods may there be, terminating ones too.
    pub(crate) quota: Option<usize>,
    /// So many pods find a node.
    pub(crate) places: Option<usize>,
    /// What becomes of the two nodes.
    pub(crate) nodes: [NodeFate; 2],
    /// The operator reads no nodes (`nodeDrain.enabled: false`).
    pub(crate) nodes_unread: bool,
    /// When one that dies is gone.
    pub(crate) node_dies_at: [Option<Timestamp>; 2],
    /// Until when a node's agent is not heard, and whether its pods still answer.
    pub(crate) node_silent: [Option<(Timestamp, bool)>; 2],
    /// Since when it is heard again.
    pub(crate) node_heard_since: [Timestamp; 2],
    /// Scales are refused until then.
    pub(crate) refuses_until: Timestamp,
    /// Calls take seconds until then.
    pub(crate) slow_until: Timestamp,
    /// What the operator leaves alone for now.
    refusals: Refusals,
    /// When the run began, by the clock that pauses are measured by.
    began: Instant,
    brake: Brake,
    rejections: Rejections,
    absences: Absences,
    lags: Lags,
    /// When a Deployment was last scaled down after a DELETE.
    taken_back: BTreeMap<RevisionHash, Instant>,
    dialogues: BTreeMap<PodUid, Dialogue>,
    conversations: BTreeMap<PodUid, Conversation>,
    /// Every answer ever given, by which process of which pod.
    said: Vec<(PodUid, u32, Answer)>,
    /// When each pod was patched, since a user last did something.
    pub(crate) patches: BTreeMap<PodUid, Vec<Timestamp>>,
    history: Vec<kubernetes::Snapshot>,
    last_write: Timestamp,
    names: u32,
    controller_back: Timestamp,
    /// How many seconds a webhook on ReplicaSets takes.
    pub(crate) replica_sets_take: i64,
    /// Since when a quota leaves no room for another ReplicaSet.
    pub(crate) replica_sets_full: Option<Timestamp>,
    /// When ReplicaSets are told what their Deployments say.
    pub(crate) deployments_followed: Timestamp,
    /// A leader of before that has yet to make a call.
    paused: Option<Paused>,
    pub(crate) late_calls: Late,
    random: Random,
    /// Which kills come late: apart, so that one more of them leaves all other faults of a run as they are.
    delays: Random,
}

/// What was done to pods, and why there was something to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deeds {
    /// Pods ended by the operator, or by a ReplicaSet after its scale.
    pub(crate) ended: u32,
    /// Of those, ended idle.
    pub(crate) proven_idle: u32,
    /// Of those, cut at a deadline.
    pub(crate) cut: u32,
    /// Templates, replicas and budgets that the user changed.
    pub(crate) edits: u32,
    /// Pods that others ended, and containers that crashed.
    pub(crate) exits: u32,
    /// The most pods there were.
    pub(crate) most: u32,
    /// Pods that run without our label, and that nobody owns.
    pub(crate) strays: usize,
}

/// What became of the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) accepted: u32,
    pub(crate) finished: u32,
    /// Ended by a kill that the operator started.
    pub(crate) lost: u32,
    /// Ended at a deadline, by the user's choice, and said so.
    pub(crate) cut: u32,
    /// Ended by a container's restart, a user's delete or a ReplicaSet that a user's write misled: nobody promised these.
    pub(crate) unpromised: u32,
}

/// A small deterministic generator (SplitMix64): the same seed gives the same run on every machine.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.next() % 1000 < u64::from(permille)
    }
}

pub(crate) const POLICY: DrainPolicy = DrainPolicy {
    signal: Signal::Http,
    linger_seconds: 2,
    quiet_seconds: 3,
    deadline_seconds: 300,
    on_deadline: OnDeadline::Hold,
};

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other beginning; the run counts from it"
    )]
    pub(crate) fn new(seed: u64) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a moment");
        let app = App {
            name: "tasks".to_owned(),
            namespace: "apps".to_owned(),
            replicas: 3,
            update: RevisionHash::from("v1"),
            policy: POLICY,
            max_surge: 1,
            max_unavailable: 0,
            min_ready_seconds: 0,
            progress_deadline_seconds: 15,
            surge_timeout_seconds: 120,
            replace_when: ReplaceWhen::Drained,
            paused: false,
            revision_history_limit: 2,
            hold_while_busy: false,
            deletion: Deletion::No,
            finalizer: false,
            finalizer_backoff: None,
        };
        Self {
            now,
            app,
            behaviours: BTreeMap::new(),
            surroundings: Surroundings::default(),
            exists: true,
            deployments: BTreeMap::new(),
            pods: Vec::new(),
            plain: None,
            faults: Faults::default(),
            task_every: 0,
            task_seconds: 6,
            grace_seconds: kubernetes::GRACE_SECONDS,
            ledger: Ledger::default(),
            violations: Vec::new(),
            transcript: Vec::new(),
            plans: 0,
            acted: 0,
            deeds: Deeds::default(),
            disruption: Disruption::default(),
            evictions: Evictions::default(),
            local: false,
            quota: None,
            places: None,
            nodes: [NodeFate::Stays; 2],
            nodes_unread: false,
            node_dies_at: [None; 2],
            node_silent: [None; 2],
            node_heard_since: [Timestamp::UNIX_EPOCH; 2],
            refuses_until: now,
            slow_until: now,
            refusals: Refusals::default(),
            began: Instant::now(),
            brake: Brake::default(),
            rejections: Rejections::default(),
            absences: Absences::default(),
            lags: Lags::default(),
            taken_back: BTreeMap::new(),
            dialogues: BTreeMap::new(),
            conversations: BTreeMap::new(),
            said: Vec::new(),
            patches: BTreeMap::new(),
            history: Vec::new(),
            last_write: now,
            names: 0,
            controller_back: now,
            replica_sets_take: 0,
            replica_sets_full: None,
            deployments_followed: now,
            paused: None,
            late_calls: Late::default(),
            random: Random(seed),
            delays: Random(!seed),
        }
    }

    /// The user applies a template.
    pub(crate) fn template(&mut self, revision: &str, behaviour: Behaviour) {
        self.app.update = RevisionHash::from(revision);
        self.behaviours.insert(self.app.update.clone(), behaviour);
    }

    /// One second of everything, in the order in which it happens on a cluster.
    pub(crate) fn tick(&mut self) {
        self.now += SignedDuration::from_secs(1);
        self.acted = 0;
        self.weather();
        for node in 0..self.nodes.len() {
            if self.node_dies_at[node].is_some_and(|at| at <= self.now) {
                self.node_dies_at[node] = None;
                self.node_ends(node);
            }
            if self.node_silent[node].is_some_and(|(until, _)| until <= self.now) {
                self.node_silent[node] = None;
                self.node_heard_since[node] = self.now;
            }
        }
        self.goes_on();
        self.controllers();
        self.processes();
        self.converse();
        // Answers trigger plans, and one plan enables the next: a few in each second, as on a cluster.
        for _ in 0..4 {
            self.remember();
            if !self.reconcile() {
                break;
            }
            self.controllers();
        }
    }

    /// A spot instance is taken back: its node dies in so many seconds.
    pub(crate) fn spot_notice(&mut self, node: usize, seconds: i64) {
        self.nodes[node] = NodeFate::Dying;
        self.node_dies_at[node] = Some(self.now + SignedDuration::from_secs(seconds));
    }

    /// The API server's moods begin.
    fn weather(&mut self) {
        let some_seconds = |random: &mut Random| i64::try_from(3 + random.next() % 12).expect("few");
        if self.random.chance(self.faults.refuse) {
            self.refuses_until = self.now + SignedDuration::from_secs(some_seconds(&mut self.random));
        }
        if self.random.chance(self.faults.slow) {
            self.slow_until = self.now + SignedDuration::from_secs(some_seconds(&mut self.random));
        }
        let living = u32::try_from(self.pods.iter().filter(|p| p.is_active()).count()).expect("few");
        self.deeds.most = self.deeds.most.max(living);
    }

    /// The last thing the operator said.
    pub(crate) fn phase(&self) -> String {
        self.transcript.last().map_or(String::new(), |l| l.split_whitespace().nth(2).unwrap_or("").to_owned())
    }

    pub(crate) fn violate(&mut self, what: &str) {
        let at = self.elapsed();
        self.violations.push(format!("{at} s: {what}"));
    }

    pub(crate) fn elapsed(&self) -> i64 {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a moment");
        self.now.duration_since(start).as_secs()
    }
}
