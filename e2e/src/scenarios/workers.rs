//! Queue workers that are not ours: real Celery on a real Redis, which know nothing of Graceful and finish their work on SIGTERM.
//!
//! Assumption: the nodes are of this machine. Its Python, Redis and Celery's packages are mounted from there, so that no image must be made of them.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::python::{Python, program};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS};

const WORKER: &str = include_str!("../../assets/celery/worker.py");
const SUBMIT: &str = include_str!("../../assets/celery/submit.py");

/// The template's grace: less than most tasks take, of 2 to 20 s.
const GRACE_SECONDS: u32 = 5;

/// So many tasks are submitted at a time.
const TASKS: usize = 10;

/// The Deployment to compare with, and the queue of its own.
const PLAIN: &str = "plain";

/// P1: two rollouts and a scale-down lose no task; a plain Deployment of the same workers loses some in one rollout.
pub(super) async fn celery_workers_finish_what_they_have(scene: &Scene) -> anyhow::Result<()> {
    let (_, when, then) = scene.steps();
    scene.observer.app_drains_itself();
    scene.step("given Redis, and workers of two queues", given(scene)).await?;
    for queue in [NAME, PLAIN] {
        scene.step(format!("given tasks that run in queue {queue}"), submit(scene, queue, "first")).await?;
    }
    scene.step("when the plain Deployment is rolled out", roll_out(scene)).await?;
    when.template_changes("second").await?;
    then.status("a worker has its SIGTERM, and is shown with its count", ROLLS, |s| {
        s.draining_replicas > 0 && s.in_flight > 0 && s.waiting_for.contains("it drains itself")
    })
    .await?;
    then.rolled_out().await?;
    scene.step("given more tasks", submit(scene, NAME, "second")).await?;
    when.template_changes("third").await?;
    then.rolled_out().await?;
    scene.step("given more tasks", submit(scene, NAME, "third")).await?;
    when.scaled(1).await?;
    let all = 3 * TASKS;
    let finished = || async {
        let Ledger { ended, .. } = ledger(scene, NAME).await?;
        ensure!(ended.len() == all, "{} of {all} tasks have ended", ended.len());
        scene.settled().await
    };
    let result = scene.step("then every task has ended", eventually("all have ended", ROLLS, finished)).await;
    let Ledger { ended, .. } = ledger(scene, NAME).await?;
    {
        let mut figures = scene.figures();
        (figures.accepted, figures.finished) = (all as u64, ended.len() as u64);
        figures.lost = (all - ended.len()) as u64;
    }
    result?;
    let told = scene.app().await?.status.context("no status")?.cut;
    ensure!(told.pods == 0, "all have finished, and status tells of a cut: {told:?}");
    let plain = ledger(scene, PLAIN).await?;
    let lost: Vec<_> = plain.started.difference(&plain.ended).cloned().collect();
    scene.say(&format!("the plain Deployment lost {} of {TASKS}: {}", lost.len(), lost.join(", ")));
    ensure!(
        !lost.is_empty(),
        "a grace of {GRACE_SECONDS} s and tasks of up to 20 s lost nothing: the ledger is blind"
    );
    scene.check_promises().await
}

async fn given(scene: &Scene) -> anyhow::Result<()> {
    program(scene, &[("worker.py", WORKER), ("submit.py", SUBMIT)]).await?;
    let command = ["/usr/bin/redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"];
    let redis = json!({"metadata": {"name": "redis", "labels": {"app": "redis"}}, "spec": pod(scene, "redis", &command)?});
    scene.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(redis)?).await?;
    let service = json!({"metadata": {"name": "redis"}, "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379}]}});
    scene.api::<Service>().create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    eventually("Redis answers", STARTS, || redis_cli(scene, &["ping"])).await?;

    let plain = json!({
        "metadata": {"name": PLAIN},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": PLAIN}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": PLAIN}}, "spec": worker(scene, PLAIN)?},
        },
    });
    scene.api::<Deployment>().create(&PostParams::default(), &serde_json::from_value(plain)?).await?;
    let app = AppSpec(json!({
        "replicas": 2,
        "template": {"metadata": {"labels": {"app": NAME}}, "spec": worker(scene, NAME)?},
        "inFlight": {"port": "http", "path": "/", "format": "JsonPointer", "jsonPointers": ["/running"]},
        "drain": {"signal": "Sigterm", "lingerSeconds": 1, "deadlineSeconds": 60},
        "rollout": {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 60},
    }));
    scene.apply(app).await?;
    eventually("all workers are ready", STARTS, || async {
        scene.settled().await?;
        let status = scene.api::<Deployment>().get(PLAIN).await?.status.unwrap_or_default();
        ensure!(status.available_replicas == Some(2), "{:?} plain workers", status.available_replicas);
        Ok(())
    })
    .await
}

