//! Ends one pod: a live look, the scale tried dry, DELETE of exactly what was looked at, and at once one replica less.
//!
//! # Flow
//! live look → [`last_look::check`] → the scale and a write to the pod, dry → (cut: the count goes on the pod) → DELETE with uid and resourceVersion
//! ([`delete`]) → the scale.
//!
//! # Guarantees
//! A pod that was put back to serving or given a new epoch since the look is not deleted. Nothing is deleted before a dry run has shown that the scale is
//! permitted and takes less than 500 ms. If the real scale fails all the same, see Caveats. Where the API server is too slow for this order, see
//! [`scale_first`].
//!
//! # Caveats
//! A scale that meets a conflict is retried only while a live list shows every spare Pending: once a spare runs, the ReplicaSet would choose
//! between it and its busy siblings. Such a spare is a serving pod like any other, and nothing more of that Deployment is ended for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::{RevisionHash, names};
use graceful_plan::last_look::{self, FOLLOWS_AT_ONCE, Verdict, may_lower, may_scale_first};
use graceful_plan::refusals::Subject;
use graceful_plan::{BackoffCause, PodRef, PodUid, Proof};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::acted::{ActionKind, ActionResult};
use super::delete::{Deleted, delete};
use super::revision::{deployment, nudge};
use super::scale::{self, ReadScale};
use super::{CHANGED, Outcome, Scene, pods, timed};
use crate::app_ref::AppRef;
use crate::error::{Error, FailureClass, call, chain};
use crate::merge::Mode;
use crate::observe::{followed, live_pods, look};
use crate::unseen_writes::Kind;

/// How long the dry run of a scale may take, and the scale after the DELETE. A spare needs about as long to be scheduled and started; once it runs,
/// the ReplicaSet would choose between it and its busy siblings (a wrong one 4 of 4 times when the scale came 1–4 s late).
const AT_ONCE: Duration = Duration::from_millis(500);

/// How long after the DELETE a scale that meets a conflict is retried.
const RETRIED_FOR: Duration = Duration::from_secs(1);

/// How often a scale that meets a conflict is retried: the Deployment's status moves a few times while a pod goes.
const RETRIES: u32 = 5;

/// What is to be ended, and why it may be.
pub(super) struct Retirement<'a> {
    pub(super) pod: &'a PodRef,
    pub(super) revision: &'a RevisionHash,
    pub(super) replicas: u32,
    pub(super) proof: Proof,
    pub(super) as_well: &'a [(PodUid, Proof)],
}

