//! `watchNamespaces` and `nodeDrain.enabled`, on a real API server: what the operator's account may then do, and what not.

use anyhow::{Context, ensure};

use crate::api_server::{OPERATOR, Server};

/// The release, which is as good as installed: its accounts and roles are.
const RELEASE: &str = "rights-check";

/// A Role in each namespace is all that an operator of some namespaces has, and nodes are its own where it drains them.
pub(crate) fn check(server: &Server) -> anyhow::Result<()> {
    for (node_drain, nodes) in [("true", true), ("false", false)] {
        let watched = format!("watchNamespaces={{{}}}", server.namespace);
        let node_drain = format!("nodeDrain.enabled={node_drain}");
        let render = ["template", RELEASE, OPERATOR, "-n", &server.namespace, "--show-only"];
        let sets = ["templates/rbac.yaml", "--validate", "--set", &watched, "--set", &node_drain];
        let roles = server.helm(&[&render[..], &sets].concat())?;
        server.kubectl(&["apply", "-f", "-"], Some(&roles))?;
        let judged = judge(server, nodes);
        let removed = server.kubectl(&["delete", "--ignore-not-found", "-f", "-"], Some(&roles));
        judged.with_context(|| format!("with {node_drain}"))?;
        removed?;
    }
    Ok(())
}

fn judge(server: &Server, nodes: bool) -> anyhow::Result<()> {
    let namespace = server.namespace.as_str();
    for (may, what) in [
        (true, vec!["get", "gracefulapps,deployments,pods,services,poddisruptionbudgets", "-n", namespace]),
        (true, vec!["get", "horizontalpodautoscalers", "-n", namespace]),
        (true, vec!["get", "namespace", namespace]),
        (nodes, vec!["get", "nodes"]),
        (false, vec!["get", "namespace", "kube-system"]),
        (false, vec!["get", "pods", "-n", "kube-system"]),
        (false, vec!["get", "pods", "--all-namespaces"]),
        (false, vec!["get", "gracefulapps", "--all-namespaces"]),
        (false, vec!["get", "secrets", "-n", namespace]),
    ] {
        let account = format!("--as=system:serviceaccount:{namespace}:{RELEASE}-graceful-operator");
        let said = server.kubectl(&[&what[..], &[account.as_str()]].concat(), None);
        let what = what.join(" ");
        match said {
            Ok(_) => ensure!(may, "the operator may `kubectl {what}`"),
            Err(refused) => {
                let words = format!("{refused:#}");
                ensure!(!may && words.contains("Forbidden"), "`kubectl {what}`: {words}");
            }
        }
    }
    Ok(())
}
