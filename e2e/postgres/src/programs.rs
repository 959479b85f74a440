//! Where PostgreSQL's programs are, and as whom they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use graceful_process::is_root;

/// The Debian package that brings the programs.
pub const PACKAGE: &str = "postgresql";

/// Debian keeps each major version in a folder of its own, so that two can be installed side by side.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The folder of the newest version's programs.
pub fn folder() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("postgres").is_file() && bin.join("initdb").is_file())
        .max()
        .map(|(_, bin)| bin)
        .with_context(|| {
            format!("no PostgreSQL in {VERSIONS}/*/bin: apt-get install -y --no-install-recommends {PACKAGE}")
        })
}

/// A command that runs as a user whom PostgreSQL accepts.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program.as_ref());
        command
    } else {
        Command::new(program.as_ref())
    };
    // Not in a folder that the other user may not enter, not in our language.
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
    command
}
