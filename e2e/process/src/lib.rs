//! Other programs, as tests and xtask need them: run to their end, signalled, waited for. The one place for it: clusters,
//! databases, benches and xtask differ in what they start, and not in how.
//!
//! It blocks. That is right for xtask and the cluster, and in an async test for what takes a moment ([`signal`]); a child
//! that runs beside an async test is tokio's own, and [`printed`] reads what it gave.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::ops::Range;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
pub use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};

/// A command from its words.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs to the end with our own output, and fails when the command does.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| starting(command))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Runs to the end; what it printed is returned, or is the error when it fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| starting(command))?;
    printed(command, &done)
}

/// The same, with `input` on its stdin.
pub fn output_with(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| starting(command))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| starting(command))?;
    }
    let done = child.wait_with_output()?;
    printed(command, &done)
}

/// What a command that has ended printed, with U+FFFD for what is no text; where it failed, an error with its stderr.
pub fn printed(command: &Command, done: &Output) -> anyhow::Result<String> {
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A port for a program that is started later. Where there is room, it lies below those that the kernel gives to outgoing
/// connections: no client of another test gets it in between, nor while the program is restarted. Where those begin so low that
/// there is no room, it is one that is free now.
pub fn free_port(address: IpAddr) -> anyhow::Result<u16> {
    let ports = ports_of_no_client(&outgoing());
    if ports.is_empty() {
        let listener = TcpListener::bind((address, 0))
            .with_context(|| format!("cannot listen on any port of {address}"))?;
        return Ok(listener.local_addr()?.port());
    }
    // By chance, since two processes that begin at the same port would meet there.
    let chance = RandomState::new().hash_one(()) % u64::try_from(ports.len())?;
    let start = ports.start + u16::try_from(chance)?;
    (start..ports.end)
        .chain(ports.start..start)
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .with_context(|| format!("cannot listen on any port of {address}"))
}

/// The ports of outgoing connections, as the kernel writes them: the first and the last. Empty where it does not say.
fn outgoing() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default()
}

/// Those below `outgoing`. Lower ones than these are known programs' own.
fn ports_of_no_client(outgoing: &str) -> Range<u16> {
    const LOWEST: u16 = 10_000;
    /// Linux's default.
    const FIRST_OUTGOING: u16 = 32_768;
    let end = outgoing.split_whitespace().next().and_then(|first| first.parse().ok());
    LOWEST..end.unwrap_or(FIRST_OUTGOING)
}

/// Whether it ran and succeeded; what it printed is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|done| done.status.success())
}

/// How a command that is not there is told.
fn starting(command: &Command) -> String {
    format!("cannot start {}", command.get_program().display())
}

/// Sends a signal to each; an error if one of them is gone, after all others have it.
pub fn signal(signal: Signal, pids: &[u32]) -> anyhow::Result<()> {
    let mut result = Ok(());
    for pid in pids {
        let sent = i32::try_from(*pid)
            .map_err(anyhow::Error::from)
            .and_then(|number| Ok(nix::sys::signal::kill(Pid::from_raw(number), signal)?));
        result = result.and(sent.with_context(|| format!("cannot send {signal} to {pid}")));
    }
    result
}

/// Looks again every `interval` until `is_so`; an error that names `what` when the limit has passed.
pub fn wait_until(
    what: &str,
    limit: Duration,
    interval: Duration,
    mut is_so: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    wait_unless(what, limit, interval, || Ok(is_so()))
}

/// The same, and not to the limit where `is_so` knows that it will never be.
pub fn wait_unless(
    what: &str,
    limit: Duration,
    interval: Duration,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() <= limit, "{what}: not within {} s", limit.as_secs());
        std::thread::sleep(interval);
    }
    Ok(())
}

/// Whether this process may do what an administrator may.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Sees that this process and what it starts may have as many files and sockets open as the hard limit allows; how many that is.
pub fn allow_most_open_files() -> anyhow::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Sees that this process and what it starts may have so many files and sockets open.
pub fn allow_open_files(wanted: u64) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        ensure!(hard >= wanted, "{wanted} open files are not allowed here: ulimit -Hn {wanted}");
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_is_named_with_what_it_said() {
        let said = output(&mut command("sh", &["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(said.contains("\"sh\"") && said.contains('3') && said.ends_with("why"), "{said}");
        let said = output(&mut command("/no/such/program", &[])).unwrap_err().to_string();
        assert_eq!(said, "cannot start /no/such/program");
    }

    #[test]
    fn input_goes_in_and_output_comes_back() {
        assert_eq!(output_with(&mut command("cat", &[]), "a\nb").unwrap(), "a\nb");
    }

    #[test]
    fn a_signal_reaches_those_that_are_there() {
        let mut child = command("sleep", &["60"]).spawn().unwrap();
        let gone = {
            let mut gone = command("true", &[]).spawn().unwrap();
            gone.wait().unwrap();
            gone.id()
        };
        assert!(signal(Signal::SIGKILL, &[gone, child.id()]).is_err());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_free_port_is_no_port_of_a_client_where_there_is_room_below_those() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let port = free_port(here).unwrap();
        let listener = TcpListener::bind((here, port)).unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ports = ports_of_no_client(&outgoing());
        assert!(ports.is_empty() || ports.contains(&port), "{port}");
    }

    #[test]
    fn there_is_room_below_the_ports_of_clients_unless_those_begin_low() {
        assert_eq!(ports_of_no_client("32768\t60999\n"), 10_000..32_768);
        assert_eq!(ports_of_no_client("10001\t65535\n"), 10_000..10_001);
        for low in ["1024\t65535\n", "10000\t65535\n"] {
            assert!(ports_of_no_client(low).is_empty(), "{low}");
        }
        for unknown in ["", "none"] {
            assert_eq!(ports_of_no_client(unknown), 10_000..32_768);
        }
    }

    #[test]
    fn a_wait_ends_when_it_is_so_or_can_never_be_or_takes_too_long() {
        let (long, none) = (Duration::from_secs(60), Duration::ZERO);
        let mut looks = 0;
        wait_until("three looks", long, none, || {
            looks += 1;
            looks == 3
        })
        .unwrap();
        assert!(wait_unless("it", long, none, || bail!("never")).is_err());
        let said = wait_until("it", none, Duration::from_millis(1), || false).unwrap_err().to_string();
        assert_eq!(said, "it: not within 0 s");
    }
}