/// Ten tasks, of which as many run as one worker has room for.
async fn submit(scene: &Scene, queue: &str, name: &str) -> anyhow::Result<()> {
    let queue_env = format!("QUEUE={queue}");
    let before = ledger(scene, queue).await?.started.len();
    exec(scene, &["/usr/bin/env", &queue_env, "/usr/bin/python3", "/program/submit.py", name]).await?;
    eventually("half of them run", STARTS, || async {
        let started = ledger(scene, queue).await?.started.len() - before;
        ensure!(started >= TASKS / 2, "{started} have started");
        Ok(())
    })
    .await
}

async fn roll_out(scene: &Scene) -> anyhow::Result<()> {
    let template = json!({"metadata": {"annotations": {"mark": "second"}}});
    let patch = Patch::Merge(json!({"spec": {"template": template}}));
    scene.api::<Deployment>().patch(PLAIN, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// What each task wrote as it started and as it ended, by name.
struct Ledger {
    started: BTreeSet<String>,
    ended: BTreeSet<String>,
}

async fn ledger(scene: &Scene, queue: &str) -> anyhow::Result<Ledger> {
    let text = redis_cli(scene, &["lrange", &format!("ledger:{queue}"), "0", "-1"]).await?;
    let of = |word: &str| text.lines().filter_map(|l| l.strip_prefix(word)).map(str::to_owned).collect();
    Ok(Ledger { started: of("start "), ended: of("end ") })
}

async fn redis_cli(scene: &Scene, command: &[&str]) -> anyhow::Result<String> {
    exec(scene, &[&["/usr/bin/redis-cli"], command].concat()).await
}

async fn exec(scene: &Scene, command: &[&str]) -> anyhow::Result<String> {
    let arguments = [&["exec", "-n", scene.namespace.as_str(), "redis", "--"], command].concat();
    scene.world.kubectl(&arguments).await
}

fn worker(scene: &Scene, queue: &str) -> anyhow::Result<Value> {
    let command =
        "/usr/bin/python3 -m celery --app worker worker --concurrency 5 --without-mingle --without-gossip";
    let mut pod = pod(scene, queue, &command.split(' ').collect::<Vec<_>>())?;
    pod["terminationGracePeriodSeconds"] = json!(GRACE_SECONDS);
    let container = &mut pod["containers"][0];
    container["ports"] = json!([{"name": "http", "containerPort": 8000}]);
    container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1});
    Ok(pod)
}

/// Any image will do, since all that runs comes from the node.
fn pod(scene: &Scene, queue: &str, command: &[&str]) -> anyhow::Result<Value> {
    let python = Python::with_packages("GRACEFUL_CELERY")?;
    Ok(json!({
        // A checkout may be where nobody else may look.
        "securityContext": {"runAsUser": 0},
        "containers": [{
            "name": "server",
            "image": scene.world.image("server"),
            "imagePullPolicy": scene.world.pull_policy(),
            "command": command,
            "env": [
                {"name": "BROKER", "value": "redis://redis:6379/0"},
                {"name": "QUEUE", "value": queue},
                {"name": "PYTHONPATH", "value": "/program:/packages"},
                {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            ],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "volumeMounts": python.mounts(),
        }],
        "volumes": python.volumes(),
    }))
}
