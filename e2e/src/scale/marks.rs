//! Whatever the bench makes in the cluster carries its mark, so that all of it is found and removed: at the end, after a
//! failure, and before the next run where the last was killed.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream;
use graceful_api::GracefulApp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::wait::eventually;

/// The label on every object of ours, and its value.
pub(super) const MARK: (&str, &str) = ("graceful-bench", "scale");
/// Requests at once, of all that go by the hundred. As many as a busy cluster's users, and few beside the API server's
/// own limit of 600.
pub(super) const AT_ONCE: usize = 16;
/// A namespace with two thousand apps' children is emptied kind by kind.
const NAMESPACES_GO: Duration = Duration::from_secs(300);

pub(super) fn labels() -> Value {
    json!({MARK.0: MARK.1})
}

pub(super) fn selector() -> String {
    format!("{}={}", MARK.0, MARK.1)
}

/// Removes all that carries the mark. No operator runs: finalizers are taken off by hand.
pub(super) async fn sweep(client: &Client) -> anyhow::Result<()> {
    remove_namespaces(client).await?;
    remove_all::<Node>(&Api::all(client.clone())).await?;
    remove_all::<Lease>(&Api::namespaced(client.clone(), "kube-node-lease")).await?;
    remove_all::<FlowSchema>(&Api::all(client.clone())).await
}

/// Apps, namespaces, and the pods in them. Returns how long it took.
pub(super) async fn remove_namespaces(client: &Client) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    release_apps(client).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let marked = ListParams::default().labels(&selector());
    let names: Vec<String> =
        namespaces.list_metadata(&marked).await?.iter().map(ResourceExt::name_any).collect();
    let how = DeleteParams::background();
    let removed = stream::iter(&names).map(|name| namespaces.delete(name, &how));
    let removed: Vec<_> =
        removed.buffer_unordered(AT_ONCE).map(|done| gone_is_fine(done.map(drop))).collect().await;
    removed.into_iter().collect::<Result<Vec<()>, _>>()?;
    eventually("the bench's namespaces are gone", NAMESPACES_GO, || async {
        let left = namespaces.list_metadata(&marked).await?.items;
        for namespace in left.iter().take(2) {
            // What a stub kubelet that is no more would have ended.
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace.name_any());
            pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
        }
        ensure!(left.is_empty(), "{} left", left.len());
        Ok(())
    })
    .await?;
    Ok(begun.elapsed())
}

/// Takes the finalizer off each app.
async fn release_apps(client: &Client) -> anyhow::Result<()> {
    let all: Api<GracefulApp> = Api::all(client.clone());
    let apps = match all.list_metadata(&ListParams::default().labels(&selector())).await {
        Ok(list) => list.items,
        // The CRD may not be installed yet.
        Err(kube::Error::Api(error)) if error.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let held = apps.iter().filter(|app| !app.finalizers().is_empty());
    let released = stream::iter(held).map(|app: &PartialObjectMeta<GracefulApp>| async {
        let apps: Api<GracefulApp> = Api::namespaced(client.clone(), &app.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        gone_is_fine(apps.patch_metadata(&app.name_any(), &PatchParams::default(), &patch).await.map(drop))
    });
    let released: Vec<_> = released.buffer_unordered(AT_ONCE).collect().await;
    released.into_iter().collect::<Result<Vec<()>, _>>().context("the apps' finalizers")?;
    Ok(())
}

async fn remove_all<K>(api: &Api<K>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels(&selector())).await?;
    Ok(())
}

/// Somebody was faster.
pub(super) fn gone_is_fine(done: kube::Result<()>) -> kube::Result<()> {
    match done {
        Err(kube::Error::Api(ref error)) if error.code == 404 || error.code == 409 => Ok(()),
        other => other,
    }
}
