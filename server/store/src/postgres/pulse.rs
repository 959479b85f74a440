//! A probe each second: whether the database is there, what time it has, how far its log has come. Says when a reaper
//! may trust that silence is the owner's and not the database's.
//!
//! Each probe writes down that it was there: as long as any server's does so without a break, all may know how long
//! the database has been well. A server that has just started then judges at once, so that orphans are taken up also
//! where no server lives for long (a crash loop).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::PgConnection;
use sqlx::{Row, query};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::database::{CALL_TIMEOUT, Database};
use super::lease::LEASE;
use super::record::{count, millis, now};
use super::running::Running;
use super::signals::Signals;
use crate::task::Millis;

/// How often to probe.
const BEAT: Duration = Duration::from_secs(1);

/// Whatever stood still between two probes that are at most so far apart (the database, the network, this process)
/// stood still for less than the four seconds that a lease has left at the least.
const STEADY: Duration = Duration::from_secs(3);

/// A jump of the database's clock by more ends leases before their time.
const JUMP: Millis = 1000;

#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Option<Beats>>);

/// Probes of this process.
#[derive(Debug, Clone, Copy)]
struct Beats {
    /// The end of the last break that this process saw; None if it saw none.
    since: Option<Instant>,
    latest: Instant,
    /// The database's times: at the latest, and since when all servers' probes are without a break.
    clock: Millis,
    shared: Millis,
}

impl Pulse {
    /// An answer came that shows the database's clock.
    pub(super) fn beat(&self, now: Instant, clock: Millis, shared: Millis) {
        let mut beats = self.0.lock();
        let since = match *beats {
            None => None,
            Some(before) if before.leads_to(now, clock) => before.since,
            Some(_) => Some(now),
        };
        *beats = Some(Beats { since, latest: now, clock, shared });
    }

    /// The database's time up to which leases may be judged: that of the latest probe, once there was no break for
    /// one lease. Before that an owner may not have had its chance to renew.
    pub(super) fn may_judge(&self, now: Instant) -> Option<Millis> {
        let beats = (*self.0.lock())?;
        let steady = now - beats.latest <= STEADY
            && beats.since.is_none_or(|since| now - since >= LEASE)
            && beats.clock - beats.shared >= millis(LEASE);
        steady.then_some(beats.clock)
    }
}

impl Beats {
    fn leads_to(&self, now: Instant, clock: Millis) -> bool {
        let elapsed = now - self.latest;
        let drift = clock - self.clock - Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX);
        // A slow answer shows an early clock, so that STEADY bounds it as well; a jump ahead has no other cause.
        elapsed <= STEADY && drift <= JUMP
    }
}

/// Probes until the store is dropped.
pub(super) async fn run(
    database: Arc<Database>,
    pulse: Arc<Pulse>,
    running: Arc<Running>,
    signals: Arc<Signals>,
) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        beats.tick().await;
        running.forget_untended();
        match database.within(CALL_TIMEOUT, probe(&database)).await {
            Ok((clock, shared, head)) => {
                pulse.beat(Instant::now(), clock, shared);
                signals.saw_head(head);
                if away {
                    info!("reached the database again");
                    signals.look_for_work();
                }
                away = false;
            }
            Err(error) => {
                if !away {
                    warn!(%error, "cannot reach the database; retrying");
                }
                away = true;
            }
        }
    }
}

async fn probe(database: &Database) -> sqlx::Result<(Millis, Millis, u64)> {
    let mut lane = database.work.lane().await?;
    let answer = ask(&mut lane).await?;
    lane.keep();
    Ok(answer)
}

/// One probe: the database's time, since when there was no break, and the log's head.
pub(super) async fn ask(connection: &mut PgConnection) -> sqlx::Result<(Millis, Millis, u64)> {
    let row = query(concat!(
        "WITH beat AS ( \
            INSERT INTO graceful_pulse AS before (since, latest) VALUES (",
        now!(),
        ", ",
        now!(),
        ") ON CONFLICT (one) DO UPDATE SET latest = excluded.latest, since = \
                CASE WHEN abs(excluded.latest - before.latest) <= $1 THEN before.since ELSE excluded.latest END \
            RETURNING since \
         ) SELECT ",
        now!(),
        " AS clock, beat.since, head FROM graceful_log, beat"
    ));
    let row = row.bind(millis(STEADY)).fetch_one(connection).await?;
    Ok((row.try_get("clock")?, row.try_get("since")?, count(&row, "head")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which a probe was answered, with the database's clock in milliseconds; whether a reaper may judge at
    /// the last of them.
    fn may_judge(answers: &[(f64, Millis)]) -> bool {
        let (pulse, start) = (Pulse::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        for (seconds, clock) in answers {
            pulse.beat(at(*seconds), *clock, 0);
        }
        answers.last().is_some_and(|(seconds, _)| pulse.may_judge(at(*seconds)).is_some())
    }

    fn each_second(from: u32, to: u32) -> Vec<(f64, Millis)> {
        (from..=to).map(|second| (f64::from(second), Millis::from(second) * 1000)).collect()
    }

    #[test]
    fn silence_is_judged_after_one_lease_without_a_break() {
        assert!(!may_judge(&each_second(0, 5)));
        assert!(may_judge(&each_second(0, 6)));
    }

    #[test]
    fn a_break_begins_the_lease_anew() {
        let after = |seconds| [each_second(0, 6), each_second(10, seconds)].concat();
        assert!(!may_judge(&after(10)));
        assert!(!may_judge(&after(15)));
        assert!(may_judge(&after(16)));
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_a_break() {
        let ahead = each_second(7, 12).into_iter().map(|(at, clock)| (at, clock + 5000));
        assert!(!may_judge(&each_second(0, 6).into_iter().chain(ahead).collect::<Vec<_>>()));
    }

    #[test]
    fn an_old_answer_judges_nobody() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        for second in 0..=6 {
            pulse.beat(start + Duration::from_secs(second), second as Millis * 1000, 0);
        }
        assert_eq!(pulse.may_judge(start + Duration::from_secs(9)), Some(6000));
        assert_eq!(pulse.may_judge(start + Duration::from_secs(10)), None);
    }

    #[test]
    fn who_has_just_come_judges_by_what_others_saw() {
        let (pulse, now) = (Pulse::default(), Instant::now());
        pulse.beat(now, 100_000, 95_000);
        assert_eq!(pulse.may_judge(now), None);
        pulse.beat(now, 100_000, 94_000);
        assert_eq!(pulse.may_judge(now), Some(100_000));
    }
}
