//! Live lines of `kubectl get gracefulapps --watch`, as a user would see them.

use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::harness::scene::Scene;

/// kubectl while it watches.
pub(super) struct Lines {
    kubectl: Child,
    printer: JoinHandle<()>,
}

/// Starts kubectl; each line is printed as it comes.
pub(super) fn start(scene: &Scene) -> anyhow::Result<Lines> {
    let mut command: Command = scene.world.kubectl_command();
    command.args(["-n", &scene.namespace, "get", "gracefulapps", "--watch", "-o", "wide"]);
    let mut kubectl = command.stdout(Stdio::piped()).spawn().context("cannot start kubectl")?;
    let output = kubectl.stdout.take().context("kubectl has no output")?;
    let printer = tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            println!("       | {line}");
        }
    });
    Ok(Lines { kubectl, printer })
}

impl Lines {
    /// Ends kubectl.
    pub(super) async fn stop(mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill().await;
        self.printer.abort();
    }
}
