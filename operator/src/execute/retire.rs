//! Ends one pod: the calls, in the order of [`graceful_plan::retirement`], and what is remembered and told of each.
//!
//! # Flow
//! live look → [`Retirement::looked`] → one call a [`Step`] → its answer gives the next. A call that fails ends it here.
//!
//! # Guarantees
//! Those of [`graceful_plan::retirement`]. What it assumes of its calls is so: each DELETE and scale carries the uid and resourceVersion of what was read.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::{RevisionHash, names};
use graceful_plan::refusals::Subject;
use graceful_plan::retirement::{AT_ONCE, Cut, Delete, End, LookAgain, Retirement, Scale, Scaled, Step, Try};
use graceful_plan::{BackoffCause, PodRef, PodUid, Proof};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

use super::acted::{ActionKind, ActionResult};
use super::delete::{Deleted, delete};
use super::measure::measure;
use super::revision::deployment;
use super::scale::{self, ReadScale};
use super::{CHANGED, Outcome, Scene, pods, timed};
use crate::app_ref::AppRef;
use crate::error::{Error, FailureClass, chain};
use crate::merge::Mode;
use crate::observe::{live_pods, look};
use crate::unseen_writes::Kind;

/// One retirement, as far as it has come.
struct Ending<'a> {
    pod: &'a PodRef,
    revision: &'a RevisionHash,
    deployment: &'a Arc<Deployment>,
    replicas: u32,
    proof: Proof,
    /// The pod's resourceVersion as it was looked at, or as our last write left it.
    version: String,
    /// The scale as it was last read.
    scale: ReadScale,
    /// How long a write to the pod takes; none where it is refused, or was not tried.
    pod_write: Option<Duration>,
    /// When the DELETE was sent.
    deleted: Instant,
}

/// What follows from a call: the next step, or the end of it all.
type Next<'a> = Result<ControlFlow<Outcome, Step<'a>>, Error>;

pub(super) async fn retire(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    revision: &RevisionHash,
    replicas: u32,
    proof: Proof,
    as_well: &[(PodUid, Proof)],
) -> Result<Outcome, Error> {
    let (Some(deployment), Some(policy)) = (deployment(scene, revision), scene.seen.policy(revision)) else {
        return Ok(CHANGED);
    };
    let what = Retirement { pod: &pod.uid, replicas, proof, as_well, policy };
    let (look, scale) = futures::try_join!(
        look(scene.sources, scene.object, &deployment, pod),
        scale::read(scene, &deployment, replicas),
    )?;
    let mut step = what.looked(look.pod.as_ref().map(|(pod, _)| pod), look.others, scale.is_some());
    let (Some((_, version)), Some(scale)) = (look.pod, scale) else {
        return Ok(match step {
            Step::Over(end) => over(scene, pod, revision, end),
            _ => CHANGED,
        });
    };
    let (deployment, pod_write, deleted) = (&deployment, None, Instant::now());
    let mut ending =
        Ending { pod, revision, deployment, replicas, proof, version, scale, pod_write, deleted };
    loop {
        step = match take(scene, &mut ending, step, as_well).await? {
            Continue(next) => next,
            Break(outcome) => return Ok(outcome),
        };
    }
}

/// Takes one step.
async fn take<'a>(
    scene: &mut Scene<'_>,
    ending: &mut Ending<'_>,
    step: Step<'a>,
    as_well: &[(PodUid, Proof)],
) -> Next<'a> {
    let (clock, probes) = (&scene.sources.clock, scene.probes);
    match step {
        Step::Try(dry) => try_dry(scene, ending, dry).await,
        Step::Measure(step) => {
            if let Some(outcome) = measure(scene, ending.pod, ending.revision, ending.pod_write).await? {
                return Ok(Break(outcome));
            }
            // That has changed the Deployment.
            let Some(again) = scale::read(scene, ending.deployment, ending.replicas).await? else {
                return Ok(Break(CHANGED));
            };
            ending.scale = again;
            Ok(Continue(step.followed()))
        }
        Step::List(list) => {
            let live = live_pods(scene.sources, scene.object, ending.deployment).await?;
            let pods: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
            let contacts = probes.contacts(as_well.iter().map(|(uid, _)| uid));
            Ok(Continue(list.read(&pods, &contacts, clock.now())))
        }
        Step::LowerCost(lower) => {
            let cheapest = json!({(names::POD_DELETION_COST): names::RETIRING_DELETION_COST});
            Ok(annotate(scene, ending, &cheapest).await?.map_continue(|()| lower.written()))
        }
        Step::Note(note) => {
            let cut = json!({(names::CUT): cut_note(note.cut())});
            Ok(annotate(scene, ending, &cut).await?.map_continue(|()| note.written()))
        }
        Step::Hear(hear) => {
            let contacts = probes.contacts([&ending.pod.uid].into_iter());
            Ok(Continue(hear.heard(contacts.get(&ending.pod.uid), clock.now())))
        }
        Step::Delete(step) => end(scene, ending, step).await,
        Step::Scale(step) => Ok(Continue(take_back(scene, ending, step).await)),
        Step::Ask(ask) => {
            let done = matches!(scale::read(scene, ending.deployment, ask.to()).await, Ok(Some(_)));
            Ok(Continue(ask.found(done)))
        }
        Step::LookAgain(again) => Ok(Continue(look_again(scene, ending, again).await)),
        Step::ScaleFirst { to } => scale_first(scene, ending, to).await.map(Break),
        Step::Over(end) => Ok(Break(over(scene, ending.pod, ending.revision, end))),
    }
}

