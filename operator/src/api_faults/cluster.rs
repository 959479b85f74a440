//! The rest of a cluster: a Deployment controller and ReplicaSets that choose their victims as the real ones do, a kubelet whose pods speak the
//! real drain protocol over real sockets, and clients that follow the serving label. It keeps the ledger, and it never asks the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use graceful_drain::{Drain, Keys, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::faulty::Dice;
use super::world::{Key, World, merge, now};

pub(super) const ADMIN: u16 = 19808;

/// The container that stands before the others and answers for them.
pub(super) const GATE: &str = "graceful-gate";

/// What the clients were told, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) accepted: AtomicU32,
    pub(super) finished: AtomicU32,
    /// Times that clients were sent to a pod that takes none.
    pub(super) closed_doors: AtomicU32,
    /// Times that the user's Service had sent clients to pods, and had none to send them to.
    pub(super) nowhere: AtomicU32,
    /// In flight when a pod was told to end.
    pub(super) lost: AtomicU32,
    /// Most pods that were neither terminating nor waiting to be taken back, beyond what the Deployments ask for.
    pub(super) pods_made: AtomicU32,
}

/// From a pod's creation to its first running container. A real one takes no less; it is what a scale right after a DELETE has time for.
const START: Duration = Duration::from_millis(250);

/// What runs, by pod uid.
pub(super) type Processes = Arc<Mutex<BTreeMap<String, Process>>>;

pub(super) struct Process {
    pub(super) drain: Drain,
    /// Its admin port; gone with the process.
    _port: JoinSet<()>,
}

/// What a ReplicaSet was told last, and since when its Deployment says something else.
struct ToldReplicaSet {
    replicas: u64,
    generation: Value,
    asked: Instant,
}

/// Plays until it is dropped.
pub(super) struct Cluster {
    world: World,
    dice: Dice,
    ledger: Arc<Ledger>,
    processes: Processes,
    /// When each pod was taken up.
    taken_up: BTreeMap<String, Instant>,
    /// By a Deployment's uid: what its ReplicaSet knows.
    told: BTreeMap<String, ToldReplicaSet>,
    tasks: JoinSet<()>,
}

/// 127.x.y.z, one a pod: scenarios in one test process share the machine, and so may two such processes.
fn fresh_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = 10 + std::process::id() % 200;
    IpAddr::V4(Ipv4Addr::from(0x7f00_0000 + (process << 16) + n))
}

