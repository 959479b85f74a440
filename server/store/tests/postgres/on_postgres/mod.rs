//! The PostgreSQL engine keeps every promise of the seam, and those of a queue that pods share, on a real server.
//!
//! - [`opening`]: tables, versions, users, URLs
//! - [`upgrading`]: stepping up while others work
//! - [`bounds`]: what a call may take
//! - [`sharing`]: several processes on one queue
//! - [`outage`]: the server stops, dies, stands still
//! - [`lost`]: answers that never arrive, by way of [`wire`]

mod bounds;
mod lost;
mod opening;
mod outage;
mod sharing;
mod upgrading;
mod wire;

use std::sync::{Arc, LazyLock};

use graceful_postgres::Postgres;
use graceful_store::{StoreError, StoreSettings, TaskStore, Unavailable, postgres};
use tokio::task::AbortHandle;
use tokio::time::{Duration, interval};

use crate::conformance;
use crate::conformance::fixture::Fixture;

/// One server for all tests that don't disturb it; it ends with their process.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().unwrap());

/// A database of its own for each test.
struct Database(String);

async fn database() -> Database {
    Database(SERVER.url(&SERVER.create_database().unwrap()))
}

impl Fixture for Database {
    async fn open(&self, settings: StoreSettings) -> Arc<dyn TaskStore> {
        open(&self.0, settings).await
    }

    async fn fill(&self, tasks: u32) {
        let old = format!(
            "INSERT INTO graceful_tasks (id, state, priority, attempt, max_attempts, granted, created, due, keep, forget, kind, input) \
             SELECT lpad(to_hex(number), 32, '0')::uuid, 'succeeded', 0, 1, 1, 1, 0, 0, 0, 1, 'old', '{{}}' \
             FROM generate_series(1, {tasks}) AS number"
        );
        SERVER.sql(self.name(), &old).unwrap();
    }
}

impl Database {
    fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap()
    }
}

async fn open(url: &str, settings: StoreSettings) -> Arc<dyn TaskStore> {
    postgres::open(url, settings).await.unwrap()
}

/// Reaps as a server does, each second, until dropped; an outage does not end it.
struct Maintained(AbortHandle);

fn maintained(store: &Arc<dyn TaskStore>) -> Maintained {
    let store = store.clone();
    let task = tokio::spawn(async move {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            store.maintain().await.ok();
        }
    });
    Maintained(task.abort_handle())
}

impl Drop for Maintained {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn is_away<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> bool {
    match answer {
        Err(StoreError::Unavailable { why: Unavailable::Connection, .. }) => true,
        Ok(_) => false,
        Err(other) => panic!("{other}"),
    }
}

conformance::suite!(database);
