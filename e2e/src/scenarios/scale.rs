//! Scaling: who goes, and what an autoscaler's write in mid-rollout does.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, STARTS, load};
use crate::wire::LoadSpec;

/// P1: the idle pod is the oldest: a ReplicaSet left to itself would take one of the two that are busy.
pub(super) async fn scale_down_takes_the_idle_pod(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(1).task_seconds("15-20")).await?;
    let idle = scene.pods().await?.first().and_then(ResourceExt::uid).context("no pod")?;
    when.scaled(3).await?;
    then.rolled_out().await?;
    for pod in scene.pods().await? {
        if pod.uid().as_ref() != Some(&idle) {
            let ip = pod.status.and_then(|s| s.pod_ip).context("a pod without an address")?;
            let target = format!("http://{ip}:8000");
            given
                .load(LoadSpec { target, clients: 2, rate_per_second: 3.0, sockets: 0, ..load::usual() })
                .await?;
        }
    }
    then.ledger("both others are busy", STARTS, |view| {
        ensure!(view.unfinished.len() >= 30, "{} tasks in flight", view.unfinished.len());
        Ok(())
    })
    .await?;
    when.scaled(2).await?;
    then.pods("the idle pod goes, long before a busy one could", Duration::from_secs(13), |pods| {
        ensure!(pods.iter().all(|p| p.uid().as_ref() != Some(&idle)), "it is still there");
        ensure!(pods.len() == 2, "{} pods", pods.len());
        Ok(())
    })
    .await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// Four replicas under load, and the first of them drains for a new template.
async fn in_mid_rollout(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(4)).await?;
    given.load(load::usual()).await?;
    when.template_changes("second").await?;
    then.status("an old pod drains", ROLLS, |s| s.draining_replicas > 0).await?;
    Ok(())
}

/// P1, P3: `kubectl scale` in mid-rollout: fewer replicas and the new template, and nothing lost on the way.
pub(super) async fn kubectl_scale_in_mid_rollout(scene: &Scene) -> anyhow::Result<()> {
    let (.., then) = scene.steps();
    in_mid_rollout(scene).await?;
    scene
        .step("when kubectl scale asks for 2", async {
            scene.spec_became(scene.spec()?.replicas(2));
            let app = format!("gracefulapp/{NAME}");
            scene.world.kubectl(&["-n", &scene.namespace, "scale", &app, "--replicas=2"]).await
        })
        .await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P1, P3: A HorizontalPodAutoscaler writes the scale subresource in mid-rollout: its maximum is below what is there.
pub(super) async fn autoscaler_scales_in_mid_rollout(scene: &Scene) -> anyhow::Result<()> {
    let (.., then) = scene.steps();
    in_mid_rollout(scene).await?;
    scene
        .step("when an autoscaler with a maximum of 2 appears", async {
            scene.spec_became(scene.spec()?.replicas(2));
            let hpa = serde_json::from_value(json!({
                "metadata": {"name": NAME},
                "spec": {
                    "scaleTargetRef": {"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "name": NAME},
                    "minReplicas": 1,
                    "maxReplicas": 2,
                },
            }))?;
            scene.api::<HorizontalPodAutoscaler>().create(&PostParams::default(), &hpa).await?;
            Ok(())
        })
        .await?;
    then.rolled_out().await?;
    let written = scene.app().await?.spec.replicas;
    ensure!(written == 2, "the autoscaler did not write: {written} replicas");
    then.nothing_lost().await?;
    Ok(())
}

/// P1: to zero and back: the last pod drains too, and new ones serve again.
pub(super) async fn to_zero_and_back(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2)).await?;
    given.load(load::usual()).await?;
    when.scaled(0).await?;
    then.pods("no pod is left", ROLLS, |pods: &[Pod]| {
        ensure!(pods.is_empty(), "{} pods", pods.len());
        Ok(())
    })
    .await?;
    when.scaled(2).await?;
    then.rolled_out().await?;
    let before = scene.load().await?.ledger().await?.accepted;
    then.ledger("tasks are accepted again", STARTS, |view| {
        ensure!(view.accepted > before, "none yet");
        Ok(())
    })
    .await?;
    then.nothing_lost_but_requests().await?;
    Ok(())
}
