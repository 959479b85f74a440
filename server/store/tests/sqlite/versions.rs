//! Files of servers that were released before this one: each opens, steps up where it is, and loses nothing.

use graceful_store::State;
use rusqlite::Connection;
use uuid::Uuid;

use crate::conformance::fixture::{claim, complete, done, get, settings, submit, task};
use crate::{Folder, open};

/// What a server of each version left behind as it was killed: one task that waits, one that runs, one dead letter.
const VERSIONS: [&str; 3] =
    [include_str!("versions/1.sql"), include_str!("versions/2.sql"), include_str!("versions/3.sql")];

const WAITS: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);
const RUNS: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0002);
const DEAD: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0003);

fn left_behind(version: &str) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    Connection::open(folder.file()).unwrap().execute_batch(version).unwrap();
    folder
}

/// Each table and index, by name; not as it was written, since a column that was added stands elsewhere.
fn made_of(folder: &Folder) -> Vec<String> {
    let connection = Connection::open(folder.file()).unwrap();
    let all = "SELECT s.name || '.' || coalesce(c.name, '') || ' ' || coalesce(c.type, '') || c.\"notnull\" \
         FROM sqlite_schema s LEFT JOIN pragma_table_info(s.name) c ORDER BY 1";
    let mut statement = connection.prepare(all).unwrap();
    statement
        .query_map([], |row| row.get::<_, Option<String>>(0))
        .unwrap()
        .map(|name| name.unwrap().unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn a_file_of_each_released_version_opens_and_its_tasks_run() {
    for version in VERSIONS {
        let folder = left_behind(version);
        let store = open(&folder.0, settings()).await;
        assert_eq!(store.stream(), "0123456789ab", "clients go on where they were");
        assert_eq!(get(&store, DEAD).await.state, State::Dead);
        let claims = claim(&store, 5).await;
        let mut leases: Vec<_> = claims.iter().map(|claim| (claim.lease.id, claim.lease.attempt)).collect();
        leases.sort_unstable();
        assert_eq!(leases, [(WAITS, 1), (RUNS, 2)]);
        let before = get(&store, RUNS).await.attempts.unwrap();
        assert_eq!(before.len(), 2, "the one that was cut, and the one that runs");
        assert_eq!((before[0].pod.as_deref(), before[0].started), (None, 1_764_000_001_000));
        for claim in claims {
            complete(&store, claim.lease, done()).await;
        }
        submit(&store, task()).await;
        drop(store);
        // Once more, now that it has stepped up.
        let store = open(&folder.0, settings()).await;
        assert_eq!(store.counts().await.unwrap().queued, 1);
        let fresh = Folder::new();
        drop(open(&fresh.0, settings()).await);
        assert_eq!(made_of(&folder), made_of(&fresh), "both have the same tables from now on");
    }
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_file_as_it_was() {
    let folder = left_behind(VERSIONS[0]);
    // What the step would make is there already.
    let spoil = "CREATE TABLE suspects (one INTEGER)";
    Connection::open(folder.file()).unwrap().execute_batch(spoil).unwrap();
    let before = made_of(&folder);
    graceful_store::sqlite::open(&folder.0, settings()).await.unwrap_err();
    assert_eq!(made_of(&folder), before);
    Connection::open(folder.file()).unwrap().execute_batch("DROP TABLE suspects").unwrap();
    let store = open(&folder.0, settings()).await;
    assert_eq!(claim(&store, 5).await.len(), 2);
}
