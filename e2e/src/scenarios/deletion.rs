//! Deletion of the app: all its pods drain before anything goes, whichever way it was asked for.

use anyhow::{bail, ensure};
use graceful_api::{GracefulApp, Phase};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PropagationPolicy};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS, load};

/// P1: `kubectl delete`.
pub(super) async fn deletion_in_the_background(scene: &Scene) -> anyhow::Result<()> {
    deletion(scene, PropagationPolicy::Background).await
}

/// P1: Argo CD's default: with ownerReferences the garbage collector would kill the pods at once.
pub(super) async fn deletion_in_the_foreground(scene: &Scene) -> anyhow::Result<()> {
    deletion(scene, PropagationPolicy::Foreground).await
}

async fn deletion(scene: &Scene, propagation: PropagationPolicy) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    // Longer than the grace period, so that a pod killed too early loses them.
    given.app(AppSpec::tasks(&scene.world).replicas(2).task_seconds("8-12")).await?;
    given.load(load::usual()).await?;
    then.ledger("much is in flight", STARTS, |view| {
        ensure!(view.unfinished.len() >= 30, "{} tasks", view.unfinished.len());
        Ok(())
    })
    .await?;
    when.deleted(propagation).await?;
    then.status("it is Deleting and its pods drain", ROLLS, |s| {
        s.phase == Some(Phase::Deleting) && s.draining_replicas > 0
    })
    .await?;
    scene
        .step("then the app and all its children are gone", eventually("gone", ROLLS, || gone(scene)))
        .await?;
    then.nothing_lost_but_requests().await?;
    Ok(())
}

async fn gone(scene: &Scene) -> anyhow::Result<()> {
    if let Some(app) = scene.api::<GracefulApp>().get_opt(NAME).await? {
        bail!("the app is there: {}", app.status.unwrap_or_default().waiting_for);
    }
    let all = ListParams::default();
    let deployments = scene.api::<Deployment>().list(&all).await?.items.len();
    let budgets = scene.api::<PodDisruptionBudget>().list(&all).await?.items.len();
    ensure!(deployments + budgets == 0, "{deployments} Deployments and {budgets} budgets are left");
    ensure!(scene.api::<Service>().get_opt(NAME).await?.is_none(), "the Service is left");
    let pods = scene.pods().await?.len();
    ensure!(pods == 0, "{pods} pods are left");
    Ok(())
}
