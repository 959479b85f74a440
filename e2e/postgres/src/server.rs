//! One server: made, started, disturbed, gone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use graceful_process::{Signal, free_port, output, signal, wait_unless};
use parking_lot::{Mutex, MutexGuard};

use crate::programs::{command, folder};

/// The superuser's name in [`Postgres::url`].
pub const USER: &str = "postgres";

/// Its password. No secret: the server is private to a test and lives on loopback, or in the test cluster's network.
pub const PASSWORD: &str = "for-tests-only";

/// Recovery after a kill is the longest; it takes about a second here, and more on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What differs from one server to the next.
#[derive(Debug, Clone)]
pub struct Options {
    /// The addresses it listens on; the first is in [`Postgres::url`].
    pub listen: Vec<IpAddr>,
    /// Networks beside loopback that may come in with the password, such as `10.244.0.0/16`.
    pub networks: Vec<String>,
    /// Lines for `postgresql.conf`, such as `("max_connections", "20")`.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: vec![Ipv4Addr::LOCALHOST.into()], networks: vec![], settings: vec![] }
    }
}

/// A server of one's own; gone when dropped.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    address: IpAddr,
    port: u16,
    databases: AtomicU32,
    child: Mutex<Option<Child>>,
    watch: Mutex<Option<(Child, ChildStdin)>>,
}

impl Postgres {
    /// Starts one that listens on loopback.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&Options::default())
    }

    /// Makes the files, and starts.
    pub fn start_with(options: &Options) -> anyhow::Result<Self> {
        let bin = folder()?;
        let template = std::env::temp_dir().join("graceful-postgres-XXXXXX");
        let folder = PathBuf::from(output(command("mktemp").arg("-d").arg(template))?.trim());
        let address =
            *options.listen.first().context("Options.listen is empty: give at least one address")?;
        let server = Self {
            watch: Mutex::new(Some(watch(&folder)?)),
            bin,
            folder,
            address,
            port: free_port(address)?,
            databases: AtomicU32::new(0),
            child: Mutex::new(None),
        };
        server.make(options)?;
        server.start_again()?;
        server.sql("postgres", &format!("ALTER USER {USER} PASSWORD '{PASSWORD}'"))?;
        Ok(server)
    }

    fn make(&self, options: &Options) -> anyhow::Result<()> {
        // What is synced now need not be: nothing is in it yet.
        let mut initdb = command(self.bin.join("initdb"));
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-local=trust"]);
        initdb.args(["--auth-host=scram-sha-256", "--username", USER]);
        output(initdb.arg("-D").arg(self.data()))?;

        let listen: Vec<_> = options.listen.iter().map(ToString::to_string).collect();
        let mut settings = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 200\n",
            listen.join(","),
            self.port,
            self.folder.display()
        );
        for (name, value) in &options.settings {
            writeln!(settings, "{name} = '{value}'")?;
        }
        append(&self.data().join("postgresql.conf"), &settings)?;
        let lines: String =
            options.networks.iter().map(|net| format!("host all all {net} scram-sha-256\n")).collect();
        append(&self.data().join("pg_hba.conf"), &lines)
    }

    /// Where clients find a database: over TCP, as the superuser, with the password.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.address, database)
    }

    /// The same, at another address that it listens on.
    pub fn url_at(&self, address: IpAddr, database: &str) -> String {
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        format!("postgres://{USER}:{PASSWORD}@{host}:{}/{database}", self.port)
    }

    /// The TCP port; the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's log: what to print when a test fails.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// An empty database of its own for a test; its name. Takes some ten milliseconds.
    pub fn create_database(&self) -> anyhow::Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }

    /// Runs statements as the superuser; the rows, a line each, columns apart by `|`.
    pub fn sql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let mut psql = command(self.bin.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        psql.arg("--host").arg(&self.folder).args(["--port", &self.port.to_string(), "--username", USER]);
        Ok(output(psql.args(["--dbname", database, "--command", statements]))?.trim().to_owned())
    }

    /// Starts it after [`Postgres::stop`] or [`Postgres::kill`]; returns when it takes connections.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        if child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut postgres = command(self.bin.join("postgres"));
        postgres.arg("-D").arg(self.data()).stdout(log.try_clone()?).stderr(log);
        // A Ctrl-C is for us: the watching shell ends it after us.
        let started = postgres.process_group(0).spawn().context("cannot start postgres")?;
        let pid = started.id();
        *child = Some(started);
        let waited = wait_for("PostgreSQL to take connections", || {
            if child.as_mut().is_some_and(|c| !matches!(c.try_wait(), Ok(None))) {
                bail!("PostgreSQL ended as it started:\n{}", fs::read_to_string(self.log())?);
            }
            Ok(is_ready(&self.data(), pid))
        });
        if waited.is_err() {
            *child = None;
        }
        waited
    }

    /// Stops it as an administrator does: connections are cut, nothing is lost.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.end(Signal::SIGINT)
    }

    /// Stops it as a power cut does: the next start recovers from its log.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Stop and start.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Freezes every process of it: connections stay open, new ones are taken by the kernel, nobody answers.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::SIGSTOP)
    }

    /// Ends a pause.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::SIGCONT)
    }

    fn signal_all(&self, which: Signal) -> anyhow::Result<()> {
        let pid = self.child().as_ref().context("PostgreSQL is not running")?.id();
        // The postmaster first, so that the list of its children is complete.
        signal(which, &[pid])?;
        let children = children(pid);
        // One may end by itself meanwhile.
        signal(which, &children)
            .or_else(|e| if children.iter().any(|c| !is_alive(*c)) { Ok(()) } else { Err(e) })
    }

    fn end(&self, how: Signal) -> anyhow::Result<()> {
        let Some(mut child) = self.child().take() else { return Ok(()) };
        let backends = children(child.id());
        signal(how, &[child.id()])?;
        child.wait()?;
        if how == Signal::SIGKILL {
            // They notice by themselves, but a new postmaster refuses to start beside them.
            signal(how, &backends).ok();
        }
        wait_for("PostgreSQL's processes to end", || Ok(!backends.iter().any(|b| is_alive(*b))))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let watch = self.watch.lock().take();
        if let Some((mut shell, stdin)) = watch {
            drop(stdin);
            shell.wait().ok();
        }
        if let Some(mut child) = self.child().take() {
            child.wait().ok();
        }
    }
}

