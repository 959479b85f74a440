//! Signals for a container's process, SIGKILL as the kernel's OOM killer would: the nodes of our own cluster are namespaces of
//! this machine, so their processes are seen in its /proc.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use graceful_process::{Signal, signal};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// What the operator injects; it names the pod in its containers' environment.
const POD_UID: &[u8] = b"GRACEFUL_POD_UID=";

/// The chart names the pod in the operator's environment as well.
const POD_NAME: &str = "POD_NAME=";

/// Kills the task server of this pod. Its sandbox and its volumes stay; the kubelet starts it again.
pub(super) async fn kill_server(pod: &Pod) -> anyhow::Result<()> {
    let uid = pod.uid().context("a pod without a uid")?;
    let found = processes("server", &[POD_UID, uid.as_bytes()].concat())?;
    ensure!(!found.is_empty(), "{} has no server that runs on this machine", pod.name_any());
    signal(Signal::SIGKILL, &found)
}

/// The operator's process in the pod of this name.
pub fn operator_of(pod: &str) -> anyhow::Result<u32> {
    let found = processes("operator", [POD_NAME, pod].concat().as_bytes())?;
    ensure!(found.len() == 1, "{pod} has {} operators that run on this machine", found.len());
    Ok(found[0])
}

/// Where the API server of our own cluster writes down what operators wrote.
pub fn audit_log() -> anyhow::Result<PathBuf> {
    let of = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let servers = pids().filter(|pid| comm(*pid) == "kube-apiserver").map(|pid| of(&pid));
    let mut paths = servers.filter_map(|line| {
        line.split('\0').find_map(|word| word.strip_prefix("--audit-log-path=")).map(PathBuf::from)
    });
    paths.next().context("no API server with an audit log runs on this machine")
}

/// The processes of this name with this variable, which no other pod's process shares.
fn processes(name: &str, variable: &[u8]) -> anyhow::Result<Vec<u32>> {
    let is_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        comm(*pid) == name && environment.split(|byte| *byte == 0).any(|found| found == variable)
    };
    Ok(pids().filter(is_it).collect())
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn comm(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim().to_owned()
}
