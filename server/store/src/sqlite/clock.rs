//! The machine's clock, kept from running backwards while the file is open.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::task::Millis;

/// Times that never decrease: what was once due stays due, and events are in the order of their times.
#[derive(Debug, Default)]
pub(super) struct Clock {
    latest: Millis,
}

impl Clock {
    pub(super) fn now(&mut self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        self.latest = self.latest.max(wall);
        self.latest
    }
}

/// A span in milliseconds; what is too long for the column is as good as for ever.
pub(super) fn millis(span: Duration) -> Millis {
    Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
}

/// A span that a column holds.
pub(super) fn span(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
