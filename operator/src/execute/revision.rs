//! A revision's Deployment: tried dry, made once, its policy kept current, and removed when it is history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use graceful_api::{Given, RevisionHash, Validated, children, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{BackoffCause, TemplateVerdict};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Request};
use serde_json::{Value, json};

use super::{CHANGED, NAMESPACE_GOES, Outcome, Scene};
use crate::error::{Error, call};
use crate::merge::{Mode, merge};
use crate::observe::GateImage;
use crate::unseen_writes::Kind;
use crate::writes::Expiring;

/// Asks the API server what it would say, before anything that runs is touched. Strictly, as it is made, so that an unknown field is named: the CRD lets it
/// pass, and a typo would otherwise be found by its absence.
pub(super) async fn dry_run(scene: &mut Scene<'_>, revision: &RevisionHash) -> Result<Outcome, Error> {
    let Some(app) = update(scene, revision) else {
        return Ok(CHANGED);
    };
    let wanted = wanted(scene, &app, 0);
    let verdict = match post(scene, &wanted, Post::DryRun).await {
        Ok(tried) => match taken_off(&tried, &wanted).or(taken_off_pods(scene, &wanted).await) {
            Some(why) => TemplateVerdict::Refused(why),
            None => TemplateVerdict::Accepted,
        },
        Err(error) if error.conflict() => name_is_taken(scene, &app).await?,
        Err(error) if scene.namespace_goes(&error) => return Ok(CHANGED),
        Err(error) => no_verdict(scene, error)?,
    };
    scene.writes.verdicts.clear();
    scene.writes.verdicts.insert(revision.0.clone(), Expiring::new(verdict));
    Ok(Outcome::Answered)
}

/// Why it was not taken: a denial stands until somebody changes something, and slowness passes.
fn no_verdict(scene: &mut Scene<'_>, error: Error) -> Result<TemplateVerdict, Error> {
    let (cause, why) = error.backoff().ok_or(error)?;
    if cause.is_slowness() {
        scene.unanswered += 1;
        return Ok(TemplateVerdict::Unanswered { why, ask_again: false });
    }
    Ok(TemplateVerdict::Refused(why))
}

/// The Deployment as it is to be.
fn wanted(scene: &Scene<'_>, app: &Validated, replicas: u32) -> Value {
    let (keys, GateImage { image, pull_policy }) =
        (scene.supplies.keyring.public_halves(), &scene.supplies.gate_image);
    let given =
        Given { drain_keys: keys.as_deref(), gate_image: image, gate_pull_policy: pull_policy.as_deref() };
    let mut deployment = children::deployment(app, replicas, &given);
    if scene.supplies.keyring.gives() && keys.is_none() {
        deployment["metadata"]["annotations"][names::WITHOUT_KEYS] = json!("true");
    }
    deployment
}

/// What admission takes off the Deployment that we could not do without: its label finds it, and its annotations say whose it is and how its pods drain.
fn taken_off(tried: &Deployment, wanted: &Value) -> Option<String> {
    let of_ours = |kind: &str| wanted["metadata"][kind].as_object().cloned().unwrap_or_default();
    let (labels, annotations) = (of_ours("labels"), of_ours("annotations"));
    let kept = |keys: &serde_json::Map<String, Value>, there: &BTreeMap<String, String>| {
        keys.keys().find(|key| !there.contains_key(*key)).cloned()
    };
    let key = kept(&labels, tried.labels()).or_else(|| kept(&annotations, tried.annotations()))?;
    Some(format!(
        "an admission webhook or policy takes {key} off our Deployments; exempt those with the label graceful.dev/app from it"
    ))
}

/// The same of pods: without the labels of its selector a ReplicaSet does not know the pods that it makes, and makes more of them without end. Whatever
/// else stands in a pod's way is said by its ReplicaSet, in time.
async fn taken_off_pods(scene: &Scene<'_>, wanted: &Value) -> Option<String> {
    let mut pod = wanted["spec"]["template"].clone();
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    pod["metadata"]["generateName"] =
        json!(format!("{}-", wanted["metadata"]["name"].as_str().unwrap_or_default()));
    let params = PostParams { dry_run: true, field_manager: Some(names::FIELD_MANAGER.to_owned()) };
    let path = <Pod as kube::Resource>::url_path(&(), Some(&scene.namespace()));
    let request = async {
        let request = Request::new(path)
            .create(&params, pod.to_string().into_bytes())
            .map_err(kube::Error::BuildRequest)?;
        scene.sources.client.request::<PartialObjectMeta<Pod>>(request).await
    };
    let tried = call("dry-run a pod", request).await.ok()?;
    let selector = wanted["spec"]["selector"]["matchLabels"].as_object()?;
    let (key, _) = selector
        .iter()
        .find(|(key, value)| tried.labels().get(*key).map(String::as_str) != value.as_str())?;
    Some(format!(
        "an admission webhook or policy takes the label {key} off new pods, so that their ReplicaSet would make them without end; exempt pods with that \
         label from it"
    ))
}

