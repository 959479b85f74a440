//! [`Bounds`]: how many connections there may be, so that those of clients cannot use up what the process needs itself.

use crate::descriptors;

/// How many connections there may be to the public port at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of all connections.
    pub(crate) all: usize,
    /// Of those that speak HTTP.
    pub(crate) http: usize,
    /// Whether they may speak HTTP/2.
    #[cfg(feature = "http2")]
    pub(crate) http2: bool,
}

impl Default for Bounds {
    /// As many as the process may have descriptors, less a half or 256 (the smaller of both) for all else that it opens.
    fn default() -> Self {
        let (all, _) = descriptors::connections();
        Self::new(all, all)
    }
}

impl Bounds {
    pub(crate) const fn new(all: usize, http: usize) -> Self {
        Self {
            all,
            http,
            #[cfg(feature = "http2")]
            http2: false,
        }
    }

    /// At most so many that speak HTTP, and beside them so many upgraded ones; in all no more than the default. An HTTP
    /// connection takes up to 36 KiB where its client is malicious, beside what its handler keeps; an upgraded one what the app
    /// gives it.
    #[must_use]
    pub fn at_most(http: usize, upgraded: usize) -> Self {
        let all = http.saturating_add(upgraded).min(Self::default().all);
        Self::new(all, http.min(all))
    }

    /// Clients may speak HTTP/2 without TLS as well (h2c by prior knowledge, as gRPC clients do inside a cluster). A connection
    /// then carries up to 100 requests at a time, each of which is counted as any other; so a malicious client's may cost as
    /// much as 100 connections that speak HTTP/1: bound how many there may be ([`Bounds::at_most`]).
    #[cfg(feature = "http2")]
    #[must_use]
    pub const fn with_http2(self) -> Self {
        Self { http2: true, ..self }
    }

    /// How many there may be in all.
    #[must_use]
    pub const fn all(&self) -> usize {
        self.all
    }
}
