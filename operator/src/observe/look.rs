//! Looks at pods that go by no watch: just before one is ended, or a Deployment is scaled down.

use std::collections::BTreeMap;
use std::sync::Arc;

use graceful_api::{GracefulApp, names};
use graceful_plan::{NodeFate, PodRef};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, OwnerReference, Time};
use kube::api::{ListParams, ObjectMeta, Request};
use kube::{Api, Resource, ResourceExt};

use super::adoption::selector;
use super::revisions::Ours;
use super::view::{PAGE, list, turn};
use super::{Sources, pods};
use crate::decode::Decoded;
use crate::error::{Error, call};

/// The pods of one Deployment, read just now, each with its resourceVersion.
pub(crate) async fn live_pods(
    sources: &Sources,
    app: &GracefulApp,
    deployment: &Arc<Deployment>,
) -> Result<Vec<(graceful_plan::Pod, String)>, Error> {
    let Some(ours) = Ours::of(deployment, &app.uid().unwrap_or_default()) else {
        return Ok(Vec::new());
    };
    let (namespace, selector) = (app.namespace().unwrap_or_default(), revision_selector(app, &ours));
    let list: Vec<Decoded<Pod>> = list(&sources.client, &namespace, &selector, "list pods").await?;
    let belongs = |pod: &&Decoded<Pod>| ours.has(&pod.metadata);
    Ok(list.iter().filter(belongs).map(|pod| live(sources, app, pod, &ours)).collect())
}

/// What the last look before a kill needs.
pub(crate) struct Look {
    /// The pod as it is just now, with its resourceVersion.
    pub(crate) pod: Option<(graceful_plan::Pod, String)>,
    /// How many others of its Deployment its ReplicaSet counts just now.
    pub(crate) others: u32,
}

/// Reads one pod in full and counts the others by their metadata: a Deployment of two thousand pods is not read in full for each that goes.
pub(crate) async fn look(
    sources: &Sources,
    app: &GracefulApp,
    deployment: &Arc<Deployment>,
    pod: &PodRef,
) -> Result<Look, Error> {
    let Some(ours) = Ours::of(deployment, &app.uid().unwrap_or_default()) else {
        return Ok(Look { pod: None, others: 0 });
    };
    let api = pods_api(sources, app);
    // As a ReplicaSet counts: what has finished counts for nothing.
    let unfinished = "status.phase!=Failed,status.phase!=Succeeded";
    let params = ListParams::default().labels(&revision_selector(app, &ours)).fields(unfinished);
    let (found, all) =
        futures::try_join!(call("read a pod", api.get_opt(&pod.name)), identities(sources, app, &params),)?;
    let belongs = |meta: &ObjectMeta| ours.has(meta);
    let others = all.iter().filter(|meta| {
        belongs(meta) && meta.deletion_timestamp.is_none() && meta.uid.as_ref() != Some(&pod.uid.0)
    });
    let others = u32::try_from(others.count()).unwrap_or(u32::MAX);
    let found = found.filter(|p| pods::uid(p) == pod.uid && belongs(&p.metadata));
    let mut found = found.map(|p| live(sources, app, &p, &ours));
    if let Some((pod, _)) = &mut found
        && pod.node.fate == NodeFate::ShutDown
        && let Some(name) = pod.node.name.clone()
    {
        pod.node = sources.stores.nodes.read(&sources.client, &name).await?;
    }
    Ok(Look { pod: found, others })
}

/// Of a pod's metadata what says whose it is. The rest, managedFields above all, is passed over as it is read: it is many times as much.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    deletion_timestamp: Option<Time>,
}

#[derive(serde::Deserialize)]
struct Item {
    metadata: Identity,
}

#[derive(serde::Deserialize)]
struct Items {
    metadata: ListMeta,
    items: Vec<Item>,
}

impl From<Item> for ObjectMeta {
    fn from(Item { metadata }: Item) -> Self {
        let Identity { uid, labels, owner_references, deletion_timestamp } = metadata;
        Self { uid, labels, owner_references, deletion_timestamp, ..Self::default() }
    }
}

/// In pages, so that no answer is large.
async fn identities(
    sources: &Sources,
    app: &GracefulApp,
    params: &ListParams,
) -> Result<Vec<ObjectMeta>, Error> {
    let url = Pod::url_path(&(), app.namespace().as_deref());
    let mut page = params.clone().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let request = Request::new(&url).list_metadata(&page).map_err(kube::Error::BuildRequest);
        let Items { items, metadata } =
            call("count pods", async { sources.client.request::<Items>(request?).await }).await?;
        all.extend(items.into_iter().map(ObjectMeta::from));
        if !turn(&mut page, metadata) {
            return Ok(all);
        }
    }
}

fn pods_api(sources: &Sources, app: &GracefulApp) -> Api<Decoded<Pod>> {
    Api::namespaced(sources.client.clone(), &app.namespace().unwrap_or_default())
}

/// Pods of an adopted Deployment may have no label of ours yet.
fn revision_selector(app: &GracefulApp, ours: &Ours) -> String {
    if let Some(selector) = ours.hash.is_adopted().then(|| selector(&ours.object)).flatten() {
        return selector;
    }
    format!("{},{}={}", names::app_selector(&app.name_any()), names::REVISION_LABEL, ours.hash)
}

fn live(sources: &Sources, app: &GracefulApp, pod: &Pod, ours: &Ours) -> (graceful_plan::Pod, String) {
    let node = |name: &str| sources.stores.nodes.of(name);
    let parsed = ours.parsed(pod, &app.name_any(), node, sources.clock.now());
    (parsed, pod.resource_version().unwrap_or_default())
}
