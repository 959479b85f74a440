//! Submits in a second, each answered when it is on disk: all subjects in turn, round after round.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::load::{Driven, Load, drive, request};
use crate::machine::{DiskSyncs, settle};
use crate::spread::{Spread, median};
use crate::subject::{ALL, Bench, Subject, Tasks};

/// As many as a busy client pool has; one request at a time on each.
pub(crate) const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);

/// One subject's figures, the medians of its rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submits {
    pub(crate) subject: Subject,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// 2xx in all rounds, and as many rows.
    pub(crate) accepted: u64,
    /// Other answers in all rounds.
    pub(crate) failed: u64,
    /// Reads of the queue's length in a second, with the round's tasks in the queue.
    pub(crate) reads_per_second: Option<f64>,
    /// What the process had in memory before its first request, in bytes.
    pub(crate) at_rest: u64,
}

/// What all rounds came to.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) submits: Vec<Submits>,
    pub(crate) disk: DiskSyncs,
}

/// Measures all subjects in turn, `rounds` times.
pub(crate) async fn rounds(bench: &Bench, rounds: usize, seconds: u64) -> anyhow::Result<Rounds> {
    let mut all: Vec<Vec<One>> = vec![Vec::new(); ALL.len()];
    let mut disk = Vec::new();
    for round in 1..=rounds {
        disk.push(DiskSyncs::probe(&bench.data)?);
        for (subject, of_subject) in ALL.into_iter().zip(&mut all) {
            let name = subject.name();
            let one = one(bench, subject, Duration::from_secs(seconds)).await.context(name)?;
            eprintln!("round {round} of {rounds}: {name:<16} {:>9.0} submits/s", one.submits.per_second);
            of_subject.push(one);
        }
    }
    let middle = |one: fn(&DiskSyncs) -> f64| median(disk.iter().map(one).collect()).context("no round");
    let disk = DiskSyncs {
        appending_per_second: middle(|d| d.appending_per_second)?,
        overwriting_per_second: middle(|d| d.overwriting_per_second)?,
    };
    let submits: Option<_> = ALL.into_iter().zip(all).map(|(subject, of)| summary(subject, &of)).collect();
    Ok(Rounds { submits: submits.context("no round")?, disk })
}

#[derive(Clone, Copy)]
struct One {
    submits: Figures,
    accepted: u64,
    failed: u64,
    reads_per_second: Option<f64>,
    at_rest: u64,
}

#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    latency: Spread,
}

async fn one(bench: &Bench, subject: Subject, measured: Duration) -> anyhow::Result<One> {
    let running = subject.start(bench, Tasks::WAIT).await?;
    settle()?;
    let at_rest = running.server.memory()?.resident;
    let load = Load { connections: CONNECTIONS, warm_up: WARM_UP, measured, every: None };
    let address = running.server.address;
    let Driven { accepted, failed, per_second, latency } =
        drive(address, &request("POST", "/v1/create-task/"), load).await?;
    let rows = running.rows(bench)?;
    ensure!(rows.is_none_or(|rows| rows == accepted), "{accepted} answers of 2xx, but {rows:?} rows");
    let reads_per_second = match rows {
        None => None,
        Some(_) => {
            let read = request("GET", "/v1/get_queue_length/");
            Some(drive(address, &read, Load { measured: measured / 4, ..load }).await?.per_second)
        }
    };
    running.end(bench).await?;
    Ok(One { submits: Figures { per_second, latency }, accepted, failed, reads_per_second, at_rest })
}

fn summary(subject: Subject, of: &[One]) -> Option<Submits> {
    let middle = |figure: fn(&One) -> f64| median(of.iter().map(figure).collect());
    Some(Submits {
        subject,
        per_second: middle(|one| one.submits.per_second)?,
        p50: middle(|one| one.submits.latency.p50)?,
        p99: middle(|one| one.submits.latency.p99)?,
        accepted: of.iter().map(|one| one.accepted).sum(),
        failed: of.iter().map(|one| one.failed).sum(),
        reads_per_second: median(of.iter().filter_map(|one| one.reads_per_second).collect()),
        at_rest: of.first()?.at_rest,
    })
}
