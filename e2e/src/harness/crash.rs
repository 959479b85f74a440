//! SIGKILL for a container's process, as the kernel's OOM killer would: the nodes of our own cluster are namespaces of
//! this machine, so their processes are seen in its /proc.

use std::fs;

use anyhow::{Context, ensure};
use graceful_process::{Signal, signal};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// What the operator injects; it names the pod in its containers' environment.
const POD_UID: &[u8] = b"GRACEFUL_POD_UID=";

/// Kills the task server of this pod. Its sandbox and its volumes stay; the kubelet starts it again.
pub(super) async fn kill_server(pod: &Pod) -> anyhow::Result<()> {
    let uid = pod.uid().context("a pod without a uid")?;
    let found = server_of(&uid)?;
    ensure!(!found.is_empty(), "{} has no server that runs on this machine", pod.name_any());
    signal(Signal::SIGKILL, &found)
}

/// Its process, or none; by the environment, which no other pod's process shares.
fn server_of(uid: &str) -> anyhow::Result<Vec<u32>> {
    let wanted = [POD_UID, uid.as_bytes()].concat();
    let is_it = |pid: &u32| {
        let named = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "server");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        named && environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_it).collect())
}
