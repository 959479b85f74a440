//! The user's Services follow an adoption, and select as before once it is over; the managed one is let go of.
//!
//! # Guarantees
//! The serving label goes into a selector only where every pod that it could send clients to has it, none of somebody else's would lose its clients, and a dry run has shown
//! that admission leaves the write as it is. What admission makes of the real write all the same is undone at once.

use std::collections::BTreeSet;
use std::time::Instant;

use graceful_api::{RevisionHash, names};
use graceful_plan::BackoffCause;
use graceful_plan::refusals::Subject;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::super::revision::deployment;
use super::super::{CHANGED, Outcome, Scene};
use super::changed_on_the_way;
use crate::error::{Error, call};
use crate::merge::{Mode, merge};
use crate::observe::{condition, has_finished, live_pods, selects};
use crate::unseen_writes::Kind;
use crate::writes::LATELY;

/// How often a Service is put back that somebody else writes to at that very moment.
const UNDOES: usize = 5;

/// The serving label into its selector, once every pod that it could send clients to has it.
pub(crate) async fn fence(scene: &mut Scene<'_>, name: &str) -> Result<Outcome, Error> {
    let Some(adopted) = deployment(scene, &RevisionHash::adopted()) else {
        return Ok(CHANGED);
    };
    let Some(found) = call("read a Service", scene.api::<Service>().get_opt(name)).await? else {
        return Ok(CHANGED);
    };
    // Whoever has put its selector back since is not fought over it: the next view shows that.
    if found.annotations().get(names::FENCED) == scene.object.uid().as_ref() {
        return Ok(Outcome::NotNeeded("it was fenced before"));
    }
    let pods = live_pods(scene.sources, scene.object, &adopted).await?;
    if pods.iter().any(|(pod, _)| pod.would_be_fenced_off()) {
        return Ok(Outcome::LookAgain("a pod of the Deployment is without the label"));
    }
    let its = pods.iter().map(|(pod, _)| pod.name.as_str()).collect();
    let behind = selected(scene, &found).await?;
    if let Some(stranger) = stranger(scene, &behind, &its) {
        let message = format!(
            "Service {name} also sends clients to pod {stranger}, which is not of this app: give those a Service of their own, or label them {}={}",
            names::SERVING_LABEL,
            names::SERVING
        );
        return Ok(put_off(scene, name, BackoffCause::Refused, message));
    }
    let tried = match select(scene, &found, &fencing(scene), Mode::Dry).await {
        Ok(tried) => tried,
        Err(error) if error.not_found() || error.conflict() => return Ok(CHANGED),
        Err(error) => return refused(scene, name, error),
    };
    if let Some(altered) = altered(scene, &tried, &behind) {
        return refused(scene, name, altered);
    }
    let fenced = match select(scene, &found, &fencing(scene), Mode::Real).await {
        Ok(fenced) => fenced,
        Err(error) if error.not_found() || error.conflict() => return Ok(CHANGED),
        Err(error) => return refused(scene, name, error),
    };
    scene.writes.unseen_writes.record(Kind::Service, &fenced);
    if let Some(altered) = altered(scene, &fenced, &behind) {
        undo(scene, name).await?;
        return refused(scene, name, altered);
    }
    scene.writes.refusals.cleared(&Subject::Service(name.to_owned()));
    let note = format!(
        "Service {name} asks for the label {} now, which every pod of the adopted Deployment has",
        names::SERVING_LABEL
    );
    scene.notes.push(("ServiceFenced", note));
    if let Some(times) = scene.writes.repeats(&format!("fence {name}")) {
        let message = format!(
            "Service {name} was fenced {times} times within {} min: somebody writes it anew without the operator's annotation (`kubectl replace`, Argo CD with \
             Replace=true); put {}: \"{}\" into its selector where it is kept",
            LATELY.as_secs() / 60,
            names::SERVING_LABEL,
            names::SERVING
        );
        return Ok(put_off(scene, name, BackoffCause::Refused, message));
    }
    Ok(Outcome::Done)
}

/// As it was before.
pub(crate) async fn unfence(scene: &mut Scene<'_>, name: &str) -> Result<Outcome, Error> {
    let Some(found) = call("read a Service", scene.api::<Service>().get_opt(name)).await? else {
        return Ok(Outcome::NotNeeded("it is gone"));
    };
    if found.annotations().get(names::FENCED) != scene.object.uid().as_ref() {
        return Ok(Outcome::NotNeeded("it was changed by others"));
    }
    let before = json!({
        "metadata": {"annotations": {(names::FENCED): null}},
        "spec": {"selector": {(names::SERVING_LABEL): null}},
    });
    // Without its annotation nobody would know it for one that is fenced.
    match select(scene, &found, &before, Mode::Dry).await {
        Ok(tried) => {
            if let Some(what) = differs(&tried, &before) {
                return refused(scene, name, on_the_way(&what));
            }
        }
        Err(error) if error.not_found() || error.conflict() => return Ok(CHANGED),
        Err(error) => return refused(scene, name, error),
    }
    match select(scene, &found, &before, Mode::Real).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Service, &written);
            if let Some(what) = differs(&written, &before) {
                return refused(scene, name, on_the_way(&what));
            }
            scene.writes.refusals.cleared(&Subject::Service(name.to_owned()));
            let note = format!("Service {name} selects as it did before the adoption");
            scene.notes.push(("ServiceUnfenced", note));
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => refused(scene, name, error),
    }
}

