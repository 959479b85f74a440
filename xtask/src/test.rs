//! `cargo xtask test`: all that there is to know, with its time a stage. CI runs this.

use std::time::Instant;

use graceful_cluster::Cluster;

use crate::run::stage;
use crate::{charts, check, e2e, fuzz_api, kills};

/// Runs every stage, and prints the table of times also when one fails.
pub(crate) fn run_all() -> anyhow::Result<()> {
    let mut table = Vec::new();
    let mut timed = |name: &'static str, body: fn() -> anyhow::Result<()>| {
        let begun = Instant::now();
        let result = stage(name, body);
        table.push((name, begun.elapsed(), result.is_ok()));
        result
    };
    let result = timed("check", check::run_all)
        .and_then(|()| timed("fuzz-api", || fuzz_api::run(&fuzz_api::Options::default())))
        .and_then(|()| timed("kills", kills::a_few))
        .and_then(|()| timed("prepare", || e2e::prepare(&e2e::Target::default()).map(drop)))
        .and_then(|()| timed("wall", || Cluster::open()?.prove_wall()))
        .and_then(|()| timed("charts", charts::check))
        .and_then(|()| timed("e2e", || e2e::run(&e2e::Options::default())));
    println!("\nstage          seconds");
    for (name, took, passed) in &table {
        println!("{name:<12} {:>9.1}  {}", took.as_secs_f64(), if *passed { "passed" } else { "FAILED" });
    }
    result
}
