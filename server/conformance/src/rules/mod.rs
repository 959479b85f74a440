//! The rules, in the order in which they are held: first what all stands on, last what ends the process.

mod admission;
mod answers;
mod counts;
mod delete;
mod poll;
mod process;
mod put;
mod race;
mod sigterm;
mod sockets;
mod status;
mod tokens;

use std::fmt::Write as _;

use futures::future::BoxFuture;

use crate::outcome::Outcome;
use crate::run::Run;

pub(crate) use sigterm::Exit;

/// One demand of `docs/protocol.md`.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// The demand, in a sentence.
    pub(crate) says: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) hold: for<'a> fn(&'a mut Run) -> BoxFuture<'a, Outcome>,
}

/// What holding a rule takes beside the admin port.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    Work,
    Slow,
    Stream,
    Fail,
    Task,
    Socket,
    Open,
    Process,
    Command,
    Tokens,
}

impl Need {
    /// What to give.
    pub(crate) const fn says(self) -> &'static str {
        match self {
            Self::Work => "needs --app, --slow or --task: a request that brings work",
            Self::Slow => "needs --slow: work whose answer takes a while",
            Self::Stream => "needs --stream: an answer that comes in pieces",
            Self::Fail => "needs --fail: a request whose handler fails",
            Self::Task => "needs --task and --task-seconds: work that goes on after its answer",
            Self::Socket => "needs --socket: a WebSocket of the app",
            Self::Open => "needs --open: a read or health check that always answers",
            Self::Process => "needs -- COMMAND or --pid: a process that can be sent SIGTERM",
            Self::Command => "needs -- COMMAND: it takes a process of its own, and its exit code",
            Self::Tokens => {
                "it verifies no tokens, which it need not (GRACEFUL_DRAIN_KEYS would switch that on)"
            }
        }
    }

    /// What is said where it is not there.
    pub(crate) fn missing(self, run: &Run) -> Option<String> {
        let flags = &run.flags;
        let is_there = match self {
            Self::Work => run.work().next().is_some(),
            Self::Slow => flags.slow.is_some(),
            Self::Stream => flags.stream.is_some(),
            Self::Fail => flags.fail.is_some(),
            Self::Task => flags.task.is_some(),
            Self::Socket => flags.socket.is_some(),
            Self::Open => !flags.open.is_empty(),
            Self::Process => run.life.is_known(),
            Self::Command => run.life.is_ours(),
            Self::Tokens => run.pod.verifies(),
        };
        (!is_there).then(|| self.says().to_owned())
    }
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    let before = status::RULES.iter().chain(poll::RULES).chain(put::RULES).chain(delete::RULES);
    let work = admission::RULES.iter().chain(counts::RULES).chain(sockets::RULES).chain(race::RULES);
    let after = tokens::RULES.iter().chain(answers::RULES).chain(sigterm::RULES).chain(process::RULES);
    before.chain(work).chain(after)
}

/// The names of all rules.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|rule| rule.name)
}

/// What `--list` prints.
pub(crate) fn listed() -> String {
    let width = names().map(str::len).max().unwrap_or_default();
    let mut text = String::new();
    for Rule { name, says, .. } in all() {
        let _infallible = writeln!(text, "{name:<width$}  {says}");
    }
    text
}
