//! Flags and environment, parsed once. What can't be used is refused with the flag's name and what to write instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use graceful_logs::LogFormat;
use hyper::header::HeaderValue;

use crate::app::question::InFlight;
use crate::app::told::OnDrain;

/// A gate in front of an app that cannot close its own door: counts what is in flight, and drains when it is told to.
#[derive(Debug, Parser)]
#[command(name = "graceful-gate", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Without a subcommand, `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `run`.
    #[command(flatten)]
    pub run: Run,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stand before the app until SIGTERM has drained it (the default).
    Run(Box<Run>),
    /// For a preStop hook: start the drain of the gate in this pod if nobody has, and wait until it is idle.
    PreStop(PreStop),
}

/// The flags of `graceful-gate run`.
//
// Variables are not called GRACEFUL_GATE_PORT and the like: Kubernetes puts <SERVICE>_PORT=tcp://… into each pod of a namespace, and a Service named
// `graceful-gate` would overwrite ours.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Port that clients come to.
    #[arg(long, env = "GRACEFUL_GATE_LISTEN_PORT")]
    pub listen_port: Option<u16>,
    /// Port that the app listens on.
    #[arg(long, env = "GRACEFUL_GATE_APP_LISTEN_PORT")]
    pub app_port: Option<NonZeroU16>,
    /// Loopback address that the app listens on.
    #[arg(long, env = "GRACEFUL_GATE_APP_ADDRESS", default_value = "127.0.0.1", value_parser = loopback)]
    pub app_address: IpAddr,
    /// Port of /drain, /wait-idle, /metrics, /livez and /readyz; no Service should expose it.
    #[arg(long, env = "GRACEFUL_ADMIN_LISTEN_PORT", default_value = "9808")]
    pub admin_port: u16,
    /// What the app speaks: requests are counted, or connections.
    #[arg(long, env = "GRACEFUL_GATE_PROTOCOL", default_value = "Http", ignore_case = true)]
    pub protocol: Protocol,
    /// Whether an open WebSocket (with Tcp: a connection) holds a drain up, or is told goodbye once nothing else is left.
    #[arg(long, env = "GRACEFUL_GATE_OPEN_SOCKETS", default_value = "Hold", ignore_case = true)]
    pub open_sockets: OpenSockets,
    /// Header that tells the app who its client is. Http only.
    #[arg(long, env = "GRACEFUL_GATE_FORWARDED", ignore_case = true)]
    pub forwarded: Option<Forwarded>,
    /// PROXY protocol header that tells the app who its client is. Tcp only.
    #[arg(long, env = "GRACEFUL_GATE_PROXY_PROTOCOL", ignore_case = true)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How the app is asked what it has in hand, as JSON: {"path": "/queue", "jsonPointers": ["/length"]} or {"path": "/metrics", "metrics": ["jobs"]}.
    /// Also: port, whenAbsent, idleAt, pollIntervalSeconds, timeoutSeconds.
    #[arg(long, env = "GRACEFUL_GATE_IN_FLIGHT", value_name = "JSON")]
    pub in_flight: Option<InFlight>,
    /// The `Authorization` header of that question: `Bearer …`.
    #[arg(long, env = "GRACEFUL_GATE_IN_FLIGHT_AUTHORIZATION", hide_env_values = true, value_parser = secret, value_name = "VALUE")]
    pub in_flight_authorization: Option<HeaderValue>,
    /// How long the app's zero must hold.
    #[arg(long, env = "GRACEFUL_GATE_QUIET_SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub quiet_seconds: u64,
    /// A call to the app as a drain begins, as JSON: {"method": "POST", "path": "/stop", "body": "…"}.
    #[arg(long, env = "GRACEFUL_GATE_ON_DRAIN", value_name = "JSON")]
    pub on_drain: Option<OnDrain>,
    /// How long a SIGTERM that nobody announced leaves the door open, while endpoints propagate.
    #[arg(long, env = "GRACEFUL_LINGER_SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub linger_seconds: u64,
    /// Clients' connections that may be open. Past it the next ones wait in the kernel until one closes.
    #[arg(long, env = "GRACEFUL_GATE_MAX_CONNECTIONS", default_value = "20000")]
    pub max_connections: NonZeroUsize,
    /// How long a client may take to send a request's head, and how long it may keep an idle connection. Longer than the 60 s of common proxies and load
    /// balancers, so that it is they who close it, and never a request that meets a closing gate.
    #[arg(long, env = "GRACEFUL_GATE_IDLE_SECONDS", default_value = "75", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_seconds: u64,
    /// How long a client may pause in a request's body before the app has begun to answer (HTTP/1). 0 sets no limit.
    #[arg(long, env = "GRACEFUL_GATE_BODY_IDLE_SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub body_idle_seconds: u64,
    /// How long a client may take nothing of what it is sent, before its connection is cut.
    #[arg(long, env = "GRACEFUL_GATE_UNREAD_SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub unread_seconds: u64,
    /// How long the app may take to begin an answer; past it 504. 0 sets no limit: what is slow is what the gate is for.
    #[arg(long, env = "GRACEFUL_GATE_APP_ANSWER_SECONDS", default_value = "0", value_parser = clap::value_parser!(u64).range(0..=604_800))]
    pub app_answer_seconds: u64,
    /// Form of the logs; auto is text on a terminal and JSON elsewhere.
    #[arg(long, env = "GRACEFUL_LOG_FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
    /// What is logged, as tracing's filter: `info`, or `info,graceful_gate=debug` for a line a request.
    #[arg(long, env = "GRACEFUL_LOG", default_value = "info")]
    pub log: String,
}

