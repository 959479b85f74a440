//! The modules of the operator, and those of its planner, stand on each other and never in a circle: what `docs/architecture.md` draws. Those of the other crates
//! have no such picture, and no circle either.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The operator's, from the top down. Whoever adds a module says here what it stands on.
const OPERATOR: &[&str] = &[
    "run",
    "watch",
    "reconcile",
    "operator",
    "memory",
    "report",
    "execute",
    "observe",
    "probe",
    "telemetry",
    "schedule",
    "requeue",
    "writes",
    "unseen_writes",
    "contest",
    "concern",
    "keys",
    "leader",
    "error",
    "pulse",
    "index",
    "decode",
    "clock",
    "app_ref",
    "digest",
    "merge",
];

/// The planner's, likewise.
const PLANNER: &[&str] = &[
    // An app that goes; what people are shown.
    "teardown",
    "status",
    "waiting_for",
    "stall",
    "drain_words",
    "node_words",
    "new_pods",
    "way_out",
    // The rules, and what some of them share.
    "leave",
    "converse",
    "marks",
    "upkeep",
    "adoption",
    "rollout",
    "node_drain",
    "drains",
    "bridge",
    "spares",
    "put_back",
    "unroute",
    "retire",
    "creation_backoff",
    "draft",
    // What is known of an app beyond its snapshot.
    "budget",
    "course",
    "expendable",
    "going_nodes",
    "overdue",
    "settled",
    "others",
    "token_refused",
    "astray",
    // What the operator keeps up between two plans, and asks just before a kill.
    "brake",
    "lag",
    "dialogue",
    "refusals",
    "retirement",
    "last_look",
    // The proofs, and the facts.
    "proofs",
    "endpoints",
    "snapshot",
    "handed_over",
    "condemned",
    "busy",
    // The data.
    "action",
    "report",
    "observed",
    "contact",
    "conversation",
    "ids",
    // The floor.
    "phrases",
    "doubling",
    "count",
    "clock",
];

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// The top module that a file belongs to.
fn module(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).ok().and_then(|within| within.components().next());
    first
        .map(|name| name.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned())
        .unwrap_or_default()
}

/// How many modules a file's own stands below the crate: 0 for a top module.
fn depth(src: &Path, file: &Path) -> usize {
    let within = file.strip_prefix(src).unwrap_or(file);
    let of_its_folder = within.ends_with("mod.rs");
    within.components().count().saturating_sub(if of_its_folder { 2 } else { 1 })
}

/// The modules that a path's rest begins with: one, or in `{a, b::{c, d}}` those of the list.
fn heads(rest: &str) -> Vec<String> {
    let name =
        |path: &str| path.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut open = 0_u32;
    let mut names = vec![name(list)];
    for (at, c) in list.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => break,
            '}' => open -= 1,
            ',' if open == 0 => names.push(name(&list[at + 1..])),
            _ => {}
        }
    }
    names
}

/// The top modules that a text names: with `crate::`, and with as many `super::` as lead out of its own.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    // Tests may look at anything, and a doc comment at whoever calls.
    let production = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = production.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let out = "super::".repeat(depth + 1);
    let paths = code.split("crate::").skip(1).chain(code.split(out.as_str()).skip(1));
    paths.flat_map(heads).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    let seen = |text, depth| imports(text, depth).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(seen("use crate::error::Error;", 0), "error");
    assert_eq!(seen("use crate::{error::{Error, call}, Root, merge, watch};", 0), "error merge watch");
    assert_eq!(seen("use crate::{\n    app_ref::AppRef,\n    run,\n};\nuse jiff::{a, b};", 1), "app_ref run");
    assert_eq!(seen("use super::{watch, run::Run};", 0), "run watch");
    assert_eq!(seen("use super::neighbour;", 1), "", "of its own top module");
    assert_eq!(seen("use super::super::watch;\npub(super) fn f() {}", 1), "watch");
    assert_eq!(seen("#[cfg(test)]\nmod tests {\n    use super::{own, *};\n}", 0), "", "its own tests");
}

#[test]
fn imports_point_down() -> io::Result<()> {
    let operator = Path::new(env!("CARGO_MANIFEST_DIR"));
    point_down(&operator.join("src"), OPERATOR)?;
    point_down(&operator.join("plan/src"), PLANNER)
}

