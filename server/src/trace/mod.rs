//! W3C trace context through the queue: the trace of the request that brought a task goes on in its attempts, on whatever
//! pod they run, hours later if need be.
//!
//! The context travels as the task's own [`Traceparent`]. Without the feature `otlp` it is carried as it came, so that
//! logs name the trace and handlers can pass it on; with it, the submission and each attempt are spans of that trace.

#[cfg(feature = "otlp")]
pub mod otlp;
mod parent;
mod span;

pub use parent::{Invalid, Traceparent};
pub use span::{attempt, submission};
