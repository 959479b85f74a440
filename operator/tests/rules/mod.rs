//! What the chart's roles give, as its files say it.

const ROLES: &str = concat!(
    include_str!("../../../charts/graceful-operator/templates/_rules.tpl"),
    include_str!("../../../charts/graceful-operator/templates/rbac.yaml")
);

/// A rule's resources and verbs, in the order of the files.
pub(crate) fn rules() -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let (mut rules, mut resources) = (Vec::new(), Vec::new());
    for line in ROLES.lines() {
        if let Some(found) = list(line, "resources:") {
            resources = found;
        }
        if let Some(verbs) = list(line, "verbs:") {
            rules.push((resources.clone(), verbs));
        }
    }
    assert!(rules.len() > 10, "only {} rules were found", rules.len());
    rules
}

/// The words between brackets of `resources: [pods]`.
fn list<'a>(line: &'a str, key: &str) -> Option<Vec<&'a str>> {
    let list = line.trim().trim_start_matches("- ").strip_prefix(key)?.trim().strip_prefix('[')?;
    Some(list.trim_end_matches(']').split(',').map(str::trim).collect())
}
