//! Whoever reviews rights reads the chart's README: it names each that the chart's roles give.

/// The words between brackets of `resources: [pods]`.
fn list<'a>(line: &'a str, key: &str) -> Option<Vec<&'a str>> {
    let list = line.trim().trim_start_matches("- ").strip_prefix(key)?.trim().strip_prefix('[')?;
    Some(list.trim_end_matches(']').split(',').map(str::trim).collect())
}

#[test]
fn the_chart_says_what_the_operator_may_do() {
    let roles = concat!(
        include_str!("../../charts/graceful-operator/templates/_rules.tpl"),
        include_str!("../../charts/graceful-operator/templates/rbac.yaml")
    );
    let readme = include_str!("../../charts/graceful-operator/README.md").to_lowercase();
    let section = readme.split_once("## what it may do").map_or("", |(_, after)| after);
    let section = section.split("\n## ").next().unwrap_or_default();
    let (mut resources, mut rules) = (Vec::new(), 0);
    for line in roles.lines() {
        if let Some(found) = list(line, "resources:") {
            resources = found;
        }
        let Some(verbs) = list(line, "verbs:") else { continue };
        let writes: Vec<_> = verbs.into_iter().filter(|v| !["get", "list", "watch"].contains(v)).collect();
        for resource in &resources {
            rules += 1;
            // "secret" and "secrets", "deployments" and their "scale".
            let words: Vec<_> = resource.split('/').map(|word| word.trim_end_matches('s')).collect();
            let says = |clause: &str| {
                words.iter().all(|word| clause.contains(word))
                    && writes.iter().all(|verb| clause.contains(verb))
            };
            assert!(
                section.split(';').any(says),
                "charts/graceful-operator/README.md, What it may do, does not say {writes:?} of {resource}"
            );
        }
    }
    assert!(rules > 10, "only {rules} rules were found");
}
