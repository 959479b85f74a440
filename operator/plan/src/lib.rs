//! The pure planner: one view of one app in, what to do next out.
//!
//! Nothing here knows of a client, a clock or a task runtime. `operator/src` observes, calls [`plan`], executes the [`Action`]s
//! in order and keeps the [`Conversation`]s going; after anything fails or anything is heard it observes and plans again.
mod action;
mod busy;
mod contact;
mod observed;
mod report;
pub mod retire;

pub use action::{Action, Conversation, Plan, PodRef, Proof};
pub use busy::cannot_be_busy;
pub use contact::{Answer, Contact, ContactError, InFlight, Protocol, Quiet, Restarted};
pub use observed::{
    App, Child, Container, Deletion, DrainMark, DrainPolicy, Epoch, Failure, Observed, Pod, PodUid,
    Readiness, Revision, RevisionHash, Surroundings, TemplateVerdict, Warning,
};
pub use report::{ConditionReport, DrainingPodReport, Report, RevisionReport};
