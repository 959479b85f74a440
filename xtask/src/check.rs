//! `cargo xtask check`: all that can be known without a cluster.

use graceful_cluster::prerequisites;
use graceful_process::run;

use crate::run::{cargo, stage};

/// Runs every stage in the order of its price and stops at the first that fails.
pub(crate) fn run_all() -> anyhow::Result<()> {
    stage("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    stage("clippy", || {
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    })?;
    stage("prerequisites", || prerequisites::ensure(&prerequisites::POSTGRES))?;
    stage("tests", || run(cargo().args(["test", "--workspace", "--locked", "--quiet"])))?;
    // What nothing turns on by default is compiled, and tried, here.
    stage("otlp", || {
        let test = ["test", "--package", "graceful-server", "--features", "otlp", "--test", "otlp"];
        run(cargo().args(test).args(["--locked", "--quiet"]))
    })?;
    stage("deny", deny)
}

/// Licences, bans and sources. No advisory database is asked: it cannot be reached where this must run.
fn deny() -> anyhow::Result<()> {
    if cargo().args(["deny", "--version"]).output().is_ok_and(|o| !o.status.success()) {
        eprintln!("cargo-deny is missing: installing it once, which takes a few minutes");
        run(cargo().args(["install", "--locked", "cargo-deny", "--version", CARGO_DENY]))?;
    }
    run(cargo().args(["deny", "--all-features", "check", "bans", "licenses", "sources"]))
}

/// Pinned, since a new release may read `deny.toml` differently.
const CARGO_DENY: &str = "0.20.2";
