//! Which app is planned next: one plan at a time for each, so many at once in all, and nobody waits behind others for long.
//!
//! # Guarantees
//! - What is being deleted, drained or rolled goes before what rests; what rests still gets every fourth turn.
//! - Namespaces take turns, and one alone never has all places: a webhook that answers after ten seconds there is waited for there.
//! - Where the API server itself fails, fewer plans are made at once, down to two, until it answers again.
//!
//! Pure: the caller brings the clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::app_ref::AppRef;

/// Plans at a time. Each waits for one to three calls at once; an API server gives one client about as many seats.
pub(crate) const PLANS: usize = 64;

/// Of those, for one namespace.
pub(crate) const OF_ONE_NAMESPACE: usize = PLANS / 4;

/// Plans at a time while the API server fails.
const FEWEST: usize = 2;

/// One turn in so many is for apps at rest, even while others never rest.
const REST_EVERY: u32 = 4;

/// How a plan ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// The next look, at the latest.
    pub(crate) after: Duration,
    /// The app moves, or goes.
    pub(crate) urgent: bool,
    /// The API server itself could not be read.
    pub(crate) strained: bool,
}

/// The turns of all apps.
#[derive(Debug)]
pub(crate) struct Schedule {
    turns: HashMap<AppRef, Turn>,
    urgent: Lane,
    resting: Lane,
    alarms: BTreeMap<(Instant, u64), AppRef>,
    alarms_set: u64,
    running: HashMap<String, usize>,
    limit: usize,
    taken: u32,
}

#[derive(Debug, Default)]
struct Turn {
    state: State,
    urgent: bool,
    alarm: Option<(Instant, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Queued,
    Running,
    /// And asked for again meanwhile.
    RunningAgain,
}

/// Apps that wait, by namespace, and the order in which namespaces are served.
#[derive(Debug, Default)]
struct Lane {
    order: VecDeque<String>,
    waiting: HashMap<String, VecDeque<AppRef>>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            turns: HashMap::new(),
            urgent: Lane::default(),
            resting: Lane::default(),
            alarms: BTreeMap::new(),
            alarms_set: 0,
            running: HashMap::new(),
            limit: PLANS,
            taken: 0,
        }
    }
}

impl Schedule {
    /// A plan is wanted. Asking twice is as good as once; `urgent` is taken back by the next plan's own word.
    pub(crate) fn ask(&mut self, app: &AppRef, urgent: bool) {
        let turn = self.turns.entry(app.clone()).or_default();
        let was_urgent = turn.urgent;
        turn.urgent |= urgent;
        match turn.state {
            State::Idle => {
                turn.state = State::Queued;
                let lane = if turn.urgent { &mut self.urgent } else { &mut self.resting };
                lane.push(app);
            }
            State::Queued if turn.urgent && !was_urgent => {
                self.resting.drop(app);
                self.urgent.push(app);
            }
            State::Running => turn.state = State::RunningAgain,
            State::Queued | State::RunningAgain => {}
        }
    }

    /// Asks for what is due.
    pub(crate) fn ring(&mut self, now: Instant) {
        while let Some(entry) = self.alarms.first_entry().filter(|entry| entry.key().0 <= now) {
            let app = entry.remove();
            if let Some(turn) = self.turns.get_mut(&app) {
                turn.alarm = None;
            }
            self.ask(&app, false);
        }
    }

    /// When something is due next.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.alarms.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whose turn it is, if there is a place. The caller plans it and says how it [`ended`](Self::ended).
    pub(crate) fn next(&mut self) -> Option<AppRef> {
        if self.running.values().sum::<usize>() >= self.limit {
            return None;
        }
        let resting_first = self.taken % REST_EVERY == REST_EVERY - 1;
        let (first, second) = if resting_first {
            (&mut self.resting, &mut self.urgent)
        } else {
            (&mut self.urgent, &mut self.resting)
        };
        let app = first.pop(&self.running).or_else(|| second.pop(&self.running))?;
        self.taken = self.taken.wrapping_add(1);
        *self.running.entry(app.namespace.clone().unwrap_or_default()).or_default() += 1;
        let turn = self.turns.entry(app.clone()).or_default();
        turn.state = State::Running;
        if let Some(alarm) = turn.alarm.take() {
            self.alarms.remove(&alarm);
        }
        Some(app)
    }

    /// A plan has ended.
    pub(crate) fn ended(&mut self, app: &AppRef, next: Next, now: Instant) {
        self.leave(app);
        self.limit = if next.strained { (self.limit / 2).max(FEWEST) } else { (self.limit + 1).min(PLANS) };
        let turn = self.turns.entry(app.clone()).or_default();
        let again = turn.state == State::RunningAgain;
        turn.state = State::Idle;
        turn.urgent = next.urgent;
        self.alarms_set += 1;
        let alarm = (now + next.after, self.alarms_set);
        turn.alarm = Some(alarm);
        self.alarms.insert(alarm, app.clone());
        if again {
            self.ask(app, false);
        }
    }

    /// The app whose turn it was is gone.
    pub(crate) fn gone(&mut self, app: &AppRef) {
        self.leave(app);
        let again = self.turns.remove(app).is_some_and(|turn| turn.state == State::RunningAgain);
        if again {
            self.ask(app, false); // it may have come back under its name
        }
    }

    fn leave(&mut self, app: &AppRef) {
        let namespace = app.namespace.clone().unwrap_or_default();
        if let Some(running) = self.running.get_mut(&namespace) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&namespace);
            }
        }
    }
}

impl Lane {
    fn push(&mut self, app: &AppRef) {
        let namespace = app.namespace.clone().unwrap_or_default();
        let waiting = self.waiting.entry(namespace.clone()).or_default();
        if waiting.is_empty() {
            self.order.push_back(namespace);
        }
        waiting.push_back(app.clone());
    }

    /// The next one of the next namespace that has a place left. At most a few namespaces can have none.
    fn pop(&mut self, running: &HashMap<String, usize>) -> Option<AppRef> {
        let free =
            |namespace: &String| running.get(namespace).copied().unwrap_or_default() < OF_ONE_NAMESPACE;
        let place = self.order.iter().position(free)?;
        let namespace = self.order.remove(place)?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let app = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.order.push_back(namespace);
        }
        app
    }

    fn drop(&mut self, app: &AppRef) {
        let namespace = app.namespace.clone().unwrap_or_default();
        let Some(waiting) = self.waiting.get_mut(&namespace) else { return };
        waiting.retain(|other| other != app);
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
            self.order.retain(|other| *other != namespace);
        }
    }
}

#[cfg(test)]
mod tests;
