//! Look-ups, on connections of their own: a reader sees what has been committed, and waits for no one.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rusqlite::types::Value;
use rusqlite::{Connection, InterruptHandle, OptionalExtension, params, params_from_iter};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::attempts;
use super::row::{EVENT, RECORD, code, event, id, record};
use crate::event::Events;
use crate::page::{FEW, Filling, LOOKED_THROUGH};
use crate::task::{Counts, Cursor, Filter, Found, Held, Lease, Page, State, TaskRecord};

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A thread with a connection.
pub(super) struct Reader {
    jobs: Sender<Job>,
    interrupt: InterruptHandle,
}

impl Reader {
    pub(super) fn start(name: &str, connection: Connection) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, inbox) = channel::<Job>();
        let interrupt = connection.get_interrupt_handle();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in inbox {
                job(&connection);
            }
        })?;
        Ok((Self { jobs, interrupt }, thread))
    }

    /// None when the thread has gone.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<rusqlite::Result<T>> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |connection: &Connection| {
            // Who no longer waits needs no answer.
            if !reply.is_closed() {
                let _ = reply.send(query(connection));
            }
        });
        self.jobs.send(job).ok()?;
        answer.await.ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.interrupt.interrupt();
    }
}

pub(super) fn get(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<TaskRecord>> {
    connection
        .prepare_cached(&format!("SELECT {RECORD} FROM tasks WHERE id = ?1"))?
        .query_row([id.as_bytes()], record)
        .optional()
}

/// With its attempts, which [`get`] leaves out.
pub(super) fn get_whole(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<TaskRecord>> {
    // One transaction: an attempt that ends meanwhile would else be there twice, or not at all.
    let transaction = connection.unchecked_transaction()?;
    let Some(mut task) = get(&transaction, id)? else { return Ok(None) };
    task.attempts = Some(attempts::read(&transaction, &task)?);
    Ok(Some(task))
}

pub(super) fn renew(connection: &Connection, leases: &[Lease]) -> rusqlite::Result<Vec<Held>> {
    let mut statement =
        connection.prepare_cached("SELECT cancel FROM tasks WHERE id = ?1 AND attempt = ?2 AND state = 1")?;
    leases
        .iter()
        .map(|lease| {
            let cancel = statement
                .query_row(params![lease.id.as_bytes(), lease.attempt], |row| row.get(0))
                .optional()?;
            Ok(match cancel {
                None => Held::Lost,
                Some(false) => Held::Yes,
                Some(true) => Held::CancelRequested,
            })
        })
        .collect()
}

pub(super) fn events(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<Events> {
    // One transaction, so that the oldest is the oldest of the same moment.
    let transaction = connection.unchecked_transaction()?;
    let (oldest, newest) = transaction
        .prepare_cached("SELECT (SELECT min(number) FROM events), (SELECT max(number) FROM events)")?
        .query_row([], |row| Ok((row.get::<_, Option<u64>>(0)?, row.get::<_, Option<u64>>(1)?)))?;
    let after = after.min(newest.unwrap_or(0));
    let events = transaction
        .prepare_cached(&format!("SELECT {EVENT} FROM events WHERE number > ?1 ORDER BY number LIMIT ?2"))?
        .query_map(params![after, limited(limit)], event)?
        .collect::<Result<_, _>>()?;
    Ok(Events { events, oldest: oldest.unwrap_or(1) })
}

/// Looks through the newest tasks below `after`, [`LOOKED_THROUGH`] at most, and reads those that match.
pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
    counts: &Counts,
) -> rusqlite::Result<Page> {
    // One transaction: what was found is there when it is read.
    let transaction = connection.unchecked_transaction()?;
    let (sql, values) = look_through(filter, after, counts);
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut filling = Filling::new(limit);
    let (mut looked_at, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        let id = id(row, 0)?;
        (looked_at, last) = (looked_at + 1, Some(id));
        if row.get(1)?
            && let Some(task) = get(&transaction, id)?
            && !filling.take(task)
        {
            break;
        }
    }
    Ok(filling.page(last.filter(|_| looked_at >= LOOKED_THROUGH)))
}

/// The ids of those that [`list`] would tell of.
pub(super) fn find(
    connection: &Connection,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
    counts: &Counts,
) -> rusqlite::Result<Found> {
    let (sql, values) = look_through(filter, after, counts);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut found, mut looked_at, mut last) = (Found::default(), 0, None);
    while let Some(row) = rows.next()? {
        let id = id(row, 0)?;
        if row.get(1)? {
            if found.ids.len() >= limit {
                found.next = found.ids.last().copied();
                return Ok(found);
            }
            found.ids.push(id);
        }
        (looked_at, last) = (looked_at + 1, Some(id));
    }
    found.next = last.filter(|_| looked_at >= LOOKED_THROUGH);
    Ok(found)
}

/// A statement of ids, the newest first, and whether each matches.
fn look_through(filter: &Filter, after: Option<Cursor>, counts: &Counts) -> (String, Vec<Value>) {
    let Filter { states, kind, client_id, queue } = filter;
    let mut values = Vec::new();
    let mut term = |text: &str, value: Value| {
        values.push(value);
        format!("{text} ?{}", values.len())
    };
    let mut matches = vec!["TRUE".to_owned()];
    matches.extend(kind.as_ref().map(|kind| term("kind =", Value::Text(kind.clone()))));
    matches.extend(queue.as_ref().map(|queue| term("queue =", Value::Text(queue.clone()))));
    if !states.is_empty() {
        let codes: Vec<_> = states.iter().map(|state| code(*state).to_string()).collect();
        matches.push(format!("state IN ({})", codes.join(", ")));
    }
    let mut among = vec!["TRUE".to_owned()];
    among.extend(after.map(|after| term("id <", Value::Blob(after.as_bytes().to_vec()))));
    let index = match client_id {
        Some(client) => {
            among.push(term("client =", Value::Text(client.clone())));
            " INDEXED BY clients"
        }
        None => {
            let (index, condition) = index_for(states, counts);
            among.push(condition.to_owned());
            index
        }
    };
    let (matches, among) = (matches.join(" AND "), among.join(" AND "));
    let sql = format!(
        "SELECT id, {matches} FROM tasks{index} WHERE {among} ORDER BY id DESC LIMIT {LOOKED_THROUGH}"
    );
    (sql, values)
}

/// Where tasks in these states are found without reading all the others, and its condition: SQLite takes a partial index only
/// when that is said.
fn index_for(states: &[State], counts: &Counts) -> (&'static str, &'static str) {
    let letters = |state: &State| matches!(state, State::Dead | State::Cancelled);
    let live = |state: &State| matches!(state, State::Queued | State::Running);
    if states.is_empty() {
        ("", "TRUE")
    } else if states.iter().all(letters) {
        (" INDEXED BY letters", "state > 2")
    } else if states.iter().all(live) && counts.queued + counts.delayed + counts.running < FEW {
        (" INDEXED BY line", "state < 2")
    } else {
        ("", "TRUE")
    }
}

fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
