//! Which pod this is, as its clients are told.

use std::env;

use uuid::Uuid;

const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The pod this process is in; none outside a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub name: Option<String>,
}

impl Pod {
    /// What the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let name = env::var("GRACEFUL_POD_NAME").or_else(|_| env::var("HOSTNAME"));
        let in_cluster =
            env::var_os("KUBERNETES_SERVICE_HOST").is_some() || env::var_os("GRACEFUL_POD_NAME").is_some();
        if !in_cluster {
            return Self::default();
        }
        let namespace = env::var("POD_NAMESPACE").or_else(|_| std::fs::read_to_string(NAMESPACE_FILE));
        let known = |value: Option<String>| {
            Some(value.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned()))
        };
        Self { namespace: known(namespace.ok()), name: known(name.ok()) }
    }

    /// The first frame of a socket that asked for nothing else, in the words of the seed.
    #[must_use]
    pub fn greeting(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("POD Name Space: {namespace} POD Name: {name}"),
            _ => "Not running inside Kubernetes".to_owned(),
        }
    }
}

/// Who claims tasks: the pod's name, and an id that is new for each start, so that a process that was restarted never
/// takes its own past for itself.
#[must_use]
pub fn owner() -> String {
    let name = env::var("GRACEFUL_POD_NAME").or_else(|_| env::var("HOSTNAME"));
    format!("{}/{}", name.as_deref().unwrap_or("local"), Uuid::new_v4())
}
