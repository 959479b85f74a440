//! `cargo xtask bench`: what is measured on the real cluster, written to `target/bench/NAME.json` as well.

use clap::Args;

use crate::e2e::{Target, prepare};
use crate::run::run as run_command;

/// Which bench.
#[derive(Args)]
pub(crate) struct Options {
    /// rollout: from a pod's last task ending to its DELETE, and the rollout's length beside the best possible.
    name: String,
    #[command(flatten)]
    target: Target,
}

/// Prepares everything, and lets the harness measure.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { name, target } = options;
    run_command(prepare(target)?.args(["bench", name]))
}
