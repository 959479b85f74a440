use serde_json::{Value, json};

use super::*;
use crate::decode::decode;

fn service(selector: &Value) -> Decoded<Service> {
    decode(&json!({"metadata": {"name": "s"}, "spec": {"selector": selector}}).to_string())
}

fn budget(selector: &Value) -> Decoded<PodDisruptionBudget> {
    decode(&json!({"metadata": {"name": "b"}, "spec": {"selector": selector}}).to_string())
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_selector_is_filed_under_its_pairs_and_never_under_the_label_that_comes_and_goes() {
    assert_eq!(
        by_service_selector(&service(&json!({"app": "x", "graceful.dev/serving": "true"}))),
        ["app=x"]
    );
    assert_eq!(by_service_selector(&service(&json!({"graceful.dev/serving": "true"}))), [ANY]);
    assert!(by_service_selector(&service(&json!({}))).is_empty(), "it has its endpoints from elsewhere");
    assert_eq!(by_budget_selector(&budget(&json!({"matchLabels": {"app": "x"}}))), ["app=x"]);
    assert_eq!(by_budget_selector(&budget(&json!({}))), [ANY], "an empty one selects every pod");
    let expressions = json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]});
    assert_eq!(by_budget_selector(&budget(&expressions)), [ANY]);
    assert!(by_budget_selector(&budget(&Value::Null)).is_empty(), "none selects no pod");
}

#[test]
fn only_the_apps_that_a_selector_may_match_are_concerned() {
    let concerns = Concerns::default();
    let app = |name: &str, namespace: &str| AppRef::new(name).within(namespace);
    for n in 0..100 {
        let pairs = pairs(&labels(&[("app", &format!("x{n}")), ("tier", "web")])).collect();
        concerns.file(&app(&format!("x{n}"), "n"), &pairs);
        concerns.file(&app(&format!("x{n}"), "m"), &pairs);
    }
    let of = |selector: &[(&str, &str)]| concerns.of("n", &labels(selector));
    assert_eq!(of(&[("app", "x7"), ("tier", "web")]), Some(vec![app("x7", "n")]));
    assert_eq!(of(&[("tier", "web")]).unwrap().len(), 100);
    assert_eq!(of(&[("app", "x7"), ("tier", "db")]), Some(Vec::new()));
    assert_eq!(of(&[("graceful.dev/serving", "true")]), None, "any app of ours has that");
    concerns.file(&app("x7", "n"), &pairs(&labels(&[("app", "moved")])).collect());
    assert_eq!(of(&[("app", "x7")]), Some(Vec::new()));
    concerns.forget(&app("x7", "n"));
    assert_eq!(of(&[("app", "moved")]), Some(Vec::new()));
}