/// Makes it, once. One that is there already is success: its template is never written again (P5).
pub(super) async fn create(
    scene: &mut Scene<'_>,
    revision: &RevisionHash,
    replicas: u32,
) -> Result<Outcome, Error> {
    let Some(app) = update(scene, revision) else {
        return Ok(CHANGED);
    };
    // What it is given it has for life: a key that was rotated out because it leaked must not be among it.
    scene.supplies.keyring.renewed().await;
    let wanted = wanted(scene, &app, replicas);
    match post(scene, &wanted, Post::Create).await {
        Ok(made) => {
            let Some(why) = taken_off(&made, &wanted) else {
                scene.writes.unseen_writes.record(Kind::Deployment, &made);
                return Ok(Outcome::Done);
            };
            // Nobody would drain its pods; none has served yet.
            unmake(scene, &made).await?;
            scene.writes.verdicts.insert(revision.0.clone(), Expiring::new(TemplateVerdict::Refused(why)));
            Ok(Outcome::LookAgain("admission changes the Deployment"))
        }
        Err(error) if error.conflict() => {
            let verdict = name_is_taken(scene, &app).await?;
            scene.writes.verdicts.insert(revision.0.clone(), Expiring::new(verdict));
            Ok(CHANGED)
        }
        Err(error) if scene.namespace_goes(&error) => Ok(NAMESPACE_GOES),
        Err(error) => {
            let verdict = no_verdict(scene, error)?;
            scene.writes.verdicts.insert(revision.0.clone(), Expiring::new(verdict));
            Ok(Outcome::LookAgain("Kubernetes refuses the Deployment"))
        }
    }
}

