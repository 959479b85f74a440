//! The `GracefulApp` resource: what users write, what they read back, and the names both sides rely on.
//!
//! Layer: the lowest. Nothing here does IO or reads a clock; the planner, the operator and `xtask` build on it.

pub mod adopted;
pub mod budget;
pub mod children;
pub mod conditions;
pub mod crd;
pub mod gated;
pub mod inject;
pub mod marks;
pub mod members;
pub mod names;
pub mod policy;
mod quantity;
pub mod revision;
mod rules;
mod schema;
pub mod spec;
pub mod status;
pub mod template;
pub mod validated;

pub use adopted::Adopted;
pub use budget::Budget;
pub use crd::{crd, crd_yaml};
pub use gated::Gated;
pub use graceful_prometheus::MetricSelector;
pub use inject::Given;
pub use members::Members;
pub use policy::{DrainPolicy, InFlightPolicy, Policy, Question};
pub use revision::RevisionHash;
pub use spec::{
    Adopt, AdoptedDrain, Disruption, Drain, Format, Gate, GateProtocol, GateResources, GracefulApp,
    GracefulAppSpec, InFlight, OnDeadline, OnDrain, OpenSockets, PreStop, ReplaceWhen, Rollout,
    ServiceTemplate, ServiceType, Signal, WhenAbsent,
};
pub use status::{
    Cut, DrainReason, DrainingPod, EndedByOthers, GracefulAppStatus, InFlightCount, Phase, PodState,
    RevisionStatus,
};
pub use template::Template;
pub use validated::{Adoption, FieldError, Validated};
