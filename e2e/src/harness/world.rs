//! What every test shares: the cluster, its tools, the images, the seed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use graceful_process::printed;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::process::Command;

use super::databases::Databases;

/// One run's surroundings.
#[derive(Clone)]
pub struct World {
    /// Talks to the API server.
    pub client: Client,
    /// The cluster's own kubectl.
    pub kubectl: PathBuf,
    /// The cluster's own helm.
    pub helm: PathBuf,
    /// The kubeconfig file.
    pub kubeconfig: PathBuf,
    /// The context in it; none means its current one.
    pub context: Option<String>,
    /// Where images are pulled from; none means that they are loaded on the nodes.
    pub registry: Option<String>,
    /// PostgreSQL for those who need one.
    pub databases: Databases,
    /// Whether the nodes are of this machine, so that their processes can be killed from here.
    pub ours: bool,
    /// Decides every random choice.
    pub seed: u64,
    /// Keep the namespaces.
    pub keep: bool,
}

impl World {
    /// Reads the kubeconfig and connects.
    pub async fn connect(
        tools: Tools,
        context: Option<String>,
        registry: Option<String>,
        surroundings: Surroundings,
        seed: u64,
        keep: bool,
    ) -> anyhow::Result<Self> {
        let Surroundings { host, postgres_url } = surroundings;
        let databases = Databases::new(postgres_url, host);
        let ours = host.is_some();
        let Tools { kubectl, helm, kubeconfig } = tools;
        let file = Kubeconfig::read_from(&kubeconfig)
            .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
        let options = KubeConfigOptions { context: context.clone(), ..Default::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await?;
        let client = Client::try_from(config)?;
        client.apiserver_version().await.context("the cluster does not answer: `cargo xtask cluster up`")?;
        Ok(Self { client, kubectl, helm, kubeconfig, context, registry, databases, ours, seed, keep })
    }

    /// The image `graceful/<name>:dev` as the nodes know it.
    pub fn image(&self, name: &str) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/graceful/{name}:dev"),
            None => format!("graceful/{name}:dev"),
        }
    }

    /// A registry's tag is the same from run to run, and a node would keep the image of an earlier one.
    pub fn pull_policy(&self) -> &'static str {
        if self.registry.is_some() { "Always" } else { "IfNotPresent" }
    }

    /// The cluster's kubectl, ready for its arguments.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the cluster's kubectl; its standard output.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        run(self.kubectl_command(), args).await
    }

    /// Runs the cluster's helm; its standard output.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.helm);
        if let Some(context) = &self.context {
            command.args(["--kube-context", context]);
        }
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        run(command, args).await
    }
}

async fn run(mut command: Command, args: &[&str]) -> anyhow::Result<String> {
    let program = command.as_std().get_program().display().to_string();
    let done = command.args(args).output().await.with_context(|| format!("cannot start {program}"))?;
    printed(command.as_std(), &done)
}

/// What stands beside the cluster.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// This machine as pods see it, where the cluster is our own.
    pub host: Option<IpAddr>,
    /// A PostgreSQL that pods reach, for a cluster that is not.
    pub postgres_url: Option<String>,
}

/// Where the cluster's tools are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The path of kubectl.
    pub kubectl: PathBuf,
    /// The path of helm.
    pub helm: PathBuf,
    /// The kubeconfig file.
    pub kubeconfig: PathBuf,
}
