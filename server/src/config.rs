//! Flags and environment, parsed once. What can't be used is refused with the flag's name and what to write instead.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU16, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use graceful_logs::LogFormat;
use graceful_store::MOST_INTERRUPTIONS;

use crate::api::visitors::Hosts;
use crate::engine::{Engine, StoreUrl};
use crate::events::limits::Limits;
use crate::events::origin::Origins;
use crate::http::allow::Allow;
use crate::sleep::TaskSeconds;
use crate::tokens::make::Make;

/// A task server: hand it tasks over HTTP, watch them over a WebSocket, and roll it out without losing one.
#[derive(Debug, Parser)]
#[command(name = "server", version, args_conflicts_with_subcommands = true)]
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
    /// Serve until SIGTERM has drained the process (the default).
    Run(Box<Run>),
    /// For a preStop hook: start the drain of the server in this pod if nobody has, and wait until it is idle.
    PreStop(PreStop),
    /// Makes a token for --tokens: its line for the file goes to stdout, the token itself, which nothing keeps, to stderr.
    Token(Make),
}

/// The flags of `server run`.
//
// Variables are not called GRACEFUL_PORT and the like: Kubernetes puts <SERVICE>_PORT=tcp://… into each pod of a
// namespace, and a Service named `graceful` would overwrite ours.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Address that both ports listen on: `127.0.0.1` for this machine alone, `::` for all addresses, as the image has it.
    #[arg(long, env = "GRACEFUL_BIND", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// Port of the public API.
    #[arg(long, env = "GRACEFUL_LISTEN_PORT", default_value = "8000")]
    pub port: u16,
    /// Port of /drain, /metrics, /livez and /readyz; no Service should expose it.
    #[arg(long, env = "GRACEFUL_ADMIN_LISTEN_PORT", default_value = "9808")]
    pub admin_port: u16,
    /// Tasks that run at the same time. The seed has no bound; here they are 64, which its 20 s tasks make about
    /// three a second: a burst waits in the queue, where it is counted, rather than in memory, where it is not.
    #[arg(long, env = "GRACEFUL_CONCURRENCY", default_value = "64")]
    pub concurrency: NonZeroUsize,
    /// Where tasks are kept: `sqlite` in a file of this process's own, `postgres` in a database that pods share.
    #[arg(long, env = "GRACEFUL_STORE", default_value = "sqlite")]
    pub store: StoreKind,
    /// The folder of SQLite's file, `tasks.db`; made if missing. Each server needs its own.
    #[arg(long, env = "GRACEFUL_DATA", default_value = "./data")]
    pub data: PathBuf,
    /// The database of `--store postgres`: `postgres://user:password@host:5432/database`.
    #[arg(long, env = "GRACEFUL_STORE_URL", hide_env_values = true)]
    pub url: Option<StoreUrl>,
    /// How long a `sleep` task takes that does not say itself: `20`, `0.5`, or a range to draw from, `2-8`.
    #[arg(long, env = "GRACEFUL_TASK_SECONDS", default_value = "20", allow_negative_numbers = true)]
    pub task_seconds: TaskSeconds,
    /// Tasks that may wait. Past it a submit is answered 429 with Retry-After. They wait on disk, so there may be many.
    #[arg(long, env = "GRACEFUL_QUEUE_CAPACITY", default_value = "100000")]
    pub queue_capacity: NonZeroU64,
    /// How long a task that has ended is remembered, unless it is dead.
    #[arg(long, env = "GRACEFUL_KEEP_FINISHED_SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub keep_finished_seconds: u64,
    /// How long a dead letter is remembered, so that someone can look at it and try it again: two weeks outlast a holiday.
    #[arg(long, env = "GRACEFUL_KEEP_DEAD_SECONDS", default_value = "1209600", value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub keep_dead_seconds: u64,
    /// How long the record of how tasks ended is kept, for clients that come back and want what they missed.
    #[arg(long, env = "GRACEFUL_KEEP_EVENTS_SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub keep_events_seconds: u64,
    /// How often a task may fail before it is given up, unless it says so itself.
    #[arg(long, env = "GRACEFUL_MAX_ATTEMPTS", default_value = "10")]
    pub max_attempts: NonZeroU16,
    /// How often processes may die while they run a task before it is given up. From the third time on it runs alone.
    #[arg(long, env = "GRACEFUL_MAX_INTERRUPTIONS", default_value_t = MOST_INTERRUPTIONS)]
    pub max_interruptions: NonZeroU16,
    /// How long one attempt at a task may take, unless the task says so itself. An hour: long enough for any that the
    /// operator would wait for, and one that hangs does not keep its place for ever.
    #[arg(long, env = "GRACEFUL_TASK_TIMEOUT_SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub task_timeout_seconds: u64,
    /// Targets that tasks of kind `http` may call: `https://api.example.com`, `https://*.example.com:8443`, several with commas. A
    /// host at loopback or private addresses needs its range: `http://worker.tasks.svc:8080=10.96.0.0/12`. Without it, none.
    #[arg(long, env = "GRACEFUL_HTTP_ALLOW", default_value = "")]
    pub http_allow: Allow,
    /// A file of certificate authorities (PEM) by which https targets are known, beside the system's; the image has none.
    #[arg(long, env = "GRACEFUL_HTTP_CA")]
    pub http_ca: Option<PathBuf>,
    /// Where each task that ends with an attempt of this server is reported: POST {"taskId","podUid","bootId","outcome"}.
    #[arg(long, env = "GRACEFUL_REPORT_URL")]
    pub report_url: Option<ReportUrl>,
    /// HTTP connections to the public port that may be open, event streams among them; WebSockets are counted by
    /// --max-sockets alone. Past it, connections that had no request for a second are closed for newcomers. Each costs up to
    /// 36 KiB where its client means harm. The hard limit of open files may allow fewer.
    #[arg(long, env = "GRACEFUL_MAX_CONNECTIONS", default_value = "2048")]
    pub max_connections: NonZeroUsize,
    /// WebSockets and event streams that may be open; past it 503 with Retry-After. 0 sets no limit.
    #[arg(long, env = "GRACEFUL_MAX_SOCKETS", default_value_t = Limits::default().total)]
    pub max_sockets: u32,
    /// Of these, under one client id; past it 429 with Retry-After. 0 sets no limit.
    #[arg(long, env = "GRACEFUL_MAX_SOCKETS_PER_CLIENT", default_value_t = Limits::default().per_client)]
    pub max_sockets_per_client: u32,
    /// Of these, from one address (an IPv6 /64); past it 429 with Retry-After. Behind a proxy, all come from the
    /// proxy's: raise it to the total. 0 sets no limit.
    #[arg(long, env = "GRACEFUL_MAX_SOCKETS_PER_IP", default_value_t = Limits::default().per_address)]
    pub max_sockets_per_ip: u32,
    /// Names under which the server may be asked, besides addresses and names without a dot: `tasks.example.com`, several
    /// with commas, or `*`. Without it, none on loopback, and any where others can reach it.
    #[arg(long, env = "GRACEFUL_ALLOWED_HOSTS", default_value = "")]
    pub allowed_hosts: Hosts,
    /// Pages of other sites that may use the API, WebSockets included: `https://app.example.com`, several with commas, or
    /// `*`.
    #[arg(long, env = "GRACEFUL_ALLOWED_ORIGINS", default_value = "")]
    pub allowed_origins: Origins,
    /// A file of tokens, a line each: name, scopes (submit, read, admin) and the token's SHA-256, as `server token` prints it. With it, all
    /// but probes and the page itself needs one; without it nothing does. It is read again as it changes.
    #[arg(long, env = "GRACEFUL_TOKENS")]
    pub tokens: Option<PathBuf>,
    /// How long a SIGTERM that nobody announced leaves the door open, while endpoints propagate.
    #[arg(long, env = "GRACEFUL_LINGER_SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub linger_seconds: u64,
    /// Form of the logs; auto is text on a terminal and JSON elsewhere.
    #[arg(long, env = "GRACEFUL_LOG_FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
    /// What is logged, as tracing's filter: `info`, or `info,graceful_drain=debug`.
    #[arg(long, env = "GRACEFUL_LOG", default_value = "info")]
    pub log: String,
}

