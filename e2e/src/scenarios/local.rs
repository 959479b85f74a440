//! Behind a Service with `externalTrafficPolicy: Local` a node answers those outside only with pods of its own, and behind one with `internalTrafficPolicy: Local` its own
//! pods likewise: one that lingers must still be reached there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_api::names;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS};
use crate::wire::PORT;

/// Long enough to see it, longer than any load balancer's check here.
const LINGER: u32 = 8;
/// Longer than the linger, which the preStop hook sits out.
const GRACE: u32 = 20;
/// The user's own Service, for pods on the same node.
const INSIDE: &str = "inside";
/// Four requests a second at each node's port, and from a pod on each node.
const EVERY: Duration = Duration::from_millis(250);
/// What a client of a node without endpoints waits in vain for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Who asks.
#[derive(Clone)]
enum Client {
    /// From this machine, at the node's port.
    Outside { node: String, port: u16 },
    /// A pod on the node, by way of the API server.
    Inside { node: String, pod: String, client: kube::Client, namespace: String },
}

/// One request, on a connection of its own.
struct Asked {
    node: String,
    inside: bool,
    at: Instant,
    answered: bool,
}

/// Two pods on two nodes, one of them goes: its node's port answers for the whole linger, and so does the Service that its node's own pods ask.
pub(super) async fn local_traffic_lingers(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": NAME}}, "topologyKey": "kubernetes.io/hostname"}]}});
    let service = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    let spec = AppSpec::tasks(&scene.world).replicas(2).grace(GRACE).drain("lingerSeconds", LINGER);
    given.app(spec.set("/template/spec/affinity", apart).set("/service", service)).await?;
    let asking = clients_on_both_nodes(scene).await?;
    for client in &asking {
        // Ready is not reachable yet: kube-proxy writes its rules a moment later.
        eventually("the node answers", STARTS, || answered(client)).await?;
    }
    let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let mut clients = JoinSet::new();
    for client in asking {
        clients.spawn(ask_again_and_again(client, Arc::clone(&log)));
    }
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    when.scaled(1).await?;
    let gone = then
        .pods("one of them lingers", ROLLS, |pods| {
            let lingers = pods.iter().find(|p| p.annotations().contains_key(names::DRAIN_SINCE));
            lingers.cloned().context("none does")
        })
        .await?;
    let slices = scene.api::<EndpointSlice>().list(&ListParams::default()).await?.items;
    let ours = slices.iter().filter(|s| {
        s.labels().get("endpointslice.kubernetes.io/managed-by").map(String::as_str) == Some(names::GROUP)
    });
    let ours = ours.count();
    ensure!(ours == 2, "the pod that lingers has {ours} EndpointSlices of ours for two Services");
    let unrouted = begun.elapsed();
    sleep(Duration::from_secs(LINGER.into())).await;
    then.rolled_out().await?;
    clients.shutdown().await;
    let name = gone.name_any();
    let node = gone.status.and_then(|s| s.host_ip).context("no node")?;
    // A second is left for the end of the linger itself.
    let until = begun + unrouted + Duration::from_secs(u64::from(LINGER) - 1);
    all_answered(&log, &node, begun, until)?;
    let left = scene.api::<EndpointSlice>().list(&ListParams::default()).await?.items;
    let its_own = |s: &EndpointSlice| s.name_any().starts_with(&format!("{name}-"));
    ensure!(!left.iter().any(its_own), "its EndpointSlice is still there");
    Ok(())
}

