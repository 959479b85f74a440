//! Pods that cannot come: a quota, a rule of the scheduler, a LimitRange, Pod Security. It is said at once in the words of whoever refuses them, and it goes on by itself.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::mess::live;
use super::nodes::SAID;
use crate::harness::app::{AppSpec, NAME};
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, STARTS, load};

/// How long a new pod may find no node before maxUnavailable is spent.
const SURGE_TIMEOUT: u32 = 5;

/// P3, P6, P8: neither nodes nor a quota have room for a surge: maxUnavailable is spent in its place, on a quota at once, and nothing is lost.
pub(super) async fn no_room_for_a_surge(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": NAME}}, "topologyKey": "kubernetes.io/hostname"}]}});
    let spec = AppSpec::tasks(&scene.world).replicas(2).set("/template/spec/affinity", apart);
    let spec = spec.rollout("maxUnavailable", 1).rollout("surgeTimeoutSeconds", SURGE_TIMEOUT);
    given.app(spec).await?;
    given.load(load::usual()).await?;
    when.template_changes("one pod a node, and both nodes have one").await?;
    then.status("it says so in the scheduler's words, and what comes next", SAID, |s| {
        s.waiting_for.contains("anti-affinity") && s.waiting_for.contains("surgeTimeoutSeconds")
    })
    .await?;
    then.holds("it waits for a node first", Duration::from_secs(2), |s| s.draining_replicas == 0).await?;
    then.rolled_out().await?;
    // The load generator is the third.
    let quota = json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "3"}}});
    let quotas = scene.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let counted = || async {
        let status = quotas.get("pods").await?.status.unwrap_or_default();
        ensure!(status.used.is_some_and(|used| used.contains_key("pods")), "it is not counted yet");
        Ok(())
    };
    crate::harness::wait::eventually("the quota holds", STARTS, counted).await?;
    when.template_changes("a quota is full").await?;
    then.status("it says so in the quota's words, and goes on", SAID, |s| {
        s.waiting_for.contains("exceeded quota") && s.draining_replicas == 1
    })
    .await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

/// P8: a template that a LimitRange or Pod Security refuses: said at once in their words, what serves is not touched, and the correction goes through.
pub(super) async fn refused_pods_then_their_correction(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let good = AppSpec::tasks(&scene.world).replicas(2).rollout("maxSurge", "100%");
    given.app(good.clone()).await?;
    given.load(load::usual()).await?;
    let limits = json!({"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "256Mi"}}]}});
    scene.api::<LimitRange>().create(&PostParams::default(), &serde_json::from_value(limits)?).await?;
    let enforced = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let namespaces = Api::<Namespace>::all(scene.client.clone());
    namespaces.patch(&scene.namespace, &PatchParams::default(), &Patch::Merge(enforced)).await?;
    let container = |field: &str| format!("/template/spec/containers/0/{field}");
    let large = json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "16Mi"}});
    let refused = [
        (good.clone().set(&container("resources"), large), "maximum memory usage per Container is 256Mi"),
        (
            good.clone().set(&container("securityContext"), json!({"privileged": true})),
            "violates PodSecurity \"baseline",
        ),
    ];
    for (n, (bad, words)) in refused.into_iter().enumerate() {
        let before = live(scene).await?;
        when.app_changes("a container asks for what is refused", |_| bad).await?;
        then.status("it says so in the words of who refuses", SAID, |s| s.waiting_for.contains(words))
            .await?;
        let now = live(scene).await?;
        ensure!(before == now, "the pods were {before:?} and are {now:?}");
        let correction = good.clone().env("MARK", &format!("correction {n}"));
        when.app_changes("it is corrected", |_| correction).await?;
        then.status("the correction serves at once", STARTS, |s| s.updated_replicas > 0).await?;
        then.status("and all of it", ROLLS, |s| s.updated_replicas == 2 && s.draining_replicas == 0).await?;
        then.rolled_out().await?;
    }
    then.nothing_lost().await?;
    Ok(())
}
