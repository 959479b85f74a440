//! The promises, under faults.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use graceful_drain::TaskGuard;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::cluster::{ADMIN, Cluster, Ledger, Processes, alive, ready};
use super::faulty::{Dice, client};
use super::world::{World, merge};
use crate::clock::{Clock, heard_by};
use crate::leader::{Campaign, Lease, TimeOfDay, Timing};
use crate::observe::{GateImage, NodeDrain};
use crate::probe::Asker;
use crate::pulse::Pulse;
use crate::run::{Means, Settings, Tokens, run_on};

pub(super) struct Stage {
    pub(super) world: World,
    pub(super) dice: Dice,
    pub(super) ledger: Arc<Ledger>,
    processes: Processes,
    _played: JoinSet<()>,
    operator: Option<JoinHandle<()>>,
    /// Where it tells its metrics.
    port: Option<SocketAddr>,
    /// What its `/livez` judges.
    pub(super) pulse: Arc<Pulse>,
    /// Its keys.
    pub(super) tokens: Option<Tokens>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.operator.iter().for_each(JoinHandle::abort);
    }
}

impl Stage {
    /// A cluster with nothing in it.
    pub(super) fn bare(seed: u64, percent: u32) -> Self {
        eprintln!("seed {seed}");
        let (world, dice, ledger) = (World::default(), Dice::new(seed, percent), Arc::new(Ledger::default()));
        world.write(|w| {
            w.create("nodes", "", node("n1")).unwrap();
        });
        let (processes, mut played) = (Processes::default(), JoinSet::new());
        played.spawn(Cluster::play(world.clone(), dice.clone(), Arc::clone(&ledger), Arc::clone(&processes)));
        Self {
            world,
            dice,
            ledger,
            processes,
            _played: played,
            operator: None,
            port: None,
            pulse: Arc::default(),
            tokens: None,
        }
    }

