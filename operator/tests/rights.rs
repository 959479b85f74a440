//! Whoever reviews rights reads the chart's README and SECURITY.md: both say each right that the chart's roles give, and the latter no other.

mod rules;

use std::collections::BTreeSet;

use self::rules::rules;

#[test]
fn the_chart_says_what_the_operator_may_do() {
    let readme = include_str!("../../charts/graceful-operator/README.md").to_lowercase();
    let section = readme.split_once("## what it may do").map_or("", |(_, after)| after);
    let section = section.split("\n## ").next().unwrap_or_default();
    for (resources, verbs) in rules() {
        let writes: Vec<_> = verbs.into_iter().filter(|v| !["get", "list", "watch"].contains(v)).collect();
        for resource in resources {
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
}

/// What SECURITY.md calls a resource. A subresource goes with what it is of.
fn noun(resource: &str) -> &str {
    match resource.split('/').next().unwrap_or_default() {
        "poddisruptionbudgets" => "budgets",
        "leases" => "lease",
        "secrets" => "secret",
        other => other,
    }
}

/// What SECURITY.md calls a verb.
fn plain(verb: &str) -> &str {
    match verb {
        "get" | "list" | "watch" => "read",
        "patch" | "update" => "change",
        other => other,
    }
}

#[test]
fn security_md_says_what_the_operator_may_do_and_nothing_more() {
    let text = include_str!("../../SECURITY.md").to_lowercase();
    let says = text.split_once("**the operator** may").and_then(|(_, rest)| rest.split_once("a test holds"));
    let (says, _) = says.expect("the operator's rights, up to \"A test holds these sentences\"");
    let mut given = BTreeSet::new();
    for (resources, verbs) in rules() {
        for resource in resources {
            given.extend(verbs.iter().map(|verb| (noun(resource).to_owned(), plain(verb).to_owned())));
        }
    }
    let mut said = BTreeSet::new();
    for clause in says.split(['.', ';']) {
        let words: BTreeSet<_> = clause.split(|c: char| !c.is_alphanumeric()).collect();
        let known = |word: &&&str| given.iter().any(|(noun, _)| noun == **word);
        for noun in words.iter().filter(known) {
            let verbs =
                ["read", "create", "change", "delete"].into_iter().filter(|verb| words.contains(verb));
            said.extend(verbs.map(|verb| ((*noun).to_owned(), verb.to_owned())));
        }
    }
    let missing: Vec<_> = given.difference(&said).collect();
    let untrue: Vec<_> = said.difference(&given).collect();
    assert!(
        missing.is_empty() && untrue.is_empty(),
        "SECURITY.md, \"The operator\": the roles also allow {missing:?}, and do not allow {untrue:?}"
    );
}
