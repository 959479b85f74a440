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
    /// Where to begin in queues that have more lines than are looked at: after the key that had its turn.
    after: HashMap<Arc<str>, Arc<str>>,
}

impl Memory {
    /// These were claimed, of queues of which so many lines were seen.
    pub(super) fn served(&self, lanes: &[Lane], survey: &Survey) {
        let mut memory = self.0.lock();
        for (queue, lane) in lanes {
            memory.turn += 1;
            let turn = memory.turn;
            memory.served.insert(queue.clone(), turn);
            if survey.crowded.contains(queue) {
                memory.after.insert(queue.clone(), lane.clone());
            } else {
                memory.after.remove(queue);
            }
        }
    }

    fn served_at(&self, queue: &str) -> u64 {
        self.0.lock().served.get(queue).copied().unwrap_or(0)
    }

    fn begin(&self) -> Cursors {
        let memory = self.0.lock();
        memory.after.iter().map(|(queue, lane)| (queue.to_string(), (lane.to_string(), i32::MAX))).collect()
    }
}

/// After which line to look, by queue.
type Cursors = HashMap<String, (String, i32)>;

/// What may be claimed, and when there may be more.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) bounds: Bounds,
    pub(super) turns: Turns,
    /// In how many milliseconds something more is due; not above 0 if something is.
    pub(super) wait: Option<Millis>,
    /// Queues that have more lines than were looked at, or were not looked at from the beginning.
    pub(super) crowded: Vec<Arc<str>>,
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
        let (mut cursors, mut all) = (self.memory.begin(), true);
        loop {
            let rows = self.lines(connection, &survey.bounds, &cursors, all).await?;
            let mut next = Cursors::new();
            let mut seen = Vec::new();
            for lines in rows.chunk_by(|one, other| one.line.queue == other.line.queue) {
                let queue = &lines[0].line.queue;
                seen.push(queue.clone());
                let cursor = cursors.get(&**queue);
                if lines.len() == MOST_LINES || cursor.is_some() {
                    survey.crowded.push(queue.clone());
                }
                let due = self.take_up(&mut survey, lines);
                let Some(last) = lines.last().filter(|_| !due) else { continue };
                if lines.len() == MOST_LINES {
                    next.insert(queue.to_string(), (last.line.lane.to_string(), last.line.rank));
                } else if cursor.is_some_and(|(_, rank)| *rank == i32::MAX) {
                    next.insert(queue.to_string(), (String::new(), BEFORE));
                }
            }
            // Those that had nothing after where they were looked at begin anew.
            for (queue, (_, rank)) in &cursors {
                if *rank == i32::MAX && !seen.iter().any(|name| **name == **queue) {
                    next.insert(queue.clone(), (String::new(), BEFORE));
                }
            }
            if next.is_empty() {
                return Ok(survey);
            }
            (cursors, all) = (next, false);
        }
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
            let of_queue = self.running.iter().filter(|((queue, _), _)| *queue == line.queue);
            let standing = Standing {
                running: of_queue.map(|(_, running)| running).sum(),
                served: self.memory.served_at(&line.queue),
                room: bounded.map_or(usize::MAX, Bounded::room),
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
        cursors: &Cursors,
        all: bool,
    ) -> sqlx::Result<Vec<Found>> {
        let rows = query(LINES)
            .bind(self.kinds)
            .bind(i32::from(SUSPECT))
            .bind(bounds.open())
            .bind(cursors.keys().map(String::as_str).collect::<Vec<_>>())
            .bind(cursors.values().map(|(lane, _)| lane.as_str()).collect::<Vec<_>>())
            .bind(cursors.values().map(|(_, rank)| *rank).collect::<Vec<_>>())
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
