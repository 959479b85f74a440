//! A Deployment of the user's becomes the app's, its pods and Services with it; and back again.
//!
//! # Flow
//! the Deployment, in one patch → each pod's labels → each Service's selector, once a live list shows the label on every pod. Back: the selectors → the Deployment.
//!
//! # Guarantees
//! Each write holds for the very object that was looked at. None is made of a Deployment whose template admission would change on the way: that would be a native
//! rollout. A Service that selects nobody any more once it is fenced is put back at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use graceful_api::{Adopted, RevisionHash, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{BackoffCause, PodRef};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{ListParams, Patch};
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};

use super::revision::deployment;
use super::{CHANGED, Outcome, Scene, pods};
use crate::error::{Error, call};
use crate::merge::{Mode, merge};
use crate::observe::{condition, has_finished, live_pods, selects};
use crate::unseen_writes::Kind;

/// Labels, annotations and `paused`, on the Deployment as it was looked at.
pub(super) async fn adopt(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let Some((found, policy)) = scene.seen.sought.found.clone() else {
        return Ok(CHANGED);
    };
    let before = Adopted {
        uid: found.uid().unwrap_or_default(),
        paused: found.spec.paused == Some(true),
        sync_options: found.annotations().get(names::ARGO_SYNC_OPTIONS).cloned(),
    };
    let changes = json!({
        "metadata": {
            "labels": {
                (names::APP_LABEL): scene.object.name_any(),
                (names::REVISION_LABEL): names::ADOPTED_REVISION,
            },
            "annotations": {
                (names::APP_UID): scene.object.uid(),
                (names::POLICY): policy.to_annotation(),
                (names::ADOPTED): before.to_annotation(),
                (names::ARGO_SYNC_OPTIONS): before.sync_options_now(),
            },
        },
        "spec": {"paused": true},
    });
    let outcome = patch(scene, &found, &RevisionHash::adopted(), changes, "adopted").await?;
    if outcome == Outcome::Done {
        let name = found.name_any();
        let note = format!(
            "Deployment {name} is adopted and paused: its pods are drained one by one, and it stays, with 0 replicas"
        );
        scene.notes.push(("Adopted", note));
    }
    Ok(outcome)
}

/// Takes off all that makes it ours. The template, and with it the pods, stay as they are.
pub(super) async fn let_go(scene: &mut Scene<'_>, revision: &RevisionHash) -> Result<Outcome, Error> {
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(Outcome::NotNeeded("it is gone already"));
    };
    let annotation = deployment.annotations().get(names::ADOPTED);
    let before = annotation.and_then(|text| Adopted::from_annotation(text).ok());
    let ours = [names::APP_UID, names::POLICY, names::PROVEN, names::NUDGED, names::ADOPTED];
    let mut annotations: serde_json::Map<String, Value> =
        ours.into_iter().map(|key| (key.to_owned(), Value::Null)).collect();
    let mut labels = json!({(names::APP_LABEL): null, (names::REVISION_LABEL): null});
    let mut spec = json!({});
    match before {
        Some(before) => {
            annotations.insert(names::ARGO_SYNC_OPTIONS.to_owned(), json!(before.sync_options));
            spec = json!({"paused": before.paused});
        }
        // Only what we made says that we keep it.
        None => labels[graceful_api::children::MANAGED_BY] = Value::Null,
    }
    let changes = json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec});
    patch(scene, &deployment, revision, changes, "let go").await
}

