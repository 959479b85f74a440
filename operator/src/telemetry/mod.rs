//! What the operator tells of itself: metrics, health, logs.

mod metrics;
mod serve;

pub(crate) use self::metrics::Metrics;
pub(crate) use self::serve::{Health, serve};
