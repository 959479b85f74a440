//! The programs we take from the distribution: installed on Debian and Ubuntu by root, else named with the command to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use graceful_process::{is_root, output};

use crate::config::Installed;

/// A program and the Debian package that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prerequisite {
    /// Its file name.
    pub program: &'static str,
    /// The package that brings it.
    pub package: &'static str,
}

const fn needs(program: &'static str, package: &'static str) -> Prerequisite {
    Prerequisite { program, package }
}

/// What bringing up a cluster takes.
const CLUSTER: [Prerequisite; 10] = [
    needs("runc", "runc"),
    needs("host-local", "containernetworking-plugins"),
    needs("nft", "nftables"),
    needs("iptables", "iptables"),
    needs("ip", "iproute2"),
    needs("nsenter", "util-linux"),
    needs("unshare", "util-linux"),
    needs("setsid", "util-linux"),
    needs("mount", "mount"),
    needs("tar", "tar"),
];

/// What compiling static binaries takes: ring has C in it.
pub const MUSL: [Prerequisite; 1] = [needs("musl-gcc", "musl-tools")];

/// What building images without docker takes.
pub const BUILDAH: [Prerequisite; 1] = [needs("buildah", "buildah")];

/// The interpreter that the end-to-end tests' foreign app runs on, mounted from the node.
pub const PYTHON: [Prerequisite; 1] = [needs("/usr/bin/python3", "python3")];

/// The broker of the end-to-end tests' queue workers, and what looks into it; mounted from the node.
pub const REDIS: [Prerequisite; 2] =
    [needs("/usr/bin/redis-server", "redis-server"), needs("/usr/bin/redis-cli", "redis-tools")];

/// The browser that the page is tried in, and what drives it.
pub const CHROMIUM: [Prerequisite; 2] =
    [needs("chromium", "chromium"), needs("chromedriver", "chromium-driver")];

/// What the gate is measured beside, and held against.
pub const PROXIES: [Prerequisite; 2] = [needs("nginx", "nginx-light"), needs("haproxy", "haproxy")];

/// The database that the shared queue is tested on.
pub const POSTGRES: [Prerequisite; 2] = [needs("postgres", "postgresql"), needs("setpriv", "util-linux")];

/// Debian keeps each version of PostgreSQL in a folder of its own, below this one.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Folders that a shell's PATH may lack, and where distributions put the CNI plugins.
const FOLDERS: [&str; 9] = [
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
    "/usr/lib/cni",
    "/opt/cni/bin",
    "/usr/libexec/cni",
];

/// Whether all are there. Nothing is installed.
pub fn are_there(wanted: &[Prerequisite]) -> bool {
    missing(wanted, |program| find(program).is_some()).is_empty()
}

/// Sees that all are there, installing what can be installed.
pub fn ensure(wanted: &[Prerequisite]) -> anyhow::Result<()> {
    let packages = missing(wanted, |program| find(program).is_some());
    if packages.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !is_root() || !Path::new("/etc/debian_version").exists() {
        let absent = wanted.iter().filter(|w| find(w.program).is_none()).map(|w| w.program);
        bail!("missing: {}. On Debian or Ubuntu: sudo {line}", absent.collect::<Vec<_>>().join(", "));
    }
    eprintln!("installing {}", packages.join(" "));
    let apt = |line: &str| {
        output(Command::new("sh").args(["-c", line]).env("DEBIAN_FRONTEND", "noninteractive"))
            .with_context(|| format!("cannot install {}: try it by hand: {line}", packages.join(" ")))
    };
    apt("apt-get update -qq")?;
    apt(&line)?;
    match missing(wanted, |program| find(program).is_some()).as_slice() {
        [] => Ok(()),
        still => bail!("installed, and yet not found: what {} should have brought", still.join(", ")),
    }
}

/// The same for the cluster itself, which root alone can bring up.
pub(crate) fn ensure_for_cluster() -> anyhow::Result<Installed> {
    require_root()?;
    ensure(&CLUSTER)?;
    let (Some(runc), Some(plugin)) = (find("runc"), find("host-local")) else {
        bail!("runc and its CNI plugins are gone")
    };
    let cni = Path::new(&plugin).parent().unwrap_or(Path::new("/")).display().to_string();
    Ok(Installed { runc, cni })
}

/// Namespaces, links and mounts are root's.
pub(crate) fn require_root() -> anyhow::Result<()> {
    if !is_root() {
        bail!("the cluster needs root, for namespaces, links and mounts: run the same command under sudo");
    }
    Ok(())
}

/// Go builds Kubernetes. The version is the one that containerd's go.mod asks for; Go fetches a newer one by itself
/// unless it was told not to.
pub(crate) fn require_go() -> anyhow::Result<()> {
    const HINT: &str = "Go 1.26.6 or newer builds Kubernetes here, once: install it from https://go.dev/dl";
    let version = output(Command::new("go").args(["env", "GOVERSION"]).current_dir("/")).context(HINT)?;
    let can_switch = output(Command::new("go").args(["env", "GOTOOLCHAIN"]).current_dir("/"))?;
    if !is_recent_go(version.trim()) && can_switch.trim() == "local" {
        bail!("{HINT} (found {})", version.trim());
    }
    Ok(())
}

fn is_recent_go(version: &str) -> bool {
    let mut numbers =
        version.trim_start_matches("go").split(['.', '-', ' ']).map_while(|n| n.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= (1, 26, 6)
}

fn missing(wanted: &[Prerequisite], has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = wanted.iter().filter(|w| !has(w.program)).map(|w| w.package).collect();
    packages.dedup();
    packages
}

/// Where a program is: on the PATH, in a folder that root's PATH would have, or among PostgreSQL's own.
pub fn find(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(FOLDERS).map(PathBuf::from);
    let versions = std::fs::read_dir(POSTGRES_VERSIONS).into_iter().flatten().flatten();
    folders
        .chain(versions.map(|version| version.path().join("bin")))
        .map(|folder| folder.join(program))
        .find(|p| p.is_file())
        .map(|p| p.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once() {
        let packages = missing(&CLUSTER, |program| !matches!(program, "nsenter" | "unshare" | "nft"));
        assert_eq!(packages, ["nftables", "util-linux"]);
        assert!(missing(&CLUSTER, |_| true).is_empty());
    }

    #[test]
    fn go_must_be_new_enough_for_containerd() {
        assert!(is_recent_go("go1.26.6"));
        assert!(is_recent_go("go1.27rc1-x") || is_recent_go("go1.27.0"));
        assert!(is_recent_go("go2.0"));
        assert!(!is_recent_go("go1.26.5"));
        assert!(!is_recent_go("go1.19.8"));
        assert!(!is_recent_go("devel"));
    }
}
