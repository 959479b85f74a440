//! `cargo xtask fuzz-api`: schemathesis asks a server everything that its OpenAPI document allows, and much that it does
//! not, and holds each answer against the document.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use graceful_process::run as run_command;

use crate::run::{cargo, root, stage};
use crate::{images, python};

/// A debug server on a loaded machine is up within a second or two.
const SERVER_STARTS: Duration = Duration::from_secs(30);

/// How long, and which choices.
#[derive(Args)]
pub(crate) struct Options {
    /// Requests for each operation in the phase that makes them up; 300 take about a minute.
    #[arg(long, default_value_t = 300)]
    examples: u32,
    /// Another seed makes up other requests.
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { examples: 300, seed: 1 }
    }
}

/// Fails when schemathesis finds a fault, or the server does not live through it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (work, given) = (root().join("target/fuzz-api"), root().join("server/fuzz"));
    let environment = work.join("venv");
    stage("schemathesis", || python::ensure(&environment, &given.join("requirements.txt")))?;
    stage("build", || {
        let mut build = cargo();
        run_command(build.args(["build", "--locked", "--package", "graceful-server", "--bin", "server"]))
    })?;
    let mut server = Server::start(&work)?;
    stage("fuzz", || {
        let mut fuzz = Command::new(environment.join("bin/schemathesis"));
        fuzz.arg("--config-file").arg(given.join("schemathesis.toml"));
        fuzz.args(["run", &format!("http://127.0.0.1:{}/openapi.json", server.port)]);
        fuzz.args(["--checks", "all", "--continue-on-failure"]);
        fuzz.args(["--max-examples", &options.examples.to_string(), "--seed", &options.seed.to_string()]);
        // What it remembers of earlier runs would make this one different.
        let _ = fs::remove_dir_all(work.join(".hypothesis"));
        run_command(fuzz.current_dir(&work).env("PYTHONHASHSEED", "0"))
    })?;
    server.is_well()
}

/// A server with tasks that take no time, on a queue that is never full.
struct Server {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not by a signal that it drains at: some of the tasks are due in the year 9999.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(work: &Path) -> anyhow::Result<Self> {
        let (data, log) = (work.join("data"), work.join("server.log"));
        let _ = fs::remove_dir_all(&data);
        // Held until both are known, so that they are two.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (public, admin) = (free()?, free()?);
        let (port, admin_port) = (public.local_addr()?.port(), admin.local_addr()?.port());
        drop((public, admin));
        let mut command = Command::new(images::target_folder()?.join("debug/server"));
        command.args(["--port", &port.to_string(), "--admin-port", &admin_port.to_string()]);
        command.args(["--task-seconds", "0-0.05", "--queue-capacity", "1000000", "--log", "warn"]);
        command.args(["--store", "sqlite", "--data"]).arg(data);
        let process = command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        let process = process.stdin(Stdio::null()).spawn().context("cannot start the server")?;
        let mut server = Self { process, port, log };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !is_ready(self.port) {
            if self.process.try_wait()?.is_some() || begun.elapsed() > SERVER_STARTS {
                bail!("the server did not become ready; see {}", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn is_well(&mut self) -> anyhow::Result<()> {
        let log = fs::read_to_string(&self.log)?;
        if self.process.try_wait()?.is_some() || !is_ready(self.port) || log.contains("panicked") {
            bail!("the server did not live through it; see {}", self.log.display());
        }
        Ok(())
    }
}

fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
