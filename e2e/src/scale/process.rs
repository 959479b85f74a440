//! The operator as a process of this machine: started as its container would be, and read from /proc.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use graceful_process::{Signal, signal};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::group::Group;

/// What containerd gives a container: a soft limit far below the hard one.
const DESCRIPTORS: &str = "1024";
/// An operator's stop waits 3 s for the calls that are under way.
const STOPS: Duration = Duration::from_secs(10);
/// USER_HZ, the unit of /proc/PID/stat: 100 on every architecture that Rust's musl targets run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What it takes to start one.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) binary: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) group: Option<Group>,
    /// All runs' logs, one after the other.
    pub(super) log: PathBuf,
}

/// One that was started; killed when dropped.
#[derive(Debug)]
pub(super) struct Operator<'a> {
    program: &'a Program,
    child: Child,
    /// Where /readyz and /metrics answer.
    pub(super) health: SocketAddr,
    kills_before: u64,
    last: Sample,
}

/// What it has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) cpu_seconds: f64,
    /// The most that was resident at any time.
    pub(super) peak_bytes: u64,
}

/// It is no more, and this is why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Ended(pub(super) String);

impl Program {
    pub(super) fn start(&self) -> anyhow::Result<Operator<'_>> {
        // It enters its cgroup before it is the operator, so that all of its memory is accounted there.
        const SCRIPT: &str = r#"[ -z "$0" ] || echo $$ >"$0"; ulimit -Sn "$1"; shift; exec "$@""#;
        let health = free_address()?;
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let entrance = self.group.as_ref().map(Group::entrance).unwrap_or_default();
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(entrance)
            .arg(DESCRIPTORS)
            .arg(&self.binary)
            .args(["run", "--listen", &health.to_string()])
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAME", "bench-scale")
            .env("POD_NAMESPACE", crate::harness::charts::NAMESPACE)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let kills_before = self.group.as_ref().map_or(0, Group::kills);
        Ok(Operator { program: self, child, health, kills_before, last: Sample::default() })
    }
}

impl Operator<'_> {
    /// What it has used so far; an error once it has ended.
    pub(super) fn look(&mut self) -> Result<Sample, Ended> {
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Err(Ended(self.epitaph(status))),
            Err(error) => return Err(Ended(format!("it cannot be waited for: {error}"))),
        }
        // Between its end and our knowledge of it there is nothing to read: the last figures stand.
        if let Some(sample) = self.child.id().and_then(|pid| read(Path::new("/proc"), pid)) {
            self.last = sample;
        }
        Ok(self.last)
    }

    /// The last figures, whether it lives or not.
    pub(super) fn last(&self) -> Sample {
        self.last
    }

    /// Asks it to go, and waits.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if self.look().is_err() {
            return Ok(());
        }
        let pid = self.child.id().context("no pid")?;
        signal(Signal::SIGTERM, &[pid])?;
        match timeout(STOPS, self.child.wait()).await {
            Ok(status) => drop(status?),
            Err(_) => {
                self.child.kill().await?;
                bail!("the operator did not end within {} s of SIGTERM", STOPS.as_secs());
            }
        }
        Ok(())
    }

    fn epitaph(&self, status: ExitStatus) -> String {
        let killed_for_memory = self.program.group.as_ref().filter(|group| group.kills() > self.kills_before);
        match (killed_for_memory, status.signal()) {
            (Some(group), _) => format!("OOM-killed at {} MiB", group.limit >> 20),
            (None, Some(signal)) => format!("ended by signal {signal}"),
            (None, None) => format!("ended with {status}"),
        }
    }
}

fn read(proc: &Path, pid: u32) -> Option<Sample> {
    let folder = proc.join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let status = fs::read_to_string(folder.join("status")).ok()?;
    Some(Sample { cpu_seconds: cpu_seconds(&stat)?, peak_bytes: peak_bytes(&status)? })
}

/// User and system time of all threads, those that have ended too.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name may contain anything, parentheses too; fields are counted from its end.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    let (user, system) = (times.next()?, times.next()?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    // Free again once this listener is dropped; nobody else asks the kernel for this very port in the moment between.
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_whatever_the_process_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(peak_bytes("VmPeak: 9 kB\nVmHWM:\t  2048 kB\nVmRSS: 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_bytes("Name: kernel thread\n"), None);
    }
}
