//! What a cluster changes of the machine itself, written down before, so that going down can put it back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::layout::run;

/// The kubelet sets these for the whole machine, in no namespace.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Each node mounts its own folder there, inside its namespace; but the place must exist, and it is the machine's.
const MOUNT_POINTS: [&str; 2] = ["/var/lib/kubelet", "/var/lib/cni"];

/// The machine as it was.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    sysctls: BTreeMap<String, String>,
    made: Vec<String>,
}

/// Writes down what is, once a cluster, and makes the mount points.
pub(crate) fn prepare() -> anyhow::Result<()> {
    let file = run("host.json");
    if !file.exists() {
        let mut before = Before::default();
        for name in SYSCTLS {
            if let Ok(value) = fs::read_to_string(sysctl(name)) {
                before.sysctls.insert(name.into(), value.trim().into());
            }
        }
        before.made =
            MOUNT_POINTS.iter().filter(|p| !Path::new(p).exists()).map(ToString::to_string).collect();
        let unfinished = run("host.json.new");
        fs::write(&unfinished, serde_json::to_string(&before)?)?;
        fs::rename(unfinished, file)?;
    }
    for point in MOUNT_POINTS {
        fs::create_dir_all(point).with_context(|| format!("cannot make {point}"))?;
    }
    Ok(())
}

/// Puts it back.
pub(crate) fn restore() {
    let Ok(text) = fs::read_to_string(run("host.json")) else { return };
    let before: Before = serde_json::from_str(&text).unwrap_or_default();
    for (name, value) in before.sysctls {
        if fs::read_to_string(sysctl(&name)).is_ok_and(|now| now.trim() != value) {
            let _ = fs::write(sysctl(&name), value);
        }
    }
    for point in before.made {
        // Only if it is empty: what somebody else put there since is theirs.
        let _ = fs::remove_dir(point);
    }
}

fn sysctl(name: &str) -> String {
    format!("/proc/sys/{name}")
}
