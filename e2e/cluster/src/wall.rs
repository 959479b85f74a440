//! The proof that no pod's packet leaves the machine: a stranger's network of our own making listens for one.
//!
//! The stranger is a namespace behind a cable of the host, at an address that no node knows, so a packet to it takes
//! the way that one to the internet would. The host's own packet must arrive there (else nothing is proved), those
//! of each node and each node's pods must not, and the drop rule must have counted them.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_process::{command, output, succeeds, wait_until};

use crate::command::ip;
use crate::layout::node_name;
use crate::{cgroup, network, node, process};

/// The cable's end in the host, and the stranger's address.
const LINK: &str = "kstranger";
const HOST_END: &str = "10.251.255.1";
const STRANGER: &str = "10.251.255.2";

/// Whether the host forwards at all. A machine that does not needs no wall, and would prove nothing.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The namespace, and the machine as it was. Dropping it puts all back.
struct Stranger {
    holder: Child,
    forwarded: String,
}

/// Sends a datagram from each node and from a pod, and sees that none arrives.
pub(crate) fn prove(nodes: u8) -> anyhow::Result<()> {
    let stranger = Stranger::meet()?;
    send(None)?;
    wait_until("the host's own packet arrived", Duration::from_secs(5), Duration::from_millis(50), || {
        stranger.received().is_ok_and(|count| count > 0)
    })?;
    let (arrived, dropped) = (stranger.received()?, network::dropped()?);
    let senders = senders(nodes)?;
    for sender in &senders {
        send(Some(*sender))?;
    }
    // The rule counts before it drops: once all are counted there is none left that could arrive.
    let all = dropped + senders.len() as u64;
    wait_until(
        "the drop rule counted each packet",
        Duration::from_secs(5),
        Duration::from_millis(50),
        || network::dropped().is_ok_and(|count| count >= all),
    )?;
    ensure!(stranger.received()? == arrived, "a packet of the cluster reached {STRANGER}, outside of it");
    Ok(())
}

/// A process of each node itself, and one in a pod's network; the cluster's DNS is always there.
fn senders(nodes: u8) -> anyhow::Result<Vec<u32>> {
    let anchor = |n| {
        process::pid(&node::part(n, "anchor")).with_context(|| format!("{} is not running", node_name(n)))
    };
    let mut senders = (1..=nodes).map(anchor).collect::<anyhow::Result<Vec<_>>>()?;
    let node_networks: Vec<_> = senders.iter().map(|pid| process::namespace(*pid, "net")).collect();
    let in_pods = (1..=nodes).flat_map(cgroup::processes).find(|pid| {
        let network = process::namespace(*pid, "net");
        network.is_some() && !node_networks.contains(&network)
    });
    senders.push(in_pods.context("no pod runs")?);
    Ok(senders)
}

/// By a shell's own means, so that it needs no program in the namespace's favour.
fn send(from: Option<u32>) -> anyhow::Result<()> {
    let line = format!("echo out >/dev/udp/{STRANGER}/9");
    let mut words =
        from.map_or(Vec::new(), |pid| vec!["nsenter".into(), format!("--net=/proc/{pid}/ns/net")]);
    words.extend(["bash".into(), "-c".into(), line]);
    output(Command::new(&words[0]).args(&words[1..]))?;
    Ok(())
}

impl Stranger {
    fn meet() -> anyhow::Result<Self> {
        let mut unshare = command("unshare", &["--net", "sleep", "60"]);
        let holder = unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let stranger = Self { holder, forwarded: fs::read_to_string(FORWARD)? };
        let pid = stranger.holder.id();
        wait_until("the stranger's namespace", Duration::from_secs(5), Duration::from_millis(5), || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
        })?;
        output(&mut ip(&format!("link add {LINK} type veth peer name eth0 netns {pid}")))?;
        output(&mut ip(&format!("addr add {HOST_END}/30 dev {LINK}")))?;
        output(&mut ip(&format!("link set {LINK} up")))?;
        output(&mut stranger.inside(&format!("ip addr add {STRANGER}/30 dev eth0 && ip link set eth0 up")))?;
        output(
            &mut stranger.inside(
                "nft add table ip t && nft 'add chain ip t in { type filter hook input priority 0; }'",
            ),
        )?;
        output(&mut stranger.inside("nft add rule ip t in udp dport 9 counter"))?;
        fs::write(FORWARD, "1")?;
        Ok(stranger)
    }

    fn inside(&self, line: &str) -> Command {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.id());
        command("nsenter", &[&namespace, "sh", "-euc", line])
    }

    fn received(&self) -> anyhow::Result<u64> {
        network::packets(&output(&mut self.inside("nft list chain ip t in"))?)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = fs::write(FORWARD, self.forwarded.trim());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        succeeds(&mut ip(&format!("link del {LINK}")));
    }
}
