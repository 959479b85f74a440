//! What may be claimed now: the lines that have something due, of queues that let it start, and how long until there is more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Row, query};

use super::line::{BEFORE, BOUNDED, BOUNDED_LOCKED, FILL, LINES, MOST_LINES, RUNNING};
use super::queues::settings;
use super::running::Lane;
use super::turns::{Line, Standing, Turns};
use crate::interruption::SUSPECT;
use crate::queue::QueueSettings;
use crate::task::Millis;

/// Pages that one look reads at most: claims hold the locks of the bounded queues meanwhile.
const MOST_PAGES: usize = 4;

/// A bucket that was filled so much later than now, in milliseconds, was not filled by the clock that is asked now.
const AHEAD: Millis = 1000;

/// A queue that is bounded, as it stands: what it may take is counted.
#[derive(Debug)]
pub(super) struct Bounded {
    name: String,
    settings: QueueSettings,
    /// What its bucket holds.
    tokens: f64,
    now: Millis,
    running: usize,
    lanes: HashMap<String, usize>,
}

impl Bounded {
    fn read(row: &PgRow) -> sqlx::Result<Self> {
        let (settings, now) = (settings(row)?, row.try_get("now")?);
        let held = row.try_get::<Option<f64>, _>("tokens")?.zip(row.try_get::<Option<Millis>, _>("filled")?);
        let tokens = match (settings.rate, held) {
            (None, _) => f64::INFINITY,
            (Some(rate), None) => f64::from(rate.burst.get()),
            // By a clock that was ahead; a moment may lie between two statements.
            (Some(rate), Some((_, at))) if at - now > AHEAD => f64::from(rate.burst.get()),
            (Some(rate), Some((tokens, at))) => rate.filled(tokens, now - at),
        };
        let name = row.try_get("name")?;
        Ok(Self { name, settings, tokens, now, running: 0, lanes: HashMap::new() })
    }

    fn room(&self) -> usize {
        let places = match self.settings.concurrency {
            Some(most) => (most.get() as usize).saturating_sub(self.running),
            None => usize::MAX,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float that is too large becomes the largest number"
        )]
        let starts = self.tokens.max(0.0) as usize;
        places.min(starts)
    }

    /// In how many milliseconds its bucket has a start, if it is that alone which is waited for.
    fn next_start(&self) -> Option<Millis> {
        let full = self.settings.concurrency.is_some_and(|most| self.running >= most.get() as usize);
        self.settings.rate.filter(|_| !full && self.tokens < 1.0).map(|rate| rate.until_one(self.tokens))
    }

    fn places(&self, lane: &str) -> usize {
        match self.settings.per_key {
            Some(most) if !lane.is_empty() => {
                (most.get() as usize).saturating_sub(self.lanes.get(lane).copied().unwrap_or(0))
            }
            _ => usize::MAX,
        }
    }
}

/// Bounded queues, by name. Those that another claim has locked are not among them.
#[derive(Debug, Default)]
pub(super) struct Bounds(BTreeMap<String, Bounded>);

impl Bounds {
    pub(super) async fn count(connection: &mut PgConnection, lock: bool) -> sqlx::Result<Self> {
        let asked = query(if lock { BOUNDED_LOCKED } else { BOUNDED });
        let mut all = BTreeMap::new();
        for row in asked.fetch_all(&mut *connection).await? {
            let queue = Bounded::read(&row)?;
            all.insert(queue.name.clone(), queue);
        }
        if !all.is_empty() {
            // A statement of its own: it sees what those have begun who had the locks before.
            let names: Vec<_> = all.keys().cloned().collect();
            for row in query(RUNNING).bind(names).fetch_all(&mut *connection).await? {
                let Some(queue) = all.get_mut(row.try_get::<&str, _>("queue")?) else { continue };
                let running = usize::try_from(row.try_get::<i64, _>("running")?).unwrap_or(0);
                queue.running += running;
                queue.lanes.insert(row.try_get("lane")?, running);
            }
        }
        Ok(Self(all))
    }

    /// Those of which something may start.
    pub(super) fn open(&self) -> Vec<&str> {
        self.0.values().filter(|queue| queue.room() > 0).map(|queue| queue.name.as_str()).collect()
    }