/// Tries the scale and a write to the pod dry, both at a time.
async fn try_dry<'a>(scene: &mut Scene<'_>, ending: &mut Ending<'_>, dry: Try<'a>) -> Next<'a> {
    let ((tried, took), pod_write) = futures::join!(
        timed(scale::write(scene, &ending.scale, dry.to(), Mode::Dry)),
        pods::try_a_write(scene, ending.pod)
    );
    match tried {
        Ok(_) => {}
        Err(error) if error.not_found() || error.conflict() => return Ok(Break(CHANGED)),
        Err(error) => {
            let name = ending.deployment.name_any();
            return scale::refused(scene, ending.revision, &name, dry.to(), error).map(Break);
        }
    }
    let of = Subject::Deployment(ending.revision.clone());
    let came_late = scene.writes.refusals.came_late(&of, Instant::now());
    ending.pod_write = scene.writes.pod_write(pod_write);
    Ok(Continue(dry.permitted(took, came_late, ending.pod_write)))
}

/// On exactly the pod that was looked at.
async fn annotate(
    scene: &mut Scene<'_>,
    ending: &mut Ending<'_>,
    annotations: &Value,
) -> Result<ControlFlow<Outcome>, Error> {
    match pods::write(scene, ending.pod, Some(&ending.version), &json!({}), annotations, Mode::Real).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Pod, &written);
            ending.version = written.resource_version().unwrap_or_default();
            Ok(Continue(()))
        }
        Err(error) if error.not_found() || error.conflict() => Ok(Break(CHANGED)),
        Err(error) => pods::refused(scene, ending.pod, "ended", error).map(Break),
    }
}

/// What was cut can be read off a pod for as long as it is there. Null takes it off.
fn cut_note(cut: Option<Cut>) -> Value {
    cut.map_or(Value::Null, |cut| json!(cut.tasks.map_or_else(|| "unknown".to_owned(), |n| n.to_string())))
}

/// The DELETE.
async fn end<'a>(scene: &mut Scene<'_>, ending: &mut Ending<'_>, step: Delete<'a>) -> Next<'a> {
    ending.deleted = Instant::now();
    match delete(scene, ending.pod, &ending.version, step.grace_seconds()).await? {
        Deleted::Ended => {}
        Deleted::Not(outcome) => return Ok(Break(outcome)),
        Deleted::Unknown(error) => {
            // It may be ended all the same, with nobody to take its replica back: nothing more of that Deployment for a while.
            let why =
                format!("pod {} may have been ended, without an answer: {}", ending.pod.name, chain(&error));
            scene.unanswered += 1;
            note_late(scene, ending.revision, BackoffCause::TooSlow, why.clone());
            return if error.backoff().is_some() { Ok(Break(Outcome::Refused(why))) } else { Err(error) };
        }
    }
    // One that drains itself is asked until it is gone.
    if !matches!(ending.proof, Proof::HandedOver { .. }) {
        scene.probes.stop_asking(&AppRef::from_obj(scene.object), &ending.pod.uid);
    }
    Ok(Continue(step.done(ending.deleted.elapsed())))
}

