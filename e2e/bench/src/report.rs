//! The results: as JSON for programs, as a table for people, beside what was aimed at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use serde::Serialize;

use crate::aim::Aim;
use crate::dispatch::{self, Dispatches};
use crate::drain::{self, DrainTimes};
use crate::latency::Latency;
use crate::machine::{DiskSyncs, Machine};
use crate::plot::{Bar, Panel};
use crate::sockets::Sockets;
use crate::spread::Spread;
use crate::subject::{self, Subject};
use crate::submit::{Rounds, Submits};

/// Measured once for the bare insert: 0.48.
const SQLITE_OF_CEILING: f64 = 0.45;
const POSTGRES_OF_CEILING: f64 = 0.15;
const SQLITE_OF_SEED: f64 = 200.0;
/// A submit's, a claim's, and one more for what the machine does meanwhile.
const COMMITS: f64 = 3.0;
const SOCKET_BYTES: f64 = 6.0 * 1024.0;

/// The client that calls and keeps nothing.
const BARE: &str = "bare";

/// Figures by the subject's name.
type By<T> = BTreeMap<&'static str, T>;

/// All that was measured. Units are in the names; `submit` is in requests a second.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    submit: By<f64>,
    submit_p50_milliseconds: By<f64>,
    submit_p99_milliseconds: By<f64>,
    submit_accepted_and_stored: By<u64>,
    submit_failed_answers: By<u64>,
    ratios: By<f64>,
    queue_length_reads_per_second: By<f64>,
    commit_milliseconds: By<Spread>,
    push_to_start_milliseconds: By<Spread>,
    memory_at_rest_bytes: By<u64>,
    sockets: SocketFigures,
    drain_seconds: f64,
    drain_best_possible_seconds: f64,
    exit_after_sigterm_seconds: f64,
    http_calls_per_second: By<f64>,
    disk_syncs: DiskSyncs,
    aims: Vec<Aim>,
    machine: Machine,
    run: Run,
}

#[derive(Debug, Serialize)]
struct SocketFigures {
    count: usize,
    bytes_each: f64,
    memory_with_them_bytes: u64,
    submits_per_second_with_them: f64,
}

/// How it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) date: String,
    pub(crate) rounds: usize,
    pub(crate) seconds_each: u64,
    pub(crate) connections: usize,
}

/// What the measurements gave.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) rounds: Rounds,
    pub(crate) sqlite: Latency,
    pub(crate) postgres: Latency,
    pub(crate) sockets: Sockets,
    pub(crate) drain: DrainTimes,
    pub(crate) dispatches: Dispatches,
}

