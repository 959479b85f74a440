//! The database as the parts of an open queue ask it: connections for three uses, and an end to each wait.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connections::Connections;
use super::failure::{closed, failed, is_connection, late};
use crate::error::StoreError;

/// An answer that took longer is no answer: clients and probes give up waiting at about this time.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// For what keeps tasks going: submissions (2), completions, claims, renewals, the pulse, hints.
const WORK_CONNECTIONS: usize = 8;

/// For those who look at one task, cancel, retry, report progress or follow the events: they may be many, and must not be in the
/// way of what keeps tasks going.
const DESK_CONNECTIONS: usize = 3;

/// For lists: they look through many tasks, and anybody may ask for them all the time.
pub(super) const LIST_CONNECTIONS: usize = 2;

/// For the same few statements again and again: to plan one takes longer than to run it. None of them is better off with a plan for
/// its values, and [`line`](super::line) has a test of those that must not be worse.
const PLAN_ONCE: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// A list that nobody waits for any more is given up by the server too.
const LIST_TIMEOUT: (&str, &str) = ("statement_timeout", "5s");

#[derive(Debug)]
pub(super) struct Database {
    /// For what keeps tasks going.
    pub(super) work: Connections,
    /// For those who look and ask.
    pub(super) desk: Connections,
    /// For those who list.
    pub(super) lists: Connections,
}

impl Database {
    pub(super) fn new(options: &PgConnectOptions) -> Self {
        Self {
            work: Connections::new(options.clone().options([PLAN_ONCE]), WORK_CONNECTIONS),
            desk: Connections::new(options.clone(), DESK_CONNECTIONS),
            lists: Connections::new(options.clone().options([LIST_TIMEOUT]), LIST_CONNECTIONS),
        }
    }

    /// Runs statements, for as long as `limit` at most. One connection that broke is taken as a sign that all have.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, StoreError> {
        let error = match timeout(limit, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => failed(&error),
            Err(_) => late(limit),
        };
        if is_connection(&error) {
            self.work.forget_idle();
            self.desk.forget_idle();
            self.lists.forget_idle();
        }
        Err(error)
    }
}

/// Waits for the answer of a loop that writes batches.
pub(super) async fn answer<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(closed()),
        Err(_) => Err(late(CALL_TIMEOUT)),
    }
}
