//! When to kill, and whom: drawn from a seed, so that a run's choices can be repeated. (Its timing cannot.)

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One kill to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) whom: Whom,
    pub(crate) when: When,
}

/// Whom to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The server in this place.
    One(usize),
    /// Every server at once.
    All,
}

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// So long after it was started: before it listens, while it opens its queue, while it recovers.
    AfterStart(Duration),
    /// So long after it began its first attempt, whatever it does then.
    AtWork(Duration),
    /// The same, and then so long after the next submission went out: around its commit.
    InSubmit(Duration, Duration),
}

/// From before `main` to past the recovery: a start takes some 50 ms on SQLite, and some 200 on PostgreSQL.
const START_MS: u64 = 150;
/// Tasks of up to 0.3 s are begun, and some of them end.
const WORK_MS: std::ops::Range<u64> = 100..700;
/// An answer takes one to a few milliseconds, most of which is the commit.
const COMMIT_MICROS: u64 = 6_000;
/// So many short lives in a row at most, so that work is done as well.
const SHORT_LIVES: u32 = 4;

/// The kills to come.
#[derive(Debug)]
pub(crate) struct Moments {
    rng: StdRng,
    servers: usize,
    last: Whom,
    short: u32,
    burst: u32,
}

impl Moments {
    /// For so many servers.
    pub(crate) fn new(seed: u64, servers: usize) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), servers, last: Whom::One(0), short: 0, burst: 0 }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Kill {
        let draw = self.rng.random_range(0..100);
        if self.burst == 0 && draw < 5 {
            self.burst = self.rng.random_range(2..=SHORT_LIVES);
        }
        let after_start = self.burst > 0 || draw < 25;
        let kill = if after_start && self.short < SHORT_LIVES {
            self.burst = self.burst.saturating_sub(1);
            self.short += 1;
            // Who was started last.
            Kill { whom: self.last, when: When::AfterStart(self.millis(0..START_MS)) }
        } else {
            (self.short, self.burst) = (0, 0);
            let work = self.millis(WORK_MS);
            let when = if draw < 60 {
                When::AtWork(work)
            } else {
                When::InSubmit(work, Duration::from_micros(self.rng.random_range(0..COMMIT_MICROS)))
            };
            Kill { whom: self.whom(), when }
        };
        self.last = kill.whom;
        kill
    }

    fn whom(&mut self) -> Whom {
        if self.servers > 1 && self.rng.random_range(0..100) < 6 {
            return Whom::All;
        }
        Whom::One(self.rng.random_range(0..self.servers))
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64) -> Vec<Kill> {
        let mut moments = Moments::new(seed, 3);
        (0..1000).map(|_| moments.next()).collect()
    }

    #[test]
    fn a_seed_repeats_its_choices() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_kind_of_moment_comes_and_short_lives_do_not_pile_up() {
        let kills = draw(1);
        let share = |test: fn(&Kill) -> bool| kills.iter().filter(|kill| test(kill)).count();
        assert!(share(|k| matches!(k.when, When::AfterStart(_))) > 200);
        assert!(share(|k| matches!(k.when, When::AtWork(_))) > 200);
        assert!(share(|k| matches!(k.when, When::InSubmit(..))) > 200);
        assert!(share(|k| k.whom == Whom::All) > 20);
        let short: Vec<bool> = kills.iter().map(|k| matches!(k.when, When::AfterStart(_))).collect();
        assert!(short.windows(SHORT_LIVES as usize + 1).all(|row| row.contains(&false)));
    }
}
