//! The PostgreSQL engine keeps every promise of the seam, on a real server.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod conformance;

use std::sync::{Arc, LazyLock};

use graceful_postgres::Postgres;
use graceful_store::{Settings, TaskStore, postgres};

use conformance::fixture::Fixture;

/// One server for all tests; it ends with their process.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().unwrap());

/// A database of its own for each test.
struct Database(String);

async fn database() -> Database {
    Database(SERVER.url(&SERVER.create_database().unwrap()))
}

impl Fixture for Database {
    async fn open(&self, settings: Settings) -> Arc<dyn TaskStore> {
        postgres::open(&self.0, settings).await.unwrap()
    }
}

conformance::suite!(database);
