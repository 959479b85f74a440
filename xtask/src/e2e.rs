//! `cargo xtask e2e`: cluster, images and the scenarios, from nothing but this checkout.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use graceful_cluster::{Cluster, Options as ClusterOptions, prerequisites};
use graceful_process::run as run_command;

use crate::run::{cargo, root, stage};
use crate::{images, python};

/// Which cluster: this machine's own, unless a context is named.
#[derive(Args, Clone, Default)]
pub(crate) struct Target {
    /// Context of your kubeconfig, for a cluster of your own; needs --registry.
    #[arg(long, requires = "registry")]
    context: Option<String>,
    /// Registry that your cluster pulls from; the images are pushed to it.
    #[arg(long, requires = "context")]
    registry: Option<String>,
    /// A PostgreSQL that your cluster's pods reach, with an empty database; without it the scenarios that need one are
    /// skipped. This machine's own cluster has one on the host.
    #[arg(long, requires = "context")]
    postgres_url: Option<String>,
}

/// What to run.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only scenarios whose name contains this.
    filter: Option<String>,
    /// Keep the tests' namespaces.
    #[arg(long)]
    keep: bool,
    /// Repeat a run's random choices.
    #[arg(long)]
    seed: Option<u64>,
    /// Scenarios side by side.
    #[arg(long)]
    jobs: Option<usize>,
    #[command(flatten)]
    target: Target,
}

/// Prepares everything and runs the scenarios.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { filter, keep, seed, jobs, target } = options;
    if target.context.is_none() {
        // The page is opened in a browser of this machine, which reaches the pods of its own cluster only.
        prerequisites::ensure(&prerequisites::CHROMIUM)?;
    }
    let mut command = prepare(target)?;
    if target.context.is_none() {
        // The scenarios of queue workers and of an app that are not ours mount their broker and their packages.
        prerequisites::ensure(&prerequisites::REDIS)?;
        command.env("GRACEFUL_CELERY", stage("celery", || packages("celery", "e2e/assets/celery"))?);
        command.env("GRACEFUL_FASTAPI", stage("fastapi", || packages("fastapi", "e2e/bench/seed"))?);
    }
    if *keep {
        command.arg("--keep");
    }
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(jobs) = jobs {
        command.args(["--jobs", &jobs.to_string()]);
    }
    command.args(filter);
    // Not a stage: its last line is the verdict.
    run_command(&mut command)
}

/// A cluster that is up, with our images on it; the harness, ready for its arguments.
pub(crate) fn prepare(target: &Target) -> anyhow::Result<Command> {
    match target {
        Target { context: Some(context), registry: Some(registry), postgres_url } => {
            stage("images", || images::build_and_push(registry))?;
            // kubectl and helm are the ones that we build and test with, not what the PATH has.
            let programs = stage("programs", Cluster::build)?.join("bin");
            let mut command = Command::new(stage("harness", build_harness)?);
            command
                .env("GRACEFUL_KUBECTL", programs.join("kubectl"))
                .env("GRACEFUL_HELM", programs.join("helm"));
            command.args(["--context", context, "--registry", registry]);
            command.env("KUBECONFIG", foreign_kubeconfig()?);
            if let Some(url) = postgres_url {
                command.args(["--postgres-url", url]);
            }
            Ok(command)
        }
        _ => {
            // The scenario of an app that is not ours mounts the node's interpreter.
            prerequisites::ensure(&prerequisites::PYTHON)?;
            // And the scenarios of the shared queue run it on the host.
            prerequisites::ensure(&prerequisites::POSTGRES)?;
            let cluster = stage("cluster", || Cluster::up(&ClusterOptions::default()))?;
            stage("images", images::build_and_load)?;
            let mut command = Command::new(stage("harness", build_harness)?);
            command
                .env("KUBECONFIG", cluster.kubeconfig())
                .env("GRACEFUL_HOST_ADDRESS", graceful_cluster::HOST_IP)
                .env("GRACEFUL_KUBECTL", cluster.programs().join("kubectl"))
                .env("GRACEFUL_HELM", cluster.programs().join("helm"));
            Ok(command)
        }
    }
}

/// A folder of packages, from PyPI.
fn packages(name: &str, required_by: &str) -> anyhow::Result<PathBuf> {
    let environment = root().join("target/e2e").join(name);
    python::ensure(&environment, &root().join(required_by).join("requirements.txt"))?;
    let versions = fs::read_dir(environment.join("lib"))?;
    let mut found = versions.flatten().map(|version| version.path().join("site-packages"));
    found.find(|folder| folder.is_dir()).context("the virtual environment has no packages")
}

/// With the packages of the images, so that features are unified alike and no dependency is compiled twice.
fn build_harness() -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", images::TARGET]).args(images::FEATURES);
    for package in ["graceful-operator", "graceful-server", "graceful-e2e"] {
        build.args(["--package", package]);
    }
    run_command(build.args(["--bin", "e2e"]))?;
    Ok(images::target_folder()?.join(images::TARGET).join("release/e2e"))
}

/// Where kubectl would look; a list of files is for kubectl alone.
fn foreign_kubeconfig() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os("KUBECONFIG") {
        Some(path) => PathBuf::from(path),
        None => std::env::home_dir().context("no home folder; set KUBECONFIG")?.join(".kube/config"),
    };
    if !path.is_file() {
        bail!("{} is not a kubeconfig; set KUBECONFIG to one file", path.display());
    }
    Ok(path)
}
