//! The same pods as a plain Deployment: what users have without Graceful, to compare with.

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::app::{AppSpec, NAME};
use super::scene::Scene;
use super::wait::eventually;
use super::{ROLLS, STARTS};

/// How careful the Deployment's owner was.
#[derive(Clone, Copy, Debug)]
pub struct Care {
    /// The grace period.
    pub grace: u32,
    /// Seconds that a preStop hook sleeps.
    pub pre_stop_sleep: Option<u32>,
}

/// A grace shorter than the longest task.
pub const SHORT_GRACE: Care = Care { grace: 3, pre_stop_sleep: None };
/// An ample grace and a sleep while endpoints propagate: the best that a manifest alone can do.
pub const CAREFUL: Care = Care { grace: 90, pre_stop_sleep: Some(5) };

/// Deploys it beside a load generator.
pub async fn deploy(scene: &Scene, spec: &AppSpec, care: Care) -> anyhow::Result<()> {
    let [deployment, service] = spec.plain(care.grace, care.pre_stop_sleep);
    scene
        .step(format!("given a plain Deployment ({care:?})"), async {
            scene.load().await?;
            let deployments = scene.api::<Deployment>();
            deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
            scene.api::<Service>().create(&PostParams::default(), &serde_json::from_value(service)?).await?;
            eventually("its pods are ready", STARTS, || complete(scene)).await
        })
        .await
}

/// Changes its template and waits for the native rollout.
pub async fn roll_out(scene: &Scene, mark: &str) -> anyhow::Result<()> {
    scene
        .step(format!("when the Deployment's template changes ({mark})"), async {
            let template = json!({"metadata": {"annotations": {"mark": mark}}});
            let patch = Patch::Merge(json!({"spec": {"template": template}}));
            scene.api::<Deployment>().patch(NAME, &PatchParams::default(), &patch).await?;
            eventually("its rollout is complete", ROLLS, || complete(scene)).await
        })
        .await
}

async fn complete(scene: &Scene) -> anyhow::Result<()> {
    let deployment = scene.api::<Deployment>().get(NAME).await?;
    let wanted = deployment.spec.replicas;
    let status = deployment.status.unwrap_or_default();
    ensure!(status.observed_generation == deployment.metadata.generation, "not seen yet");
    ensure!(
        status.updated_replicas == wanted
            && status.available_replicas == wanted
            && status.replicas == wanted
            && status.terminating_replicas.unwrap_or(0) == 0,
        "{:?} updated, {:?} available, {:?} terminating of {wanted:?}",
        status.updated_replicas,
        status.available_replicas,
        status.terminating_replicas
    );
    Ok(())
}
