//! `server run`: binds, wires and serves; returns when the process may exit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use graceful_drain::{Bounds, Drain, Exit, Settings, Signals, raise_descriptor_limit, serve_within};
use graceful_logs::LogFormat;
use graceful_store::StoreSettings;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::api::visitors::Visitors;
use crate::api::{self, Api};
use crate::config::{Cli, Command, PreStop, ReportUrl, Run};
use crate::events::hub::{Hub, HubSettings};
use crate::events::limits::Limits;
use crate::history::History;
use crate::http::{Http, sign};
use crate::identity::Pod;
use crate::kind::{Kind, Kinds};
use crate::metrics::Metrics;
use crate::queue::{Defaults, Queue};
use crate::report::Reporter;
use crate::runner::Runner;
use crate::sleep::Sleep;
use crate::tokens::Tokens;
use crate::{identity, logs};

/// The whole of a task service's `main`: parses the command line, does what it says, and ends the process with the right
/// code.
///
/// ```no_run
/// # use graceful_server::kind::{Failure, Kind};
/// # use graceful_server::running::Running;
/// # struct Greet;
/// # impl Kind for Greet {
/// #     const NAME: &'static str = "greet";
/// #     type Input = ();
/// #     type Output = ();
/// #     async fn run(&self, (): (), _: &Running) -> Result<(), Failure> { Ok(()) }
/// # }
/// #[tokio::main]
/// async fn main() -> anyhow::Result<()> {
///     graceful_server::command_line(|server| server.kind(Greet)).await
/// }
/// ```
///
/// # Errors
/// When it can't start: a flag, a port or a kind can't be used.
pub async fn command_line(build: impl FnOnce(Server) -> Server) -> anyhow::Result<()> {
    let Cli { command, run } = Cli::parse();
    match command.unwrap_or_else(|| Command::Run(Box::new(run))) {
        Command::Run(flags) => {
            // First: PID 1 never hears a SIGTERM that comes before its handler, and its pod would serve on for the whole
            // grace period. (`pre-stop` and `token` end as a signal ends any program.)
            let signals = Some(Signals::install().context(NO_SIGNALS)?);
            logs::start(flags.log_format, &flags.log)?;
            let exit = build(Server { signals, ..Server::new(*flags) }).run().await?;
            #[cfg(feature = "otlp")]
            crate::trace::otlp::flush();
            // Not by returning: an abort must not wait for work that blocks a thread.
            std::process::exit(exit.code())
        }
        Command::Token(make) => {
            let (token, line) = make.make();
            eprintln!("{token}");
            println!("{line}");
            Ok(())
        }
        Command::PreStop(PreStop { admin_port, linger_seconds }) => {
            logs::start(LogFormat::Auto, "info")?;
            graceful_drain::pre_stop(admin_port.get(), Duration::from_secs(linger_seconds)).await?;
            Ok(())
        }
    }
}

/// A task server to be: its flags, and the kinds of task that it runs.
#[derive(Debug)]
pub struct Server {
    flags: Run,
    kinds: Kinds,
    /// The first kind that could not be added.
    refused: Option<String>,
    /// Since the process began, where it is ours.
    signals: Option<Signals>,
}

const NO_SIGNALS: &str = "cannot listen for signals";

impl Server {
    /// With the built-in kinds alone: `sleep`, and `http` as soon as it runs.
    #[must_use]
    pub fn new(flags: Run) -> Self {
        let sleep = Sleep { task_seconds: flags.task_seconds };
        Self { flags, kinds: Kinds::default(), refused: None, signals: None }.kind(sleep)
    }

    /// Adds a kind of task. A name that can't be used is told by [`Server::run`].
    #[must_use]
    pub fn kind(mut self, kind: impl Kind) -> Self {
        if let Err(why) = self.kinds.add(kind) {
            self.refused.get_or_insert(why);
        }
        self
    }

    /// Serves until a signal has drained it.
    ///
    /// # Errors
    /// When a flag contradicts another, a kind's name can't be used, a port is taken, or the process may not have
    /// signals or an HTTP client. A queue that can't be opened is no error: it is tried until it can.
    pub async fn run(mut self) -> anyhow::Result<Exit> {
        let signals = self.signals.take().map_or_else(Signals::install, Ok).context(NO_SIGNALS)?;
        let Self { flags, kinds, refused, .. } = match http(&self.flags) {
            Ok(http) => self.kind(http),
            Err(error) => return Err(error),
        };
        if let Some(why) = refused {
            anyhow::bail!(why);
        }
        // Not through anyhow: clap knows how to show it, and which exit code it has.
        let engine = flags.engine().unwrap_or_else(|error| error.exit());
        let tokens = tokens(&flags)?;
        let bounds = connections(&flags);
        let (public, admin) = (
            listen("port", &flags, flags.port).await?,
            listen("admin-port", &flags, flags.admin_port).await?,
        );

        let linger = Duration::from_secs(flags.linger_seconds);
        let drain = Drain::new(Settings { linger, ..Settings::from_env() });
        let metrics = Arc::new(Metrics::default());
        let kinds = Arc::new(kinds);
        let hub = Hub::new(listening(&flags), drain.clone(), metrics.clone());
        tokio::spawn(hub.clone().attend());
        let reporter = reporter(&flags, &drain, &metrics)?;
        let settings = store_settings(&flags, &kinds);
        let queue = Queue::open(engine, settings, drain.clone(), metrics.clone());
        tokio::spawn(hub.clone().follow(queue.clone()));
        let runner =
            Runner::new(queue.clone(), kinds.clone(), drain.clone(), hub.clone(), reporter, metrics.clone());
        runner.start(flags.concurrency.get());

        info!(
            public = %public.local_addr()?,
            admin = %admin.local_addr()?,
            boot_id = drain.boot_id(),
            pod_uid = drain.settings().pod_uid,
            kinds = kinds.names().join(","),
            connections = bounds.all(),
            "serving; see /docs"
        );
        let defaults = defaults(&flags);
        let rooms = Arc::default();
        let hosts = flags.allowed_hosts.clone().listening_on(flags.bind);
        let visitors = Arc::new(Visitors { origins: flags.allowed_origins.clone(), hosts });
        let history = Arc::<History>::default();
        tokio::spawn(history.clone().keep(queue.clone(), hub.clone()));
        let api = Api {
            drain: drain.clone(),
            queue,
            kinds,
            defaults,
            hub,
            history,
            metrics,
            rooms,
            visitors,
            tokens,
        };
        let admin_app = api::admin(&api);
        let exit = serve_within(bounds, (public, api::public(api)), (admin, admin_app), drain, signals).await;
        match exit {
            Exit::Drained => runner.settled().await,
            Exit::Aborted { .. } => runner.hand_back().await,
        }
        Ok(exit)
    }
}

