//! What users write and what stands in annotations, damaged in any way: it is read, or refused with a word. Nothing panics.

use graceful_api::{GracefulApp, MetricSelector, Policy, Validated};
use graceful_prometheus::Series;
use proptest::prelude::*;
use serde_json::{Value, json};

const ANNOTATION: &str = r#"{"inFlight":{"container":"web","port":8000,"path":"/metrics","question":{"format":"Prometheus","metrics":["q{state=\"running\"}","p"],"whenAbsent":"Zero","idleAt":1},"pollIntervalSeconds":1,"timeoutSeconds":2},"drain":{"signal":"Sigterm","lingerSeconds":3,"quietSeconds":5,"deadlineSeconds":300,"onDeadline":"Hold"}}"#;

/// Text that is nearly a series.
fn nearly_a_series() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,40}",
        "[q:9_]{0,3}[ \t]?(\\{([ a=,\"\\\\n}é]|a=\"[b\\\\\"]?\"){0,5}\\}?)?[ 0-9eNa.+-]{0,6}"
    ]
}

/// A number at the edges of what a type holds.
fn edge() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(|n| json!(n)),
        any::<u32>().prop_map(|n| json!(n)),
        prop::sample::select(vec![
            0,
            1,
            65_535,
            65_536,
            2_147_483_647,
            2_147_483_648,
            4_294_967_295,
            i64::MAX
        ])
        .prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        "[0-9]{0,12}%?".prop_map(|s| json!(s)),
        Just(json!(null)),
    ]
}

proptest! {
    #[test]
    fn a_series_is_read_or_refused(text in nearly_a_series()) {
        if let Some(series) = Series::read(&text) {
            prop_assert!(text.starts_with(series.name) && text.ends_with(series.rest));
            for (name, value) in series.labels() {
                prop_assert!(text.contains(name) && value.len() <= text.len());
            }
        }
    }

    /// What was read is written so that it is read again as the same.
    #[test]
    fn a_metric_is_the_same_when_it_is_read_again(text in nearly_a_series()) {
        if let Ok(metric) = text.parse::<MetricSelector>() {
            prop_assert_eq!(metric.to_string().parse::<MetricSelector>().unwrap(), metric);
        }
    }

    /// A damaged annotation is refused, or is a policy that can be waited for.
    #[test]
    fn an_annotation_is_read_or_refused(at in 0usize..600, byte: u8, cut: bool) {
        let mut text = ANNOTATION.as_bytes().to_vec();
        let at = at % text.len();
        if cut { text.truncate(at) } else { text[at] = byte }
        if let Ok(policy) = Policy::from_annotation(&String::from_utf8_lossy(&text)) {
            prop_assert!(policy.in_flight.poll_interval().as_secs() >= 1);
            prop_assert!((1..=60).contains(&policy.in_flight.timeout().as_secs()));
            prop_assert_eq!(Policy::from_annotation(&policy.to_annotation()).unwrap(), policy);
        }
    }

    /// Numbers that the types or the arithmetic cannot hold are errors of that one app.
    #[test]
    fn any_number_anywhere_is_valid_or_refused(
        pointer in prop::sample::select(vec![
            "/replicas", "/inFlight/port", "/inFlight/pollIntervalSeconds", "/inFlight/idleAt", "/inFlight/timeoutSeconds",
            "/drain/lingerSeconds", "/drain/quietSeconds", "/drain/deadlineSeconds", "/rollout/maxSurge", "/rollout/maxUnavailable", "/rollout/minReadySeconds",
            "/rollout/progressDeadlineSeconds", "/rollout/revisionHistoryLimit", "/template/spec/terminationGracePeriodSeconds",
            "/template/spec/containers/0/ports/0/containerPort", "/service/ports/0/port", "/service/ports/0/targetPort",
        ]),
        value in edge(),
    ) {
        let mut spec = json!({
            "replicas": 3, "inFlight": {}, "drain": {}, "rollout": {}, "service": {"ports": [{"port": 80}]},
            "template": {"spec": {"containers": [{"name": "web", "ports": [{"name": "admin", "containerPort": 9808}]}]}},
        });
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[field] = value;
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": "tasks"}, "spec": spec});
        if let Ok(app) = serde_json::from_value::<GracefulApp>(app) {
            match Validated::try_from(&app) {
                Ok(valid) => prop_assert!(valid.grace_seconds > 0 || pointer.ends_with("terminationGracePeriodSeconds")),
                Err(errors) => prop_assert!(!errors.is_empty()),
            }
        }
    }
}
