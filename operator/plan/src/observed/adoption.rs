//! A Deployment of the user's that the app is to take over.

/// How far the adoption is, as long as the Deployment is not the app's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Adoption {
    /// There is none, or its Deployment is among the app's own already, as the revision `adopted`, and has no pods any more.
    #[default]
    None,
    /// The Deployment can be taken now.
    Ready {
        /// The Deployment's name.
        deployment: String,
    },
    /// The Deployment cannot be taken yet.
    Waits {
        /// What it waits for, or what to do.
        message: String,
        /// What it waits for does not come by itself.
        needs_a_person: bool,
    },
    /// The Deployment was taken, and is not at 0 yet. What others do beside us meanwhile, as far as no watch of ours shows it.
    Taken {
        /// Who else scales it, and what to do about that: while somebody does, each pod that is ended would be made again.
        scaler: Option<String>,
        /// What its user should know besides.
        warnings: Vec<String>,
    },
}

/// A Service of the user's that leads to the pods of the adopted Deployment, and not to those of the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// The Service.
    pub service: String,
    /// The labels that its selector asks for and the template lacks, as `key: value`.
    pub lacks: Vec<String>,
}
