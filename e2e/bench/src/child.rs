//! A server as a process of its own: started, waited for, looked at, ended.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use graceful_process::{Signal, signal};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::load::{Client, request};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One server that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pid: u32,
}

impl Server {
    /// Starts it and waits until `ready` answers 2xx on `address`. What it logs goes to `log`.
    pub(crate) async fn start(
        mut command: Command,
        address: SocketAddr,
        ready: (&str, &str),
        log: &Path,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(log)?);
        let child = command.kill_on_drop(true).spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().context("no pid")?;
        let mut server = Self { child, address, pid };
        let end = Instant::now() + TIMEOUT;
        while !answers(address, ready).await {
            if let Some(status) = server.child.try_wait()? {
                let said = fs::read_to_string(log)?;
                let last = said.lines().last().unwrap_or("nothing");
                bail!("{command:?} ended as it started, with {status}; it said: {last}");
            }
            ensure!(Instant::now() < end, "{command:?} is not ready after {} s", TIMEOUT.as_secs());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// As a power cut would.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to go; how long it took until it went, and it must go with 0.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        signal(Signal::SIGTERM, &[self.pid])?;
        let status = timeout(TIMEOUT, self.child.wait()).await.context("it does not end on SIGTERM")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(begun.elapsed())
    }

    /// What it has in memory now.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::parse(&fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?)
    }
}

async fn answers(address: SocketAddr, (method, path): (&str, &str)) -> bool {
    let Ok(mut client) = Client::connect(address).await else { return false };
    client.ask(request(method, path).as_bytes()).await.is_ok_and(|answer| answer.status < 300)
}

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it that is in memory, the program itself included (shared pages by their share).
    pub(crate) resident: u64,
    /// Heap and stacks: what it allocated.
    pub(crate) anonymous: u64,
}

impl Memory {
    fn parse(rollup: &str) -> anyhow::Result<Self> {
        let bytes = |name: &str| -> anyhow::Result<u64> {
            let mut lines = rollup.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kibibytes = line.and_then(|rest| rest.split_whitespace().next());
            Ok(kibibytes.with_context(|| format!("no {name} in smaps_rollup"))?.parse::<u64>()? * 1024)
        };
        Ok(Self { resident: bytes("Pss")?, anonymous: bytes("Pss_Anon")? })
    }
}

/// Below the ports that Linux gives to clients: ten thousand of those are ours in a while, and one that is being closed
/// cannot be listened on.
const FIRST_PORT: u16 = 21_000;

/// A port on loopback that is free now, and was not given before.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        ensure!(port >= FIRST_PORT, "no port is free from {FIRST_PORT} on");
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        let memory = Memory::parse("0-1 ---p [rollup]\nRss: 9 kB\nPss:  8 kB\nPss_Anon:   5 kB\n").unwrap();
        assert_eq!((memory.resident, memory.anonymous), (8192, 5120));
        assert!(Memory::parse("Rss: 9 kB\n").is_err());
    }
}