    /// An app, and an operator.
    pub(super) async fn begin(&mut self, spec: Value) {
        self.world.write(|w| {
            let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
                "metadata": {"name": "tasks"}, "spec": spec});
            w.create("gracefulapps", "apps", app).unwrap();
        });
        self.kill_the_operator().await;
    }

    pub(super) async fn set(seed: u64, percent: u32, spec: Value) -> Self {
        let mut stage = Self::bare(seed, percent);
        stage.begin(spec).await;
        stage
    }

    /// The same without faults, once all its replicas serve.
    pub(super) async fn settled_with(seed: u64, spec: Value) -> Self {
        let replicas = spec["replicas"].as_u64().unwrap();
        let mut stage = Self::set(seed, 0, spec).await;
        // Of a test that is over before a task came, `lost_nothing` would prove nothing.
        stage
            .until("all replicas serve, and take work", CALM, |s| {
                s.settled("0", replicas) && (replicas == 0 || s.ledger.accepted.load(Ordering::Relaxed) > 0)
            })
            .await;
        stage
    }

    /// The process is gone between any two instructions; a new one takes over.
    pub(super) async fn kill_the_operator(&mut self) {
        self.operator.iter().for_each(JoinHandle::abort);
        self.pulse = Arc::default();
        let (operator, port) =
            start(&self.world, &self.dice, self.tokens.clone(), Arc::clone(&self.pulse)).await;
        (self.operator, self.port) = (Some(operator), Some(port));
    }

    /// One of several operators that elect a leader, on a node whose clock says this. It stops when it is told to.
    pub(super) async fn elected(
        &self,
        name: &str,
        timing: Timing,
        clock: Clock,
    ) -> (JoinHandle<anyhow::Result<()>>, oneshot::Sender<()>) {
        self.elected_with(name, timing, clock, &self.dice).await
    }

    /// The same, with a luck of its own.
    pub(super) async fn elected_with(
        &self,
        name: &str,
        timing: Timing,
        clock: Clock,
        dice: &Dice,
    ) -> (JoinHandle<anyhow::Result<()>>, oneshot::Sender<()>) {
        let time_of_day = Arc::new(jiff::Timestamp::now);
        self.elected_at(name, timing, clock, dice, time_of_day).await
    }

    /// The same, on a node that has this time of day.
    pub(super) async fn elected_at(
        &self,
        name: &str,
        timing: Timing,
        clock: Clock,
        dice: &Dice,
        time_of_day: TimeOfDay,
    ) -> (JoinHandle<anyhow::Result<()>>, oneshot::Sender<()>) {
        let client = || heard_by(&clock, client(&self.world, dice));
        let lease = Lease { namespace: "apps".to_owned(), name: "operator".to_owned(), timing };
        let campaign = Some(Campaign::new(client(), lease, Some(name)).at(time_of_day));
        let (watching, calling) = (client(), client());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let settings = Settings {
            tokens: self.tokens.clone(),
            listen,
            instance: None,
            node_drain: Some(NodeDrain::default()),
            namespaces: ["apps".to_owned()].into(),
            lease: None,
            gate_image: GateImage { image: "graceful/gate:test".to_owned(), pull_policy: None },
        };
        let (stop, stopped) = oneshot::channel();
        let operator = tokio::spawn(async move {
            let asker = Asker::that_reaches_loopback();
            let stopped = async { drop(stopped.await) };
            let means = Means { watching, calling, campaign, asker, clock, pulse: Arc::default() };
            run_on(means, listener, settings, stopped).await
        });
        (operator, stop)
    }

    /// What the operator tells Prometheus just now.
    pub(super) async fn metrics(&self) -> String {
        let mut connection = TcpStream::connect(self.port.unwrap()).await.unwrap();
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        text
    }

    pub(super) fn app(&self) -> Option<Value> {
        self.world.list("gracefulapps").pop()
    }

    pub(super) fn change(&self, patch: &Value) {
        let key = ("gracefulapps".to_owned(), "apps".to_owned(), "tasks".to_owned());
        self.world.write(|w| {
            w.edit(&key, &json!({}), |app| {
                merge(app, patch);
                Ok(())
            })
            .unwrap();
        });
    }

    fn serving(&self) -> usize {
        let routed = |p: &&Value| p["metadata"]["labels"]["graceful.dev/serving"] == "true";
        self.world.list("pods").iter().filter(|p| alive(p) && ready(p)).filter(routed).count()
    }

    pub(super) fn asked_for(&self) -> u64 {
        self.world.list("deployments").iter().map(|d| d["spec"]["replicas"].as_u64().unwrap_or(1)).sum()
    }

    /// Looks until it holds; each look also looks at what must always hold. A call that failed is retried at least once a minute, and the next may fail
    /// too: with these dice a step now and then takes longer than that.
    pub(super) async fn until(&mut self, what: &str, limits: Limits, done: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        loop {
            let (serving, asked_for) = (self.serving(), self.asked_for());
            assert!(serving >= limits.serving, "P3: {serving} pods serve while waiting for: {what}");
            assert!(asked_for <= limits.pods, "P3: {asked_for} pods are asked for while waiting for: {what}");
            if done(self) {
                return;
            }
            let app = self.app().unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(240), "never came: {what}; {}", app["status"]);
            if self.dice.below(400) == 0 && limits.kills {
                self.kill_the_operator().await;
            }
            self.world.changed().await;
        }
    }

    pub(super) fn settled(&self, try_: &str, replicas: u64) -> bool {
        let Some(app) = self.app() else { return false };
        let status = &app["status"];
        let pods = self.world.list("pods");
        let of = |p: &Value| p["metadata"]["labels"]["try"] == try_;
        status["phase"] == "Serving"
            && status["observedGeneration"] == app["metadata"]["generation"]
            && status["updatedReplicas"] == replicas
            && pods.len() as u64 == replicas
            && pods.iter().all(of)
    }

    /// The kubelet evicts a pod that serves: what it had is lost, which no operator can prevent.
    pub(super) fn evict_one(&self) {
        let pods = self.world.list("pods");
        let pod = pods.iter().find(|p| alive(p) && ready(p)).unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        self.processes.lock().unwrap().remove(&uid);
        let key =
            ("pods".to_owned(), "apps".to_owned(), pod["metadata"]["name"].as_str().unwrap().to_owned());
        self.world.write(|w| {
            w.edit(&key, &json!({}), |pod| {
                pod["status"]["phase"] = json!("Failed");
                pod["status"]["reason"] = json!("Evicted");
                pod["status"]["conditions"][0]["status"] = json!("False");
                Ok(())
            })
            .unwrap();
        });
    }

    /// Puts our label on the first object of this kind, or takes it off. Its name.
    pub(super) fn relabel(&self, plural: &str, app: Option<&str>) -> String {
        self.world.write(|w| {
            let key = w.all.keys().find(|key| key.0 == plural).unwrap().clone();
            w.edit(&key, &json!({}), |object| {
                let labels = object["metadata"]["labels"].as_object_mut().unwrap();
                match app {
                    Some(app) => drop(labels.insert("graceful.dev/app".to_owned(), json!(app))),
                    None => drop(labels.remove("graceful.dev/app")),
                }
                Ok(())
            })
            .unwrap();
            key.2
        })
    }

    /// The DELETEs of pods so far.
    pub(super) fn deletions(&self) -> usize {
        let log = &self.world.open().log;
        log.iter().filter(|(_, plural, event)| plural == "pods" && event["type"] == "DELETED").count()
    }

    pub(super) fn delete(&self) {
        let key = ("gracefulapps".to_owned(), "apps".to_owned(), "tasks".to_owned());
        self.world.write(|w| w.delete(&key, &json!({})).unwrap());
    }

    pub(super) fn nothing_left(&self) -> bool {
        let kinds = ["gracefulapps", "deployments", "pods", "services", "poddisruptionbudgets"];
        kinds.iter().all(|kind| self.world.list(kind).is_empty())
    }

    /// Processes that have closed their doors.
    pub(super) fn closed(&self) -> Vec<String> {
        let processes = self.processes.lock().unwrap();
        processes.iter().filter(|(_, p)| p.drain.try_task().is_err()).map(|(uid, _)| uid.clone()).collect()
    }

    /// A task in each running pod.
    pub(super) fn hold_a_task_in_each(&self) -> Vec<TaskGuard> {
        let processes = self.processes.lock().unwrap();
        self.ledger.accepted.fetch_add(u32::try_from(processes.len()).unwrap(), Ordering::Relaxed);
        processes.values().map(|p| p.drain.try_task().unwrap()).collect()
    }

    /// The same in the pod that drains.
    pub(super) fn hold_a_task_where_it_drains(&self) -> (String, TaskGuard) {
        let pods = self.world.list("pods");
        let pod = pods
            .iter()
            .find(|p| alive(p) && !p["metadata"]["annotations"]["graceful.dev/drain-since"].is_null())
            .unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let task = self.processes.lock().unwrap()[uid].drain.try_task().unwrap();
        self.ledger.accepted.fetch_add(1, Ordering::Relaxed);
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), task)
    }

    /// A task in a running pod that ends when the guard is dropped.
    pub(super) fn hold_a_task(&self) -> TaskGuard {
        let processes = self.processes.lock().unwrap();
        // Load as well: a test of seconds may be over before any other came.
        self.ledger.accepted.fetch_add(1, Ordering::Relaxed);
        processes.values().next().unwrap().drain.try_task().unwrap()
    }

    pub(super) fn lost_nothing(&self) {
        let lost = self.ledger.lost.load(Ordering::Relaxed);
        let accepted = self.ledger.accepted.load(Ordering::Relaxed);
        assert!(accepted > 0, "no load was sent: this would prove nothing");
        assert_eq!(lost, 0, "P1: of {accepted} accepted tasks");
    }
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) serving: usize,
    pub(super) pods: u64,
    pub(super) kills: bool,
}

