//! `cargo xtask check`: all that can be known without a cluster, by anybody. It needs no root and installs nothing of the
//! distribution's: tests that this machine cannot run are left out, and named at the end. `cargo xtask test` has them all.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use graceful_cluster::prerequisites;
use graceful_process::{run, succeeds};

use crate::conformance;
use crate::run::{cargo, root, stage};

/// Tests that need more of a machine than Rust.
struct Need {
    /// Part of the path of each such test, by which it is left out.
    tests: &'static str,
    /// What they need, and how to have it.
    what: &'static str,
    is_here: fn() -> bool,
}

const NEEDS: [Need; 6] = [
    Need {
        tests: "on_postgres",
        what: "a PostgreSQL server; on Debian or Ubuntu: sudo apt-get install -y --no-install-recommends postgresql",
        is_here: has_postgres,
    },
    Need {
        tests: "disk_of_",
        what: "a small disk of their own; on Linux, user namespaces in which one may mount",
        is_here: may_mount,
    },
    Need {
        tests: "from_elsewhere",
        what: "an address of this machine that is not loopback's; any network will do",
        is_here: conformance::is_reachable_from_elsewhere,
    },
    Need {
        tests: "in_python",
        what: "python3; on Debian or Ubuntu: sudo apt-get install -y python3",
        is_here: || succeeds(Command::new("python3").arg("--version")),
    },
    Need {
        tests: "beside_nginx",
        what: "nginx; on Debian or Ubuntu: sudo apt-get install -y --no-install-recommends nginx-light",
        is_here: || prerequisites::are_there(&prerequisites::PROXIES[..1]),
    },
    Need {
        tests: "by_h2spec",
        what: "h2spec, a Go program; `cargo xtask test` fetches it where there is Go: https://go.dev/dl",
        is_here: || h2spec().exists(),
    },
];

/// The program that holds the gate to HTTP/2's rules.
fn h2spec() -> PathBuf {
    root().join("target/go/h2spec")
}

/// Its last release is of 2020, without the modules' own files: go takes what it needs in the versions of the day.
const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";

fn fetch_h2spec() -> anyhow::Result<()> {
    if h2spec().exists() {
        return Ok(());
    }
    let folder = h2spec().parent().context("no folder")?.to_path_buf();
    run(Command::new("go").args(["install", H2SPEC]).env("GOBIN", folder).env("GOFLAGS", ""))
}

/// Tests at a time. They mostly wait, for time-outs, back-offs and one another: on two cores the operator's took 370 s with one for each core, and 140 s with eight.
const THREADS: &str = "8";

/// What this machine can run; at the end, what was left out.
pub(crate) fn run_what_can_be() -> anyhow::Result<()> {
    let left_out: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_here)()).collect();
    run_stages(&left_out)?;
    let mut left_out_too = Vec::new();
    stage("conformance", || {
        left_out_too = conformance::run_what_can_be()?;
        Ok(())
    })?;
    for what in left_out_too {
        eprintln!("left out: {what}");
    }
    for Need { tests, what, .. } in left_out {
        eprintln!("left out: the tests whose names contain `{tests}`; they need {what}");
    }
    Ok(())
}

/// All of it; what is missing is installed, or is an error.
pub(crate) fn run_all() -> anyhow::Result<()> {
    stage("prerequisites", || {
        prerequisites::ensure(&prerequisites::POSTGRES)?;
        prerequisites::ensure(&prerequisites::PROXIES[..1])?;
        fetch_h2spec()
    })?;
    run_stages(&[])?;
    stage("conformance", conformance::run_all)
}

/// Runs every stage in the order of its price and stops at the first that fails.
fn run_stages(left_out: &[&Need]) -> anyhow::Result<()> {
    stage("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    stage("clippy", || {
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    })?;
    // A name in a doc comment that leads nowhere, or to two things. Links to private items are for whoever reads the source.
    stage("docs", || {
        let docs = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"];
        let lints = "-D warnings -A rustdoc::private_intra_doc_links";
        run(cargo().args(docs).env("RUSTDOCFLAGS", lints))
    })?;
    stage("tests", || {
        let skip = left_out.iter().flat_map(|need| ["--skip", need.tests]);
        let tests = ["test", "--workspace", "--locked", "--quiet", "--"];
        let mut all = cargo();
        all.env("RUST_TEST_THREADS", THREADS).env("GRACEFUL_H2SPEC", h2spec());
        run(all.args(tests).args(skip))
    })?;
    // What nothing turns on by default is compiled, and tried, here.
    stage("otlp", || {
        let test = ["test", "--package", "graceful-server", "--features", "otlp", "--test", "otlp"];
        run(cargo().args(test).args(["--locked", "--quiet"]))
    })?;
    stage("publish", publish)?;
    stage("deny", deny)
}

/// Whether the crates that others may use can be published: their metadata, and that they depend on nothing that is only here. They are
/// not compiled once more.
fn publish() -> anyhow::Result<()> {
    let dry = ["publish", "--dry-run", "--no-verify", "--allow-dirty", "--locked", "--quiet"];
    run(cargo().args(dry).args(["--package", "graceful-drain", "--package", "graceful-store"]))
}

/// Ours is started from Debian's and Ubuntu's folders, and watched through Linux' /proc.
fn has_postgres() -> bool {
    cfg!(target_os = "linux") && prerequisites::are_there(&prerequisites::POSTGRES)
}

fn may_mount() -> bool {
    let mount = "mount -t tmpfs -o size=1m none /mnt";
    let own = ["--user", "--map-root-user", "--mount", "sh", "-c", mount];
    cfg!(target_os = "linux") && succeeds(Command::new("unshare").args(own))
}

/// Licences, bans and sources. No advisory database is asked: it cannot be reached where this must run.
fn deny() -> anyhow::Result<()> {
    if !succeeds(cargo().args(["deny", "--version"])) {
        eprintln!("cargo-deny is missing: installing it once, which takes a few minutes");
        run(cargo().args(["install", "--locked", "cargo-deny", "--version", CARGO_DENY]))?;
    }
    run(cargo().args(["deny", "--all-features", "check", "bans", "licenses", "sources"]))
}

/// Pinned, since a new release may read `deny.toml` differently.
const CARGO_DENY: &str = "0.20.2";
