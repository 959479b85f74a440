//! What a rule needs that not every run is given.

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
}