/// The flags of `graceful-gate pre-stop`.
#[derive(Debug, Clone, Args)]
pub struct PreStop {
    /// Admin port of the gate in this pod.
    #[arg(long, env = "GRACEFUL_ADMIN_LISTEN_PORT", default_value = "9808")]
    pub admin_port: NonZeroU16,
    /// How long the door stays open if the drain starts here.
    #[arg(long, env = "GRACEFUL_LINGER_SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub linger_seconds: u64,
}

/// What the app speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Protocol {
    /// HTTP/1.1 and h2c. Requests are in flight.
    Http,
    /// Anything. Connections are in flight.
    Tcp,
}

/// What an open socket is to a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum OpenSockets {
    /// In flight: the drain waits until it is closed.
    Hold,
    /// A connection: it is told and closed once nothing is in flight and the process ends.
    Farewell,
}

/// How the app learns its client's address over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Forwarded {
    /// `X-Forwarded-For` always; `Forwarded` (RFC 7239) where the request brings one. (An app that reads both takes what `Forwarded` says alone: a new one would
    /// hide the scheme and host that an ingress told in `X-Forwarded-…`.)
    #[default]
    Auto,
    /// Both, always.
    Both,
    /// Neither is touched.
    None,
}

/// How the app learns its client's address over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Cli {
    /// The command line and environment, or why they cannot be used: shown as clap shows it, with exit code 2.
    #[must_use]
    pub fn read() -> Command {
        let Self { command, run } = Self::parse();
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        unknown(names).unwrap_or_else(|error| error.exit());
        command.unwrap_or_else(|| Command::Run(Box::new(run)))
    }
}

/// Where clients, the app and the operator are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Port for clients; 0 takes any that is free.
    pub listen: u16,
    /// Port of `/drain`.
    pub admin: u16,
    /// The app's address.
    pub app: SocketAddr,
}

