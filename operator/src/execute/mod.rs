//! Does what the plan says: each action one idempotent call with preconditions, in the plan's order.
//!
//! # Flow
//! plan → [`execute`] → what was written is noted in [`Writes`], so that the next view is known to show it.
//!
//! # Guarantees
//! What is refused, or fails and nothing follows from it, stops only what depends on it. Anything else unexpected ends the plan, and the app is observed and
//! planned again. 404 on a delete is success; 409 is "look again", but for a scale, which is read and retried at once. What is refused is remembered, and left
//! alone for a while ([`graceful_plan::refusals`]).

mod acted;
mod adoption;
mod bridge;
mod children;
mod delete;
mod finalizer;
mod log_line;
mod measure;
mod pods;
mod retire;
mod revision;
mod scale;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use graceful_api::{GracefulApp, RevisionHash};
use graceful_plan::refusals::Subject;
use graceful_plan::{Action, BackoffCause, DrainNote};
use kube::{Api, ResourceExt};
use tracing::{info, warn};

pub(crate) use self::acted::ActionKind;
#[cfg(test)]
pub(crate) use self::acted::ActionResult;
use crate::error::Error;
use crate::keys::Keyring;
use crate::observe::{GateImage, Observation, Sources};
use crate::probe::{Pace, Probes};
use crate::telemetry::Metrics;
use crate::writes::Writes;

/// What goes into writes, of all apps.
pub(crate) struct Supplies {
    /// Marks on pods.
    pub(crate) mark_pace: Pace,
    /// What new revisions' pods are given, to check the tokens of their drains.
    pub(crate) keyring: Keyring,
    /// What new revisions' gates are made of.
    pub(crate) gate_image: GateImage,
}

/// What an action works with.
pub(crate) struct Scene<'a> {
    /// To look again just before a write, which goes by the same client.
    pub(crate) sources: &'a Sources,
    pub(crate) probes: &'a Probes,
    pub(crate) supplies: &'a Supplies,
    pub(crate) metrics: &'a Metrics,
    pub(crate) object: &'a GracefulApp,
    pub(crate) seen: &'a Observation,
    /// What its writes meet is for the next plan.
    pub(crate) writes: &'a mut Writes,
    pub(crate) taken_back: &'a mut TakenBack,
    /// When the plan was made.
    pub(crate) planned: Instant,
    /// Writes that had no answer in time.
    pub(crate) unanswered: u32,
    /// What was done that a person may look for, for an Event each: its reason and its words.
    pub(crate) notes: Vec<(&'static str, String)>,
}

/// When a pod of each revision was last ended and its Deployment scaled down for it.
#[derive(Debug, Default)]
pub(crate) struct TakenBack(BTreeMap<RevisionHash, Instant>);

/// How old a plan may be when it takes another pod out of service or ends it: what it counted on may be gone by then. Its first such action is done at any
/// age, so that an API server that takes seconds a call gets there all the same.
const FRESH: Duration = Duration::from_secs(2);

/// Where that many writes had no answer, no other would fare better now.
const UNANSWERED: u32 = 2;

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As planned.
    Done,
    /// The action was done; for this reason the rest of the plan is not, and the app is observed again right away.
    DoneLookAgain(&'static str),
    /// For this reason it was not done and need not be. The plan goes on as if it was.
    NotNeeded(&'static str),
    /// Kubernetes refuses it in these words; the others go on without it, and it is retried when that may have changed.
    Refused(String),
    /// The action was not done, since things have changed since the plan was made; the app is observed again right away.
    LookAgain(&'static str),
    /// The action was a question, and its answer is for the next plan: no surprise, what is remembered of the cluster is as good as before.
    Answered,
    /// The action was not done yet, since pods of other apps are marked first: no surprise either.
    Later,
    /// The rest of an old plan was not done. The next plan goes on where it stopped.
    GrownOld,
}

/// Remembers what a write met that stops only what depends on it; any other failure is the whole plan's.
fn back_off(
    scene: &mut Scene<'_>,
    subject: Subject,
    error: Error,
    words: impl FnOnce(&str) -> String,
) -> Result<Outcome, Error> {
    let Some((kind, why)) = error.backoff() else {
        return Err(error);
    };
    let message = words(&why);
    scene.unanswered += u32::from(kind == BackoffCause::TooSlow);
    scene.writes.refusals.note(subject, kind, message.clone(), Instant::now());
    Ok(Outcome::Refused(message))
}

/// The answer, and how long it took.
async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let answer = call.await;
    (answer, began.elapsed())
}

/// All goes with its namespace.
const NAMESPACE_GOES: Outcome = Outcome::NotNeeded("the namespace is terminating");

/// What a conflict means, wherever it comes from.
const CHANGED: Outcome = Outcome::LookAgain("it was changed meanwhile");

impl Scene<'_> {
    fn namespace(&self) -> String {
        self.object.namespace().unwrap_or_default()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.sources.client.clone(), &self.namespace())
    }

    /// A refusal that concerns the namespace alone, which goes: not an error, and remembered.
    fn namespace_goes(&mut self, error: &Error) -> bool {
        let goes = error.namespace_terminating();
        self.writes.namespace_terminating |= goes;
        goes
    }
}

/// How far it came.
#[derive(Debug)]
pub(crate) struct Executed {
    /// What was done, in this order.
    pub(crate) done: Vec<Action>,
    /// How the last one ended that was not done, or done all.
    pub(crate) outcome: Result<Outcome, Error>,
}

