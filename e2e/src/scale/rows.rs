//! What one row of the table is of: so many apps, in one namespace or each in its own, with so many pods each.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

/// Sizes that show whether the cost of an app grows with their number, all apps in one namespace once, and pods.
pub(super) const DEFAULT: &str = "50,150,500,2000,500ns,50x2,500x2";

/// The stub nodes have room for more, and so has their address range.
const MOST_APPS: usize = 5_000;
const MOST_PODS: usize = 10_000;

/// How many apps, and how many pods each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(super) apps: usize,
    /// Of each app. With 0 nothing runs; else a stub kubelet stands in for the pods.
    pub(super) replicas: u32,
    /// Each app in a namespace of its own.
    pub(super) spread: bool,
}

impl FromStr for Row {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (rest, spread) = text.strip_suffix("ns").map_or((text, false), |rest| (rest, true));
        let (apps, replicas) = rest.split_once('x').unwrap_or((rest, "0"));
        let wrong = || {
            format!("{text:?} is no row: 500 (apps), 500ns (each in its namespace) or 500x2 (two pods each)")
        };
        let apps: usize = apps.parse().with_context(wrong)?;
        let replicas: u32 = replicas.parse().with_context(wrong)?;
        if spread && replicas > 0 {
            bail!("{text:?}: pods are measured in one namespace only");
        }
        ensure!((1..=MOST_APPS).contains(&apps), "{text:?}: 1 to {MOST_APPS} apps");
        let pods = apps.saturating_mul(replicas as usize);
        ensure!(pods <= MOST_PODS, "{text:?}: {MOST_PODS} pods at most");
        Ok(Self { apps, replicas, spread })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { apps, replicas, spread } = self;
        write!(f, "{apps}")?;
        if *replicas > 0 {
            write!(f, "x{replicas}")?;
        }
        f.write_str(if *spread { "ns" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_as_it_prints() {
        for text in DEFAULT.split(',') {
            assert_eq!(text.parse::<Row>().unwrap().to_string(), text);
        }
        assert_eq!("50x2".parse::<Row>().unwrap(), Row { apps: 50, replicas: 2, spread: false });
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for text in ["", "0", "5001", "50x2ns", "x2", "5000x3", "-1", "ten"] {
            assert!(text.parse::<Row>().is_err(), "{text}");
        }
    }
}
