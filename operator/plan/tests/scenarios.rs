//! Golden scenarios: a script in YAML, run on the model cluster without faults; what the operator said and did is compared word by word.
//! `GRACEFUL_GOLDEN=write cargo test -p graceful-plan --test scenarios` writes them anew: read the difference before you commit it.

mod model;

use std::fmt::Write as _;
use std::path::Path;

use graceful_api::{OnDeadline, ReplaceWhen, Signal};
use graceful_plan::{Deletion, NodeFate, Observed, Warning};
use model::{Behaviour, Disruption, World};
use serde::Deserialize;
use similar::TextDiff;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    title: String,
    #[serde(default)]
    given: Given,
    steps: Vec<Step>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Given {
    replicas: Option<u32>,
    max_surge: Option<u32>,
    max_unavailable: Option<u32>,
    min_ready_seconds: Option<u32>,
    signal: Option<Signal>,
    replace_when: Option<ReplaceWhen>,
    on_deadline: Option<OnDeadline>,
    deadline_seconds: Option<u32>,
    task_every: Option<u32>,
    task_seconds: Option<u32>,
    grace_seconds: Option<u32>,
    local: bool,
    hold_while_busy: bool,
    nodes_unread: bool,
    /// A plain Deployment of so many pods, which the app adopts.
    plain_deployment: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    /// Apply a template: its name, and what its pods do.
    Template(String, Pods),
    Replicas(u32),
    Pause(bool),
    HoldWhileBusy(bool),
    Tasks {
        every: u32,
        seconds: u32,
    },
    UnfencedService(String),
    RefusedService(String),
    DeletePod(usize),
    /// The kubelet evicts the pod; its record stays.
    Evict(usize),
    /// The eviction API is asked for the nth pod.
    EvictByApi(usize),
    DrainByHand(usize),
    /// `kubectl delete pod --grace-period`: a pod that drains itself has so many seconds left.
    Shorten(u32),
    /// The operator dies and is started again: it has forgotten all.
    OperatorRestarts,
    /// So many pods may there be, terminating ones too.
    Quota(usize),
    /// So many pods find a node.
    Places(usize),
    /// `kubectl cordon`, as `kubectl drain` begins: the first node or the second.
    Cordon(usize),
    Uncordon(usize),
    /// Wait until no pod of the app lives on a node, at most 120 s.
    UntilEmpty(usize),
    /// A spot instance is taken back, in so many seconds.
    SpotNotice(usize, i64),
    /// Somebody says that a node is shut down.
    OutOfService(usize),
    /// A node is not Ready for so many seconds, and nobody reaches its pods.
    SilentNode(usize, i64),
    /// Scales are refused for so many seconds.
    RefuseScales(u32),
    /// Writes of ReplicaSets take so many seconds.
    SlowReplicaSets(u32),
    /// A quota leaves no room for another ReplicaSet, or does again.
    FullOfReplicaSets(bool),
    /// Calls take 2 s for so many seconds.
    SlowApi(u32),
    NamespaceTerminates,
    Delete,
    /// With the annotation that leaves what serves.
    Leave,
    Orphan,
    /// GitOps puts the selector of the user's Service back.
    SelectorPutBack,
    /// An autoscaler is put on the plain Deployment, or is taken off.
    Autoscaler(bool),
    /// Somebody scales the plain Deployment up.
    RaisePlain(u32),
    /// Somebody takes the serving label off a pod of it.
    LabelTakenOff(usize),
    /// Somebody runs the command that the message has.
    FencedByHand,
    /// Let so many seconds pass.
    Wait(u32),
    /// Wait for a phase, at most 120 s.
    Until(String),
    /// Wait until the GracefulApp is gone, at most 120 s.
    UntilGone,
}

#[derive(Clone, Copy, Deserialize, Default)]
enum Pods {
    #[default]
    Good,
    BadImage,
    Rejected,
    Unlabelled,
    CrashLoop,
    Flapping,
    NeverReady,
    PullsUnready,
    SideCrash,
    Silent,
    Refused,
    WarmsUpRefusing,
    ClockEpoch,
    NeverReopens,
    KnowsNoKey,
}

