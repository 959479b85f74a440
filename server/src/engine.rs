//! Which engine keeps the queue, and where it is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A database's URL. It holds a password, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(pub String);

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl(…)")
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(Self(text.to_owned()));
        }
        Err("is no PostgreSQL URL; write postgres://user:password@host:5432/database".to_owned())
    }
}

/// An engine and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// SQLite, in this folder.
    Sqlite(PathBuf),
    /// PostgreSQL, at this URL.
    Postgres(StoreUrl),
}
