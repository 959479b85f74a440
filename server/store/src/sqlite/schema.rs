//! The tables, and how a connection to them is set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use uuid::Uuid;

/// `grcf`: says whose file this is.
const APPLICATION: i64 = 0x6772_6366;

/// What each version of the tables is made of: the first, and the steps from one to the next. A step is never changed once
/// it was released, since files that have taken it do not take it again; `tests/sqlite/versions` has one file of each.
const STEPS: [&str; 4] = [FIRST, INTERRUPTIONS, ATTEMPTS, QUEUES];

/// What this code reads and writes.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// A write-ahead log of so many pages (8 MiB) is written back and begun again: overwriting a log syncs several times
/// faster than growing one, and a checkpoint each few hundred commits is small beside them.
const LOG_PAGES: u32 = 2000;

/// A log that a long reader made grow beyond this is cut back as it is begun again.
const LOG_LIMIT: u32 = 64 << 20;

/// Only a backup tool or a hand could hold the lock; what takes longer is answered 503.
const BUSY: Duration = Duration::from_millis(500);

/// `state`: 0 queued, 1 running, 2 succeeded, 3 dead, 4 cancelled. Times and spans are in milliseconds.
/// `line` is the order of claims, and has the running ones at its end so that they are found after a crash.
/// A long input is in `inputs`: each change of a row writes all of it.
const FIRST: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE tasks (
    id BLOB PRIMARY KEY,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    granted INTEGER NOT NULL,
    cancel INTEGER NOT NULL,
    created INTEGER NOT NULL,
    due INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    keep INTEGER NOT NULL,
    forget INTEGER,
    timeout INTEGER,
    kind TEXT NOT NULL,
    client TEXT,
    trace TEXT,
    key TEXT,
    fingerprint BLOB,
    progress TEXT,
    error TEXT,
    output TEXT,
    input TEXT
) WITHOUT ROWID, STRICT;
CREATE TABLE inputs (id BLOB PRIMARY KEY, input TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE INDEX line ON tasks (state, priority, due, id) WHERE state < 2;
CREATE INDEX letters ON tasks (id, state) WHERE state > 2;
CREATE INDEX clients ON tasks (client, id) WHERE client IS NOT NULL;
CREATE INDEX past ON tasks (forget) WHERE forget IS NOT NULL;
CREATE UNIQUE INDEX keys ON tasks (key) WHERE key IS NOT NULL;
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    task BLOB NOT NULL,
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    client TEXT,
    error TEXT
) STRICT;
";

/// `interrupted`: processes that died while they ran it, since it was last handed in. `keep_dead`: how long it is remembered as
/// a dead letter. A task of before is kept as long as the default says.
const INTERRUPTIONS: &str = "
ALTER TABLE tasks ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN keep_dead INTEGER;
CREATE INDEX suspects ON tasks (due, id) WHERE state = 0 AND interrupted > 0;
";

/// `pod`: who ran it last. `attempts` has those that another followed; the latest is in the task's own row, so that one that succeeds
/// at once writes no row more.
const ATTEMPTS: &str = "
ALTER TABLE tasks ADD COLUMN pod TEXT;
CREATE TABLE attempts (
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    pod TEXT,
    error TEXT,
    PRIMARY KEY (task, attempt)
) WITHOUT ROWID, STRICT;
";

/// `lane`: the task's concurrency key, or empty. The line has each queue's and each key's tasks by themselves, so that none is read on the
/// way to another's. `tokens` and `filled`: what a bucket of starts held when; NULL where none was taken out yet.
const QUEUES: &str = "
ALTER TABLE tasks ADD COLUMN queue TEXT NOT NULL DEFAULT 'default';
ALTER TABLE tasks ADD COLUMN lane TEXT NOT NULL DEFAULT '';
CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    paused INTEGER NOT NULL DEFAULT 0,
    concurrency INTEGER,
    per_key INTEGER,
    rate REAL,
    burst INTEGER,
    tokens REAL,
    filled INTEGER,
    max_attempts INTEGER,
    first_pause INTEGER,
    longest_pause INTEGER
) WITHOUT ROWID, STRICT;
INSERT INTO queues (name) VALUES ('default');
DROP INDEX line;
CREATE INDEX line ON tasks (state, queue, lane, priority, due, id) WHERE state < 2;
DROP INDEX suspects;
CREATE INDEX suspects ON tasks (queue, due, id) WHERE state = 0 AND interrupted > 0;
";

