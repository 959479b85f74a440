//! `cargo xtask`: the one door to everything a person or CI runs here. Each subcommand is a module.

mod admission;
mod charts;
mod check;
mod cluster;
mod generate;
mod run;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Everything this project runs, through one door")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, lints, unit tests, properties, generated files and dependency policy; needs no cluster.
    Check,
    /// The charts and the CRD's rules, judged by helm and by the cluster that is up.
    Charts,
    /// Writes the generated files: the CRD, and its copy in the chart.
    Gen,
    /// The real Kubernetes of this machine: up, down, load, faults.
    #[command(subcommand)]
    Cluster(cluster::Verb),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Check => check::run_all(),
        Command::Charts => charts::check(),
        Command::Gen => generate::write_all(),
        Command::Cluster(verb) => cluster::run(verb),
    }
}