/// The managed Service without what makes it ours. It selects what it selected.
pub(crate) async fn let_go_service(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let name = names::service_name(&scene.object.name_any());
    let Some(found) = call("read a Service", scene.api::<Service>().get_opt(&name)).await? else {
        return Ok(Outcome::NotNeeded("it is gone"));
    };
    if found.annotations().get(names::APP_UID) != scene.object.uid().as_ref() {
        return Ok(Outcome::NotNeeded("it is not this app's"));
    }
    let plain = json!({"metadata": {
        "labels": {(names::APP_LABEL): null, (graceful_api::children::MANAGED_BY): null},
        "annotations": {(names::APP_UID): null, (names::APPLIED): null},
    }});
    match select(scene, &found, &plain, Mode::Real).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Service, &written);
            if let Some(what) = differs(&written, &plain) {
                return refused(scene, &name, on_the_way(&what));
            }
            scene.writes.refusals.cleared(&Subject::Service(name));
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => refused(scene, &name, error),
    }
}

/// The label in its selector, and the annotation that says who wrote it.
fn fencing(scene: &Scene<'_>) -> Value {
    json!({
        "metadata": {"annotations": {(names::FENCED): scene.object.uid()}},
        "spec": {"selector": {(names::SERVING_LABEL): names::SERVING}},
    })
}

/// One merge patch of the very Service that was looked at.
async fn select(scene: &Scene<'_>, found: &Service, changes: &Value, mode: Mode) -> Result<Service, Error> {
    let mut patch = changes.clone();
    patch["metadata"]["uid"] = json!(found.metadata.uid);
    patch["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
    let what = match mode {
        Mode::Dry => "dry-run a Service",
        Mode::Real => "write to a Service",
    };
    let api = scene.api::<Service>();
    call(what, api.patch(&found.name_any(), &merge(mode), &Patch::Merge(patch))).await
}

/// What admission makes of a Service that is fenced: something else than is asked for, or one that sends clients to none of the Ready pods that are behind it now.
fn altered(scene: &Scene<'_>, made: &Service, behind: &[Pod]) -> Option<Error> {
    if let Some(what) = differs(made, &fencing(scene)) {
        return Some(on_the_way(&what));
    }
    let ready = |pod: &&Pod| {
        let ready = condition(pod.status.as_ref(), "Ready").is_some_and(|c| c.status == "True");
        ready && pod.metadata.deletion_timestamp.is_none()
    };
    let mut ready = behind.iter().filter(ready).peekable();
    let nowhere = ready.peek().is_some() && !ready.any(|pod| selects(made, pod.labels()));
    nowhere.then(|| {
        let how = "no Ready pod has the labels that its selector asks for then; does an admission webhook or policy change pods or Services?";
        Error::Altered { what: "fence a Service", how: how.to_owned() }
    })
}

/// The first of what is asked for that is otherwise, in words.
fn differs(made: &Service, asked: &Value) -> Option<String> {
    let selector = made.spec.as_ref().and_then(|s| s.selector.as_ref());
    let of_selector = asked["spec"]["selector"].as_object().into_iter().flatten();
    let mut others = of_selector
        .filter(|(key, value)| selector.and_then(|all| all.get(*key)).map(String::as_str) != value.as_str());
    let key = others.next().map(|(key, _)| format!("{key} in its selector"));
    key.or_else(|| changed_on_the_way(&made.metadata, asked))
}

fn on_the_way(what: &str) -> Error {
    let how = format!("an admission webhook or policy changes {what}; exempt this Service from it");
    Error::Altered { what: "write to a Service", how }
}

/// Clients are sent nowhere meanwhile, or nobody would know later that it is to be put back.
async fn undo(scene: &mut Scene<'_>, name: &str) -> Result<(), Error> {
    for _ in 0..UNDOES {
        let Some(found) = call("read a Service", scene.api::<Service>().get_opt(name)).await? else { break };
        let before = json!({
            "metadata": {"annotations": {(names::FENCED): null}},
            "spec": {"selector": {(names::SERVING_LABEL): null}},
        });
        match select(scene, &found, &before, Mode::Real).await {
            Ok(back) => {
                scene.writes.unseen_writes.record(Kind::Service, &back);
                break;
            }
            Err(error) if error.conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A pod of somebody else's behind the same Service, which would get no clients once that asks for the label.
fn stranger(scene: &Scene<'_>, behind: &[Pod], its: &BTreeSet<&str>) -> Option<String> {
    let app = scene.object.name_any();
    let serves = |pod: &Pod| pod.labels().get(names::SERVING_LABEL).is_some_and(|v| v == names::SERVING);
    let ours = |pod: &Pod| pod.labels().get(names::APP_LABEL) == Some(&app);
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && !has_finished(pod);
    let others = behind.iter().filter(|pod| stays(pod) && !serves(pod) && !ours(pod));
    // One of the Deployment that has not begun is labelled once it has.
    others.map(ResourceExt::name_any).find(|name| !its.contains(name.as_str()))
}

/// What it selects, read just now.
async fn selected(scene: &Scene<'_>, service: &Service) -> Result<Vec<Pod>, Error> {
    let selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    let selector: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = kube::api::ListParams::default().labels(&selector.join(","));
    let pods = call("list pods", scene.api::<Pod>().list(&params)).await?;
    Ok(pods.items.into_iter().filter(|pod| selects(service, pod.labels())).collect())
}

fn refused(scene: &mut Scene<'_>, name: &str, error: Error) -> Result<Outcome, Error> {
    let Some((cause, why)) = error.backoff() else {
        return Err(error);
    };
    scene.unanswered += u32::from(cause == BackoffCause::TooSlow);
    Ok(put_off(scene, name, cause, format!("Service {name} cannot be changed: {why}")))
}

/// No pod drains while it is not fenced, and no app leaves before it is given back.
fn put_off(scene: &mut Scene<'_>, name: &str, cause: BackoffCause, message: String) -> Outcome {
    let of = Subject::Service(name.to_owned());
    scene.writes.refusals.note(of, cause, message.clone(), Instant::now());
    Outcome::Refused(message)
}
