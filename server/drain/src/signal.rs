//! SIGTERM and SIGINT as a sequence: the first drains. A second aborts; in a pod a repeated SIGTERM is ignored and only SIGINT aborts.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, as the kubelet sends it.
    Terminate,
    /// SIGINT: Ctrl-C at a terminal.
    Interrupt,
}

impl Signal {
    /// As the system calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// The system's number for it; a process that it ended exits with 128 more.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Terminate => SignalKind::terminate().as_raw_value(),
            Self::Interrupt => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// The process's SIGTERM and SIGINT from now on. Install it first thing in `main`: as PID 1 of a container, a process
/// without a handler never hears the SIGTERM that came before, and its pod sits out the whole grace period.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    /// Takes over both signals.
    ///
    /// # Errors
    /// When the process may not have handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one. [`serve()`](crate::serve()) does that itself; a process with a loop of its own calls
    /// [`Drain::terminate`](crate::Drain::terminate) after the first.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}
