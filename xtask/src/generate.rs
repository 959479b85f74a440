//! `cargo xtask gen` (a keyword in Rust, hence the name of this file): every generated file. A test in this file fails where one drifts.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::run::{cargo, root};
use crate::{kustomize, promises};

/// Writes all generated files.
pub(crate) fn write_all() -> anyhow::Result<()> {
    for (path, content) in generated().into_iter().chain([("docs/promises.md", promises::page()), openapi()?])
    {
        let path = root().join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        if fs::read_to_string(&path).is_ok_and(|there| there == content) {
            continue;
        }
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// Each generated file, from the workspace's root, with what must be in it.
fn generated() -> Vec<(&'static str, String)> {
    let crd = graceful_api::crd_yaml();
    vec![
        ("charts/graceful-crds/templates/gracefulapps.graceful.dev.yaml", kept_on_uninstall(&crd)),
        ("crds/gracefulapps.graceful.dev.yaml", crd),
        ("crds/kustomize/kustomizeconfig.yaml", kustomize::config()),
        ("crds/kustomize/openapi.yaml", kustomize::openapi()),
    ]
}

/// The API's description. By a program of the server's, so that xtask need not be built with all of the server; the test
/// that it does not drift is the server's too.
fn openapi() -> anyhow::Result<(&'static str, String)> {
    let mut print = cargo();
    print.args(["run", "--quiet", "--locked", "--package", "graceful-server", "--example", "openapi"]);
    let printed = print.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !printed.status.success() {
        bail!("{print:?}: {}", printed.status);
    }
    Ok(("server/openapi.json", String::from_utf8(printed.stdout)?))
}

/// The CRD for the chart: deleting a CRD deletes all its objects, so that `helm uninstall` must leave it.
fn kept_on_uninstall(crd: &str) -> String {
    crd.replacen("\nmetadata:\n", "\nmetadata:\n  annotations:\n    helm.sh/resource-policy: keep\n", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_do_not_drift() {
        for (path, content) in generated() {
            let there = fs::read_to_string(root().join(path)).unwrap_or_default();
            // As values: in which order the keys come depends on the features that others of the workspace give to
            // serde_json when all of it is built at once.
            let value = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap();
            assert!(
                value(&there) == value(&content),
                "{path} is not what the code generates: run `cargo xtask gen` and commit it"
            );
        }
    }

    #[test]
    fn the_chart_keeps_the_crd_on_uninstall() {
        let crd = kept_on_uninstall(&graceful_api::crd_yaml());
        assert_eq!(crd.matches("helm.sh/resource-policy: keep").count(), 1);
        assert!(!crd.contains("{{"), "helm would read it as a template");
    }
}
