//! A pod, a policy, an app and a view of it, for the unit tests: each says only where it differs.

use std::collections::BTreeMap;

use graceful_api::{DrainPolicy, OnDeadline, ReplaceWhen, RevisionHash, Signal};
use jiff::Timestamp;

use crate::ids::PodUid;
use crate::observed::{
    App, Containers, Deletion, Endpoints, Mark, Node, Observed, Pod, Readiness, Revision, Surroundings,
};

/// One that serves, of revision r.
pub(crate) fn serving(name: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        uid: PodUid::from(name),
        revision: RevisionHash::from("r"),
        created: Timestamp::UNIX_EPOCH,
        enlisted: true,
        terminating: false,
        routed: true,
        epoch: None,
        drain: None,
        cheapest: false,
        bridged: false,
        endpoints: Endpoints::Withdrawn,
        mark: Mark::Absent,
        mark_rests_until: None,
        cut: None,
        ends_since: None,
        grace_ends: None,
        readiness: Readiness::Ready(Timestamp::UNIX_EPOCH),
        containers: Containers::Running,
        node: Node::default(),
        unschedulable: None,
        grace_seconds: 90,
        trouble: None,
        write_backoff: None,
    }
}

/// Five seconds of quiet, a minute's deadline, held.
pub(crate) fn policy(signal: Signal) -> DrainPolicy {
    let on_deadline = OnDeadline::Hold;
    DrainPolicy { signal, linger_seconds: 3, quiet_seconds: 5, deadline_seconds: 60, on_deadline }
}

/// One of revision r, with a surge of one.
pub(crate) fn app(replicas: u32, policy: DrainPolicy) -> App {
    App {
        name: "tasks".to_owned(),
        namespace: "apps".to_owned(),
        replicas,
        update: RevisionHash::from("r"),
        policy,
        max_surge: 1,
        max_unavailable: 0,
        min_ready_seconds: 0,
        progress_deadline_seconds: 600,
        surge_timeout_seconds: 120,
        replace_when: ReplaceWhen::Drained,
        paused: false,
        revision_history_limit: 2,
        hold_while_busy: false,
        deletion: Deletion::No,
        finalizer: true,
        finalizer_backoff: None,
    }
}

/// One pod's Deployment.
pub(crate) fn revision(hash: &str) -> Revision {
    Revision {
        hash: RevisionHash::from(hash),
        name: format!("tasks-{hash}"),
        replicas: 1,
        created: Timestamp::UNIX_EPOCH,
        policy: policy(Signal::Http),
        policy_current: true,
        signal_current: true,
        replica_failure: None,
        end_failure: None,
        has_no_replica_set: false,
        proven: true,
        scale_backoff: None,
        annotation_backoff: None,
        followed: true,
        nudged: None,
    }
}

/// Nothing else is there.
pub(crate) fn observed(app: App) -> Observed {
    Observed {
        app,
        revisions: Vec::new(),
        pods: Vec::new(),
        contacts: BTreeMap::new(),
        rejected: BTreeMap::new(),
        absent: BTreeMap::new(),
        lags: BTreeMap::new(),
        surroundings: Surroundings::default(),
    }
}
