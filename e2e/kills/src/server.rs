//! One server as a process: started, killed, started again. What it logs is read, and kept in a file.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::Shared;
use crate::ledger::Life;

/// Far beyond what a start or an orderly end takes, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place that a server runs in, again and again.
pub(crate) struct Place {
    command: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    shared: Shared,
    address: watch::Sender<Option<String>>,
    process: Option<Process>,
}

/// One life.
struct Process {
    life: Life,
    child: Child,
    started: Instant,
    reading: JoinHandle<()>,
}

impl Place {
    /// A place whose server writes its log to `log`.
    pub(crate) fn new(
        command: PathBuf,
        args: Vec<String>,
        env: Vec<(String, String)>,
        log: PathBuf,
        shared: Shared,
    ) -> Self {
        Self { command, args, env, log, shared, address: watch::Sender::new(None), process: None }
    }

    /// Where the server listens, while it does.
    pub(crate) fn address(&self) -> watch::Receiver<Option<String>> {
        self.address.subscribe()
    }

    /// Starts it. It need not come to anything before it is killed.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let life = self.shared.next_life();
        let mut child = Command::new(&self.command)
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.command.display()))?;
        let stderr = child.stderr.take().context("the server has no stderr")?;
        let log = File::options().create(true).append(true).open(&self.log).await?;
        let reader = Reader { life, log, shared: self.shared.clone(), address: self.address.clone() };
        let reading = tokio::spawn(reader.read(stderr));
        self.process = Some(Process { life, child, started: Instant::now(), reading });
        Ok(())
    }

    /// Waits until it has lived so long.
    pub(crate) async fn lived(&self, span: Duration) {
        if let Some(process) = &self.process {
            sleep_until(process.started + span).await;
        }
    }

    /// Waits until it listens.
    pub(crate) async fn listens(&mut self) -> anyhow::Result<()> {
        let mut address = self.address.subscribe();
        let process = self.process.as_mut().context("not started")?;
        let listens = timeout(PATIENCE, address.wait_for(Option::is_some));
        tokio::select! {
            listens = listens => {
                ensure!(matches!(listens, Ok(Ok(_))), "a server did not listen within {PATIENCE:?}: {}", self.log.display());
                Ok(())
            }
            ended = process.child.wait() => {
                anyhow::bail!("a server ended by itself ({}): {}", ended?, self.log.display())
            }
        }
    }

    /// SIGKILL; the moment of it. The corpse is still to be [`Place::bury`]ed.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let process = self.process.as_mut().context("not started")?;
        ensure!(
            process.child.try_wait()?.is_none(),
            "a server had ended by itself before the kill: {}",
            self.log.display()
        );
        process.child.start_kill()?;
        Ok(())
    }

    /// Waits for the end, and for all that was written before it.
    pub(crate) async fn bury(&mut self) -> anyhow::Result<Life> {
        let mut process = self.process.take().context("not started")?;
        timeout(PATIENCE, process.child.wait()).await.context("a killed process does not end")??;
        process.reading.await?;
        self.address.send_replace(None);
        Ok(process.life)
    }

    /// SIGTERM: it must drain and exit with 0, like any server that has nothing left to do.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("not started")?;
        let pid = process.child.id().context("it has ended")?.to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await?;
        let status =
            timeout(PATIENCE, process.child.wait()).await.context("it does not end on SIGTERM")??;
        process.reading.await?;
        ensure!(status.success(), "it ended with {status} on SIGTERM: {}", self.log.display());
        Ok(())
    }
}

/// Reads one life's log.
struct Reader {
    life: Life,
    log: File,
    shared: Shared,
    address: watch::Sender<Option<String>>,
}

impl Reader {
    async fn read(mut self, stderr: ChildStderr) {
        let mut lines = BufReader::new(stderr).lines();
        // A line that is cut short by the kill is no JSON, and says nothing.
        while let Ok(Some(line)) = lines.next_line().await {
            let kept = format!("{} {line}\n", self.life);
            if let Err(error) = self.log.write_all(kept.as_bytes()).await {
                eprintln!("the servers' log cannot be written: {error}");
            }
            if let Ok(event) = serde_json::from_str::<Value>(&line) {
                self.understand(&event);
            }
        }
        let _ = self.log.flush().await;
    }

    fn understand(&self, event: &Value) {
        if let Some(public) = event["public"].as_str() {
            let port = public.rsplit(':').next().unwrap_or_default();
            self.address.send_replace(Some(format!("http://127.0.0.1:{port}")));
        }
        let Some(task) = event["task_id"].as_str().and_then(|id| id.parse::<Uuid>().ok()) else { return };
        let mut ledger = self.shared.ledger();
        match event["attempt"].as_u64() {
            Some(attempt) if event["message"] == "started" => {
                ledger.started(self.life, task, attempt, std::time::Instant::now());
            }
            _ => ledger.ended(self.life, task),
        }
    }
}
