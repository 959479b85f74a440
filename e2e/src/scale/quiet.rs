//! When an operator has nothing more to do.
//!
//! Nobody may ask it for that all the time: an answer of `/metrics` costs more than a plan where apps go by the thousand.
//! So its CPU time is watched from outside, and it is asked only while it uses little: its counters must then stand still.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::counters::{Counters, Health};
use super::process::{Ended, Operator};

const LOOK: Duration = Duration::from_millis(100);
/// Its share of a core is that of the last half second…
const WINDOW: Duration = Duration::from_millis(500);
/// …and above this it is at work, whatever its counters would say.
const BUSY: f64 = 0.25;
/// Longer than any back-off that an operator at work has; shorter than the looks of one at rest.
const STILL: Duration = Duration::from_secs(3);

/// How it ended.
#[derive(Debug)]
pub(super) enum Course {
    /// The operator has done nothing since then.
    Quiet(Instant),
    /// Not within the bound.
    Busy(Counters),
    Ended(Ended),
}

/// Waits until it has reported at least so many apps as Serving, and then does nothing for three seconds.
pub(super) async fn quiet(
    operator: &mut Operator<'_>,
    health: &Health,
    serving: usize,
    bound: Duration,
) -> Course {
    let begun = Instant::now();
    let mut active = begun;
    let mut window = VecDeque::new();
    let mut seen = Counters::default();
    let mut asked = begun;
    loop {
        let now = Instant::now();
        let cpu = match operator.look() {
            Ok(sample) => sample.cpu_seconds,
            Err(ended) => return Course::Ended(ended),
        };
        window.push_back((now, cpu));
        while window.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            window.pop_front();
        }
        let used = window.front().map_or(0.0, |(_, before)| cpu - before);
        if used > BUSY * WINDOW.as_secs_f64() {
            active = now;
        } else if now.duration_since(asked) >= WINDOW {
            asked = now;
            match health.counters().await {
                Ok(counters) if counters == seen => {}
                Ok(counters) => (seen, active) = (counters, now),
                // It does not answer in time, or not yet: not at rest.
                Err(_) => active = now,
            }
            let idle = Instant::now().duration_since(active);
            if idle >= STILL && seen.serving >= serving && health.ready().await {
                return Course::Quiet(active);
            }
        }
        if now.duration_since(begun) > bound {
            return Course::Busy(seen);
        }
        sleep(LOOK).await;
    }
}
