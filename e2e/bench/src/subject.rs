//! What is measured: how each is started, and how the tasks that it put on disk are counted from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use graceful_postgres::Postgres;
use rusqlite::{Connection, OpenFlags};
use tokio::process::Command;

use crate::child::{Server, free_address};

/// A program and where it keeps its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Stores nothing.
    Ceiling,
    /// Our server with SQLite.
    Sqlite,
    /// Our server with PostgreSQL.
    Postgres,
    /// The seed's stack, written as FastAPI's tutorial has it.
    Seed,
    /// The seed's stack, its submit a coroutine that commits in place.
    SeedCoroutine,
}

/// In the order of a round.
pub(crate) const ALL: [Subject; 5] =
    [Subject::Ceiling, Subject::Sqlite, Subject::Postgres, Subject::Seed, Subject::SeedCoroutine];

/// Where things are.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The server's binary.
    pub(crate) server: PathBuf,
    /// The ceiling's.
    pub(crate) ceiling: PathBuf,
    /// uvicorn, in the seed's virtual environment.
    pub(crate) uvicorn: PathBuf,
    /// The seed's folder.
    pub(crate) seed: PathBuf,
    /// Where the data folders go, on a real disk.
    pub(crate) data: PathBuf,
    /// A server of our own.
    pub(crate) postgres: Postgres,
}

/// What our server is asked to do with its tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks {
    /// `--task-seconds`
    pub(crate) seconds: &'static str,
    /// `--concurrency`
    pub(crate) concurrency: u32,
    /// What `http` tasks may call.
    pub(crate) callee: Option<std::net::SocketAddr>,
}

impl Tasks {
    /// One is claimed and runs to the end of the measurement; the others are submitted and wait.
    pub(crate) const WAIT: Self = Self { seconds: "3600", concurrency: 1, callee: None };
}

/// A subject that runs, on an empty store.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) server: Server,
    /// Our server's admin port.
    pub(crate) admin: std::net::SocketAddr,
    store: Store,
}

#[derive(Debug)]
enum Store {
    None,
    Sqlite(PathBuf),
    Postgres(String),
}

impl Subject {
    /// Its name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Seed => "seed",
            Self::SeedCoroutine => "seed_coroutine",
        }
    }

    /// Starts it on an empty store.
    pub(crate) async fn start(self, bench: &Bench, tasks: Tasks) -> anyhow::Result<Running> {
        let (address, admin) = (free_address()?, free_address()?);
        let folder = bench.data.join(self.name());
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let port = address.port().to_string();
        let (mut command, store) = match self {
            Self::Ceiling => (Command::new(&bench.ceiling), Store::None),
            Self::Sqlite => {
                let mut command = ours(bench, tasks, &port, admin.port());
                command.args(["--store", "sqlite", "--data"]).arg(&folder);
                (command, Store::Sqlite(folder.join("tasks.db")))
            }
            Self::Postgres => {
                let database = bench.postgres.create_database()?;
                let mut command = ours(bench, tasks, &port, admin.port());
                command.args(["--store", "postgres", "--url", &bench.postgres.url(&database)]);
                (command, Store::Postgres(database))
            }
            Self::Seed => seed(bench, "plain", &folder, &port),
            Self::SeedCoroutine => seed(bench, "coroutine", &folder, &port),
        };
        let ready = match self {
            Self::Ceiling => {
                command.arg(&port);
                ("POST", "/v1/create-task/")
            }
            Self::Sqlite | Self::Postgres => ("GET", "/readyz"),
            Self::Seed | Self::SeedCoroutine => ("GET", "/v1/health"),
        };
        let log = bench.data.join(self.name()).with_extension("log");
        let server = Server::start(command, address, ready, &log).await.with_context(|| self.name())?;
        Ok(Running { server, admin, store })
    }
}

/// With the settings it has in production, but for the bound of the queue: a bench fills it past any sensible one.
fn ours(bench: &Bench, tasks: Tasks, port: &str, admin: u16) -> Command {
    let mut command = Command::new(&bench.server);
    command.args(["--port", port, "--admin-port", &admin.to_string(), "--queue-capacity", "100000000"]);
    command.args(["--task-seconds", tasks.seconds, "--concurrency", &tasks.concurrency.to_string()]);
    command.args(["--linger-seconds", "0", "--log-format", "json"]);
    if let Some(callee) = tasks.callee {
        command.args(["--http-allow", &format!("http://{callee}")]);
    }
    command
}

fn seed(bench: &Bench, submit: &str, folder: &Path, port: &str) -> (Command, Store) {
    let database = folder.join("tasks.db");
    let mut command = Command::new(&bench.uvicorn);
    command.args(["app:app", "--host", "127.0.0.1", "--port", port, "--no-access-log"]);
    command.args(["--log-level", "critical"]).current_dir(&bench.seed);
    command.env("SUBMIT", submit).env("DATABASE", &database).env("PYTHONDONTWRITEBYTECODE", "1");
    (command, Store::Sqlite(database))
}

impl Running {
    /// Rows in the table of tasks, as another process sees them; None where nothing is stored.
    pub(crate) fn rows(&self, bench: &Bench) -> anyhow::Result<Option<u64>> {
        match &self.store {
            Store::None => Ok(None),
            Store::Sqlite(path) => {
                let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                let rows: i64 = file.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))?;
                Ok(Some(rows.try_into()?))
            }
            Store::Postgres(database) => {
                let rows = bench.postgres.sql(database, "SELECT count(*) FROM graceful_tasks")?;
                Ok(Some(rows.parse()?))
            }
        }
    }

    /// Tasks that were done, as another process sees them; what stores nothing has done none.
    pub(crate) fn succeeded(&self, bench: &Bench) -> anyhow::Result<u64> {
        match &self.store {
            Store::None => Ok(0),
            Store::Sqlite(path) => {
                let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                let done: i64 =
                    file.query_row("SELECT count(*) FROM tasks WHERE state = 2", [], |row| row.get(0))?;
                Ok(done.try_into()?)
            }
            Store::Postgres(database) => {
                let done = "SELECT count(*) FROM graceful_tasks WHERE state = 'succeeded'";
                Ok(bench.postgres.sql(database, done)?.parse()?)
            }
        }
    }

    /// Ends it as a power cut would: what it accepted in a bench is never done.
    pub(crate) async fn end(self, bench: &Bench) -> anyhow::Result<()> {
        let Self { server, admin: _, store } = self;
        server.kill().await?;
        store.remove(bench)
    }

    /// Ends it as Kubernetes would; how long that took.
    pub(crate) async fn terminate(self, bench: &Bench) -> anyhow::Result<Duration> {
        let Self { server, admin: _, store } = self;
        let took = server.terminate().await?;
        store.remove(bench)?;
        Ok(took)
    }
}

impl Store {
    fn remove(self, bench: &Bench) -> anyhow::Result<()> {
        match self {
            Self::None => {}
            Self::Sqlite(path) => fs::remove_dir_all(path.parent().context("no folder")?)?,
            Self::Postgres(database) => drop(drop_database(bench, &database)?),
        }
        Ok(())
    }
}

/// And writes out what its tables left in memory, so that it is not written during what comes next.
fn drop_database(bench: &Bench, name: &str) -> anyhow::Result<String> {
    bench.postgres.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"))?;
    bench.postgres.sql("postgres", "CHECKPOINT")
}