/// Where a scenario is about something else than P3.
pub(super) const CALM: Limits = Limits { serving: 0, pods: u64::MAX, kills: false };

async fn start(
    world: &World,
    dice: &Dice,
    tokens: Option<Tokens>,
    pulse: Arc<Pulse>,
) -> (JoinHandle<()>, SocketAddr) {
    let clock = Clock::default();
    let client = || heard_by(&clock, client(world, dice));
    let (watching, calling, asker) = (client(), client(), Asker::that_reaches_loopback());
    let means = Means { watching, calling, campaign: None, asker, clock, pulse };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    let operator = tokio::spawn(async move {
        let never = std::future::pending();
        // The app that another operator runs is in none of these.
        let namespaces = ["apps".to_owned(), "many".to_owned()].into();
        let settings = Settings {
            tokens,
            listen: listener.local_addr().unwrap(),
            instance: None,
            node_drain: Some(NodeDrain::default()),
            namespaces,
            lease: None,
            gate_image: GateImage { image: "graceful/gate:test".to_owned(), pull_policy: None },
        };
        run_on(means, listener, settings, never).await.unwrap();
    });
    (operator, port)
}

pub(super) fn node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

pub(super) fn spec(replicas: u32) -> Value {
    json!({
        "replicas": replicas,
        "template": {"metadata": {"labels": {"try": "0"}}, "spec": {"containers": [
            {"name": "server", "image": "x", "ports": [{"name": "admin", "containerPort": ADMIN}]},
        ]}},
        "service": {"ports": [{"port": 80}]},
        "drain": {"lingerSeconds": 0},
    })
}