/// What a file is, before anything is read from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Fresh,
    Ours,
    /// Made by an older server, which knew so many of the steps.
    Older(i64),
    Newer(i64),
    Foreign,
}

/// The connection that writes.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // A thread of its own has it; a path is a path, whatever it begins with.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // A log that stays is a log that need not grow again after the next start.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -8000)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    Ok(connection)
}

/// A connection that only looks.
pub(super) fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Whose file it is.
pub(super) fn content(connection: &Connection) -> rusqlite::Result<Content> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version) {
        (0, 0) if tables == 0 => Content::Fresh,
        (APPLICATION, version) if version > VERSION => Content::Newer(version),
        (APPLICATION, VERSION) => Content::Ours,
        (APPLICATION, version) if version > 0 => Content::Older(version),
        _ => Content::Foreign,
    })
}

/// Makes the tables; all or nothing.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    step_up(&transaction, 0)?;
    // Short and random, for it is in every event's token; 48 bits are enough for the queues one client ever meets.
    let stream = &Uuid::new_v4().simple().to_string()[..12];
    transaction.execute("INSERT INTO meta VALUES ('stream', ?1)", [stream])?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.commit()
}

/// Brings an older server's tables up to date, where they are; all or nothing.
pub(super) fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    step_up(&transaction, from)?;
    transaction.commit()
}

fn step_up(connection: &Connection, from: i64) -> rusqlite::Result<()> {
    let from = usize::try_from(from).unwrap_or(0);
    for step in STEPS.iter().skip(from) {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "user_version", VERSION)
}

/// Reads the whole file; what is wrong with it.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}

/// The name of this file's numbering.
pub(super) fn stream(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE name = 'stream'", [], |row| row.get(0)).optional()
}

/// Makes the log as long as it will get, so that commits overwrite it from the first one on. Room is not promised by
/// it: where there is none, the log is as long as it can be.
pub(super) fn lay_out_log(path: &Path, log: &Path) -> rusqlite::Result<()> {
    const FRAME: u64 = 4096 + 24;
    if std::fs::metadata(log).is_ok_and(|log| log.len() >= u64::from(LOG_PAGES) * FRAME) {
        return Ok(());
    }
    // On a connection of its own: none of these commits needs to last, and all later ones do.
    let connection = connect(path)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What the log holds goes to its place first: if the disk is then too small for a log of that length, what is in
    // it has its room elsewhere already, and the log can be cut back.
    write_back(&connection, "TRUNCATE")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let laid = (0..LOG_PAGES).try_for_each(|round| {
        // One page in the log.
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('log', ?1)")?
            .execute([round.to_string()])
            .map(drop)
    });
    connection.pragma_update(None, "synchronous", "FULL")?;
    match laid {
        Ok(()) => write_back(&connection, "RESTART"),
        Err(no_room) => write_back(&connection, "TRUNCATE").and(Err(no_room)),
    }
}

fn write_back(connection: &Connection, how: &str) -> rusqlite::Result<()> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No test can take the power away.
    #[test]
    fn a_commit_is_synced() {
        let folder = std::env::temp_dir().join(format!("graceful-store-{}", Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("tasks.db");
        let mut connection = connect(&path).unwrap();
        create(&mut connection).unwrap();
        lay_out_log(&path, &folder.join("tasks.db-wal")).unwrap();
        let setting = |name| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
        };
        assert_eq!(setting("synchronous"), 2.into());
        assert_eq!(setting("journal_mode"), "wal".to_owned().into());
        assert_eq!(setting("page_size"), 4096.into());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
