//! How many pods of a superseded revision need not be waited for: those that are missing, or not Ready.
//!
//! Pods that serve are another matter: they drain, as the budget allows.

use graceful_api::RevisionHash;

use crate::observed::Revision;
use crate::snapshot::Snapshot;

/// Whether a superseded revision is relied on depends on these alone.
#[derive(Clone, Copy, Debug)]
struct Reliance {
    /// The update revision can replace others.
    update_suffices: bool,
    /// A pod of this revision takes work.
    works: bool,
    /// A pod of another superseded revision does.
    another_works: bool,
    /// The revision is the oldest that still wants pods.
    oldest: bool,
}

impl Reliance {
    fn of(snapshot: &Snapshot<'_>, hash: &RevisionHash) -> Self {
        let wants_pods = superseded_revisions(snapshot).filter(|r| snapshot.wanted_of(r) > 0);
        Self {
            update_suffices: update_suffices(snapshot),
            works: snapshot.any_takes_work(hash),
            another_works: superseded_revisions(snapshot)
                .any(|r| r.hash != *hash && snapshot.any_takes_work(&r.hash)),
            oldest: wants_pods.min_by_key(|r| (r.created, &r.hash)).is_some_and(|r| r.hash == *hash),
        }
    }

    /// Whether its pods that are only starting are kept: were a node lost while the new revision is bad, they would be all there is.
    fn relied_on(self) -> bool {
        match (self.update_suffices, self.works, self.another_works, self.oldest) {
            // The new revision can do the work.
            (true, _, _, _) => false,
            // It does the work, alone or with others.
            (false, true, _, _) => true,
            // Another superseded one does.
            (false, false, true, _) => false,
            // None does: the oldest is the likeliest to have worked once.
            (false, false, false, oldest) => oldest,
        }
    }
}

/// How many of a revision's missing or unready pods need not be waited for; of the update revision none.
///
/// The revisions that are relied on keep up to `replicas` pods between them. Without surge, maxUnavailable says how many may be missing of these.
/// (`rollout::grow_predecessor` makes no more than is kept here, or what it makes would go again at once.)
pub(crate) fn expendable(snapshot: &Snapshot<'_>, hash: &RevisionHash) -> i64 {
    if hash == snapshot.update() {
        return 0;
    }
    if !Reliance::of(snapshot, hash).relied_on() {
        return i64::MAX;
    }
    let app = &snapshot.observed.app;
    let may_miss = if app.max_surge == 0 { app.max_unavailable } else { 0 };
    let there: i64 = superseded_revisions(snapshot).map(|r| snapshot.staying_of(r)).sum();
    (there - i64::from(app.replicas.saturating_sub(may_miss))).max(0)
}

/// Whether the update revision can do the work alone: a pod of it takes work, or none is wanted.
pub(crate) fn update_suffices(snapshot: &Snapshot<'_>) -> bool {
    snapshot.observed.app.replicas == 0 || snapshot.any_takes_work(snapshot.update())
}

/// All revisions but the one that the spec asks for.
pub(crate) fn superseded_revisions<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Revision> {
    snapshot.observed.revisions.iter().filter(|r| r.hash != *snapshot.update())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_relied_on_while_the_new_one_does_not_work_and_nobody_else_does() {
        // update_suffices, works, another_works, oldest → relied on
        let table = [
            ("0000", false),
            ("0001", true),
            ("0010", false),
            ("0011", false),
            ("0100", true),
            ("0101", true),
            ("0110", true),
            ("0111", true),
            ("1000", false),
            ("1001", false),
            ("1010", false),
            ("1011", false),
            ("1100", false),
            ("1101", false),
            ("1110", false),
            ("1111", false),
        ];
        for (row, relied_on) in table {
            let at = |n: usize| row.as_bytes()[n] == b'1';
            let reliance =
                Reliance { update_suffices: at(0), works: at(1), another_works: at(2), oldest: at(3) };
            assert_eq!(reliance.relied_on(), relied_on, "{reliance:?}");
        }
    }
}
