//! What the containers of a pod allow. Unknown is busy, so each case here argues why it is not unknown.
//!
//! | `Containers` | may run | has begun | may start | waits in a volume | nothing runs |
//! |---|---|---|---|---|---|
//! | `Running` | yes | yes | | | |
//! | `HalfCrashed` | yes | yes | | yes | |
//! | `NeverStarted` | | | yes | | where its kubelet is heard |
//! | `Crashed` | | yes | | yes | where its kubelet is heard, and it was never Ready |
//! | `CrashedEmpty` | | yes | | | where its kubelet is heard |
//! | `Finished` | | | | | yes |
//! | `Unknown` | yes | yes | | | |
//!
//! On a node that somebody says is shut down nothing runs, whatever its kubelet said last.

use crate::observed::{Containers, NodeFate, Pod, Readiness};

impl Pod {
    /// Returns whether nothing in the pod can be at work, so that it may go without a drain.
    ///
    /// - On a node that is shut down (`NodeFate::ShutDown`): nothing runs there.
    /// - `Finished`: the kubelet runs nothing in a pod whose phase is Failed or Succeeded, ever again.
    /// - `NeverStarted`: no lasting container has ever run; only the word of a kubelet that is heard counts.
    /// - `CrashedEmpty`: none runs now, and nothing of what was once accepted outlives the crash.
    /// - `Crashed` and never Ready: none runs now, and no Service has ever sent it anything. Otherwise a crash loop would fill the surge and block its own fix.
    ///   (One that was Ready once may hold accepted work in a volume for its next start, so it is drained like any other. So is one whose own last count says
    ///   that it had work: `Snapshot::cannot_be_busy`.)
    pub fn nothing_runs(&self) -> bool {
        if self.node.fate == NodeFate::ShutDown {
            return true;
        }
        match self.containers {
            Containers::Finished => true,
            Containers::NeverStarted | Containers::CrashedEmpty => self.node.is_heard(),
            Containers::Crashed => self.node.is_heard() && self.readiness == Readiness::Never,
            Containers::Running | Containers::HalfCrashed | Containers::Unknown => false,
        }
    }

    /// Returns whether a container runs, or may.
    pub(crate) fn may_run(&self) -> bool {
        matches!(self.containers, Containers::Running | Containers::HalfCrashed | Containers::Unknown)
    }

    /// Returns whether the pod is active and something of it has started or may have: a ReplicaSet must not choose it among others.
    pub fn has_begun(&self) -> bool {
        self.is_active() && self.containers != Containers::NeverStarted
    }

    /// Returns whether nothing of the pod has started, and it may, also after its DELETE.
    pub(crate) fn may_start(&self) -> bool {
        self.containers == Containers::NeverStarted
    }

    /// Returns whether the container that is asked crashed, and may find accepted work in a volume at its next start.
    pub(crate) fn waits_in_a_volume(&self) -> bool {
        matches!(self.containers, Containers::Crashed | Containers::HalfCrashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::observed::{Kubelet, Node};

    /// The table above, of a pod that was never Ready, with its kubelet heard and silent.
    #[test]
    fn each_state_of_the_containers_allows_what_its_row_says() {
        let rows = [
            (Containers::Running, "run begun", ""),
            (Containers::HalfCrashed, "run begun volume", ""),
            (Containers::NeverStarted, "start nothing", ""),
            (Containers::Crashed, "begun volume nothing", ""),
            (Containers::CrashedEmpty, "begun nothing", ""),
            (Containers::Finished, "nothing", "nothing"),
            (Containers::Unknown, "run begun", ""),
        ];
        for (containers, allows, when_silent) in rows {
            let pod = Pod { containers, readiness: Readiness::Never, ..fixture::serving("a") };
            let answers = [
                (pod.may_run(), "run"),
                (pod.has_begun(), "begun"),
                (pod.may_start(), "start"),
                (pod.waits_in_a_volume(), "volume"),
                (pod.nothing_runs(), "nothing"),
            ];
            let found: Vec<_> = answers.into_iter().filter(|(yes, _)| *yes).map(|(_, name)| name).collect();
            assert_eq!(found.join(" "), allows, "{containers:?}");
            let node = Node { kubelet: Kubelet::Silent, ..Node::default() };
            assert_eq!(
                Pod { node, ..pod.clone() }.nothing_runs(),
                when_silent == "nothing",
                "{containers:?}"
            );
            let node = Node { fate: NodeFate::ShutDown, ..Node::default() };
            assert!(Pod { node, ..pod }.nothing_runs(), "{containers:?} on a node that is shut down");
        }
        let served = Pod { containers: Containers::Crashed, ..fixture::serving("a") };
        assert!(!served.nothing_runs(), "it was Ready, and may hold work in a volume");
    }
}
