//! Apps that stream and know nothing of Graceful, with the clients that the load generator makes for them: what passes takes longer than the pods' grace. They
//! end at once on SIGTERM, as programs do.

pub mod echo;
pub mod grpc;

use std::time::Duration;

/// Pieces of a stream, after the first one, and how far apart they are.
pub const STEPS: u32 = 16;
/// So that a stream takes eight seconds.
pub const PACE: Duration = Duration::from_millis(500);

/// Who serves: from the environment that the operator injects, and new for each process.
#[derive(Clone, Debug)]
pub struct Server {
    /// The pod's uid; `-` outside of a pod.
    pub pod_uid: String,
    /// The process.
    pub boot_id: String,
}

impl Server {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        let pod_uid = std::env::var("GRACEFUL_POD_UID").unwrap_or_else(|_| "-".to_owned());
        Self { pod_uid, boot_id: uuid::Uuid::new_v4().to_string() }
    }
}

/// What a stream's beginning tells its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Names the stream.
    pub task_id: String,
    /// As in [`Server`].
    pub pod_uid: String,
    /// As in [`Server`].
    pub boot_id: String,
}
