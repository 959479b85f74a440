//! [`Sample`]: a figure of the queue as it was a moment ago. A scrape reads these and asks nobody: a database that hangs would
//! else silence the very metrics that tell of it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Older figures are told no more, for they would be a lie. The age runs from when a look began, and the next look begins when
/// that one has ended: it is up to twice as long as a look. A look at all queues is up to 15 s long where a database takes all of its
/// 5 s for each answer (the settings, another's count that is waited for, and one of its own); it is slow, and still tells the truth.
const STALE: Duration = Duration::from_secs(30);

/// The latest figure, and when it was asked for.
#[derive(Debug)]
pub(super) struct Sample<T>(Mutex<Latest<T>>);

#[derive(Debug, Clone)]
struct Latest<T> {
    /// None while the queue cannot be read.
    figure: Option<T>,
    /// When the queue was asked that answered last, or the process began.
    at: Instant,
}

impl<T> Default for Sample<T> {
    fn default() -> Self {
        Self(Mutex::new(Latest { figure: None, at: Instant::now() }))
    }
}

impl<T: Clone> Sample<T> {
    /// None: the queue cannot be read.
    pub(super) fn took(&self, at: Instant, figure: Option<T>) {
        let mut latest = self.0.lock();
        if figure.is_some() {
            latest.at = at;
        }
        latest.figure = figure;
    }

    /// The figure, unless it is too old; and how old it is, or would be.
    pub(super) fn latest(&self) -> (Option<T>, Duration) {
        let Latest { figure, at } = self.0.lock().clone();
        let age = at.elapsed();
        (figure.filter(|_| age < STALE), age)
    }
}
