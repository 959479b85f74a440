//! A Deployment's `spec.replicas`: changed only through its `scale`, and only from the state that was seen.
//!
//! # Guarantees
//! Every write carries uid and resourceVersion. A call that we gave up may still land seconds later; with the version it lands on the very state
//! that it was decided on, or nowhere. No write here passes an admission that watches Deployments, so that none can ride on it into a template.

use std::time::{Duration, Instant};

use graceful_api::{RevisionHash, names};
use graceful_plan::BackoffCause;
use graceful_plan::last_look::{self, may_lower, taken_by};
use graceful_plan::refusals::Subject;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;

use super::revision::deployment;
use super::{CHANGED, Outcome, Scene};
use crate::error::{Error, call};
use crate::merge::{Mode, merge};
use crate::observe::live_pods;
use crate::unseen_writes::Kind;
use crate::writes::LATELY;

/// A scale that meets a conflict is read and retried at once, for so long and so often at most: where pods come and go many a second the
/// Deployment's status moves as often, and the next plan would meet the same.
const RETRIED_FOR: Duration = Duration::from_secs(3);
const RETRIES: u32 = 20;

/// The scale of one Deployment as it was read.
#[derive(Clone, Debug)]
pub(super) struct ReadScale {
    name: String,
    uid: String,
    version: String,
}

/// To another number. A live list comes after the scale was read and before it is lowered: a ReplicaSet is never left to choose among pods that may run.
pub(super) async fn set(
    scene: &mut Scene<'_>,
    revision: &RevisionHash,
    from: u32,
    to: u32,
) -> Result<Outcome, Error> {
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(CHANGED);
    };
    let (mut conflicts, begun) = (0, Instant::now());
    loop {
        let Some(seen) = read(scene, &deployment, from).await? else {
            return Ok(CHANGED);
        };
        let mut taken = 0;
        if to < from {
            let live = live_pods(scene.sources, scene.object, &deployment).await?;
            let pods: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
            if !may_lower(to, &pods) {
                return Ok(Outcome::LookAgain("there are more pods that may run"));
            }
            taken = taken_by(from, to, &pods);
        }
        match write(scene, &seen, to, Mode::Real).await {
            Ok(scaled) => {
                record(scene, revision, &scaled);
                scene.writes.brake.taken(taken);
                if spare_ran(scene, revision, from) {
                    let message = format!(
                        "a pod of Deployment {} was ended, and another came in its place before its ReplicaSet had followed: the cluster's controllers are \
                         slow, or an admission webhook on replicasets is; retrying in another order",
                        deployment.name_any()
                    );
                    scene.writes.refusals.note_late(
                        &Subject::Deployment(revision.clone()),
                        BackoffCause::TooSlow,
                        message,
                        Instant::now(),
                    );
                }
                return Ok(Outcome::Done);
            }
            Err(error) if error.conflict() && conflicts < RETRIES && begun.elapsed() < RETRIED_FOR => {
                conflicts += 1;
            }
            Err(error) if error.not_found() || error.conflict() => return Ok(CHANGED),
            Err(error) => {
                // It may have been done all the same.
                scene.writes.scaled.remove(&seen.uid);
                return refused(scene, revision, &deployment.name_any(), to, error);
            }
        }
    }
}

fn spare_ran(scene: &Scene<'_>, revision: &RevisionHash, from: u32) -> bool {
    let pods = scene.seen.observed.pods.iter().filter(|p| p.revision == *revision);
    last_look::spare_ran(pods, from, scene.taken_back.0.get(revision).map(Instant::elapsed))
}

