//! Where everything is: addresses, names and paths. They are fixed, so a machine holds one cluster at a time.

use std::path::{Path, PathBuf};

/// The host's bridge that every node hangs on.
pub(crate) const BRIDGE: &str = "br-kube";
/// The host on that bridge: the API server's address, and the host as nodes and pods see it.
pub const HOST_IP: &str = "10.250.0.254";
/// The network of all nodes.
pub(crate) const NODE_CIDR: &str = "10.250.0.0/24";
/// All pods; node N has the /24 numbered N.
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
/// The network of all Services' addresses.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The service `kubernetes`, always the first of the range.
pub(crate) const API_SERVICE_IP: &str = "10.96.0.1";
/// The service `kube-dns`.
pub(crate) const DNS_IP: &str = "10.96.0.10";
/// A registry that speaks plain HTTP may listen here, on the host: the nodes pull from it.
pub const REGISTRY: &str = "10.250.0.254:5000";

/// The API server as the host's own parts reach it.
pub(crate) const API_LOCAL: &str = "https://127.0.0.1:6443";

/// All state of the running cluster. Short, since a unix socket's path may have 107 bytes; on a disk and not on
/// /run, since containerd keeps its layers here; one place for the machine, since the addresses are the machine's.
const RUN: &str = "/var/lib/graceful";

/// The address of node `n` on the bridge, where its NodePorts are.
pub fn node_ip(n: u8) -> String {
    format!("10.250.0.{n}")
}

/// The name of node `n` in Kubernetes.
pub fn node_name(n: u8) -> String {
    format!("node{n}")
}

pub(crate) fn pod_cidr(n: u8) -> String {
    format!("10.244.{n}.0/24")
}

/// The host's end of node `n`'s cable.
pub(crate) fn node_link(n: u8) -> String {
    format!("kn{n}")
}

/// A path below the state of the running cluster.
pub(crate) fn run(path: impl AsRef<Path>) -> PathBuf {
    Path::new(RUN).join(path)
}

/// A path below node `n`'s own state: its disk.
pub(crate) fn node_dir(n: u8) -> PathBuf {
    run(node_name(n))
}

/// The administrator's kubeconfig, whole in one file.
pub(crate) fn admin_kubeconfig() -> PathBuf {
    run("admin.kubeconfig")
}

/// What is built once and kept: `$GRACEFUL_CACHE`, else `graceful` in the user's cache folder.
pub fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("GRACEFUL_CACHE").unwrap_or_else(|| {
        set("XDG_CACHE_HOME")
            .unwrap_or_else(|| set("HOME").unwrap_or_else(|| "/root".into()).join(".cache"))
            .join("graceful")
    })
}

/// The sources of the Go programs, beside this crate's own.
pub(crate) fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
