//! The rules, in the order in which they are held: first what all stands on, last what ends the process.

mod admission;
mod answers;
mod counts;
mod delete;
mod poll;
mod process;
mod put;
mod race;
mod sigterm;
mod sockets;
mod status;
mod tokens;

use std::fmt::Write as _;

use futures::future::BoxFuture;

use crate::need::Need;
use crate::outcome::Outcome;
use crate::run::Run;

/// One demand of `docs/protocol.md`.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// The demand, in a sentence.
    pub(crate) says: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) hold: for<'a> fn(&'a mut Run) -> BoxFuture<'a, Outcome>,
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    let before = status::RULES.iter().chain(poll::RULES).chain(put::RULES).chain(delete::RULES);
    let work = admission::RULES.iter().chain(counts::RULES).chain(sockets::RULES).chain(race::RULES);
    let after = tokens::RULES.iter().chain(answers::RULES).chain(sigterm::RULES).chain(process::RULES);
    before.chain(work).chain(after)
}

/// The names of all rules.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|rule| rule.name)
}

/// What `--list` prints.
pub(crate) fn listed() -> String {
    let width = names().map(str::len).max().unwrap_or_default();
    let mut text = String::new();
    for Rule { name, says, .. } in all() {
        let _infallible = writeln!(text, "{name:<width$}  {says}");
    }
    text
}
