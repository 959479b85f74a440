//! The node that a pod was given, and what becomes of it.

/// The node of a pod. One without a node is the scheduler's: it runs nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// None before it is scheduled.
    pub name: Option<String>,
    /// Whether its word on the pod can be trusted.
    pub kubelet: Kubelet,
    /// What becomes of it.
    pub fate: NodeFate,
}

impl Node {
    /// What its kubelet says of the pod is so.
    pub fn is_heard(&self) -> bool {
        self.kubelet == Kubelet::Heard
    }

    /// Whether the node is not Ready, or not there.
    pub fn is_silent(&self) -> bool {
        self.kubelet == Kubelet::Silent
    }
}

/// Whether a node's agent is heard by the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kubelet {
    /// The node is Ready, or there is none yet.
    #[default]
    Heard,
    /// The kubelet is not heard: nobody knows what its pods do.
    Silent,
    /// Nodes are not read (`nodeDrain.enabled: false`): its word may be as old as any.
    Unread,
}

/// What becomes of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeFate {
    /// The node stays, as far as is known.
    #[default]
    Stays,
    /// The node would be emptied, and its pods stay all the same.
    Kept(KeptBy),
    /// The node is being emptied: it is cordoned, or an autoscaler has tainted it. Its pods are replaced elsewhere, and drained.
    Emptied,
    /// The node dies soon, whatever we do: a spot instance that is taken back. What its pods accepted from now on would die with it.
    Dying,
    /// Somebody says that it is shut down (the taint `node.kubernetes.io/out-of-service`): nothing runs there.
    ShutDown,
}

impl NodeFate {
    /// Pods stay there, as far as is known.
    pub fn stays(self) -> bool {
        matches!(self, Self::Stays | Self::Kept(_))
    }
}

/// Why pods stay on a node that would be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// The annotation `graceful.dev/keep` on the node.
    Annotation,
    /// The node is cordoned, and the chart's `nodeDrain.onCordon` is false.
    Chart,
    /// The scheduler put the pod there after the node began to go: it tolerates that, and its replacement might be put there as well, without end.
    Toleration,
}
