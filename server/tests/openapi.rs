//! The OpenAPI document in the repository is the one that the server serves.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeSet;

use graceful_server::api;
use graceful_server::http::Http;
use graceful_server::kind::{Failure, Kind, Kinds};
use graceful_server::running::Running;
use graceful_server::sleep::Sleep;
use serde_json::{Value, json};

fn built_in() -> Kinds {
    let mut kinds = Kinds::default();
    kinds.add(Sleep { task_seconds: "20".parse().unwrap() }).unwrap();
    kinds.add(Http::default()).unwrap();
    kinds
}

#[test]
fn the_document_does_not_drift() {
    let there =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).unwrap_or_default();
    // As values: in which order the keys come depends on the features that others of the workspace give to serde_json.
    let there: Value = serde_json::from_str(&there).unwrap_or_default();
    assert!(
        there == api::document(&built_in()),
        "server/openapi.json is not what the code generates: run `cargo xtask gen` and commit it"
    );
}

#[test]
fn every_error_is_a_problem_and_says_when_to_come_back() {
    let document = api::document(&built_in());
    let mut statuses = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                statuses.insert(status.clone());
                let is_error = status.starts_with('4') || status.starts_with('5');
                if is_error && path != "/v1/health" {
                    let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
                    let waits = response["headers"]["Retry-After"]["required"] == true;
                    assert_eq!(waits, status == "429" || status == "503", "{method} {path} {status}");
                }
            }
        }
    }
    assert!(statuses.contains("422") && statuses.contains("413"), "{statuses:?}");
}

/// A second kind.
struct Echo;

impl Kind for Echo {
    const NAME: &'static str = "echo";
    type Input = Value;
    type Output = Value;

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }

    async fn run(&self, input: Value, _: &Running) -> Result<Value, Failure> {
        Ok(input)
    }
}

#[test]
fn each_kind_has_its_own_body() {
    let mut kinds = built_in();
    kinds.add(Echo).unwrap();
    let body = api::document(&kinds)["components"]["schemas"]["NewTask"].take();
    let variants = body["anyOf"].as_array().unwrap();
    assert_eq!(variants[0]["properties"]["kind"]["enum"], json!(["echo"]));
    assert_eq!(variants[0]["required"], json!(["kind"]), "the default is another");
    assert_eq!(variants[0]["properties"]["input"]["anyOf"][0], json!({"type": "string"}));
    assert_eq!(variants[1]["properties"]["kind"]["enum"], json!(["http"]));
    assert_eq!(variants[1]["required"], json!(["kind", "input"]), "an empty input is none of its");
    assert_eq!(variants[2]["properties"]["kind"]["enum"], json!(["sleep", null]));
    assert_eq!(variants[2].get("required"), None);
}
