//! A stub kubelet: nodes that are not there, and pods on them that run as soon as they are bound and are gone as soon as
//! they should go.
//!
//! It says of a pod what a kubelet says: address, start, containers with their ids, Ready. It keeps the nodes' leases.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::answers::Pods;
use super::marks::{self, AT_ONCE, gone_is_fine};
use crate::harness::wait::eventually;

const NODES: [&str; 2] = ["bench-scale-1", "bench-scale-2"];
/// Room for all pods of a row twice, so that a rollout's surge fits.
const PODS_A_NODE: u32 = 20_000;
/// The nodes' own address: no pod has it.
const HOST: &str = "10.99.255.254";
/// The cluster calls a node unready after 12 s of silence.
const LEASE: Duration = Duration::from_secs(3);
/// A write that fails is tried again after this, a few times: the next event may be minutes away.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 5;
const READY: Duration = Duration::from_secs(30);

/// Stops when dropped.
#[derive(Debug)]
pub(super) struct Kubelet {
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Stub {
    client: Client,
    pods: Arc<Pods>,
    /// The pods that were told of, and where they answer.
    addresses: Arc<Mutex<HashMap<String, IpAddr>>>,
}

impl Kubelet {
    pub(super) async fn start(client: &Client, pods: Arc<Pods>) -> anyhow::Result<Self> {
        for name in NODES {
            join(client, name).await.with_context(|| format!("stub node {name}"))?;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_leases(client.clone()));
        let stub = Stub { client: client.clone(), pods, addresses: Arc::default() };
        for name in NODES {
            tasks.spawn(stub.clone().run(name));
        }
        let nodes: Api<Node> = Api::all(client.clone());
        eventually("pods can be scheduled on the stub nodes", READY, || async {
            for name in NODES {
                let taints = nodes.get(name).await?.spec.and_then(|s| s.taints).unwrap_or_default();
                // The node controller takes its own away once it has heard that the node is Ready.
                ensure!(
                    taints.iter().all(|taint| taint.key == marks::MARK.0),
                    "{name} is tainted: {taints:?}"
                );
            }
            Ok(())
        })
        .await?;
        Ok(Self { _tasks: tasks })
    }
}

async fn join(client: &Client, name: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut labels = marks::labels();
    labels["kubernetes.io/hostname"] = json!(name);
    let (key, value) = marks::MARK;
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]},
    });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": PODS_A_NODE.to_string()});
    let now = Time(Timestamp::now());
    let status = json!({"status": {
        "capacity": room, "allocatable": room,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "StubKubelet", "message": "stands in for a node in a bench",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

async fn keep_leases(client: Client) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let mut turn = interval(LEASE);
    loop {
        turn.tick().await;
        for name in NODES {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "labels": marks::labels()},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now())},
            });
            let apply = PatchParams::apply("bench-scale").force();
            if let Err(error) = leases.patch(name, &apply, &Patch::Apply(&lease)).await {
                eprintln!("the lease of {name} is not renewed: {error}");
            }
        }
    }
}

impl Stub {
    async fn run(self, node: &'static str) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let told = watcher(pods, config).default_backoff().applied_objects();
        told.for_each_concurrent(AT_ONCE, |pod| async {
            let Ok(pod) = pod else { return };
            for _ in 0..TRIES {
                match self.see(&pod).await {
                    Ok(()) => return,
                    Err(error) => eprintln!("stub kubelet, pod {}: {error:#}", pod.name_any()),
                }
                sleep(AGAIN).await;
            }
        })
        .await;
    }

    async fn see(&self, pod: &Pod) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let (name, uid) = (pod.name_any(), pod.uid().context("a pod without a uid")?);
        if pod.metadata.deletion_timestamp.is_some() {
            let same = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let delete =
                DeleteParams { preconditions: Some(same), ..DeleteParams::default().grace_period(0) };
            gone_is_fine(pods.delete(&name, &delete).await.map(drop))?;
            if let Some(address) = self.lock().remove(&uid) {
                self.pods.end(address);
            }
            return Ok(());
        }
        let runs = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        if runs {
            return Ok(());
        }
        let address = match self.lock().entry(uid.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => return Ok(()),
            std::collections::hash_map::Entry::Vacant(place) => *place.insert(self.pods.begin(&uid)?),
        };
        let status = Patch::Merge(json!({"status": running(pod, &uid, address)}));
        let written =
            gone_is_fine(pods.patch_status(&name, &PatchParams::default(), &status).await.map(drop));
        if written.is_err() {
            self.lock().remove(&uid);
            self.pods.end(address);
        }
        Ok(written?)
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<String, IpAddr>> {
        self.addresses.lock()
    }
}

/// What a kubelet says of a pod whose containers run and are ready.
fn running(pod: &Pod, uid: &str, address: IpAddr) -> Value {
    let now = Time(Timestamp::now());
    let kinds = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodScheduled"];
    let conditions = kinds.map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "stub", "ready": true, "started": true,
            "restartCount": 0, "containerID": format!("stub://{uid}/{}", container.name),
            "state": {"running": {"startedAt": now}},
        })
    });
    json!({
        "phase": "Running", "startTime": now, "hostIP": HOST, "hostIPs": [{"ip": HOST}],
        "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions,
        "containerStatuses": containers.collect::<Vec<_>>(),
    })
}