impl Results {
    pub(crate) fn of(measured: Measured, machine: Machine, run: Run) -> anyhow::Result<Self> {
        let Measured {
            rounds: Rounds { submits, disk },
            sqlite,
            postgres,
            sockets,
            drain: times,
            dispatches,
        } = measured;
        let rate = |subject: Subject| {
            let found = submits.iter().find(|s| s.subject == subject).map(|s| s.per_second);
            found.with_context(|| format!("{} was not measured", subject.name()))
        };
        let ratio = |one, other| anyhow::Ok(rate(one)? / rate(other)?);
        let ratios = By::from([
            ("sqlite_to_ceiling", ratio(Subject::Sqlite, Subject::Ceiling)?),
            ("postgres_to_ceiling", ratio(Subject::Postgres, Subject::Ceiling)?),
            ("sqlite_to_seed", ratio(Subject::Sqlite, Subject::Seed)?),
            ("sqlite_to_seed_coroutine", ratio(Subject::Sqlite, Subject::SeedCoroutine)?),
        ]);
        let commits = |latency: Latency| latency.push_to_start.p99 / latency.commit.p50;
        let aims = vec![
            Aim::at_least("SQLite submits, of the ceiling", SQLITE_OF_CEILING, ratios["sqlite_to_ceiling"]),
            Aim::at_least("SQLite submits, times the seed's", SQLITE_OF_SEED, ratios["sqlite_to_seed"]),
            Aim::at_least(
                "PostgreSQL submits, of the ceiling",
                POSTGRES_OF_CEILING,
                ratios["postgres_to_ceiling"],
            ),
            Aim::at_most("SQLite push to start p99, commits", COMMITS, commits(sqlite)),
            Aim::at_most("PostgreSQL push to start p99, commits", COMMITS, commits(postgres)),
            Aim::at_most("an idle socket of 10,000, bytes", SOCKET_BYTES, sockets.bytes_each),
        ];
        let by =
            |figure: fn(&Submits) -> f64| submits.iter().map(|s| (s.subject.name(), figure(s))).collect();
        let count =
            |figure: fn(&Submits) -> u64| submits.iter().map(|s| (s.subject.name(), figure(s))).collect();
        let engines = |figure: fn(Latency) -> Spread| {
            By::from([("sqlite", figure(sqlite)), ("postgres", figure(postgres))])
        };
        Ok(Self {
            submit: by(|s| s.per_second),
            submit_p50_milliseconds: by(|s| s.p50),
            submit_p99_milliseconds: by(|s| s.p99),
            submit_accepted_and_stored: count(|s| s.accepted),
            submit_failed_answers: count(|s| s.failed),
            queue_length_reads_per_second: submits
                .iter()
                .filter_map(|s| Some((s.subject.name(), s.reads_per_second?)))
                .collect(),
            memory_at_rest_bytes: count(|s| s.at_rest),
            commit_milliseconds: engines(|latency| latency.commit),
            push_to_start_milliseconds: engines(|latency| latency.push_to_start),
            sockets: SocketFigures {
                count: sockets.count,
                bytes_each: sockets.bytes_each,
                memory_with_them_bytes: sockets.at_count,
                submits_per_second_with_them: sockets.submits_per_second,
            },
            drain_seconds: times.drain,
            drain_best_possible_seconds: drain::BEST,
            exit_after_sigterm_seconds: times.exit,
            http_calls_per_second: By::from([
                (BARE, dispatches.bare),
                (Subject::Sqlite.name(), dispatches.sqlite),
                (Subject::Postgres.name(), dispatches.postgres),
            ]),
            disk_syncs: disk,
            ratios,
            aims,
            machine,
            run,
        })
    }

    /// What is printed.
    pub(crate) fn table(&self) -> anyhow::Result<String> {
        let mut out = String::new();
        writeln!(
            out,
            "{:<16} {:>10} {:>8} {:>8} {:>10} {:>12} {:>8}",
            "durable submits", "a second", "p50 ms", "p99 ms", "of ceiling", "reads/s", "at rest"
        )?;
        let ceiling = self.submit[Subject::Ceiling.name()];
        for subject in subject::ALL {
            let name = subject.name();
            let reads = self.queue_length_reads_per_second.get(name);
            writeln!(
                out,
                "{name:<16} {:>10.0} {:>8.2} {:>8.2} {:>10.4} {:>12} {:>4.1} MiB",
                self.submit[name],
                self.submit_p50_milliseconds[name],
                self.submit_p99_milliseconds[name],
                self.submit[name] / ceiling,
                reads.map_or("-".to_owned(), |reads| format!("{reads:.0}")),
                self.memory_at_rest_bytes[name] as f64 / f64::from(1 << 20),
            )?;
        }
        for (name, start) in &self.push_to_start_milliseconds {
            let commit = self.commit_milliseconds[name];
            writeln!(
                out,
                "{name}: push to start {:.2} / {:.2} ms (p50 / p99), one commit {:.2} / {:.2} ms",
                start.p50, start.p99, commit.p50, commit.p99
            )?;
        }
        let SocketFigures { count, bytes_each, memory_with_them_bytes, submits_per_second_with_them } =
            self.sockets;
        writeln!(
            out,
            "{count} idle sockets: {bytes_each:.0} bytes each, {:.1} MiB in all, {submits_per_second_with_them:.0} submits/s beside them",
            memory_with_them_bytes as f64 / f64::from(1 << 20)
        )?;
        writeln!(
            out,
            "drain of {} tasks: {:.3} s (best possible {:.3}); from SIGTERM to the exit {:.3} s",
            drain::TASKS,
            self.drain_seconds,
            self.drain_best_possible_seconds,
            self.exit_after_sigterm_seconds
        )?;
        let calls = |name: &str| self.http_calls_per_second[name];
        let of_bare = |name: &str| format!("{:.0} ({:.3} of it)", calls(name), calls(name) / calls(BARE));
        writeln!(
            out,
            "http calls a second, {} at a time: {:.0} of a bare client, sqlite {}, postgres {}",
            dispatch::AT_ONCE,
            calls(BARE),
            of_bare(Subject::Sqlite.name()),
            of_bare(Subject::Postgres.name()),
        )?;
        let DiskSyncs { appending_per_second, overwriting_per_second } = self.disk_syncs;
        writeln!(
            out,
            "disk: {appending_per_second:.0} syncs/s appending, {overwriting_per_second:.0} overwriting\n"
        )?;
        for aim in &self.aims {
            writeln!(out, "{aim}")?;
        }
        Ok(out)
    }
}

