//! Opening: the folder, the lock, the checks, and what a dead process left behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use rusqlite::Connection;
use tracing::{info, warn};

use super::apply::Tables;
use super::claims::Adopted;
use super::clock::{Clock, millis};
use super::fault::{Failure, Fault, kind};
use super::file::OwnFile;
use super::ledger::{Ledger, Line, Place, Rank};
use super::queues;
use super::reader::Reader;
use super::row::lane;
use super::schema::{self, Content};
use super::store::{Shared, SqliteStore};
use super::writer::{Limits, Opened, Writer};
use crate::attempts;
use crate::error::{OpenError, Unavailable};
use crate::room::Room;
use crate::{OwnedWatch, StoreSettings};

/// A file up to this long is checked from end to end (about 0.1 s); of a longer one only what is read to open it: the
/// schema, the line of live tasks, the dead letters' index, the ends of the events.
const CHECKED: u64 = 32 << 20;

/// Opens the queue in a folder, or begins one there. Tasks that a dead process was running wait again, or are dead.
///
/// # Errors
/// See [`OpenError`]; nothing was changed, and it can be tried again.
pub async fn open(folder: &Path, settings: StoreSettings) -> Result<Arc<SqliteStore>, OpenError> {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || open_blocking(&folder, settings))
        .await
        .unwrap_or_else(|panic| Err(OpenError::Engine { detail: panic.to_string() }))
}

fn open_blocking(folder: &Path, settings: StoreSettings) -> Result<Arc<SqliteStore>, OpenError> {
    let mut file = OwnFile::take(folder)?;
    let path = file.path().to_owned();
    let explain = |error: rusqlite::Error| explained(&path, Failure::from(error));
    let mut connection = schema::connect(&path).map_err(explain)?;
    prepare(&mut connection, &file)?;
    file.remember();
    let stream = schema::stream(&connection).map_err(explain)?.ok_or_else(|| OpenError::Corrupt {
        path: path.clone(),
        detail: "its numbering has no name".to_owned(),
    })?;
    let mut clock = Clock::default();
    let now = clock.now();
    let (mut ledger, mut head) = load(&connection, now).map_err(explain)?;
    let limits = Limits {
        capacity: settings.capacity,
        keep_events: millis(settings.keep_events),
        keep_dead: millis(settings.keep_dead),
        max_interruptions: settings.max_interruptions,
    };
    let pod = attempts::pod(&settings.owner).to_owned();
    let letters = adopt(&mut connection, &mut ledger, &mut head, now, (limits, &pod))
        .map_err(|failure| explained(&path, failure))?;
    if !letters.is_empty() {
        (settings.letters)(&letters);
    }
    start(Opened { file, connection, clock, ledger, head, pod }, limits, settings.owned, stream)
}

/// Sees whose file it is and whether it is sound, and makes the tables where there are none.
fn prepare(connection: &mut Connection, file: &OwnFile) -> Result<(), OpenError> {
    let path = file.path();
    let explain = |error: rusqlite::Error| explained(path, Failure::from(error));
    let corrupt = |detail: String| OpenError::Corrupt { path: path.to_owned(), detail };
    match schema::content(connection).map_err(explain)? {
        Content::Fresh => schema::create(connection).map_err(explain)?,
        Content::Ours => sound(connection, path)?,
        Content::Older(version) => {
            // What is damaged is left as it is.
            sound(connection, path)?;
            schema::migrate(connection, version).map_err(explain)?;
            info!(from = version, to = schema::VERSION, "the queue's tables are brought up to date");
        }
        Content::Newer(found) => return Err(OpenError::TooNew { found, known: schema::VERSION }),
        Content::Foreign => return Err(corrupt("it holds other tables than a queue's".to_owned())),
    }
    if let Err(error) = schema::lay_out_log(path, &file.log()) {
        if kind(&error) == Unavailable::Corrupt {
            return Err(explain(error));
        }
        warn!(%error, "no room to lay out the log; the first commits will be slower");
    }
    Ok(())
}

fn sound(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let length = std::fs::metadata(path).map_or(0, |file| file.len());
    if length > CHECKED {
        return Ok(());
    }
    match schema::check(connection).map_err(|error| explained(path, Failure::from(error)))? {
        None => Ok(()),
        Some(detail) => Err(OpenError::Corrupt { path: path.to_owned(), detail }),
    }
}

