//! `cargo xtask conformance`: the kit on every implementation of the drain protocol that is here: the task server, the gate, and the samples in Go and in
//! Python. All at once, since the rules mostly wait.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, bail, ensure};
use clap::Args;
use graceful_process::{run as run_command, succeeds};
use serde_json::Value;

use crate::images::target_folder;
use crate::python;
use crate::run::{cargo, root, stage};

/// Requests against each latch: enough to find what anybody would notice, and not the minutes of a long race.
const RACE: &str = "--race=600";

#[derive(Args)]
pub(crate) struct Options {
    /// Holds these alone: server, gate, go, python.
    #[arg(value_name = "IMPLEMENTATION", value_parser = ["server", "gate", "go", "python"])]
    only: Vec<String>,
}

/// An implementation, as the kit is told of it.
struct Subject {
    name: &'static str,
    flags: Vec<String>,
    /// What is started, beside what it is given.
    command: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// What it may leave out, by rule.
    may_skip: &'static [&'static str],
    /// What must run beside it.
    beside: Option<Child>,
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(beside) = &mut self.beside {
            let _ = beside.kill();
            let _ = beside.wait();
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    stage("build", || {
        let packages = ["graceful-server", "graceful-gate", "graceful-conformance"];
        let packages = packages.iter().flat_map(|package| ["--package", package]);
        run_command(cargo().args(["build", "--locked", "--bins"]).args(packages))?;
        let small = ["--package", "graceful-conformance", "--example", "faulty"];
        run_command(cargo().args(["build", "--locked"]).args(small))
    })?;
    let names = ["server", "gate", "go", "python"];
    let wanted =
        names.into_iter().filter(|name| options.only.is_empty() || options.only.iter().any(|o| o == name));
    hold(&wanted.collect::<Vec<_>>())
}

/// What `check` holds: with what is here already. The programs are those that its tests were built with.
pub(crate) fn run_what_can_be() -> anyhow::Result<Vec<&'static str>> {
    let (mut names, mut left_out) = (vec!["server", "gate"], Vec::new());
    if succeeds(Command::new("go").arg("version")) {
        names.push("go");
    } else {
        left_out.push("the conformance of samples/go; it needs Go: https://go.dev/dl");
    }
    if environment().join("installed.txt").exists() {
        names.push("python");
    } else {
        left_out.push("the conformance of samples/python; `cargo xtask conformance python` fetches what it needs from PyPI");
    }
    hold(&names)?;
    Ok(left_out)
}

/// The programs are built; what the samples need is fetched.
pub(crate) fn run_all() -> anyhow::Result<()> {
    hold(&["server", "gate", "go", "python"])
}

fn environment() -> PathBuf {
    root().join("target/conformance/venv")
}

fn hold(names: &[&str]) -> anyhow::Result<()> {
    fs::create_dir_all(root().join("target/conformance"))?;
    let programs = Programs::at(target_folder()?.join("debug"));
    let subjects: Vec<Subject> =
        names.iter().map(|name| programs.subject(name)).collect::<anyhow::Result<_>>()?;
    let running: Vec<(&Subject, Child)> = subjects
        .iter()
        .map(|subject| Ok((subject, programs.start(subject)?)))
        .collect::<anyhow::Result<_>>()?;
    // All are waited for, so that the faults of all are seen.
    let outcomes: Vec<_> =
        running.into_iter().map(|(subject, child)| (subject.name, judge(subject, child))).collect();
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    for (name, outcome) in &outcomes {
        match outcome {
            Ok(passed) => eprintln!("{name}: {passed}"),
            Err(error) => eprintln!("{name}: {error:#}"),
        }
    }
    ensure!(failed.is_empty(), "{} of {} implementations do not conform", failed.len(), outcomes.len());
    Ok(())
}

struct Programs {
    folder: PathBuf,
    address: IpAddr,
}

/// Over loopback nobody verifies tokens, so that another address of this machine is taken, where it has one. (Nothing is sent to find it.)
fn address() -> IpAddr {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    });
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// Tokens can be held.
pub(crate) fn is_reachable_from_elsewhere() -> bool {
    !address().is_loopback()
}

