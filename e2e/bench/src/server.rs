//! The task server beside the seed's stack and beside a handler that stores nothing: what is measured, in which order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_postgres::Postgres;
use jiff::Timestamp;

use crate::machine::{Machine, says};
use crate::report::{Measured, Results, Run};
use crate::subject::{Bench, Subject};
use crate::{dispatch, drain, latency, plot, sockets, submit};

/// What the task server's bench takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The server's binary.
    #[arg(long)]
    server: PathBuf,
    /// The ceiling's binary.
    #[arg(long)]
    ceiling: PathBuf,
    /// Virtual environment with the seed's requirements.
    #[arg(long)]
    seed_environment: PathBuf,
    /// The seed's folder.
    #[arg(long)]
    seed: PathBuf,
    /// Where results and data go, on a real disk.
    #[arg(long)]
    out: PathBuf,
    /// Rounds of submits; the results are their medians.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that each subject is measured for in a round.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measures this alone, and writes nothing.
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// Submits and reads.
    Submit,
    /// One commit, and push to start.
    Latency,
    /// 10,000 idle sockets.
    Sockets,
    /// Drain and exit.
    Drain,
    /// Calls of `http` tasks.
    Dispatch,
}

/// Measures, prints, and writes the results.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let bench = prepare(flags)?;
    let &Flags { rounds, seconds, only, ref out, ref seed_environment, .. } = flags;
    let rounds = usize::from(rounds);
    match only {
        Some(Part::Submit) => println!("{:#?}", submit::rounds(&bench, rounds, seconds).await?),
        Some(Part::Latency) => {
            println!("{:#?}", latency::measure(&bench, Subject::Sqlite).await?);
            println!("{:#?}", latency::measure(&bench, Subject::Postgres).await?);
        }
        Some(Part::Sockets) => println!("{:#?}", sockets::measure(&bench).await?),
        Some(Part::Drain) => println!("{:#?}", drain::measure(&bench).await?),
        Some(Part::Dispatch) => {
            println!("{:#?}", dispatch::measure(&bench, Duration::from_secs(seconds)).await?);
        }
        None => {
            let measured = Measured {
                rounds: submit::rounds(&bench, rounds, seconds).await.context("submits")?,
                sqlite: latency::measure(&bench, Subject::Sqlite).await.context("latency, SQLite")?,
                postgres: latency::measure(&bench, Subject::Postgres).await.context("latency, PostgreSQL")?,
                sockets: sockets::measure(&bench).await.context("sockets")?,
                drain: drain::measure(&bench).await.context("drain")?,
                dispatches: dispatch::measure(&bench, Duration::from_secs(seconds))
                    .await
                    .context("dispatch")?,
            };
            let run = Run {
                date: format!("{:.0}", Timestamp::now()),
                rounds,
                seconds_each: seconds,
                connections: submit::CONNECTIONS,
            };
            let machine = Machine::look(versions(&seed_environment.join("bin/python"))?)?;
            let results = Results::of(measured, machine, run)?;
            fs::write(out.join("server.json"), serde_json::to_string_pretty(&results)? + "\n")?;
            fs::write(out.join("server.svg"), plot::svg(&results.panels(), &results.caption()))?;
            print!("{}", results.table()?);
        }
    }
    fs::remove_dir_all(&bench.data)?;
    Ok(())
}

fn versions(python: &Path) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let postgres = graceful_postgres::folder()?.join("postgres");
    Ok(BTreeMap::from([
        ("postgresql", says(Command::new(postgres).arg("--version"))?),
        ("python", says(Command::new(python).arg("--version"))?),
        ("sqlite", rusqlite::version().to_owned()),
    ]))
}

fn prepare(flags: &Flags) -> anyhow::Result<Bench> {
    let data = flags.out.join("data");
    fs::create_dir_all(&data)?;
    let data = data.canonicalize()?;
    same_disk(&data, &std::env::temp_dir())?;
    Ok(Bench {
        server: absolute(&flags.server)?,
        ceiling: absolute(&flags.ceiling)?,
        uvicorn: absolute(&flags.seed_environment)?.join("bin/uvicorn"),
        seed: absolute(&flags.seed)?,
        data,
        postgres: Postgres::start()?,
    })
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}

/// PostgreSQL's files are in the folder for temporary ones, where its user may enter: what it syncs to must be what
/// SQLite syncs to.
fn same_disk(data: &Path, temporary: &Path) -> anyhow::Result<()> {
    ensure!(
        fs::metadata(data)?.dev() == fs::metadata(temporary)?.dev(),
        "{} and {} are not on the same disk: set TMPDIR to a folder on the disk of the former, which the user postgres \
         may enter",
        data.display(),
        temporary.display()
    );
    Ok(())
}