/// One merge patch of exactly what was looked at, tried dry first.
async fn patch(
    scene: &mut Scene<'_>,
    found: &Arc<Deployment>,
    revision: &RevisionHash,
    mut changes: Value,
    what: &str,
) -> Result<Outcome, Error> {
    let name = found.name_any();
    changes["metadata"]["uid"] = json!(found.metadata.uid);
    changes["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
    let api = scene.api::<Deployment>();
    let patched = async {
        let patch = Patch::Merge(&changes);
        let tried = call("dry-run a Deployment", api.patch(&name, &merge(Mode::Dry), &patch)).await?;
        if tried.spec.template != found.spec.template {
            let how = "an admission webhook or policy would change its pod template, which would restart its pods; exempt this Deployment from it";
            return Err(Error::Altered { what: "write to a Deployment", how: how.to_owned() });
        }
        let written = call("write to a Deployment", api.patch(&name, &merge(Mode::Real), &patch)).await?;
        let asked = changes["metadata"]["labels"].as_object().into_iter().flatten();
        match asked
            .clone()
            .find(|(key, value)| written.labels().get(*key).map(String::as_str) != value.as_str())
        {
            None => Ok(written),
            Some((key, _)) => {
                let how = format!(
                    "an admission webhook or policy changes its label {key}; exempt this Deployment from it"
                );
                Err(Error::Altered { what: "write to a Deployment", how })
            }
        }
    };
    let of = Subject::Annotations(revision.clone());
    match patched.await {
        Ok(written) => {
            scene.writes.refusals.cleared(&of);
            // Without our label the watch shows it no more.
            if written.labels().contains_key(names::APP_LABEL) {
                scene.writes.unseen_writes.record(Kind::Deployment, &written);
            } else {
                let uid = written.uid().unwrap_or_default();
                scene.writes.unseen_writes.record_removal(Kind::Deployment, &name, &uid);
            }
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => {
            super::back_off(scene, of, error, |why| format!("Deployment {name} cannot be {what}: {why}"))
        }
    }
}

/// The labels that our own pods have from birth. Nobody restarts for a label.
pub(super) async fn enlist(scene: &mut Scene<'_>, pod: &PodRef) -> Result<Outcome, Error> {
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    let labels = json!({
        (names::APP_LABEL): scene.object.name_any(),
        (names::REVISION_LABEL): names::ADOPTED_REVISION,
        (names::SERVING_LABEL): names::SERVING,
    });
    let adopted = deployment(scene, &RevisionHash::adopted());
    if let Some(key) = adopted.and_then(|d| asks_for_other(&d.spec.selector, &labels)) {
        let how = format!(
            "the selector of its Deployment asks for another value of {key}, so that its ReplicaSet would let it go and make another"
        );
        return pods::refused(scene, pod, "labelled", Error::Altered { what: "write to a pod", how });
    }
    pods::patch(scene, pod, Some(&version), &labels, &json!({})).await
}

/// The label of these that this selector does not have. (A Deployment of which one is so is not adopted: this is the last look before the deed.)
fn asks_for_other(selector: &LabelSelector, labels: &Value) -> Option<String> {
    let labels: BTreeMap<String, String> = serde_json::from_value(labels.clone()).ok()?;
    let has = |key: &String| {
        let mut alone = selector.clone();
        alone.match_labels.iter_mut().for_each(|all| all.retain(|k, _| k == key));
        alone.match_expressions.iter_mut().for_each(|all| all.retain(|e| e.key == *key));
        Selector::try_from(alone).is_ok_and(|asked| asked.matches(&labels))
    };
    labels.keys().find(|key| !has(key)).cloned()
}

/// The serving label into its selector, once every pod that it could send clients to has it.
pub(super) async fn fence(scene: &mut Scene<'_>, name: &str) -> Result<Outcome, Error> {
    let Some(adopted) = deployment(scene, &RevisionHash::adopted()) else {
        return Ok(CHANGED);
    };
    let Some(found) = call("read a Service", scene.api::<Service>().get_opt(name)).await? else {
        return Ok(CHANGED);
    };
    let pods = live_pods(scene.sources, scene.object, &adopted).await?;
    let without =
        |pod: &graceful_plan::Pod| pod.has_begun() && !(pod.enlisted && (pod.routed || pod.drain.is_some()));
    if pods.iter().any(|(pod, _)| without(pod)) {
        return Ok(Outcome::LookAgain("a pod of the Deployment is without the label"));
    }
    let its = pods.iter().map(|(pod, _)| pod.name.as_str()).collect();
    if let Some(stranger) = stranger(scene, &found, &its).await? {
        let message = format!(
            "Service {name} also sends clients to pod {stranger}, which is not of this app: give those a Service of their own, or label them {}={}",
            names::SERVING_LABEL,
            names::SERVING
        );
        return Ok(put_off(scene, BackoffCause::Refused, message));
    }
    let selector = json!({(names::SERVING_LABEL): names::SERVING});
    let fenced = match select(scene, &found, selector, json!(scene.object.uid())).await {
        Ok(fenced) => fenced,
        Err(error) if error.not_found() || error.conflict() => return Ok(CHANGED),
        Err(error) => return refused(scene, name, error),
    };
    scene.writes.unseen_writes.record(Kind::Service, &fenced);
    if sends_somewhere(scene, &found).await? && !sends_somewhere(scene, &fenced).await? {
        let back = select(scene, &fenced, json!({(names::SERVING_LABEL): null}), Value::Null).await?;
        scene.writes.unseen_writes.record(Kind::Service, &back);
        let how = "no Ready pod has the label that its selector asks for then, so that it was put back; does an admission webhook or policy change pods or Services?";
        return refused(scene, name, Error::Altered { what: "fence a Service", how: how.to_owned() });
    }
    let note = format!(
        "Service {name} asks for the label {} now, which every pod of the adopted Deployment has",
        names::SERVING_LABEL
    );
    scene.notes.push(("ServiceFenced", note));
    scene.writes.refusals.cleared(&Subject::Annotations(RevisionHash::adopted()));
    Ok(Outcome::Done)
}

/// As it was before.
pub(super) async fn unfence(scene: &mut Scene<'_>, name: &str) -> Result<Outcome, Error> {
    let Some(found) = call("read a Service", scene.api::<Service>().get_opt(name)).await? else {
        return Ok(Outcome::NotNeeded("it is gone"));
    };
    if found.annotations().get(names::FENCED) != scene.object.uid().as_ref() {
        return Ok(Outcome::NotNeeded("it was changed by others"));
    }
    match select(scene, &found, json!({(names::SERVING_LABEL): null}), Value::Null).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Service, &written);
            let note = format!("Service {name} selects as it did before the adoption");
            scene.notes.push(("ServiceUnfenced", note));
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => refused(scene, name, error),
    }
}