/// Below those that the kernel gives to connections, of which a race opens many.
fn ports(address: IpAddr) -> anyhow::Result<(u16, u16)> {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    for _ in 0..500 {
        let port = 12_000 + NEXT.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
        if TcpListener::bind((address, port)).is_ok() && TcpListener::bind((address, port + 1)).is_ok() {
            return Ok((port, port + 1));
        }
    }
    bail!("no two free ports from 12000 to 13000")
}

const TOKENS: &[&str] = &["token-is-required", "token-is-for-this-alone", "token-again-changes-nothing"];

impl Programs {
    fn at(folder: PathBuf) -> Self {
        Self { folder, address: address() }
    }

    fn program(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn subject(&self, name: &str) -> anyhow::Result<Subject> {
        match name {
            "server" => self.server(),
            "gate" => self.gate(),
            "go" => self.go(),
            "python" => self.python(),
            other => bail!("no implementation {other}"),
        }
    }

    /// The flags that all have, and where their app is.
    fn common(&self, (port, admin): (u16, u16)) -> (Vec<String>, String) {
        (
            vec![format!("http://{}:{admin}", self.address), RACE.to_owned()],
            format!("http://{}:{port}", self.address),
        )
    }

    fn server(&self) -> anyhow::Result<Subject> {
        let (port, admin) = ports(self.address)?;
        let (mut flags, app) = self.common((port, admin));
        flags.extend([
            format!("--app=POST {app}/v1/create-task/"),
            format!("--slow=POST {app}/v1/tasks {{\"kind\": \"sleep\"}}"),
            format!("--task=POST {app}/v1/create-task/"),
            "--task-seconds=0.4".to_owned(),
            format!("--socket=ws://{}:{port}/ws/conformance", self.address),
            format!("--open={app}/v1/get_queue_length/"),
        ]);
        let data = root().join("target/conformance/data");
        let _ = fs::remove_dir_all(&data);
        let own = [
            ("--bind", self.address.to_string()),
            ("--port", port.to_string()),
            ("--admin-port", admin.to_string()),
            ("--data", data.display().to_string()),
            ("--task-seconds", "0.4".to_owned()),
            ("--concurrency", "500".to_owned()),
            ("--linger-seconds", "1".to_owned()),
            ("--log", "warn".to_owned()),
        ];
        let own = own.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        Ok(Subject {
            name: "server",
            flags,
            command: [self.program("server")].into_iter().chain(own).collect(),
            environment: Vec::new(),
            // It has no answer that trickles but event streams, which are sockets to it, and no handler that fails.
            may_skip: &["bodies-count-to-their-end", "failures-are-counted-out"],
            beside: None,
        })
    }

    /// Before the kit's own small app, which is told nothing.
    fn gate(&self) -> anyhow::Result<Subject> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (app_port, app_admin) = ports(loopback)?;
        let app = [&loopback.to_string(), &app_port.to_string(), &app_admin.to_string(), "none"];
        let beside = Command::new(self.program("examples/faulty")).args(app).stdin(Stdio::null()).spawn()?;
        let (port, admin) = ports(self.address)?;
        let (mut flags, app) = self.common((port, admin));
        flags.extend([
            format!("--app={app}/fast"),
            format!("--slow=POST {app}/slow {{\"a\": 1}}"),
            format!("--stream={app}/stream"),
            format!("--fail={app}/fail"),
            format!("--socket=ws://{}:{port}/ws", self.address),
        ]);
        let own = [
            ("--listen-port", port.to_string()),
            ("--app-port", app_port.to_string()),
            ("--admin-port", admin.to_string()),
            ("--open-sockets", "Farewell".to_owned()),
            ("--linger-seconds", "1".to_owned()),
            ("--log", "warn".to_owned()),
        ];
        let own = own.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        Ok(Subject {
            name: "gate",
            flags,
            command: [self.program("graceful-gate")].into_iter().chain(own).collect(),
            environment: Vec::new(),
            // All of the app is behind it, reads too; and what the app does after its answers it sees where it is told how to ask.
            may_skip: &["reads-are-answered", "tasks-count-to-their-end", "tasks-are-handed-over"],
            beside: Some(beside),
        })
    }

