//! Claims: who runs what, what goes back, and what a dead process left behind.

use rusqlite::params;

use super::apply::Tables;
use super::clock::span;
use super::fault::{Fault, first_write};
use super::ledger::{Line, Place};
use super::row::id;
use crate::interruption::SUSPECT;
use crate::task::{Claim, Lease, Millis, State};

/// What became of a dead process's tasks.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) orphans: u64,
    /// Those of them that are dead letters now.
    pub(super) letters: u64,
}

impl Tables<'_> {
    /// Up to `most` of the tasks that are due, the highest priority first, then the oldest.
    pub(super) fn claim(&mut self, most: usize) -> Result<Vec<Claim>, Fault> {
        let mut claims = Vec::new();
        while claims.len() < most
            && let Some(priority) = self.ledger.first_lane()
        {
            let found = self.due(Line::Priority(priority), most - claims.len())?;
            if found.is_empty() {
                // The ledger is made from these rows: only a damaged index can hide them.
                let detail = format!("tasks of priority {priority} are due, and the index has none");
                return Err(Fault::Batch(super::fault::Failure {
                    why: crate::error::Unavailable::Corrupt,
                    detail,
                }));
            }
            for (due, claim) in found {
                self.start(&claim, Place::Waiting { line: Line::Priority(priority), due })?;
                claims.push(claim);
            }
        }
        Ok(claims)
    }

    /// The one that is due first of those that run alone, if there is one.
    pub(super) fn claim_suspect(&mut self) -> Result<Vec<Claim>, Fault> {
        let found = self.due(Line::Suspects, 1)?;
        for (due, claim) in &found {
            self.start(claim, Place::Waiting { line: Line::Suspects, due: *due })?;
        }
        Ok(found.into_iter().map(|(_, claim)| claim).collect())
    }

    fn start(&mut self, claim: &Claim, from: Place) -> Result<(), Fault> {
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = 1, attempt = ?2, started = ?3, progress = NULL, pod = ?4 WHERE id = ?1",
            )?
            .execute(params![claim.lease.id.as_bytes(), claim.lease.attempt, self.now, self.pod])
            .map_err(first_write)?;
        self.ledger.step(Some(from), Some(Place::Running));
        Ok(())
    }

    /// One line's tasks that are due, as they will be once they are claimed.
    fn due(&self, line: Line, most: usize) -> Result<Vec<(Millis, Claim)>, Fault> {
        let (of_the_line, priority) = match line {
            Line::Priority(priority) => (
                "INDEXED BY line WHERE state < 2 AND state = 0 AND priority = ?1 AND interrupted < ?4",
                priority,
            ),
            // No priority is above another here: who runs alone waits for all others anyway.
            Line::Suspects => (
                "INDEXED BY suspects WHERE state = 0 AND interrupted > 0 AND interrupted >= ?4 AND ?1 = 0",
                0,
            ),
        };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT id, attempt, kind, coalesce(input, (SELECT long.input FROM inputs AS long WHERE long.id = tasks.id)),
                 client, timeout, max_attempts, created, due, started, trace
             FROM tasks {of_the_line} AND due <= ?2
             ORDER BY due, id LIMIT ?3",
        ))?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![priority, self.now, most, SUSPECT], |row| {
            let due: Millis = row.get(8)?;
            // An orphan has been due since long before; it has waited since its last start at most.
            let since = row.get::<_, Option<Millis>>(9)?.map_or(due, |started| started.max(due));
            let claim = Claim {
                lease: Lease { id: id(row, 0)?, attempt: row.get::<_, u16>(1)?.saturating_add(1) },
                kind: row.get(2)?,
                input: row.get(3)?,
                client_id: row.get(4)?,
                timeout: row.get::<_, Option<Millis>>(5)?.map(span),
                max_attempts: row.get(6)?,
                created: row.get(7)?,
                waited: span(self.now.saturating_sub(since)),
                trace: row.get(10)?,
            };
            Ok((due, claim))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was claimed and did not reach the claimer.
    pub(super) fn take_back(&mut self, leases: &[Lease]) -> Result<(), Fault> {
        for lease in leases {
            let standing = self.standing(lease.id)?;
            let Some(task) =
                standing.filter(|task| task.state == State::Running && task.attempt == lease.attempt)
            else {
                continue;
            };
            if task.cancel_requested {
                self.end(lease.id, &task, State::Cancelled, None, None)?;
            } else {
                self.put_back(lease.id, &task)?;
            }
        }
        Ok(())
    }

    /// Queues again, or ends, what a process that died was running.
    pub(super) fn adopt_orphans(&mut self) -> Result<Adopted, Fault> {
        let orphans = self
            .connection
            .prepare("SELECT id FROM tasks INDEXED BY line WHERE state < 2 AND state = 1")?
            .query_map([], |row| id(row, 0))?
            .collect::<Result<Vec<_>, _>>()?;
        let mut adopted = Adopted::default();
        for id in orphans {
            let Some(task) = self.standing(id)? else { continue };
            let error = format!("the process ended during attempt {}", task.attempt);
            if task.cancel_requested {
                self.end(id, &task, State::Cancelled, None, Some(&error))?;
            } else if task.interrupted.saturating_add(1) < self.limits.max_interruptions {
                self.queue_interrupted(id, &task, &error)?;
            } else {
                let error = format!("{error}, the {}. that was interrupted", self.limits.max_interruptions);
                self.end(id, &task, State::Dead, None, Some(&error))?;
                adopted.letters += 1;
            }
            adopted.orphans += 1;
        }
        Ok(adopted)
    }
}
