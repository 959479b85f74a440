//! How we write: each merge patch in our own name, so that everybody can see who owns a field.

use graceful_api::names;
use kube::api::PatchParams;

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Dry,
    Real,
}

/// For a merge patch.
pub(crate) fn merge(mode: Mode) -> PatchParams {
    PatchParams {
        dry_run: mode == Mode::Dry,
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
