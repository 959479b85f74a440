//! One server as a process: started, killed, started again. What it logs is read, and kept in a file.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_process::{Signal, signal};
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
const TIMEOUT: Duration = Duration::from_secs(30);

/// Clients submit all the time; a server that has nothing to do for so long is killed all the same.
const NO_WORK: Duration = Duration::from_secs(3);

/// A place that a server runs in, again and again.
pub(crate) struct Place {
    command: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    shared: Shared,
    address: watch::Sender<Option<String>>,
    busy: watch::Sender<bool>,
    open: watch::Sender<bool>,
    process: Option<Process>,
}

/// One process, from its start to its kill.
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
        let (address, open, busy) =
            (watch::Sender::new(None), watch::Sender::default(), watch::Sender::default());
        Self { command, args, env, log, shared, address, open, busy, process: None }
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
        let (address, open, busy) = (self.address.clone(), self.open.clone(), self.busy.clone());
        let reader = Reader { life, log, shared: self.shared.clone(), address, open, busy };
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

    /// Waits until it listens and its queue is open.
    pub(crate) async fn works(&mut self) -> anyhow::Result<()> {
        let mut open = self.open.subscribe();
        let process = self.process.as_mut().context("not started")?;
        let works = timeout(TIMEOUT, open.wait_for(|open| *open));
        tokio::select! {
            works = works => {
                ensure!(matches!(works, Ok(Ok(_))), "a server did not open its queue within {TIMEOUT:?}: {}", self.log.display());
                Ok(())
            }
            ended = process.child.wait() => {
                anyhow::bail!("a server ended by itself ({}): {}", ended?, self.log.display())
            }
        }
    }

    /// Waits until it has begun an attempt: on a slow machine that takes its time. Not for ever: there may be none.
    pub(crate) async fn begins(&mut self) -> anyhow::Result<()> {
        self.works().await?;
        let mut busy = self.busy.subscribe();
        let _ = timeout(NO_WORK, busy.wait_for(|busy| *busy)).await;
        Ok(())
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
        timeout(TIMEOUT, process.child.wait()).await.context("a killed process does not end")??;
        process.reading.await?;
        self.address.send_replace(None);
        self.open.send_replace(false);
        self.busy.send_replace(false);
        Ok(process.life)
    }

    /// SIGTERM: it must drain and exit with 0, like any server that has nothing left to do.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("not started")?;
        let pid = process.child.id().context("it has ended")?;
        signal(Signal::SIGTERM, &[pid])?;
        let status = timeout(TIMEOUT, process.child.wait()).await.context("it does not end on SIGTERM")??;
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
    open: watch::Sender<bool>,
    busy: watch::Sender<bool>,
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
        if event["message"] == "the queue is open" {
            self.open.send_replace(true);
        }
        let Some(task) = event["task_id"].as_str().and_then(|id| id.parse::<Uuid>().ok()) else { return };
        let mut ledger = self.shared.ledger();
        match event["attempt"].as_u64() {
            Some(attempt) if event["message"] == "started" => {
                self.busy.send_replace(true);
                ledger.started(self.life, task, attempt, std::time::Instant::now());
            }
            _ => ledger.ended(self.life, task),
        }
    }
}
