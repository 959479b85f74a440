//! Waiting for a state of the world: level-triggered, with a deadline, and with the last reason when it does not come.

use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep, timeout};

/// Two or three looks in the time of one reconcile, and no load worth speaking of.
const POLL: Duration = Duration::from_millis(150);
/// One look that hangs must not eat the whole deadline.
const LOOK: Duration = Duration::from_secs(10);

/// Looks again and again until `look` succeeds. An error is "not yet, because"; the last one is what a timeout says.
pub async fn eventually<T, F>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        let reason = match timeout(LOOK, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => reason,
            Err(_) => anyhow!("one look took more than {} s", LOOK.as_secs()),
        };
        if Instant::now() >= end {
            return Err(reason.context(format!("not within {} s: {what}", deadline.as_secs())));
        }
        sleep(POLL).await;
    }
}

/// The opposite: `look` must keep succeeding for the whole of `span`.
pub async fn throughout<F>(what: &str, span: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let end = Instant::now() + span;
    while Instant::now() < end {
        look().await.map_err(|e| e.context(format!("did not hold for {} s: {what}", span.as_secs())))?;
        sleep(POLL).await;
    }
    Ok(())
}
