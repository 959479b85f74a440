//! The host's side of the network: one bridge, routes to pods and services, and a wall around them.

use std::fs;
use std::process::Command;

use anyhow::Context;

use crate::command::{command, ip, output, output_with, succeeds};
use crate::layout::{BRIDGE, HOST_IP, NODE_CIDR, POD_CIDR, SERVICE_CIDR, node_ip, node_link, pod_cidr};

/// The nft table of ours in the host.
const TABLE: &str = "graceful";

/// Makes what is missing of the bridge and the wall.
pub(crate) fn ensure() -> anyhow::Result<()> {
    load_modules();
    if !exists(BRIDGE) {
        output(&mut ip(&format!("link add {BRIDGE} type bridge")))?;
    }
    output(&mut ip(&format!("addr replace {HOST_IP}/24 dev {BRIDGE}")))?;
    output(&mut ip(&format!("link set {BRIDGE} up")))?;
    output_with(&mut command("nft", &["-f", "-"]), &wall()).context("cannot load the drop rules")?;
    pass_docker(true);
    Ok(())
}

/// Whether the bridge and the wall stand.
pub(crate) fn is_whole() -> bool {
    exists(BRIDGE) && succeeds(&mut command("nft", &["list", "table", "inet", TABLE]))
}

/// Whether anything of it is there.
pub(crate) fn is_there() -> bool {
    exists(BRIDGE) || !links().is_empty() || succeeds(&mut command("nft", &["list", "table", "inet", TABLE]))
}

/// No packet of a pod or a node leaves the machine, and none from outside is forwarded to them. What stays on the
/// bridge, and what the host itself sends or receives, passes.
///
/// The first two lines make the load repeatable: they create the table so that its deletion cannot fail.
pub(crate) fn wall() -> String {
    format!(
        "table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname \"{BRIDGE}\" oifname != \"{BRIDGE}\" counter drop comment \"nothing of a pod leaves the machine\"
    ip saddr {{ {POD_CIDR}, {NODE_CIDR}, {SERVICE_CIDR} }} oifname != \"{BRIDGE}\" counter drop
    iifname != \"{BRIDGE}\" oifname \"{BRIDGE}\" counter drop comment \"and nobody from outside comes in\"
  }}
}}
"
    )
}

/// The host's routes to the pods of a node.
pub(crate) fn route_pods(n: u8) -> anyhow::Result<()> {
    output(&mut ip(&format!("route replace {} via {} dev {BRIDGE} onlink", pod_cidr(n), node_ip(n))))?;
    Ok(())
}

/// The host reaches services through one node, whose kube-proxy translates.
pub(crate) fn route_services(n: u8) -> anyhow::Result<()> {
    output(&mut ip(&format!("route replace {SERVICE_CIDR} via {} dev {BRIDGE} onlink", node_ip(n))))?;
    Ok(())
}

/// Plugs a new cable from the bridge into the namespaces of `anchor`, where it is eth0.
pub(crate) fn plug(n: u8, anchor: u32) -> anyhow::Result<()> {
    let link = node_link(n);
    unplug(n);
    output(&mut ip(&format!("link add {link} type veth peer name eth0 netns {anchor}")))?;
    output(&mut ip(&format!("link set {link} master {BRIDGE} up")))?;
    Ok(())
}

/// Removes the cable; the node's end goes with it.
pub(crate) fn unplug(n: u8) {
    succeeds(&mut ip(&format!("link del {}", node_link(n))));
}

/// Takes the cable down, or up again with the routes that the kernel dropped with it.
pub(crate) fn set_cable(n: u8, up: bool) -> anyhow::Result<()> {
    let state = if up { "up" } else { "down" };
    output(&mut ip(&format!("link set {} {state}", node_link(n))))?;
    if up { route_pods(n) } else { Ok(()) }
}

/// Whether the cable is plugged and up.
pub(crate) fn is_connected(n: u8) -> bool {
    let flags = fs::read_to_string(format!("/sys/class/net/{}/flags", node_link(n))).unwrap_or_default();
    let flags = flags.trim().trim_start_matches("0x");
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1)
}

/// Removes all of it.
pub(crate) fn remove() {
    for link in links() {
        succeeds(&mut ip(&format!("link del {link}")));
    }
    succeeds(&mut ip(&format!("link del {BRIDGE}")));
    succeeds(&mut command("nft", &["delete", "table", "inet", TABLE]));
    pass_docker(false);
}

fn exists(link: &str) -> bool {
    fs::exists(format!("/sys/class/net/{link}")).unwrap_or(false)
}

/// The cables that are plugged into the host, of however many nodes.
fn links() -> Vec<String> {
    (1..=9).map(node_link).filter(|link| exists(link)).collect()
}

/// Bridged packets pass the host's iptables too (br_netfilter), and Docker's default there is to drop: then ours need
/// a rule of their own.
fn pass_docker(wanted: bool) {
    let rule = |verb: &str| -> Command {
        let mut command = Command::new("iptables");
        command.args(["-w", verb, "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"]);
        command
    };
    let drops = || {
        output(&mut command("iptables", &["-w", "-S", "FORWARD"]))
            .is_ok_and(|s| s.contains("-P FORWARD DROP"))
    };
    let there = succeeds(&mut rule("-C"));
    if wanted && !there && drops() {
        succeeds(&mut rule("-I"));
    } else if !wanted && there {
        succeeds(&mut rule("-D"));
    }
}

/// What a machine may have as modules. A kernel that has them built in, or no modprobe, is fine: what is truly
/// missing shows itself by name a moment later.
fn load_modules() {
    for (module, sign) in [("overlay", "/sys/module/overlay"), ("br_netfilter", "/proc/sys/net/bridge")] {
        if !fs::exists(sign).unwrap_or(false) {
            succeeds(&mut command("modprobe", &[module]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_drops_what_would_leave_and_can_be_loaded_twice() {
        let wall = wall();
        assert!(wall.contains("iifname \"br-kube\" oifname != \"br-kube\" counter drop"));
        assert!(wall.starts_with("table inet graceful\ndelete table inet graceful\n"));
    }
}
