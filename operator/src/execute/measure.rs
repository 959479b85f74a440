//! How soon a Deployment's controllers hear of a change, measured before a pod of it is ended.
//!
//! This is for pods that are slow to write to: a spare would have clients before it is out of service, and end with them, unless its ReplicaSet deletes it
//! before it has started. It is measured by a write of an annotation that asks for nothing (`nudge`).

use std::time::{Duration, Instant};

use graceful_api::RevisionHash;
use graceful_plan::last_look::FOLLOWS_AT_ONCE;
use graceful_plan::refusals::Subject;
use graceful_plan::{BackoffCause, PodRef};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use tokio::time::sleep;

use super::revision::{deployment, nudge};
use super::{CHANGED, Outcome, Scene};
use crate::error::{Error, call};
use crate::observe::followed;

/// How often a Deployment is read that its controller is to take up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// None where they are fast; else the pod waits, and why is told. `pod_write` is how long a write to the pod takes; none where it is refused.
pub(super) async fn measure(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    revision: &RevisionHash,
    pod_write: Option<Duration>,
) -> Result<Option<Outcome>, Error> {
    let Some(name) = deployment(scene, revision).map(|d| d.name_any()) else {
        return Ok(Some(CHANGED));
    };
    let measured = match nudge(scene, revision).await? {
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
        pod.name
    );
    let of = Subject::Deployment(revision.clone());
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
