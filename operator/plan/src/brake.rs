//! The bound that holds whatever else goes wrong: an app that makes and ends pods without getting nearer to its spec is stopped, and continues at one pod per 30 s.

use graceful_api::RevisionHash;
use jiff::{SignedDuration, Timestamp};

use crate::clock::after;
use crate::count::count;
use crate::observed::{Backoff, BackoffCause, Deletion, Observed};

/// Counts the pods that were ended for one spec. Kept by whoever executes plans; lost with the process, which then counts anew.
///
/// ```text
/// replicas 3, maxSurge 1: at most 4 pods, so 2 × 4 + 10 = 18 may end at once for one spec, and one every 30 s after that.
/// ```
#[derive(Clone, Debug, Default)]
pub struct Brake {
    spec: Option<(RevisionHash, Deletion)>,
    /// What `replicas` was last.
    replicas: u32,
    /// A leaky bucket: each ended pod adds 1; 1 leaks every [`LEAKS_EVERY`], and [`PER_POD`] for each replica added or removed, so that an autoscaler may go up and
    /// down as often as it likes. Unused time is not saved up.
    level: u32,
    /// The most pods there may have been at a time for this spec: replicas + maxSurge, or what was seen.
    allowed: u32,
    /// Until when pauses have been taken off the level.
    counted_to: Option<Timestamp>,
    /// Endings were stopped, and the level has not fallen far since.
    stopped: bool,
}

/// Every pod may go once, and a spare or a bad newcomer with it.
const PER_POD: u32 = 2;
/// For small apps: a few pods that crash, are deleted by hand or evicted while a rollout goes on.
const EXTRA_PODS: u32 = 10;
/// Two a minute do no harm that a person would not have time to see, and whatever was wrong may be over.
const LEAKS_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// So many pauses without a pod's end, and it is no more said to be stopped: one that is let through every 30 s would change what is said each time.
const CALM_AFTER: u32 = 3;

impl Brake {
    /// Before each plan. Says whether the app was stopped, and until when it may end no pod.
    pub fn update(&mut self, observed: &Observed, now: Timestamp) -> Option<Backoff> {
        let app = &observed.app;
        let spec = (app.update.clone(), app.deletion);
        if self.spec.as_ref() != Some(&spec) {
            *self = Self { spec: Some(spec), replicas: app.replicas, ..Self::default() };
        }
        let scaled = self.replicas.abs_diff(app.replicas);
        self.level = self.level.saturating_sub(scaled.saturating_mul(PER_POD));
        self.replicas = app.replicas;
        let living = count(observed.pods.iter().filter(|p| p.is_active()));
        self.allowed = self.allowed.max(living).max(app.replicas.saturating_add(app.max_surge));
        self.take_off_pauses(now);
        let may = self.allowed.saturating_mul(PER_POD).saturating_add(EXTRA_PODS);
        let holds = self.level >= may;
        self.stopped = holds || (self.stopped && self.level.saturating_add(CALM_AFTER) > may);
        let until = match holds {
            true => after(self.counted_to.unwrap_or(now), LEAKS_EVERY),
            false => now,
        };
        self.stopped.then(|| Backoff {
            cause: BackoffCause::NoProgress,
            message: too_many_ended(may, self.allowed, LEAKS_EVERY),
            until,
        })
    }

    /// A pod was ended, or may have been.
    pub fn ended(&mut self) {
        self.taken(1);
    }

    /// A Deployment was scaled down, and its ReplicaSet takes so many pods for it.
    pub fn taken(&mut self, pods: u32) {
        self.level = self.level.saturating_add(pods);
    }

    /// Takes one off the level for each [`LEAKS_EVERY`] that has passed.
    fn take_off_pauses(&mut self, now: Timestamp) {
        let from = *self.counted_to.get_or_insert(now);
        let pauses = now.duration_since(from).as_secs().max(0) / LEAKS_EVERY.as_secs();
        if self.level == 0 {
            self.counted_to = Some(now);
        } else if pauses > 0 {
            self.level = self.level.saturating_sub(u32::try_from(pauses).unwrap_or(u32::MAX));
            let passed = SignedDuration::from_secs(pauses.saturating_mul(LEAKS_EVERY.as_secs()));
            self.counted_to = Some(from.saturating_add(passed).unwrap_or(now));
        }
    }
}

/// What people are shown of an app that was stopped: so many pods were ended for one spec, which has `most` at a time.
fn too_many_ended(ended: u32, most: u32, pause: SignedDuration) -> String {
    format!(
        "at least {ended} pods were ended for this spec, which has at most {most} at a time, so something keeps making pods that have to go; until that stops, one is \
         ended every {} s: check what else writes to its Deployments or evicts its pods",
        pause.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn app(replicas: u32) -> Observed {
        fixture::observed(fixture::app(replicas, fixture::policy(graceful_api::Signal::Http)))
    }

    /// Keeps P6, P8.
    #[test]
    fn an_app_that_gets_nowhere_goes_on_slowly() {
        let (mut brake, seen) = (Brake::default(), app(3));
        for n in 0..18 {
            assert_eq!(brake.update(&seen, at(1)), None, "after {n} pods");
            brake.ended();
        }
        let held = brake.update(&seen, at(20)).expect("2 × 4 + 10 pods were ended");
        assert_eq!((held.cause, held.until), (BackoffCause::NoProgress, at(31)));
        assert!(
            held.message
                .starts_with("at least 18 pods were ended for this spec, which has at most 4 at a time, "),
            "{}",
            held.message
        );
        let mut look = |ended: u32, seen: &Observed, second| {
            (0..ended).for_each(|_| brake.ended());
            brake.update(seen, at(second)).map(|backoff| backoff.until > at(second))
        };
        assert_eq!(look(0, &seen, 31), Some(false), "one more, and it is shown all the same");
        assert_eq!(look(1, &seen, 32), Some(true));
        assert_eq!(look(0, &app(2), 33), Some(false), "one replica less is a reason for two more");
        assert_eq!(look(2, &app(2), 34), Some(true), "and for no more");
        assert_eq!(look(0, &app(2), 34 + 2 * 30), Some(false));
        assert_eq!(look(0, &app(2), 34 + 3 * 30), None, "nothing was ended for a while: it is over");
        let mut next = app(2);
        next.app.update = RevisionHash::from("next");
        assert_eq!(brake.update(&next, at(35)), None, "a new template is a new reason");
    }

    #[test]
    fn an_autoscaler_saves_up_nothing_for_a_loop() {
        let mut brake = Brake::default();
        for n in 0..1000 {
            assert_eq!(brake.update(&app(50 * (n % 2)), at(i64::from(n))), None, "a round of an autoscaler");
            (0..50 * ((n + 1) % 2)).for_each(|_| brake.ended());
        }
        let ended = (0..1000).take_while(|_| {
            brake.ended();
            brake.update(&app(50), at(1000)).is_none()
        });
        assert!(ended.count() < 2 * 51 + 10);
    }

    #[test]
    fn a_long_rest_saves_up_nothing_beyond_the_limit() {
        let (mut brake, seen) = (Brake::default(), app(1));
        brake.update(&seen, at(0));
        brake.ended();
        assert_eq!(brake.update(&seen, at(100_000)), None);
        (0..14).for_each(|_| brake.ended());
        assert!(brake.update(&seen, at(100_001)).is_some());
    }
}
