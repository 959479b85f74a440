//! `cargo xtask cluster`: the doors to the real Kubernetes of this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use graceful_cluster::{Cluster, Health, Options};

/// What can be done with it.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Brings it up, finishes what was interrupted, heals what is broken.
    Up {
        /// Number of nodes, 1 to 9 [default: as many as run, else 2].
        #[arg(long)]
        nodes: Option<u8>,
    },
    /// Takes it down and leaves nothing behind but the cache.
    Down,
    /// Says what runs; the exit code is 0 when all of it does, else 1.
    Status,
    /// Builds Kubernetes without bringing it up; nothing to do when it is in the cache.
    Build,
    /// Loads image archives on every node.
    Load {
        /// Archives in docker's format, as `cargo xtask images` writes them.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Runs the cluster's own kubectl.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs the cluster's own helm.
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Proves that no pod's packet leaves the machine, by packets to a network namespace of our own.
    ProveWall,
    /// Makes a node fail, or mends it.
    Node {
        /// What happens to the node.
        fault: Fault,
        /// The node's number.
        n: u8,
    },
}

/// What can happen to a node.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Fault {
    /// A power loss.
    Kill,
    /// Power is back: a fresh boot with the old disk.
    Boot,
    /// The network cable is pulled.
    Cut,
    /// The cable is back.
    Join,
}

/// Runs one subcommand.
pub(crate) fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Up { nodes } => up(nodes),
        Verb::Down => timed("down", Cluster::down),
        Verb::Status => status(),
        Verb::Build => timed("built", || Cluster::build().map(|folder| println!("{}", folder.display()))),
        Verb::Load { archives } => {
            let cluster = Cluster::open()?;
            timed("loaded", || cluster.load(&archives).map(|taken| println!("{taken} imports")))
        }
        Verb::Kubectl { arguments } => become_command(Cluster::open()?.kubectl().args(arguments)),
        Verb::Helm { arguments } => become_command(Cluster::open()?.helm().args(arguments)),
        Verb::ProveWall => timed("none got out: proved", || Cluster::open()?.prove_wall()),
        Verb::Node { fault, n } => {
            let cluster = Cluster::open()?;
            timed("done", || match fault {
                Fault::Kill => cluster.kill(n),
                Fault::Boot => cluster.boot(n),
                Fault::Cut => cluster.cut(n),
                Fault::Join => cluster.join(n),
            })
        }
    }
}

fn up(nodes: Option<u8>) -> anyhow::Result<()> {
    let start = Instant::now();
    let cluster = Cluster::up(&Options { nodes })?;
    println!("up in {:.1} s. Its own kubectl and helm:", start.elapsed().as_secs_f64());
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  export PATH={}:$PATH", cluster.programs().display());
    Ok(())
}

fn status() -> anyhow::Result<()> {
    let status = match Cluster::open() {
        Ok(cluster) => cluster.status(),
        Err(error) => {
            println!("down: {error}");
            std::process::exit(1);
        }
    };
    println!("{status}");
    std::process::exit(i32::from(status.health() != Health::Up));
}

fn timed<T>(word: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<()> {
    let start = Instant::now();
    work()?;
    eprintln!("{word} in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// This process becomes the command, so that its exit code, its signals and its terminal are all its own.
fn become_command(command: &mut Command) -> anyhow::Result<()> {
    Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().display()))
}
