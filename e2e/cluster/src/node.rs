//! A node: its own network and mount namespace, and in it containerd, the kubelet and kube-proxy.
//!
//! The namespaces have no name. An anchor, a process that sleeps, holds them, and all else enters them by its pid; so
//! when the node's processes are killed, its mounts, links, rules and sysctls are gone with them, as in a power loss.
//! Its disk (`/var/lib/graceful/nodeN`) stays, and the next boot finds its images there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use graceful_process::{command, output, succeeds, wait_until};

use crate::artifacts::Artifacts;
use crate::config::{self, Installed};
use crate::layout::{BRIDGE, HOST_IP, REGISTRY, node_dir, node_ip, node_name, pod_cidr, run};
use crate::{archive, cgroup, kubernetes, network, pki, process};

/// What runs on each node.
pub(crate) const PARTS: [&str; 4] = ["anchor", "containerd", "kubelet", "kube-proxy"];

/// The name of a part of node `n`.
pub(crate) fn part(n: u8, name: &str) -> String {
    format!("{}.{name}", node_name(n))
}

/// Boots the node as far as it can without an API server: namespaces, cgroups, containerd and its first images.
/// What already stands is left as it is.
pub(crate) fn prepare(n: u8, nodes: u8, artifacts: &Artifacts, installed: &Installed) -> anyhow::Result<()> {
    let anchor = match process::pid(&part(n, "anchor")) {
        Some(anchor) if network::has_cable(n) && namespaces_of(n) == Some(namespaces(anchor)) => anchor,
        _ => {
            kill(n)?;
            make_namespaces(n, nodes)?
        }
    };
    network::mend(n)?;
    cgroup::make(n)?;
    write_configuration(n, installed)?;
    let dir = node_dir(n);
    start(
        n,
        anchor,
        "containerd",
        artifacts,
        &[&format!("--config={}", dir.join("containerd.toml").display()), "--log-level=warn"],
    )?;
    wait_until(&format!("containerd of node{n}"), Duration::from_secs(30), Duration::from_millis(50), || {
        dir.join("containerd.sock").exists() && output(ctr(n, artifacts).arg("version")).is_ok()
    })
    .with_context(|| process::log_tail(&part(n, "containerd")))?;
    load(n, artifacts, &artifacts.images())?;
    Ok(())
}

/// Starts the kubelet and kube-proxy; the API server must serve.
pub(crate) fn join(n: u8, artifacts: &Artifacts) -> anyhow::Result<()> {
    let anchor = process::pid(&part(n, "anchor")).with_context(|| format!("node{n} is not running"))?;
    let dir = node_dir(n);
    start(
        n,
        anchor,
        "kubelet",
        artifacts,
        &[
            &format!("--config={}", dir.join("kubelet.json").display()),
            &format!("--kubeconfig={}", kubernetes::kubeconfig(&node_name(n)).display()),
            &format!("--hostname-override={}", node_name(n)),
            &format!("--node-ip={}", node_ip(n)),
            "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki",
        ],
    )?;
    let proxy = format!("--config={}", dir.join("proxy.json").display());
    start(n, anchor, "kube-proxy", artifacts, &[&proxy])
}

/// A power loss: every process of the node dies at once, and its namespaces with them. The disk stays.
pub(crate) fn kill(n: u8) -> anyhow::Result<()> {
    let namespace = namespaces_of(n);
    let prefix = part(n, "");
    let find = || {
        let mut pids = process::of_parts(&prefix);
        pids.extend(cgroup::processes(n));
        // Whatever else somebody started in there, a debugger's shell perhaps.
        if let Some(namespace) = &namespace {
            pids.extend(process::all().filter(|pid| &namespaces(*pid) == namespace));
        }
        pids
    };
    process::kill_all(&node_name(n), find)?;
    for name in PARTS {
        process::stop(&part(n, name))?;
    }
    let _ = fs::remove_file(namespace_file(n));
    network::unplug(n);
    cgroup::remove(n)
}

/// Whether anything of the node is on this machine.
pub(crate) fn is_there(n: u8) -> bool {
    node_dir(n).exists() || cgroup::is_there(n) || !process::of_parts(&part(n, "")).is_empty()
}

