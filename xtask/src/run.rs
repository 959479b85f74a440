//! The stages, with their time, and where their commands run: in the workspace's root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// The cargo that runs us, so that a toolchain override carries over.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs one named stage and prints what it took.
pub(crate) fn stage<T>(name: &str, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = body().with_context(|| format!("stage {name}"));
    let word = if result.is_ok() { "passed" } else { "FAILED" };
    eprintln!("== {name}: {word} in {:.1} s", start.elapsed().as_secs_f64());
    result
}
