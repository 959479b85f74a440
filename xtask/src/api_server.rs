//! The API server of the cluster that is up, to try charts, rights and manifests on.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use graceful_cluster::Cluster;
use serde_json::{Value, json};

use crate::run::root;

/// The operator's chart.
pub(crate) const OPERATOR: &str = "charts/graceful-operator";

/// A cluster, and the namespace of this run.
pub(crate) struct Server {
    cluster: Cluster,
    pub(crate) namespace: String,
}

impl Server {
    pub(crate) fn open(namespace: String) -> anyhow::Result<Self> {
        Ok(Self { cluster: Cluster::open()?, namespace })
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = output(self.cluster.helm().current_dir(root()).args(arguments), None)?;
        Ok(output.stdout)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<Output> {
        output(self.cluster.kubectl().args(arguments), input)
    }

    /// What the server would say to these objects; a warning counts as a refusal.
    pub(crate) fn dry_run(&self, yaml: &str) -> anyhow::Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        let said = self.kubectl(&[&arguments[..], &["-n", &self.namespace]].concat(), Some(yaml))?;
        ensure!(!said.stderr.contains("Warning"), "{}", said.stderr);
        Ok(())
    }

    /// Creates a GracefulApp by a dry run: what the server made of it, or why it refused.
    pub(crate) fn try_app(&self, name: &str, spec: &Value) -> anyhow::Result<Result<Value, String>> {
        let app = json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        // Raw, since kubectl would drop nulls and check fields itself.
        let path =
            format!("/apis/graceful.dev/v1alpha1/namespaces/{}/gracefulapps?dryRun=All", self.namespace);
        match self.kubectl(&["create", "--raw", &path, "-f", "-"], Some(&app.to_string())) {
            Ok(said) => Ok(Ok(serde_json::from_str(&said.stdout)?)),
            Err(refused) => Ok(Err(format!("{refused:#}"))),
        }
    }
}

pub(crate) struct Output {
    pub(crate) stdout: String,
    stderr: String,
}

fn output(command: &mut Command, input: Option<&str>) -> anyhow::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    // Both programs read all of their input before they write, so that neither side can fill a pipe and wait.
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        std::io::Write::write_all(&mut stdin, input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if !output.status.success() {
        bail!("{}: {stderr}{stdout}", command.get_program().display());
    }
    Ok(Output { stdout, stderr })
}
