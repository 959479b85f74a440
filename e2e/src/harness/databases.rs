//! PostgreSQL for the scenarios that need one: a real one on the host of our own cluster, or the one that is named for a
//! cluster that is not ours. Pods of any namespace reach it.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use graceful_postgres::{Options, Postgres};
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};
use tokio::task::spawn_blocking;

/// Pods come with addresses of their own, or with their node's, as the network plugin translates.
const CLUSTER: [&str; 2] = ["10.244.0.0/16", "10.250.0.0/24"];

/// Where databases come from.
#[derive(Clone)]
pub enum Databases {
    /// There is no database: scenarios that need one are skipped.
    None,
    /// A database with this name, which scenarios use in turn.
    Named(String, Arc<Mutex<()>>),
    /// A server of our own at this address of the host, started at the first use; a database each.
    OnTheHost(IpAddr, Arc<OnceCell<Arc<Postgres>>>),
}

/// One scenario's database.
pub struct Database {
    /// Where pods find it.
    pub url: String,
    server: Option<(Arc<Postgres>, String)>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Databases {
    /// The one that is named, else one on the host that is named.
    pub fn new(url: Option<String>, host: Option<IpAddr>) -> Self {
        match (url, host) {
            (Some(url), _) => Self::Named(url, Arc::default()),
            (None, Some(host)) => Self::OnTheHost(host, Arc::default()),
            (None, None) => Self::None,
        }
    }

    /// An empty database, or one that is nobody else's for the moment.
    pub async fn take(&self) -> anyhow::Result<Database> {
        match self {
            Self::None => anyhow::bail!("no PostgreSQL: give --postgres-url"),
            Self::Named(url, turn) => {
                let turn = turn.clone().lock_owned().await;
                Ok(Database { url: url.clone(), server: None, _turn: Some(turn) })
            }
            Self::OnTheHost(host, server) => {
                let server = server.get_or_try_init(|| start(*host)).await?.clone();
                let made = spawn_blocking(move || {
                    let name = server.create_database()?;
                    anyhow::Ok(Database { url: server.url(&name), server: Some((server, name)), _turn: None })
                });
                made.await?
            }
        }
    }
}

impl Database {
    /// What a query answers, a line a row; None where the server is not ours to ask.
    pub async fn ask(&self, query: &'static str) -> anyhow::Result<Option<String>> {
        let Some((server, name)) = self.server.clone() else { return Ok(None) };
        spawn_blocking(move || server.sql(&name, query)).await?.map(Some)
    }
}

async fn start(host: IpAddr) -> anyhow::Result<Arc<Postgres>> {
    let options =
        Options { listen: vec![host], networks: CLUSTER.map(str::to_owned).to_vec(), ..Options::default() };
    let server = spawn_blocking(move || Postgres::start_with(&options)).await?;
    Ok(Arc::new(server.context("PostgreSQL for the pods, on the host")?))
}