pub(super) async fn retire(scene: &mut Scene<'_>, what: &Retirement<'_>) -> Result<Outcome, Error> {
    let Retirement { pod, revision, replicas, proof, .. } = *what;
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(CHANGED);
    };
    let (look, seen) = futures::try_join!(
        look(scene.sources, scene.object, &deployment, pod),
        scale::read(scene, &deployment, replicas),
    )?;
    let (found, others) = (look.pod.as_ref().map(|(pod, _)| pod), look.others);
    let (scale_to, grace) = match last_look::check(found, proof, replicas, others) {
        Verdict::Go { scale_to, grace_seconds } => (scale_to, grace_seconds),
        // What else there is to do does not depend on it.
        Verdict::Finished => {
            scene.writes.look_live = true;
            return Ok(Outcome::NotNeeded("it has finished by itself"));
        }
        Verdict::Void(why) => return Ok(Outcome::LookAgain(why)),
    };
    let noted = found.is_some_and(|pod| pod.cut.is_some());
    let (Some((_, mut version)), Some(mut seen)) = (look.pod, seen) else {
        return Ok(CHANGED);
    };
    if scale_to != replicas {
        match prepare_scale(scene, what, &deployment, seen, &version, scale_to).await? {
            ScalePlan::AfterDelete(tried) => seen = tried,
            ScalePlan::Ended(outcome) => return Ok(outcome),
        }
    }
    if let Some(cut) = cut_note(proof, noted) {
        match count_cut(scene, pod, &version, &cut).await {
            Ok(Some(counted)) => version = counted,
            Ok(None) => return Ok(CHANGED),
            Err(error) => return pods::refused(scene, pod, "ended", error),
        }
    }
    if !stands(scene, what) {
        return Ok(NO_MORE);
    }
    let deleted = Instant::now();
    match delete(scene, pod, &version, grace).await? {
        Deleted::Ended => {}
        Deleted::Not(outcome) => return Ok(outcome),
        Deleted::Unknown(error) => {
            // It may be ended all the same, with nobody to take its replica back: nothing more of that Deployment for a while.
            let why = format!("pod {} may have been ended, without an answer: {}", pod.name, chain(&error));
            scene.unanswered += 1;
            scene.writes.refusals.note_late(
                &Subject::Deployment(revision.clone()),
                BackoffCause::TooSlow,
                why.clone(),
                Instant::now(),
            );
            return if error.backoff().is_some() { Ok(Outcome::Refused(why)) } else { Err(error) };
        }
    }
    // One that drains itself is asked until it is gone.
    if !matches!(proof, Proof::HandedOver { .. }) {
        scene.sources.probes.stop_asking(&AppRef::from_obj(scene.object), &pod.uid);
    }
    if scale_to == replicas {
        return Ok(Outcome::Done);
    }
    take_back(scene, what, &deployment, seen, scale_to, deleted).await
}

/// How the scale that belongs to a DELETE is to be done.
enum ScalePlan {
    /// Right after the DELETE, as it is here: it would be taken, and soon enough that a spare does no harm.
    AfterDelete(ReadScale),
    /// Not at all: the retirement ends here. (Where the API server is too slow, a scale may have come first.)
    Ended(Outcome),
}

/// Tries the scale dry, and where the API server is too slow for the DELETE to come first, scales before it ([`scale_first`]).
async fn prepare_scale(
    scene: &mut Scene<'_>,
    what: &Retirement<'_>,
    deployment: &Arc<Deployment>,
    seen: ReadScale,
    version: &str,
    scale_to: u32,
) -> Result<ScalePlan, Error> {
    let Retirement { pod, revision, replicas, .. } = *what;
    let ((tried, took), pod_write) =
        futures::join!(timed(scale::write(scene, &seen, scale_to, Mode::Dry)), pods::try_a_write(scene, pod));
    match tried {
        Ok(_) if took > AT_ONCE => {
            let first = scale_first(scene, what, deployment, &seen, version).await?;
            return Ok(ScalePlan::Ended(first.unwrap_or_else(|| too_slow(scene, what, took))));
        }
        Ok(_) => {}
        Err(error) if error.not_found() || error.conflict() => return Ok(ScalePlan::Ended(CHANGED)),
        Err(error) => {
            let refused = scale::refused(scene, revision, &deployment.name_any(), scale_to, error);
            return refused.map(ScalePlan::Ended);
        }
    }
    // A dry run commits nothing: where the last real scale came late, this one may as well.
    let came_late = scene.writes.refusals.came_late(&Subject::Deployment(revision.clone()), Instant::now());
    let pod_write = scene.writes.pod_write(pod_write);
    let in_time = last_look::unroutes_in_time(pod_write);
    if (came_late || !in_time)
        && let Some(outcome) = scale_first(scene, what, deployment, &seen, version).await?
    {
        return Ok(ScalePlan::Ended(outcome));
    }
    if in_time {
        return Ok(ScalePlan::AfterDelete(seen));
    }
    // Delays come and go: what was late is asked twice.
    let measurements = if came_late { 2 } else { 1 };
    for _ in 0..measurements {
        if let Some(kept) = measure_controller(scene, what, pod_write).await? {
            return Ok(ScalePlan::Ended(kept));
        }
    }
    // That has changed the Deployment.
    let again = scale::read(scene, deployment, replicas).await?;
    Ok(again.map_or(ScalePlan::Ended(CHANGED), ScalePlan::AfterDelete))
}

