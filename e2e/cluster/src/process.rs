//! The cluster's long-running processes, each known by its part's name.
//!
//! A part outlives whoever started it: a session of its own, no shared stdio, an environment of our choosing. That
//! environment names the part, so that a process is known to be ours whatever became of its pid file, and no
//! stranger that has come by an old pid is ever taken for one.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use graceful_process::{Signal, signal, wait_until};

use crate::layout::run;

/// The environment variable that names the part; what a part starts inherits it.
const MARK: &str = "GRACEFUL_CLUSTER_PART";

/// Starts the part in the background: by `words[0]` with the rest as its arguments, output to its log.
///
/// The new process writes its own pid before it becomes the program, so that no moment exists in which it runs and
/// nobody could find it. It closes what a caller's shell may have left open (a lock, a pipe), since it would hold that
/// for days. `setsid --fork` leaves it to process 1: it is never our zombie.
pub(crate) fn start(part: &str, words: &[String]) -> anyhow::Result<()> {
    const SCRIPT: &str = r#"exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
echo $$ >"$0.new"; mv "$0.new" "$0"; exec "$@""#;
    fs::create_dir_all(run("logs"))?;
    fs::create_dir_all(run("pids"))?;
    let log = fs::OpenOptions::new().create(true).append(true).open(log_file(part))?;
    let _ = fs::remove_file(pid_file(part));
    let status = Command::new("setsid")
        .args(["--fork", "sh", "-c", SCRIPT])
        .arg(pid_file(part))
        .args(words)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("HOME", "/root")
        .env(MARK, part)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot start {part}"))?;
    anyhow::ensure!(status.success(), "cannot start {part}: setsid {status}");
    wait_until(&format!("{part} started"), Duration::from_secs(10), Duration::from_millis(2), || {
        pid_file(part).exists()
    })
}

/// What a part searches for the programs it runs. A proxy or a Go setting of the caller's shell must not reach it.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The part's process, if it runs.
pub(crate) fn pid(part: &str) -> Option<u32> {
    let pid = fs::read_to_string(pid_file(part)).ok()?.trim().parse().ok()?;
    (part_of(pid)? == part).then_some(pid)
}

pub(crate) fn runs(part: &str) -> bool {
    pid(part).is_some()
}

/// All processes of the parts whose name begins so, and what they have started.
pub(crate) fn of_parts(prefix: &str) -> Vec<u32> {
    all().filter(|pid| part_of(*pid).is_some_and(|part| part.starts_with(prefix))).collect()
}

/// All processes of the machine.
pub(crate) fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The name of a namespace of a process, such as `mnt:[4026531841]`.
pub(crate) fn namespace(pid: u32, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.to_str()?.to_owned())
}

/// Kills at once: nothing of a test cluster is worth a farewell.
pub(crate) fn kill(pids: &[u32]) {
    // One that has ended by itself meanwhile is no failure.
    signal(Signal::SIGKILL, pids).ok();
}

/// Kills until none of `find` is left.
pub(crate) fn kill_all(what: &str, find: impl Fn() -> Vec<u32>) -> anyhow::Result<()> {
    wait_until(
        &format!("{what}: all processes ended"),
        Duration::from_secs(20),
        Duration::from_millis(30),
        || {
            let found = find();
            kill(&found);
            found.is_empty()
        },
    )
}

/// Kills the part and forgets its pid.
pub(crate) fn stop(part: &str) -> anyhow::Result<()> {
    kill_all(part, || pid(part).into_iter().collect())?;
    let _ = fs::remove_file(pid_file(part));
    Ok(())
}

/// The end of the part's log, for an error message.
pub(crate) fn log_tail(part: &str) -> String {
    let log = fs::read_to_string(log_file(part)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn pid_file(part: &str) -> PathBuf {
    run("pids").join(part)
}

fn log_file(part: &str) -> PathBuf {
    run("logs").join(format!("{part}.log"))
}

/// The part that a process belongs to. A zombie's environment is empty: it belongs to none.
fn part_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    marked(&environment)
}

fn marked(environment: &[u8]) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
        std::ffi::OsStr::from_bytes(value).to_str().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ours_only_by_the_whole_name_of_the_variable() {
        assert_eq!(marked(b"A=1\0GRACEFUL_CLUSTER_PART=node1.kubelet\0B=2\0"), Some("node1.kubelet".into()));
        assert_eq!(marked(b"NOT_GRACEFUL_CLUSTER_PART=node1.kubelet\0"), None);
        assert_eq!(marked(b"GRACEFUL_CLUSTER_PARTS=etcd\0"), None);
        assert_eq!(marked(b""), None);
    }

    #[test]
    fn this_test_is_no_part_of_a_cluster() {
        assert_eq!(part_of(std::process::id()), None);
    }
}
