//! Which pod this is, as its clients are told.

use std::env;

const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The first frame of each socket: the pod's namespace and name, or that there is none.
#[must_use]
pub fn greeting() -> String {
    let name = env::var("GRACEFUL_POD_NAME").or_else(|_| env::var("HOSTNAME"));
    let in_cluster =
        env::var_os("KUBERNETES_SERVICE_HOST").is_some() || env::var_os("GRACEFUL_POD_NAME").is_some();
    if !in_cluster {
        return "Not running inside Kubernetes".to_owned();
    }
    let namespace = env::var("POD_NAMESPACE").or_else(|_| std::fs::read_to_string(NAMESPACE_FILE));
    let known =
        |value: Option<String>| value.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    format!("POD Name Space: {} POD Name: {}", known(namespace.ok()), known(name.ok()))
}
