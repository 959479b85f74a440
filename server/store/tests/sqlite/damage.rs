//! A damaged file is noticed, left as it is, and done without until it is sound again.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use graceful_store::{Filter, Hold, OpenError, StoreError, Unavailable, sqlite};
use rusqlite::Connection;
use tokio::time::timeout;
use uuid::Uuid;

use crate::conformance::fixture::{LONG, get, settings, submit, task};
use crate::{Folder, open};

const PAGE: u64 = 4096;

/// Fills a queue; its ids, once all of it is in the one file.
async fn filled(folder: &Folder) -> Vec<Uuid> {
    let store = open(&folder.0, settings()).await;
    let mut ids = Vec::new();
    for _ in 0..400 {
        let input = format!("\"{}\"", "x".repeat(500));
        ids.push(submit(&store, graceful_store::NewTask { input, ..task() }).await);
    }
    drop(store);
    settle(&folder.file());
    ids
}

fn settle(file: &Path) {
    let connection = Connection::open(file).unwrap();
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
}

/// Writes nonsense over every fourth page from the middle on: some hold tasks, some their index.
fn tear(file: &Path) {
    let mut torn = fs::File::options().write(true).open(file).unwrap();
    let pages = torn.metadata().unwrap().len() / PAGE;
    assert!(pages > 40, "{pages}");
    for page in (pages / 2..pages).step_by(4) {
        torn.seek(SeekFrom::Start(page * PAGE)).unwrap();
        torn.write_all(&[0xA5; PAGE as usize]).unwrap();
    }
}

fn is_corrupt<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { why: Unavailable::Corrupt, .. }))
}

#[tokio::test]
async fn a_file_of_garbage_is_left_as_it_is() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    let garbage = b"no database at all ".repeat(1000);
    fs::write(folder.file(), &garbage).unwrap();
    let refused = sqlite::open(&folder.0, settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("tasks.db"), "{refused}");
    assert_eq!(fs::read(folder.file()).unwrap(), garbage);
    fs::remove_file(folder.file()).unwrap();
    open(&folder.0, settings()).await;
}

#[tokio::test]
async fn a_torn_page_is_found_as_the_file_is_opened() {
    let folder = Folder::new();
    let ids = filled(&folder).await;
    let sound = folder.0.join("sound.db");
    fs::copy(folder.file(), &sound).unwrap();
    tear(&folder.file());
    for _ in 0..2 {
        let refused = sqlite::open(&folder.0, settings()).await.unwrap_err();
        assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
    }
    fs::rename(sound, folder.file()).unwrap();
    let store = open(&folder.0, settings()).await;
    for id in ids {
        get(&store, id).await;
    }
}

#[tokio::test]
async fn damage_met_later_ends_the_store_until_it_is_opened_anew() {
    let folder = Folder::new();
    let ids = filled(&folder).await;
    let sound = folder.0.join("sound.db");
    fs::copy(folder.file(), &sound).unwrap();
    let store = open(&folder.0, settings()).await;
    tear(&folder.file());
    // Whoever reads it first, tells all.
    let mut met = false;
    for id in &ids {
        met |= is_corrupt(&store.get(*id).await);
    }
    assert!(met, "no torn page was read");
    let waiting = timeout(LONG, store.claim(1)).await.unwrap();
    assert!(is_corrupt(&waiting));
    assert!(is_corrupt(&store.submit(task(), Hold::default()).await));
    assert!(is_corrupt(&store.list(&Filter::default(), None, 5).await));
    assert!(is_corrupt(&store.events(0, 5).await));
    assert!(is_corrupt(&store.counts().await));
    assert!(is_corrupt(&store.maintain().await));
    drop(store);
    for with in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{with}", folder.file().display())).unwrap();
    }
    fs::rename(sound, folder.file()).unwrap();
    let store = open(&folder.0, settings()).await;
    for id in ids {
        get(&store, id).await;
    }
    submit(&store, task()).await;
}

#[tokio::test]
async fn a_claimer_that_waits_learns_of_the_damage() {
    let folder = Folder::new();
    let store = open(&folder.0, settings()).await;
    for _ in 0..400 {
        let input = format!("\"{}\"", "x".repeat(500));
        let id = submit(&store, graceful_store::NewTask { input, ..task() }).await;
        store.cancel(id).await.unwrap();
    }
    drop(store);
    settle(&folder.file());
    let store = open(&folder.0, settings()).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim(1).await }
    });
    tear(&folder.file());
    assert!(is_corrupt(&store.list(&Filter::default(), None, 1000).await));
    assert!(is_corrupt(&timeout(LONG, waiting).await.unwrap().unwrap()));
}
