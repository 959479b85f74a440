//! The charts, judged by helm and by a real API server: lint, values schema, server dry run, Pod Security, admission.
//!
//! The CRD chart is installed for real, since rules must be in force to be tried. All else is a dry run in a namespace
//! of its own.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::api_server::{OPERATOR, Server};
use crate::run::root;
use crate::{admission, apps, guard, kustomize, rights};

const CRDS: &str = "charts/graceful-crds";

/// Checks both charts and the sample against the cluster that is up.
pub(crate) fn check() -> anyhow::Result<()> {
    let server = Server::open(format!("charts-{}", std::process::id()))?;
    lint(&server)?;
    values_are_checked(&server)?;
    // A release that is there already is upgraded to the same.
    server.helm(&[
        "upgrade",
        "--install",
        "graceful-crds",
        CRDS,
        "-n",
        "graceful-system",
        "--create-namespace",
    ])?;
    server.kubectl(
        &["wait", "--for=condition=Established", "--timeout=30s", "crd/gracefulapps.graceful.dev"],
        None,
    )?;
    server.kubectl(&["create", "namespace", &server.namespace], None)?;
    let judged = in_namespace(&server);
    // Not waited for: the namespace is empty but for what Kubernetes puts there.
    let removed = server.kubectl(&["delete", "namespace", &server.namespace, "--wait=false"], None);
    judged.and(removed.map(drop))
}

fn lint(server: &Server) -> anyhow::Result<()> {
    for chart in [OPERATOR, CRDS] {
        server.helm(&["lint", "--strict", "--quiet", chart])?;
    }
    Ok(())
}

/// A value with a typo or of a wrong type is refused, not ignored.
fn values_are_checked(server: &Server) -> anyhow::Result<()> {
    for wrong in [
        "image.tag=5",
        "imgae.tag=x",
        "admissionPolicy.enabled=maybe",
        "admissionPolicy.operators=me",
        "tokens.enabled=1",
        "gate.image.tag=5",
    ] {
        let refused = server.helm(&["template", "x", OPERATOR, "--validate", "--set", wrong]);
        ensure!(refused.is_err(), "the values schema lets {wrong} pass");
    }
    Ok(())
}

fn in_namespace(server: &Server) -> anyhow::Result<()> {
    // A Deployment that Pod Security would refuse the pods of is warned of, once the namespace asks for it.
    let level = "pod-security.kubernetes.io/warn=restricted";
    server.kubectl(&["label", "namespace", &server.namespace, level], None)?;
    let render = ["template", "charts-check", OPERATOR, "--validate", "-n", &server.namespace];
    let chart = server.helm(&render)?;
    server.dry_run(&chart).context("the operator's chart")?;
    for sample in
        ["samples/tasks.yaml", "samples/tasks-postgres.yaml", "samples/gate.yaml", "samples/adopt/app.yaml"]
    {
        server.dry_run(&fs::read_to_string(root().join(sample))?).context(sample)?;
    }
    for apps::Pasted { page, yaml } in apps::pasted()? {
        server.dry_run(&yaml).context(page)?;
    }
    least_privilege(&chart)?;
    let without = server.helm(&[&render[..], &["--set", "tokens.enabled=false"]].concat())?;
    without_tokens(&chart, &without)?;
    admission::check(server)?;
    kustomize::check::check(server).context("kustomize")?;
    rights::check(server).context("the roles of an operator of some namespaces")?;
    guard::check(server)
}

/// What `tokens.enabled: false` takes away, and all that it is to take away is there otherwise.
fn without_tokens(with: &str, without: &str) -> anyhow::Result<()> {
    let all = ["a Secret", "a rule for Secrets", "the environment of the operator"];
    let (with, without) = (token_parts(with)?, token_parts(without)?);
    for part in all {
        ensure!(with.contains(part), "the chart has not {part} for tokens: nothing was judged");
        ensure!(!without.contains(part), "with tokens.enabled=false the chart has {part} for tokens");
    }
    Ok(())
}

/// What of a rendered chart is for tokens.
fn token_parts(chart: &str) -> anyhow::Result<BTreeSet<&'static str>> {
    let mut parts = BTreeSet::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for object in serde_saphyr::from_multiple::<Value>(chart).context("the rendered chart")? {
        let rules = object["rules"].as_array().into_iter().flatten();
        let resources = rules.flat_map(|rule| rule["resources"].as_array().into_iter().flatten());
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
        let variables = containers.flat_map(|c| c["env"].as_array().into_iter().flatten());
        let found = [
            ("a Secret", object["kind"] == "Secret"),
            ("a rule for Secrets", resources.into_iter().any(|resource| resource == "secrets")),
            (
                "the environment of the operator",
                variables.into_iter().any(|v| text(&v["name"]).starts_with("GRACEFUL_TOKEN")),
            ),
        ];
        parts.extend(found.into_iter().filter(|(_, is)| *is).map(|(part, _)| part));
    }
    Ok(parts)
}