impl Cluster {
    pub(super) async fn play(world: World, dice: Dice, ledger: Arc<Ledger>, processes: Processes) {
        let mut cluster = Self {
            world,
            dice,
            ledger,
            processes,
            taken_up: BTreeMap::new(),
            told: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        loop {
            cluster.deployments();
            cluster.kubelet().await;
            cluster.clients();
            while cluster.tasks.try_join_next().is_some() {}
            cluster.world.changed().await;
        }
    }

    /// Makes and takes pods until each Deployment has its replicas.
    fn deployments(&mut self) {
        // The Deployments first: a real controller never sees a scale before the DELETE that it follows, for its word comes by way of the ReplicaSet.
        let deployments = self.world.list("deployments");
        let pods = self.world.list("pods");
        for deployment in deployments {
            let name = deployment["metadata"]["name"].as_str().unwrap();
            let selector = &deployment["spec"]["selector"]["matchLabels"];
            let selected = |p: &Value| is_selected(p, selector);
            let counted = |p: &&Value| p["owner"] == name && alive(p) && !finished(p) && selected(p);
            let mut live: Vec<_> = pods.iter().filter(counted).collect();
            let wanted = usize::try_from(self.told_its_replica_set(&deployment)).unwrap();
            let revision = &deployment["metadata"]["labels"]["graceful.dev/revision"];
            if revision.is_null() || revision == "adopted" {
                self.tell_how_far(&deployment, &live);
            }
            for _ in live.len()..wanted {
                self.make_pod(name, &deployment);
            }
            // Pending before Running, not ready before ready, lower cost first, newer first.
            live.sort_by_key(|p| (phase(p) == "Running", ready(p), cost(p), std::cmp::Reverse(version(p))));
            for victim in live.iter().take(live.len().saturating_sub(wanted)) {
                if phase(victim) == "Running" {
                    eprintln!(
                        "the ReplicaSet of {name} ({wanted} replicas) takes {}, which runs",
                        victim["metadata"]["name"]
                    );
                }
                let _gone_already = self.world.write(|w| w.delete(&key(victim), &json!({})));
            }
        }
        let names: BTreeSet<_> = self
            .world
            .list("deployments")
            .iter()
            .map(|d| d["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        for orphan in
            pods.iter().filter(|p| alive(p) && !names.contains(p["owner"].as_str().unwrap_or_default()))
        {
            let _gone_already = self.world.write(|w| w.delete(&key(orphan), &json!({})));
        }
    }

    /// What a Deployment's ReplicaSet was told last: what the Deployment says, but for a webhook on ReplicaSets that takes its time.
    fn told_its_replica_set(&mut self, deployment: &Value) -> u64 {
        let takes = self.world.open().admission.replica_sets_take;
        let says = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        let generation = &deployment["metadata"]["generation"];
        let now = Instant::now();
        let told = self.told.entry(text(&deployment["metadata"]["uid"])).or_insert_with(|| ToldReplicaSet {
            replicas: says,
            generation: generation.clone(),
            asked: now,
        });
        if told.generation != *generation {
            (told.generation, told.asked) = (generation.clone(), now);
        }
        let followed = deployment["status"]["observedGeneration"] == *generation;
        let first = deployment["status"]["observedGeneration"].is_null();
        if !followed && !first && told.asked.elapsed() < takes {
            return told.replicas;
        }
        told.replicas = says;
        if deployment["status"]["observedGeneration"] != *generation {
            let seen = json!({"metadata": {"resourceVersion": deployment["metadata"]["resourceVersion"]}});
            let key = ("deployments".to_owned(), "apps".to_owned(), text(&deployment["metadata"]["name"]));
            let _changed_meanwhile = self.world.write(|w| {
                w.edit(&key, &seen, |object| {
                    object["status"]["observedGeneration"] = generation.clone();
                    Ok(())
                })
            });
        }
        says
    }

    /// What a Deployment says of its rollout, of one that somebody reads it of.
    fn tell_how_far(&self, deployment: &Value, live: &[&Value]) {
        let available = live.iter().filter(|p| ready(p)).count();
        let said =
            json!({"replicas": live.len(), "updatedReplicas": live.len(), "availableReplicas": available});
        let key = ("deployments".to_owned(), "apps".to_owned(), text(&deployment["metadata"]["name"]));
        let _gone = self.world.write(|w| {
            w.edit(&key, &json!({}), |object| {
                merge(&mut object["status"], &said);
                Ok(())
            })
        });
    }

    fn make_pod(&self, owner: &str, deployment: &Value) {
        let n = self.ledger.pods_made.fetch_add(1, Ordering::Relaxed);
        let template = &deployment["spec"]["template"];
        let mut labels = template["metadata"]["labels"].clone();
        labels["pod-template-hash"] = json!("rs");
        let mut spec = template["spec"].clone();
        let nodes = self.world.list("nodes");
        // Whoever tolerates all taints goes where there is most room, and a node that is emptied has that.
        let tolerates = !template["spec"]["tolerations"].is_null();
        let open = nodes.iter().find(|node| tolerates || node["spec"]["unschedulable"] != true);
        spec["nodeName"] = open.map(|node| node["metadata"]["name"].clone()).unwrap_or_default();
        let pod = json!({
            "metadata": {
                "name": format!("{owner}-rs-{n}"),
                "labels": labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{owner}-rs"), "uid": "rs", "controller": true}],
            },
            "owner": owner,
            "spec": spec,
            "status": {"phase": "Pending"},
        });
        self.world.write(|w| w.create("pods", "apps", pod)).unwrap();
    }

    /// Starts what is Pending after a moment, ends what is terminating.
    async fn kubelet(&mut self) {
        for pod in self.world.list("pods") {
            let (uid, name) = (text(&pod["metadata"]["uid"]), text(&pod["metadata"]["name"]));
            let running = self.processes.lock().unwrap().contains_key(&uid);
            if !alive(&pod) {
                if self.drains_itself(&pod, &uid) {
                    continue;
                }
                self.end(&uid, &name);
                self.world.write(|w| w.remove(&key(&pod)));
            } else if !finished(&pod)
                && !running
                && self.taken_up.entry(uid.clone()).or_insert_with(Instant::now).elapsed() > START
                && self.dice.below(3) == 0
            {
                self.start(&pod, uid).await;
            }
        }
    }

    async fn start(&self, pod: &Value, uid: String) {
        let address = fresh_address();
        let gate = &pod["spec"]["initContainers"][0];
        let answers = if gate["name"] == GATE { gate } else { &pod["spec"]["containers"][0] };
        // As from its environment.
        let variable = |name: &str| {
            let mut env = answers["env"].as_array().into_iter().flatten();
            env.find(|v| v["name"] == name).and_then(|v| v["value"].as_str())
        };
        let port = variable("GRACEFUL_ADMIN_LISTEN_PORT").map_or(ADMIN, |port| port.parse().unwrap());
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let keys = variable("GRACEFUL_DRAIN_KEYS");
        let keys = keys.map(|set| Keys::from_jwk_set(set).unwrap());
        let drain = Drain::new(Settings { pod_uid: uid.clone(), keys, ..Settings::default() });
        let mut port = JoinSet::new();
        let routes = drain.routes();
        port.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        self.processes.lock().unwrap().insert(uid, Process { drain, _port: port });
        let runs = |name: &Value| {
            json!({"name": name, "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
                "state": {"running": {}}, "containerID": "c"})
        };
        let mut status = json!({
            "phase": "Running", "podIP": address.to_string(), "startTime": now(),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now()}],
            "containerStatuses": [runs(&json!("server"))],
        });
        if gate["name"] == GATE {
            status["initContainerStatuses"] = json!([runs(&gate["name"])]);
        }
        let _deleted_meanwhile = self.world.write(|w| {
            w.edit(&key(pod), &json!({}), |object| {
                object["status"] = status;
                Ok(())
            })
        });
    }

    /// An app that takes its SIGTERM for a drain goes on until it is done, or its grace is over.
    fn drains_itself(&self, pod: &Value, uid: &str) -> bool {
        if pod["metadata"]["labels"]["drains-itself"] != "true" {
            return false;
        }
        let Some(drain) = self.processes.lock().unwrap().get(uid).map(|p| p.drain.clone()) else {
            return false;
        };
        let busy = drain.terminate(Duration::ZERO).in_flight.total() > 0;
        let ends = pod["metadata"]["deletionTimestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        busy && jiff::Timestamp::now() < ends
    }

    /// What is in flight now is lost: this one does not drain itself, so that only the operator's care counts.
    fn end(&self, uid: &str, name: &str) {
        let Some(process) = self.processes.lock().unwrap().remove(uid) else { return };
        let lost = u32::try_from(process.drain.status().in_flight.total()).unwrap();
        if lost > 0 {
            eprintln!("{name} was ended with {lost} in flight");
            self.ledger.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Clients go where the Service would send them: to ready pods with the serving label.
    fn clients(&mut self) {
        // Held until the task is in: on a busy machine this thread may rest for longer than a pod must be quiet.
        let world = self.world.open();
        let pods = world.list("pods");
        // Where there is a Service of the user's, it alone says where they go.
        let services = world.list("services");
        let users = services.iter().find(|s| s["metadata"]["annotations"]["graceful.dev/app-uid"].is_null());
        let serving = json!({"graceful.dev/serving": "true"});
        let selector = users.map_or(&serving, |service| &service["spec"]["selector"]);
        let routed: Vec<_> =
            pods.iter().filter(|p| alive(p) && ready(p) && is_selected(p, selector)).collect();
        let some_are_ready = pods.iter().any(|p| alive(p) && ready(p));
        if users.is_some() && routed.is_empty() && some_are_ready {
            self.ledger.nowhere.fetch_add(1, Ordering::Relaxed);
        }
        let processes = self.processes.lock().unwrap();
        let closed = |p: &&Value| {
            processes.get(&text(&p["metadata"]["uid"])).is_some_and(|p| !p.drain.status().accepting)
        };
        let closed_doors = u32::try_from(routed.iter().copied().filter(closed).count()).unwrap();
        self.ledger.closed_doors.fetch_add(closed_doors, Ordering::Relaxed);
        if routed.is_empty() || self.dice.below(3) > 0 {
            return;
        }
        let pod = routed[self.dice.below(u32::try_from(routed.len()).unwrap()) as usize];
        let uid = text(&pod["metadata"]["uid"]);
        let Some(Ok(task)) = processes.get(&uid).map(|p| p.drain.try_task()) else { return };
        let ledger = Arc::clone(&self.ledger);
        ledger.accepted.fetch_add(1, Ordering::Relaxed);
        let work = Duration::from_millis(u64::from(20 + self.dice.below(200)));
        self.tasks.spawn(async move {
            tokio::time::sleep(work).await;
            drop(task);
            ledger.finished.fetch_add(1, Ordering::Relaxed);
        });
    }
}

/// Whether the pod has each of the selector's labels.
fn is_selected(pod: &Value, selector: &Value) -> bool {
    let mut all = selector.as_object().into_iter().flatten();
    all.all(|(key, value)| pod["metadata"]["labels"][key] == *value)
}

pub(super) fn alive(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
}

/// Its record stays, and its ReplicaSet counts it no more.
pub(super) fn finished(pod: &Value) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

pub(super) fn ready(pod: &Value) -> bool {
    pod["status"]["conditions"][0]["status"] == "True"
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn cost(pod: &Value) -> i64 {
    let cost = pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"].as_str();
    cost.and_then(|c| c.parse().ok()).unwrap_or_default()
}

fn version(pod: &Value) -> u64 {
    pod["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or_default()
}

pub(super) fn key(object: &Value) -> Key {
    ("pods".to_owned(), "apps".to_owned(), text(&object["metadata"]["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