/// What is to be written on the pod of what is cut, before it is ended; none where nothing is to be written.
fn cut_note(proof: Proof, noted: bool) -> Option<Value> {
    match proof {
        Proof::Cut { tasks, .. } => {
            Some(json!(tasks.map_or_else(|| "unknown".to_owned(), |n| n.to_string())))
        }
        // An earlier try to cut it was refused after the note was written. It has finished since, so nothing of it is cut: the note goes.
        _ if noted => Some(Value::Null),
        _ => None,
    }
}

/// What a pod has said may have changed since the plan, which is seconds old behind a slow API server.
fn stands(scene: &Scene<'_>, what: &Retirement<'_>) -> bool {
    let Some(policy) = scene.seen.policy(what.revision) else { return false };
    let contacts = scene.sources.probes.contacts([&what.pod.uid].into_iter());
    last_look::still_stands(what.proof, contacts.get(&what.pod.uid), policy, scene.sources.clock.now())
}

/// Its work has come back, or is known no more.
const NO_MORE: Outcome = Outcome::LookAgain("what the pod said does not stand any more");

/// The scale that belongs to a DELETE.
async fn take_back(
    scene: &mut Scene<'_>,
    what: &Retirement<'_>,
    deployment: &Arc<Deployment>,
    mut seen: ReadScale,
    scale_to: u32,
    deleted: Instant,
) -> Result<Outcome, Error> {
    let mut tries = 0;
    // Where the answer to the DELETE came late, or only by asking, a spare may run by now.
    let mut look_first = deleted.elapsed() > AT_ONCE;
    let (kind, why) = loop {
        if look_first {
            match look_again(scene, what, deployment, scale_to).await {
                Ok(again) => seen = again,
                Err(why) => break why,
            }
        }
        look_first = true;
        let scaled = timeout(AT_ONCE, scale::write(scene, &seen, scale_to, Mode::Real)).await;
        let result: &'static str = match &scaled {
            Ok(Ok(_)) => ActionResult::Done.into(),
            Ok(Err(error)) => error.class().into(),
            Err(_) => FailureClass::Timeout.into(),
        };
        scene.metrics.acted(ActionKind::ScaleAfterDelete, result);
        let may_retry = tries < RETRIES && deleted.elapsed() < RETRIED_FOR;
        match scaled {
            Ok(Ok(scaled)) => {
                scale::record(scene, what.revision, &scaled);
                scene.taken_back.0.insert(what.revision.clone(), Instant::now());
                return Ok(Outcome::Done);
            }
            Ok(Err(error)) if error.conflict() && may_retry => tries += 1,
            Ok(Err(error)) if error.denial().is_some() => break (BackoffCause::Refused, chain(&error)),
            // It may have been done, and the answer was lost. One that still comes meets the version that it carries, or does what it should.
            Ok(Err(error)) if !error.not_done() => {
                if let Ok(Some(_)) = scale::read(scene, deployment, scale_to).await {
                    scene.writes.refusals.cleared(&Subject::Deployment(what.revision.clone()));
                    scene.taken_back.0.insert(what.revision.clone(), Instant::now());
                    return Ok(FOUND_DONE);
                }
                if !may_retry {
                    break (BackoffCause::TooSlow, chain(&error));
                }
                tries += 1;
            }
            Ok(Err(error)) => break (BackoffCause::TooSlow, chain(&error)),
            Err(_) => break (BackoffCause::TooSlow, format!("no answer within {} ms", AT_ONCE.as_millis())),
        }
    };
    let (name, pod) = (deployment.name_any(), &what.pod.name);
    let message = format!("Deployment {name} was not scaled to {scale_to} after pod {pod} was ended: {why}");
    warn!("{message}");
    scene.writes.refusals.note_late(
        &Subject::Deployment(what.revision.clone()),
        kind,
        message,
        Instant::now(),
    );
    Ok(Outcome::DoneLookAgain("its replica was not taken back"))
}

