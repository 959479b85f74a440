//! The clock of the election: it runs on while the machine sleeps, and nobody sets it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Since the machine started. `std::time::Instant` stands still in suspend: a leader that wakes would believe in a term that is long over.
pub(super) fn now() -> Duration {
    // Linux has it since 2.6.39. A clock that cannot be read is one at which every term is over.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}
