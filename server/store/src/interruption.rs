//! Interruptions: a process that died while it ran a task. They are counted apart from failures, for they say little of the
//! task: all that ran beside one that kills its process is interrupted with it.
//!
//! # Flow
//! The first interruption costs nothing: the task runs again at once. With each further one it waits longer. From the
//! third on it is a suspect and runs alone, so that it interrupts nobody but itself: those who only stood beside the
//! culprit end, and the culprit comes to its last.

use std::num::NonZeroU16;
use std::time::Duration;

/// Interruptions after which a task runs alone. A node that goes, or a rollout by force, is one; two in a row are bad luck.
pub(crate) const SUSPECT: u16 = 3;

/// So many, and a task is a dead letter: seven of them alone. A process that dies of something else as often while it runs
/// nothing but this task has had about four minutes (see [`pause`]) to be mended.
pub const MOST: NonZeroU16 = NonZeroU16::new(10).unwrap();

/// From so many on, the pause is the longest.
pub(crate) const PAUSES: u16 = 11;

const LONGEST: Duration = Duration::from_secs(300);

/// How long a task waits after so many interruptions: 0 after the first, then 1 s, 2 s, 4 s … 128 s after the ninth.
pub(crate) fn pause(interruptions: u16) -> Duration {
    match interruptions.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1 << u32::from(doublings).min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_costs_nothing_and_each_further_one_twice_as_much() {
        let pauses: Vec<_> = (0..MOST.get()).map(|times| pause(times).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!((pause(PAUSES - 1).as_secs(), pause(PAUSES), pause(u16::MAX)), (256, LONGEST, LONGEST));
    }
}
