//! `cargo xtask bench`: what is measured, written to `target/bench/NAME.json` as well.

use std::process::Command;

use anyhow::bail;
use clap::Args;
use graceful_cluster::prerequisites;

use crate::e2e::{Target, prepare};
use crate::images::target_folder;
use crate::python;
use crate::run::{cargo, root, run as run_command, stage};

/// Which bench.
#[derive(Args)]
pub(crate) struct Options {
    /// rollout: from a pod's last task ending to its DELETE, and the rollout's length beside the best possible.
    /// server: the task server with each queue, beside the seed's stack and a handler that stores nothing; needs no
    /// cluster.
    name: String,
    /// Measures one part of `server` alone, and writes no results.
    #[arg(long, value_parser = ["submit", "latency", "sockets", "drain"])]
    only: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Prepares what the bench takes, and runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { name, only, target } = options;
    match (name.as_str(), only) {
        ("server", _) => server(only.as_deref()),
        (_, Some(_)) => bail!("--only is for `bench server`"),
        (_, None) => run_command(prepare(target)?.args(["bench", name])),
    }
}

fn server(only: Option<&str>) -> anyhow::Result<()> {
    prerequisites::ensure(&prerequisites::POSTGRES)?;
    let out = root().join("target/bench");
    let seed = root().join("e2e/bench/seed");
    let environment = out.join("seed-environment");
    stage("the seed's stack", || python::ensure(&environment, &seed.join("requirements.txt")))?;
    stage("build", || {
        let mut build = cargo();
        build.args(["build", "--profile", "dist", "--locked", "--package", "graceful-server"]);
        run_command(build.args(["--package", "graceful-bench", "--bins"]))
    })?;
    let programs = target_folder()?.join("dist");
    let mut bench = Command::new(programs.join("graceful-bench"));
    bench.arg("--server").arg(programs.join("server"));
    bench.arg("--ceiling").arg(programs.join("ceiling"));
    bench.arg("--seed-environment").arg(environment).arg("--seed").arg(seed).arg("--out").arg(out);
    if let Some(part) = only {
        bench.args(["--only", part]);
    }
    run_command(&mut bench)
}
