//! Connections that are lent and given back. A statement that fails or is given up takes its connection with it.
//!
//! sqlx's own pool asks the server once more each time a connection comes back, and hides a server that is away until
//! its time-out; a queue wants neither.

use std::fmt;
use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Error};
use tokio::sync::{Semaphore, SemaphorePermit};

/// So many connections at most, made as they are needed.
pub(super) struct Connections {
    options: PgConnectOptions,
    places: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

/// A connection on loan. Given back with [`Lane::keep`]; dropped otherwise, and with it whatever it was at.
pub(super) struct Lane<'a> {
    from: &'a Connections,
    connection: PgConnection,
    _place: SemaphorePermit<'a>,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, most: usize) -> Self {
        Self { options, places: Semaphore::new(most), idle: Mutex::default() }
    }

    /// Waits for a place, and for the server to let us in.
    pub(super) async fn lane(&self) -> Result<Lane<'_>, Error> {
        let place = self.places.acquire().await.map_err(|_| Error::PoolClosed)?;
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Lane { from: self, connection, _place: place })
    }

    /// Closes the connections that nobody uses: one has broken, and finding out with each of them would cost a call each.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().clear();
    }
}

impl Lane<'_> {
    /// All was answered and no transaction is open.
    pub(super) fn keep(self) {
        let Self { from, connection, _place } = self;
        from.idle.lock().push(connection);
    }
}

impl Deref for Lane<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lane<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl fmt::Debug for Connections {
    /// Without the options: the password is among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("free", &self.places.available_permits()).finish_non_exhaustive()
    }
}
