//! Where an app is going, and what it leaves.

use graceful_api::RevisionHash;

use crate::expendable::update_suffices;
use crate::going_nodes::replacements_come_first;
use crate::observed::Revision;
use crate::snapshot::Snapshot;

/// Where the app is going.
pub(crate) struct Course<'a> {
    /// The revision that new pods are made of; none where there is nothing yet that Kubernetes would take.
    pub(crate) growth: Option<&'a RevisionHash>,
    /// Whether pods of other revisions are replaced, where there are any: no pause, and there is something to replace them by.
    pub(crate) replaces_others: bool,
}

/// The update revision, unless it has no Deployment yet and Kubernetes does not take one, or a pause came before any pod of it takes work: then what already
/// serves grows and shrinks instead.
pub(crate) fn course<'a>(snapshot: &Snapshot<'a>) -> Course<'a> {
    let app = &snapshot.observed.app;
    let predecessor = snapshot.predecessor().map(|r| &r.hash);
    let stay = || Course { growth: predecessor, replaces_others: false };
    let exists = snapshot.revision(&app.update).is_some();
    if !exists && !snapshot.may_be_made() {
        return stay();
    }
    if app.paused && !update_suffices(snapshot) && predecessor.is_some() {
        return stay();
    }
    Course { growth: Some(&app.update), replaces_others: !app.paused }
}

/// The predecessor, if it takes work, while no pod of the revision that is rolled out has ever worked. (Once one has, growth stays with the new revision even
/// where it flaps, or pods would be made and drained with each flap.)
pub(crate) fn working_predecessor<'a>(snapshot: &Snapshot<'a>, course: &Course<'_>) -> Option<&'a Revision> {
    let rolling_out = course.replaces_others && course.growth == Some(snapshot.update());
    let grows_on =
        snapshot.revision(snapshot.update()).is_some_and(|r| r.proven) && !replacements_come_first(snapshot);
    let serves = |r: &&Revision| snapshot.any_takes_work(&r.hash);
    snapshot.predecessor().filter(|_| rolling_out && !grows_on && !update_suffices(snapshot)).filter(serves)
}