impl Results {
    /// What is drawn.
    pub(crate) fn panels(&self) -> Vec<Panel> {
        let ceiling = self.submit[Subject::Ceiling.name()];
        let aims = By::from([
            (Subject::Sqlite.name(), SQLITE_OF_CEILING * ceiling),
            (Subject::Postgres.name(), POSTGRES_OF_CEILING * ceiling),
        ]);
        let all = |figures: &By<f64>, aims: &By<f64>| {
            let bar = |subject: Subject| {
                let name = subject.name();
                let ours = matches!(subject, Subject::Sqlite | Subject::Postgres);
                Some(Bar {
                    name: name.replace('_', ", "),
                    value: *figures.get(name)?,
                    ours,
                    aim: aims.get(name).copied(),
                })
            };
            subject::ALL.into_iter().filter_map(bar).collect()
        };
        let mut starts = Vec::new();
        for (name, start) in &self.push_to_start_milliseconds {
            let commit = self.commit_milliseconds[name].p50;
            starts.push(Bar { name: format!("{name}, one commit"), value: commit, ours: false, aim: None });
            starts.push(Bar { name: format!("{name}, p50"), value: start.p50, ours: true, aim: None });
            starts.push(Bar {
                name: format!("{name}, p99"),
                value: start.p99,
                ours: true,
                aim: Some(COMMITS * commit),
            });
        }
        let socket = Bar {
            name: "idle socket".to_owned(),
            value: self.sockets.bytes_each,
            ours: true,
            aim: Some(SOCKET_BYTES),
        };
        vec![
            Panel {
                title: "Durable submits a second, 32 connections",
                bars: all(&self.submit, &aims),
                decimals: 0,
            },
            Panel {
                title: "Submit, p99 in ms",
                bars: all(&self.submit_p99_milliseconds, &By::new()),
                decimals: 2,
            },
            Panel { title: "From push to handler start on an idle queue, ms", bars: starts, decimals: 2 },
            Panel {
                title: "Bytes of user memory for each of 10,000 idle sockets",
                bars: vec![socket],
                decimals: 0,
            },
        ]
    }

    /// The line below the picture.
    pub(crate) fn caption(&self) -> String {
        let Self { machine, run, .. } = self;
        format!(
            "{}, {} cores, {:.0} syncs/s appending; {}. Dashed: the aim.",
            machine.processor, machine.cores, self.disk_syncs.appending_per_second, run.date
        )
    }
}
