//! What counts as a count: a whole number, 0 or more, small enough that nobody rounded it.

use serde_json::Value;

use super::error::{AskError, excerpt};

/// 2^53: up to here every JSON reader keeps whole numbers exact.
pub(crate) const LIMIT: u64 = 1 << 53;

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

/// From a float.
pub(crate) fn from_float(what: &str, value: f64) -> Result<u64, AskError> {
    whole(value).ok_or_else(|| AskError::NotACount { what: what.to_owned(), found: format!("{value:?}") })
}

fn whole(value: f64) -> Option<u64> {
    // Exact: below 2^53 every whole f64 is a u64. NaN fails the first comparison.
    (value >= 0.0 && value < LIMIT as f64 && value.fract() == 0.0).then_some(value as u64)
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
        assert_eq!(from_float("x", 2e3).unwrap(), 2000);
        assert_eq!(from_float("x", -0.0).unwrap(), 0);
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
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.1, 1e308] {
            assert!(from_float("x", value).is_err(), "{value}");
        }
    }
}
