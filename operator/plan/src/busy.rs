//! What cannot be busy. Unknown is busy, so each case here argues why it is not unknown.

use crate::observed::{Containers, NodeFate, Pod, Readiness};

/// True where nothing in the pod can be at work, so that it may go without a drain.
///
/// - On a node that somebody says is shut down (`NodeFate::ShutDown`): nothing runs there, whatever its kubelet said last.
/// - `Finished`: the kubelet runs nothing in a pod whose phase is Failed or Succeeded, ever again.
/// - `NeverStarted`: no lasting container has ever run; only the word of a kubelet that is heard counts.
/// - `CrashedEmpty`: none runs now, and nothing of what was once accepted outlives the crash.
/// - `Crashed` and never Ready: none runs now, and no Service has ever sent it anything. Otherwise a crash loop would fill the surge and block its own fix. (One
///   that was Ready once may hold accepted work in a volume for its next start, so it is drained like any other. So is one whose own last count says that it
///   had work: `Snapshot::cannot_be_busy`.)
pub fn nothing_runs(pod: &Pod) -> bool {
    if pod.node.fate == NodeFate::ShutDown {
        return true;
    }
    match pod.containers {
        Containers::Finished => true,
        Containers::NeverStarted | Containers::CrashedEmpty => pod.node.is_heard(),
        Containers::Crashed => pod.node.is_heard() && pod.readiness == Readiness::Never,
        Containers::Running | Containers::HalfCrashed | Containers::Unknown => false,
    }
}
