//! How far we are, and the one command that has many forms.

use std::fmt::Display;
use std::process::Command;
use std::time::Instant;

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

/// `ip` with a line of arguments.
pub(crate) fn ip(arguments: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    command
}
