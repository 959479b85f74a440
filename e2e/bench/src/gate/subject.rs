//! What is measured: an app alone, and the same app behind each proxy, all of them with what they are made for.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tokio::process::Command;

use crate::child::{Server, free_address};

/// What stands before the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Nothing.
    Direct,
    Gate,
    Nginx,
    Haproxy,
}

/// In the order of a round.
pub(crate) const ALL: [Subject; 4] = [Subject::Direct, Subject::Gate, Subject::Nginx, Subject::Haproxy];

/// The proxies that cost something.
pub(crate) const PROXIES: [Subject; 3] = [Subject::Gate, Subject::Nginx, Subject::Haproxy];

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) gate: PathBuf,
    pub(crate) nginx: PathBuf,
    pub(crate) haproxy: PathBuf,
    pub(crate) app: PathBuf,
    /// Their configuration and logs.
    pub(crate) data: PathBuf,
    pub(crate) cores: usize,
    /// What a proxy's descriptors are enough for.
    pub(crate) clients: usize,
}

/// An app and what stands before it.
#[derive(Debug)]
pub(crate) struct Running {
    app: Server,
    proxy: Option<Server>,
}

impl Running {
    /// Where clients come.
    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.as_ref().unwrap_or(&self.app).address
    }

    /// None where there is none.
    pub(crate) fn proxy(&self) -> Option<&Server> {
        self.proxy.as_ref()
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        if let Some(proxy) = self.proxy {
            // A killed nginx leaves its workers behind.
            proxy.stop().await?;
        }
        self.app.kill().await
    }
}

impl Subject {
    /// Its name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Gate => "gate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Starts the app, and this before it.
    pub(crate) async fn start(self, bench: &Bench) -> anyhow::Result<Running> {
        let (app, public) = (free_address()?, free_address()?);
        let log = |name: &str| bench.data.join(name).with_extension("log");
        let mut command = Command::new(&bench.app);
        command.arg(app.port().to_string());
        let server = Server::start(command, app, ("GET", "/"), &log("app")).await.context("app")?;
        let command = match self {
            Self::Direct => return Ok(Running { app: server, proxy: None }),
            Self::Gate => gate(bench, app, public)?,
            Self::Nginx => nginx(bench, app, public)?,
            Self::Haproxy => haproxy(bench, app, public)?,
        };
        let proxy = Server::start(command, public, ("GET", "/"), &log(self.name())).await;
        Ok(Running { app: server, proxy: Some(proxy.with_context(|| self.name())?) })
    }
}

/// With the settings that a pod has, logs included; without a linger, since nobody is routed here.
fn gate(bench: &Bench, app: SocketAddr, public: SocketAddr) -> anyhow::Result<Command> {
    let admin = free_address()?;
    let mut command = Command::new(&bench.gate);
    command.args(["--listen-port", &public.port().to_string(), "--app-port", &app.port().to_string()]);
    command.args(["--admin-port", &admin.port().to_string(), "--log-format", "json"]);
    command.args(["--linger-seconds", "0"]);
    Ok(command)
}

/// A worker a core, connections to the app kept, the client told to it, no access log (the gate has none either), upgrades passed on, and as many requests
/// on a connection as the others allow. What it buffers of a long answer stays in memory.
fn nginx(bench: &Bench, app: SocketAddr, public: SocketAddr) -> anyhow::Result<Command> {
    let data = bench.data.display();
    let mut paths = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        write!(paths, "{kind}_temp_path {data}/nginx-{kind}; ")?;
    }
    let configuration = format!(
        "daemon off; worker_processes {cores}; pid {data}/nginx.pid; error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off; {paths}
  keepalive_requests 1000000000; keepalive_timeout 75s;
  upstream app {{ server {app}; keepalive 64; keepalive_requests 1000000000; }}
  map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
  server {{
    listen {public};
    location / {{
      proxy_pass http://app; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_header;
      proxy_read_timeout 1h; proxy_send_timeout 1h; proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}
",
        cores = bench.cores,
        connections = bench.clients * 2,
    );
    let file = bench.data.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new(&bench.nginx);
    command.arg("-c").arg(file).arg("-p").arg(&bench.data).args(["-e", "stderr"]);
    Ok(command)
}

/// A thread a core; the rest as for nginx.
fn haproxy(bench: &Bench, app: SocketAddr, public: SocketAddr) -> anyhow::Result<Command> {
    let configuration = format!(
        "global
  nbthread {cores}
  maxconn {clients}
defaults
  mode http
  option http-keep-alive
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 75s
  timeout server 1h
  timeout tunnel 1h
frontend clients
  bind {public}
  default_backend app
backend app
  server app {app} pool-max-conn 64
",
        cores = bench.cores,
        clients = bench.clients,
    );
    let file = bench.data.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let mut command = Command::new(&bench.haproxy);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}
