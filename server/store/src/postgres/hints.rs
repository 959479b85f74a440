//! Hints between processes: something waits, a queue was changed, the log grew, a task shall stop. They save waiting for the next look and
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

use super::database::{CALL_TIMEOUT, Database};
use super::signals::Signals;
use crate::task::Lease;

/// After hints were sent the next ones wait so long, and go together: under load they would cost as much as the work.
const PAUSE: Duration = Duration::from_millis(5);

/// A connection that was silent for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);

/// Before listening is tried again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    Waiting,
    /// A queue was changed.
    Queues,
    Head(u64),
    Cancel(Lease),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Queues => f.write_str("queues"),
            Self::Head(number) => write!(f, "head {number}"),
            Self::Cancel(Lease { id, attempt }) => write!(f, "cancel {id} {attempt}"),
        }
    }
}

impl FromStr for Hint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(' ') {
            None if text == "waiting" => Ok(Self::Waiting),
            None if text == "queues" => Ok(Self::Queues),
            Some(("head", number)) => number.parse().map(Self::Head).map_err(drop),
            // A server of before named no attempt: its runner is told by its next renewal.
            Some(("cancel", attempt)) => {
                let (id, attempt) = attempt.split_once(' ').ok_or(())?;
                let (id, attempt) = (id.parse().map_err(drop)?, attempt.parse().map_err(drop)?);
                Ok(Self::Cancel(Lease { id, attempt }))
            }
            _ => Err(()),
        }
    }
}

/// Where the processes of one queue hear each other, and who of them we are.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    name: String,
    /// Keeps our own hints from coming back to us as news.
    me: String,
}

impl Channel {
    /// Channels are the database's, and it may have several queues in as many schemas.
    pub(super) fn of_stream(stream: &str) -> Self {
        Self { name: format!("graceful_{stream}"), me: Uuid::new_v4().simple().to_string() }
    }
}

/// Sends hints until the store is dropped.
pub(super) async fn tell(
    database: Arc<Database>,
    channel: Channel,
    mut given: mpsc::UnboundedReceiver<Hint>,
) {
    let mut hints = Vec::new();
    while given.recv_many(&mut hints, 1024).await > 0 {
        let lines = merged(&hints).into_iter().map(|hint| format!("{} {hint}", channel.me)).collect();
        // The net is each listener's own look.
        database.within(CALL_TIMEOUT, notify(&database, &channel, lines)).await.ok();
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

async fn notify(database: &Database, channel: &Channel, lines: Vec<String>) -> sqlx::Result<()> {
    let mut lane = database.work.lane().await?;
    query("SELECT pg_notify($1, line) FROM UNNEST($2::text[]) AS line")
        .bind(&channel.name)
        .bind(lines)
        .execute(&mut *lane)
        .await?;
    lane.keep();
    Ok(())
}

/// Listens until the store is dropped.
pub(super) async fn listen(signals: Arc<Signals>, channel: Channel, options: PgConnectOptions) {
    loop {
        if let Err(error) = listen_once(&signals, &channel, options.clone()).await {
            debug!(%error, "cannot listen for hints; retrying");
        }
        sleep(AGAIN).await;
    }
}

async fn listen_once(signals: &Signals, channel: &Channel, options: PgConnectOptions) -> sqlx::Result<()> {
    let late = |_| sqlx::Error::PoolTimedOut;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CALL_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    timeout(CALL_TIMEOUT, listener.listen(&channel.name)).await.map_err(late)??;
    // What was said before we listened.
    signals.look_for_work();
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                if let Some((_, hint)) =
                    notification.payload().split_once(' ').filter(|(from, _)| *from != channel.me)
                    && let Ok(hint) = hint.parse()
                {
                    signals.heard(hint);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_survives_the_wire_and_what_is_none_is_none() {
        const NO_ATTEMPT: &str = "cancel 00000000-0000-7000-8000-000000000001";
        for hint in [
            Hint::Waiting,
            Hint::Queues,
            Hint::Head(7),
            Hint::Cancel(Lease { id: Uuid::now_v7(), attempt: 3 }),
        ] {
            assert_eq!(hint.to_string().parse(), Ok(hint));
        }
        for text in ["", "head", "head x", "cancel 7", "cancel 7 x", NO_ATTEMPT, "waiting now"] {
            assert_eq!(text.parse::<Hint>(), Err(()), "{text}");
        }
    }

    #[test]
    fn hints_that_say_the_same_are_sent_once() {
        let cancel = Hint::Cancel(Lease { id: Uuid::now_v7(), attempt: 1 });
        let given = [Hint::Waiting, Hint::Head(2), cancel, Hint::Waiting, Hint::Head(9), Hint::Head(3)];
        assert_eq!(merged(&given), [Hint::Waiting, cancel, Hint::Head(9)]);
    }
}
