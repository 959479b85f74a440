//! `cargo xtask`: the one door to everything a person or CI runs here. Each subcommand is a module.

mod admission;
mod api_server;
mod apps;
mod bench;
mod charts;
mod check;
mod cluster;
mod conformance;
mod demo;
mod e2e;
mod fuzz_api;
mod generate;
mod guard;
mod images;
mod kills;
mod kustomize;
mod promises;
mod python;
mod rights;
mod run;
mod test;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Everything this project runs, through one door")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, lints, unit tests, properties, generated files and dependency policy; needs no cluster, no root and no
    /// server, and names the tests that it left out.
    Check,
    /// The charts and the CRD's rules, judged by helm and by the cluster that is up.
    Charts,
    /// Writes the generated files: the CRD, its copy in the chart, and the OpenAPI document.
    Gen,
    /// The real Kubernetes of this machine: up, down, load, faults.
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// The images of operator, server and load generator.
    Images(images::Options),
    /// The scenarios, on a real cluster and under load.
    E2e(e2e::Options),
    /// Two rollouts under load, beside the same pods without Graceful.
    Demo(e2e::Target),
    /// Task servers, killed at a thousand moments: nothing accepted may be lost.
    Kills(kills::Options),
    /// The server's API against its OpenAPI document, by schemathesis; needs no cluster.
    FuzzApi(fuzz_api::Options),
    /// The drain protocol's conformance kit, on the task server, the gate and the samples; needs no cluster.
    Conformance(conformance::Options),
    /// Everything: check, charts, e2e, with the time of each stage.
    Test,
    /// Measures: rollouts on the real cluster, or the task server on loopback.
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Check => check::run_what_can_be(),
        Command::Charts => charts::check(),
        Command::Gen => generate::write_all(),
        Command::Cluster(verb) => cluster::run(verb),
        Command::Images(options) => images::run(&options),
        Command::E2e(options) => e2e::run(&options),
        Command::Demo(target) => demo::run(&target),
        Command::Kills(options) => kills::run(&options),
        Command::FuzzApi(options) => fuzz_api::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Test => test::run_all(),
        Command::Bench(options) => bench::run(&options),
    }
}
