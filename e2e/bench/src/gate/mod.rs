//! The gate beside nginx, HAProxy and no proxy at all: what is measured, in which order.
//!
//! | file | |
//! |---|---|
//! | `subject` | the app, and each proxy with its configuration |
//! | `requests` | short requests: throughput, processor time, what is added below saturation |
//! | `stream` | one answer of a GiB |
//! | `sockets` | 10,000 idle WebSockets |
//! | `report` | the results, as JSON and as a table |

mod report;
mod requests;
mod sockets;
mod stream;
mod subject;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use graceful_process::allow_most_open_files;
use jiff::Timestamp;

use self::report::{Measured, Results, Run};
use self::requests::Requests;
use self::stream::Stream;
use self::subject::{ALL, Bench, PROXIES, Subject};
use crate::machine::{Machine, says};

/// What the gate's bench takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The gate's binary: all that its image has in it.
    #[arg(long)]
    gate: PathBuf,
    #[arg(long)]
    nginx: PathBuf,
    #[arg(long)]
    haproxy: PathBuf,
    /// The app's binary, of this package.
    #[arg(long)]
    app: PathBuf,
    /// Where results go, and what the programs keep meanwhile.
    #[arg(long)]
    out: PathBuf,
    /// Rounds of requests and streams; the results are their medians.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that each subject is measured for in a round, at saturation and below it.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measures this alone, and writes nothing.
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// Short requests.
    Requests,
    /// One answer of a GiB.
    Stream,
    /// 10,000 idle sockets.
    Sockets,
}

/// Measures, prints, and writes the results.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let bench = prepare(flags)?;
    let (rounds, seconds) = (usize::from(flags.rounds), Duration::from_secs(flags.seconds));
    match flags.only {
        Some(Part::Requests) => println!("{:#?}", requests_of_all(&bench, rounds, seconds).await?),
        Some(Part::Stream) => println!("{:#?}", stream_of_all(&bench, rounds).await?),
        Some(Part::Sockets) => println!("{:#?}", sockets_of_all(&bench).await?),
        None => {
            let measured = Measured {
                requests: requests_of_all(&bench, rounds, seconds).await?,
                streams: stream_of_all(&bench, rounds).await?,
                sockets: (sockets::count(&bench), sockets_of_all(&bench).await?),
                program: fs::metadata(&bench.gate)?.len(),
            };
            let run = Run { date: format!("{:.0}", Timestamp::now()), rounds, seconds_each: flags.seconds };
            let results = Results::of(measured, Machine::look(versions(&bench)?)?, run)?;
            fs::write(flags.out.join("gate.json"), serde_json::to_string_pretty(&results)? + "\n")?;
            print!("{}", results.table()?);
        }
    }
    fs::remove_dir_all(&bench.data)?;
    Ok(())
}

/// Descriptors of a proxy that no client has.
const SPARE: usize = 100;

fn prepare(flags: &Flags) -> anyhow::Result<Bench> {
    let descriptors = allow_most_open_files()?;
    let data = flags.out.join("gate-data");
    fs::create_dir_all(&data)?;
    let absolute = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
    Ok(Bench {
        gate: absolute(&flags.gate)?,
        nginx: absolute(&flags.nginx)?,
        haproxy: absolute(&flags.haproxy)?,
        app: absolute(&flags.app)?,
        data: absolute(&data)?,
        cores: std::thread::available_parallelism()?.get(),
        clients: usize::try_from(descriptors)?.saturating_sub(SPARE) / 2,
    })
}

/// nginx says it on stderr, HAProxy in its first line.
fn versions(bench: &Bench) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let nginx = Command::new(&bench.nginx).arg("-v").output()?.stderr;
    let haproxy = says(Command::new(&bench.haproxy).arg("-v"))?;
    Ok(BTreeMap::from([
        ("nginx", String::from_utf8_lossy(&nginx).trim().to_owned()),
        ("haproxy", haproxy.lines().next().unwrap_or_default().to_owned()),
    ]))
}

/// All subjects in turn, round after round: what else the machine does is then in all of them alike.
async fn requests_of_all(
    bench: &Bench,
    rounds: usize,
    measured: Duration,
) -> anyhow::Result<BTreeMap<Subject, Requests>> {
    let mut all: BTreeMap<Subject, Vec<Requests>> = BTreeMap::new();
    for round in 1..=rounds {
        for subject in ALL {
            let name = subject.name();
            let one = requests::measure(bench, subject, measured).await.context(name)?;
            let cost = one.processor.map(|micros| format!("{micros:.1} µs of its own")).unwrap_or_default();
            eprintln!("round {round} of {rounds}: {name:<8} {:>9.0} requests/s {cost}", one.per_second);
            all.entry(subject).or_default().push(one);
        }
    }
    all.into_iter().map(|(subject, of)| Ok((subject, requests::medians(&of)?))).collect()
}

async fn stream_of_all(bench: &Bench, rounds: usize) -> anyhow::Result<BTreeMap<Subject, Stream>> {
    let mut all: BTreeMap<Subject, Vec<Stream>> = BTreeMap::new();
    for _ in 0..rounds {
        for subject in ALL {
            let one = stream::measure(bench, subject).await;
            all.entry(subject).or_default().push(one.with_context(|| format!("stream, {}", subject.name()))?);
        }
    }
    all.into_iter().map(|(subject, of)| Ok((subject, stream::medians(&of)?))).collect()
}

async fn sockets_of_all(bench: &Bench) -> anyhow::Result<BTreeMap<Subject, f64>> {
    let mut all = BTreeMap::new();
    for subject in PROXIES {
        let bytes = sockets::measure(bench, subject).await;
        all.insert(subject, bytes.with_context(|| format!("sockets, {}", subject.name()))?);
    }
    Ok(all)
}