/// The flags of `server pre-stop`.
#[derive(Debug, Clone, Args)]
pub struct PreStop {
    /// Admin port of the server in this pod.
    #[arg(long, env = "GRACEFUL_ADMIN_LISTEN_PORT", default_value = "9808")]
    pub admin_port: NonZeroU16,
    /// How long the door stays open if the drain starts here.
    #[arg(long, env = "GRACEFUL_LINGER_SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub linger_seconds: u64,
}

/// Where tasks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In a file.
    Sqlite,
    /// In a database that pods share.
    Postgres,
}

impl Run {
    /// The engine that the flags name.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn engine(&self) -> Result<Engine, clap::Error> {
        let refuse = |kind, why: &str| Err(Cli::command().error(kind, why));
        match (self.store, &self.url) {
            (StoreKind::Sqlite, None) => Ok(Engine::Sqlite(self.data.clone())),
            (StoreKind::Postgres, Some(url)) => Ok(Engine::Postgres(url.clone())),
            (StoreKind::Sqlite, Some(_)) => refuse(
                ErrorKind::ArgumentConflict,
                "--url is given (or GRACEFUL_STORE_URL), but --store is sqlite; write --store postgres, or leave --url out",
            ),
            (StoreKind::Postgres, None) => refuse(
                ErrorKind::MissingRequiredArgument,
                "--store postgres needs --url (or GRACEFUL_STORE_URL); write --url postgres://user:password@host:5432/database",
            ),
        }
    }
}

