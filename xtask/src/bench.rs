//! `cargo xtask bench`: what is measured, written to `target/bench/NAME.json` as well.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use graceful_cluster::prerequisites;
use graceful_process::run as run_command;

use crate::e2e::{Target, prepare};
use crate::images::{static_binary, target_folder};
use crate::python;
use crate::run::{cargo, root, stage};

/// The flags of `bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// rollout: from a pod's last task ending to its DELETE, and the rollout's length beside the best possible.
    /// scale: what an app costs the operator, with 50 of them and with 2,000; with pods that a stub kubelet stands in for.
    /// server: the task server with each queue, beside the seed's stack and a handler that stores nothing; needs no
    /// cluster.
    /// gate: the gate beside nginx, HAProxy and no proxy at all; needs no cluster.
    name: String,
    /// Measures one part of `server` or `gate` alone, and writes no results.
    #[arg(long, value_parser = ["submit", "latency", "sockets", "drain", "dispatch", "requests", "stream"])]
    only: Option<String>,
    #[command(flatten)]
    scale: Scale,
    #[command(flatten)]
    target: Target,
}

/// For `scale` alone; handed on as they are.
#[derive(Args)]
struct Scale {
    /// Rows of `scale`: 500 (apps without pods), 500ns (each in its namespace), 500x2 (two pods each); without it all
    /// that docs/benchmarks.md shows.
    #[arg(long)]
    rows: Option<String>,
    /// How long `scale` watches an operator at rest [default: 60].
    #[arg(long)]
    rest_seconds: Option<u64>,
    /// Another memory limit than the chart's for the operator of `scale`; 0 for none.
    #[arg(long)]
    memory_mebibytes: Option<u64>,
    /// Another operator for `scale`, to compare with.
    #[arg(long)]
    operator: Option<PathBuf>,
}

/// Prepares what the bench takes, and runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { name, only, scale, target } = options;
    let scale = scale.arguments();
    match (name.as_str(), only) {
        (other, _) if other != "scale" && !scale.is_empty() => {
            bail!("{} is for `bench scale`", scale[0].display())
        }
        ("server", only) => server(only.as_deref()),
        ("gate", only) => gate(only.as_deref()),
        (_, Some(_)) => bail!("--only is for `bench server` and `bench gate`"),
        (_, None) => run_command(prepare(target)?.args(["bench", name]).args(scale)),
    }
}

impl Scale {
    fn arguments(&self) -> Vec<OsString> {
        let Self { rows, rest_seconds, memory_mebibytes, operator } = self;
        let number = |n: &Option<u64>| n.map(|n| n.to_string().into());
        let given: [(&str, Option<OsString>); 4] = [
            ("--rows", rows.as_ref().map(Into::into)),
            ("--rest-seconds", number(rest_seconds)),
            ("--memory-mebibytes", number(memory_mebibytes)),
            ("--operator", operator.as_ref().map(Into::into)),
        ];
        given.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?])).flatten().collect()
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
    bench.arg("server").arg("--server").arg(programs.join("server"));
    bench.arg("--ceiling").arg(programs.join("ceiling"));
    bench.arg("--seed-environment").arg(environment).arg("--seed").arg(seed).arg("--out").arg(out);
    part(&mut bench, only)
}

/// The gate is the image's: static, in the image's profile.
fn gate(only: Option<&str>) -> anyhow::Result<()> {
    prerequisites::ensure(&prerequisites::PROXIES)?;
    let gate = stage("build of the gate", || static_binary("gate"))?;
    stage("build of the bench", || {
        let mut build = cargo();
        build.args(["build", "--profile", "dist", "--locked", "--package", "graceful-bench", "--bins"]);
        run_command(&mut build)
    })?;
    let programs = target_folder()?.join("dist");
    let mut bench = Command::new(programs.join("graceful-bench"));
    bench.arg("gate").arg("--gate").arg(gate).arg("--app").arg(programs.join("app"));
    for name in ["nginx", "haproxy"] {
        let found = prerequisites::find(name).with_context(|| format!("{name} is gone"))?;
        bench.arg(format!("--{name}")).arg(found);
    }
    let out = root().join("target/bench");
    std::fs::create_dir_all(&out)?;
    bench.arg("--out").arg(out);
    part(&mut bench, only)
}

fn part(bench: &mut Command, only: Option<&str>) -> anyhow::Result<()> {
    if let Some(part) = only {
        bench.args(["--only", part]);
    }
    run_command(bench)
}