    /// Queues, and as many keys, that have no place left.
    pub(super) fn full(&self) -> (Vec<&str>, Vec<&str>) {
        let lanes = self.0.values().flat_map(|queue| {
            let full = queue.lanes.keys().filter(|lane| queue.places(lane) == 0);
            full.map(|lane| (queue.name.as_str(), lane.as_str()))
        });
        lanes.unzip()
    }

    /// Writes down that so many of each queue were started.
    pub(super) async fn spend(
        &self,
        connection: &mut PgConnection,
        started: &HashMap<Arc<str>, usize>,
    ) -> sqlx::Result<()> {
        let spent = started.iter().filter_map(|(name, starts)| {
            let queue = self.0.get(&**name).filter(|queue| queue.settings.rate.is_some())?;
            #[expect(clippy::cast_precision_loss, reason = "a claim brings no more than there are places")]
            Some((queue.name.as_str(), queue.tokens - *starts as f64, queue.now))
        });
        let spent: Vec<_> = spent.collect();
        let Some(now) = spent.first().map(|(_, _, now)| *now) else { return Ok(()) };
        query(FILL)
            .bind(spent.iter().map(|(name, _, _)| *name).collect::<Vec<_>>())
            .bind(spent.iter().map(|(_, tokens, _)| *tokens).collect::<Vec<_>>())
            .bind(now)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// What this process remembers between two claims.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    turn: u64,
    /// When each queue last had its turn.
    served: HashMap<Arc<str>, u64>,
    /// The key of each that had it.
    after: HashMap<Arc<str>, Arc<str>>,
    /// Where to begin in queues that have more lines than are looked at in one go.
    laps: Laps,
}

impl Memory {
    /// These were claimed, of what was found.
    pub(super) fn served(&self, lanes: &[Lane], survey: &Survey) {
        let mut memory = self.0.lock();
        for (queue, _) in lanes {
            memory.turn += 1;
            let turn = memory.turn;
            memory.served.insert(queue.clone(), turn);
        }
        for (queue, key) in survey.turns.last() {
            if !lanes.iter().any(|(served, _)| served == queue) {
                continue;
            }
            memory.after.insert(queue.clone(), key.clone());
            if survey.crowded.contains(queue) {
                memory.laps.insert(queue.clone(), Lap::after(key));
            } else {
                memory.laps.remove(queue);
            }
        }
    }

    fn served_at(&self, queue: &str) -> (u64, Option<Arc<str>>) {
        let memory = self.0.lock();
        (memory.served.get(queue).copied().unwrap_or(0), memory.after.get(queue).cloned())
    }

    fn laps(&self) -> Laps {
        self.0.lock().laps.clone()
    }

    /// The next look goes on there.
    fn left_at(&self, laps: Laps) {
        self.0.lock().laps = laps;
    }
}

/// A key, and the rank of a line of it.
type Place = (Arc<str>, i32);

/// A look through all lines of a queue that has many, a page at a time.
#[derive(Debug, Clone)]
struct Lap {
    /// After which line to look.
    at: Place,
    /// Where it began, while what is before that is still to be looked at.
    began: Option<Place>,
    /// Where it ends, once it has begun anew at the first line.
    end: Option<Place>,
}

/// The laps, by queue.
type Laps = HashMap<Arc<str>, Lap>;

impl Lap {
    /// Begins after a key.
    fn after(key: &Arc<str>) -> Self {
        let at = (key.clone(), i32::MAX);
        Self { began: Some(at.clone()), at, end: None }
    }

    /// How it goes on after these lines, in which nothing is due; a look that has no lap began at the first line.
    fn next(lap: Option<Self>, lines: &[Found]) -> Option<Self> {
        let (began, end) = lap.map_or((None, None), |lap| (lap.began, lap.end));
        match lines.last().filter(|_| lines.len() == MOST_LINES) {
            Some(last) => {
                let at = (last.line.lane.clone(), last.line.rank);
                let all = end.as_ref().is_some_and(|end| at >= *end);
                (!all).then_some(Self { at, began, end })
            }
            None => began.map(|began| Self { at: ("".into(), BEFORE), began: None, end: Some(began) }),
        }
    }
}

/// What may be claimed, and when there may be more.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) bounds: Bounds,
    pub(super) turns: Turns,
    /// In how many milliseconds something more is due; not above 0 if something is.
    pub(super) wait: Option<Millis>,
    /// Queues that have more lines than were looked at, or were not looked at from the beginning.
    pub(super) crowded: Vec<Arc<str>>,
    /// There are lines that were not looked at: the next look does.
    pub(super) unfinished: bool,
}

