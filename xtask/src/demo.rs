//! `cargo xtask demo`: two rollouts under load, beside the same pods without Graceful.

use crate::e2e::{Target, prepare};
use graceful_process::run as run_command;

/// Prepares everything, and lets the harness show it.
pub(crate) fn run(target: &Target) -> anyhow::Result<()> {
    run_command(prepare(target)?.arg("demo"))
}