pub(super) fn template(try_: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"labels": {"try": try_}}}}})
}

async fn faults(seed: u64) {
    let mut stage = Stage::set(seed, 12, spec(3)).await;
    let limits = |serving, pods| Limits { serving, pods, kills: true };
    stage.until("the first three pods", limits(0, 4), |s| s.settled("0", 3)).await;
    stage.change(&template("1"));
    stage.until("a rollout", limits(3, 4), |s| s.settled("1", 3)).await;
    stage.change(&template("2"));
    stage
        .until("a rollout half way", limits(3, 4), |s| {
            s.world.list("pods").iter().any(|p| p["metadata"]["labels"]["try"] == "2" && ready(p))
        })
        .await;
    stage.change(&template("1"));
    stage.until("the way back", limits(3, 4), |s| s.settled("1", 3)).await;
    stage.change(&json!({"spec": {"replicas": 5}}));
    stage.until("two more", limits(3, 7), |s| s.settled("1", 5)).await;
    stage.change(&json!({"spec": {"replicas": 2}}));
    stage.until("three fewer", limits(2, 7), |s| s.settled("1", 2)).await;
    stage.lost_nothing();

    stage.dice.put_away();
    stage.world.write(|w| {
        let key = ("gracefulapps".to_owned(), "apps".to_owned(), "tasks".to_owned());
        w.delete(&key, &json!({})).unwrap();
    });
    stage
        .until("the end", limits(0, 7), |s| {
            ["gracefulapps", "deployments", "pods", "services", "poddisruptionbudgets"]
                .iter()
                .all(|kind| s.world.list(kind).is_empty())
        })
        .await;
    stage.lost_nothing();
}

/// P1, P3, P6: rollouts, a rollback in their midst, scaling, and a deletion, while calls fail, lie and linger, and the operator dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_calls_fail_and_the_operator_dies() {
    // Side by side: they mostly wait.
    futures::future::join_all((1..=4).map(faults)).await;
}

/// P6: once all is as desired, not one more write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_at_rest_is_left_alone() {
    let mut stage = Stage::set(7, 0, spec(2)).await;
    stage.until("two pods", Limits { serving: 0, pods: 3, kills: false }, |s| s.settled("0", 2)).await;
    // The last status may still be on its trailing edge.
    let quiet = Duration::from_millis(2_500);
    let writes = |s: &Stage| s.world.open().writes;
    let (mut before, mut since) = (writes(&stage), Instant::now());
    let started = Instant::now();
    while since.elapsed() < quiet {
        assert!(started.elapsed() < Duration::from_secs(15), "it is written again and again");
        stage.world.changed().await;
        let now = writes(&stage);
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
    // Another operator finds nothing to do either.
    stage.kill_the_operator().await;
    let started = Instant::now();
    while started.elapsed() < quiet {
        stage.world.changed().await;
        assert_eq!(writes(&stage), before, "a restart alone is no reason to write");
    }
}