async fn unmake(scene: &Scene<'_>, made: &Deployment) -> Result<(), Error> {
    let uid = made.metadata.uid.clone();
    let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    match call("delete a Deployment", scene.api::<Deployment>().delete(&made.name_any(), &params)).await {
        Err(error) if !error.not_found() && !error.conflict() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A Deployment of this name is there. Our own is as good as made; any other is said, with what to do about it.
async fn name_is_taken(scene: &Scene<'_>, app: &Validated) -> Result<TemplateVerdict, Error> {
    let name = names::deployment_name(&app.name, app.revision.as_str());
    let Some(found) = call("read a Deployment", scene.api::<Deployment>().get_opt(&name)).await? else {
        return Ok(TemplateVerdict::Unknown);
    };
    let (namespace, owner) = (&app.namespace, &app.name);
    let labelled = found.labels().get(names::APP_LABEL) == Some(owner);
    let ours = found.annotations().get(names::APP_UID) == Some(&app.uid);
    let label = names::APP_LABEL;
    Ok(match (ours, labelled) {
        (true, true) => TemplateVerdict::Accepted,
        (true, false) => TemplateVerdict::Refused(format!(
            "Deployment {name} of this revision lost its label {label}: put it back with `kubectl label deployment -n {namespace} {name} \
             {label}={owner}`, or delete the Deployment once its pods are idle"
        )),
        (false, _) => TemplateVerdict::Refused(format!(
            "the name {name} is taken by a Deployment that is not this GracefulApp's: delete it (`kubectl delete deployment -n {namespace} \
             {name}`, once its pods are idle), or change spec.template, for example by an annotation"
        )),
    })
}

/// The annotation alone.
pub(super) async fn sync_policy(scene: &mut Scene<'_>, revision: &RevisionHash) -> Result<Outcome, Error> {
    let policy = match revision.is_adopted() {
        true => scene.seen.adopted_policy.clone(),
        false => update(scene, revision).map(|app| app.policy),
    };
    let Some(policy) = policy else {
        return Ok(CHANGED);
    };
    annotate(scene, revision, names::POLICY, policy.to_annotation()).await
}

/// The same for the word that a pod of it once worked.
pub(super) async fn record_proven(scene: &mut Scene<'_>, revision: &RevisionHash) -> Result<Outcome, Error> {
    annotate(scene, revision, names::PROVEN, names::PROVEN_TRUE.to_owned()).await
}

/// Any write will do: the Deployment controller looks again at what has changed.
pub(super) async fn nudge(scene: &mut Scene<'_>, revision: &RevisionHash) -> Result<Outcome, Error> {
    annotate(scene, revision, names::NUDGED, scene.sources.clock.now().to_string()).await
}

/// One annotation, tried dry first: an admission that changes the pod template of whatever passes would make a native rollout of our write, and
/// that kills pods unasked. Such a write is not made.
async fn annotate(
    scene: &mut Scene<'_>,
    revision: &RevisionHash,
    key: &str,
    value: String,
) -> Result<Outcome, Error> {
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(CHANGED);
    };
    let (name, wanted) = (deployment.name_any(), Some(value.clone()));
    let mut patch = json!({"metadata": {
        "uid": deployment.metadata.uid,
        "annotations": {(key): value},
    }});
    let (dry, params) = (merge(Mode::Dry), merge(Mode::Real));
    let api = scene.api::<Deployment>();
    let patched = async {
        let tried = call("dry-run an annotation", api.patch(&name, &dry, &Patch::Merge(&patch))).await?;
        if tried.spec.template != deployment.spec.template {
            return Ok(None);
        }
        // Exactly what was tried: should this come late, another leader may have written to it.
        patch["metadata"]["resourceVersion"] = json!(tried.metadata.resource_version);
        call("annotate a Deployment", api.patch(&name, &params, &Patch::Merge(&patch))).await.map(Some)
    };
    let why = match patched.await {
        Ok(Some(written)) if written.annotations().get(key) != wanted.as_ref() => format!(
            "an admission webhook or policy takes the annotation {key} off; exempt Deployments with the label graceful.dev/app from it"
        ),
        Ok(Some(written)) => {
            scene.writes.refusals.cleared(&Subject::Annotations(revision.clone()));
            scene.writes.unseen_writes.record(Kind::Deployment, &written);
            return Ok(Outcome::Done);
        }
        Ok(None) => "an admission webhook or policy would change its pod template, which would restart its pods; exempt \
                     Deployments with the label graceful.dev/app from it"
            .to_owned(),
        Err(error) if error.not_found() || error.conflict() => return Ok(CHANGED),
        Err(error) => {
            let of = Subject::Annotations(revision.clone());
            return super::back_off(scene, of, error, |why| format!("Deployment {name} cannot be annotated: {why}"));
        }
    };
    let message = format!("Deployment {name} cannot be annotated: {why}");
    scene.writes.refusals.note(
        Subject::Annotations(revision.clone()),
        BackoffCause::Refused,
        message.clone(),
        Instant::now(),
    );
    Ok(Outcome::Refused(message))
}

/// Exactly the object that was seen without replicas.
pub(super) async fn delete(scene: &mut Scene<'_>, revision: &RevisionHash) -> Result<Outcome, Error> {
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(Outcome::NotNeeded("it is gone already"));
    };
    let uid = deployment.metadata.uid.clone().unwrap_or_default();
    let preconditions = Preconditions {
        uid: Some(uid.clone()),
        resource_version: deployment.metadata.resource_version.clone(),
    };
    let name = deployment.name_any();
    let params = DeleteParams::background().preconditions(preconditions);
    match call("delete a Deployment", scene.api::<Deployment>().delete(&name, &params)).await {
        Ok(answer) => match answer.left() {
            Some(going) if going.metadata.deletion_timestamp.is_some() => {
                scene.writes.unseen_writes.record(Kind::Deployment, &going);
            }
            Some(_) | None => scene.writes.unseen_writes.record_removal(Kind::Deployment, &name, &uid),
        },
        Err(error) if error.not_found() => {}
        Err(error) if error.conflict() => return Ok(CHANGED),
        Err(error) => {
            let of = Subject::Annotations(revision.clone());
            return super::back_off(scene, of, error, |why| {
                format!("Deployment {name} cannot be deleted: {why}")
            });
        }
    }
    Ok(Outcome::Done)
}

/// The spec's own revision; none if the spec has moved on.
fn update(scene: &Scene<'_>, revision: &RevisionHash) -> Option<Validated> {
    scene.seen.app.clone().filter(|app| app.revision.0 == revision.0)
}

pub(super) fn deployment(scene: &Scene<'_>, revision: &RevisionHash) -> Option<Arc<Deployment>> {
    scene.seen.deployments.get(revision).cloned()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Post {
    DryRun,
    Create,
}

/// Raw JSON, since a typed Deployment would drop the fields that this build does not know. kube's own create has no `fieldValidation`.
async fn post(scene: &Scene<'_>, deployment: &Value, post: Post) -> Result<Deployment, Error> {
    let what = match post {
        Post::DryRun => "dry-run the Deployment",
        Post::Create => "make the Deployment",
    };
    let params =
        PostParams { dry_run: post == Post::DryRun, field_manager: Some(names::FIELD_MANAGER.to_owned()) };
    let body = deployment.to_string().into_bytes();
    let path = <Deployment as kube::Resource>::url_path(&(), Some(&scene.namespace()));
    let request = async {
        let mut request = Request::new(path).create(&params, body).map_err(kube::Error::BuildRequest)?;
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().map_err(|e| kube::Error::HttpError(http::Error::from(e)))?;
        scene.sources.client.request::<Deployment>(request).await
    };
    call(what, request).await
}
