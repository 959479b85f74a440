//! What waits and what runs, counted in memory in step with the disk: a transaction that fails is taken back here too.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

pub(super) use self::queue::Bucket;
use self::queue::Queue;
use crate::interruption::SUSPECT;
use crate::queue::{DEFAULT_QUEUE, QueueCounts, QueueRecord, QueueSettings};
use crate::task::{Counts, Delayed, Millis, Owned};

mod queue;

/// Where a task counts; those that ended well or were cancelled count nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Waiting { line: Line, due: Millis },
    Running(Lane),
    Dead,
}

/// Whose turn a task waits for: its queue's, and in it its key's. The key of those that have none is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) queue: Arc<str>,
    pub(super) key: Arc<str>,
}

/// Which line it waits in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) lane: Lane,
    pub(super) rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Of those that run alone.
    Suspect,
    Priority(i16),
}

impl Rank {
    pub(super) fn of(priority: i16, interrupted: u16) -> Self {
        if interrupted < SUSPECT { Self::Priority(priority) } else { Self::Suspect }
    }
}

/// The names that nearly all tasks have.
static USUAL: LazyLock<Lane> = LazyLock::new(|| Lane { queue: Arc::from(DEFAULT_QUEUE), key: Arc::from("") });

/// The usual one.
impl Default for Lane {
    fn default() -> Self {
        USUAL.clone()
    }
}

impl Lane {
    pub(super) fn of(queue: &str, key: &str) -> Self {
        let or = |usual: &Arc<str>, name: &str| {
            if **usual == *name { usual.clone() } else { Arc::from(name) }
        };
        Self { queue: or(&USUAL.queue, queue), key: or(&USUAL.key, key) }
    }
}

/// A task's step from one place to another.
#[derive(Debug)]
struct Step {
    from: Option<Place>,
    to: Option<Place>,
}

/// What a queue was before it was changed.
#[derive(Debug)]
struct Before {
    name: Arc<str>,
    known: bool,
    settings: QueueSettings,
    paused: bool,
    bucket: Option<Bucket>,
}

/// Tasks that may be claimed next: of one queue, one key and one priority, so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) lane: Lane,
    pub(super) priority: i16,
    pub(super) most: usize,
}

/// The counts, as of the steps taken; those since the last [`Ledger::keep`] can be undone.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// All that is due by then is counted as due; never decreases.
    now: Millis,
    queues: BTreeMap<Arc<str>, Queue>,
    /// How many become due when.
    later: BTreeMap<(Millis, Line), u64>,
    due: u64,
    delayed: u64,
    running: u64,
    dead: u64,
    /// Turns that were taken.
    turn: u64,
    steps: Vec<Step>,
    changed: Vec<Before>,
    spent: Vec<(Arc<str>, Bucket)>,
}