fn all_answered(log: &Mutex<Vec<Asked>>, node: &str, from: Instant, until: Instant) -> anyhow::Result<()> {
    let log = log.lock();
    for inside in [false, true] {
        let there: Vec<_> = log
            .iter()
            .filter(|a| a.inside == inside && a.node == node && a.at > from && a.at < until)
            .collect();
        let lost = there.iter().filter(|a| !a.answered).count();
        let from_where = if inside { "by pods on" } else { "from outside to" };
        ensure!(there.len() > 10, "only {} requests were sent {from_where} the node", there.len());
        ensure!(
            lost == 0,
            "{lost} of {} requests {from_where} the lingering pod's node had no answer",
            there.len()
        );
    }
    let when = |a: &Asked| match a.at.checked_duration_since(from) {
        Some(after) => format!("{:.1} s after the scaling", after.as_secs_f64()),
        None => format!("{:.1} s before the scaling", (from - a.at).as_secs_f64()),
    };
    let others: Vec<_> = log.iter().filter(|a| a.node != node && !a.answered).map(when).collect();
    ensure!(others.is_empty(), "requests at the other node were not answered: {others:?}");
    Ok(())
}

/// Of each node's port, and of a pod on each node, which asks a Service of the user's own.
async fn clients_on_both_nodes(scene: &Scene) -> anyhow::Result<Vec<Client>> {
    let service = json!({"metadata": {"name": INSIDE}, "spec": {"internalTrafficPolicy": "Local",
        "selector": {"app": NAME, (names::SERVING_LABEL): names::SERVING}, "ports": [{"port": 80, "targetPort": "http"}]}});
    let services = scene.api::<Service>();
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let port = node_port(scene).await?;
    let mut clients = Vec::new();
    for pod in scene.pods().await? {
        let address = pod.status.and_then(|s| s.host_ip).context("a pod without a node")?;
        let name = pod.spec.and_then(|s| s.node_name).context("a pod without a node")?;
        let asks = format!("asks-{}", clients.len());
        pod_that_asks(scene, &asks, &name).await?;
        let (client, namespace) = (scene.client.clone(), scene.namespace.clone());
        clients.push(Client::Inside { node: address.clone(), pod: asks, client, namespace });
        clients.push(Client::Outside { node: address, port });
    }
    let both = clients.len() == 4 && clients[0].node() != clients[2].node();
    ensure!(both, "the pods are not on two nodes");
    Ok(clients)
}

/// A load generator that nobody starts: it reaches what it is told to.
async fn pod_that_asks(scene: &Scene, name: &str, node: &str) -> anyhow::Result<()> {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "asks",
                "image": scene.world.image("loadgen"),
                "imagePullPolicy": scene.world.pull_policy(),
            }],
        },
    });
    scene.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

async fn node_port(scene: &Scene) -> anyhow::Result<u16> {
    let service = scene.api::<Service>().get(NAME).await?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let port = ports.first().and_then(|p| p.node_port).context("no node port")?;
    Ok(u16::try_from(port)?)
}

impl Client {
    fn node(&self) -> &str {
        match self {
            Self::Outside { node, .. } | Self::Inside { node, .. } => node,
        }
    }
}

async fn ask_again_and_again(client: Client, log: Arc<Mutex<Vec<Asked>>>) {
    loop {
        let at = Instant::now();
        let answered = answered(&client).await.is_ok();
        let inside = matches!(client, Client::Inside { .. });
        log.lock().push(Asked { node: client.node().to_owned(), inside, at, answered });
        sleep(EVERY).await;
    }
}

async fn answered(client: &Client) -> anyhow::Result<()> {
    match client {
        Client::Outside { node, port } => Ok(timeout(TIMEOUT, ask(node, *port)).await??),
        Client::Inside { pod, client, namespace, .. } => {
            let whom = format!("reach?target=http://{INSIDE}/v1/get_queue_length/");
            let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{PORT}/proxy/{whom}");
            client.request_text(http::Request::get(uri).body(Vec::new())?).await?;
            Ok(())
        }
    }
}

/// Any answer is one: past the latch a 503 says as much.
async fn ask(node: &str, port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((node, port)).await?;
    stream
        .write_all(b"GET /v1/get_queue_length/ HTTP/1.1\r\nhost: tasks\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 ") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
