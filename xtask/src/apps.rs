//! What people paste from `docs/apps`: a unit test reads it as the operator does, and `charts` applies it to a real API server by a dry run.

use std::fs;

use anyhow::{Context, ensure};

use crate::run::root;

const PAGES: &str = "docs/apps";

/// A spec on one of the pages.
pub(crate) struct Pasted {
    /// The page, from the root of the repository.
    pub(crate) page: String,
    pub(crate) yaml: String,
}

/// Every spec of every page, in the order of their names.
pub(crate) fn pasted() -> anyhow::Result<Vec<Pasted>> {
    let mut all = Vec::new();
    for page in pages()? {
        let text = fs::read_to_string(root().join(&page))?;
        let specs = fenced(&text).with_context(|| page.clone())?;
        all.extend(specs.into_iter().map(|yaml| Pasted { page: page.clone(), yaml }));
    }
    Ok(all)
}

fn pages() -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(root().join(PAGES))?;
    let names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    let mut pages: Vec<String> = names.into_iter().filter(|name| name != "README.md").collect();
    pages.sort();
    Ok(pages.into_iter().map(|name| format!("{PAGES}/{name}")).collect())
}

/// The blocks between ```` ```yaml ```` and ```` ``` ````. On these pages each is a whole GracefulApp, so that none is left out by a slip in its head.
fn fenced(text: &str) -> anyhow::Result<Vec<String>> {
    let blocks: Vec<String> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block.to_owned())
        .collect();
    ensure!(!blocks.is_empty(), "it has no spec to paste, in a block of its own that begins with ```yaml");
    for block in &blocks {
        ensure!(block.contains("kind: GracefulApp\n"), "this is no GracefulApp:\n{block}");
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use graceful_api::{GracefulApp, Validated};
    use serde_json::Value;

    use super::*;

    /// Every member that was written is there after reading: a misspelt one is dropped by the types, and would be pruned.
    fn dropped(written: &Value, read: &Value, path: &str) -> Vec<String> {
        let Value::Object(members) = written else { return Vec::new() };
        let each = members.iter().flat_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match read.get(name) {
                Some(read) => dropped(value, read, &path),
                None => vec![path],
            }
        });
        each.collect()
    }

    #[test]
    fn every_spec_to_paste_is_valid() {
        let all = pasted().unwrap();
        assert!(all.len() >= 11, "only {} specs: are the pages still there?", all.len());
        for Pasted { page, yaml } in all {
            let app: GracefulApp = serde_saphyr::from_str(&yaml).unwrap_or_else(|e| panic!("{page}: {e}"));
            let valid = Validated::try_from(&app).unwrap_or_else(|errors| panic!("{page}: {errors:?}"));
            assert_eq!(valid.grace_warning, None, "{page}");
            let written: Value = serde_saphyr::from_str(&yaml).unwrap();
            let dropped = dropped(&written["spec"], &serde_json::to_value(&app.spec).unwrap(), "spec");
            assert_eq!(dropped, Vec::<String>::new(), "{page} writes what is no field");
        }
    }

    #[test]
    fn every_page_is_in_the_index() {
        let index = fs::read_to_string(root().join(PAGES).join("README.md")).unwrap();
        for page in pages().unwrap() {
            let name = page.trim_start_matches(PAGES).trim_start_matches('/');
            assert!(index.contains(&format!("]({name})")), "{page} is not in the index");
        }
    }

    #[test]
    fn a_block_that_is_no_app_is_refused() {
        let app = "```yaml\nkind: GracefulApp\nspec: {}\n```\n";
        assert_eq!(fenced(&format!("text\n{app}more\n{app}")).unwrap().len(), 2);
        assert!(fenced(&format!("{app}```yaml\nkind: Deployment\n```\n")).is_err());
        assert!(fenced("no block").is_err());
    }
}
