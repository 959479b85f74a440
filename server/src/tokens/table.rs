//! The lines of a file of tokens: `name scopes digest`, where the digest is the SHA-256 of the token in hex.
//!
//! A token has 256 random bits, so that its digest can be kept without salt and stretching: there is nothing to guess.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::Unusable;

/// What a token may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Hand tasks in.
    Submit,
    /// Look at tasks, counts and kinds, and listen to events.
    Read,
    /// Everything: cancel and retry as well.
    Admin,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Submit, Self::Read, Self::Admin];

    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// Several scopes: `submit,read`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes {
    submit: bool,
    read: bool,
    admin: bool,
}

impl Scopes {
    /// Whether they are enough for what needs this one.
    #[must_use]
    pub const fn allow(self, needed: Scope) -> bool {
        match needed {
            Scope::Submit => self.submit || self.admin,
            Scope::Read => self.read || self.admin,
            Scope::Admin => self.admin,
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { submit, read, admin } = *self;
        let words: Vec<_> = Scope::ALL
            .into_iter()
            .zip([submit, read, admin])
            .filter_map(|(scope, has)| has.then_some(scope.as_str()))
            .collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for Scopes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut scopes = Self::default();
        for word in text.split(',') {
            match Scope::ALL.into_iter().find(|scope| scope.as_str() == word) {
                Some(Scope::Submit) => scopes.submit = true,
                Some(Scope::Read) => scopes.read = true,
                Some(Scope::Admin) => scopes.admin = true,
                None => {
                    return Err(format!(
                        "`{word}` is no scope; write submit, read or admin, several with commas"
                    ));
                }
            }
        }
        Ok(scopes)
    }
}

/// The SHA-256 of a token.
pub(super) type Hash = [u8; 32];

pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Whose name a line may have.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if (1..=64).contains(&name.len()) && name.chars().all(usable) {
        return Ok(());
    }
    Err(format!("`{name}` is no name; write 1 to 64 letters, digits and any of - _ . @"))
}

/// All tokens of a file, by their digests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table(HashMap<Hash, Scopes>);

impl Table {
    pub(super) fn read(file: &Path) -> Result<Self, Unusable> {
        let text =
            fs::read_to_string(file).map_err(|error| Unusable::Read { file: file.to_owned(), error })?;
        text.parse().map_err(|why| Unusable::Content { file: file.to_owned(), why })
    }

    pub(super) fn scopes(&self, token: &str) -> Option<Scopes> {
        self.0.get(&hash(token)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut table = HashMap::new();
        let (mut names, mut number) = (Vec::new(), 0);
        for line in text.lines() {
            number += 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, scopes, digest) = entry(line).map_err(|why| format!("line {number}: {why}"))?;
            if names.contains(&name) {
                return Err(format!(
                    "line {number}: there is a token called `{name}` already; give this one another name"
                ));
            }
            names.push(name);
            table.insert(digest, scopes);
        }
        if table.is_empty() {
            return Err("has no token; make one: server token NAME submit,read >> FILE".to_owned());
        }
        Ok(Self(table))
    }
}

fn entry(line: &str) -> Result<(&str, Scopes, Hash), String> {
    let [name, scopes, digest] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(
            "write a name, scopes and a digest, as `server token NAME submit,read` prints them".to_owned()
        );
    };
    check_name(name)?;
    let scopes = scopes.parse()?;
    let mut hash = Hash::default();
    // What is no digest may be a token that somebody pasted: it is not repeated.
    hex::decode_to_slice(digest, &mut hash).map_err(|_| {
        "the last word is no SHA-256 in hex; write the line as `server token NAME submit,read` prints it"
            .to_owned()
    })?;
    Ok((name, scopes, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, scopes: &str, token: &str) -> String {
        format!("{name} {scopes} {}\n", hex::encode(hash(token)))
    }

    #[test]
    fn each_token_has_its_scopes_and_admin_has_all() {
        let text =
            format!("# who\n\n{}{}", line("ci", "submit,read", "one"), line("on-call", "admin", "two"));
        let table: Table = text.parse().unwrap();
        let allowed = |token: &str| {
            Scope::ALL.map(|scope| table.scopes(token).is_some_and(|scopes| scopes.allow(scope)))
        };
        assert_eq!(allowed("one"), [true, true, false]);
        assert_eq!(allowed("two"), [true, true, true]);
        assert_eq!(allowed("three"), [false, false, false]);
        assert_eq!("read,submit".parse::<Scopes>().unwrap().to_string(), "submit,read");
    }

    #[test]
    fn a_bad_line_is_named_with_what_to_write_and_no_token_is_repeated() {
        let good = line("ci", "submit", "one");
        for (text, said) in [
            ("", "server token NAME"),
            ("# nobody\n", "server token NAME"),
            (&format!("{good}ci submit"), "line 2: write a name, scopes and a digest"),
            (&format!("{good}{}", line("ci", "read", "two")), "line 2: there is a token called `ci`"),
            (&line("c/i", "read", "two"), "line 1: `c/i` is no name"),
            (&line("ci", "write", "two"), "line 1: `write` is no scope; write submit, read or admin"),
            ("ci read gt_a-token-in-clear", "line 1: the last word is no SHA-256"),
        ] {
            let error = text.parse::<Table>().unwrap_err();
            assert!(error.contains(said) && !error.contains("gt_a"), "{text}: {error}");
        }
    }
}