/// As many as the flag says, if the process may have descriptors for them.
fn connections(flags: &Run) -> Bounds {
    let descriptors = raise_descriptor_limit().inspect_err(|error| {
        warn!(%error, "cannot raise the limit of open files; going on with the one there is");
    });
    // 0 sets no limit.
    let sockets = if flags.max_sockets == 0 { usize::MAX } else { flags.max_sockets as usize };
    let bounds = Bounds::at_most(flags.max_connections.get(), sockets);
    let wanted = flags.max_connections.get().saturating_add(sockets);
    if bounds.all() < wanted && sockets != usize::MAX {
        warn!(
            max_connections = flags.max_connections,
            max_sockets = flags.max_sockets,
            connections = bounds.all(),
            descriptors = descriptors.ok(),
            "the hard limit of open files (ulimit -Hn) allows fewer connections than --max-connections and --max-sockets"
        );
    }
    bounds
}

/// Who may do what, kept up to date; None: everybody everything, which is said unless only this machine can ask.
fn tokens(flags: &Run) -> anyhow::Result<Option<Arc<Tokens>>> {
    let Some(file) = flags.tokens.clone() else {
        if !flags.bind.is_loopback() {
            warn!(
                bind = %flags.bind,
                "whoever reaches the port may hand in tasks, see them and cancel them; --tokens FILE says who may"
            );
        }
        return Ok(None);
    };
    let tokens = Tokens::open(file)?;
    tokio::spawn(tokens.clone().keep_up());
    Ok(Some(tokens))
}

/// The kind `http`, which calls what the flags allow.
fn http(flags: &Run) -> anyhow::Result<Http> {
    let keys = sign::Keys::from_env().map_err(anyhow::Error::msg)?;
    if keys.is_empty() && !flags.http_allow.is_empty() {
        warn!(
            "calls of kind http are not signed, so that anybody can make the same; set GRACEFUL_HTTP_KEY: openssl rand -hex 32"
        );
    }
    Http::new(flags.http_allow.clone(), keys, flags.http_ca.as_deref())
}

fn listening(flags: &Run) -> HubSettings {
    let limits = Limits {
        total: flags.max_sockets,
        per_client: flags.max_sockets_per_client,
        per_address: flags.max_sockets_per_ip,
    };
    HubSettings {
        pod: Pod::from_env(),
        limits,
        origins: flags.allowed_origins.clone(),
        ..HubSettings::default()
    }
}

fn store_settings(flags: &Run, kinds: &Kinds) -> StoreSettings {
    StoreSettings {
        owner: identity::owner(),
        capacity: flags.queue_capacity.get(),
        kinds: kinds.names_on(),
        keep_events: Duration::from_secs(flags.keep_events_seconds),
        max_interruptions: flags.max_interruptions.get(),
        keep_dead: Duration::from_secs(flags.keep_dead_seconds),
        // The queue puts the drain's counts here, and the metrics.
        owned: Arc::new(|_| {}),
        letters: Arc::new(|_| {}),
    }
}

fn defaults(flags: &Run) -> Defaults {
    Defaults {
        timeout: Duration::from_secs(flags.task_timeout_seconds),
        max_attempts: flags.max_attempts.get(),
        keep: Duration::from_secs(flags.keep_finished_seconds),
    }
}

fn reporter(flags: &Run, drain: &Drain, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Reporter>> {
    let Some(ReportUrl(url)) = flags.report_url.clone() else { return Ok(None) };
    let (pod_uid, boot_id) = (drain.settings().pod_uid.clone(), drain.boot_id().to_owned());
    let reporter = Reporter::new(url, pod_uid, boot_id, metrics.clone());
    reporter.map(Some).context("--report-url: cannot make an HTTP client")
}

async fn listen(flag: &str, flags: &Run, port: u16) -> anyhow::Result<TcpListener> {
    let bind = flags.bind;
    bound(bind, port).await.with_context(|| {
        format!("--{flag} {port}: cannot listen on {bind}; give a free port, or another --bind")
    })
}

/// All addresses are IPv6 and IPv4 where the kernel has both, IPv4 where it has no IPv6.
async fn bound(bind: IpAddr, port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((bind, port)).await {
        Err(error) if bind == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}