#[test]
fn golden_scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .expect("the scenarios")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "only {} scenarios found", scripts.len());
    let mut differing = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("a script");
        let script: Script =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let transcript = run(&script);
        let golden = path.with_extension("txt");
        if write_wanted() {
            std::fs::write(&golden, &transcript).expect("the golden file");
            continue;
        }
        let kept = std::fs::read_to_string(&golden).unwrap_or_default();
        if kept != transcript {
            let name = golden.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let diff = TextDiff::from_lines(&kept, &transcript);
            differing.push(diff.unified_diff().header(&name, "now").to_string());
        }
    }
    assert!(differing.is_empty(), "these scenarios now go otherwise:\n{}", differing.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "a test's switch, not a decision's input")]
fn write_wanted() -> bool {
    std::env::var("GRACEFUL_GOLDEN").is_ok_and(|v| v == "write")
}

fn run(script: &Script) -> String {
    let mut world = World::new(1);
    script.given.apply(&mut world);
    let mut out = format!("{}\n\n", script.title);
    for step in &script.steps {
        let from = world.transcript.len();
        let said = take(&mut world, step);
        writeln!(out, "● {said}").expect("a string");
        let mut last = String::new();
        for line in &world.transcript[from..] {
            // Only news: a second in which nothing is done and nothing else is waited for says nothing.
            let sentence = without_numbers(line);
            if sentence != last || line.contains('→') {
                writeln!(out, "{line}").expect("a string");
            }
            last = sentence;
        }
    }
    let l = world.ledger;
    writeln!(out, "\naccepted {}, finished {}, lost {}, cut {}", l.accepted, l.finished, l.lost, l.cut)
        .expect("a string");
    assert!(world.violations.is_empty(), "{}: {:?}\n{out}", script.title, world.violations);
    let deeds = world.deeds;
    let reasons = deeds.proven_idle + deeds.cut + deeds.edits + deeds.exits + deeds.most;
    assert!(deeds.strays <= 400, "{}: {deeds:?}\n{out}", script.title);
    assert!(deeds.ended <= 2 * reasons + 8, "{}: {deeds:?}\n{out}", script.title);
    out
}