/// Imports image archives into the node's containerd, those that it has not got. Returns how many it took.
pub(crate) fn load(n: u8, artifacts: &Artifacts, archives: &[PathBuf]) -> anyhow::Result<usize> {
    let record = node_dir(n).join("loaded.json");
    let text = fs::read_to_string(&record).unwrap_or_else(|_| "{}".into());
    // By the image's name, not the file's: what counts is what the name stands for now.
    let mut loaded: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    // A kubelet whose disk was full has removed images, whatever our record says.
    let there = output(ctr(n, artifacts).args(["--namespace=k8s.io", "images", "ls", "-q"]))?;
    let is_there = |name: &str| there.lines().any(|image| is_named(image, name));
    let mut taken = 0;
    for tar in archives {
        let (names, content) = archive::identity(tar)?;
        let has = |name: &String| loaded.get(name) == Some(&content) && is_there(name);
        if !names.is_empty() && names.iter().all(has) {
            continue;
        }
        let tar = fs::canonicalize(tar)?;
        output(ctr(n, artifacts).args(["--namespace=k8s.io", "images", "import"]).arg(&tar))
            .with_context(|| format!("cannot load {} on node{n}", tar.display()))?;
        let replaced: Vec<_> =
            names.iter().filter_map(|name| loaded.insert(name.clone(), content.clone())).collect();
        fs::write(&record, serde_json::to_string(&loaded)?)?;
        forget(n, artifacts, replaced, &loaded);
        taken += 1;
    }
    Ok(taken)
}

/// Whether containerd's name of an image, which begins with a registry's, is this name of an archive's.
fn is_named(image: &str, name: &str) -> bool {
    image.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// Lets containerd collect what an image's name stood for before. It keeps a second name for each, the digest of the
/// configuration, and the kubelet's own collector is off: without this each new build would stay for good. What runs
/// keeps its files.
fn forget(n: u8, artifacts: &Artifacts, replaced: Vec<String>, loaded: &BTreeMap<String, String>) {
    for content in replaced.into_iter().filter(|old| !loaded.values().any(|used| used == old)) {
        let digest = format!("sha256:{}", content.trim_end_matches(".json"));
        succeeds(ctr(n, artifacts).args(["--namespace=k8s.io", "images", "rm", &digest]));
    }
}

/// Whether the node's containerd can take images.
pub(crate) fn can_load(n: u8) -> bool {
    process::runs(&part(n, "containerd"))
}

/// All that decides how a node runs, for the fingerprint.
pub(crate) fn configuration(n: u8, installed: &Installed) -> BTreeMap<&'static str, String> {
    let dir = node_dir(n);
    BTreeMap::from([
        ("cni.d/10-kube.conflist", config::cni(n)),
        ("containerd.toml", config::containerd(&dir, installed)),
        ("kubelet.json", config::kubelet(n, &dir, &pki::file(""), &run("resolv.conf"))),
        ("proxy.json", config::proxy(n, &kubernetes::kubeconfig("proxy"))),
    ])
}

fn write_configuration(n: u8, installed: &Installed) -> anyhow::Result<()> {
    let dir = node_dir(n);
    let hosts = dir.join("certs.d").join(REGISTRY);
    for folder in [&dir.join("cni.d"), &dir.join("volplugins"), &hosts] {
        fs::create_dir_all(folder)?;
    }
    for (file, text) in configuration(n, installed) {
        fs::write(dir.join(file), text)?;
    }
    fs::write(hosts.join("hosts.toml"), config::registry_hosts())?;
    Ok(())
}

/// A part's program inside the node's namespaces.
fn start(n: u8, anchor: u32, name: &str, artifacts: &Artifacts, flags: &[&str]) -> anyhow::Result<()> {
    let part = part(n, name);
    if process::runs(&part) {
        return Ok(());
    }
    let bin = artifacts.program("");
    let mut words = enter(anchor);
    // containerd looks for its shim on the PATH.
    words.extend([
        "env".into(),
        format!("PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", trimmed(&bin)),
    ]);
    words.push(artifacts.program(name).display().to_string());
    words.extend(flags.iter().map(ToString::to_string));
    process::start(&part, &words)
}

fn trimmed(path: &Path) -> String {
    path.display().to_string().trim_end_matches('/').to_owned()
}

