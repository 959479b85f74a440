//! The ledger: what clients were told was accepted, what was reported done, and what each kill interrupted. Pure; it is
//! told the time.
//!
//! Guarantees: a task counts as accepted only when a client read a whole 2xx answer with its id, and as reported only
//! when a server said that it was done. Neither order is assumed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// One process: each start of a server has a number of its own.
pub(crate) type Life = u32;

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accepted: HashSet<Uuid>,
    /// Which processes said that they had done it.
    reported: HashMap<Uuid, HashSet<String>>,
    /// Tasks of kind `http` that were accepted.
    calls: HashSet<Uuid>,
    /// Calls that were answered with 200.
    answered: HashSet<Uuid>,
    /// Accepted and not yet reported.
    open: HashSet<Uuid>,
    running: HashMap<Life, HashMap<Uuid, u64>>,
    orphans: HashMap<Uuid, Orphan>,
    /// What is counted.
    pub(crate) counts: Counts,
}

/// A task whose process was killed.
#[derive(Debug)]
struct Orphan {
    killed: Instant,
    attempt: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Answered, but not with 2xx.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Not answered, or not wholly.
    pub(crate) cut: u64,
    /// Submissions under a key that had an answer already.
    pub(crate) repeated: u64,
    /// Of those, answered with another task.
    pub(crate) changed: Vec<Uuid>,
    /// Kills that interrupted at least one attempt.
    pub(crate) at_work: u32,
    /// Attempts that were interrupted.
    pub(crate) interrupted: u64,
    /// How long each interrupted task waited for its next attempt, from the kill on.
    pub(crate) pick_ups: Vec<Duration>,
    /// Attempts that began and were killed before they could say so: nothing is measured across them.
    pub(crate) unseen: u64,
}

impl Ledger {
    /// A client read that this task was accepted.
    pub(crate) fn accepted(&mut self, task: Uuid) {
        if self.accepted.insert(task) && !self.reported.contains_key(&task) {
            self.open.insert(task);
        }
    }

    /// A client read that this call was accepted.
    pub(crate) fn accepted_call(&mut self, task: Uuid) {
        self.calls.insert(task);
        self.accepted(task);
    }

    /// The callee answers this task's call with 200.
    pub(crate) fn answered(&mut self, task: Uuid) {
        self.answered.insert(task);
    }

    /// Calls that were accepted, and those of them that are said to be done and never had an answer that says so.
    pub(crate) fn calls(&self) -> (usize, Vec<Uuid>) {
        let made_up = |task: &&Uuid| self.reported.contains_key(*task) && !self.answered.contains(*task);
        (self.calls.len(), self.calls.iter().filter(made_up).copied().collect())
    }

    /// A server says that it did this task. The same report may come twice.
    pub(crate) fn reported(&mut self, task: Uuid, boot: String) {
        self.reported.entry(task).or_default().insert(boot);
        self.open.remove(&task);
    }

    /// A process says that it starts an attempt.
    pub(crate) fn started(&mut self, life: Life, task: Uuid, attempt: u64, now: Instant) {
        self.running.entry(life).or_default().insert(task, attempt);
        if let Some(orphan) = self.orphans.remove(&task) {
            if attempt != orphan.attempt + 1 {
                self.counts.unseen += 1;
            } else if orphan.attempt == 1 {
                // The first interruption alone is followed by an attempt at once; further ones have a pause.
                self.counts.pick_ups.push(now.duration_since(orphan.killed));
            }
        }
    }

    /// A process says that an attempt is over, whichever way.
    pub(crate) fn ended(&mut self, life: Life, task: Uuid) {
        if let Some(running) = self.running.get_mut(&life) {
            running.remove(&task);
        }
    }

    /// Processes were killed at the same moment, and all that they wrote has been read.
    pub(crate) fn killed(&mut self, lives: &[Life], at: Instant) {
        let mut interrupted = 0;
        for (task, attempt) in lives.iter().filter_map(|life| self.running.remove(life)).flatten() {
            interrupted += 1;
            self.orphans.insert(task, Orphan { killed: at, attempt });
        }
        self.counts.interrupted += interrupted;
        self.counts.at_work += u32::from(interrupted > 0);
    }

    /// How many accepted tasks nobody has reported yet.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// All accepted tasks, and whether each was reported.
    pub(crate) fn all(&self) -> Vec<(Uuid, bool)> {
        self.accepted.iter().map(|task| (*task, self.reported.contains_key(task))).collect()
    }

    /// Tasks that more than one process did.
    pub(crate) fn duplicates(&self) -> usize {
        self.reported.values().filter(|boots| boots.len() > 1).count()
    }

    /// Tasks that were done though no client heard that they were accepted.
    pub(crate) fn unheard(&self) -> usize {
        self.reported.keys().filter(|task| !self.accepted.contains(task)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(7);

    #[test]
    fn a_task_is_open_from_its_answer_to_its_report_in_either_order() {
        let (mut ledger, first, second) = (Ledger::default(), Uuid::new_v4(), Uuid::new_v4());
        ledger.accepted(first);
        ledger.reported(second, "boot".into());
        assert_eq!((ledger.open(), ledger.unheard()), (1, 1));
        ledger.accepted(second);
        assert_eq!((ledger.open(), ledger.unheard()), (1, 0));
        assert_eq!(ledger.all().iter().filter(|(_, reported)| *reported).count(), 1);
    }

    #[test]
    fn a_call_that_is_said_to_be_done_and_had_no_answer_is_made_up() {
        let (mut ledger, good, bad, open) =
            (Ledger::default(), Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        for call in [good, bad, open] {
            ledger.accepted_call(call);
        }
        ledger.answered(good);
        ledger.reported(good, "boot".into());
        ledger.reported(bad, "boot".into());
        assert_eq!(ledger.calls(), (3, vec![bad]));
    }

    #[test]
    fn a_pick_up_lasts_from_the_kill_to_the_next_attempt() {
        let (mut ledger, task, kill) = (Ledger::default(), Uuid::new_v4(), Instant::now());
        ledger.started(1, task, 1, kill);
        ledger.killed(&[1, 2], kill);
        ledger.started(3, task, 2, kill + LATER);
        assert_eq!(ledger.counts.pick_ups, [LATER]);
        assert_eq!((ledger.counts.at_work, ledger.counts.interrupted), (1, 1));
    }

    #[test]
    fn an_attempt_that_was_over_is_not_interrupted() {
        let (mut ledger, task) = (Ledger::default(), Uuid::new_v4());
        ledger.started(1, task, 1, Instant::now());
        ledger.ended(1, task);
        ledger.killed(&[1], Instant::now());
        assert_eq!((ledger.counts.at_work, ledger.counts.interrupted), (0, 0));
    }

    #[test]
    fn nothing_is_measured_across_an_attempt_that_nobody_saw() {
        let (mut ledger, task, kill) = (Ledger::default(), Uuid::new_v4(), Instant::now());
        ledger.started(1, task, 1, kill);
        ledger.killed(&[1], kill);
        ledger.started(3, task, 3, kill + 2 * LATER);
        assert!(ledger.counts.pick_ups.is_empty());
        assert_eq!(ledger.counts.unseen, 1);
    }

    #[test]
    fn two_processes_that_did_one_task_are_a_duplicate_and_one_that_says_so_twice_is_none() {
        let (mut ledger, task) = (Ledger::default(), Uuid::new_v4());
        ledger.reported(task, "one".into());
        ledger.reported(task, "one".into());
        assert_eq!(ledger.duplicates(), 0);
        ledger.reported(task, "two".into());
        assert_eq!(ledger.duplicates(), 1);
    }
}