/// Executes the actions in order. What is refused stops only what depends on it; anything else that does not go as planned ends the plan.
pub(crate) async fn execute(scene: &mut Scene<'_>, actions: &[Action]) -> Executed {
    let mut done = Vec::new();
    let mut outcome = Ok(Outcome::Done);
    let mut begun = false;
    for action in actions {
        // The finalizer goes last, and only when all that it is there for went.
        if *action == Action::ReleaseFinalizer && !matches!(outcome, Ok(Outcome::Done)) {
            break;
        }
        let decided = matches!(action, Action::Unroute { .. } | Action::Retire { .. });
        if decided && begun && scene.planned.elapsed() > FRESH {
            return Executed { done, outcome: outcome.and(Ok(Outcome::GrownOld)) };
        }
        begun |= decided;
        let this = act(scene, action).await;
        tell(scene, action, &this);
        match (&this, nothing_follows_from(action)) {
            (Ok(Outcome::Done | Outcome::NotNeeded(_)), _) => done.push(action.clone()),
            (Ok(Outcome::Refused(_)), _) | (Err(_), true) => {
                scene.writes.look_live = true;
                if outcome.is_ok() {
                    outcome = this;
                }
                if scene.unanswered >= UNANSWERED {
                    return Executed { done, outcome };
                }
            }
            (Ok(Outcome::Answered | Outcome::Later | Outcome::GrownOld), _) => {
                return Executed { done, outcome: outcome.and(this) };
            }
            (Ok(Outcome::LookAgain(_) | Outcome::DoneLookAgain(_)) | Err(_), _) => {
                scene.writes.look_live = true;
                return Executed { done, outcome: outcome.and(this) };
            }
        }
    }
    Executed { done, outcome }
}

/// Whether the other actions of a plan are as right without this one. It is retried with the whole plan.
fn nothing_follows_from(action: &Action) -> bool {
    match action {
        Action::Enlist { .. }
        | Action::Fence { .. }
        | Action::SyncService
        | Action::SyncBudget
        | Action::SyncPolicy { .. }
        | Action::RecordProven { .. }
        | Action::Mark { .. }
        | Action::Unmark { .. }
        | Action::Nudge { .. } => true,
        Action::AddFinalizer
        | Action::ReleaseFinalizer
        | Action::Adopt
        | Action::Unfence { .. }
        | Action::LetGo { .. }
        | Action::LetGoService
        | Action::DryRunTemplate { .. }
        | Action::CreateRevision { .. }
        | Action::DeleteRevision { .. }
        | Action::ScaleUp { .. }
        | Action::ScaleDown { .. }
        | Action::Unroute { .. }
        | Action::PutBack { .. }
        | Action::Unbridge { .. }
        | Action::Retire { .. } => false,
    }
}

/// Into the log and the metrics.
fn tell(scene: &Scene<'_>, action: &Action, outcome: &Result<Outcome, Error>) {
    let kind = ActionKind::from(action);
    scene.metrics.acted(kind, acted::result(outcome));
    let (app, namespace) = (scene.object.name_any(), scene.namespace());
    let (action, line): (&str, _) = (kind.into(), log_line::line(action, outcome));
    match outcome {
        Ok(Outcome::Refused(_)) | Err(_) => warn!(namespace, app, action, "{line}"),
        Ok(_) => info!(namespace, app, action, "{line}"),
    }
}

async fn act(scene: &mut Scene<'_>, action: &Action) -> Result<Outcome, Error> {
    match action {
        Action::AddFinalizer => finalizer::add(scene).await,
        Action::ReleaseFinalizer => finalizer::release(scene).await,
        Action::Adopt => adoption::adopt(scene).await,
        Action::Enlist { pod } => adoption::enlist(scene, pod).await,
        Action::Fence { service } => adoption::fence(scene, service).await,
        Action::Unfence { service } => adoption::unfence(scene, service).await,
        Action::LetGo { revision } => adoption::let_go(scene, revision).await,
        Action::LetGoService => adoption::let_go_service(scene).await,
        Action::SyncService => children::sync_service(scene).await,
        Action::SyncBudget => children::sync_budget(scene).await,
        Action::DryRunTemplate { revision } => revision::dry_run(scene, revision).await,
        Action::CreateRevision { revision, replicas } => revision::create(scene, revision, *replicas).await,
        Action::SyncPolicy { revision } => revision::sync_policy(scene, revision).await,
        Action::DeleteRevision { revision } => revision::delete(scene, revision).await,
        Action::ScaleUp { revision, from, to } | Action::ScaleDown { revision, from, to } => {
            scale::set(scene, revision, *from, *to).await
        }
        Action::Unroute { pod, epoch, reason, since, cost } => {
            let note = DrainNote { reason: *reason, since: *since };
            pods::unroute(scene, pod, *epoch, note, *cost).await
        }
        Action::PutBack { pod, epoch } => pods::put_back(scene, pod, *epoch).await,
        Action::Unbridge { pod } => bridge::end(scene, pod).await,
        Action::Mark { pod, busy } => pods::mark(scene, pod, Some(*busy)).await,
        Action::Unmark { pod } => pods::mark(scene, pod, None).await,
        Action::RecordProven { revision } => revision::record_proven(scene, revision).await,
        Action::Nudge { revision } => revision::nudge(scene, revision).await,
        Action::Retire { pod, revision, replicas, proof, as_well } => {
            retire::retire(scene, pod, revision, *replicas, *proof, as_well).await
        }
    }
}