/// No wildcard, no `exec`, and no Secret but the operator's own: a role that grows one is caught here.
fn least_privilege(chart: &str) -> anyhow::Result<()> {
    let mut rules = 0;
    for object in serde_saphyr::from_multiple::<Value>(chart).context("the rendered chart")? {
        if !matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")) {
            continue;
        }
        for rule in object["rules"].as_array().into_iter().flatten() {
            rules += 1;
            if object["kind"] == "Role" && is_of_its_own_keys(rule) {
                continue;
            }
            let lists =
                ["apiGroups", "resources", "verbs", "nonResourceURLs"].map(|key| rule[key].as_array());
            let words = lists.into_iter().flatten().flatten().filter_map(Value::as_str);
            // "pods/exec" is as forbidden as "exec".
            if let Some(word) = words.flat_map(|w| w.split('/')).find(|w| FORBIDDEN.contains(w)) {
                bail!("the chart's role asks for {word}: {rule}");
            }
        }
    }
    ensure!(rules > 0, "the rendered chart has no role: nothing was judged");
    Ok(())
}

/// In its own namespace, one Secret by its name, read and patched.
fn is_of_its_own_keys(rule: &Value) -> bool {
    let words = |key: &str| -> Vec<_> {
        rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    words("resources") == ["secrets"]
        && matches!(words("resourceNames").as_slice(), [one] if one.ends_with("-drain-keys"))
        && words("verbs") == ["get", "patch"]
}

/// What the operator must never be given: each leads to other powers, or to secrets.
const FORBIDDEN: [&str; 6] = ["*", "secrets", "exec", "escalate", "impersonate", "bind"];

#[cfg(test)]
mod tests {
    use super::{least_privilege, without_tokens};

    fn role(rule: &str) -> String {
        format!("kind: ConfigMap\n---\nkind: ClusterRole\nrules:\n- {rule}\n")
    }

    #[test]
    fn a_role_that_asks_for_too_much_is_refused() {
        assert!(least_privilege(&role("{apiGroups: [\"\"], resources: [pods], verbs: [get]}")).is_ok());
        assert!(
            least_privilege(&role("{apiGroups: [\"\"], resources: [pods/exec], verbs: [create]}")).is_err()
        );
        assert!(least_privilege(&role("resources:\n  - secrets\n  verbs: [get]")).is_err());
        assert!(least_privilege(&role("{apiGroups: [\"*\"], resources: [pods], verbs: [get]}")).is_err());
        assert!(least_privilege("kind: ConfigMap\n").is_err(), "nothing was judged");
    }

    #[test]
    fn of_secrets_it_may_have_its_own_keys_alone() {
        let own = "{resources: [secrets], resourceNames: [x-drain-keys], verbs: [get, patch]}";
        let namespaced = |rule: &str| role(rule).replace("ClusterRole", "Role");
        assert!(least_privilege(&namespaced(own)).is_ok());
        assert!(least_privilege(&role(own)).is_err(), "everywhere");
        for (from, to) in [
            ("get, patch", "get, list, patch"),
            ("x-drain-keys", "other"),
            ("[x-drain-keys]", "[a-drain-keys, b-drain-keys]"),
            ("resourceNames: [x-drain-keys], ", ""),
            ("[secrets]", "[secrets, pods/exec]"),
        ] {
            let more = own.replace(from, to);
            assert!(least_privilege(&namespaced(&more)).is_err(), "{more}");
        }
    }

    #[test]
    fn a_chart_without_tokens_has_nothing_of_them() {
        let (secret, rule) = ("kind: Secret\n---\n", "kind: Role\nrules:\n- resources: [secrets]\n---\n");
        let container = "{name: operator, env: [{name: GRACEFUL_TOKEN_VERIFY, value: \"true\"}]}";
        let deployment =
            format!("kind: Deployment\nspec: {{template: {{spec: {{containers: [{container}]}}}}}}\n");
        let with = format!("{secret}{rule}{deployment}");
        let rest = "kind: Role\nrules:\n- resources: [leases]\n---\nkind: Deployment\n";
        assert!(without_tokens(&with, rest).is_ok());
        for left in [secret, rule, &deployment] {
            assert!(without_tokens(&with, left).is_err(), "{left} is left");
            assert!(without_tokens(&with.replace(left, ""), rest).is_err(), "{left} was never there");
        }
    }
}
