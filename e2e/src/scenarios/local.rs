//! Behind a Service with `externalTrafficPolicy: Local` a node answers only with pods of its own: one that lingers must still be reached there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_api::names;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
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

/// Long enough to see it, longer than any load balancer's check here.
const LINGER: u32 = 8;
/// Longer than the linger, which the preStop hook sits out.
const GRACE: u32 = 20;
/// Four requests a second at each node's port.
const EVERY: Duration = Duration::from_millis(250);
/// What a client of a node without endpoints waits in vain for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One request from outside the cluster, on a connection of its own.
struct Asked {
    node: String,
    at: Instant,
    answered: bool,
}

/// Two pods on two nodes, one of them goes: its node's port answers for the whole linger.
pub(super) async fn local_traffic_lingers(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": NAME}}, "topologyKey": "kubernetes.io/hostname"}]}});
    let service = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    let spec = AppSpec::tasks(&scene.world).replicas(2).grace(GRACE).drain("lingerSeconds", LINGER);
    given.app(spec.set("/template/spec/affinity", apart).set("/service", service)).await?;
    let port = node_port(scene).await?;
    let pods = scene.pods().await?;
    let nodes: Vec<_> = pods.iter().filter_map(|p| p.status.as_ref()?.host_ip.clone()).collect();
    ensure!(nodes.len() == 2 && nodes[0] != nodes[1], "the pods are on {nodes:?}");
    for node in &nodes {
        // Ready is not reachable yet: kube-proxy writes its rules a moment later.
        eventually("the node answers", STARTS, || answered(node, port)).await?;
    }
    let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let mut clients = JoinSet::new();
    for node in nodes {
        clients.spawn(ask_again_and_again(node, port, Arc::clone(&log)));
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
    ensure!(ours.count() == 1, "the pod that lingers has no EndpointSlice of ours");
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
    let there: Vec<_> = log.iter().filter(|a| a.node == node && a.at > from && a.at < until).collect();
    let lost = there.iter().filter(|a| !a.answered).count();
    ensure!(there.len() > 20, "only {} requests were sent", there.len());
    ensure!(lost == 0, "{lost} of {} requests at the lingering pod's node were not answered", there.len());
    let when = |a: &Asked| match a.at.checked_duration_since(from) {
        Some(after) => format!("{:.1} s after the scaling", after.as_secs_f64()),
        None => format!("{:.1} s before the scaling", (from - a.at).as_secs_f64()),
    };
    let others: Vec<_> = log.iter().filter(|a| a.node != node && !a.answered).map(when).collect();
    ensure!(others.is_empty(), "requests at the other node were not answered: {others:?}");
    Ok(())
}

async fn node_port(scene: &Scene) -> anyhow::Result<u16> {
    let service = scene.api::<Service>().get(NAME).await?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let port = ports.first().and_then(|p| p.node_port).context("no node port")?;
    Ok(u16::try_from(port)?)
}

async fn ask_again_and_again(node: String, port: u16, log: Arc<Mutex<Vec<Asked>>>) {
    loop {
        let at = Instant::now();
        let answered = answered(&node, port).await.is_ok();
        log.lock().push(Asked { node: node.clone(), at, answered });
        sleep(EVERY).await;
    }
}

async fn answered(node: &str, port: u16) -> anyhow::Result<()> {
    Ok(timeout(TIMEOUT, ask(node, port)).await??)
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
