//! What counts as a count: a whole number, 0 or more, small enough that nobody rounded it.

pub(crate) use graceful_prometheus::COUNT_LIMIT as LIMIT;
use graceful_prometheus::whole;
use serde_json::Value;

use super::error::{AskError, excerpt};

/// From JSON. `what` names it in the error.
pub(crate) fn from_json(what: &str, value: &Value) -> Result<u64, AskError> {
    let number = match value {
        // 3.0 is the whole number 3 (JSON Schema says so too), and some languages have no other.
        Value::Number(number) => {
            number.as_u64().filter(|n| *n < LIMIT).or_else(|| number.as_f64().and_then(whole))
        }
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.ok_or_else(|| AskError::NotACount { what: what.to_owned(), found: shown(value) })
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string {:?}", excerpt(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => excerpt(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::probe::AskErrorClass;

    #[test]
    fn whole_numbers_are_counts() {
        for (value, count) in [(json!(0), 0), (json!(3), 3), (json!(3.0), 3), (json!(LIMIT - 1), LIMIT - 1)] {
            assert_eq!(from_json("x", &value).unwrap(), count);
        }
    }

    /// Keeps P7.
    #[test]
    fn anything_else_is_busy() {
        for value in [
            json!(-1),
            json!(0.5),
            json!(1e308),
            json!("3"),
            json!(null),
            json!(true),
            json!([0]),
            json!({}),
            json!(LIMIT),
        ] {
            let error = from_json("x", &value).unwrap_err();
            assert_eq!(error.class(), AskErrorClass::NotACount, "{value}");
        }
    }
}
