//! What a pod says to evictions and autoscalers under `disruption: HoldWhileBusy`: a label that the PodDisruptionBudget selects, and the annotations that
//! cluster-autoscaler and Karpenter go by.
//!
//! An annotation that the user's template has is the user's and is never written; [`OURS`] on the pod names those that are not.

use serde_json::{Map, Value, json};

/// Label: `"true"` on pods that are not known to be idle.
pub const BUSY_LABEL: &str = "graceful.dev/busy";
/// The only value of [`BUSY_LABEL`].
pub const BUSY: &str = "true";
/// Annotation on a pod: which of the autoscalers' annotations the operator keeps in step with the label, by name, with commas.
pub const OURS: &str = "graceful.dev/autoscaler-annotations";

/// An annotation that an autoscaler goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoscalerAnnotation {
    /// Its name.
    pub key: &'static str,
    /// Its value on a busy pod.
    pub busy: &'static str,
    /// Its value on an idle one; none: it is taken off.
    pub idle: Option<&'static str>,
}

/// All that are kept in step.
pub const AUTOSCALERS: [AutoscalerAnnotation; 2] = [
    // An idle pod with a local volume would keep its node as well.
    AutoscalerAnnotation {
        key: "cluster-autoscaler.kubernetes.io/safe-to-evict",
        busy: "false",
        idle: Some("true"),
    },
    AutoscalerAnnotation { key: "karpenter.sh/do-not-disrupt", busy: "true", idle: None },
];

/// The autoscalers' annotations that are ours on an object with these annotations: as it says itself, or else those that are not there.
pub fn ours<'a>(of: impl Fn(&str) -> Option<&'a str>) -> Vec<AutoscalerAnnotation> {
    let named = of(OURS).map(|names| names.split(',').map(str::to_owned).collect::<Vec<_>>());
    let is_ours = |a: &AutoscalerAnnotation| match &named {
        Some(named) => named.iter().any(|name| name == a.key),
        None => of(a.key).is_none(),
    };
    AUTOSCALERS.into_iter().filter(is_ours).collect()
}

/// The annotations of a pod that is marked so; null takes one off.
pub fn annotations(ours: &[AutoscalerAnnotation], busy: bool) -> Map<String, Value> {
    let names: Vec<_> = ours.iter().map(|a| a.key).collect();
    let each = ours.iter().map(|a| {
        let value = if busy { Some(a.busy) } else { a.idle };
        (a.key.to_owned(), json!(value))
    });
    each.chain([(OURS.to_owned(), json!(names.join(",")))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_wrote_is_the_users() {
        let theirs = |key: &str| (key == "karpenter.sh/do-not-disrupt").then_some("false");
        let found = ours(theirs);
        assert_eq!(found.iter().map(|a| a.key).collect::<Vec<_>>(), [AUTOSCALERS[0].key]);
        let written = annotations(&found, true);
        assert_eq!(written.get("karpenter.sh/do-not-disrupt"), None);
        let again = |key: &str| theirs(key).or_else(|| written.get(key).and_then(Value::as_str));
        assert_eq!(ours(again), found, "known by what was written, though it is there now");
        assert_eq!(
            Value::Object(annotations(&ours(|_| None), false)),
            json!({"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "karpenter.sh/do-not-disrupt": null,
                "graceful.dev/autoscaler-annotations": "cluster-autoscaler.kubernetes.io/safe-to-evict,karpenter.sh/do-not-disrupt"})
        );
    }
}
