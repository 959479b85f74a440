//! The state of the running cluster on the disk: what it was brought up as, and its removal.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use graceful_process::{command, succeeds, wait_until};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifacts::Artifacts;
use crate::config::Installed;
use crate::layout::{cache, node_dir, run};
use crate::{control_plane, kubernetes, network, node};

/// What a cluster was brought up as. One that differs is another cluster.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) nodes: u8,
    /// The folder of the build it runs.
    pub(crate) programs: PathBuf,
    /// Of every flag and file the parts were started with.
    configuration: String,
}

impl State {
    pub(crate) fn new(nodes: u8, artifacts: &Artifacts, installed: &Installed) -> Self {
        let files: Vec<_> = (1..=nodes).map(|n| node::configuration(n, installed)).collect();
        let scripts: Vec<_> = (1..=nodes).map(|n| node::inside(n, nodes, &node_dir(n))).collect();
        let all =
            format!("{:?}{files:?}{scripts:?}{}{}", control_plane::words(), network::wall(), kubernetes::DNS);
        Self {
            nodes,
            programs: artifacts.folder().to_owned(),
            configuration: hex::encode(Sha256::digest(all)),
        }
    }

    /// The state of this machine's cluster, if there is one.
    pub(crate) fn read() -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(run("state.json")).ok()?).ok()
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        fs::write(run("state.json.new"), serde_json::to_string(self)?)?;
        Ok(fs::rename(run("state.json.new"), run("state.json"))?)
    }
}

/// Removes all state of a cluster that no longer runs. Its logs move to the cache, for whoever asks what happened.
pub(crate) fn remove() -> anyhow::Result<()> {
    unmount()?;
    let logs = cache().join("last-logs");
    if run("logs").exists() && fs::create_dir_all(cache()).is_ok() {
        let _ = fs::remove_dir_all(&logs);
        succeeds(command("mv", &[]).arg(run("logs")).arg(&logs));
    }
    let gone = || match fs::remove_dir_all(run("")) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    // A mount that a dying namespace still holds makes the first try fail.
    wait_until("the cluster's state removed", Duration::from_secs(10), Duration::from_millis(100), gone)
        .with_context(|| format!("cannot remove {}", run("").display()))
}

/// Nothing of ours is mounted in the host; but a mount that strayed out of a node must not be deleted through.
fn unmount() -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let below = run("").display().to_string();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| point.starts_with(&below)) {
        succeeds(&mut command("umount", &["-l", point]));
    }
    Ok(())
}
