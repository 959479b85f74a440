//! A Deployment of the user's becomes the app's, its pods and Services with it; and back again.
//!
//! # Flow
//! the Deployment, in one patch → each pod's labels → each Service's selector, once a live list shows the label on every pod. Back: the selectors → the Deployment.
//!
//! # Guarantees
//! Each write holds for the very object that was looked at, and is tried dry first. None is made that admission would change on the way: of a template that would be a native
//! rollout, of our annotations an object that nobody could give back.

mod services;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use graceful_api::{Adopted, RevisionHash, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{BackoffCause, PodRef};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt;
use kube::api::Patch;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};

pub(super) use self::services::{fence, let_go_service, unfence};
use super::revision::deployment;
use super::{CHANGED, Outcome, Scene, pods};
use crate::error::{Error, call};
use crate::merge::{Mode, merge};
use crate::unseen_writes::Kind;
use crate::writes::LATELY;

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
        if let Some(times) = scene.writes.repeats("adopt") {
            let message = format!(
                "Deployment {name} was adopted {times} times within {} min: somebody writes it anew without the operator's labels (`kubectl replace`, Argo CD with \
                 Replace=true); take it out of what is applied, or have only differences applied",
                LATELY.as_secs() / 60
            );
            let of = Subject::Annotations(RevisionHash::adopted());
            scene.writes.refusals.note(of, BackoffCause::Refused, message.clone(), Instant::now());
            return Ok(Outcome::Refused(message));
        }
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
    let ours =
        [names::APP_UID, names::POLICY, names::PROVEN, names::NUDGED, names::ADOPTED, names::WITHOUT_KEYS];
    let mut annotations: serde_json::Map<String, Value> =
        ours.into_iter().map(|key| (key.to_owned(), Value::Null)).collect();
    let mut labels = json!({(names::APP_LABEL): null, (names::REVISION_LABEL): null});
    let mut spec = json!({});
    let mut stays_paused = false;
    match before {
        Some(before) => {
            // What somebody has written there since is theirs.
            let now = deployment.annotations().get(names::ARGO_SYNC_OPTIONS);
            if now == Some(&before.sync_options_now()) {
                annotations.insert(names::ARGO_SYNC_OPTIONS.to_owned(), json!(before.sync_options));
            }
            stays_paused = !before.paused && would_roll_out(&deployment);
            spec = json!({"paused": before.paused || stays_paused});
        }
        // Only what we made says that we keep it.
        None => labels[graceful_api::children::MANAGED_BY] = Value::Null,
    }
    let changes = json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec});
    let outcome = patch(scene, &deployment, revision, changes, "let go").await?;
    if outcome == Outcome::Done && stays_paused {
        let name = deployment.name_any();
        let note = format!(
            "Deployment {name} stays paused: its template was changed while it was adopted, and to go on would replace its pods; `kubectl rollout resume deployment \
             {name}` does that, `kubectl rollout undo` takes the change back"
        );
        scene.notes.push(("StaysPaused", note));
    }
    Ok(outcome)
}

