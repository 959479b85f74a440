//! What metrics call a write and what came of it. Alerts depend on these words; `docs/operator-metrics.md` lists them.

use graceful_plan::Action;

use super::Outcome;
use crate::error::Error;

/// The label `action` of `graceful_operator_actions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub(crate) enum ActionKind {
    AddFinalizer,
    ReleaseFinalizer,
    Adopt,
    Enlist,
    Fence,
    Unfence,
    LetGo,
    LetGoService,
    SyncService,
    SyncBudget,
    DryRunTemplate,
    CreateRevision,
    SyncPolicy,
    RecordProven,
    Nudge,
    DeleteRevision,
    ScaleUp,
    ScaleDown,
    Unroute,
    PutBack,
    Unbridge,
    Mark,
    Retire,
    /// The second call of `Retire`, which is counted apart.
    ScaleAfterDelete,
}

impl From<&Action> for ActionKind {
    fn from(action: &Action) -> Self {
        match action {
            Action::AddFinalizer => Self::AddFinalizer,
            Action::ReleaseFinalizer => Self::ReleaseFinalizer,
            Action::Adopt => Self::Adopt,
            Action::Enlist { .. } => Self::Enlist,
            Action::Fence { .. } => Self::Fence,
            Action::Unfence { .. } => Self::Unfence,
            Action::LetGo { .. } => Self::LetGo,
            Action::LetGoService => Self::LetGoService,
            Action::SyncService => Self::SyncService,
            Action::SyncBudget => Self::SyncBudget,
            Action::DryRunTemplate { .. } => Self::DryRunTemplate,
            Action::CreateRevision { .. } => Self::CreateRevision,
            Action::SyncPolicy { .. } => Self::SyncPolicy,
            Action::RecordProven { .. } => Self::RecordProven,
            Action::Nudge { .. } => Self::Nudge,
            Action::DeleteRevision { .. } => Self::DeleteRevision,
            Action::ScaleUp { .. } => Self::ScaleUp,
            Action::ScaleDown { .. } => Self::ScaleDown,
            Action::Unroute { .. } => Self::Unroute,
            Action::PutBack { .. } => Self::PutBack,
            Action::Unbridge { .. } => Self::Unbridge,
            Action::Mark { .. } | Action::Unmark { .. } => Self::Mark,
            Action::Retire { .. } => Self::Retire,
        }
    }
}

/// The label `result` of a call that did not fail. Of one that did it is the [`FailureClass`](crate::error::FailureClass).
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[strum(serialize_all = "snake_case")]
pub(crate) enum ActionResult {
    Done,
    Refused,
    /// Not done, or not followed by what was planned, since things had changed. A `Retire` too whose pod was deleted and whose scale failed: that scale is counted
    /// by its own result, as `ScaleAfterDelete`.
    Void,
}

/// The word for what came of an action.
pub(super) fn result(outcome: &Result<Outcome, Error>) -> &'static str {
    match outcome {
        Ok(Outcome::Done | Outcome::NotNeeded(_)) => ActionResult::Done.into(),
        Ok(Outcome::Refused(_)) => ActionResult::Refused.into(),
        Ok(
            Outcome::LookAgain(_)
            | Outcome::DoneLookAgain(_)
            | Outcome::Answered
            | Outcome::Later
            | Outcome::GrownOld,
        ) => ActionResult::Void.into(),
        Err(error) => error.class().into(),
    }
}
