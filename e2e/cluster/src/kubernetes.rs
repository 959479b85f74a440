//! Asking the API server, by the cluster's own kubectl.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use graceful_process::{output, output_with, wait_until};
use serde_json::Value;

use crate::artifacts::Artifacts;
use crate::config;
use crate::layout::{API_LOCAL, HOST_IP, admin_kubeconfig, node_name, run};
use crate::{dns, pki};

/// The cluster's DNS.
pub(crate) const DNS: &str = include_str!("../manifests/coredns.yaml");

/// The kubeconfig of a part, or of a node.
pub(crate) fn kubeconfig(client: &str) -> PathBuf {
    run(format!("{client}.kubeconfig"))
}

/// Writes the kubeconfig of every part; the administrator's has its certificates inside, so that it can be copied.
pub(crate) fn write_kubeconfigs(artifacts: &Artifacts, nodes: u8) -> anyhow::Result<()> {
    let api_on_bridge = format!("https://{HOST_IP}:6443");
    let pki = pki::file("");
    for client in ["controller-manager", "scheduler", "admin"] {
        fs::write(kubeconfig(client), config::kubeconfig(API_LOCAL, &pki, client))?;
    }
    for client in (1..=nodes).map(node_name).chain(["proxy".to_owned()]) {
        fs::write(kubeconfig(&client), config::kubeconfig(&api_on_bridge, &pki, &client))?;
    }
    let whole = output(kubectl(artifacts).args(["config", "view", "--raw", "--flatten", "--output=json"]))?;
    let unfinished = run("admin.kubeconfig.new");
    fs::write(&unfinished, whole)?;
    output(Command::new("chmod").arg("600").arg(&unfinished))?;
    fs::rename(unfinished, admin_kubeconfig())?;
    Ok(())
}

/// The cluster's own kubectl, speaking as its administrator.
pub(crate) fn kubectl(artifacts: &Artifacts) -> Command {
    let mut command = Command::new(artifacts.program("kubectl"));
    command.env("KUBECONFIG", admin_kubeconfig());
    command
}

/// What the API server answers at a path, if it answers with success.
pub(crate) fn get_raw(artifacts: &Artifacts, path: &str) -> Option<String> {
    output(kubectl(artifacts).args(["get", "--request-timeout=4s", "--raw", path])).ok()
}

/// When each Ready node said so last; nothing when the API server is silent.
pub(crate) fn ready_nodes(artifacts: &Artifacts) -> BTreeMap<String, String> {
    get_raw(artifacts, "/api/v1/nodes").and_then(|text| parse_ready_nodes(&text)).unwrap_or_default()
}

fn parse_ready_nodes(text: &str) -> Option<BTreeMap<String, String>> {
    let list: Value = serde_json::from_str(text).ok()?;
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
        let name = node["metadata"]["name"].as_str()?.to_owned();
        Some((name, condition["lastHeartbeatTime"].as_str().unwrap_or_default().to_owned()))
    };
    Some(list["items"].as_array()?.iter().filter_map(ready).collect())
}

/// Applies the cluster's DNS and waits until it serves.
pub(crate) fn start_dns(artifacts: &Artifacts) -> anyhow::Result<()> {
    output_with(kubectl(artifacts).args(["apply", "--server-side", "--force-conflicts", "-f", "-"]), DNS)
        .context("cannot apply the cluster's DNS")?;
    wait_until("DNS serves", Duration::from_secs(60), Duration::from_millis(200), dns::serves)
}

/// Waits until a pod can be created in `default`: its service account is made some seconds after the namespace.
pub(crate) fn wait_for_default_account(artifacts: &Artifacts) -> anyhow::Result<()> {
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    let there = || get_raw(artifacts, path).is_some();
    wait_until("default service account", Duration::from_secs(60), Duration::from_millis(200), there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ready_true_is_ready() {
        let text = r#"{"items":[
            {"metadata":{"name":"node1"},"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-11-22T18:00:00Z"}]}},
            {"metadata":{"name":"node2"},"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}},
            {"metadata":{"name":"node3"},"status":{"conditions":[{"type":"DiskPressure","status":"True"}]}},
            {"metadata":{"name":"node4"},"status":{}}]}"#;
        let ready = parse_ready_nodes(text).unwrap();
        assert_eq!(ready, BTreeMap::from([("node1".into(), "2026-11-22T18:00:00Z".into())]));
        assert_eq!(parse_ready_nodes("no"), None);
    }
}
