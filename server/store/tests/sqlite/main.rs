//! The SQLite engine keeps every promise of the seam, and those that only a file makes.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod bucket;
#[path = "../conformance/mod.rs"]
mod conformance;
mod damage;
mod disk;
mod kill;
mod model;
mod owner;
mod versions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graceful_store::{StoreSettings, TaskStore, sqlite};
use uuid::Uuid;

use conformance::fixture::Fixture;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("graceful-store-{}", Uuid::new_v4())))
    }

    fn file(&self) -> PathBuf {
        self.0.join("tasks.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn folder() -> Folder {
    Folder::new()
}

impl Fixture for Folder {
    async fn open(&self, settings: StoreSettings) -> Arc<dyn TaskStore> {
        open(&self.0, settings).await
    }

    async fn fill(&self, tasks: u32) {
        let connection = rusqlite::Connection::open(self.file()).unwrap();
        let filled = connection.execute(
            "WITH RECURSIVE old (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM old WHERE number < ?1)
             INSERT INTO tasks (id, state, priority, attempt, max_attempts, granted, cancel, created, due, keep, forget, kind,
                 input)
             SELECT unhex(printf('%032x', number)), 2, 0, 1, 1, 1, 0, 0, 0, 0, 1, 'old', '{}' FROM old",
            [tasks],
        );
        assert_eq!(filled.unwrap(), tasks as usize);
    }
}

async fn open(folder: &Path, settings: StoreSettings) -> Arc<dyn TaskStore> {
    sqlite::open(folder, settings).await.unwrap()
}

conformance::suite!(folder);
