//! The part of JSON Schema that `docs/drain-status.schema.json` uses. Fields that it does not name are let pass, as readers of the protocol do.

use jiff::Timestamp;
use serde_json::Value;

/// The schema itself: what is published is what is held.
pub(crate) fn drain_status() -> Value {
    serde_json::from_str(include_str!("../../../docs/drain-status.schema.json")).unwrap_or_default()
}

/// Which member of `value` breaks which keyword.
pub(crate) fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().into_iter().flatten() {
        let holds = match keyword.as_str() {
            "type" => is(rule.as_str().unwrap_or_default(), value),
            "const" => value == rule,
            "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
            "minimum" => value.as_f64().is_none_or(|number| Some(number) >= rule.as_f64()),
            "maximum" => value.as_f64().is_none_or(|number| Some(number) <= rule.as_f64()),
            "minLength" => {
                value.as_str().is_none_or(|text| text.len() as u64 >= rule.as_u64().unwrap_or_default())
            }
            "format" => value.as_str().is_none_or(|text| text.parse::<Timestamp>().is_ok()),
            "required" => nothing_missing(rule, value, at)?,
            "properties" => {
                for (name, rule) in rule.as_object().into_iter().flatten() {
                    if let Some(inner) = value.get(name) {
                        check(rule, inner, &format!("{at}/{name}"))?;
                    }
                }
                true
            }
            _ => true,
        };
        if !holds {
            let at = if at.is_empty() { "the answer" } else { at };
            return Err(format!("{at} is {value}, which breaks {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn nothing_missing(required: &Value, value: &Value, at: &str) -> Result<bool, String> {
    let names = required.as_array().into_iter().flatten().filter_map(Value::as_str);
    match names.into_iter().find(|name| value.get(name).is_none()) {
        Some(missing) => Err(format!("{at}/{missing} is missing")),
        None => Ok(true),
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_example_of_the_protocol_holds_and_each_damage_is_named() {
        let whole = json!({
            "protocol": "v1", "podUid": "", "bootId": "b", "state": "Idle", "accepting": false, "epoch": 7,
            "inFlight": {"total": 0, "queued": 0, "running": 0, "requests": 0}, "connections": 0,
            "oldestSeconds": 0, "resumable": true, "later": ["fields", "are", "let", "pass"],
        });
        let schema = drain_status();
        assert_eq!(check(&schema, &whole, ""), Ok(()));
        for (path, value) in [
            ("/protocol", json!("v2")),
            ("/bootId", json!("")),
            ("/state", json!("idle")),
            ("/accepting", json!("false")),
            ("/epoch", json!(-1)),
            ("/epoch", json!(1.5)),
            ("/epoch", json!(1_u64 << 53)),
            ("/inFlight/total", json!("0")),
            ("/inFlight", json!(0)),
        ] {
            let mut damaged = whole.clone();
            *damaged.pointer_mut(path).unwrap() = value;
            let said = check(&schema, &damaged, "").unwrap_err();
            assert!(said.contains(path), "{path}: {said}");
        }
        let mut damaged = whole.clone();
        damaged["inFlight"].as_object_mut().unwrap().remove("total");
        assert_eq!(check(&schema, &damaged, "").unwrap_err(), "/inFlight/total is missing");
    }
}
