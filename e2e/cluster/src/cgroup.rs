//! Each node's own root in every cgroup hierarchy: two kubelets that shared one would reap each other's pods.
//!
//! Version 1 (a folder a controller, version 2 beside them at `unified`) is what this was proved on. On a machine with
//! version 2 alone the same root is one folder, with the controllers that the kubelet needs passed down to it: written
//! by the documentation of the kernel and of runc, and not tried.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use graceful_process::wait_until;

const MOUNT: &str = "/sys/fs/cgroup";

/// Where version 2 is, beside the controllers of version 1.
const UNIFIED: &str = "unified";

/// What the kubelet asks of version 2.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// The root's name, for the kubelet too.
pub(crate) fn root_of(n: u8) -> String {
    format!("kube-node{n}")
}

/// Makes the node's root in each hierarchy.
pub(crate) fn make(n: u8) -> anyhow::Result<()> {
    for hierarchy in hierarchies() {
        let root = hierarchy.join(root_of(n));
        fs::create_dir_all(&root).with_context(|| format!("cannot make the cgroup {}", root.display()))?;
        // Version 1: a new cpuset is empty, and nothing may enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.join(file).exists() && !is_version_2() {
                fs::write(root.join(file), fs::read_to_string(hierarchy.join(file))?)?;
            }
        }
        if is_version_2() {
            pass_down(&hierarchy);
            pass_down(&root);
        }
    }
    Ok(())
}

/// Every process in the node's pods.
pub(crate) fn processes(n: u8) -> Vec<u32> {
    let mut pids = Vec::new();
    for root in roots(n) {
        for folder in folders(&root) {
            let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Removes the node's root from each hierarchy; its processes must have ended.
pub(crate) fn remove(n: u8) -> anyhow::Result<()> {
    wait_until(
        &format!("cgroups of node{n} removed"),
        Duration::from_secs(10),
        Duration::from_millis(50),
        || {
            for root in roots(n) {
                // The leaves first. One whose last process is still being buried is taken in the next round.
                for folder in folders(&root).iter().rev() {
                    let _ = fs::remove_dir(folder);
                }
            }
            !is_there(n)
        },
    )
}

/// Whether the node has a root anywhere.
pub(crate) fn is_there(n: u8) -> bool {
    !roots(n).is_empty()
}

/// The cgroups that we made, and the one that runc makes beside them in a version 2 that has no controllers.
fn roots(n: u8) -> Vec<PathBuf> {
    hierarchies()
        .into_iter()
        .chain([Path::new(MOUNT).join(UNIFIED)])
        .map(|h| h.join(root_of(n)))
        .filter(|root| root.is_dir())
        .collect()
}

fn is_version_2() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    if is_version_2() {
        return vec![MOUNT.into()];
    }
    let mut found = subfolders(Path::new(MOUNT));
    // Version 2 beside version 1 has no controllers: nothing is accounted there.
    found.retain(|folder| !folder.ends_with(UNIFIED));
    found
}

/// One at a time: the kernel refuses a whole line for one controller that it lacks.
fn pass_down(folder: &Path) {
    for controller in CONTROLLERS {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The folder and all below it, parents before children.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_path_buf()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        found.extend(subfolders(&folder));
        next += 1;
    }
    found
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // A symbolic link (cpu -> cpu,cpuacct) is the same hierarchy again.
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_children() {
        let root = std::env::temp_dir().join(format!("graceful-cgroup-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("c")).unwrap();
        let found = folders(&root);
        fs::remove_dir_all(&root).unwrap();
        let place = |end: &str| found.iter().position(|f| f.ends_with(end)).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], root);
        assert!(place("a") < place("b"));
    }
}
