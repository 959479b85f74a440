//! What names a pod and a drain, unmistakably.

use std::fmt;

/// A pod's `metadata.uid`: unlike its name, never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PodUid {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The number of one drain or one resumption. Each is above what its own pod carries and has said. A drain's is above those of the app's other pods as well, as far
/// as an operator of ours can have counted; a resumption that is told before it is written (`put_back`) need not be. Numbers of pods that are gone may be used
/// again. Annotations that no operator of ours can have written are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next number.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
