//! Claims: who runs what, what goes back, and what a dead process left behind.

use rusqlite::params;

use super::apply::Tables;
use super::clock::span;
use super::fault::{Fault, first_write};
use super::ledger::{Bucket, Lane, Line, Place, Rank};
use super::row::id;
use crate::interruption::SUSPECT;
use crate::task::{Claim, Lease, Millis, State};

/// What became of a dead process's tasks.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) orphans: u64,
    /// The kinds of those of them that are dead letters now.
    pub(super) letters: Vec<String>,
}

macro_rules! due {
    ($line:expr) => {
        concat!(
            "SELECT id, attempt, kind, coalesce(input, (SELECT long.input FROM inputs AS long WHERE long.id = tasks.id)), \
                 client, timeout, max_attempts, created, due, started, trace \
             FROM tasks INDEXED BY ",
            $line,
            " AND queue = ?5 AND due <= ?2 ORDER BY due, id LIMIT ?3"
        )
    };
}

/// Of those that run beside others.
const DUE: &str =
    due!("line WHERE state < 2 AND state = 0 AND lane = ?6 AND priority = ?1 AND interrupted < ?4");

/// Of those that run alone, whatever their priority and their key.
const SUSPECTS: &str =
    due!("suspects WHERE state = 0 AND interrupted > 0 AND interrupted >= ?4 AND ?1 = 0 AND ?6 = ''");

impl Tables<'_> {
    /// Up to `most` of the tasks that are due and may start, each queue and each key in its turn.
    pub(super) fn claim(&mut self, most: usize) -> Result<Vec<Claim>, Fault> {
        let mut claims = Vec::new();
        while claims.len() < most
            && let Some(next) = self.ledger.next()
        {
            let wanted = next.most.min(most - claims.len());
            let line = Line { lane: next.lane, rank: Rank::Priority(next.priority) };
            let found = self.due(&line, wanted)?;
            if found.is_empty() {
                // The ledger is made from these rows: only a damaged index can hide them.
                let detail = format!("tasks are due in {line:?}, and the index has none");
                return Err(Fault::Batch(super::fault::Failure {
                    why: crate::error::Unavailable::Corrupt,
                    detail,
                }));
            }
            for (due, claim) in found {
                self.start(&claim, line.clone(), due)?;
                claims.push(claim);
            }
        }
        self.write_buckets()?;
        Ok(claims)
    }

    /// The one that is due first of those that run alone and may start, if there is one.
    pub(super) fn claim_suspect(&mut self) -> Result<Vec<Claim>, Fault> {
        let Some(queue) = self.ledger.next_suspects() else { return Ok(Vec::new()) };
        let lane = Lane { queue, ..Lane::default() };
        let found = self.due(&Line { lane, rank: Rank::Suspect }, 1)?;
        let mut claims = Vec::new();
        for (due, claim) in found {
            let Some(standing) = self.standing(claim.lease.id)? else { continue };
            self.start(&claim, standing.line(), due)?;
            claims.push(claim);
        }
        self.write_buckets()?;
        Ok(claims)
    }

    fn start(&mut self, claim: &Claim, line: Line, due: Millis) -> Result<(), Fault> {
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = 1, attempt = ?2, started = ?3, progress = NULL, pod = ?4 WHERE id = ?1",
            )?
            .execute(params![claim.lease.id.as_bytes(), claim.lease.attempt, self.now, self.pod])
            .map_err(first_write)?;
        let lane = line.lane.clone();
        self.ledger.step(Some(Place::Waiting { line, due }), Some(Place::Running(lane.clone())));
        self.ledger.start(&lane);
        Ok(())
    }

    /// What is left in the buckets: a process that dies again and again starts no more than the rate says.
    fn write_buckets(&self) -> Result<(), Fault> {
        for (name, Bucket { tokens, at }) in self.ledger.spent() {
            self.connection
                .prepare_cached("UPDATE queues SET tokens = ?2, filled = ?3 WHERE name = ?1")?
                .execute(params![name, tokens, at])?;
        }
        Ok(())
    }

    /// One line's tasks that are due, as they will be once they are claimed.
    fn due(&self, line: &Line, most: usize) -> Result<Vec<(Millis, Claim)>, Fault> {
        let Line { lane: Lane { queue, key }, rank } = line;
        let (sql, priority) = match rank {
            Rank::Priority(priority) => (DUE, *priority),
            // No priority is above another here: who runs alone waits for all others anyway.
            Rank::Suspect => (SUSPECTS, 0),
        };
        let backoff = self.ledger.settings(queue).backoff;
        let mut statement = self.connection.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![priority, self.now, most, SUSPECT, queue, key], |row| {
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
                queue: queue.clone(),
                backoff,
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
                adopted.letters.push(task.kind);
            }
            adopted.orphans += 1;
        }
        Ok(adopted)
    }
}
