//! One process owns the file, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graceful_store::{Hold, NewTask, OpenError, StoreError, StoreSettings, Unavailable, sqlite};
use rusqlite::Connection;
use tokio::time::timeout;

use crate::conformance::fixture::{Fixture, LONG, claim_one, settings, submit, task, until};
use crate::{Folder, open};

#[tokio::test]
async fn a_second_process_is_told_whose_it_is() {
    let folder = Folder::new();
    let store = open(&folder.0, settings()).await;
    let second = sqlite::open(&folder.0, settings()).await.unwrap_err();
    assert!(matches!(&second, OpenError::Taken { path } if *path == folder.file()), "{second}");
    submit(&store, task()).await;
    drop(store);
    let store = open(&folder.0, settings()).await;
    claim_one(&store).await;
}

#[tokio::test]
async fn a_lock_file_that_is_removed_lets_nobody_in() {
    let folder = Folder::new();
    let store = open(&folder.0, settings()).await;
    submit(&store, task()).await;
    std::fs::remove_file(folder.0.join("tasks.lock")).unwrap();
    let second = sqlite::open(&folder.0, settings()).await.unwrap_err();
    assert!(matches!(&second, OpenError::Taken { .. }), "{second}");
    drop(store);
    claim_one(&open(&folder.0, settings()).await).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new();
    std::fs::write(&folder.0, "a file").unwrap();
    let refused = sqlite::open(&folder.0.join("below"), settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Folder { .. }), "{refused}");
    assert!(refused.to_string().contains("--data"), "{refused}");
    std::fs::remove_file(&folder.0).unwrap();
}

#[tokio::test]
async fn a_newer_servers_file_is_left_alone() {
    let folder = Folder::new();
    drop(open(&folder.0, settings()).await);
    let set = |version: i64| {
        Connection::open(folder.file()).unwrap().pragma_update(None, "user_version", version).unwrap();
    };
    set(99);
    let refused = sqlite::open(&folder.0, settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { found: 99, known: 4 }), "{refused}");
    set(4);
    open(&folder.0, settings()).await;
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let theirs = Connection::open(folder.file()).unwrap();
    theirs.execute_batch("CREATE TABLE tasks (id TEXT); INSERT INTO tasks VALUES ('theirs')").unwrap();
    let refused = sqlite::open(&folder.0, settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
    let left: String = theirs.query_row("SELECT id FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(left, "theirs");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_no_longer_written() {
    let folder = Folder::new();
    let store = open(&folder.0, settings()).await;
    submit(&store, task()).await;
    std::fs::rename(folder.file(), folder.0.join("aside.db")).unwrap();
    let refused = timeout(LONG, async {
        loop {
            if let Err(refused) = store.maintain().await {
                return refused;
            }
        }
    })
    .await
    .unwrap();
    assert!(matches!(refused, StoreError::Unavailable { why: Unavailable::Corrupt, .. }), "{refused}");
    assert!(store.submit(task(), Hold::default()).await.is_err());
    std::fs::rename(folder.0.join("aside.db"), folder.file()).unwrap();
    drop(store);
    claim_one(&open(&folder.0, settings()).await).await;
}

#[tokio::test]
async fn a_writer_that_has_gone_is_said_to_be_closed() {
    let folder = Folder::new();
    let armed = Arc::new(AtomicBool::new(false));
    let trap = Arc::clone(&armed);
    let owned =
        Arc::new(move |_| assert!(!trap.load(Ordering::SeqCst), "the watch fails, as the test wants"));
    let store = folder.open(StoreSettings { owned, ..settings() }).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim(1).await }
    });
    armed.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = store.submit(task(), Hold::default()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable { why: Unavailable::Closed, .. }), "{refused}");
    }
    timeout(LONG, waiting).await.unwrap().unwrap().unwrap_err();
    drop(store);
    let store = folder.open(settings()).await;
    until(&store, "it is there", async || store.counts().await.unwrap().queued == 1).await;
}

#[tokio::test]
async fn two_queues_have_two_streams() {
    let (one, two) = (Folder::new(), Folder::new());
    let (one, two) = (open(&one.0, settings()).await, open(&two.0, settings()).await);
    assert_ne!(one.stream(), two.stream());
    assert!(one.stream().bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", one.stream());
}

#[tokio::test]
async fn nothing_is_left_of_a_task_that_is_forgotten() {
    let folder = Folder::new();
    let store = open(&folder.0, settings()).await;
    for length in [10, 10_000] {
        let input = format!("\"{}\"", "x".repeat(length));
        let id = submit(&store, NewTask { input, keep: Duration::ZERO, ..task() }).await;
        store.cancel(id).await.unwrap();
    }
    let left = async || {
        let connection = Connection::open(folder.file()).unwrap();
        let count = "SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM inputs)";
        connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    until(&store, "forgotten", async || left().await == 0).await;
}
