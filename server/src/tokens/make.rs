//! `server token`: a new token, and its line for the file.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;

use super::table::{Scopes, check_name, hash};

/// By which people and scanners of repositories know what it is.
const PREFIX: &str = "gt_";

/// The arguments of `server token`.
#[derive(Debug, Clone, Args)]
pub struct Make {
    /// Whose token it is: letters, digits, - _ . @
    #[arg(value_parser = named)]
    pub name: String,
    /// What it is for: submit (hand tasks in), read (look at them and listen), admin (all, cancel and retry too); several with
    /// commas.
    pub scopes: Scopes,
}

fn named(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

impl Make {
    /// The token, which nobody can work out again, and the line for the file.
    #[must_use]
    pub fn make(&self) -> (String, String) {
        let Self { name, scopes } = self;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let line = format!("{name} {scopes} {}", hex::encode(hash(&token)));
        (token, line)
    }
}