/// It was done, and nobody said so.
const FOUND_DONE: Outcome =
    Outcome::DoneLookAgain("its replica was taken back, and the answer to that was lost");

/// The scale first, and the list after it: a spare that runs by now is then in the list, or moves the version. Else why the scale must not follow any more.
async fn look_again(
    scene: &Scene<'_>,
    what: &Retirement<'_>,
    deployment: &Arc<Deployment>,
    scale_to: u32,
) -> Result<ReadScale, (BackoffCause, String)> {
    let late = |error: Error| (BackoffCause::TooSlow, chain(&error));
    let Some(seen) = scale::read(scene, deployment, what.replicas).await.map_err(late)? else {
        return Err((BackoffCause::Refused, "its replicas were changed meanwhile".to_owned()));
    };
    let live = live_pods(scene.sources, scene.object, deployment).await.map_err(late)?;
    let pods: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
    if may_lower(scale_to, &pods) {
        return Ok(seen);
    }
    let why = "its spare runs already, and its ReplicaSet might take a busy pod in its place";
    Err((BackoffCause::TooSlow, why.to_owned()))
}

/// For an API server that answers in seconds: the scale first, so that no spare is made, where a wrong choice of the ReplicaSet would lose
/// nothing (`last_look::may_scale_first`). The pod's deletion cost is made the lowest just before. None where it may not be.
async fn scale_first(
    scene: &mut Scene<'_>,
    what: &Retirement<'_>,
    deployment: &Arc<Deployment>,
    seen: &ReadScale,
    version: &str,
) -> Result<Option<Outcome>, Error> {
    let Retirement { pod, revision, replicas, proof, as_well } = *what;
    let live = live_pods(scene.sources, scene.object, deployment).await?;
    let pods: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
    let Some(policy) = scene.seen.policy(revision) else {
        return Ok(Some(CHANGED));
    };
    // The ReplicaSet may take any of them: what each has said must stand just now.
    let contacts = scene.sources.probes.contacts(as_well.iter().map(|(uid, _)| uid));
    let stand = |(uid, proof): &&(PodUid, Proof)| {
        last_look::still_stands(*proof, contacts.get(uid), policy, scene.sources.clock.now())
    };
    let as_well: Vec<_> = as_well.iter().filter(stand).cloned().collect();
    if !may_scale_first(&pod.uid, proof, &as_well, policy, &pods) {
        return Ok(None);
    }
    let cheapest = json!({(names::POD_DELETION_COST): names::RETIRING_DELETION_COST});
    match pods::write(scene, pod, Some(version), &json!({}), &cheapest, Mode::Real).await {
        Ok(written) => scene.writes.unseen_writes.record(Kind::Pod, &written),
        Err(error) if error.not_found() || error.conflict() => return Ok(Some(CHANGED)),
        Err(error) => return pods::refused(scene, pod, "ended", error).map(Some),
    }
    if !stands(scene, what) {
        return Ok(Some(NO_MORE));
    }
    let scale_to = replicas.saturating_sub(1);
    let outcome = match scale::write(scene, seen, scale_to, Mode::Real).await {
        Ok(scaled) => {
            scale::record(scene, revision, &scaled);
            scene.writes.brake.ended();
            Outcome::NotNeeded(
                "its Deployment was scaled down first, since the API server is slow, and its ReplicaSet ends it",
            )
        }
        Err(error) if error.not_found() || error.conflict() => CHANGED,
        Err(error) => {
            if !error.not_done() {
                scene.writes.brake.ended();
            }
            return scale::refused(scene, revision, &deployment.name_any(), scale_to, error).map(Some);
        }
    };
    Ok(Some(outcome))
}

