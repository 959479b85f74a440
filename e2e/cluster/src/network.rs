//! The host's side of the network: one bridge, routes to pods and services, and a wall around them.

use std::fs;
use std::process::Command;

use anyhow::Context;
use graceful_process::{command, output, output_with, succeeds};

use crate::command::ip;
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

/// Whether the bridge, the way to the services and the wall stand.
pub(crate) fn is_whole() -> bool {
    let route = output(&mut ip(&format!("route show {SERVICE_CIDR}")));
    let rules = output(&mut command("nft", &["list", "table", "inet", TABLE]));
    route.is_ok_and(|route| route.contains(BRIDGE))
        && rules.is_ok_and(|rules| drops(&rules) == drops(&wall()))
}

fn drops(rules: &str) -> usize {
    rules.lines().filter(|line| line.contains(" drop")).count()
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

/// How many packets the first rule of the wall has dropped.
pub(crate) fn dropped() -> anyhow::Result<u64> {
    packets(&output(&mut command("nft", &["list", "chain", "inet", TABLE, "forward"]))?)
}

/// The first packet count in what nft lists.
pub(crate) fn packets(listing: &str) -> anyhow::Result<u64> {
    let count = listing.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(count.context("no counter in it")?.parse()?)
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
    mend(n)
}

/// Removes the cable; the node's end goes with it.
pub(crate) fn unplug(n: u8) {
    succeeds(&mut ip(&format!("link del {}", node_link(n))));
}

/// Pulls the cable.
pub(crate) fn cut(n: u8) -> anyhow::Result<()> {
    output(&mut ip(&format!("link set {} down", node_link(n))))?;
    Ok(())
}

/// Puts the cable back, with the routes that the kernel dropped with it.
pub(crate) fn mend(n: u8) -> anyhow::Result<()> {
    output(&mut ip(&format!("link set {} master {BRIDGE} up", node_link(n))))?;
    output(&mut ip(&format!("route replace {} via {} dev {BRIDGE} onlink", pod_cidr(n), node_ip(n))))?;
    Ok(())
}

/// Whether the node has a cable, pulled or not.
pub(crate) fn has_cable(n: u8) -> bool {
    exists(&node_link(n))
}

/// Whether the cable is up, and its other end in the bridge.
pub(crate) fn is_connected(n: u8) -> bool {
    let link = node_link(n);
    let flags = fs::read_to_string(format!("/sys/class/net/{link}/flags")).unwrap_or_default();
    let master = fs::read_link(format!("/sys/class/net/{link}/master")).unwrap_or_default();
    is_up(&flags) && master.ends_with(BRIDGE)
}

/// The lowest bit of the kernel's flags.
fn is_up(flags: &str) -> bool {
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 == 1)
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
    fn the_first_counter_is_read() {
        assert_eq!(
            packets("iifname a counter packets 12 bytes 58 drop\ncounter packets 3 bytes 0").unwrap(),
            12
        );
        assert!(packets("no rules").is_err());
    }

    #[test]
    fn a_link_is_up_by_its_lowest_bit() {
        assert!(is_up("0x1003\n") && is_up("0x1"));
        assert!(!is_up("0x1002\n") && !is_up(""));
    }

    #[test]
    fn the_wall_drops_what_would_leave_and_can_be_loaded_twice() {
        let wall = wall();
        assert!(wall.contains("iifname \"br-kube\" oifname != \"br-kube\" counter drop"));
        assert!(wall.starts_with("table inet graceful\ndelete table inet graceful\n"));
    }
}
