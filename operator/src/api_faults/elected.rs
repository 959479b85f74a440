//! Two operators and one lease: whichever dies, is stopped or loses it, the other goes on, and nothing is lost between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cluster::alive;
use super::lifecycle::cordon;
use super::scenarios::{CALM, Limits, Stage, node, spec, template};
use crate::clock::Clock;
use crate::leader::{TimeOfDay, Timing};

/// A fifth of what they are, in the proportions of the defaults: a machine that is busy with other tests may pause a process for long.
pub(super) fn fast() -> Timing {
    Timing {
        lease_duration: Duration::from_millis(3000),
        renew_deadline: Duration::from_millis(1400),
        retry_period: Duration::from_millis(400),
        look_every: Duration::from_millis(50),
    }
}

/// Its task, and what tells it to stop.
type One = (JoinHandle<anyhow::Result<()>>, oneshot::Sender<()>);

struct Two {
    all: [Option<One>; 2],
}

impl Two {
    /// Kubernetes starts what has ended.
    async fn keep(&mut self, stage: &Stage) {
        for (n, one) in self.all.iter_mut().enumerate() {
            if one.as_ref().is_none_or(|(operator, _)| operator.is_finished()) {
                *one = Some(stage.elected(&format!("operator-{n}"), fast(), Clock::default()).await);
            }
        }
    }

    fn leader(stage: &Stage) -> Option<usize> {
        let lease = stage.world.list("leases").pop()?;
        let holder = lease["spec"]["holderIdentity"].as_str()?.to_owned();
        (0..2).find(|n| holder.starts_with(&format!("operator-{n}_")))
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.all.iter().flatten().for_each(|(operator, _)| operator.abort());
    }
}

/// P1, P3: a hand-over in the midst of each rollout, by a stop and by a death in turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_leadership_changes_hands() {
    let mut stage = Stage::bare(31, 4);
    stage.world.write(|w| {
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks"}, "spec": spec(3)});
        w.create("gracefulapps", "apps", app).unwrap();
    });
    let mut two = Two { all: [None, None] };
    let limits = |serving| Limits { serving, pods: 4, kills: false };
    two.keep(&stage).await;
    stage.until("the first three pods", limits(0), |s| s.settled("0", 3)).await;
    for round in 1..=4 {
        two.keep(&stage).await;
        stage.until("a leader", limits(3), |s| Two::leader(s).is_some()).await;
        let leader = Two::leader(&stage).unwrap();
        let next = round.to_string();
        stage.change(&template(&next));
        stage
            .until("a rollout half way", limits(3), |s| {
                s.world.list("pods").iter().any(|p| p["metadata"]["labels"]["try"] == next.as_str())
            })
            .await;
        let (operator, stop) = two.all[leader].take().unwrap();
        if round % 2 == 0 {
            stop.send(()).unwrap();
            let _ended = operator.await;
        } else {
            operator.abort();
        }
        stage.until("the other leads", limits(3), |s| Two::leader(s).is_some_and(|now| now != leader)).await;
        two.keep(&stage).await;
        stage.until("a rollout", limits(3), |s| s.settled(&next, 3)).await;
    }
    stage.lost_nothing();
}

/// A deadline is the same moment for both, whatever time their nodes have: nothing is cut early, and nothing is kept for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_an_hour_apart_move_no_deadline() {
    for (seed, hours) in [(32, 1), (33, -1)] {
        let mut stage = Stage::bare(seed, 0);
        let mut spec = spec(1);
        spec["drain"] = json!({"lingerSeconds": 0, "deadlineSeconds": 5, "onDeadline": "Terminate"});
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": "tasks"}, "spec": spec});
        stage.world.write(|w| w.create("gracefulapps", "apps", app).unwrap());
        let (first, stop) = stage.elected("operator-0", fast(), Clock::default()).await;
        stage.until("a pod", CALM, |s| s.settled("0", 1)).await;
        let _task = stage.hold_a_task();
        stage.change(&template("1"));
        let draining = |s: &Stage| {
            let since = |p: &Value| !p["metadata"]["annotations"]["graceful.dev/drain-since"].is_null();
            s.world.list("pods").iter().any(|p| alive(p) && since(p))
        };
        stage.until("a drain", CALM, draining).await;
        let began = Instant::now();
        stop.send(()).unwrap();
        first.await.unwrap().unwrap();
        let now = Timestamp::now() + SignedDuration::from_hours(hours);
        let (second, _stop) = stage.elected("operator-1", fast(), Clock::of(now)).await;
        stage.until("the cut", CALM, |s| !draining(s)).await;
        second.abort();
        // An answer's date is in whole seconds.
        let after = began.elapsed();
        assert!(after > Duration::from_millis(3500), "cut {after:?} after it began, of 5 s");
        assert!(after < Duration::from_secs(15), "cut {after:?} after it began, of 5 s");
    }
}

/// A node whose time of day can be set.
struct Node(Arc<AtomicI64>);

impl Node {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn set(&self, hours: i64) {
        self.0.store(hours, Ordering::Relaxed);
    }

    fn time_of_day(&self) -> TimeOfDay {
        let hours = Arc::clone(&self.0);
        Arc::new(move || Timestamp::now() + SignedDuration::from_hours(hours.load(Ordering::Relaxed)))
    }

    async fn elects(&self, stage: &Stage, name: &str, timing: Timing) -> One {
        stage.elected_at(name, timing, Clock::default(), &stage.dice, self.time_of_day()).await
    }
}

