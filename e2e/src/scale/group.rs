//! A memory cgroup with the limit of the chart, so that an operator that needs more dies here as it would there.
//!
//! Of version 1. Where there is none, the bench runs without a limit and says so.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

const HIERARCHY: &str = "/sys/fs/cgroup/memory";
const NAME: &str = "graceful-bench-scale";

/// Removed when dropped; its processes must have ended.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    pub(super) limit: u64,
}

impl Group {
    /// None where the machine has no such hierarchy.
    pub(super) fn make(limit: u64) -> anyhow::Result<Option<Self>> {
        if !Path::new(HIERARCHY).join("memory.limit_in_bytes").exists() {
            return Ok(None);
        }
        let folder = Path::new(HIERARCHY).join(NAME);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        let group = Self { folder, limit };
        // A folder that was left behind has a limit and a count of its own.
        fs::write(group.file("memory.limit_in_bytes"), limit.to_string())?;
        Ok(Some(group))
    }

    /// Where a process writes its id to enter.
    pub(super) fn entrance(&self) -> PathBuf {
        self.file("cgroup.procs")
    }

    /// How many processes the kernel has killed in it for want of memory.
    pub(super) fn kills(&self) -> u64 {
        kills(&fs::read_to_string(self.file("memory.oom_control")).unwrap_or_default())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _busy_or_gone = fs::remove_dir(&self.folder);
    }
}

fn kills(control: &str) -> u64 {
    let line = control.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_not_mistaken_for_the_switch() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(kills("oom_kill_disable 1\n"), 0);
    }
}
