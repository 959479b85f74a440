//! The managed Service and the PodDisruptionBudget: applied as wanted, or removed.

use graceful_api::names;
use graceful_plan::BackoffCause;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;

use super::{CHANGED, NAMESPACE_GOES, Outcome, Scene};
use crate::error::{Error, call};
use crate::observe::{Wanted, drift, extra_ports, is_of};
use crate::unseen_writes::Kind;
use crate::writes::{ChildRefusal, Expiring};

pub(super) async fn sync_service(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let name = names::service_name(&scene.object.name_any());
    match scene.seen.wanted.service.clone() {
        Some(wanted) => apply::<Service>(scene, Kind::Service, "Service", &name, wanted).await,
        None => remove::<Service>(scene, Kind::Service, "Service", &name).await,
    }
}

pub(super) async fn sync_budget(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let name = names::pdb_name(&scene.object.name_any());
    match scene.seen.wanted.budget.clone() {
        Some(wanted) => {
            apply::<PodDisruptionBudget>(scene, Kind::Budget, "PodDisruptionBudget", &name, wanted).await
        }
        None => remove::<PodDisruptionBudget>(scene, Kind::Budget, "PodDisruptionBudget", &name).await,
    }
}

/// By server-side apply: what others set on it (a load balancer's own annotations) stays.
async fn apply<K>(
    scene: &mut Scene<'_>,
    kind: Kind,
    word: &'static str,
    name: &str,
    wanted: Wanted,
) -> Result<Outcome, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let there = if wanted.there { call("read a child", scene.api::<K>().get_opt(name)).await? } else { None };
    let undone = match &there {
        Some(found) if !is_of(found, &scene.object.uid().unwrap_or_default()) => return Ok(CHANGED),
        Some(found) => {
            let drifted = drifted(found, &wanted);
            if drifted.is_empty() {
                scene.writes.unseen_writes.record(kind, found); // what was planned on is older than that
                return Ok(Outcome::Done);
            }
            // Applied as it is wanted now, and otherwise all the same: somebody has changed it since.
            (fingerprint(found) == Some(&wanted.fingerprint)).then(|| by_whom(found, &drifted))
        }
        None => scene
            .writes
            .contested
            .get(word)
            .filter(|contest| contest.has_applied(&wanted.fingerprint))
            .map(|_| "it was deleted".to_owned()),
    };
    match write(scene, name, &wanted, there.as_ref()).await {
        Ok(applied) => {
            scene.writes.refused_children.remove(word);
            scene.writes.unseen_writes.record(kind, &applied);
            // What admission makes of it at once, it makes of it each time.
            let mutated = drifted(&applied, &wanted);
            let undone = undone.or_else(|| (!mutated.is_empty()).then(|| by_whom(&applied, &mutated)));
            if let Some(found) = &undone {
                let note = format!("{word} {name} was changed by others and is put right: {found}");
                scene.notes.push(("DriftCorrected", note));
            }
            scene.writes.contested.entry(word).or_default().applied(&wanted.fingerprint, undone);
            Ok(Outcome::Done)
        }
        Err(error) if error.conflict() => Ok(CHANGED),
        Err(error) if scene.namespace_goes(&error) => Ok(NAMESPACE_GOES),
        Err(error) => refused(scene, word, Some(wanted.fingerprint), error),
    }
}

/// Said in a condition, and no reason to hold up what else there is to do.
fn refused(
    scene: &mut Scene<'_>,
    word: &'static str,
    fingerprint: Option<String>,
    error: Error,
) -> Result<Outcome, Error> {
    // Of an apply that the API server cannot make sense of it says 500.
    let makes_no_sense = error.status().filter(|status| status.code == 500);
    let makes_no_sense = makes_no_sense.map(|status| (BackoffCause::Refused, status.message.clone()));
    let Some((kind, why)) = error.backoff().or(makes_no_sense) else {
        return Err(error);
    };
    scene.unanswered += u32::from(kind == BackoffCause::TooSlow);
    let refusal = ChildRefusal { fingerprint, kind, why: why.clone() };
    scene.writes.refused_children.insert(word, Expiring::new(refusal));
    Ok(Outcome::Refused(why))
}

