//! Kubernetes' quantities, as far as two must be compared: `500m`, `1`, `0.5`, `64Mi`, `1e3`.

use serde_json::Value;

/// In units; none for what is no quantity.
pub(crate) fn quantity(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => of_text(text.trim()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn of_text(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    Some(number * scale(suffix)?)
}

fn scale(suffix: &str) -> Option<f64> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].iter().position(|s| *s == suffix);
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|s| *s == suffix);
    let power = |base: f64, exponent: usize, less: i32| Some(base.powi(i32::try_from(exponent).ok()? - less));
    match (decimal, binary, suffix.strip_prefix(['e', 'E'])) {
        (Some(n), _, _) => power(1000.0, n, 3),
        (None, Some(n), _) => power(1024.0, n, -1),
        (None, None, Some(exponent)) => Some(10f64.powi(exponent.parse().ok()?)),
        (None, None, None) => None,
    }
}

/// The same amount, however it is spelt.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (quantity(a), quantity(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-9,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_amount_has_many_spellings() {
        for (a, b) in [
            (json!("500m"), json!(0.5)),
            (json!("1"), json!("1000m")),
            (json!("1Gi"), json!("1024Mi")),
            (json!("1e3"), json!("1k")),
            (json!("1E"), json!("1e18")),
            (json!("100u"), json!("0.1m")),
        ] {
            assert!(same(&a, &b), "{a} and {b}");
        }
        assert!(!same(&json!("1G"), &json!("1Gi")));
        for none in
            [json!(""), json!("m"), json!("1 Mi"), json!("1mi"), json!("one"), json!(null), json!("1-2")]
        {
            assert_eq!(quantity(&none), None, "{none}");
        }
    }
}
