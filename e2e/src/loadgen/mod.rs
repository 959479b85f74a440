//! The load generator and its ledger: one program, run as a pod beside the app, so that it works the same on any cluster.
//!
//! `POST /report` takes the task servers' reports; `POST /load`, `POST /load/stop` and `GET /ledger` are the harness'.

mod clients;
mod events;
mod http;
mod ledger;
mod serve;
mod sockets;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};

pub use ledger::{Answer, Ledger};
pub use serve::{App, router};

/// The ledger as the clients and the routes share it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    /// The ledger, locked; every use is short and none holds it over an await.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock()
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