/// It has pods, and not all of them are of its newest template: somebody has changed that while it was paused.
fn would_roll_out(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    let there = status.and_then(|s| s.replicas).unwrap_or_default();
    let updated = status.and_then(|s| s.updated_replicas).unwrap_or_default();
    updated < there
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
        let altered = |how: String| Error::Altered { what: "write to a Deployment", how };
        if tried.spec.template != found.spec.template {
            let how = "an admission webhook or policy would change its pod template, which would restart its pods; exempt this Deployment from it";
            return Err(altered(how.to_owned()));
        }
        let otherwise = |made: &Deployment| {
            let paused = changes["spec"]["paused"].as_bool().unwrap_or_default();
            let resumed = paused && made.spec.paused != Some(true);
            let found = changed_on_the_way(&made.metadata, &changes);
            found.or_else(|| resumed.then(|| "its spec.paused".to_owned())).map(|what| {
                altered(format!(
                    "an admission webhook or policy changes {what}; exempt this Deployment from it"
                ))
            })
        };
        if let Some(error) = otherwise(&tried) {
            return Err(error);
        }
        let written = call("write to a Deployment", api.patch(&name, &merge(Mode::Real), &patch)).await?;
        otherwise(&written).map_or(Ok(written), Err)
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

/// What admission makes otherwise of the labels and annotations that are asked for: the first, in words.
fn changed_on_the_way(made: &ObjectMeta, asked: &Value) -> Option<String> {
    let differs = |kind: &str, there: Option<&BTreeMap<String, String>>| {
        let asked = asked["metadata"][kind].as_object().into_iter().flatten();
        let mut others = asked
            .filter(|(key, value)| there.and_then(|all| all.get(*key)).map(String::as_str) != value.as_str());
        others.next().map(|(key, _)| key.clone())
    };
    let label = differs("labels", made.labels.as_ref()).map(|key| format!("its label {key}"));
    label.or_else(|| {
        differs("annotations", made.annotations.as_ref()).map(|key| format!("its annotation {key}"))
    })
}

/// The labels that our own pods have from birth. Nobody restarts for a label.
pub(super) async fn enlist(scene: &mut Scene<'_>, pod: &PodRef) -> Result<Outcome, Error> {
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    let drains = scene.seen.pod(&pod.uid).is_some_and(|p| p.drain.is_some());
    let labels = labels_of_one(&scene.object.name_any(), drains);
    let adopted = deployment(scene, &RevisionHash::adopted());
    if let Some(key) = adopted.and_then(|d| asks_for_other(&d.spec.selector, &labels)) {
        let how = format!(
            "the selector of its Deployment asks for another value of {key}, so that its ReplicaSet would let it go and make another"
        );
        return pods::refused(scene, pod, "labelled", Error::Altered { what: "write to a pod", how });
    }
    pods::patch(scene, pod, Some(&version), &labels, &json!({})).await
}

/// To one that drains already (a spare, before it had started) the serving label would say that it drains no more.
fn labels_of_one(app: &str, drains: bool) -> Value {
    let mut labels = json!({(names::APP_LABEL): app, (names::REVISION_LABEL): names::ADOPTED_REVISION});
    if !drains {
        labels[names::SERVING_LABEL] = json!(names::SERVING);
    }
    labels
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

    #[test]
    fn one_that_drains_is_not_called_back_by_its_labels() {
        assert_eq!(labels_of_one("tasks", false)[names::SERVING_LABEL], names::SERVING);
        let drains = labels_of_one("tasks", true);
        assert_eq!(
            (&drains[names::APP_LABEL], &drains[names::SERVING_LABEL]),
            (&json!("tasks"), &Value::Null)
        );
        assert!(!drains.as_object().unwrap().contains_key(names::SERVING_LABEL));
    }

    /// P1: to let it go on would be a native rollout, which ends busy pods.
    #[test]
    fn a_template_that_was_changed_while_it_was_paused_is_not_rolled_out() {
        let rolls = |replicas: i32, updated: Option<i32>| {
            let deployment = json!({"metadata": {}, "spec": {"selector": {}, "template": {}},
                "status": {"replicas": replicas, "updatedReplicas": updated}});
            would_roll_out(&serde_json::from_value(deployment).unwrap())
        };
        assert!(rolls(2, None) && rolls(2, Some(1)));
        assert!(!rolls(2, Some(2)) && !rolls(0, None));
    }

    #[test]
    fn what_admission_changes_is_named() {
        let asked = json!({"metadata": {"labels": {"a": "1", "gone": null}, "annotations": {"b": "2"}}});
        let made = |meta: Value| changed_on_the_way(&serde_json::from_value(meta).unwrap(), &asked);
        assert_eq!(made(json!({"labels": {"a": "1", "x": "y"}, "annotations": {"b": "2"}})), None);
        assert_eq!(made(json!({"annotations": {"b": "2"}})).as_deref(), Some("its label a"));
        let kept = json!({"labels": {"a": "1", "gone": "back"}, "annotations": {"b": "2"}});
        assert_eq!(made(kept).as_deref(), Some("its label gone"));
        assert_eq!(made(json!({"labels": {"a": "1"}})).as_deref(), Some("its annotation b"));
    }
}
