//! Brings up, heals and takes down a real Kubernetes on one Linux machine: etcd, the control plane, nodes with
//! containerd and runc, DNS. Built from Go modules once; up in seconds after that.
//!
//! # Flow
//! [`Cluster::up`]: prerequisites → programs (built or cached) → the host written down → certificates → network →
//! control plane and nodes, side by side → DNS. Each step makes only what is missing, so the same walk brings up,
//! finishes and heals.
//!
//! # Guarantees
//! - Up twice changes nothing. Whatever is missing of a cluster, `up` brings back, with its objects where etcd's data
//!   can still be read; else it starts afresh.
//! - No packet of a pod or a node leaves the machine.
//! - Down leaves nothing: no process, mount, namespace, link, route, rule, cgroup or sysctl. Only the cache stays.
//!
//! # Assumptions
//! Linux, root, cgroup version 1 (version 2 alone is written but was not tried), and these free: 10.250.0.0/24,
//! 10.244.0.0/16, 10.96.0.0/16 and the ports 2379, 2380, 6443, 10257 and 10259 of the host.
//!
//! # Caveats
//! One cluster a machine. The host reaches ClusterIPs through one node and NodePorts at [`node_ip`]; not at 127.0.0.1.
//! Each node claims the whole machine, so the scheduler sees its CPUs once for each.

mod archive;
mod artifacts;
mod cgroup;
mod command;
mod config;
mod control_plane;
mod dns;
mod host;
mod kubernetes;
mod layout;
mod lock;
mod network;
mod node;
mod pki;
pub mod prerequisites;
mod process;
mod state;
mod status;
mod wall;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use graceful_process::wait_until;

use artifacts::Artifacts;
use command::Progress;
use config::Installed;
pub use layout::{HOST_IP, REGISTRY, cache, node_ip, node_name};
use lock::Lock;
use state::State;
pub use status::{Health, Status};

/// How many nodes a new cluster has when nobody says.
const NODES: u8 = 2;

/// Addresses and routes would do for 253; nobody's machine does.
const MAX_NODES: u8 = 9;

/// What a cluster should be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The number of nodes, 1 to 9; as many as run, or two, when not given.
    pub nodes: Option<u8>,
}

/// The cluster of this machine.
#[derive(Clone, Debug)]
pub struct Cluster {
    artifacts: Artifacts,
    nodes: u8,
}

