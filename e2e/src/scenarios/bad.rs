//! Bad revisions: nothing running is touched, the reason is said, and a correction goes through at once.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use graceful_api::{Phase, names};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::harness::app::AppSpec;
use crate::harness::load;
use crate::harness::scene::Scene;

/// progressDeadlineSeconds is 15; the rest is for the image pull's own back-off and a busy machine.
const STALLS: Duration = Duration::from_secs(45);
/// A registry that cannot be reached lets the kubelet wait before it gives a reason.
const SAID: Duration = Duration::from_secs(60);
/// A correction is surged at once: no back-off and no deadline of the bad revision holds it up.
const CORRECTED: Duration = Duration::from_secs(60);

/// P6, P8: an image that cannot be pulled.
pub(super) async fn bad_image_then_its_correction(scene: &Scene) -> anyhow::Result<()> {
    bad_then_good(scene, |app| app.image("graceful/nowhere:dev"), &["ImagePull", "ErrImage"]).await
}

/// P6, P8: a container that exits at once.
pub(super) async fn crash_loop_then_its_correction(scene: &Scene) -> anyhow::Result<()> {
    // The server refuses a range that runs backwards, and exits.
    bad_then_good(scene, |app| app.task_seconds("8-2"), &["CrashLoopBackOff", "Error"]).await
}

/// P8: a misspelt field, which Kubernetes alone can know: the dry run names it.
pub(super) async fn unknown_field_then_its_correction(scene: &Scene) -> anyhow::Result<()> {
    let misspelt = |app: AppSpec| app.set("/template/spec/containers/0/imagePulPolicy", "Always");
    bad_then_good(scene, misspelt, &["imagePulPolicy"]).await
}

/// P8: a value that Kubernetes refuses: its own words are said.
pub(super) async fn refused_template_then_its_correction(scene: &Scene) -> anyhow::Result<()> {
    let refused = |app: AppSpec| app.set("/template/spec/containers/0/terminationMessagePolicy", "Nowhere");
    bad_then_good(scene, refused, &["terminationMessagePolicy"]).await
}

/// P1, P3: an autoscaler grows an app whose rollout is stuck: what serves grows, and the bad revision stays as small as it was.
pub(super) async fn stuck_rollout_and_an_autoscaler(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2).rollout("progressDeadlineSeconds", 1)).await?;
    given.load(load::usual()).await?;
    let good = scene.spec()?.rollout("maxSurge", "100%");
    when.app_changes("the new image does not exist", |app| app.image("graceful/nowhere:dev")).await?;
    then.status("it is Stalled", STALLS, |s| s.phase == Some(Phase::Stalled)).await?;
    when.scaled(4).await?;
    let grown =
        then.status("four serve, of the revision that works", SAID, |s| s.serving_replicas == 4).await?;
    ensure!(grown.updated_replicas == 0, "the image does not exist, and serves: {grown:?}");
    let pods = scene.pods().await?;
    let of = |revision: &Option<String>| {
        let label = |p: &Pod| p.labels().get(names::REVISION_LABEL).cloned();
        pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none() && label(p) == *revision).count()
    };
    let broken = of(&grown.update_revision);
    ensure!(broken == 1, "{broken} pods are of the bad revision, with a surge of 1");
    when.app_changes("it is corrected", |_| good.replicas(4).env("MARK", "corrected")).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

async fn bad_then_good(
    scene: &Scene,
    break_it: impl FnOnce(AppSpec) -> AppSpec,
    reasons: &[&str],
) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world).replicas(2)).await?;
    given.load(load::usual()).await?;
    let good = scene.spec()?;
    let before = uids(scene).await?;
    when.app_changes("the new template is bad", break_it).await?;
    let status = then.status("it is Stalled", STALLS, |s| s.phase == Some(Phase::Stalled)).await?;
    then.status("it says the pods' own reason", SAID, |s| {
        s.conditions.iter().any(|c| c.status != "Unknown" && reasons.iter().any(|r| c.message.contains(r)))
    })
    .await?;
    let now = uids(scene).await?;
    ensure!(before.is_subset(&now), "an old pod was touched: {before:?}, now {now:?}");
    ensure!(status.draining_replicas == 0, "{} old pods drain for a bad revision", status.draining_replicas);
    when.app_changes("it is corrected", |_| good.env("MARK", "corrected")).await?;
    then.status("the correction serves at once", CORRECTED, |s| s.updated_replicas > 0).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

async fn uids(scene: &Scene) -> anyhow::Result<BTreeSet<String>> {
    Ok(scene.pods().await?.iter().filter_map(ResourceExt::uid).collect())
}
