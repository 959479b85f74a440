//! Look-ups, on connections of their own: a reader sees what has been committed, and waits for no one.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rusqlite::types::Value;
use rusqlite::{Connection, InterruptHandle, OptionalExtension, params, params_from_iter};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::row::{EVENT, RECORD, code, event, record};
use crate::event::Events;
use crate::page::Filling;
use crate::task::{Counts, Cursor, Filter, Held, Lease, Page, State, TaskRecord};

/// Live tasks that are few enough to be sorted rather than found among all others.
const FEW: u64 = 10_000;

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

pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
    counts: &Counts,
) -> rusqlite::Result<Page> {
    let (sql, values) = list_query(filter, after, limit, counts);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut filling = Filling::new(limit);
    for task in statement.query_map(params_from_iter(values), record)? {
        if !filling.take(task?) {
            break;
        }
    }
    Ok(filling.page())
}

fn list_query(filter: &Filter, after: Option<Cursor>, limit: usize, counts: &Counts) -> (String, Vec<Value>) {
    let Filter { states, kind, client_id } = filter;
    let mut values = Vec::new();
    let mut terms = vec!["TRUE".to_owned()];
    let mut term = |text: &str, value: Value| {
        values.push(value);
        terms.push(format!("{text} ?{}", values.len()));
    };
    if let Some(after) = after {
        term("id <", Value::Blob(after.as_bytes().to_vec()));
    }
    if let Some(kind) = kind {
        term("kind =", Value::Text(kind.clone()));
    }
    if let Some(client) = client_id {
        term("client =", Value::Text(client.clone()));
    }
    let index = match client_id {
        Some(_) => " INDEXED BY clients",
        None => index_for(states, counts),
    };
    if !states.is_empty() {
        let codes: Vec<_> = states.iter().map(|state| code(*state).to_string()).collect();
        terms.push(format!("state IN ({})", codes.join(", ")));
        // SQLite takes a partial index only when its condition is said.
        match index {
            " INDEXED BY line" => terms.push("state < 2".to_owned()),
            " INDEXED BY letters" => terms.push("state > 2".to_owned()),
            _ => {}
        }
    }
    // One more says whether there is another page.
    values.push(Value::Integer(limited(limit.saturating_add(1))));
    let (terms, last) = (terms.join(" AND "), values.len());
    let ids = format!("SELECT id FROM tasks{index} WHERE {terms} ORDER BY id DESC LIMIT ?{last}");
    (format!("SELECT {RECORD} FROM tasks WHERE id IN ({ids}) ORDER BY id DESC"), values)
}

/// Where tasks in these states are found without reading all the others.
fn index_for(states: &[State], counts: &Counts) -> &'static str {
    let letters = |state: &State| matches!(state, State::Dead | State::Cancelled);
    let live = |state: &State| match state {
        State::Running => counts.running < FEW,
        State::Queued => counts.queued + counts.delayed < FEW,
        State::Succeeded | State::Dead | State::Cancelled => false,
    };
    if states.is_empty() {
        ""
    } else if states.iter().all(letters) {
        " INDEXED BY letters"
    } else if states.iter().all(live) {
        " INDEXED BY line"
    } else {
        ""
    }
}

fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