/// Applies it over exactly what was looked at. What of another field manager's stands in our way goes first: apply alone does not take it away.
async fn write<K>(scene: &Scene<'_>, name: &str, wanted: &Wanted, there: Option<&K>) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let api = scene.api::<K>();
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let apply = async |on: Option<&K>| {
        let mut object = wanted.object.clone();
        if let Some(on) = on {
            object["metadata"]["uid"] = json!(on.meta().uid);
            object["metadata"]["resourceVersion"] = json!(on.meta().resource_version);
        }
        call("apply a child", api.patch(name, &params, &Patch::Apply(object))).await
    };
    let Some(there) = there else {
        return apply(None).await;
    };
    let clear = async |spec: Value| {
        // No owner is left for what is written here, so that the apply that follows takes it over alone.
        let patch = json!({
            "metadata": {"uid": there.meta().uid, "resourceVersion": there.meta().resource_version, "managedFields": [{}]},
            "spec": spec,
        });
        call("clear a child", api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
    };
    let (found, spec) = (value(there), &wanted.object["spec"]);
    if !found["spec"]["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let cleared = clear(json!({"minAvailable": null, "maxUnavailable": spec["maxUnavailable"]})).await?;
        return apply(Some(&cleared)).await;
    }
    match apply(Some(there)).await {
        // Ports that others added are left, unless ours cannot stand beside them (one name or node port for both).
        Err(error) if error.denial().is_some() && extra_ports(&found, &wanted.object).next().is_some() => {
            let cleared = clear(json!({"ports": spec["ports"]})).await?;
            apply(Some(&cleared)).await
        }
        done => done,
    }
}

fn drifted<K: Serialize>(there: &K, wanted: &Wanted) -> Vec<String> {
    drift(&value(there), &wanted.object)
}

/// Serializing a k8s-openapi type to JSON cannot fail: its keys are strings.
fn value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn fingerprint<K: Resource>(there: &K) -> Option<&String> {
    there.meta().annotations.as_ref()?.get(names::APPLIED)
}

/// The fields, and the field managers beside us that have a hand in one of them.
fn by_whom<K: Resource>(there: &K, fields: &[String]) -> String {
    let owns = |entry: &&ManagedFieldsEntry| {
        let owned = entry.fields_v1.as_ref().map(|f| &f.0);
        entry.manager.as_deref() != Some(names::FIELD_MANAGER)
            && fields.iter().any(|field| {
                // "spec.ports 80/TCP.targetPort" is told apart as "spec", "ports": the manager of one port has a hand in the list.
                let path = field.split(' ').next().unwrap_or_default().split('.');
                path.fold(owned, |owned, name| owned?.get(format!("f:{name}"))).is_some()
            })
    };
    let entries = there.meta().managed_fields.iter().flatten().filter(owns);
    let managers: BTreeSet<_> = entries.filter_map(|entry| entry.manager.as_deref()).collect();
    let fields = fields.join(", ");
    if managers.is_empty() {
        return fields;
    }
    format!("{fields} (by {})", managers.into_iter().collect::<Vec<_>>().join(", "))
}

/// Only ours: the object that carries this app's uid as it was looked at just now.
async fn remove<K>(
    scene: &mut Scene<'_>,
    kind: Kind,
    word: &'static str,
    name: &str,
) -> Result<Outcome, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = scene.api::<K>();
    let Some(found) = call("read a child", api.get_opt(name)).await? else {
        return Ok(Outcome::Done);
    };
    if !is_of(&found, &scene.object.uid().unwrap_or_default()) {
        return Ok(Outcome::Done);
    }
    let uid = found.meta().uid.clone().unwrap_or_default();
    // Exactly what was seen: should this come late, another leader may want it, and have said so.
    let resource_version = found.meta().resource_version.clone();
    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version };
    let params = DeleteParams::background().preconditions(preconditions);
    match call("remove a child", api.delete(name, &params)).await {
        Ok(_) => scene.writes.unseen_writes.record_removal(kind, name, &uid),
        Err(error) if error.not_found() => {}
        Err(error) if error.conflict() => return Ok(CHANGED),
        Err(error) => return refused(scene, word, None, error),
    }
    scene.writes.refused_children.remove(word);
    Ok(Outcome::Done)
}
