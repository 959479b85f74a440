//! Running other programs, waiting for a state of the world, and saying how far we are.

use std::fmt::Display;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Says one line on stderr, with the time since the work began.
pub(crate) struct Progress(Instant);

impl Progress {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn say(&self, line: impl Display) {
        eprintln!("[{:6.1} s] {line}", self.0.elapsed().as_secs_f64());
    }
}

/// A command from its words.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs to the end; what it printed is returned, or is the error when it fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| starting(command))?;
    checked(command, done)
}

/// The same, with `input` on its stdin.
pub(crate) fn output_with(command: &mut Command, input: &str) -> anyhow::Result<String> {
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
    checked(command, done)
}

/// Whether it ran and succeeded; what it printed is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|done| done.status.success())
}

/// `ip` with a line of arguments.
pub(crate) fn ip(arguments: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    command
}

fn starting(command: &Command) -> String {
    format!("cannot start {}", command.get_program().display())
}

fn checked(command: &Command, done: Output) -> anyhow::Result<String> {
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, said.trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("{command:?} printed no text"))
}

/// Looks again every `interval` until `is_so`; an error that names `what` when the limit has passed.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    interval: Duration,
    mut is_so: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(interval);
    }
    Ok(())
}
