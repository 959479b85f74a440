//! Two operators, one leader: it is stopped, killed and paused past its lease while rollouts go on. Alone, since all apps share it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use graceful_process::Signal;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::harness::app::AppSpec;
use crate::harness::crash::{audit_log, operator_of};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{STARTS, charts, load};

/// Each way to go, so often: once a minute each.
const TIMES: u32 = 1;
/// A released lease is noticed at the standby's next look, so that a rollout of the operator is no pause that anybody sees.
const AFTER_SIGTERM: Duration = Duration::from_secs(2);
/// The lease, and a look and a write on a machine that is busy.
const AFTER_SIGKILL: Duration = Duration::from_secs(18);
/// How long the next leader works beside the paused one. The whole pause stays below the half minute after which the kubelet restarts a container that does not
/// answer.
const TOGETHER: Duration = Duration::from_secs(3);
/// What a container that is started anew takes, the kubelet's growing pauses included.
const RESTARTS: Duration = Duration::from_secs(120);

/// P1, P6: each hand-over falls into a rollout, which goes on to its end; no task is lost, and a leader of before writes nothing that takes effect.
pub(super) async fn leader(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    let (mut sigterm, mut sigkill, mut effective) = (Vec::new(), Vec::new(), 0);
    for n in 1..=TIMES {
        both_ready(scene).await?;
        when.template_changes(&format!("stopped {n}")).await?;
        sigterm.push(handed_over(scene, Signal::SIGTERM, AFTER_SIGTERM).await?);
        then.rolled_out().await?;

        both_ready(scene).await?;
        when.template_changes(&format!("killed {n}")).await?;
        sigkill.push(handed_over(scene, Signal::SIGKILL, AFTER_SIGKILL).await?);
        then.rolled_out().await?;
    }
    for n in 1..=TIMES {
        both_ready(scene).await?;
        when.template_changes(&format!("paused {n}")).await?;
        effective += paused(scene).await?;
        then.rolled_out().await?;
    }
    then.nothing_lost().await?;
    let worst = |all: &[Duration]| all.iter().map(Duration::as_millis).max().unwrap_or_default();
    scene.say(&format!(
        "handover_sigterm_ms={} handover_sigkill_ms={} effective_writes_after_loss={effective}",
        worst(&sigterm),
        worst(&sigkill)
    ));
    ensure!(effective == 0, "a leader that had lost its lease changed something");
    Ok(())
}

/// Ends the leader's process, and measures until another holds the lease.
async fn handed_over(scene: &Scene, signal: Signal, within: Duration) -> anyhow::Result<Duration> {
    let old = holder(scene).await?;
    let pid = operator_of(pod_of(&old))?;
    // In the midst of the rollout, not before it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    graceful_process::signal(signal, &[pid])?;
    let took = followed(scene, &old, started, within + AFTER_SIGKILL).await?;
    scene.say(&format!("{signal:?} of {}: another leads after {} ms", pod_of(&old), took.as_millis()));
    ensure!(took <= within, "the hand-over took {took:?}, and {within:?} are allowed");
    Ok(took)
}

/// Pauses the leader until another leads and works, lets it go on, and counts what it still did: by the API server's own record of what took effect.
async fn paused(scene: &Scene) -> anyhow::Result<usize> {
    let old = holder(scene).await?;
    let pod = pod_of(&old).to_owned();
    let pid = operator_of(&pod)?;
    let before = restarts(scene, &pod).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (started, stopped) = (Instant::now(), Timestamp::now());
    graceful_process::signal(Signal::SIGSTOP, &[pid])?;
    let followed = followed(scene, &old, started, AFTER_SIGKILL).await;
    if followed.is_ok() {
        tokio::time::sleep(TOGETHER).await;
    }
    // Whatever came of it, it must not stay paused.
    let resumed = Timestamp::now();
    graceful_process::signal(Signal::SIGCONT, &[pid])?;
    let took = followed?;
    eventually("the old leader has ended itself", RESTARTS, || async {
        ensure!(restarts(scene, &pod).await? > before, "it runs on");
        Ok(())
    })
    .await?;
    let previous = LogParams { previous: true, timestamps: true, ..LogParams::default() };
    let log = pods(scene).logs(&pod, &previous).await.context("the old leader's log")?;
    ensure!(log.contains("leadership is lost"), "it did not say that it lost: {log}");
    let record = fs::read_to_string(audit_log()?).context("the API server's record")?;
    let written = |from, until| written(&record, &pod, from, until);
    // A record without what it did as leader would show nothing of afterwards either.
    ensure!(!written(Timestamp::UNIX_EPOCH, stopped)?.is_empty(), "the record has none of its writes");
    let effective = written(resumed, Timestamp::now())?;
    for line in &effective {
        scene.say(&format!("after the loss: {line}"));
    }
    scene.say(&format!("paused {pod}: another led after {} ms", took.as_millis()));
    Ok(effective.len())
}

/// What an operator changed in this time. The Lease is no part of it: who holds that is decided by its own version.
fn written(record: &str, pod: &str, from: Timestamp, until: Timestamp) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for line in record.lines() {
        let event: Value = serde_json::from_str(line)?;
        let word = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let took_effect = event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        let uri = word("/requestURI");
        let by = word("/user/extra/authentication.kubernetes.io~1pod-name/0");
        let at: Timestamp = word("/stageTimestamp").parse()?;
        let changes = !uri.contains("dryRun=") && word("/objectRef/resource") != "leases";
        if took_effect && by == pod && changes && (from..until).contains(&at) {
            found.push(format!("{at} {} {uri}", word("/verb")));
        }
    }
    Ok(found)
}

/// Since then, until another than this one leads.
pub(super) async fn followed(
    scene: &Scene,
    old: &str,
    since: Instant,
    within: Duration,
) -> anyhow::Result<Duration> {
    loop {
        let holder = holder(scene).await.unwrap_or_default();
        if !holder.is_empty() && holder != old {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < within, "nobody follows {old}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn holder(scene: &Scene) -> anyhow::Result<String> {
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), charts::NAMESPACE);
    let lease = leases.get("graceful-operator").await?;
    lease.spec.and_then(|spec| spec.holder_identity).context("the lease has no holder")
}

/// An identity is the pod's name and a number of the process.
pub(super) fn pod_of(identity: &str) -> &str {
    identity.split_once('_').map_or(identity, |(pod, _)| pod)
}

pub(super) async fn both_ready(scene: &Scene) -> anyhow::Result<()> {
    eventually("both operators are ready, and one leads", RESTARTS.max(STARTS), || async {
        let all = pods(scene).list(&ListParams::default().labels(charts::OPERATOR_PODS)).await?.items;
        let ready = |pod: &&Pod| {
            let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let ready: Vec<_> = all.iter().filter(ready).map(ResourceExt::name_any).collect();
        ensure!(ready.len() == charts::REPLICAS as usize, "ready: {ready:?}");
        let holder = holder(scene).await?;
        ensure!(ready.iter().any(|pod| pod == pod_of(&holder)), "{holder:?} leads");
        Ok(())
    })
    .await
}

async fn restarts(scene: &Scene, pod: &str) -> anyhow::Result<i32> {
    let pod = pods(scene).get(pod).await?;
    let containers = pod.status.and_then(|s| s.container_statuses).unwrap_or_default();
    Ok(containers.iter().map(|c| c.restart_count).sum())
}

fn pods(scene: &Scene) -> Api<Pod> {
    Api::namespaced(scene.client.clone(), charts::NAMESPACE)
}