/// Ends the server and removes its folder when its stdin does, which is when its parent is gone, whatever took it.
const WATCH: &str = r#"
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
runs() { case $(readlink "/proc/$pid/exe") in */postgres) true;; *) false;; esac; }
if [ -n "$pid" ] && runs; then
    kill -CONT $pid $(cat /proc/$pid/task/$pid/children)
    kill -QUIT $pid
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do runs || break; sleep 0.1; done
    if runs; then kill -KILL $pid $(cat /proc/$pid/task/$pid/children); fi
fi
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

fn watch(folder: &Path) -> anyhow::Result<(Child, ChildStdin)> {
    let mut shell = Command::new("sh");
    shell.args(["-c", WATCH, "watch"]).arg(folder).current_dir("/");
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = shell.spawn().context("cannot start sh")?;
    let stdin = child.stdin.take().context("sh has no stdin")?;
    Ok((child, stdin))
}

/// `postmaster.pid` says so in its eighth line; an old file has another pid.
fn is_ready(data: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = File::options().append(true).open(path).with_context(|| path.display().to_string())?;
    Ok(io::Write::write_all(&mut file, text.as_bytes())?)
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A process that has ended and was not waited for has no program any more.
fn is_alive(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

fn wait_for(what: &str, done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    wait_unless(what, TIMEOUT, Duration::from_millis(10), done)
}