    /// What both samples answer.
    fn sample(&self, (port, admin): (u16, u16), task: &str) -> Vec<String> {
        let (mut flags, app) = self.common((port, admin));
        flags.extend([
            format!("--app=POST {app}/echo {{}}"),
            format!("--slow=POST {app}/echo {{\"a\": 1}}"),
            format!("--stream={app}/stream"),
            format!("--fail={app}/fail"),
            format!("--task=POST {app}{task}"),
            "--task-seconds=0.5".to_owned(),
            format!("--socket=ws://{}:{port}/ws", self.address),
            format!("--open={app}/health"),
        ]);
        flags
    }

    fn go(&self) -> anyhow::Result<Subject> {
        let program = root().join("target/conformance/sample-go");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(".").current_dir(root().join("samples/go"));
        run_command(&mut build).context("samples/go needs Go: https://go.dev/dl")?;
        let (port, admin) = ports(self.address)?;
        let environment = vec![
            ("ADDRESS", format!("{}:{port}", self.address)),
            ("ADMIN_ADDRESS", format!("{}:{admin}", self.address)),
            ("LINGER", "1s".to_owned()),
        ];
        let flags = self.sample((port, admin), "/tasks?takes=500ms");
        let command = vec![program.display().to_string()];
        Ok(Subject { name: "go", flags, command, environment, may_skip: &[], beside: None })
    }

    fn python(&self) -> anyhow::Result<Subject> {
        let sample = root().join("samples/python");
        python::ensure(&environment(), &sample.join("requirements.txt"))?;
        let (port, admin) = ports(self.address)?;
        let environment = vec![
            ("PORT", port.to_string()),
            ("ADMIN_PORT", admin.to_string()),
            ("LINGER_SECONDS", "1".to_owned()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        let flags = self.sample((port, admin), "/tasks?seconds=0.5");
        let command = [self::environment().join("bin/python"), sample.join("app.py")];
        let command = command.iter().map(|path| path.display().to_string()).collect();
        Ok(Subject { name: "python", flags, command, environment, may_skip: &[], beside: None })
    }

    fn start(&self, subject: &Subject) -> anyhow::Result<Child> {
        let log = fs::File::create(log(subject.name))?;
        let mut kit = Command::new(self.program("graceful-conformance"));
        kit.arg("--json").args(&subject.flags).arg("--").args(&subject.command);
        kit.envs(subject.environment.iter().map(|(name, value)| (name, value)));
        kit.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        kit.spawn().context("cannot start graceful-conformance")
    }
}

fn log(name: &str) -> PathBuf {
    root().join(format!("target/conformance/{name}.log"))
}

/// Passed, with no rule left out but what may be; what was found otherwise.
fn judge(subject: &Subject, child: Child) -> anyhow::Result<String> {
    let Output { stdout, .. } = child.wait_with_output()?;
    let found: Value = serde_json::from_slice(&stdout).with_context(|| told(&log(subject.name)))?;
    let rules = found["rules"].as_array().context("no rules")?;
    let named = |verdict: &'static str| rules.iter().filter(move |rule| rule["verdict"] == verdict);
    let line = |rule: &Value| format!("{}: {}", rule["rule"], rule["reason"]);
    let failed: Vec<_> = named("failed").map(line).collect();
    ensure!(
        failed.is_empty(),
        "{} rules failed; its own log is {}\n  {}",
        failed.len(),
        log(subject.name).display(),
        failed.join("\n  ")
    );
    let may = |rule: &Value| {
        let name = rule["rule"].as_str().unwrap_or_default();
        subject.may_skip.contains(&name)
            || name == "loopback-needs-no-token"
            || TOKENS.contains(&name) && !is_reachable_from_elsewhere()
    };
    let skipped: Vec<_> = named("skipped").filter(|rule| !may(rule)).map(line).collect();
    ensure!(skipped.is_empty(), "rules were left out:\n  {}", skipped.join("\n  "));
    Ok(format!("{} rules passed, {} do not apply", named("passed").count(), named("skipped").count()))
}

/// The end of a log.
fn told(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
