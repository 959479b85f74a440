//! What the figures were measured on: processor, kernel, versions, and how fast this disk syncs at this hour.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

/// Long enough for some hundred syncs of a slow disk.
const PROBE: Duration = Duration::from_millis(500);
/// A page, as SQLite and PostgreSQL's log write them or nearly so.
const BLOCK: [u8; 4096] = [7; 4096];
/// Blocks that the overwriting probe goes round in.
const ROUND: u64 = 64;

/// The machine, and the programs that were measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    kernel: String,
    rustc: String,
    /// Their versions, by name.
    #[serde(flatten)]
    programs: BTreeMap<&'static str, String>,
}

impl Machine {
    /// This machine, and the programs that were measured on it.
    pub(crate) fn look(programs: BTreeMap<&'static str, String>) -> anyhow::Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            rustc: says(Command::new("rustc").arg("--version"))?,
            programs,
        })
    }
}

/// What a program prints: its version, most often.
pub(crate) fn says(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// Syncs in a second, one after the other, of a file that grows and of one that has its size: a log that is reused
/// is the latter.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct DiskSyncs {
    pub(crate) appending_per_second: f64,
    pub(crate) overwriting_per_second: f64,
}

impl DiskSyncs {
    /// On the disk that has this folder.
    pub(crate) fn probe(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("sync-probe");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let syncs = |place: fn(u64) -> u64| -> anyhow::Result<f64> {
            let (begun, mut n) = (Instant::now(), 0);
            while begun.elapsed() < PROBE {
                file.write_all_at(&BLOCK, place(n) * BLOCK.len() as u64)?;
                file.sync_data()?;
                n += 1;
            }
            Ok(n as f64 / begun.elapsed().as_secs_f64())
        };
        let appending_per_second = syncs(|n| n)?;
        let overwriting_per_second = syncs(|n| n % ROUND)?;
        fs::remove_file(path)?;
        Ok(Self { appending_per_second, overwriting_per_second })
    }
}

/// What else needs the disk is on it before a measurement begins.
pub(crate) fn settle() -> anyhow::Result<()> {
    says(&mut Command::new("sync")).map(drop)
}
