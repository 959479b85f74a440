//! What runs and what does not, and whether that is a cluster.

use std::fmt;

use crate::artifacts::Artifacts;
use crate::layout::{node_name, run};
use crate::{control_plane, dns, kubernetes, network, node, process};

/// What is seen of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether anything of it is on this machine.
    pub exists: bool,
    /// Each process by its part's name, and whether it runs.
    pub parts: Vec<(String, bool)>,
    /// The bridge and the drop rules.
    pub network: bool,
    /// Each node's cable: plugged and up.
    pub cables: Vec<(String, bool)>,
    /// Each node, and whether Kubernetes calls it Ready.
    pub nodes: Vec<(String, bool)>,
    /// The cluster's DNS.
    pub dns: bool,
}

/// What to make of a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is there.
    Down,
    /// Some of it is missing: `cluster up` heals it.
    Broken(Vec<String>),
    /// All of it works.
    Up,
}

impl Status {
    /// Looks at the processes, the network, and (if its processes run) at what the API server says.
    pub(crate) fn observe(nodes: u8, artifacts: &Artifacts) -> Self {
        let numbers = || 1..=nodes;
        let mut names: Vec<String> = control_plane::PARTS.iter().map(ToString::to_string).collect();
        names.extend(numbers().flat_map(|n| node::PARTS.map(|name| node::part(n, name))));
        let parts: Vec<_> = names.into_iter().map(|name| (name.clone(), process::runs(&name))).collect();
        let asks = ["etcd", "kube-apiserver"].iter().all(|part| process::runs(part));
        let ready = if asks { kubernetes::ready_nodes(artifacts) } else { Default::default() };
        Self {
            exists: run("").exists() || network::is_there(),
            network: network::is_whole(),
            cables: numbers().map(|n| (node_name(n), network::is_connected(n))).collect(),
            nodes: numbers().map(|n| (node_name(n), ready.contains_key(&node_name(n)))).collect(),
            dns: asks && dns::serves(),
            parts,
        }
    }

    /// Down, broken (and what is), or up.
    pub fn health(&self) -> Health {
        if !self.exists && self.parts.iter().all(|(_, runs)| !runs) {
            return Health::Down;
        }
        let absent = |all: &[(String, bool)], what: &str| -> Vec<String> {
            all.iter().filter(|(_, good)| !good).map(|(name, _)| format!("{name} {what}")).collect()
        };
        let mut broken = absent(&self.parts, "is not running");
        broken.extend(absent(&self.cables, "is cut off"));
        broken.extend(absent(&self.nodes, "is not Ready"));
        if !self.network {
            broken.push("the bridge or its drop rules are gone".into());
        }
        if !self.dns {
            broken.push("DNS does not serve".into());
        }
        if broken.is_empty() { Health::Up } else { Health::Broken(broken) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.health() {
            Health::Down => write!(f, "down: nothing of a cluster is on this machine"),
            Health::Up => {
                let nodes: Vec<&str> = self.nodes.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "up: {} processes run, {} Ready, DNS serves", self.parts.len(), nodes.join(" and "))
            }
            Health::Broken(broken) => {
                write!(f, "broken (`cargo xtask cluster up` heals it):")?;
                broken.iter().try_for_each(|what| write!(f, "\n  {what}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Status {
        let good = |name: &str| vec![(name.to_owned(), true)];
        Status {
            exists: true,
            parts: good("etcd"),
            network: true,
            cables: good("node1"),
            nodes: good("node1"),
            dns: true,
        }
    }

    #[test]
    fn nothing_at_all_is_down() {
        let nothing = Status { parts: vec![("etcd".into(), false)], ..Status::default() };
        assert_eq!(nothing.health(), Health::Down);
    }

    #[test]
    fn state_without_processes_is_broken_and_not_down() {
        let killed = Status { exists: true, parts: vec![("etcd".into(), false)], ..Status::default() };
        assert!(matches!(killed.health(), Health::Broken(_)));
    }

    #[test]
    fn a_process_without_state_is_broken_and_not_down() {
        let stray = Status { parts: vec![("etcd".into(), true)], ..Status::default() };
        assert!(matches!(stray.health(), Health::Broken(_)));
    }

    #[test]
    fn all_must_be_good() {
        assert_eq!(whole().health(), Health::Up);
        for break_one in [
            (|s| s.parts[0].1 = false) as fn(&mut Status),
            |s| s.network = false,
            |s| s.cables[0].1 = false,
            |s| s.nodes[0].1 = false,
            |s| s.dns = false,
        ] {
            let mut status = whole();
            break_one(&mut status);
            let Health::Broken(why) = status.health() else { panic!("{status:?}") };
            assert_eq!(why.len(), 1, "{why:?}");
        }
    }
}
