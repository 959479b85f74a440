//! A Deployment that was adopted and is not at 0 yet: who else has a hand in it, and whom its Services turn away.

use std::sync::Arc;

use graceful_api::{Template, Validated, names};
use graceful_plan::Adoption;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use tracing::debug;

use super::super::pods::condition;
use super::super::revisions::Ours;
use super::super::view::list;
use super::whose::scaler;
use super::{Sought, Sources};
use crate::concern::pairs;
use crate::decode::Decoded;
use crate::error::{Error, chain};

/// What cannot be read is as it was: nobody scaled the Deployment when it was taken, and who was found since is there until he is seen to be gone.
pub(super) async fn look(sources: &Sources, app: &Validated, taken: &Ours, before: Option<String>) -> Sought {
    let unread = |what: &str, error: &Error| debug!("{what} cannot be read: {}", chain(error));
    let scaler = scaler(&sources.client, app, &taken.object.name_any(), "drained").await;
    let scaler = scaler.unwrap_or_else(|error| {
        unread("who else scales an adopted Deployment", &error);
        before
    });
    let mut warnings = of_itself(app, &taken.object);
    for service in fenced(sources, app, &taken.object) {
        match turned_away(sources, app, taken, &service).await {
            Ok(found) => warnings.extend(found),
            Err(error) => unread("who stands behind a fenced Service", &error),
        }
    }
    Sought { state: Adoption::Taken { scaler, warnings }, found: None }
}

/// What its own object says, and the spec of it.
fn of_itself(app: &Validated, deployment: &Deployment) -> Vec<String> {
    let (name, namespace) = (deployment.name_any(), &app.namespace);
    let resumed = (deployment.spec.paused != Some(true)).then(|| {
        format!(
            "Deployment {name} is not paused any more: a change of its template would end its pods unasked; `kubectl -n {namespace} rollout pause deployment {name}` \
             prevents that"
        )
    });
    let adopt = app.adopt.as_ref().filter(|adopt| adopt.deployment == name);
    let misfit =
        adopt.and_then(|adopt| adopt.policy(&Template::from(deployment.spec.template.clone())).err());
    let misfit = misfit.map(|fault| format!("{fault}; its pods are asked and drained as before"));
    resumed.into_iter().chain(misfit).collect()
}

/// The Services over its pods that the operator has fenced.
fn fenced(sources: &Sources, app: &Validated, deployment: &Deployment) -> Vec<Arc<Decoded<Service>>> {
    let labels = deployment.spec.template.metadata.iter().flat_map(|m| m.labels.iter().flatten());
    let filed = pairs(labels).flat_map(|pair| sources.stores.services.group(&app.namespace, &pair));
    filed.filter(|service| service.annotations().get(names::FENCED) == Some(&app.uid)).collect()
}

/// Pods of others that came behind such a Service later: they have the labels that people know it by, and get no clients.
async fn turned_away(
    sources: &Sources,
    app: &Validated,
    taken: &Ours,
    service: &Service,
) -> Result<Option<String>, Error> {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    let Some(selector) = selector.filter(|selector| selector.contains_key(names::SERVING_LABEL)) else {
        return Ok(None);
    };
    let known = selector.iter().filter(|(key, _)| *key != names::SERVING_LABEL);
    let known = known.map(|(key, value)| format!("{key}={value}"));
    // The app's own, and those that have the label, are not even sent to us.
    let others = [
        format!("{}!={}", names::SERVING_LABEL, names::SERVING),
        format!("{}!={}", names::APP_LABEL, app.name),
    ];
    let selector = known.chain(others).collect::<Vec<_>>().join(",");
    let pods: Vec<Decoded<Pod>> = list(&sources.client, &app.namespace, &selector, "list pods").await?;
    let ready = |pod: &Pod| condition(pod.status.as_ref(), "Ready").is_some_and(|c| c.status == "True");
    let turned_away = |pod: &&Decoded<Pod>| {
        pod.metadata.deletion_timestamp.is_none() && ready(pod) && !taken.has(&pod.metadata)
    };
    let found: Vec<_> = pods.iter().filter(turned_away).map(|pod| pod.name_any()).collect();
    let Some(first) = found.first() else { return Ok(None) };
    let more = if found.len() > 1 { format!(" (and {} more)", found.len() - 1) } else { String::new() };
    let (service, label, value) = (service.name_any(), names::SERVING_LABEL, names::SERVING);
    Ok(Some(format!(
        "Service {service} sends no clients to pod {first}{more}, which is not of this app and has all labels that the Service asks for but {label}={value}, which \
         the operator put into its selector: give such pods that label in their template, or a Service of their own"
    )))
}
