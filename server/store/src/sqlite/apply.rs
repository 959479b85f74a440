//! What each command does to the tables, inside a transaction that the writer begins and ends.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::clock::millis;
use super::fault::{Fault, first_write};
use super::ledger::{Lane, Ledger, Line, Place, Rank};
use super::row::{RECORD, SHORT, STANDING, Standing, code, record};
use super::writer::Limits;
use crate::error::StoreError;
use crate::interruption;
use crate::task::{
    Cancelled, Completion, Held, Lease, Millis, NewTask, Outcome, Retried, State, Submitted, TaskRecord,
};

/// The transaction's hands: the connection, its time, and what is counted along with it.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    pub(super) connection: &'a Connection,
    pub(super) ledger: &'a mut Ledger,
    pub(super) now: Millis,
    /// The number of the latest event.
    pub(super) head: &'a mut u64,
    /// Attempts that someone wants to stop.
    pub(super) stop: &'a mut Vec<Lease>,
    pub(super) limits: Limits,
    /// Who runs tasks here.
    pub(super) pod: &'a str,
}

impl Tables<'_> {
    pub(super) fn submit(&mut self, task: &NewTask, capacity: u64) -> Result<Submitted, Fault> {
        if let Some(known) = self.known(task)? {
            return Ok(known);
        }
        if !self.ledger.knows(&task.queue) {
            return Ok(Submitted::NoQueue);
        }
        if self.ledger.queued() >= capacity {
            return Err(Fault::Alone(StoreError::Full));
        }
        let due = self.now.saturating_add(millis(task.delay));
        let attempts = task.max_attempts.max(1);
        self.connection
            .prepare_cached(
                "INSERT INTO tasks (id, state, priority, attempt, max_attempts, granted, cancel, created, due, keep,
                     timeout, kind, client, trace, key, fingerprint, input, keep_dead, queue, lane)
                 VALUES (?1, 0, ?2, 0, ?3, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?
            .execute(params![
                task.id.as_bytes(),
                task.priority,
                attempts,
                self.now,
                due,
                millis(task.keep),
                task.timeout.map(millis),
                task.kind,
                task.client_id,
                task.trace,
                task.idempotency.as_ref().map(|own| own.key.as_str()),
                task.idempotency.as_ref().map(|own| own.fingerprint.as_slice()),
                (task.input.len() <= SHORT).then_some(task.input.as_str()),
                task.keep_dead.map(millis),
                task.queue,
                task.concurrency_key.as_deref().unwrap_or_default(),
            ])
            .map_err(first_write)?;
        if task.input.len() > SHORT {
            self.connection
                .prepare_cached("INSERT INTO inputs VALUES (?1, ?2)")?
                .execute(params![task.id.as_bytes(), task.input])?;
        }
        let lane = Lane::of(&task.queue, task.concurrency_key.as_deref().unwrap_or_default());
        let line = Line { lane, rank: Rank::Priority(task.priority) };
        self.ledger.step(None, Some(Place::Waiting { line, due }));
        Ok(Submitted::New)
    }

    /// Each by itself: one that is refused costs the others nothing.
    pub(super) fn submit_many(
        &mut self,
        tasks: &[NewTask],
        capacity: u64,
    ) -> Result<Vec<Result<Submitted, StoreError>>, Fault> {
        let each = tasks.iter().map(|task| match self.submit(task, capacity) {
            Ok(submitted) => Ok(Ok(submitted)),
            Err(Fault::Alone(error)) => Ok(Err(error)),
            Err(batch @ Fault::Batch(_)) => Err(batch),
        });
        each.collect()
    }

    /// The task that the submission's key names already.
    fn known(&self, task: &NewTask) -> Result<Option<Submitted>, Fault> {
        let Some(own) = &task.idempotency else { return Ok(None) };
        let found = self
            .connection
            .prepare_cached(&format!("SELECT {RECORD}, fingerprint FROM tasks WHERE key = ?1"))?
            .query_row([&own.key], |row| Ok((record(row)?, row.get::<_, Vec<u8>>(19)?)))
            .optional()?;
        Ok(found.map(|(task, fingerprint)| {
            if own.is(&fingerprint) {
                Submitted::Known(Box::new(task))
            } else {
                Submitted::KeyReused { id: task.id }
            }
        }))
    }

    pub(super) fn progress(&self, lease: Lease, progress: &str) -> Result<Held, Fault> {
        let cancel = self
            .connection
            .prepare_cached(
                "UPDATE tasks SET progress = ?3 WHERE id = ?1 AND state = 1 AND attempt = ?2 RETURNING cancel",
            )?
            .query_row(params![lease.id.as_bytes(), lease.attempt, progress], |row| row.get(0))
            .optional()
            .map_err(first_write)?;
        Ok(match cancel {
            None => Held::Lost,
            Some(false) => Held::Yes,
            Some(true) => Held::CancelRequested,
        })
    }

    pub(super) fn complete(&mut self, lease: Lease, outcome: &Outcome) -> Result<Completion, Fault> {
        let standing = self.standing(lease.id)?;
        let Some(task) =
            standing.filter(|task| task.state == State::Running && task.attempt == lease.attempt)
        else {
            return Ok(Completion::Lost);
        };
        let now = match outcome {
            Outcome::Succeeded(output) => self.end(lease.id, &task, State::Succeeded, Some(output), None)?,
            Outcome::Cancelled => self.end(lease.id, &task, State::Cancelled, None, None)?,
            Outcome::Failed { error, .. } if task.cancel_requested => {
                self.end(lease.id, &task, State::Cancelled, None, Some(error))?
            }
            Outcome::Released if task.cancel_requested => {
                self.end(lease.id, &task, State::Cancelled, None, None)?
            }
            Outcome::Released => self.put_back(lease.id, &task)?,
            Outcome::Failed { error, retry: Some(wait) } if task.attempt < task.max_attempts => {
                self.queue_again(lease.id, &task, self.now.saturating_add(millis(*wait)), error)?
            }
            Outcome::Failed { error, .. } => self.end(lease.id, &task, State::Dead, None, Some(error))?,
        };
        Ok(Completion::Now(now))
    }

    pub(super) fn cancel(&mut self, id: Uuid) -> Result<Cancelled, Fault> {
        let Some(task) = self.standing(id)? else { return Ok(Cancelled::Unknown) };
        match task.state {
            State::Queued => {
                self.end(id, &task, State::Cancelled, None, None)?;
                Ok(Cancelled::Now(self.record(id)?))
            }
            State::Running => {
                self.ask_to_stop(id, &task)?;
                Ok(Cancelled::Asked(self.record(id)?))
            }
            State::Succeeded | State::Dead | State::Cancelled => Ok(Cancelled::TooLate(self.record(id)?)),
        }
    }

    pub(super) fn ask_to_stop(&mut self, id: Uuid, task: &Standing) -> Result<(), Fault> {
        self.connection
            .prepare_cached("UPDATE tasks SET cancel = 1 WHERE id = ?1")?
            .execute([id.as_bytes()])
            .map_err(first_write)?;
        self.stop.push(Lease { id, attempt: task.attempt });
        Ok(())
    }

    /// The attempt number goes on, for it fences; the allowance grows by what the task was handed in with.
    pub(super) fn retry(&mut self, id: Uuid) -> Result<Retried, Fault> {
        let Some(task) = self.standing(id)? else { return Ok(Retried::Unknown) };
        if !matches!(task.state, State::Dead | State::Cancelled) {
            return Ok(Retried::NotEnded(self.record(id)?));
        }
        if !self.ledger.knows(&task.lane.queue) {
            return Ok(Retried::NoQueue(self.record(id)?));
        }
        self.queue_by_hand(id, &task)?;
        Ok(Retried::Now(self.record(id)?))
    }

    /// Queues one again that is dead or cancelled.
    pub(super) fn queue_by_hand(&mut self, id: Uuid, task: &Standing) -> Result<(), Fault> {
        // One that was cancelled as it waited has its last attempt noted already.
        let ended = self.ended(id)?;
        self.note(id, task, ended.0.unwrap_or(self.now), ended.1.as_deref())?;
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = 0, cancel = 0, due = ?2, max_attempts = ?3, started = NULL, ended = NULL,
                     forget = NULL, progress = NULL, interrupted = 0
                 WHERE id = ?1",
            )?
            .execute(params![id.as_bytes(), self.now, task.attempt.saturating_add(task.granted)])
            .map_err(first_write)?;
        let line = Line { lane: task.lane.clone(), rank: Rank::Priority(task.priority) };
        self.ledger.step(task.place(), Some(Place::Waiting { line, due: self.now }));
        Ok(())
    }

    /// Back to its place in line, as if this attempt had not been.
    pub(super) fn put_back(&mut self, id: Uuid, task: &Standing) -> Result<State, Fault> {
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = 0, attempt = attempt - 1, started = NULL WHERE id = ?1 AND state = 1",
            )?
            .execute([id.as_bytes()])
            .map_err(first_write)?;
        self.ledger.step(task.place(), Some(Place::Waiting { line: task.line(), due: task.due }));
        Ok(State::Queued)
    }

    /// In line for another attempt.
    pub(super) fn queue_again(
        &mut self,
        id: Uuid,
        task: &Standing,
        due: Millis,
        error: &str,
    ) -> Result<State, Fault> {
        self.note(id, task, self.now, Some(error))?;
        self.connection
            .prepare_cached("UPDATE tasks SET state = 0, due = ?2, error = ?3 WHERE id = ?1")?
            .execute(params![id.as_bytes(), due, error])
            .map_err(first_write)?;
        self.ledger.step(task.place(), Some(Place::Waiting { line: task.line(), due }));
        Ok(State::Queued)
    }

    /// In line for another attempt, after its process died. That attempt costs none of those that it may fail.
    pub(super) fn queue_interrupted(
        &mut self,
        id: Uuid,
        task: &Standing,
        error: &str,
    ) -> Result<State, Fault> {
        self.note(id, task, self.now, Some(error))?;
        let interrupted = task.interrupted.saturating_add(1);
        let pause = interruption::pause(interrupted);
        let due = if pause.is_zero() { task.due } else { self.now.saturating_add(millis(pause)) };
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = 0, due = ?2, error = ?3, interrupted = ?4, max_attempts = ?5 WHERE id = ?1",
            )?
            .execute(params![
                id.as_bytes(),
                due,
                error,
                interrupted,
                task.max_attempts.saturating_add(1)
            ])
            .map_err(first_write)?;
        let line = Line { lane: task.lane.clone(), rank: Rank::of(task.priority, interrupted) };
        self.ledger.step(task.place(), Some(Place::Waiting { line, due }));
        Ok(State::Queued)
    }

    /// The end of a task, and its event.
    pub(super) fn end(
        &mut self,
        id: Uuid,
        task: &Standing,
        state: State,
        output: Option<&str>,
        error: Option<&str>,
    ) -> Result<State, Fault> {
        let keep = match state {
            State::Dead => task.keep_dead.unwrap_or(self.limits.keep_dead),
            State::Succeeded | State::Cancelled | State::Queued | State::Running => task.keep,
        };
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, ended = ?3, forget = ?4, output = ?5, error = coalesce(?6, error)
                 WHERE id = ?1",
            )?
            .execute(params![
                id.as_bytes(),
                code(state),
                self.now,
                self.now.saturating_add(keep),
                output,
                error
            ])
            .map_err(first_write)?;
        let number = *self.head + 1;
        let why = error.filter(|_| state == State::Dead);
        self.connection
            .prepare_cached(
                "INSERT INTO events (number, at, task, state, attempt, kind, client, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                number,
                self.now,
                id.as_bytes(),
                code(state),
                task.attempt,
                task.kind,
                task.client_id,
                why
            ])?;
        *self.head = number;
        let to = (state == State::Dead).then_some(Place::Dead);
        self.ledger.step(task.place(), to);
        Ok(state)
    }

    pub(super) fn standing(&self, id: Uuid) -> Result<Option<Standing>, Fault> {
        let standing = self
            .connection
            .prepare_cached(&format!("SELECT {STANDING} FROM tasks WHERE id = ?1"))?
            .query_row([id.as_bytes()], Standing::read)
            .optional()?;
        Ok(standing)
    }

    fn record(&self, id: Uuid) -> Result<Box<TaskRecord>, Fault> {
        let found = self
            .connection
            .prepare_cached(&format!("SELECT {RECORD} FROM tasks WHERE id = ?1"))?
            .query_row([id.as_bytes()], record)?;
        Ok(Box::new(found))
    }
}
