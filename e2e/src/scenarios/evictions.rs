//! Evictions under `disruption: HoldWhileBusy` and `Allow`. (Hold is what `nodes` is about.)

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use graceful_api::marks::{AUTOSCALERS, BUSY_LABEL, OURS};
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use kube::{Error, ResourceExt};
use tokio::time::timeout;

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, load};

/// A serving pod is asked twice a minute, and marked by what it says. Twice that, and the last task, on a machine that is busy.
const MARKED: Duration = Duration::from_secs(120);

/// An API server of a machine that is busy.
const ANSWERED: Duration = Duration::from_secs(3);

/// More than a task takes, so that whoever is evicted can finish.
const GRACE: u32 = 30;

/// P2: autoscalers see which pods are busy; an eviction of one waits, and one of an idle pod does not.
pub(super) async fn held_while_busy(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let spec = AppSpec::tasks(&scene.world).replicas(2).set("/disruption", "HoldWhileBusy").grace(GRACE);
    given.app(spec).await?;
    then.pods("both are marked as idle", MARKED, |pods| all_marked(pods, false)).await?;
    given.load(load::usual()).await?;
    then.pods("both are marked as busy", MARKED, |pods| all_marked(pods, true)).await?;
    let busy = first(scene).await?;
    ensure!(!evict(scene, &busy).await?, "busy pod {busy} was evicted");
    scene.load().await?.stop(true).await?;
    then.pods("both are idle again", MARKED, |pods| all_marked(pods, false)).await?;
    let idle = first(scene).await?;
    scene.observer.deletes(&idle);
    ensure!(evict(scene, &idle).await?, "the eviction of idle pod {idle} waits");
    gone(scene, &idle).await?;
    then.rolled_out().await?;
    // What is allowed ends a busy pod as well, which drains itself in its grace period.
    when.app_changes("disruption: Allow", |spec| spec.set("/disruption", "Allow")).await?;
    then.pods("none tells autoscalers anything any more", MARKED, not_marked).await?;
    scene.load().await?.start(&load::usual()).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let allowed = first(scene).await?;
    scene.observer.deletes(&allowed);
    eventually("the budget is gone", ROLLS, || async {
        ensure!(evict(scene, &allowed).await?, "the eviction of {allowed} waits");
        Ok(())
    })
    .await?;
    let took = gone(scene, &allowed).await?;
    scene.say(&format!("allowed_eviction_seconds={:.1} of {GRACE}", took.as_secs_f64()));
    then.rolled_out().await?;
    // And so does `kubectl delete pod`, which no budget binds.
    let deleted = first(scene).await?;
    when.pod_deleted(&deleted).await?;
    let took = gone(scene, &deleted).await?;
    scene.say(&format!("deleted_pod_seconds={:.1} of {GRACE}", took.as_secs_f64()));
    then.rolled_out().await?;
    then.nothing_lost().await?;
    Ok(())
}

fn all_marked(pods: &[Pod], busy: bool) -> anyhow::Result<()> {
    let right = |pod: &&Pod| {
        let annotations = pod.annotations();
        let word = |key: &str| annotations.get(key).map(String::as_str);
        let (evict, disrupt) =
            (word("cluster-autoscaler.kubernetes.io/safe-to-evict"), word("karpenter.sh/do-not-disrupt"));
        let expected = if busy { (Some("false"), Some("true")) } else { (Some("true"), None) };
        pod.labels().contains_key(BUSY_LABEL) == busy && (evict, disrupt) == expected
    };
    let marked = pods.iter().filter(right).count();
    ensure!(marked == 2 && pods.len() == 2, "{marked} of {} pods", pods.len());
    Ok(())
}

fn not_marked(pods: &[Pod]) -> anyhow::Result<()> {
    let keys = || AUTOSCALERS.iter().map(|a| a.key).chain([OURS]);
    let marked = |pod: &&Pod| {
        pod.labels().contains_key(BUSY_LABEL) || keys().any(|key| pod.annotations().contains_key(key))
    };
    let marked: Vec<_> = pods.iter().filter(marked).map(ResourceExt::name_any).collect();
    ensure!(marked.is_empty(), "still marked: {}", marked.join(", "));
    Ok(())
}

async fn first(scene: &Scene) -> anyhow::Result<String> {
    scene.pods().await?.first().map(ResourceExt::name_any).context("no pod")
}

/// False where a budget refuses it for now. (kube's client tries a 429 again, for minutes; an eviction that is taken is answered at once.)
async fn evict(scene: &Scene, pod: &str) -> anyhow::Result<bool> {
    match timeout(ANSWERED, scene.api::<Pod>().evict(pod, &EvictParams::default())).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(Error::Api(status))) if status.code == 429 => Ok(false),
        Ok(Err(error)) => Err(error).context("evict"),
        Err(_) => Ok(false),
    }
}

async fn gone(scene: &Scene, pod: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    eventually("it is gone", ROLLS, || async {
        ensure!(scene.api::<Pod>().get_opt(pod).await?.is_none(), "{pod} is still there");
        Ok(())
    })
    .await?;
    Ok(began.elapsed())
}
