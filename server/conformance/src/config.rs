//! The flags.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::call::Admin;
use crate::requests::Requests;
use crate::rules;

/// Holds an implementation of the drain protocol against docs/protocol.md, rule by rule.
///
/// A REQUEST is written in one line: `[METHOD ]URL[ BODY]`, such as `http://127.0.0.1:8000/hello` or
/// `POST http://127.0.0.1:8000/work {"seconds": 1}`. Nobody else may use the implementation meanwhile. docs/conformance.md has examples.
#[derive(Debug, Clone, Parser)]
#[command(name = "graceful-conformance", version)]
pub struct Flags {
    /// The admin port: http://POD:9808.
    #[arg(value_name = "URL", required_unless_present = "list")]
    pub admin: Option<Admin>,
    /// What the implementation may be asked.
    #[command(flatten)]
    pub requests: Requests,
    /// The private key that tokens are signed with: a file with an Ed25519 JWK. Without it, the one of docs/drain-token.vectors.json, whose `keys` the
    /// implementation then has in GRACEFUL_DRAIN_KEYS.
    #[arg(long, value_name = "FILE")]
    pub token_key: Option<PathBuf>,
    /// The implementation's process, which is sent SIGTERM in the end. It has one end only, and nobody but its parent sees how it exits: a COMMAND has more
    /// rules held.
    #[arg(long, value_name = "PID", conflicts_with = "command")]
    pub pid: Option<i32>,
    /// Holds these rules alone: names with commas.
    #[arg(long, value_name = "RULES", value_delimiter = ',', value_parser = rule)]
    pub only: Vec<String>,
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Prints the rules, and what each says.
    #[arg(long)]
    pub list: bool,
    /// Starts the implementation, as often as it is needed. It gets GRACEFUL_POD_UID and GRACEFUL_DRAIN_KEYS, where they are not set, as the operator sets them.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn rule(text: &str) -> Result<String, String> {
    let known = rules::names().any(|name| name == text);
    known.then(|| text.to_owned()).ok_or_else(|| format!("there is no rule {text}; --list prints them"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(words: &[&str]) -> Result<Flags, String> {
        Flags::try_parse_from([&["graceful-conformance"], words].concat()).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_read_and_refused_by_name() {
        Flags::command().debug_assert();
        assert!(read(&["--list"]).is_ok());
        assert!(read(&[]).unwrap_err().contains("<URL>"));
        let flags = read(&["http://pod:9808", "--app", "http://pod/a", "--", "python", "app.py"]).unwrap();
        assert_eq!((flags.requests.app.len(), flags.command.len()), (1, 2));
        let said = read(&["http://pod:9808", "--only", "no-such"]).unwrap_err();
        assert!(said.contains("there is no rule no-such"), "{said}");
        let said = read(&["http://pod:9808", "--task", "http://pod/a", "--task-seconds", "0"]).unwrap_err();
        assert!(said.contains("--task-seconds") && said.contains("0.3"), "{said}");
        assert!(read(&["http://pod:9808", "--task", "http://pod/a"]).is_err());
        assert!(read(&["http://pod:9808", "--pid", "7", "--", "app"]).is_err());
    }
}
