//! How holding a rule ends.

/// Why a rule did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Not {
    /// The rule was broken: what was seen.
    Kept(String),
    /// The rule could not be held: what is missing, or what the implementation is free not to do.
    Held(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Not>;

/// Broken, with what was seen.
pub(crate) fn broken<T>(seen: impl Into<String>) -> Outcome<T> {
    Err(Not::Kept(seen.into()))
}

/// Broken unless `holds`.
pub(crate) fn must(holds: bool, seen: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { broken(seen()) }
}
