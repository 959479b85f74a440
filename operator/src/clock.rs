//! The two clocks that decisions are made by, neither of which anybody sets: how long this machine has run, and what time the API server has.
//!
//! # Guarantees
//! Decisions are made by two clocks that no user sets: CLOCK_BOOTTIME for terms, and the API server's time for deadlines. The node's wall clock is used only
//! until the first answer, and for what people read (`tests/layers.rs` lists the places). One that jumps moves no deadline, and operators on nodes whose
//! clocks differ by hours agree on each: both go by the API server's, which also wrote most of what is compared with it.
//!
//! # Caveats
//! Should the API server's own clock jump just before another operator takes over, deadlines move by as much for that one. While one operator leads they do not:
//! it follows at one part in a hundred.

use std::sync::Arc;
use std::time::Duration;

use http::header::DATE;
use http::{HeaderValue, Request};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;
use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

/// Since the machine started. `std::time::Instant` stands still in suspend: a leader that wakes would believe in a term that is long over.
pub(crate) fn since_boot() -> Duration {
    // A clock that cannot be read is one at which every term is over.
    clock_gettime(RUNS_IN_SUSPEND).map_or(Duration::MAX, Duration::from)
}

/// Linux has it since 2.6.39.
#[cfg(target_os = "linux")]
const RUNS_IN_SUSPEND: ClockId = ClockId::CLOCK_BOOTTIME;
/// For those who build and test elsewhere; on macOS this clock counts suspend too. The operator itself runs on Linux.
#[cfg(not(target_os = "linux"))]
const RUNS_IN_SUSPEND: ClockId = ClockId::CLOCK_MONOTONIC;

/// What the API server's answers say what time it is, and the machine's own run in between.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When the machine started, as the API server would have it.
    started: Timestamp,
    heard: Option<Duration>,
    /// Something was decided by it.
    in_use: bool,
}

/// An answer's date is in whole seconds and some time on its way: it may lag by so much, and says nothing new.
const AS_GOOD: SignedDuration = SignedDuration::from_secs(3);

/// How much faster or slower than the machine it may run once it is in use.
const RATE: i32 = 100;

impl Default for Clock {
    /// Before the first answer, the node's wall clock is all there is.
    fn default() -> Self {
        Self::of(Timestamp::now())
    }
}

impl Clock {
    /// One that has this time before it is told another.
    pub(crate) fn of(now: Timestamp) -> Self {
        let started = less(now, since_boot());
        Self(Arc::new(Mutex::new(State { started, heard: None, in_use: false })))
    }

    /// For all that is decided, and all that is written down to be compared with it later, by this operator or another.
    pub(crate) fn now(&self) -> Timestamp {
        let started = self.0.lock().started;
        let run = SignedDuration::try_from(since_boot()).unwrap_or(SignedDuration::MAX);
        started.saturating_add(run).unwrap_or(Timestamp::MAX)
    }

    /// From now on it does not jump.
    pub(crate) fn begin_to_use(&self) {
        self.0.lock().in_use = true;
    }

    /// An answer of the API server said what time it is.
    fn hear(&self, date: Timestamp, at: Duration) {
        self.0.lock().hear(date, at);
    }
}

impl State {
    fn hear(&mut self, date: Timestamp, at: Duration) {
        let since = self.heard.replace(at).map(|before| at.saturating_sub(before));
        let started = less(date, at);
        let by = started.duration_since(self.started);
        if !by.is_positive() && -by < AS_GOOD && since.is_some() {
            return;
        }
        let most = match self.in_use {
            false => SignedDuration::MAX,
            true => SignedDuration::try_from(since.unwrap_or_default()).unwrap_or(SignedDuration::MAX) / RATE,
        };
        self.started = self.started.saturating_add(by.clamp(-most, most)).unwrap_or(self.started);
    }
}

fn less(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// So much later.
pub(crate) fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The same client, whose answers set the clock.
pub(crate) fn heard_by(clock: &Clock, client: Client) -> Client {
    let (namespace, clock) = (client.default_namespace().to_owned(), clock.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, clock) = (client.clone(), clock.clone());
        async move {
            let answer = client.send(request).await?;
            if let Some(date) = answer.headers().get(DATE).and_then(date) {
                clock.hear(date, since_boot());
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, namespace)
}

/// As HTTP has it (`Sun, 06 Nov 1994 08:49:37 GMT`).
fn date(header: &HeaderValue) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(header.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A machine that has run for so long when it is first asked.
    fn state(started: i64) -> State {
        State { started: at(started), heard: None, in_use: false }
    }

    fn hear(state: &mut State, date: i64, run: u64) -> i64 {
        state.hear(at(date), Duration::from_secs(run));
        state.started.as_second()
    }

    #[test]
    fn the_clock_of_the_day_counts_only_until_the_api_server_is_heard() {
        let mut an_hour_ahead = state(3600);
        assert_eq!(hear(&mut an_hour_ahead, 100, 100), 0);
        let mut an_hour_behind = state(-3600);
        assert_eq!(hear(&mut an_hour_behind, 100, 100), 0);
        assert_eq!(hear(&mut an_hour_behind, 198, 200), 0, "a late answer says nothing new");
        assert_eq!(hear(&mut an_hour_behind, 301, 300), 1, "a quicker one does");
        assert_eq!(hear(&mut an_hour_behind, 7600, 400), 7200, "nothing was decided yet");
    }

    /// The others stand still in suspend: a leader that wakes would believe in a term that is long over.
    #[cfg(target_os = "linux")]
    #[test]
    fn terms_are_reckoned_by_a_clock_that_runs_in_suspend() {
        assert_eq!(RUNS_IN_SUSPEND, ClockId::CLOCK_BOOTTIME);
        let boot = || Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        let (before, read, after) = (boot(), since_boot(), boot());
        assert!(before <= read && read <= after, "{before:?} {read:?} {after:?}");
    }

    #[test]
    fn what_is_in_use_does_not_jump() {
        for jump in [3600, -3600] {
            let mut state = state(0);
            hear(&mut state, 100, 100);
            state.in_use = true;
            assert_eq!(hear(&mut state, 200 + jump, 200), jump.signum(), "a second in a hundred");
            assert_eq!(
                hear(&mut state, 300, 300),
                jump.signum().max(0),
                "and back, where that says anything new"
            );
        }
        let mut unheard = state(0);
        unheard.in_use = true;
        assert_eq!(hear(&mut unheard, 3700, 100), 0, "one that was used before anything was heard");
    }

    #[test]
    fn dates_are_as_http_has_them() {
        let of = |text: &'static str| date(&HeaderValue::from_static(text)).map(Timestamp::as_second);
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(of("yesterday"), None);
    }
}
