//! The operator, installed as a user would: both charts by helm, running in the cluster under its own ServiceAccount.

use std::path::Path;

use anyhow::Context;

use super::world::World;

/// Where the charts' releases live.
pub const NAMESPACE: &str = "graceful-system";
/// The operator's Deployment, as kubectl names it.
pub const OPERATOR: &str = "deployment/graceful-operator";

/// Installs or upgrades both releases, and makes sure that the operator that runs is of the image just built.
pub async fn install(world: &World) -> anyhow::Result<()> {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
    let chart = |name: &str| charts.join(name).display().to_string();
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
    let image = world.image("operator");
    let (repository, tag) = image.rsplit_once(':').unwrap_or((&image, "dev"));
    let repository = format!("image.repository={repository}");
    let tag = format!("image.tag={tag}");
    let operator = chart("graceful-operator");
    world
        .helm(&[
            "upgrade",
            "--install",
            "graceful-operator",
            &operator,
            "-n",
            NAMESPACE,
            "--set",
            &repository,
            "--set",
            &tag,
            "--wait",
        ])
        .await
        .context("chart graceful-operator")?;
    restart(world).await
}

/// Replaces the operator's pod: the tag stays the same when the image changes.
pub async fn restart(world: &World) -> anyhow::Result<()> {
    world.kubectl(&["-n", NAMESPACE, "rollout", "restart", OPERATOR]).await?;
    settled(world).await
}

/// Waits until the operator's Deployment is as it should be.
pub async fn settled(world: &World) -> anyhow::Result<()> {
    world.kubectl(&["-n", NAMESPACE, "rollout", "status", OPERATOR, "--timeout=60s"]).await?;
    Ok(())
}
