//! One queue in the ledger: what is due in it, by key and priority, what runs, and whether more may start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::queue::QueueSettings;
use crate::task::Millis;

/// One key's part of a queue.
#[derive(Debug, Default)]
struct Lane {
    /// How many are due, by priority.
    due: BTreeMap<i16, u64>,
    running: u64,
    /// When it last had its turn.
    served: u64,
    /// Its place among those whose turn it may be.
    turn: Option<Turn>,
}

/// Fewest running first, then who waited longest.
type Turn = (u64, u64, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Whether it is in the table.
    pub(super) known: bool,
    pub(super) settings: QueueSettings,
    pub(super) paused: bool,
    bucket: Option<Bucket>,
    lanes: BTreeMap<Arc<str>, Lane>,
    /// The keys that have something due and room for one more.
    turns: BTreeSet<Turn>,
    pub(super) due: u64,
    pub(super) delayed: u64,
    pub(super) running: u64,
    /// Those that are due and run alone.
    pub(super) suspects: u64,
    /// When it last had its turn.
    pub(super) served: u64,
}

/// Starts that are left, and since when. A queue that never had a rate has none: it begins full.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::sqlite) struct Bucket {
    pub(in crate::sqlite) tokens: f64,
    pub(in crate::sqlite) at: Millis,
}

impl Queue {
    pub(super) fn set(&mut self, settings: QueueSettings) {
        if settings.rate.is_none() {
            self.bucket = None;
        }
        self.settings = settings;
        let keys: Vec<_> = self.lanes.keys().cloned().collect();
        for key in keys {
            self.place(&key);
        }
    }

    /// How many more may start now.
    pub(super) fn room(&self, now: Millis) -> u64 {
        if self.paused {
            return 0;
        }
        let places = match self.settings.concurrency {
            Some(most) => u64::from(most.get()).saturating_sub(self.running),
            None => u64::MAX,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bucket's tokens are few and not negative"
        )]
        let starts = self.settings.rate.map_or(u64::MAX, |_| self.tokens(now) as u64);
        places.min(starts)
    }

    /// The same for those that run beside others. A start is kept for one that has to run alone: who only looks once a second would never
    /// find any left.
    pub(super) fn room_beside(&self, now: Millis) -> u64 {
        let kept = u64::from(self.suspects > 0 && self.settings.rate.is_some());
        self.room(now).saturating_sub(kept)
    }

    /// Whether one that has to run alone is due and may start once all else has ended. What runs now is not in its way.
    pub(super) fn has_suspect(&self, now: Millis) -> bool {
        let starts = self.settings.rate.is_none_or(|_| self.tokens(now) >= 1.0);
        self.suspects > 0 && !self.paused && starts
    }

    fn tokens(&self, now: Millis) -> f64 {
        let Some(rate) = self.settings.rate else { return 0.0 };
        match self.bucket {
            Some(Bucket { tokens, at }) => rate.filled(tokens, now.saturating_sub(at)),
            None => f64::from(rate.burst.get()),
        }
    }

    /// When the bucket has a start, if it is that alone which is waited for.
    pub(super) fn next_start(&self, now: Millis) -> Option<Millis> {
        let begins = !self.turns.is_empty() || self.suspects > 0;
        let waits = begins && !self.paused && self.room(now) == 0;
        let full = self.settings.concurrency.is_some_and(|most| self.running >= u64::from(most.get()));
        let rate = self.settings.rate.filter(|_| waits && !full)?;
        Some(now.saturating_add(rate.until_one(self.tokens(now)).max(1)))
    }

    /// A start is taken out of the bucket, where there is one; what it held before.
    pub(super) fn spend(&mut self, now: Millis) -> Option<Bucket> {
        self.settings.rate?;
        let before = self.bucket;
        self.bucket = Some(Bucket { tokens: self.tokens(now) - 1.0, at: now });
        Some(before.unwrap_or(Bucket { tokens: self.tokens(now) + 1.0, at: now }))
    }

    pub(super) fn fill(&mut self, bucket: Option<Bucket>) {
        self.bucket = bucket;
    }

    pub(super) fn bucket(&self) -> Option<Bucket> {
        self.bucket
    }

    /// Whose turn it is: the key, its highest priority, and for how many it may be without asking again.
    pub(super) fn next(&self, now: Millis) -> Option<(Arc<str>, i16, u64)> {
        let (_, _, key) = self.turns.first()?;
        let lane = self.lanes.get(key)?;
        let (priority, _) = lane.due.last_key_value()?;
        let most = if self.turns.len() == 1 { self.room_beside(now).min(self.places(key, lane)) } else { 1 };
        Some((key.clone(), *priority, most))
    }

    pub(super) fn has_turn(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Places that a key may still take.
    fn places(&self, key: &str, lane: &Lane) -> u64 {
        match self.settings.per_key {
            Some(most) if !key.is_empty() => u64::from(most.get()).saturating_sub(lane.running),
            _ => u64::MAX,
        }
    }

    /// It had its turn just now.
    pub(super) fn serve(&mut self, key: &Arc<str>, turn: u64) {
        self.served = turn;
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.served = turn;
        }
        self.place(key);
    }

    /// So many more, or fewer, are due of a key and a priority. `turn` is now: who comes anew is behind those who wait.
    pub(super) fn due(&mut self, key: &Arc<str>, priority: i16, by: i64, turn: u64) {
        self.due = self.due.saturating_add_signed(by);
        let lane = self.lane(key, turn);
        let due = lane.due.entry(priority).or_default();
        *due = due.saturating_add_signed(by);
        if *due == 0 {
            lane.due.remove(&priority);
        }
        self.place(key);
    }

    pub(super) fn run(&mut self, key: &Arc<str>, by: i64, turn: u64) {
        self.running = self.running.saturating_add_signed(by);
        let lane = self.lane(key, turn);
        lane.running = lane.running.saturating_add_signed(by);
        self.place(key);
    }

    fn lane(&mut self, key: &Arc<str>, turn: u64) -> &mut Lane {
        self.lanes.entry(key.clone()).or_insert_with(|| Lane { served: turn, ..Lane::default() })
    }

    /// Puts a key in its place among the turns, or takes it from there.
    fn place(&mut self, key: &Arc<str>) {
        let Some(lane) = self.lanes.get(key) else { return };
        let open = !lane.due.is_empty() && self.places(key, lane) > 0;
        let turn = open.then(|| (lane.running, lane.served, key.clone()));
        let gone = lane.due.is_empty() && lane.running == 0;
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.turn != turn {
            if let Some(before) = lane.turn.take() {
                self.turns.remove(&before);
            }
            self.turns.extend(turn.clone());
            lane.turn = turn;
        }
        // Keys are the clients' own: one that is used no more is remembered no more.
        if gone {
            self.lanes.remove(key);
        }
    }

    /// Nothing waits in it and nothing of it runs.
    pub(super) fn is_empty(&self) -> bool {
        self.due + self.delayed + self.running == 0
    }
}