/// Counts what is in the file.
fn load(connection: &Connection, now: i64) -> rusqlite::Result<(Ledger, u64)> {
    let mut ledger = Ledger::default();
    ledger.advance(now);
    queues::load(connection, &mut ledger, now)?;
    let mut live = connection.prepare(
        "SELECT state, priority, due, interrupted, queue, lane FROM tasks INDEXED BY line WHERE state < 2",
    )?;
    let mut rows = live.query([])?;
    while let Some(row) = rows.next()? {
        let lane = lane(row, 4)?;
        let place = match row.get::<_, i64>(0)? {
            0 => {
                let rank = Rank::of(row.get(1)?, row.get(3)?);
                Place::Waiting { line: Line { lane, rank }, due: row.get(2)? }
            }
            _ => Place::Running(lane),
        };
        ledger.step(None, Some(place));
        ledger.keep();
    }
    let dead = connection.query_row(
        "SELECT count(*) FROM tasks INDEXED BY letters WHERE state > 2 AND state = 3",
        [],
        |row| row.get::<_, u64>(0),
    )?;
    for _ in 0..dead {
        ledger.step(None, Some(Place::Dead));
        ledger.keep();
    }
    let head = connection.query_row("SELECT coalesce(max(number), 0) FROM events", [], |row| row.get(0))?;
    Ok((ledger, head))
}

/// What was running when the last process ended; the kinds of those of it that became dead letters.
fn adopt(
    connection: &mut Connection,
    ledger: &mut Ledger,
    head: &mut u64,
    now: i64,
    (limits, pod): (Limits, &str),
) -> Result<Vec<String>, Failure> {
    if ledger.owned().running == 0 {
        return Ok(Vec::new());
    }
    let transaction = connection.transaction()?;
    let mut stop = Vec::new();
    let mut tables =
        Tables { connection: &transaction, ledger: &mut *ledger, now, head, stop: &mut stop, limits, pod };
    let Adopted { orphans, letters } = match tables.adopt_orphans() {
        Ok(adopted) => adopted,
        Err(Fault::Batch(failure)) => return Err(failure),
        Err(Fault::Alone(error)) => {
            return Err(Failure { why: Unavailable::Engine, detail: error.to_string() });
        }
    };
    transaction.commit()?;
    ledger.keep();
    info!(
        orphans,
        dead = letters.len(),
        "tasks of a process that ended wait again, but for those that are dead letters"
    );
    Ok(letters)
}

/// Starts the threads. The counts have been told before the first call can come.
fn start(
    opened: Opened,
    limits: Limits,
    owned: OwnedWatch,
    stream: String,
) -> Result<Arc<SqliteStore>, OpenError> {
    let path = opened.file.path().to_owned();
    let shared = Arc::new(Shared::new());
    let (commands, inbox) = channel();
    let reader = |name| {
        let connection =
            schema::connect_to_read(&path).map_err(|error| explained(&path, Failure::from(error)))?;
        Reader::start(name, connection).map_err(no_thread)
    };
    let (lookups, first) = reader("queue-lookups")?;
    let (lists, second) = reader("queue-lists")?;
    let inbox = (commands.clone(), inbox);
    let writer = Writer::new(opened, limits, owned, Arc::clone(&shared), inbox);
    let third = std::thread::Builder::new()
        .name("queue-writer".to_owned())
        .spawn(move || writer.run())
        .map_err(no_thread)?;
    Ok(Arc::new(SqliteStore {
        writer: commands,
        threads: vec![first, second, third],
        lookups: Some(lookups),
        lists: Some(lists),
        shared,
        room: Room::default(),
        stream,
    }))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_thread(error: std::io::Error) -> OpenError {
    OpenError::Engine { detail: format!("no thread: {error}") }
}

fn explained(path: &Path, failure: Failure) -> OpenError {
    match failure.why {
        Unavailable::Corrupt => OpenError::Corrupt { path: path.to_owned(), detail: failure.detail },
        Unavailable::Disk
        | Unavailable::Connection
        | Unavailable::Closed
        | Unavailable::Busy
        | Unavailable::Engine => OpenError::Engine { detail: failure.detail },
    }
}