/// The crate's own face, and tests, may look at anything.
fn apart(path: &Path) -> bool {
    let name = path.to_string_lossy();
    ["lib.rs", "main.rs", "fuzzing.rs", "fixture.rs"].iter().any(|end| name.ends_with(end))
        || name.contains("tests")
        || name.contains("api_faults")
}

fn point_down(src: &Path, order: &[&str]) -> io::Result<()> {
    let place = |module: &str| order.iter().position(|m| *m == module);
    let mut seen = BTreeSet::new();
    for file in files(src)?.into_iter().filter(|file| !apart(file)) {
        let imports = imports(&fs::read_to_string(&file)?, depth(src, &file));
        let module = module(src, &file);
        let own = place(&module).unwrap_or_else(|| panic!("module {module} has no place in the order"));
        for other in imports.iter().filter(|other| **other != module) {
            let below = place(other)
                .unwrap_or_else(|| panic!("{module} names crate::{other}, which has no place in the order"));
            assert!(own < below, "{module} stands below {other} and must not import it: {}", file.display());
        }
        seen.insert(module);
    }
    assert_eq!(
        seen.len(),
        order.len(),
        "modules that are gone: {:?}",
        order.iter().filter(|m| !seen.contains(**m)).collect::<Vec<_>>()
    );
    Ok(())
}

/// What each top module of a crate names of the others.
fn neighbours(src: &Path) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in
        files(src)?.into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs") && !apart(file))
    {
        let imports = imports(&fs::read_to_string(&file)?, depth(src, &file));
        named.entry(module(src, &file)).or_default().extend(imports);
    }
    let modules: BTreeSet<_> = named.keys().cloned().collect();
    for (own, others) in &mut named {
        others.retain(|other| other != own && modules.contains(other));
    }
    Ok(named)
}

/// The modules that are left once all are gone that name none that is left, or that none names.
fn circle(mut named: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    loop {
        let left: BTreeSet<_> = named.keys().cloned().collect();
        let wanted: BTreeSet<_> = named.values().flatten().cloned().collect();
        named.retain(|own, others| wanted.contains(own) && others.iter().any(|other| left.contains(other)));
        if named.len() == left.len() {
            return left.into_iter().collect();
        }
    }
}

#[test]
fn a_circle_is_found() {
    let named = |pairs: &[(&str, &[&str])]| {
        let set = |others: &[&str]| others.iter().map(|&other| other.to_owned()).collect();
        pairs.iter().map(|(own, others)| ((*own).to_owned(), set(others))).collect()
    };
    assert_eq!(circle(named(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), Vec::<String>::new());
    let found = circle(named(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &[])]));
    assert_eq!(found, ["b", "c"], "without who stands on it");
}

#[test]
fn no_crate_has_a_circle_of_modules() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for src in [
        "operator/api/src",
        "operator/prometheus/src",
        "server/src",
        "server/store/src",
        "server/drain/src",
        "server/gate/src",
        "server/conformance/src",
        "xtask/src",
    ] {
        let named = neighbours(&root.join(src))?;
        assert!(!named.is_empty(), "{src} has no modules");
        assert_eq!(circle(named), Vec::<String>::new(), "modules of {src} that import each other");
    }
    Ok(())
}

/// Decisions are made by `clock`, which no user sets. What reads the node's wall clock writes it down for people, or has no other yet.
#[test]
fn the_wall_clock_decides_nothing() -> io::Result<()> {
    let may = ["clock.rs", "telemetry/metrics.rs", "report/recorder.rs", "leader/campaign.rs", "decode.rs"];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&src)? {
        let name = file.strip_prefix(&src).unwrap_or(&file).to_string_lossy().into_owned();
        let text = fs::read_to_string(&file)?;
        let production = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let test = ["tests", "api_faults", "hostile", "fuzzing"].iter().any(|part| name.contains(part));
        let reads = production.lines().filter(|line| line.contains("Timestamp::now()")).count();
        assert!(test || may.contains(&name.as_str()) || reads == 0, "{name} reads the wall clock");
    }
    Ok(())
}