/// An http URL that reports are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportUrl(pub reqwest::Url);

impl FromStr for ReportUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url =
            text.parse::<reqwest::Url>().map_err(|error| format!("{error}; write http://host:port/path"))?;
        // Built without TLS: the collector lives in the same cluster.
        if url.scheme() != "http" {
            return Err(format!("{} is not supported; write http://host:port/path", url.scheme()));
        }
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(args: &[&str]) -> String {
        Cli::try_parse_from([&["server"], args].concat()).expect_err("refused").to_string()
    }

    #[test]
    fn a_bad_flag_is_named_with_what_to_write_instead() {
        for (args, flag, instead) in [
            (["--task-seconds", "8-2"], "--task-seconds", "write 2-8"),
            (["--task-seconds", "NaN"], "--task-seconds", "write 20, 0.5 or 2-8"),
            (["--task-seconds", "-1"], "--task-seconds", "write 20, 0.5 or 2-8"),
            (["--report-url", "https://x/"], "--report-url", "write http://host:port/path"),
            (["--report-url", "collector"], "--report-url", "write http://host:port/path"),
            (["--concurrency", "0"], "--concurrency", "zero"),
            (["--allowed-origins", "example.com"], "--allowed-origins", "write https://app.example.com"),
            (["--allowed-hosts", "https://x.example"], "--allowed-hosts", "write tasks.example.com"),
            (["--http-allow", "api.example.com"], "--http-allow", "write https://api.example.com"),
            (["--http-allow", "http://169.254.169.254"], "--http-allow", "never called"),
            (["--bind", "localhost"], "--bind", "invalid IP address"),
            (["--linger-seconds", "4000"], "--linger-seconds", "0..=3600"),
            (["--store", "redis"], "--store", "sqlite, postgres"),
            (["--url", "mysql://u:secret@h/d"], "--url", "write postgres://"),
            (["--max-attempts", "0"], "--max-attempts", "zero"),
            (["--task-timeout-seconds", "0"], "--task-timeout-seconds", "1..=604800"),
        ] {
            let said = refusal(&args);
            assert!(said.contains(flag) && said.contains(instead), "{args:?}: {said}");
        }
    }

    #[test]
    fn a_token_is_made_for_a_name_and_scopes() {
        let made = Cli::try_parse_from(["server", "token", "ci", "submit,read"]).unwrap();
        assert!(matches!(made.command, Some(Command::Token(_))));
        for (args, instead) in [
            (["token", "c i", "read"], "write 1 to 64 letters"),
            (["token", "ci", "write"], "write submit, read or admin"),
        ] {
            let said = refusal(&args);
            assert!(said.contains(instead), "{args:?}: {said}");
        }
    }

    #[test]
    fn who_says_nothing_listens_for_this_machine_alone() {
        assert!(Cli::try_parse_from(["server"]).unwrap().run.bind.is_loopback());
    }

    #[test]
    fn flags_work_with_and_without_the_word_run() {
        let bare = Cli::try_parse_from(["server", "--port", "1"]).unwrap();
        assert!(bare.command.is_none() && bare.run.port == 1);
        let named = Cli::try_parse_from(["server", "run", "--port", "1"]).unwrap();
        assert!(matches!(named.command, Some(Command::Run(run)) if run.port == 1));
    }

    #[test]
    fn store_and_url_must_fit_together() {
        let engine = |args: &[&str]| {
            let args = [&["server"], args].concat();
            Cli::try_parse_from(args).unwrap().run.engine().map_err(|error| error.to_string())
        };
        assert_eq!(engine(&["--data", "/data"]), Ok(Engine::Sqlite("/data".into())));
        let url = "postgres://u:secret@h/d";
        let shared = engine(&["--store", "postgres", "--url", url]);
        assert_eq!(shared, Ok(Engine::Postgres(StoreUrl(url.to_owned()))));
        assert!(!format!("{shared:?}").contains("secret"));
        let said = engine(&["--url", url]).unwrap_err();
        assert!(said.contains("--url") && said.contains("write --store postgres"), "{said}");
        let said = engine(&["--store", "postgres"]).unwrap_err();
        assert!(said.contains("--url") && said.contains("write --url postgres://"), "{said}");
    }
}