/// What is asked, and by whom.
#[derive(Debug)]
pub(super) struct Surveyor<'a> {
    pub(super) kinds: &'a [String],
    pub(super) memory: &'a Memory,
    /// What runs in this process.
    pub(super) running: HashMap<Lane, usize>,
}

impl Surveyor<'_> {
    pub(super) async fn look(&self, connection: &mut PgConnection, bounds: Bounds) -> sqlx::Result<Survey> {
        let mut survey = Survey { bounds, ..Survey::default() };
        survey.wait = survey.bounds.0.values().filter_map(Bounded::next_start).min();
        let (mut laps, mut found) = (self.memory.laps(), Laps::new());
        for page in 1.. {
            let rows = self.lines(connection, &survey.bounds, &laps, page == 1).await?;
            // Of those that have a lap also where there is no line after it.
            let mut queues: BTreeMap<_, &[Found]> =
                laps.keys().map(|queue| (queue.clone(), &[][..])).collect();
            let of_queues = rows.chunk_by(|one, other| one.line.queue == other.line.queue);
            queues.extend(of_queues.map(|lines| (lines[0].line.queue.clone(), lines)));
            let (mut next, mut due) = (Laps::new(), false);
            for (queue, lines) in queues {
                let lap = laps.remove(&queue);
                if lines.len() == MOST_LINES || lap.is_some() {
                    survey.crowded.push(queue.clone());
                }
                if self.take_up(&mut survey, lines) {
                    due = true;
                    // Who comes to claim it begins at the same place.
                    found.extend(lap.map(|lap| (queue, lap)));
                } else {
                    next.extend(Lap::next(lap, lines).map(|lap| (queue, lap)));
                }
            }
            if due || next.is_empty() || page == MOST_PAGES {
                survey.unfinished = !next.is_empty();
                found.extend(next);
                self.memory.left_at(found);
                break;
            }
            laps = next;
        }
        Ok(survey)
    }

    /// The lines of one queue; whether anything of them may be claimed.
    fn take_up(&self, survey: &mut Survey, lines: &[Found]) -> bool {
        let mut any = false;
        for Found { line, wait } in lines {
            let Some(wait) = *wait else { continue };
            let bounded = survey.bounds.0.get(&*line.queue);
            let places = bounded.map_or(usize::MAX, |queue| queue.places(&line.lane));
            if places == 0 {
                continue;
            }
            survey.wait = Some(survey.wait.map_or(wait, |soonest| soonest.min(wait)));
            if wait > 0 {
                continue;
            }
            any = true;
            let (served, after) = self.memory.served_at(&line.queue);
            let of_queue = self.running.iter().filter(|((queue, _), _)| *queue == line.queue);
            let standing = Standing {
                running: of_queue.map(|(_, running)| running).sum(),
                served,
                room: bounded.map_or(usize::MAX, Bounded::room),
                after,
            };
            let key = (line.queue.clone(), line.lane.clone());
            let running = self.running.get(&key).copied().unwrap_or(0);
            survey.turns.add(line.clone(), standing, (running, places));
        }
        any
    }

    async fn lines(
        &self,
        connection: &mut PgConnection,
        bounds: &Bounds,
        laps: &Laps,
        all: bool,
    ) -> sqlx::Result<Vec<Found>> {
        let rows = query(LINES)
            .bind(self.kinds)
            .bind(i32::from(SUSPECT))
            .bind(bounds.open())
            .bind(laps.keys().map(|queue| &**queue).collect::<Vec<_>>())
            .bind(laps.values().map(|lap| &*lap.at.0).collect::<Vec<_>>())
            .bind(laps.values().map(|lap| lap.at.1).collect::<Vec<_>>())
            .bind(all)
            .fetch_all(connection)
            .await?;
        rows.iter().map(Found::read).collect()
    }
}

/// A line in which something waits.
#[derive(Debug)]
struct Found {
    line: Line,
    /// Until the first of it is due that we can run.
    wait: Option<Millis>,
}

impl Found {
    fn read(row: &PgRow) -> sqlx::Result<Self> {
        let name = |column| row.try_get::<&str, _>(column).map(Arc::from);
        let line = Line { queue: name("queue")?, lane: name("lane")?, rank: row.try_get("rank")? };
        Ok(Self { line, wait: row.try_get("wait")? })
    }
}
