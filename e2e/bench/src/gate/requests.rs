//! Short requests on connections that are kept: as many as go, for what one costs the proxy; then few, for what it adds to each.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::subject::{Bench, Subject};
use crate::load::{Driven, Load, drive, request};
use crate::spread::{Spread, median};

/// As many as a busy client pool has; one request at a time on each.
pub(crate) const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);

/// Below saturation: so many connections, and on each a request so often. 2,000 a second is some 5 % of what goes.
pub(crate) const PACED_CONNECTIONS: usize = 8;
pub(crate) const PACE: Duration = Duration::from_millis(4);

/// One subject in one round, or the medians of all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    pub(crate) per_second: f64,
    /// Of the proxy's processor time, in microseconds; None where there is no proxy.
    pub(crate) processor: Option<f64>,
    /// At the pace, in milliseconds.
    pub(crate) paced: Spread,
}

/// Measures one.
pub(crate) async fn measure(bench: &Bench, subject: Subject, measured: Duration) -> anyhow::Result<Requests> {
    let running = subject.start(bench).await?;
    let wire = request("GET", "/");
    let load = Load { connections: CONNECTIONS, warm_up: WARM_UP, measured, every: None };
    let time = || running.proxy().map(crate::child::Server::processor_time).transpose();
    // The first requests of all are the slowest; and from here on each that is counted in the time is counted in the cost.
    drive(running.address(), &wire, Load { measured: WARM_UP, ..load }).await?;
    let before = time()?;
    let full = whole(drive(running.address(), &wire, Load { warm_up: Duration::ZERO, ..load }).await?)?;
    let used = time()?.zip(before).map(|(after, before)| after - before);
    let paced = Load { connections: PACED_CONNECTIONS, every: Some(PACE), ..load };
    let paced = whole(drive(running.address(), &wire, paced).await?)?;
    running.end().await?;
    Ok(Requests {
        per_second: full.per_second,
        processor: used.map(|used| used.as_secs_f64() * 1e6 / full.accepted as f64),
        paced: paced.latency,
    })
}

fn whole(driven: Driven) -> anyhow::Result<Driven> {
    ensure!(driven.failed == 0, "{} answers were no success", driven.failed);
    Ok(driven)
}

/// The medians of a subject's rounds.
pub(crate) fn medians(of: &[Requests]) -> anyhow::Result<Requests> {
    let middle = |figure: fn(&Requests) -> f64| median(of.iter().map(figure).collect());
    let found = || {
        Some(Requests {
            per_second: middle(|one| one.per_second)?,
            processor: median(of.iter().filter_map(|one| one.processor).collect()),
            paced: Spread {
                samples: of.iter().map(|one| one.paced.samples).sum(),
                p50: middle(|one| one.paced.p50)?,
                p99: middle(|one| one.paced.p99)?,
            },
        })
    };
    found().context("no round")
}