fn enter(anchor: u32) -> Vec<String> {
    ["nsenter", "--target", &anchor.to_string(), "--net", "--mount", "--"].map(String::from).to_vec()
}

/// The node's own ctr. It takes no relative path for a socket.
fn ctr(n: u8, artifacts: &Artifacts) -> std::process::Command {
    let mut command = std::process::Command::new(artifacts.program("ctr"));
    command.arg("--address").arg(node_dir(n).join("containerd.sock"));
    command
}

/// Both namespaces of a process, as one word.
fn namespaces(pid: u32) -> String {
    format!("{:?} {:?}", process::namespace(pid, "net"), process::namespace(pid, "mnt"))
}

fn namespace_file(n: u8) -> PathBuf {
    run("pids").join(part(n, "namespaces"))
}

/// The namespaces of the node as they were made, if they were made to the end.
fn namespaces_of(n: u8) -> Option<String> {
    fs::read_to_string(namespace_file(n)).ok()
}

fn make_namespaces(n: u8, nodes: u8) -> anyhow::Result<u32> {
    let name = part(n, "anchor");
    let unshare = ["unshare", "--net", "--mount", "--propagation", "slave", "sleep", "infinity"];
    process::start(&name, &unshare.map(String::from))?;
    let mut anchor = 0;
    // The pid is first a shell's, then unshare's: the namespaces are there once it has become sleep.
    wait_until(&format!("namespaces of node{n}"), Duration::from_secs(10), Duration::from_millis(5), || {
        anchor = process::pid(&name).unwrap_or(0);
        fs::read_to_string(format!("/proc/{anchor}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
    })?;
    network::plug(n, anchor)?;
    let dir = node_dir(n);
    for folder in ["kubelet", "log", "cni"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let mut words = enter(anchor);
    words.extend(["sh".into(), "-euc".into(), inside(n, nodes, &dir)]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    output(&mut command(words[0], &words[1..]))
        .with_context(|| format!("cannot set up node{n}'s namespaces"))?;
    fs::write(namespace_file(n), namespaces(anchor))?;
    Ok(anchor)
}

/// What is done inside the new namespaces: the folders whose paths are fixed become the node's own, and eth0 gets its
/// address and the routes to the other nodes' pods.
pub(crate) fn inside(n: u8, nodes: u8, dir: &Path) -> String {
    let (dir, address) = (dir.display(), node_ip(n));
    let mut script = format!(
        "mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind '{dir}/log' /var/log
mount --bind '{dir}/kubelet' /var/lib/kubelet
mount --bind '{dir}/cni' /var/lib/cni
ip link set lo up
ip addr add {address}/24 dev eth0
ip link set eth0 up
ip route add default via {HOST_IP}
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
"
    );
    for other in (1..=nodes).filter(|other| *other != n) {
        script += &format!("ip route add {} via {}\n", pod_cidr(other), node_ip(other));
    }
    script
}

/// Refuses a number that is no node of this cluster.
pub(crate) fn known(n: u8, nodes: u8) -> anyhow::Result<()> {
    if n == 0 || n > nodes {
        bail!("there is no node {n}: this cluster has 1 to {nodes} on {BRIDGE}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_the_end_of_its_name() {
        assert!(is_named("docker.io/graceful/server:dev", "graceful/server:dev"));
        assert!(is_named("localhost/graceful/server:dev", "localhost/graceful/server:dev"));
        assert!(!is_named("docker.io/graceful/fileserver:dev", "server:dev"));
    }

    #[test]
    fn a_node_routes_to_the_pods_of_the_others_alone() {
        let script = inside(2, 3, Path::new("/d"));
        assert!(script.contains("ip addr add 10.250.0.2/24"));
        assert!(
            script.contains("10.244.1.0/24 via 10.250.0.1")
                && script.contains("10.244.3.0/24 via 10.250.0.3")
        );
        assert!(!script.contains("route add 10.244.2.0/24"));
    }

    #[test]
    fn a_node_has_a_number_of_this_cluster() {
        assert!(known(1, 2).is_ok() && known(2, 2).is_ok());
        assert!(known(0, 2).is_err() && known(3, 2).is_err());
    }
}
