//! `cargo xtask kills`: task servers are killed at so many moments, and nothing that they accepted may be lost.

use clap::Args;
use graceful_cluster::prerequisites;
use graceful_process::run as run_command;

use crate::run::{cargo, root, stage};

/// How often, and which queue.
#[derive(Args)]
pub(crate) struct Options {
    /// How many kills.
    #[arg(long, default_value_t = 1000)]
    n: u32,
    /// sqlite: one server on one folder; postgres: three servers on a PostgreSQL of their own.
    #[arg(long, default_value = "sqlite", value_parser = ["sqlite", "postgres"])]
    store: String,
    /// Repeats a run's choices.
    #[arg(long)]
    seed: Option<u64>,
}

/// As a part of everything: enough kills of each to hit each kind of moment. The thousand takes minutes.
pub(crate) fn a_few() -> anyhow::Result<()> {
    for store in ["sqlite", "postgres"] {
        run(&Options { n: 60, store: store.to_owned(), seed: None })?;
    }
    Ok(())
}

/// Builds both programs, in the profile that the tests use, and runs. Not a stage: its last line is the verdict.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { n, store, seed } = options;
    if store == "postgres" {
        prerequisites::ensure(&prerequisites::POSTGRES)?;
    }
    stage("build", || {
        let mut build = cargo();
        build.args(["build", "--locked", "--package", "graceful-server", "--package", "graceful-kills"]);
        run_command(build.args(["--bin", "server", "--bin", "kills"]))
    })?;
    let programs = crate::images::target_folder()?.join("debug");
    let mut kills = std::process::Command::new(programs.join("kills"));
    kills.args(["--n", &n.to_string(), "--store", store]);
    kills.arg("--server").arg(programs.join("server"));
    kills.arg("--folder").arg(root().join("target/kills").join(store));
    if let Some(seed) = seed {
        kills.args(["--seed", &seed.to_string()]);
    }
    run_command(&mut kills)
}
