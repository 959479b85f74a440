//! All that `/drain` has answered, whichever rule asked: some rules are about all of it together.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::time::Instant;

use crate::status::Status;

/// One answer, and by when the state that it tells of was so.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) received: Instant,
    /// `GET`, `PUT` or `DELETE`.
    pub(crate) verb: String,
    /// The epoch that a PUT or DELETE named.
    pub(crate) asked: Option<u64>,
    pub(crate) code: u16,
    pub(crate) content_type: String,
    pub(crate) etag: Option<String>,
    pub(crate) json: Value,
    pub(crate) status: Option<Status>,
}

impl Entry {
    /// Whether the answer carries a status.
    pub(crate) fn tells(&self) -> bool {
        matches!(self.code, 200 | 202)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Vec<Entry>>);

impl Journal {
    pub(crate) fn note(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// All of it, in the order of arrival.
    pub(crate) fn all(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answers with a status that were received since then.
    pub(crate) fn told_since(&self, since: Instant) -> Vec<(Entry, Status)> {
        let told = self.all().into_iter().filter(|entry| entry.tells() && entry.received >= since);
        told.filter_map(|entry| entry.status.clone().map(|status| (entry, status))).collect()
    }
}