impl Ledger {
    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Millis) {
        self.now = self.now.max(now);
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let ((_, line), tasks) = entry.remove_entry();
            let tasks = i64::try_from(tasks).unwrap_or(i64::MAX);
            self.delay(&line, -tasks);
            self.wait(&line, tasks);
        }
    }

    /// A task goes from one place to another.
    pub(super) fn step(&mut self, from: Option<Place>, to: Option<Place>) {
        self.count(from.as_ref(), to.as_ref());
        self.steps.push(Step { from, to });
    }

    /// A task of this lane is started: that was its turn.
    pub(super) fn start(&mut self, lane: &Lane) {
        self.turn += 1;
        let (turn, now) = (self.turn, self.now);
        let queue = self.queue(&lane.queue);
        let spent = queue.spend(now);
        queue.serve(&lane.key, turn);
        self.spent.extend(spent.map(|before| (lane.queue.clone(), before)));
    }

    /// The steps are on disk. Whether a queue was changed by them.
    pub(super) fn keep(&mut self) -> bool {
        self.steps.clear();
        self.spent.clear();
        let changed = std::mem::take(&mut self.changed);
        for Before { name, .. } in &changed {
            self.drop_if_gone(name);
        }
        !changed.is_empty()
    }

    /// The steps since then never were: their transaction was not written to disk.
    pub(super) fn undo(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        for Step { from, to } in steps.drain(..).rev() {
            self.count(to.as_ref(), from.as_ref());
        }
        self.steps = steps;
        for Before { name, known, settings, paused, bucket } in
            std::mem::take(&mut self.changed).into_iter().rev()
        {
            let queue = self.queue(&name);
            (queue.known, queue.paused) = (known, paused);
            queue.set(settings);
            queue.fill(bucket);
            self.drop_if_gone(&name);
        }
        for (name, bucket) in std::mem::take(&mut self.spent).into_iter().rev() {
            if let Some(queue) = self.queues.get_mut(&name) {
                queue.fill(Some(bucket));
            }
        }
    }

    fn queue(&mut self, name: &Arc<str>) -> &mut Queue {
        self.queues.entry(name.clone()).or_default()
    }

    fn count(&mut self, from: Option<&Place>, to: Option<&Place>) {
        // First where it comes to: what is left with nothing is forgotten.
        if let Some(to) = to {
            self.shift(to, 1);
        }
        if let Some(from) = from {
            self.shift(from, -1);
        }
    }

    fn shift(&mut self, place: &Place, by: i64) {
        match place {
            Place::Waiting { line, due } if *due <= self.now => self.wait(line, by),
            Place::Waiting { line, due } => {
                let tasks = self.later.entry((*due, line.clone())).or_default();
                *tasks = tasks.saturating_add_signed(by);
                if *tasks == 0 {
                    self.later.remove(&(*due, line.clone()));
                }
                self.delay(line, by);
            }
            Place::Running(lane) => {
                self.running = self.running.saturating_add_signed(by);
                let turn = self.turn;
                self.queue(&lane.queue).run(&lane.key, by, turn);
            }
            Place::Dead => self.dead = self.dead.saturating_add_signed(by),
        }
    }

    fn wait(&mut self, line: &Line, by: i64) {
        self.due = self.due.saturating_add_signed(by);
        let turn = self.turn;
        let queue = self.queue(&line.lane.queue);
        match line.rank {
            Rank::Priority(priority) => queue.due(&line.lane.key, priority, by, turn),
            Rank::Suspect => {
                queue.suspects = queue.suspects.saturating_add_signed(by);
                queue.due = queue.due.saturating_add_signed(by);
            }
        }
    }

    fn delay(&mut self, line: &Line, by: i64) {
        self.delayed = self.delayed.saturating_add_signed(by);
        let queue = self.queue(&line.lane.queue);
        queue.delayed = queue.delayed.saturating_add_signed(by);
    }

    /// What is to be claimed next: of the queue that has the fewest places, or had its turn the longest ago among such.
    pub(super) fn next(&self) -> Option<Next> {
        let mut open =
            self.queues.iter().filter(|(_, queue)| queue.has_turn() && queue.room_beside(self.now) > 0);
        let first = open.next()?;
        let mut alone = true;
        let (name, queue) = open
            .inspect(|_| alone = false)
            .fold(first, |best, other| if turn(other.1) < turn(best.1) { other } else { best });
        let (key, priority, most) = queue.next(self.now)?;
        let most = if alone { usize::try_from(most).unwrap_or(usize::MAX) } else { 1 };
        Some(Next { lane: Lane { queue: name.clone(), key }, priority, most })
    }

    /// Whether one is due that runs alone, and waits for what runs now.
    pub(super) fn suspect_is_due(&self) -> bool {
        self.queues.values().any(|queue| queue.has_suspect(self.now))
    }

    /// The queue whose turn it is among those that have one due that runs alone.
    pub(super) fn next_suspects(&self) -> Option<Arc<str>> {
        let open = self.queues.iter().filter(|(_, queue)| queue.suspects > 0 && queue.room(self.now) > 0);
        open.min_by_key(|(_, queue)| turn(queue)).map(|(name, _)| name.clone())
    }

    /// When the next task becomes due.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    /// When something can be done that could not be done before, unless somebody does something else.
    pub(super) fn next_change(&self) -> Option<Millis> {
        self.queues.values().filter_map(|queue| queue.next_start(self.now)).chain(self.next_due()).min()
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

/// Whose turn it is: the lowest.
fn turn(queue: &Queue) -> (u64, u64) {
    (queue.running, queue.served)
}

/// Queues as they are declared.
impl Ledger {
    pub(super) fn knows(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|queue| queue.known)
    }

    /// How many are declared.
    pub(super) fn known(&self) -> usize {
        self.queues.values().filter(|queue| queue.known).count()
    }

    pub(super) fn is_empty(&self, queue: &str) -> bool {
        self.queues.get(queue).is_none_or(Queue::is_empty)
    }

    pub(super) fn settings(&self, queue: &str) -> QueueSettings {
        self.queues.get(queue).map(|queue| queue.settings).unwrap_or_default()
    }

    /// A queue is there, or has other settings.
    pub(super) fn declare(&mut self, name: &str, settings: QueueSettings) {
        let queue = self.change(name);
        queue.known = true;
        queue.set(settings);
    }

    /// What a queue's bucket held when it was written down.
    pub(super) fn fill(&mut self, name: &str, bucket: Option<Bucket>) {
        let name = Lane::of(name, "").queue;
        self.queue(&name).fill(bucket);
    }

    /// Queues out of whose buckets starts were taken in this transaction, and what is left.
    pub(super) fn spent(&self) -> BTreeMap<&str, Bucket> {
        let left = |(name, _): &'_ (Arc<str>, Bucket)| -> Option<(&str, Bucket)> {
            let (name, queue) = self.queues.get_key_value(name)?;
            Some((name, queue.bucket()?))
        };
        self.spent.iter().filter_map(left).collect()
    }

    pub(super) fn pause(&mut self, name: &str, paused: bool) {
        self.change(name).paused = paused;
    }

    /// It is not there any more; nothing is in it.
    pub(super) fn forget(&mut self, name: &str) {
        let queue = self.change(name);
        (queue.known, queue.paused) = (false, false);
        queue.set(QueueSettings::default());
    }

    /// Who makes queues and removes them again would else leave ever more of them behind, each of which every claim looks at.
    fn drop_if_gone(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(|queue| !queue.known && queue.is_empty()) {
            self.queues.remove(name);
        }
    }

    fn change(&mut self, name: &str) -> &mut Queue {
        let name = Lane::of(name, "").queue;
        let queue = self.queues.entry(name.clone()).or_default();
        let Queue { known, settings, paused, .. } = *queue;
        self.changed.push(Before { name, known, settings, paused, bucket: queue.bucket() });
        queue
    }

    /// The time by which tasks are due; other clocks may be behind it.
    pub(super) fn now(&self) -> Millis {
        self.now
    }

    /// All that are declared, by name; not since when their oldest tasks have been due.
    pub(super) fn records(&self) -> Vec<QueueRecord> {
        let known = self.queues.iter().filter(|(_, queue)| queue.known);
        known
            .map(|(name, queue)| {
                let Queue { settings, paused, due, delayed, running, .. } = *queue;
                let counts = QueueCounts { queued: due, delayed, running, oldest: None };
                QueueRecord { name: name.to_string(), settings, paused, counts }
            })
            .collect()
    }

    /// What the queues' tasks may take, by name.
    pub(super) fn all_settings(&self) -> BTreeMap<String, QueueSettings> {
        let known = self.queues.iter().filter(|(_, queue)| queue.known);
        known.map(|(name, queue)| (name.to_string(), queue.settings)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::queue::Rate;

    fn line(queue: &str, key: &str, priority: i16) -> Line {
        Line { lane: Lane::of(queue, key), rank: Rank::Priority(priority) }
    }

    fn waiting(priority: i16, due: Millis) -> Option<Place> {
        Some(Place::Waiting { line: line(DEFAULT_QUEUE, "", priority), due })
    }

    fn first_lane(ledger: &Ledger) -> Option<i16> {
        ledger.next().map(|next| next.priority)
    }

    /// So many tasks wait there, due.
    fn fill(ledger: &mut Ledger, queue: &str, key: &str, tasks: u64) {
        for _ in 0..tasks {
            ledger.step(None, Some(Place::Waiting { line: line(queue, key, 0), due: 0 }));
        }
        ledger.keep();
    }

    /// Claims one task after the other; of which lanes they were.
    fn claim(ledger: &mut Ledger, tasks: usize) -> Vec<String> {
        let mut claimed = Vec::new();
        while claimed.len() < tasks
            && let Some(Next { lane, priority, .. }) = ledger.next()
        {
            let from =
                Place::Waiting { line: Line { lane: lane.clone(), rank: Rank::Priority(priority) }, due: 0 };
            ledger.step(Some(from), Some(Place::Running(lane.clone())));
            ledger.start(&lane);
            claimed.push(format!("{}{}", lane.queue, lane.key));
        }
        claimed
    }

    fn limits(concurrency: u32, per_key: u32) -> QueueSettings {
        let (concurrency, per_key) = (NonZeroU32::new(concurrency), NonZeroU32::new(per_key));
        QueueSettings { concurrency, per_key, ..QueueSettings::default() }
    }

    #[test]
    fn a_flood_of_one_queue_leaves_the_others_their_places() {
        let mut ledger = Ledger::default();
        fill(&mut ledger, "flood", "", 100);
        claim(&mut ledger, 5);
        fill(&mut ledger, "b", "", 3);
        fill(&mut ledger, "c", "", 3);
        assert_eq!(claim(&mut ledger, 7), ["b", "c", "b", "c", "b", "c", "flood"]);
    }

    #[test]
    fn keys_take_turns_and_none_has_more_places_than_it_may() {
        let mut ledger = Ledger::default();
        ledger.declare("q", limits(0, 2));
        fill(&mut ledger, "q", "x", 100);
        fill(&mut ledger, "q", "y", 1);
        fill(&mut ledger, "q", "", 3);
        assert_eq!(claim(&mut ledger, 4), ["q", "qx", "qy", "q"]);
        assert_eq!(claim(&mut ledger, 9), ["qx", "q"], "x has its two places");
        let lane = Lane::of("q", "x");
        ledger.step(Some(Place::Running(lane)), None);
        assert_eq!(claim(&mut ledger, 9), ["qx"]);
    }

    #[test]
    fn a_queue_starts_no_more_than_its_places_and_its_bucket_allow() {
        let mut ledger = Ledger::default();
        ledger.declare("q", limits(3, 0));
        fill(&mut ledger, "q", "", 100);
        assert_eq!(claim(&mut ledger, 9).len(), 3);
        let rate = Rate { per_second: 2.0, burst: NonZeroU32::new(2).unwrap() };
        ledger.declare("q", QueueSettings { rate: Some(rate), ..QueueSettings::default() });
        assert_eq!(claim(&mut ledger, 9).len(), 2);
        assert_eq!(ledger.next_change(), Some(500));
        ledger.advance(499);
        assert_eq!(claim(&mut ledger, 9).len(), 0);
        ledger.advance(500);
        assert_eq!(claim(&mut ledger, 9).len(), 1);
        ledger.keep();
        ledger.advance(1000);
        assert_eq!(claim(&mut ledger, 9).len(), 1);
        ledger.undo();
        assert_eq!(claim(&mut ledger, 9).len(), 1, "a start that never was costs none");
    }

    #[test]
    fn a_paused_queue_starts_nothing_and_nobody_is_woken_for_it() {
        let mut ledger = Ledger::default();
        fill(&mut ledger, "q", "", 1);
        ledger.pause("q", true);
        assert_eq!((ledger.next(), ledger.next_change(), ledger.queued()), (None, None, 1));
        ledger.undo();
        assert_eq!(claim(&mut ledger, 9), ["q"]);
    }

    #[test]
    fn a_key_that_comes_again_and_again_is_behind_those_who_wait() {
        let mut ledger = Ledger::default();
        ledger.declare("q", limits(1, 0));
        fill(&mut ledger, "q", "slow", 5);
        let mut claimed = Vec::new();
        for _ in 0..4 {
            fill(&mut ledger, "q", "again", 1);
            let one = claim(&mut ledger, 1);
            let key = one[0].trim_start_matches('q').to_owned();
            ledger.step(Some(Place::Running(Lane::of("q", &key))), None);
            claimed.push(key);
        }
        assert_eq!(claimed.iter().filter(|key| *key == "slow").count(), 2, "{claimed:?}");
    }

    #[test]
    fn a_queue_that_was_removed_leaves_nothing_behind() {
        let mut ledger = Ledger::default();
        for name in ["a", "b", "c"] {
            ledger.declare(name, limits(1, 0));
            ledger.keep();
            ledger.forget(name);
            ledger.keep();
        }
        ledger.declare("d", limits(1, 0));
        ledger.undo();
        assert!(ledger.queues.is_empty(), "{:?}", ledger.queues);
        fill(&mut ledger, "e", "", 1);
        ledger.forget("e");
        ledger.keep();
        assert_eq!(ledger.counts().queued, 1, "what waits is counted, whatever becomes of its queue");
    }

    #[test]
    fn a_bucket_that_was_thrown_away_and_was_not_is_as_full_as_before() {
        let mut ledger = Ledger::default();
        let rate = Some(Rate { per_second: 0.001, burst: NonZeroU32::new(3).unwrap() });
        ledger.declare("q", QueueSettings { rate, ..QueueSettings::default() });
        fill(&mut ledger, "q", "", 9);
        assert_eq!(claim(&mut ledger, 2).len(), 2);
        ledger.keep();
        ledger.declare("q", QueueSettings::default());
        ledger.undo();
        assert_eq!(claim(&mut ledger, 9).len(), 1);
    }

    #[test]
    fn time_goes_on_by_a_clock_that_was_set_back() {
        let mut ledger = Ledger::default();
        ledger.advance(20);
        ledger.advance(10);
        assert_eq!(ledger.now(), 20);
    }

    fn suspect(queue: &str) -> Place {
        Place::Waiting { line: Line { lane: Lane::of(queue, ""), rank: Rank::Suspect }, due: 0 }
    }

    #[test]
    fn one_that_runs_alone_waits_for_no_gap_among_those_that_fill_its_queue() {
        let mut ledger = Ledger::default();
        ledger.declare("q", limits(1, 0));
        ledger.step(None, Some(suspect("q")));
        fill(&mut ledger, "q", "", 100);
        assert_eq!(claim(&mut ledger, 9), ["q"], "the queue has one place");
        assert!(ledger.suspect_is_due(), "or nobody would ever let the queue run empty");
        assert!(ledger.next_suspects().is_none(), "and it begins only then");
        ledger.step(Some(Place::Running(Lane::of("q", ""))), None);
        assert!(ledger.next_suspects().is_some());
        ledger.pause("q", true);
        assert!(!ledger.suspect_is_due());
    }

    #[test]
    fn one_that_runs_alone_has_the_next_start_of_its_queue() {
        let mut ledger = Ledger::default();
        let rate = Some(Rate { per_second: 1.0, burst: NonZeroU32::new(2).unwrap() });
        ledger.declare("q", QueueSettings { rate, ..QueueSettings::default() });
        ledger.step(None, Some(suspect("q")));
        fill(&mut ledger, "q", "", 100);
        assert_eq!(claim(&mut ledger, 9), ["q"], "the other of two starts is kept");
        assert!(ledger.suspect_is_due());
        assert_eq!(ledger.next_change(), None, "nobody is woken for what is kept");
        ledger.step(Some(suspect("q")), Some(Place::Running(Lane::of("q", ""))));
        ledger.start(&Lane::of("q", ""));
        assert!(!ledger.suspect_is_due());
        assert_eq!(ledger.next_change(), Some(1000));
        ledger.advance(1000);
        assert_eq!(claim(&mut ledger, 9), ["q"]);
    }

    #[test]
    fn those_that_run_alone_are_in_no_priority() {
        let suspect = |due| {
            Some(Place::Waiting {
                line: Line { lane: Lane::of(DEFAULT_QUEUE, ""), rank: Rank::of(5, SUSPECT) },
                due,
            })
        };
        let mut ledger = Ledger::default();
        ledger.advance(10);
        ledger.step(None, suspect(20));
        ledger.step(None, waiting(-3, 5));
        assert_eq!((first_lane(&ledger), ledger.suspect_is_due(), ledger.queued()), (Some(-3), false, 2));
        ledger.step(waiting(-3, 5), None);
        ledger.advance(20);
        assert_eq!((first_lane(&ledger), ledger.suspect_is_due(), ledger.queued()), (None, true, 1));
    }

    #[test]
    fn what_is_undone_was_never_counted() {
        let mut ledger = Ledger::default();
        ledger.advance(10);
        ledger.step(None, waiting(0, 10));
        ledger.step(None, waiting(5, 30));
        ledger.keep();
        let before = ledger.counts();
        ledger.step(waiting(0, 10), Some(Place::Running(Lane::of(DEFAULT_QUEUE, ""))));
        ledger.step(Some(Place::Running(Lane::of(DEFAULT_QUEUE, ""))), Some(Place::Dead));
        ledger.step(waiting(5, 30), None);
        ledger.advance(40);
        ledger.undo();
        assert_eq!(ledger.counts(), Counts { queued: before.queued + 1, delayed: 0, ..before });
        assert_eq!(first_lane(&ledger), Some(5));
    }

    #[test]
    fn the_due_come_by_priority_and_the_delayed_by_their_time() {
        let mut ledger = Ledger::default();
        ledger.advance(10);
        ledger.step(None, waiting(1, 5));
        ledger.step(None, waiting(9, 20));
        ledger.step(None, waiting(7, 25));
        assert_eq!((first_lane(&ledger), ledger.next_due()), (Some(1), Some(20)));
        assert_eq!(
            ledger.owned(),
            Owned { queued: 3, running: 0, delayed: Some(Delayed { tasks: 2, next: 20 }) }
        );
        ledger.advance(20);
        assert_eq!((first_lane(&ledger), ledger.next_due()), (Some(9), Some(25)));
        ledger.step(waiting(9, 20), None);
        ledger.step(waiting(1, 5), None);
        assert_eq!((first_lane(&ledger), ledger.next_due()), (None, Some(25)));
        assert_eq!(ledger.counts(), Counts { delayed: 1, ..Counts::default() });
        ledger.advance(25);
        assert_eq!(ledger.owned(), Owned { queued: 1, ..Owned::default() });
    }
}
