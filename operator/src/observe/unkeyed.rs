//! Revisions whose pods are to verify who drains them, while there are no keys: they wait, and what was made without is told.

use graceful_api::conditions::Reason;
use graceful_api::{Validated, names};
use graceful_plan::{TemplateVerdict, Warning};
use kube::ResourceExt;

use super::revisions::Ours;

/// Nothing is made, nor asked about, of a revision that waits for its keys; what is refused stays so.
pub(super) fn verdict(template: TemplateVerdict, awaited: Option<String>) -> TemplateVerdict {
    match (template, awaited) {
        (TemplateVerdict::Unknown, Some(why)) => TemplateVerdict::Awaits(why),
        (template, _) => template,
    }
}

/// A revision that was made without keys has none for life. `missing`: why there are none now.
pub(super) fn warning(app: &Validated, ours: &[Ours], missing: Option<&str>) -> Option<Warning> {
    let without = |o: &&Ours| o.object.annotations().get(names::WITHOUT_KEYS).is_some_and(|is| is == "true");
    let revision = ours.iter().filter(|o| o.is_in_use()).find(without)?;
    let Validated { name, namespace, .. } = app;
    let first = missing.map(|why| format!("let the operator read them ({why}), then ")).unwrap_or_default();
    let message = format!(
        "pods of revision {} do not verify who drains them: the keys could not be read as it was made; {first}roll again by a change of spec.template, for \
         example `kubectl -n {namespace} patch gracefulapp {name} --type merge -p \
         '{{\"spec\":{{\"template\":{{\"metadata\":{{\"annotations\":{{\"verifies\":\"true\"}}}}}}}}}}'`",
        revision.hash
    );
    Some(Warning { reason: Reason::DoesNotVerify, message })
}
