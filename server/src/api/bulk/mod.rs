//! `/v1/bulk`: many tasks in one request.
//!
//! - [`mod@submit`]: handed in together, they cost one request, one transaction and one sync
//! - [`mod@change`]: cancelled, retried or deleted by a filter, a bounded number at a time, so that nobody waits for a request of
//!   somebody else's

mod change;
mod submit;

// With what utoipa makes beside each handler.
pub(crate) use change::*;
pub(crate) use submit::*;
