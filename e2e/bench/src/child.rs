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

    /// Asks it to go, and waits until it went, however it says so.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        signal(Signal::SIGTERM, &[self.pid])?;
        timeout(TIMEOUT, self.child.wait()).await.context("it does not end on SIGTERM")??;
        Ok(())
    }

    /// What it has in memory now.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.pid)
    }

    /// The same with its children: nginx's work is done by them.
    pub(crate) fn memory_of_all(&self) -> anyhow::Result<Memory> {
        let mut all = Memory { resident: 0, anonymous: 0 };
        for pid in self.family()? {
            let Memory { resident, anonymous } = memory(pid)?;
            all = Memory { resident: all.resident + resident, anonymous: all.anonymous + anonymous };
        }
        Ok(all)
    }

    /// Processor time that it and its children have used since they started, user's and system's.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for pid in self.family()? {
            ticks += ticks_used(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
        }
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    fn family(&self) -> anyhow::Result<Vec<u32>> {
        let pid = self.pid;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children = children.split_whitespace().map(|child| Ok(child.parse()?));
        std::iter::once(Ok(pid)).chain(children).collect()
    }
}

fn memory(pid: u32) -> anyhow::Result<Memory> {
    Memory::parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?)
}

/// `USER_HZ`: what /proc counts in, on every Linux that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// utime and stime, the 14th and the 15th field; the second one, the name, may have spaces, and ends with the last bracket.
fn ticks_used(stat: &str) -> anyhow::Result<u64> {
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let used = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let used: Vec<u64> = used.collect::<Result<_, _>>()?;
    ensure!(used.len() == 2, "stat ends early: {stat}");
    Ok(used.iter().sum())
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

    #[test]
    fn processor_time_is_the_users_and_the_systems() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 500 41 9 9 20 0 3 0 1";
        assert_eq!(ticks_used(stat).unwrap(), 541);
        assert!(ticks_used("7 (x) S 1 2 3").is_err());
    }
}