impl Cluster {
    /// Brings the cluster up, from whatever state it is in. The first time on a machine it builds Kubernetes, which
    /// takes about 12 minutes; after that some ten seconds, and nothing is done when all of it works.
    ///
    /// # Errors
    /// A missing prerequisite by name with the command that installs it; what did not come up, with its log's end.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// let cluster = graceful_cluster::Cluster::up(&graceful_cluster::Options::default())?;
    /// cluster.kubectl().args(["get", "nodes"]).status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn up(options: &Options) -> anyhow::Result<Self> {
        if options.nodes.is_some_and(|nodes| !(1..=MAX_NODES).contains(&nodes)) {
            bail!("a cluster has 1 to {MAX_NODES} nodes");
        }
        let installed = prerequisites::ensure_for_cluster()?;
        let artifacts = Artifacts::ensure()?;
        let _lock = change_lock()?;
        let before = State::read();
        let nodes = options.nodes.or(before.as_ref().map(|state| state.nodes)).unwrap_or(NODES);
        let wanted = State::new(nodes, &artifacts, &installed);
        let cluster = Self { artifacts, nodes };
        let progress = Progress::start();
        if before.as_ref() == Some(&wanted) {
            let Health::Broken(why) = cluster.status().health() else { return Ok(cluster) };
            progress.say(format!("not whole, healing: {}", why.join(", ")));
            match cluster.converge(&wanted, &installed, &progress) {
                Ok(()) => return Ok(cluster),
                Err(error) => progress.say(format!("starting afresh, since it can't be healed: {error:#}")),
            }
        } else if before.is_some() {
            progress
                .say("another version of the cluster, or one of other nodes, is up: taking it down first");
        }
        remove_all()?;
        cluster.converge(&wanted, &installed, &progress)?;
        Ok(cluster)
    }

    /// Builds what a cluster is made of, unless it is built. Returns its folder in the cache.
    ///
    /// # Errors
    /// Go is missing, or a build fails.
    pub fn build() -> anyhow::Result<PathBuf> {
        Ok(Artifacts::ensure()?.folder().to_owned())
    }

    /// The cluster that is up, or was and can be healed; nothing is changed.
    ///
    /// # Errors
    /// There is none, or we are not root.
    pub fn open() -> anyhow::Result<Self> {
        prerequisites::require_root()?;
        let state = State::read().context("no cluster here: `cargo xtask cluster up` brings one up")?;
        Ok(Self { artifacts: Artifacts::at(state.programs), nodes: state.nodes })
    }

    /// Takes everything down, of whatever is there, and puts the machine back as it was. The logs move to the cache.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn down() -> anyhow::Result<()> {
        prerequisites::require_root()?;
        let lock = change_lock()?;
        remove_all()?;
        lock.remove();
        Ok(())
    }

    /// What runs and what does not.
    pub fn status(&self) -> Status {
        Status::observe(self.nodes, &self.artifacts)
    }

    /// The number of nodes.
    pub fn nodes(&self) -> u8 {
        self.nodes
    }

    /// The administrator's kubeconfig: one file, certificates inside.
    pub fn kubeconfig(&self) -> PathBuf {
        layout::admin_kubeconfig()
    }

    /// The folder of the cluster's own programs, for a PATH: kubectl, helm, ctr and all others.
    pub fn programs(&self) -> PathBuf {
        self.artifacts.folder().join("bin")
    }

    /// The cluster's own kubectl, as the administrator.
    pub fn kubectl(&self) -> Command {
        kubernetes::kubectl(&self.artifacts)
    }

    /// The cluster's own helm, as the administrator.
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.artifacts.program("helm"));
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Loads image archives (docker's format) on every node; what a node has already is skipped. Returns how many
    /// imports that took. Pods name such an image as in the archive, with `imagePullPolicy` IfNotPresent or Never.
    ///
    /// # Errors
    /// A node does not run, or a file is no image.
    pub fn load(&self, archives: &[PathBuf]) -> anyhow::Result<usize> {
        let _lock = change_lock()?;
        if let Some(n) = self.numbers().find(|n| !node::can_load(*n)) {
            bail!("node{n} is not running: `cargo xtask cluster up` heals it");
        }
        let taken = self.on_each_node(|n| node::load(n, &self.artifacts, archives))?;
        Ok(taken.iter().sum())
    }

    /// A power loss of a node: all its processes die at once. Its disk stays.
    ///
    /// # Errors
    /// There is no such node, or it won't die.
    pub fn kill(&self, n: u8) -> anyhow::Result<()> {
        node::known(n, self.nodes)?;
        let _lock = change_lock()?;
        self.route_services_around(n)?;
        node::kill(n)
    }

    /// Boots a node that was killed and waits until it is Ready.
    ///
    /// # Errors
    /// There is no such node, or it does not become Ready.
    pub fn boot(&self, n: u8) -> anyhow::Result<()> {
        node::known(n, self.nodes)?;
        let installed = prerequisites::ensure_for_cluster()?;
        let _lock = change_lock()?;
        node::prepare(n, self.nodes, &self.artifacts, &installed)?;
        self.start_kubelets(&[n])?;
        self.route_services()
    }

    /// Cuts a node's cable: it runs on and hears nobody.
    ///
    /// # Errors
    /// There is no such node, or it does not run.
    pub fn cut(&self, n: u8) -> anyhow::Result<()> {
        node::known(n, self.nodes)?;
        let _lock = change_lock()?;
        self.route_services_around(n)?;
        network::cut(n)
    }

    /// Mends the cable of a node that was cut.
    ///
    /// # Errors
    /// There is no such node, or it does not run.
    pub fn join(&self, n: u8) -> anyhow::Result<()> {
        node::known(n, self.nodes)?;
        let _lock = change_lock()?;
        network::mend(n)?;
        self.route_services()
    }

    /// Proves that no packet of a node or a pod leaves the machine: sends some to a network namespace that stands for
    /// the world outside, and counts what arrives. No foreign address is involved. For that moment the host forwards
    /// packets, if it did not.
    ///
    /// # Errors
    /// One arrived; or the host's own did not, and so nothing is proved.
    pub fn prove_wall(&self) -> anyhow::Result<()> {
        let _lock = change_lock()?;
        wall::prove(self.nodes)
    }

    /// Makes what is missing, from the bottom to the top.
    fn converge(&self, state: &State, installed: &Installed, progress: &Progress) -> anyhow::Result<()> {
        std::fs::create_dir_all(layout::run("pids"))?;
        host::prepare()?;
        pki::ensure(self.nodes)?;
        kubernetes::write_kubeconfigs(&self.artifacts, self.nodes)?;
        std::fs::write(layout::run("resolv.conf"), format!("nameserver {}\n", layout::DNS_IP))?;
        state.write()?;
        network::ensure()?;
        control_plane::start_api(&self.artifacts)?;
        progress.say("certificates, network, etcd and API server started");
        self.on_each_node(|n| node::prepare(n, self.nodes, &self.artifacts, installed))?;
        progress.say(format!("{} nodes: containerd serves, first images loaded", self.nodes));
        self.route_services()?;
        control_plane::finish(&self.artifacts, progress)?;
        let all: Vec<u8> = self.numbers().collect();
        self.start_kubelets(&all)?;
        progress.say("nodes Ready");
        kubernetes::wait_for_default_account(&self.artifacts)?;
        kubernetes::start_dns(&self.artifacts)?;
        progress.say("DNS serves: the cluster is up");
        Ok(())
    }

    fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes
    }

    fn on_each_node<T: Send>(&self, work: impl Fn(u8) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .numbers()
                .map(|n| {
                    scope.spawn({
                        let work = &work;
                        move || work(n)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| bail!("a node's thread panicked")))
                .collect()
        })
    }

    /// Starts the kubelets that don't run and waits until each node is Ready, by the word of a kubelet that lives:
    /// the API server goes on calling a node Ready for 12 s after its kubelet's death.
    fn start_kubelets(&self, nodes: &[u8]) -> anyhow::Result<()> {
        let mut stale = kubernetes::ready_nodes(&self.artifacts);
        for n in self.numbers().filter(|n| process::runs(&node::part(*n, "kubelet"))) {
            stale.remove(&node_name(n));
        }
        for n in nodes {
            node::join(*n, &self.artifacts)?;
        }
        let all_ready = || {
            let ready = kubernetes::ready_nodes(&self.artifacts);
            let is_ready = |name: &String| ready.get(name).is_some_and(|said| stale.get(name) != Some(said));
            nodes.iter().map(|n| node_name(*n)).all(|name| is_ready(&name))
        };
        wait_until("nodes Ready", Duration::from_secs(60), Duration::from_millis(200), all_ready)
            .with_context(|| {
                let tails = nodes.iter().map(|n| process::log_tail(&node::part(*n, "kubelet")));
                tails.collect::<Vec<_>>().join("\n")
            })
    }

    /// Through the first node that is connected.
    fn route_services(&self) -> anyhow::Result<()> {
        self.numbers().find(|n| network::is_connected(*n)).map_or(Ok(()), network::route_services)
    }

    /// The same, before `lost` goes.
    fn route_services_around(&self, lost: u8) -> anyhow::Result<()> {
        let other = self.numbers().find(|n| *n != lost && network::is_connected(*n));
        other.map_or(Ok(()), network::route_services)
    }
}

/// Taken by all that changes the running cluster.
fn change_lock() -> anyhow::Result<Lock> {
    Lock::take("/run/graceful-cluster.lock".as_ref(), "another command on this cluster")
}

/// All of it, whatever of it is there.
fn remove_all() -> anyhow::Result<()> {
    // First who would mend what we break.
    for part in ["kube-controller-manager", "kube-scheduler"] {
        process::stop(part)?;
    }
    for n in (1..=MAX_NODES).filter(|n| node::is_there(*n)) {
        node::kill(n)?;
    }
    process::kill_all("the cluster", || process::of_parts(""))?;
    network::remove();
    host::restore();
    state::remove()
}
