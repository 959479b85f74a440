//! `--tokens FILE`: who may do what, by bearer tokens of which the file has the digests.
//!
//! - [`table`]: the file's lines; [`make`], a new token
//! - [`door`]: the layer that asks for one
//!
//! # Guarantees
//! - Without the flag everybody may do everything, as ever. With it, what is not named as open needs a token (fail closed).
//! - The file is read again as it changes. One that cannot be used changes nothing: a slip in an editor locks nobody out,
//!   and lets nobody in.
//!
//! # Caveats
//! - A connection that listens goes on when its token is taken away; its next one is refused.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

pub mod door;
pub mod make;
pub mod table;

use table::{Scope, Table};

/// How often the file is looked at. A mounted Secret takes up to a minute by itself.
const LOOK: Duration = Duration::from_secs(5);

/// The tokens of a file, as it was when it could last be used.
#[derive(Debug)]
pub struct Tokens {
    file: PathBuf,
    table: RwLock<Arc<Table>>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file cannot be read.
    #[error("--tokens {}: cannot be read: {error}", file.display())]
    Read {
        /// As the flag names it.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file does not have what it should.
    #[error("--tokens {}: {why}", file.display())]
    Content {
        /// As the flag names it.
        file: PathBuf,
        /// Where, and what to write.
        why: String,
    },
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The request has no token.
    Missing,
    /// The request has a token that the file does not know.
    Unknown,
    /// Its token is not for this.
    Scope(Scope),
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or has anything but tokens.
    pub fn open(file: PathBuf) -> Result<Arc<Self>, Unusable> {
        let table = RwLock::new(Arc::new(Table::read(&file)?));
        Ok(Arc::new(Self { file, table }))
    }

    /// Whether who has this token may do what needs this scope.
    ///
    /// # Errors
    /// Says why not.
    pub fn judge(&self, token: Option<&str>, needed: Scope) -> Result<(), Denied> {
        let token = token.ok_or(Denied::Missing)?;
        let table = self.table.read().clone();
        let scopes = table.scopes(token).ok_or(Denied::Unknown)?;
        if scopes.allow(needed) { Ok(()) } else { Err(Denied::Scope(needed)) }
    }

    /// Reads the file again and again, for as long as the process lives.
    pub async fn keep_up(self: Arc<Self>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complained = None;
        loop {
            look.tick().await;
            let file = self.file.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || Table::read(&file)).await else { continue };
            match read {
                Ok(table) => {
                    complained = None;
                    if **self.table.read() != table {
                        info!(tokens = table.len(), "the file of tokens has changed");
                        *self.table.write() = Arc::new(table);
                    }
                }
                Err(error) => {
                    let said = error.to_string();
                    if complained.as_ref() != Some(&said) {
                        warn!(error = said, "the tokens from before still hold");
                        complained = Some(said);
                    }
                }
            }
        }
    }
}
