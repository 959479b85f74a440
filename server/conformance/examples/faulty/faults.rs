//! Which fault is switched on, if any.

use std::sync::OnceLock;

static CHOSEN: OnceLock<String> = OnceLock::new();

pub(crate) fn choose(name: &str) {
    CHOSEN.set(name.to_owned()).unwrap();
}

/// Whether it is this one.
pub(crate) fn faulty(name: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == name)
}
