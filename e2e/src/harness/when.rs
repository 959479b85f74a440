//! Steps that change something.

use graceful_api::GracefulApp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::json;

use super::app::{AppSpec, NAME};
use super::crash;
use super::scene::Scene;

/// `when.…`
#[derive(Clone, Copy)]
pub struct When<'a>(pub(super) &'a Scene);

impl When<'_> {
    /// The app's spec changes, as by `kubectl apply`.
    pub async fn app_changes(
        self,
        words: &str,
        change: impl FnOnce(AppSpec) -> AppSpec,
    ) -> anyhow::Result<()> {
        let scene = self.0;
        scene.step(format!("when {words}"), async { scene.apply(change(scene.spec()?)).await }).await
    }

    /// The template changes, in a way that changes nothing else.
    pub async fn template_changes(self, mark: &str) -> anyhow::Result<()> {
        self.app_changes(&format!("the template changes ({mark})"), |app| app.env("MARK", mark)).await
    }

    /// The scale subresource is written, as `kubectl scale` and autoscalers do.
    pub async fn scaled(self, replicas: u32) -> anyhow::Result<()> {
        let scene = self.0;
        scene
            .step(format!("when it is scaled to {replicas}"), async {
                scene.spec_became(scene.spec()?.replicas(replicas));
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                scene.api::<GracefulApp>().patch_scale(NAME, &PatchParams::default(), &patch).await?;
                Ok(())
            })
            .await
    }

    /// The app is deleted; P3 ends with that.
    pub async fn deleted(self, propagation: PropagationPolicy) -> anyhow::Result<()> {
        let scene = self.0;
        scene
            .step(format!("when the app is deleted ({propagation:?})"), async {
                scene.observer.expect(None);
                let params = DeleteParams { propagation_policy: Some(propagation), ..Default::default() };
                scene.api::<GracefulApp>().delete(NAME, &params).await?;
                Ok(())
            })
            .await
    }

    /// A pod's task server gets a SIGKILL, as from the kernel when memory is short; the kubelet starts it again.
    pub async fn server_killed(self, pod: &Pod) -> anyhow::Result<()> {
        let scene = self.0;
        scene.step(format!("when the server of {} is killed", pod.name_any()), crash::kill_server(pod)).await
    }

    /// Somebody deletes a pod by force: it is gone from the API at once, and on its node a moment later.
    pub async fn pod_deleted_by_force(self, name: &str) -> anyhow::Result<()> {
        let scene = self.0;
        scene
            .step(format!("when somebody deletes pod {name} by force"), async {
                scene.observer.deletes(name);
                let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
                scene.api::<Pod>().delete(name, &now).await?;
                Ok(())
            })
            .await
    }

    /// Somebody deletes a pod.
    pub async fn pod_deleted(self, name: &str) -> anyhow::Result<()> {
        let scene = self.0;
        scene
            .step(format!("when somebody deletes pod {name}"), async {
                scene.observer.deletes(name);
                scene.api::<Pod>().delete(name, &DeleteParams::default()).await?;
                Ok(())
            })
            .await
    }
}
