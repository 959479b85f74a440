//! A pod for the unit tests.

use jiff::Timestamp;

use crate::observed::{Container, Pod, PodUid, Readiness, RevisionHash};

/// One that serves, of revision r.
pub(crate) fn serving(name: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        uid: PodUid::from(name),
        revision: RevisionHash::from("r"),
        created: Timestamp::UNIX_EPOCH,
        terminating: false,
        serving: true,
        epoch: None,
        drain: None,
        retiring: false,
        lingering: false,
        cut: None,
        grace_ends: None,
        readiness: Readiness::Ready(Timestamp::UNIX_EPOCH),
        container: Container::Running,
        node_ready: true,
        unschedulable: None,
        grace_seconds: 90,
        trouble: None,
        hindrance: None,
    }
}
