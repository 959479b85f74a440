//! The `GracefulApp` resource: what users write, what they read back, and the names both sides rely on.
//!
//! Layer: the lowest. Nothing here does IO or reads a clock; the planner, the operator and `xtask` build on it.

pub mod conditions;
pub mod names;
pub mod spec;
pub mod status;
pub mod template;

pub use spec::{
    Disruption, Drain, Format, GracefulApp, GracefulAppSpec, InFlight, OnDeadline, PreStop, Rollout,
    ServiceTemplate, ServiceType, Signal,
};
pub use status::{
    Cut, DrainReason, DrainingPod, GracefulAppStatus, InFlightCount, Phase, PodState, RevisionStatus,
};
pub use template::Template;
