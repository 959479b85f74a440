//! The two queues: what their servers are started with.

use std::path::Path;

use clap::ValueEnum;
use graceful_postgres::Postgres;

/// The engine that keeps the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// One server on one folder.
    Sqlite,
    /// Three servers on one database.
    Postgres,
}

impl Store {
    /// What it is, for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "one server on SQLite",
            Self::Postgres => "three servers on PostgreSQL",
        }
    }
}

/// What the servers run on; it lives as long as they do.
pub(crate) struct Engine {
    /// The arguments that name it, the same for every server.
    pub(crate) args: Vec<String>,
    /// How many servers there are.
    pub(crate) servers: usize,
    _postgres: Option<Postgres>,
}

impl Engine {
    /// Makes it ready, in `folder` if it needs one.
    pub(crate) fn prepare(store: Store, folder: &Path) -> anyhow::Result<Self> {
        match store {
            Store::Sqlite => {
                let data = folder.join("data").display().to_string();
                let args = ["--store", "sqlite", "--data", &data].map(str::to_owned).to_vec();
                Ok(Self { args, servers: 1, _postgres: None })
            }
            Store::Postgres => {
                let postgres = Postgres::start()?;
                let url = postgres.url(&postgres.create_database()?);
                let args = ["--store", "postgres", "--url", &url].map(str::to_owned).to_vec();
                Ok(Self { args, servers: 3, _postgres: Some(postgres) })
            }
        }
    }
}
