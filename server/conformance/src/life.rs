//! The implementation's process: started here, or somebody else's, or not known.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::outcome::{Outcome, broken};
use crate::pod::{Pod, Reply};

/// How long a start may take, on a loaded machine and with an interpreter that compiles its modules.
pub(crate) const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal,
    /// Nobody but its parent can see how.
    Unseen,
}

/// What followed a SIGTERM.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    /// The first answer that said Terminating, and from when on it was closed, in seconds after the signal.
    pub(crate) first: Option<Reply>,
    pub(crate) closed_after: Option<f64>,
    pub(crate) work_in_linger: Option<u16>,
    pub(crate) resume: Option<Reply>,
    pub(crate) last_epoch: Option<Reply>,
    pub(crate) work: Option<Outcome<u16>>,
    pub(crate) ended_before_work: bool,
    /// How long it lived on after its last answer.
    pub(crate) mute: Duration,
    pub(crate) socket_lived: Option<bool>,
    /// Of each socket: its close code, and when.
    pub(crate) farewells: Vec<(Option<u16>, Instant)>,
    pub(crate) end: Option<End>,
}

#[derive(Debug)]
pub(crate) enum Life {
    /// No rule about the process can be held.
    Unknown,
    /// Somebody else's; gone after its one end.
    Theirs(Pid),
    Ours(Box<Ours>),
}

/// What is started, and what runs.
#[derive(Debug)]
pub(crate) struct Ours {
    command: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Life {
    pub(crate) fn of(pid: Option<i32>, command: &[OsString], keys: String) -> Self {
        match (pid, command) {
            (Some(pid), _) => Self::Theirs(Pid::from_raw(pid)),
            (None, []) => Self::Unknown,
            (None, command) => {
                let ours =
                    [("GRACEFUL_POD_UID", "graceful-conformance".to_owned()), ("GRACEFUL_DRAIN_KEYS", keys)];
                let environment =
                    ours.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
                Self::Ours(Box::new(Ours { command: command.to_vec(), environment, child: None }))
            }
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    pub(crate) fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    /// Starts the command and waits until `/drain` answers; ends what ran before. Nothing is done to a process that is not ours.
    pub(crate) async fn start(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let Self::Ours(ours) = self else { return Ok(()) };
        let Ours { command, environment, child } = ours.as_mut();
        if let Some(mut old) = child.take() {
            old.kill().await.context("cannot end what ran before")?;
        }
        let (program, arguments) = command.split_first().context("no command")?;
        let mut new = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let begun = Instant::now();
        while pod.get().await.is_err() {
            if let Some(status) = new.try_wait()? {
                anyhow::bail!("{} ended at its start: {status}", program.display());
            }
            anyhow::ensure!(
                begun.elapsed() < START,
                "{} does not answer at http://{}/drain within {} s",
                program.display(),
                pod.authority(),
                START.as_secs()
            );
            sleep(LOOK).await;
        }
        *child = Some(new);
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        let pid = match self {
            Self::Theirs(pid) => Some(*pid),
            Self::Ours(ours) => {
                let id = ours.child.as_ref().and_then(Child::id);
                id.and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
            }
            Self::Unknown => None,
        };
        match pid.map(|pid| kill(pid, signal)) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                broken(format!("{signal} could not be sent: {error}; has the process ended?"))
            }
            None => broken("the process has ended before its signal"),
        }
    }

    /// None while it runs.
    pub(crate) fn ended(&mut self) -> Option<End> {
        match self {
            Self::Unknown => None,
            Self::Theirs(pid) => has_gone(*pid).then_some(End::Unseen),
            Self::Ours(ours) => {
                let status = ours.child.as_mut()?.try_wait().ok()??;
                Some(status.code().map_or(End::Signal, End::Code))
            }
        }
    }

    /// Waits for the end; None if it does not come.
    pub(crate) async fn end(&mut self, limit: Duration) -> Option<End> {
        let begun = Instant::now();
        loop {
            match self.ended() {
                Some(end) => return Some(end),
                None if begun.elapsed() > limit => return None,
                None => sleep(LOOK).await,
            }
        }
    }
}

/// One whose parent has not looked yet has ended all the same (Linux shows it as Z).
fn has_gone(pid: Pid) -> bool {
    if kill(pid, None).is_err() {
        return true;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold any.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