/// The scale that belongs to a DELETE.
async fn take_back(scene: &mut Scene<'_>, ending: &Ending<'_>, step: Scale) -> Step<'static> {
    let scaled = timeout(AT_ONCE, scale::write(scene, &ending.scale, step.to(), Mode::Real)).await;
    let result: &'static str = match &scaled {
        Ok(Ok(_)) => ActionResult::Done.into(),
        Ok(Err(error)) => error.class().into(),
        Err(_) => FailureClass::Timeout.into(),
    };
    scene.metrics.acted(ActionKind::ScaleAfterDelete, result);
    let scaled = match scaled {
        Ok(Ok(scaled)) => {
            scale::record(scene, ending.revision, &scaled);
            scene.taken_back.0.insert(ending.revision.clone(), Instant::now());
            Scaled::Done
        }
        Ok(Err(error)) if error.conflict() => Scaled::Conflict(chain(&error)),
        Ok(Err(error)) if error.denial().is_some() => Scaled::Refused(chain(&error)),
        Ok(Err(error)) if !error.not_done() => Scaled::Unanswered(chain(&error)),
        Ok(Err(error)) => Scaled::Failed(chain(&error)),
        Err(_) => Scaled::Failed(format!("no answer within {} ms", AT_ONCE.as_millis())),
    };
    step.answered(scaled, ending.deleted.elapsed())
}

/// The scale first, and the list after it: a spare that runs by now is then in the list, or moves the version.
async fn look_again(scene: &Scene<'_>, ending: &mut Ending<'_>, step: LookAgain) -> Step<'static> {
    match scale::read(scene, ending.deployment, ending.replicas).await {
        Ok(Some(again)) => ending.scale = again,
        Ok(None) => return step.changed(),
        Err(error) => return step.failed(chain(&error)),
    }
    match live_pods(scene.sources, scene.object, ending.deployment).await {
        Ok(live) => step.seen(&live.into_iter().map(|(pod, _)| pod).collect::<Vec<_>>()),
        Err(error) => step.failed(chain(&error)),
    }
}

/// For an API server that answers in seconds: no spare is made, and the ReplicaSet ends the pod.
async fn scale_first(scene: &mut Scene<'_>, ending: &Ending<'_>, to: u32) -> Result<Outcome, Error> {
    match scale::write(scene, &ending.scale, to, Mode::Real).await {
        Ok(scaled) => {
            scale::record(scene, ending.revision, &scaled);
            scene.writes.brake.ended();
            Ok(Outcome::NotNeeded(
                "its Deployment was scaled down first, since the API server is slow, and its ReplicaSet ends it",
            ))
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => {
            if !error.not_done() {
                scene.writes.brake.ended();
            }
            scale::refused(scene, ending.revision, &ending.deployment.name_any(), to, error)
        }
    }
}

/// What is remembered of the end, and told.
fn over(scene: &mut Scene<'_>, pod: &PodRef, revision: &RevisionHash, end: End) -> Outcome {
    let of = Subject::Deployment(revision.clone());
    match end {
        End::Done => Outcome::Done,
        End::FoundDone => {
            scene.writes.refusals.cleared(&of);
            scene.taken_back.0.insert(revision.clone(), Instant::now());
            Outcome::DoneLookAgain("its replica was taken back, and the answer to that was lost")
        }
        // What else there is to do does not depend on it.
        End::Finished => {
            scene.writes.look_live = true;
            Outcome::NotNeeded("it has finished by itself")
        }
        End::Changed(why) => Outcome::LookAgain(why),
        End::TooSlow(took) => {
            let message = format!(
                "pod {} may be ended and is kept: the API server is too slow to end it safely. A dry run of the scale took {:.1} s, and a scale more than \
                 {:.1} s after the DELETE could cost a busy pod",
                pod.name,
                took.as_secs_f64(),
                AT_ONCE.as_secs_f64()
            );
            scene.writes.refusals.note(of, BackoffCause::TooSlow, message.clone(), Instant::now());
            Outcome::Refused(message)
        }
        End::NotTakenBack { to, cause, why } => {
            let name = scene.seen.observed.revisions.iter().find(|r| r.hash == *revision).map(|r| &r.name);
            let name = name.cloned().unwrap_or_default();
            let message =
                format!("Deployment {name} was not scaled to {to} after pod {} was ended: {why}", pod.name);
            warn!("{message}");
            note_late(scene, revision, cause, message);
            Outcome::DoneLookAgain("its replica was not taken back")
        }
    }
}

/// Leaves the Deployment alone for a while, since its scale does not follow a DELETE.
fn note_late(scene: &mut Scene<'_>, revision: &RevisionHash, cause: BackoffCause, message: String) {
    let of = Subject::Deployment(revision.clone());
    scene.writes.refusals.note_late(&of, cause, message, Instant::now());
}
