//! File descriptors: each connection has one, and a process that has none left can neither accept nor answer.
//!
//! A container starts with a soft limit of 1,024 where its runtime says nothing else (containerd), and with a hard one a
//! thousand times as high: the soft one is there for programs that use `select(2)`, which we do not. So the soft limit is
//! raised to the hard one; public connections are bounded below it; and the admin port keeps some of its own, so that a
//! pod whose clients or tasks have taken all others still says whether it is idle.

use std::fs::File;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::debug;

/// Kept from public connections where the limit is far above: the queue, other listeners' connections, and what tasks open.
const REST: u64 = 256;

/// Connections to the admin port: the operator, the kubelet and a few scrapers keep one or two each. Those who only connect
/// must not take what these need.
const ADMIN: u64 = 128;

/// More than this counts as much: no process comes near it.
const MOST: u64 = 1 << 20;

/// So many connections to the admin port are accepted when all other descriptors are gone: the operator's, two of the
/// kubelet's probes, a preStop hook's and a scraper's, each of them once more.
const RESERVED: usize = 10;

/// Raises the soft limit of open files to the hard one, for the whole process; what it is now. Call it first: what counts
/// on the limit ([`serve()`](crate::serve()) does) reads it once.
///
/// # Errors
/// When the system does not tell the limits, or refuses: macOS where the hard limit is `unlimited`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(soft.max(hard))
}

/// How many connections to the public port, and to the admin port, fit beside all else that the process has open.
pub(crate) fn connections() -> (usize, usize) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(MOST, |(soft, _)| soft);
    within(limit)
}

/// Half of a small limit, all but [`REST`] of a large one; and an eighth of a small one, up to [`ADMIN`].
///
/// 128 → 64 and 16; 1,024 → 768 and 128; 20,000 → 19,744 and 128.
fn within(limit: u64) -> (usize, usize) {
    let limit = limit.min(MOST);
    let count = |descriptors| usize::try_from(descriptors).unwrap_or(usize::MAX);
    (count(limit - REST.min(limit / 2)), count((limit / 8).clamp(1, ADMIN)))
}

/// Descriptors that are open for nothing, each of which can be given up for a connection.
#[derive(Debug, Default)]
pub(crate) struct Reserve(Vec<File>);

impl Reserve {
    /// As many as it should have, or as many as there are.
    pub(crate) fn fill(&mut self) {
        while self.0.len() < RESERVED {
            match File::open("/dev/null") {
                Ok(file) => self.0.push(file),
                Err(error) => {
                    debug!(%error, kept = self.0.len(), "cannot keep a descriptor for the admin port");
                    return;
                }
            }
        }
    }

    /// Gives one up. False when none is left.
    pub(crate) fn give_up(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_connections_leave_some_descriptors_at_any_limit() {
        for (limit, connections) in [
            (4, (2, 1)),
            (128, (64, 16)),
            (1024, (768, 128)),
            (20_000, (19_744, 128)),
            (u64::MAX, ((1 << 20) - 256, 128)),
        ] {
            assert_eq!(within(limit), connections, "{limit}");
        }
    }

    #[test]
    fn a_reserve_is_given_up_one_by_one_and_filled_again() {
        let mut reserve = Reserve::default();
        for _ in 0..2 {
            reserve.fill();
            assert_eq!((0..RESERVED + 5).filter(|_| reserve.give_up()).count(), RESERVED);
        }
    }
}
