//! The SQLite engine keeps every promise of the seam.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod conformance;

use std::path::PathBuf;
use std::sync::Arc;

use graceful_store::{Settings, TaskStore, sqlite};
use uuid::Uuid;

use conformance::fixture::Fixture;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn folder() -> Folder {
    Folder(std::env::temp_dir().join(format!("graceful-store-{}", Uuid::new_v4())))
}

impl Fixture for Folder {
    async fn open(&self, settings: Settings) -> Arc<dyn TaskStore> {
        sqlite::open(&self.0, settings).await.unwrap()
    }
}

conformance::suite!(folder);
