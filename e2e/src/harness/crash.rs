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
    kill(pod, "server").await
}

/// Kills what runs under this name in this pod: the gate, or the app behind it.
pub async fn kill(pod: &Pod, process: &str) -> anyhow::Result<()> {
    let uid = pod.uid().context("a pod without a uid")?;
    let found = processes(process, &[POD_UID, uid.as_bytes()].concat())?;
    ensure!(!found.is_empty(), "{} has no {process} that runs on this machine", pod.name_any());
    signal(Signal::SIGKILL, &found)
}

/// The operator's process in the pod of this name.
pub fn operator_of(pod: &str) -> anyhow::Result<u32> {
    let found = processes("operator", [POD_NAME, pod].concat().as_bytes())?;
    ensure!(found.len() == 1, "{pod} has {} operators that run on this machine", found.len());
    Ok(found[0])
}

/// A part of the cluster that is paused until this is dropped, whatever becomes of the test.
pub struct Paused(Vec<u32>);

impl Paused {
    /// The controllers: nobody makes pods, or follows them in EndpointSlices.
    pub fn controllers() -> anyhow::Result<Self> {
        // The kernel keeps 15 characters of a name.
        let found: Vec<_> = pids().filter(|pid| comm(*pid) == "kube-controller").collect();
        ensure!(found.len() == 1, "{} controller managers run on this machine", found.len());
        signal(Signal::SIGSTOP, &found)?;
        Ok(Self(found))
    }

    /// A node's kubelet. What it started runs on: only the cluster hears no more of its node.
    pub fn kubelet(node: &str) -> anyhow::Result<Self> {
        let flag = format!("--hostname-override={node}");
        let is_it = |pid: &u32| comm(*pid) == "kubelet" && command(*pid).split('\0').any(|word| word == flag);
        let found: Vec<_> = pids().filter(is_it).collect();
        ensure!(found.len() == 1, "{node} has {} kubelets that run on this machine", found.len());
        signal(Signal::SIGSTOP, &found)?;
        Ok(Self(found))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = signal(Signal::SIGCONT, &self.0) {
            eprintln!("the process {:?} is left paused: {error:#}", self.0);
        }
    }
}

/// Where the API server of our own cluster writes down what operators wrote.
pub fn audit_log() -> anyhow::Result<PathBuf> {
    let servers = pids().filter(|pid| comm(*pid) == "kube-apiserver").map(command);
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

/// Its words, each ended by a zero.
fn command(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn comm(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim().to_owned()
}