/// For pods that are slow to write to: a spare would have clients before it is out of service, and end with them, unless its ReplicaSet deletes it before
/// it has started. How fast its Deployment's controllers hear of a change is measured first, by a write of an annotation that asks for
/// nothing (`nudge`). None where they are fast; else the pod waits, and why is told.
async fn measure_controller(
    scene: &mut Scene<'_>,
    what: &Retirement<'_>,
    pod_write: Option<Duration>,
) -> Result<Option<Outcome>, Error> {
    let Some(name) = deployment(scene, what.revision).map(|d| d.name_any()) else {
        return Ok(Some(CHANGED));
    };
    let measured = match nudge(scene, what.revision).await? {
        Outcome::Done | Outcome::NotNeeded(_) => match follows_at_once(scene, &name).await? {
            Some(true) => return Ok(None),
            Some(false) => {
                format!(
                    "the controller of Deployment {name} takes more than {} ms to notice a change",
                    FOLLOWS_AT_ONCE.as_millis()
                )
            }
            None => return Ok(Some(CHANGED)),
        },
        Outcome::Refused(why) => {
            format!(
                "how fast the controller of Deployment {name} notices a change cannot be found out ({why})"
            )
        }
        undone @ (Outcome::LookAgain(_)
        | Outcome::DoneLookAgain(_)
        | Outcome::Answered
        | Outcome::Later
        | Outcome::GrownOld) => return Ok(Some(undone)),
    };
    let write = pod_write.map_or_else(
        || "the API server refuses writes to its pods".to_owned(),
        |took| format!("a write to a pod takes {:.1} s", took.as_secs_f64()),
    );
    let message = format!(
        "pod {} may be ended and is kept: {measured}, and {write}. A pod that is made in its place could get clients before it is taken back (an admission \
         webhook or policy on replicasets and pods, or a busy API server)",
        what.pod.name
    );
    let of = Subject::Deployment(what.revision.clone());
    scene.writes.refusals.note_late(&of, BackoffCause::TooSlow, message.clone(), Instant::now());
    Ok(Some(Outcome::Refused(message)))
}

/// Whether its controller has taken up the last change in time; none where it is gone.
async fn follows_at_once(scene: &Scene<'_>, name: &str) -> Result<Option<bool>, Error> {
    let changed = Instant::now();
    loop {
        let found = call("read a Deployment", scene.api::<Deployment>().get_opt(name)).await?;
        let in_time = changed.elapsed() <= FOLLOWS_AT_ONCE;
        match found {
            None => return Ok(None),
            Some(now) if followed(&now) => return Ok(Some(in_time)),
            Some(_) if !in_time => return Ok(Some(false)),
            Some(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// How often a Deployment is read that its controller is to take up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The pod waits, and what was measured is told.
fn too_slow(scene: &mut Scene<'_>, what: &Retirement<'_>, took: Duration) -> Outcome {
    let message = format!(
        "pod {} may be ended and is kept: the API server is too slow to end it safely. A dry run of the scale took {:.1} s, and a scale more than {:.1} s after \
         the DELETE could cost a busy pod",
        what.pod.name,
        took.as_secs_f64(),
        AT_ONCE.as_secs_f64()
    );
    let of = Subject::Deployment(what.revision.clone());
    scene.writes.refusals.note(of, BackoffCause::TooSlow, message.clone(), Instant::now());
    Outcome::Refused(message)
}

/// The count goes on the pod before the DELETE: what was cut can be read off it for as long as it is there.
async fn count_cut(
    scene: &Scene<'_>,
    pod: &PodRef,
    version: &str,
    cut: &Value,
) -> Result<Option<String>, Error> {
    let annotations = json!({(names::CUT): cut});
    match pods::write(scene, pod, Some(version), &json!({}), &annotations, Mode::Real).await {
        Ok(written) => Ok(written.resource_version()),
        Err(error) if error.not_found() || error.conflict() => Ok(None),
        Err(error) => Err(error),
    }
}
