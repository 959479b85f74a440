//! What was aimed at, beside what came of it.

use std::fmt;

use serde::Serialize;

/// One aim and its result.
#[derive(Debug, Serialize)]
pub(crate) struct Aim {
    name: &'static str,
    /// "at least" or "at most"
    bound: &'static str,
    aim: f64,
    result: f64,
    met: bool,
}

impl Aim {
    pub(crate) fn at_least(name: &'static str, aim: f64, result: f64) -> Self {
        Self { name, bound: "at least", aim, result, met: result >= aim }
    }

    pub(crate) fn at_most(name: &'static str, aim: f64, result: f64) -> Self {
        Self { name, bound: "at most", aim, result, met: result <= aim }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bound, aim, result, met } = self;
        let word = if *met { "met" } else { "missed" };
        write!(f, "{name:<40} {bound} {aim:>7} {result:>9.2}  {word}")
    }
}
