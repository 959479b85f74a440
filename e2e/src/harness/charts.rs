//! The operator, installed as a user would: both charts by helm, running in the cluster under its own ServiceAccount.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use graceful_process::run as run_command;

use super::world::World;

/// Where the charts' releases live.
pub const NAMESPACE: &str = "graceful-system";
/// The operator's Deployment, as kubectl names it.
pub const OPERATOR: &str = "deployment/graceful-operator";

/// As many as the chart has: one leads, one stands by.
pub const REPLICAS: u32 = 2;

/// Selects the operator's pods.
pub const OPERATOR_PODS: &str = "app.kubernetes.io/name=graceful-operator";

/// Installs or upgrades both releases, and makes sure that the operator that runs is of the image just built.
pub async fn install(world: &World) -> anyhow::Result<()> {
    let crds = chart("graceful-crds");
    world
        .helm(&[
            "upgrade",
            "--install",
            "graceful-crds",
            &crds,
            "-n",
            NAMESPACE,
            "--create-namespace",
            "--wait",
        ])
        .await
        .context("chart graceful-crds")?;
    upgrade(world, &[]).await?;
    restart(world).await
}

/// Upgrades the operator's release; `more` are helm's own arguments.
pub async fn upgrade(world: &World, more: &[&str]) -> anyhow::Result<()> {
    upgrade_to(world, &chart("graceful-operator"), more).await
}

/// What the chart's Deployment has for the lease, and what releases before it had in its place.
const OF_THE_LEASE: [(&str, &str); 3] = [
    (r#"args: [run, "--lease={{ .Release.Namespace }}/{{ include "graceful.name" . }}"]"#, "args: [run]"),
    (r#"graceful.dev/operator-lease: {{ include "graceful.name" . }}"#, ""),
    (r#"if eq (include "graceful.allHaveLease" .) "true""#, "if false"),
];

/// The chart as it was before the lease: one operator that asks nobody whether it leads. Its image is today's, which still runs without one.
pub async fn without_a_lease(world: &World) -> anyhow::Result<()> {
    scale(world, 0).await?;
    world.kubectl(&["-n", NAMESPACE, "delete", "lease", "graceful-operator", "--ignore-not-found"]).await?;
    let folder = std::env::temp_dir().join(format!("graceful-chart-{}", std::process::id()));
    let installed = async {
        let chart = copy_without_a_lease(&folder)?;
        upgrade_to(world, &chart, &["--set", "replicas=1"]).await
    }
    .await;
    fs::remove_dir_all(&folder)?;
    installed
}

fn copy_without_a_lease(folder: &Path) -> anyhow::Result<String> {
    run_command(std::process::Command::new("cp").args(["-r", &chart("graceful-operator")]).arg(folder))?;
    let file = folder.join("templates/deployment.yaml");
    let mut template = fs::read_to_string(&file)?;
    for (now, before) in OF_THE_LEASE {
        ensure!(template.contains(now), "the chart's Deployment has no {now}");
        template = template.replace(now, before);
    }
    fs::write(file, template)?;
    Ok(folder.display().to_string())
}

async fn upgrade_to(world: &World, operator: &str, more: &[&str]) -> anyhow::Result<()> {
    let image = world.image("operator");
    let (repository, tag) = image.rsplit_once(':').unwrap_or((&image, "dev"));
    let repository = format!("image.repository={repository}");
    let tag = format!("image.tag={tag}");
    let mut args = vec!["upgrade", "--install", "graceful-operator", operator, "-n", NAMESPACE];
    let pull = format!("image.pullPolicy={}", world.pull_policy());
    args.extend(["--set", &repository, "--set", &tag, "--set", &pull, "--wait"]);
    let gate = world.image("gate");
    let (repository, tag) = gate.rsplit_once(':').unwrap_or((&gate, "dev"));
    let gate = format!(
        "gate.image.repository={repository},gate.image.tag={tag},gate.image.pullPolicy={}",
        world.pull_policy()
    );
    args.extend(["--set", &gate]);
    args.extend(more);
    world.helm(&args).await.context("chart graceful-operator")?;
    Ok(())
}

/// Replaces the operator's pod: the tag stays the same when the image changes.
pub async fn restart(world: &World) -> anyhow::Result<()> {
    world.kubectl(&["-n", NAMESPACE, "rollout", "restart", OPERATOR]).await?;
    settled(world).await
}

/// Changes how many operators run, and waits until it is so.
pub async fn scale(world: &World, replicas: u32) -> anyhow::Result<()> {
    let replicas_flag = format!("--replicas={replicas}");
    world.kubectl(&["-n", NAMESPACE, "scale", OPERATOR, &replicas_flag]).await?;
    if replicas == 0 {
        let gone = ["-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", OPERATOR_PODS, "--timeout=60s"];
        world.kubectl(&gone).await?;
    }
    settled(world).await
}

/// Waits until the operator's Deployment is as it should be.
async fn settled(world: &World) -> anyhow::Result<()> {
    world.kubectl(&["-n", NAMESPACE, "rollout", "status", OPERATOR, "--timeout=60s"]).await?;
    Ok(())
}

fn chart(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts").join(name).display().to_string()
}