/// How often the Lease was written, and what it says.
fn lease(stage: &Stage) -> (usize, Value) {
    let objects = stage.world.open();
    let written: Vec<_> = objects.log.iter().filter(|(_, plural, _)| plural == "leases").collect();
    let last = written.last().map(|(.., event)| event["object"]["spec"].clone());
    (written.len(), last.unwrap_or_default())
}

/// A node's time of day is set an hour forth or back, under the leader and under the standby: the Lease says the new time, and nobody takes over for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_of_day_that_jumps_moves_no_lease() {
    // Long, so that a busy machine costs no renewal; what goes by the time of day sees it run out at once.
    let timing = Timing {
        retry_period: Duration::from_millis(200),
        look_every: Duration::from_millis(50),
        ..Timing::default()
    };
    let mut stage = Stage::bare(37, 0);
    let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": "tasks"}, "spec": spec(2)});
    stage.world.write(|w| w.create("gracefulapps", "apps", app).unwrap());
    let nodes = [Node::new(), Node::new()];
    let (leader, _leads) = nodes[0].elects(&stage, "operator-0", timing).await;
    stage.until("two pods", CALM, |s| s.settled("0", 2)).await;
    let (standby, _stands_by) = nodes[1].elects(&stage, "operator-1", timing).await;
    let holder = lease(&stage).1["holderIdentity"].clone();
    for (round, (node, hours)) in [(0, 1), (0, -1), (0, 0), (1, 1), (1, -1)].into_iter().enumerate() {
        nodes[node].set(hours);
        let (written, _) = lease(&stage);
        stage.until("five renewals", CALM, |s| lease(s).0 >= written + 5).await;
        let (_, now) = lease(&stage);
        assert_eq!(
            (&now["holderIdentity"], &now["leaseTransitions"]),
            (&holder, &json!(0)),
            "{node} by {hours} h"
        );
        assert!(!leader.is_finished() && !standby.is_finished(), "one gave up: {node} by {hours} h");
        if node == 0 {
            let said: Timestamp = now["renewTime"].as_str().unwrap().parse().unwrap();
            let ahead = said.duration_since(Timestamp::now()).as_secs_f64() / 3600.0;
            assert!((ahead - hours as f64).abs() < 0.5, "the Lease is {ahead} h ahead, not {hours}");
        }
        let next = (round + 1).to_string();
        stage.change(&template(&next));
        stage.until("a rollout", CALM, |s| s.settled(&next, 2)).await;
    }
    leader.abort();
    standby.abort();
    stage.lost_nothing();
}

/// The standby's watch of one kind is dead without a word as it takes over: what it would do by it is not done.
struct Handover {
    stage: Stage,
    first: One,
    second: One,
}

impl Handover {
    async fn of(seed: u64, replicas: u32, blind_to: &'static str) -> Self {
        let mut stage = Stage::bare(seed, 0);
        stage.world.write(|w| w.create("nodes", "", node("n2")).unwrap());
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks"}, "spec": spec(replicas)});
        stage.world.write(|w| w.create("gracefulapps", "apps", app).unwrap());
        let first = stage.elected("operator-0", fast(), Clock::default()).await;
        stage.until("the first pods", CALM, |s| s.settled("0", u64::from(replicas))).await;
        let dice = stage.dice.of_one();
        let second = stage.elected_with("operator-1", fast(), Clock::default(), &dice).await;
        tokio::time::sleep(Duration::from_millis(200)).await; // it has listed all by then
        dice.go_blind(blind_to);
        Self { stage, first, second }
    }

    /// The first is stopped; what the second has made of it two seconds after it leads.
    async fn done(self) -> (Stage, One) {
        let Self { mut stage, first: (operator, stop), second } = self;
        stop.send(()).unwrap();
        operator.await.unwrap().unwrap();
        stage.until("the other leads", CALM, |s| Two::leader(s) == Some(1)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        (stage, second)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_went_under_another_leader_is_not_made_again() {
    let mut handover = Handover::of(34, 1, "gracefulapps").await;
    handover.stage.delete();
    handover.stage.until("nothing is left", CALM, Stage::nothing_left).await;
    let (stage, (second, _stop)) = handover.done().await;
    second.abort();
    assert!(stage.nothing_left(), "{:?}", stage.world.list("deployments"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_changed_under_another_leader_is_not_rolled_back() {
    let mut handover = Handover::of(35, 2, "gracefulapps").await;
    handover.stage.change(&template("1"));
    handover.stage.until("the rollout", CALM, |s| s.settled("1", 2)).await;
    let (stage, (second, _stop)) = handover.done().await;
    second.abort();
    assert!(stage.settled("1", 2), "{:?}", stage.world.list("pods"));
    stage.lost_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_drains_for_its_node_is_not_put_back_by_the_next_leader() {
    let mut handover = Handover::of(36, 1, "nodes").await;
    let task = handover.stage.hold_a_task();
    cordon(&handover.stage);
    let drains = |s: &Stage| {
        let reason = |p: &Value| p["metadata"]["annotations"]["graceful.dev/drain-reason"] == "NodeDrain";
        s.world.list("pods").iter().any(|p| alive(p) && reason(p))
    };
    handover.stage.until("it drains", CALM, drains).await;
    let (stage, (second, _stop)) = handover.done().await;
    second.abort();
    assert!(drains(&stage), "{:?}", stage.world.list("pods"));
    drop(task);
    stage.lost_nothing();
}