/// The scale, if it still belongs to the Deployment that was seen and is what was seen.
pub(super) async fn read(
    scene: &Scene<'_>,
    deployment: &Deployment,
    from: u32,
) -> Result<Option<ReadScale>, Error> {
    let name = deployment.name_any();
    let scale = match call("read a scale", scene.api::<Deployment>().get_scale(&name)).await {
        Ok(scale) => scale,
        Err(error) if error.not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    // A scale of 0 is left out.
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default();
    let (uid, version) = (scale.metadata.uid, scale.metadata.resource_version);
    let same = uid == deployment.metadata.uid && u32::try_from(replicas) == Ok(from);
    Ok(match (uid, version) {
        (Some(uid), Some(version)) if same => Some(ReadScale { name, uid, version }),
        _ => None,
    })
}

/// One merge patch that holds for this uid and resourceVersion alone. An admission that makes another number of it has refused it: nothing may be
/// ended for a scale that does not come.
pub(super) async fn write(scene: &Scene<'_>, seen: &ReadScale, to: u32, mode: Mode) -> Result<Scale, Error> {
    let ReadScale { name, uid, version } = seen;
    let patch = json!({"metadata": {"uid": uid, "resourceVersion": version}, "spec": {"replicas": to}});
    let what = match mode {
        Mode::Dry => "dry-run a scale",
        Mode::Real => "scale a Deployment",
    };
    let scaled =
        call(what, scene.api::<Deployment>().patch_scale(name, &merge(mode), &Patch::Merge(patch))).await?;
    // A scale of 0 is left out.
    let made = scaled.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default();
    if u32::try_from(made) == Ok(to) {
        return Ok(scaled);
    }
    let how = format!(
        "an admission webhook or policy makes replicas {made} of it; exempt Deployments with the label {} from it",
        names::APP_LABEL
    );
    Err(Error::Altered { what, how })
}

/// Records that the scale went through.
pub(super) fn record(scene: &mut Scene<'_>, revision: &RevisionHash, scaled: &Scale) {
    scene.writes.refusals.cleared(&Subject::Deployment(revision.clone()));
    scene.writes.unseen_writes.record(Kind::Deployment, scaled);
    let to = scaled.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default();
    if let (Some(uid), Ok(to), true) = (scaled.metadata.uid.clone(), u32::try_from(to), revision.is_adopted())
    {
        notice_a_raise(scene, revision, uid, to);
    }
}

/// Where somebody makes each replica of an adopted Deployment anew that was taken back (its repository has its number, and no policy guards its Scale), pods are drained
/// and ended without end: slower and slower, until that stops. (Of our own Deployments the brake says it.)
fn notice_a_raise(scene: &mut Scene<'_>, revision: &RevisionHash, uid: String, to: u32) {
    let seen = scene.seen.observed.revisions.iter().find(|r| r.hash == *revision);
    let before = scene.writes.scaled.insert(uid, to);
    let Some(seen) = seen.filter(|seen| before.is_some_and(|before| seen.replicas > before)) else { return };
    let Some(times) = scene.writes.repeats(&format!("scale {revision}")) else { return };
    let message = format!(
        "Deployment {} was scaled up by somebody else {times} times within {} min, to {} the last time, and each pod of it that is ended is made again: find out who \
         writes its spec.replicas (GitOps, an autoscaler, `kubectl get deployment {} -n {} -o yaml --show-managed-fields`), and have that scale the GracefulApp, or leave \
         it alone",
        seen.name,
        LATELY.as_secs() / 60,
        seen.replicas,
        seen.name,
        scene.namespace()
    );
    let of = Subject::Deployment(revision.clone());
    scene.writes.refusals.note(of, BackoffCause::NoProgress, message, Instant::now());
}

/// Remembers that it was refused, or not answered, in whose words; any other failure is the whole plan's.
pub(super) fn refused(
    scene: &mut Scene<'_>,
    revision: &RevisionHash,
    name: &str,
    to: u32,
    error: Error,
) -> Result<Outcome, Error> {
    let of = Subject::Deployment(revision.clone());
    super::back_off(scene, of, error, |why| {
        format!("Deployment {name} cannot be scaled to {to}: {why}; no pod of it is ended until it can")
    })
}
