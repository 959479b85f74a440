//! What the operator's container uses, by the kubelet's own figures.

use std::fmt;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::charts;
use super::wait::eventually;
use super::world::World;

/// What the kubelet says of the operator at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    at: Instant,
    cpu_nanoseconds: u64,
    rss_bytes: u64,
    working_set_bytes: u64,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Resident memory at the end.
    pub rss_mebibytes: f64,
    /// The kubelet's working set at the end: what a memory limit is held against.
    pub working_set_mebibytes: f64,
    /// Share of one core, on average.
    pub cpu_millicores: f64,
}

impl Usage {
    /// The average over the time between.
    pub fn between(before: &Reading, after: &Reading) -> Self {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let cpu = after.cpu_nanoseconds.saturating_sub(before.cpu_nanoseconds) as f64 / 1e9;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Self {
            rss_mebibytes: mebibytes(after.rss_bytes),
            working_set_mebibytes: mebibytes(after.working_set_bytes),
            cpu_millicores: if seconds > 0.0 { cpu / seconds * 1000.0 } else { 0.0 },
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_mebibytes, working_set_mebibytes, cpu_millicores } = self;
        write!(
            f,
            "RSS {rss_mebibytes:.1} MiB, working set {working_set_mebibytes:.1} MiB, CPU {cpu_millicores:.1} millicores"
        )
    }
}

/// Reads the kubelet's summary of the node that the operator runs on.
pub async fn operator_usage(world: &World) -> anyhow::Result<Reading> {
    eventually("the kubelet knows what the operator uses", super::STARTS, || read(world)).await
}

async fn read(world: &World) -> anyhow::Result<Reading> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), charts::NAMESPACE);
    let list = pods.list(&ListParams::default().labels(charts::OPERATOR_PODS)).await?;
    let pod = list.items.iter().find(|p| p.metadata.deletion_timestamp.is_none()).context("no operator")?;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).context("not scheduled")?;
    let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary")).body(Vec::new())?;
    let summary: Value = world.client.request(request).await?;
    let name = pod.name_any();
    let all = summary["pods"].as_array().context("no pods in the kubelet's summary")?;
    let ours = all.iter().find(|p| p["podRef"]["name"] == name.as_str()).context("not in the summary yet")?;
    let container = &ours["containers"][0];
    let figure = |path: &str| container.pointer(path).and_then(Value::as_u64).context(path.to_owned());
    Ok(Reading {
        at: Instant::now(),
        cpu_nanoseconds: figure("/cpu/usageCoreNanoSeconds")?,
        rss_bytes: figure("/memory/rssBytes")?,
        working_set_bytes: figure("/memory/workingSetBytes")?,
    })
}
