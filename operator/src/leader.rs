//! The seam for leader election: one question, asked before anything is written.
//!
//! One replica leads for as long as it lives. A Lease comes with its own issue; destructive calls carry preconditions either way, since a
//! lease does not fence.

/// Whether this process may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// The only replica.
    #[default]
    Sole,
}

impl Leadership {
    /// Asked before each plan is executed.
    pub fn held(self) -> bool {
        match self {
            Self::Sole => true,
        }
    }
}