/// The managed Service without what makes it ours. It selects what it selected.
pub(super) async fn let_go_service(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let name = names::service_name(&scene.object.name_any());
    let Some(found) = call("read a Service", scene.api::<Service>().get_opt(&name)).await? else {
        return Ok(Outcome::NotNeeded("it is gone"));
    };
    if found.annotations().get(names::APP_UID) != scene.object.uid().as_ref() {
        return Ok(Outcome::NotNeeded("it is not this app's"));
    }
    let patch = json!({"metadata": {
        "uid": found.metadata.uid,
        "resourceVersion": found.metadata.resource_version,
        "labels": {(names::APP_LABEL): null, (graceful_api::children::MANAGED_BY): null},
        "annotations": {(names::APP_UID): null, (names::APPLIED): null},
    }});
    let api = scene.api::<Service>();
    match call("let go of a Service", api.patch(&name, &merge(Mode::Real), &Patch::Merge(patch))).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Service, &written);
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => refused(scene, &name, error),
    }
}

/// Part of its selector, and the annotation that says who wrote it.
async fn select(
    scene: &Scene<'_>,
    found: &Service,
    selector: Value,
    fenced: Value,
) -> Result<Service, Error> {
    let patch = json!({
        "metadata": {
            "uid": found.metadata.uid,
            "resourceVersion": found.metadata.resource_version,
            "annotations": {(names::FENCED): fenced},
        },
        "spec": {"selector": selector},
    });
    let (api, params) = (scene.api::<Service>(), merge(Mode::Real));
    call("change a Service's selector", api.patch(&found.name_any(), &params, &Patch::Merge(patch))).await
}

/// A pod of somebody else's behind the same Service, which would get no clients once that asks for the label.
async fn stranger(
    scene: &Scene<'_>,
    service: &Service,
    its: &BTreeSet<&str>,
) -> Result<Option<String>, Error> {
    let app = scene.object.name_any();
    let serves = |pod: &Pod| pod.labels().get(names::SERVING_LABEL).is_some_and(|v| v == names::SERVING);
    let ours = |pod: &Pod| pod.labels().get(names::APP_LABEL) == Some(&app);
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && !has_finished(pod);
    let pods = selected(scene, service).await?.into_iter().filter(|p| stays(p) && !serves(p) && !ours(p));
    // One of the Deployment that has not begun is labelled once it has.
    Ok(pods.map(|pod| pod.name_any()).find(|name| !its.contains(name.as_str())))
}

/// Whether a Ready pod is selected.
async fn sends_somewhere(scene: &Scene<'_>, service: &Service) -> Result<bool, Error> {
    let ready = |pod: &Pod| condition(pod.status.as_ref(), "Ready").is_some_and(|c| c.status == "True");
    Ok(selected(scene, service).await?.iter().any(ready))
}

/// What it selects, read just now.
async fn selected(scene: &Scene<'_>, service: &Service) -> Result<Vec<Pod>, Error> {
    let selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    let selector: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    let pods = call("list pods", scene.api::<Pod>().list(&params)).await?;
    Ok(pods.items.into_iter().filter(|pod| selects(service, pod.labels())).collect())
}

fn refused(scene: &mut Scene<'_>, name: &str, error: Error) -> Result<Outcome, Error> {
    let Some((cause, why)) = error.backoff() else {
        return Err(error);
    };
    scene.unanswered += u32::from(cause == BackoffCause::TooSlow);
    Ok(put_off(scene, cause, format!("Service {name} cannot be changed: {why}")))
}

/// Told of the adopted Deployment: nothing of that drains meanwhile.
fn put_off(scene: &mut Scene<'_>, cause: BackoffCause, message: String) -> Outcome {
    let of = Subject::Annotations(RevisionHash::adopted());
    scene.writes.refusals.note(of, cause, message.clone(), Instant::now());
    Outcome::Refused(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P1: its ReplicaSet would let go of each pod that is labelled, and make another.
    #[test]
    fn a_label_that_a_selector_would_not_have_is_found_before_it_is_written() {
        let labels = json!({(names::APP_LABEL): "tasks", (names::REVISION_LABEL): names::ADOPTED_REVISION});
        let found = |selector: Value| asks_for_other(&serde_json::from_value(selector).unwrap(), &labels);
        assert_eq!(found(json!({"matchLabels": {"tier": "web"}})), None);
        assert_eq!(found(json!({"matchLabels": {(names::APP_LABEL): "tasks"}})), None);
        let another = json!({"matchLabels": {"tier": "web", (names::REVISION_LABEL): "ph4cjw6b"}});
        assert_eq!(found(another).as_deref(), Some(names::REVISION_LABEL));
        let none = json!({"matchExpressions": [{"key": names::APP_LABEL, "operator": "DoesNotExist"}]});
        assert_eq!(found(none).as_deref(), Some(names::APP_LABEL));
    }
}
