//! Turning a derived schema into one that the API server takes and that passes pod templates through untouched.

use serde_json::{Map, Value, json};

/// Keeps what users read and drops what only Rust needs: formats of unsigned integers, line breaks of doc
/// comments, and `nullable`: without it the API server takes a null for absent, so that defaults and CEL see none.
pub(crate) fn tidy(schema: &mut Value) {
    let Value::Object(node) = schema else { return };
    if let Some(Value::String(text)) = node.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    match node.get("format").and_then(Value::as_str) {
        Some("uint32") => node.insert("format".to_owned(), json!("int32")),
        Some("uint64") => node.insert("format".to_owned(), json!("int64")),
        Some(_) | None => None,
    };
    node.remove("nullable");
    for bound in ["minimum", "maximum"] {
        if let Some(value) = node.get_mut(bound) {
            *value = whole(value);
        }
    }
    for child in children(node) {
        tidy(child);
    }
}

/// A pod template's schema: known fields typed, unknown ones kept, no descriptions of types that are not ours.
pub(crate) fn pass_through(schema: &mut Value) {
    let Value::Object(node) = schema else { return };
    node.remove("description");
    // Preserving is not inherited: each object says it.
    if node.contains_key("properties") {
        node.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            // A quantity is `500m`, `1`, but also `0.5`, which int-or-string would refuse.
            if is_int_or_string(property) && name != "port" {
                *property = any();
            }
        }
    }
    if node.get("additionalProperties").is_some_and(is_int_or_string) {
        node.insert("additionalProperties".to_owned(), any());
    }
    for child in children(node) {
        pass_through(child);
    }
}

/// The schema at a path of property names; `[]` steps into a list's items.
pub(crate) fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let node = path.split('.').filter(|step| !step.is_empty()).fold(schema, |node, step| match step {
        "[]" => &mut node["items"],
        name => &mut node["properties"][name],
    });
    node.as_object_mut().expect("the paths here are of our own schema: a test walks them all")
}

/// The same number without a fraction of zero, which YAML would show.
fn whole(value: &Value) -> Value {
    value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map_or(value.clone(), |n| json!(n as i64))
}

fn any() -> Value {
    json!({"x-kubernetes-preserve-unknown-fields": true})
}

fn is_int_or_string(schema: &Value) -> bool {
    schema.get("x-kubernetes-int-or-string").is_some()
}

/// The schemas directly below: of properties, items and map values.
fn children(node: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    node.iter_mut().flat_map(|(key, value)| match (key.as_str(), value) {
        ("properties", Value::Object(properties)) => properties.values_mut().collect(),
        ("items" | "additionalProperties", schema @ Value::Object(_)) => vec![schema],
        _ => Vec::new(),
    })
}