impl Run {
    /// Whether the flags fit together; and the ports, which have to differ.
    ///
    /// # Errors
    /// With the names of the flags that do not, and what to write instead.
    pub fn places(&self) -> Result<Places, clap::Error> {
        let missing = |flag: &str| {
            let why = format!("{flag} is missing; write --listen-port 8080 --app-port 8000");
            refused(ErrorKind::MissingRequiredArgument, why)
        };
        let listen = self.listen_port.ok_or_else(|| missing("--listen-port"))?;
        let app = self.app_port.ok_or_else(|| missing("--app-port"))?.get();
        let admin = self.admin_port;
        let conflict = |why: String| Err(refused(ErrorKind::ArgumentConflict, why));
        for (flag, port) in [("--listen-port", listen), ("--admin-port", admin)] {
            if port == app {
                return conflict(format!(
                    "{flag} is {port}, and so is --app-port; the app keeps its port, give the gate another"
                ));
            }
        }
        if listen == admin && listen != 0 {
            return conflict(format!(
                "--listen-port and --admin-port are both {listen}; write --admin-port 9808"
            ));
        }
        self.fits_its_protocol().map_err(|why| refused(ErrorKind::ArgumentConflict, why))?;
        Ok(Places { listen, admin, app: SocketAddr::new(self.app_address, app) })
    }

    fn fits_its_protocol(&self) -> Result<(), &'static str> {
        match self.protocol {
            Protocol::Http if self.proxy_protocol.is_some() => Err(
                "--proxy-protocol needs --protocol Tcp; with Http the app reads X-Forwarded-For: leave it out",
            ),
            Protocol::Tcp if self.forwarded.is_some() => {
                Err("--forwarded needs --protocol Http; with Tcp write --proxy-protocol V1 or V2")
            }
            Protocol::Http | Protocol::Tcp
                if self.in_flight.is_none() && self.in_flight_authorization.is_some() =>
            {
                Err(
                    "--in-flight-authorization is given, but nothing is asked; write --in-flight as well, or leave it out",
                )
            }
            Protocol::Http | Protocol::Tcp => Ok(()),
        }
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub(crate) fn unread(&self) -> Duration {
        Duration::from_secs(self.unread_seconds)
    }

    pub(crate) fn body_idle(&self) -> Option<Duration> {
        (self.body_idle_seconds > 0).then(|| Duration::from_secs(self.body_idle_seconds))
    }

    pub(crate) fn app_answer(&self) -> Option<Duration> {
        (self.app_answer_seconds > 0).then(|| Duration::from_secs(self.app_answer_seconds))
    }
}

fn refused(kind: ErrorKind, why: impl std::fmt::Display) -> clap::Error {
    Cli::command().error(kind, why)
}

/// A variable of ours that nobody reads is a setting that somebody believes in.
fn unknown(names: impl Iterator<Item = String>) -> Result<(), clap::Error> {
    let command = Run::augment_args(clap::Command::new("run"));
    let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
    for name in names {
        let ours = name.starts_with("GRACEFUL_GATE_") && !of_a_service(&name);
        if ours && !known.iter().any(|known| *known == name.as_str()) {
            let known: Vec<_> = known.iter().map(|name| name.to_string_lossy()).collect();
            let why = format!("the variable {name} is not known; those that are: {}", known.join(", "));
            return Err(refused(ErrorKind::UnknownArgument, why));
        }
    }
    Ok(())
}

/// What Kubernetes sets for a Service whose name begins with `graceful-gate`.
fn of_a_service(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|end| name.ends_with(end) && !name.ends_with("_LISTEN_PORT"))
        || name.contains("_SERVICE_PORT_")
        || ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| name.contains(&format!("{protocol}_")) || name.ends_with(protocol))
}

fn loopback(text: &str) -> Result<IpAddr, String> {
    let address =
        text.parse::<IpAddr>().map_err(|_| "is no IP address; write 127.0.0.1 or ::1".to_owned())?;
    if !address.is_loopback() {
        return Err(format!(
            "is not of this pod; the gate speaks for the app beside it: write {} or ::1",
            Ipv4Addr::LOCALHOST
        ));
    }
    Ok(address)
}

fn secret(text: &str) -> Result<HeaderValue, String> {
    // Without what was given: it is a secret.
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| "cannot stand in a header; write `Bearer …` in one line".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
