//! Hints between processes: something waits, the log grew, a task shall stop. They save waiting for the next look and
//! promise nothing.
//!
//! They are sent beside the transactions, not in them: commits that notify wait for each other in line, for the whole
//! of each sync, and a hint that is lost with its process costs a second.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor, query};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::debug;
use uuid::Uuid;

use super::core::{CALL_TIMEOUT, Core};

/// After hints were sent the next ones wait so long, and go together: under load they would cost as much as the work.
const PAUSE: Duration = Duration::from_millis(5);

/// A connection that was silent for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);

/// Before listening is tried again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    Waiting,
    Head(u64),
    Cancel(Uuid),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Head(number) => write!(f, "head {number}"),
            Self::Cancel(id) => write!(f, "cancel {id}"),
        }
    }
}

impl FromStr for Hint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(' ') {
            None if text == "waiting" => Ok(Self::Waiting),
            Some(("head", number)) => number.parse().map(Self::Head).map_err(drop),
            Some(("cancel", id)) => id.parse().map(Self::Cancel).map_err(drop),
            _ => Err(()),
        }
    }
}

/// Sends hints until the store is dropped. `me` keeps our own from coming back as news.
pub(super) async fn tell(core: Arc<Core>, me: String, mut given: mpsc::UnboundedReceiver<Hint>) {
    let mut hints = Vec::new();
    while given.recv_many(&mut hints, 1024).await > 0 {
        let lines = merged(&hints).into_iter().map(|hint| format!("{me} {hint}")).collect();
        // The net is each listener's own look.
        core.within(CALL_TIMEOUT, notify(&core, lines)).await.ok();
        hints.clear();
        sleep(PAUSE).await;
    }
}

/// Each once, and of heads the highest.
fn merged(hints: &[Hint]) -> Vec<Hint> {
    let mut merged = Vec::new();
    let mut head = None;
    for hint in hints {
        match hint {
            Hint::Head(number) => head = head.max(Some(*number)),
            other if !merged.contains(other) => merged.push(*other),
            _ => {}
        }
    }
    merged.extend(head.map(Hint::Head));
    merged
}

async fn notify(core: &Core, lines: Vec<String>) -> sqlx::Result<()> {
    let mut lane = core.work.lane().await?;
    query("SELECT pg_notify($1, line) FROM UNNEST($2::text[]) AS line")
        .bind(channel(core))
        .bind(lines)
        .execute(&mut *lane)
        .await?;
    lane.keep();
    Ok(())
}

/// Channels are the database's, and it may have several queues in as many schemas.
fn channel(core: &Core) -> String {
    format!("graceful_{}", core.stream)
}

/// Listens until the store is dropped.
pub(super) async fn listen(core: Arc<Core>, me: String, options: PgConnectOptions) {
    loop {
        if let Err(error) = listen_once(&core, &me, options.clone()).await {
            debug!(%error, "not listening; trying again");
        }
        sleep(AGAIN).await;
    }
}

async fn listen_once(core: &Core, me: &str, options: PgConnectOptions) -> sqlx::Result<()> {
    let late = |_| sqlx::Error::PoolTimedOut;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CALL_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    timeout(CALL_TIMEOUT, listener.listen(&channel(core))).await.map_err(late)??;
    // What was said before we listened.
    core.wake.send_replace(());
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                if let Some((_, hint)) =
                    notification.payload().split_once(' ').filter(|(from, _)| *from != me)
                    && let Ok(hint) = hint.parse()
                {
                    heard(core, hint);
                }
            }
            // It broke: from the beginning.
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                timeout(CALL_TIMEOUT, listener.execute("SELECT 1")).await.map_err(late)??;
            }
        }
    }
}

fn heard(core: &Core, hint: Hint) {
    match hint {
        Hint::Waiting => {
            core.wake.send_replace(());
        }
        Hint::Head(number) => {
            core.saw_head(number);
        }
        Hint::Cancel(id) => {
            core.cancellations.send(id).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_survives_the_wire_and_what_is_none_is_none() {
        for hint in [Hint::Waiting, Hint::Head(7), Hint::Cancel(Uuid::now_v7())] {
            assert_eq!(hint.to_string().parse(), Ok(hint));
        }
        for text in ["", "head", "head x", "cancel 7", "waiting now"] {
            assert_eq!(text.parse::<Hint>(), Err(()), "{text}");
        }
    }

    #[test]
    fn hints_that_say_the_same_are_sent_once() {
        let id = Uuid::now_v7();
        let given =
            [Hint::Waiting, Hint::Head(2), Hint::Cancel(id), Hint::Waiting, Hint::Head(9), Hint::Head(3)];
        assert_eq!(merged(&given), [Hint::Waiting, Hint::Cancel(id), Hint::Head(9)]);
    }
}