/// The line without its time and ages.
fn without_numbers(line: &str) -> String {
    let words = line.split_whitespace().skip(2);
    words.filter(|w| !w.chars().all(|c| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

fn take(world: &mut World, step: &Step) -> String {
    match step {
        Step::Template(name, pods) => {
            let (behaviour, aside) = match pods {
                Pods::Good => (Behaviour::Good, ""),
                Pods::BadImage => (Behaviour::BadImage, ", whose image cannot be pulled"),
                Pods::Rejected => (Behaviour::Rejected, ", whose pods the kubelet rejects"),
                Pods::Unlabelled => (Behaviour::Unlabelled, ", whose pods lose our label to a webhook"),
                Pods::CrashLoop => (Behaviour::CrashLoop, ", which crashes"),
                Pods::Flapping => (Behaviour::Flapping, ", which is Ready for moments and crashes"),
                Pods::NeverReady => (Behaviour::NeverReady, ", which is never Ready"),
                Pods::PullsUnready => (Behaviour::PullsUnready, ", which pulls its work and is never Ready"),
                Pods::SideCrash => {
                    (Behaviour::SideCrash, ", whose count is in a side container that crashes")
                }
                Pods::Silent => (Behaviour::Silent, ", which never answers"),
                Pods::Refused => (Behaviour::Refused, ", which Kubernetes refuses"),
                Pods::WarmsUpRefusing => {
                    (Behaviour::WarmsUpRefusing, ", which says accepting: false for 20 s")
                }
                Pods::ClockEpoch => (Behaviour::ClockEpoch, ", whose epoch is a clock"),
                Pods::KnowsNoKey => (Behaviour::KnowsNoKey, ", whose pods verify and know none of our keys"),
                Pods::NeverReopens => (Behaviour::NeverReopens, ", which stays closed when it is resumed"),
            };
            world.surroundings.template = graceful_plan::TemplateVerdict::Unknown;
            world.template(name, behaviour);
            world.tick();
            format!("template {name}{aside}")
        }
        Step::Replicas(n) => {
            world.app.replicas = *n;
            world.tick();
            format!("replicas {n}")
        }
        Step::HoldWhileBusy(hold) => {
            world.disrupt(if *hold { Disruption::HoldWhileBusy } else { Disruption::Allow });
            format!("disruption {}", if *hold { "HoldWhileBusy" } else { "Allow" })
        }
        Step::Pause(paused) => {
            world.app.paused = *paused;
            world.tick();
            format!("paused {paused}")
        }
        Step::Tasks { every, seconds } => {
            (world.task_every, world.task_seconds) = (*every, *seconds);
            format!("each pod gets a task of {seconds} s every {every} s")
        }
        Step::UnfencedService(name) => {
            world.surroundings.unfenced_services = if name.is_empty() { vec![] } else { vec![name.clone()] };
            world.tick();
            format!("the user's Service without the serving label: {name:?}")
        }
        Step::RefusedService(why) => {
            let message = format!("Service tasks cannot be written: {why}");
            let refused = Warning { reason: graceful_api::conditions::Reason::Refused, message };
            world.surroundings.warnings = if why.is_empty() { vec![] } else { vec![refused] };
            world.tick();
            format!("the API server's word on the managed Service: {why:?}")
        }
        Step::DeletePod(nth) => {
            world.kubectl_delete_pod(*nth);
            world.tick();
            "kubectl delete pod".to_owned()
        }
        Step::Evict(nth) => {
            world.evict(*nth);
            world.tick();
            "the kubelet evicts a pod".to_owned()
        }
        Step::Quota(pods) => {
            world.quota = Some(*pods);
            format!("a quota of {pods} pods")
        }
        Step::Places(pods) => {
            world.places = Some(*pods);
            format!("nodes have places for {pods} pods")
        }
        Step::Cordon(node) => {
            world.nodes[*node] = NodeFate::Emptied;
            format!("kubectl drain node{}", node + 1)
        }
        Step::Uncordon(node) => {
            world.nodes[*node] = NodeFate::Stays;
            format!("kubectl uncordon node{}", node + 1)
        }
        Step::UntilEmpty(node) => {
            let empty = |w: &World| !w.pods.iter().any(|p| p.is_active() && p.on(*node));
            assert!(pass_until(world, empty), "never empty: {}", world.transcript.join("\n"));
            format!("until node{} is empty", node + 1)
        }
        Step::SpotNotice(node, seconds) => {
            world.spot_notice(*node, *seconds);
            format!("node{} is taken back in {seconds} s", node + 1)
        }
        Step::OutOfService(node) => {
            world.out_of_service(*node);
            format!("somebody taints node{} out of service", node + 1)
        }
        Step::SilentNode(node, seconds) => {
            world.node_falls_silent(*node, *seconds, false);
            format!("node{} is not Ready for {seconds} s, and cut off", node + 1)
        }
        Step::RefuseScales(seconds) => {
            world.refuses_until = world.now + jiff::SignedDuration::from_secs(i64::from(*seconds));
            format!("scales are refused for {seconds} s")
        }
        Step::SlowReplicaSets(seconds) => {
            world.replica_sets_take = i64::from(*seconds);
            format!("writes of ReplicaSets take {seconds} s")
        }
        Step::FullOfReplicaSets(full) => {
            world.replica_sets_full = full.then_some(world.now);
            let what = if *full { "no room for another ReplicaSet" } else { "room for ReplicaSets again" };
            format!("a quota: {what}")
        }
        Step::SlowApi(seconds) => {
            world.slow_until = world.now + jiff::SignedDuration::from_secs(i64::from(*seconds));
            format!("the API server takes 2 s a call for {seconds} s")
        }
        Step::DrainByHand(nth) => {
            world.drain_by_hand(*nth);
            world.tick();
            "somebody sends PUT /drain to a serving pod".to_owned()
        }
        Step::EvictByApi(nth) => {
            let before = world.evictions;
            world.evict_by_api(*nth);
            let after = world.evictions;
            let answer = if after.refused > before.refused {
                "refused, by the budget"
            } else if after.busy > before.busy {
                "taken: a pod with work has its grace"
            } else if after.allowed > before.allowed {
                "taken: an idle pod goes"
            } else {
                "of no pod"
            };
            world.tick();
            format!("an eviction is {answer}")
        }
        Step::Shorten(seconds) => {
            world.shorten(0, i64::from(*seconds));
            format!("kubectl delete pod --grace-period={seconds}")
        }
        Step::OperatorRestarts => {
            world.crash();
            "the operator restarts".to_owned()
        }
        Step::NamespaceTerminates => {
            // Its controller ends the pods first, and then all else.
            world.surroundings.namespace_terminating = true;
            (0..world.pods.len()).for_each(|_| world.kubectl_delete_pod(0));
            world.deployments.clear();
            world.tick();
            "kubectl delete namespace".to_owned()
        }
        Step::Delete => {
            world.app.deletion = Deletion::Drain;
            world.tick();
            "kubectl delete gracefulapp".to_owned()
        }
        Step::Leave => {
            world.app.deletion = Deletion::Leave;
            world.tick();
            "kubectl delete gracefulapp, with graceful.dev/leave".to_owned()
        }
        Step::FencedByHand => {
            world.fence_by_hand();
            world.tick();
            "somebody has the Service ask for the label again".to_owned()
        }
        Step::SelectorPutBack => {
            world.put_selector_back();
            world.tick();
            "GitOps puts the Service's selector back".to_owned()
        }
        Step::Autoscaler(there) => {
            world.autoscaler(*there);
            world.tick();
            let what = if *there { "is put on" } else { "is taken off" };
            format!("an autoscaler {what} the plain Deployment")
        }
        Step::RaisePlain(by) => {
            world.raise(*by);
            world.tick();
            format!("somebody scales the plain Deployment up by {by}")
        }
        Step::LabelTakenOff(nth) => {
            world.take_label_off(*nth);
            world.tick();
            "somebody takes the serving label off a pod of the plain Deployment".to_owned()
        }
        Step::Orphan => {
            world.app.deletion = Deletion::Orphan;
            world.tick();
            "kubectl delete gracefulapp --cascade=orphan".to_owned()
        }
        Step::Wait(seconds) => {
            (0..*seconds).for_each(|_| world.tick());
            format!("{seconds} s pass")
        }
        Step::Until(phase) => {
            assert!(
                pass_until(world, |w| w.phase() == *phase && w.acted == 0),
                "never {phase}: {}",
                world.transcript.join("\n")
            );
            format!("until {phase}")
        }
        Step::UntilGone => {
            assert!(pass_until(world, |w| !w.exists), "never gone: {}", world.transcript.join("\n"));
            "until it is gone".to_owned()
        }
    }
}

fn pass_until(world: &mut World, done: impl Fn(&World) -> bool) -> bool {
    (0..120).any(|_| {
        world.tick();
        done(world)
    })
}

impl Given {
    fn apply(&self, world: &mut World) {
        let Self {
            replicas,
            max_surge,
            max_unavailable,
            min_ready_seconds,
            signal,
            replace_when,
            on_deadline,
            deadline_seconds,
            task_every,
            task_seconds,
            grace_seconds,
            local,
            hold_while_busy,
            nodes_unread,
            plain_deployment,
        } = self;
        world.nodes_unread = *nodes_unread;
        world.local = *local;
        if *hold_while_busy {
            world.disrupt(Disruption::HoldWhileBusy);
        }
        let app = &mut world.app;
        let set = |to: &mut u32, from: &Option<u32>| {
            if let Some(value) = from {
                *to = *value;
            }
        };
        set(&mut app.replicas, replicas);
        set(&mut app.max_surge, max_surge);
        set(&mut app.max_unavailable, max_unavailable);
        set(&mut app.min_ready_seconds, min_ready_seconds);
        set(&mut app.policy.deadline_seconds, deadline_seconds);
        app.replace_when = replace_when.unwrap_or(app.replace_when);
        app.policy.signal = signal.unwrap_or(app.policy.signal);
        app.policy.on_deadline = on_deadline.unwrap_or(app.policy.on_deadline);
        set(&mut world.task_every, task_every);
        set(&mut world.task_seconds, task_seconds);
        world.grace_seconds = grace_seconds.map_or(world.grace_seconds, i64::from);
        if *plain_deployment > 0 {
            world.plain_deployment(*plain_deployment);
            world.warm_up();
        }
    }
}

/// The same view gives the same plan.
#[test]
fn a_plan_depends_on_the_view_and_the_moment_alone() {
    let mut world = World::new(1);
    world.template("v1", Behaviour::Good);
    (0..5).for_each(|_| world.tick());
    world.template("v2", Behaviour::Good);
    for _ in 0..20 {
        world.tick();
        let seen: Observed = world.observe().observed;
        assert_eq!(graceful_plan::plan(&seen, world.now), graceful_plan::plan(&seen, world.now));
    }
}
