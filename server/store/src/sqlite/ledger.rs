//! What waits and what runs, counted in memory in step with the disk: a transaction that fails is taken back here too.

use std::collections::BTreeMap;

use crate::interruption::SUSPECT;
use crate::task::{Counts, Delayed, Millis, Owned};

/// Where a task counts; those that ended well or were cancelled count nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Waiting { line: Line, due: Millis },
    Running,
    Dead,
}

/// Which line it waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// Of those that run alone.
    Suspects,
    Priority(i16),
}

impl Line {
    pub(super) fn of(priority: i16, interrupted: u16) -> Self {
        if interrupted < SUSPECT { Self::Priority(priority) } else { Self::Suspects }
    }
}

/// A task's step from one place to another.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: Option<Place>,
    to: Option<Place>,
}

/// One line.
#[derive(Debug, Default)]
struct Lane {
    due: u64,
    /// How many become due when.
    later: BTreeMap<Millis, u64>,
}

/// The counts, as of the steps taken; those since the last [`Ledger::keep`] can be undone.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// All that is due by then is in `Lane::due`; never decreases.
    now: Millis,
    lanes: BTreeMap<Line, Lane>,
    due: u64,
    delayed: u64,
    running: u64,
    dead: u64,
    steps: Vec<Step>,
}

impl Ledger {
    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Millis) {
        self.now = self.now.max(now);
        if self.delayed == 0 {
            return;
        }
        for lane in self.lanes.values_mut() {
            while let Some(entry) = lane.later.first_entry() {
                if *entry.key() > self.now {
                    break;
                }
                let tasks = entry.remove();
                lane.due += tasks;
                self.due += tasks;
                self.delayed -= tasks;
            }
        }
    }

    /// A task goes from one place to another.
    pub(super) fn step(&mut self, from: Option<Place>, to: Option<Place>) {
        self.count(from, to);
        self.steps.push(Step { from, to });
    }

    /// The steps are on disk.
    pub(super) fn keep(&mut self) {
        self.steps.clear();
    }

    /// The steps did not come to disk.
    pub(super) fn undo(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        for Step { from, to } in steps.drain(..).rev() {
            self.count(to, from);
        }
        self.steps = steps;
    }

    fn count(&mut self, from: Option<Place>, to: Option<Place>) {
        match to {
            Some(Place::Waiting { line, due }) if due <= self.now => {
                self.lanes.entry(line).or_default().due += 1;
                self.due += 1;
            }
            Some(Place::Waiting { line, due }) => {
                *self.lanes.entry(line).or_default().later.entry(due).or_default() += 1;
                self.delayed += 1;
            }
            Some(Place::Running) => self.running += 1,
            Some(Place::Dead) => self.dead += 1,
            None => {}
        }
        match from {
            Some(Place::Waiting { line, due }) => self.leave_line(line, due),
            Some(Place::Running) => self.running = self.running.saturating_sub(1),
            Some(Place::Dead) => self.dead = self.dead.saturating_sub(1),
            None => {}
        }
    }

    fn leave_line(&mut self, line: Line, due: Millis) {
        let Some(lane) = self.lanes.get_mut(&line) else { return };
        if due <= self.now {
            lane.due = lane.due.saturating_sub(1);
            self.due = self.due.saturating_sub(1);
        } else if let Some(tasks) = lane.later.get_mut(&due) {
            *tasks -= 1;
            if *tasks == 0 {
                lane.later.remove(&due);
            }
            self.delayed -= 1;
        }
        if lane.due == 0 && lane.later.is_empty() {
            self.lanes.remove(&line);
        }
    }

    /// The highest priority that has a task that is due.
    pub(super) fn first_lane(&self) -> Option<i16> {
        self.lanes.iter().rev().filter(|(_, lane)| lane.due > 0).find_map(|(line, _)| match line {
            Line::Priority(priority) => Some(*priority),
            Line::Suspects => None,
        })
    }

    /// Whether one that runs alone is due.
    pub(super) fn suspect_is_due(&self) -> bool {
        self.lanes.get(&Line::Suspects).is_some_and(|lane| lane.due > 0)
    }

    /// When the next task becomes due.
    pub(super) fn next_due(&self) -> Option<Millis> {
        if self.delayed == 0 {
            return None;
        }
        self.lanes.values().filter_map(|lane| lane.later.keys().next().copied()).min()
    }

    /// All that wait.
    pub(super) fn queued(&self) -> u64 {
        self.due + self.delayed
    }

    pub(super) fn owned(&self) -> Owned {
        let delayed = self.next_due().map(|next| Delayed { tasks: self.delayed, next });
        Owned { queued: self.queued(), running: self.running, delayed }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { queued: self.due, delayed: self.delayed, running: self.running, dead: self.dead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(priority: i16, due: Millis) -> Option<Place> {
        Some(Place::Waiting { line: Line::Priority(priority), due })
    }

    #[test]
    fn those_that_run_alone_are_in_no_priority() {
        let suspect = |due| Some(Place::Waiting { line: Line::of(5, SUSPECT), due });
        let mut ledger = Ledger::default();
        ledger.advance(10);
        ledger.step(None, suspect(20));
        ledger.step(None, waiting(-3, 5));
        assert_eq!((ledger.first_lane(), ledger.suspect_is_due(), ledger.queued()), (Some(-3), false, 2));
        ledger.step(waiting(-3, 5), None);
        ledger.advance(20);
        assert_eq!((ledger.first_lane(), ledger.suspect_is_due(), ledger.queued()), (None, true, 1));
    }

    #[test]
    fn what_is_undone_was_never_counted() {
        let mut ledger = Ledger::default();
        ledger.advance(10);
        ledger.step(None, waiting(0, 10));
        ledger.step(None, waiting(5, 30));
        ledger.keep();
        let before = ledger.counts();
        ledger.step(waiting(0, 10), Some(Place::Running));
        ledger.step(Some(Place::Running), Some(Place::Dead));
        ledger.step(waiting(5, 30), None);
        ledger.advance(40);
        ledger.undo();
        assert_eq!(ledger.counts(), Counts { queued: before.queued + 1, delayed: 0, ..before });
        assert_eq!(ledger.first_lane(), Some(5));
    }

    #[test]
    fn the_due_come_by_priority_and_the_delayed_by_their_time() {
        let mut ledger = Ledger::default();
        ledger.advance(10);
        ledger.step(None, waiting(1, 5));
        ledger.step(None, waiting(9, 20));
        ledger.step(None, waiting(7, 25));
        assert_eq!((ledger.first_lane(), ledger.next_due()), (Some(1), Some(20)));
        assert_eq!(
            ledger.owned(),
            Owned { queued: 3, running: 0, delayed: Some(Delayed { tasks: 2, next: 20 }) }
        );
        ledger.advance(20);
        assert_eq!((ledger.first_lane(), ledger.next_due()), (Some(9), Some(25)));
        ledger.step(waiting(9, 20), None);
        ledger.step(waiting(1, 5), None);
        assert_eq!((ledger.first_lane(), ledger.next_due()), (None, Some(25)));
        assert_eq!(ledger.counts(), Counts { delayed: 1, ..Counts::default() });
        ledger.advance(25);
        assert_eq!(ledger.owned(), Owned { queued: 1, ..Owned::default() });
    }
}
