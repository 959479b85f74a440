//! A revision is named by its template alone, and the gate before it if there is one: the same template is the same revision, on any operator version.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::template::Template;

/// Lower-case letters and digits that form no words and are not mistaken for each other, as Kubernetes picks them.
const ALPHABET: &[u8; 25] = b"bcdfghjklmnpqrstvwxz24567";

/// 25^8 is about 2^37: more than the 32 bits of Kubernetes' own pod-template-hash, and short enough for a pod's name.
const LENGTH: usize = 8;

/// The name of a revision: eight characters, safe in any Kubernetes name or label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionHash(pub String);

impl RevisionHash {
    /// Of the user's template. Neither the order of keys nor nulls change it: the API server keeps a null that a Helm
    /// chart renders, and it means the same as nothing.
    pub fn of(template: &Template) -> Self {
        Self::of_text(&canonical(&template.0))
    }

    /// Of the user's template with a gate before it, and what of that is part of the name. No JSON has a bare line break: nothing else reads like it.
    pub(crate) fn of_gated(template: &Template, gate: &Value) -> Self {
        Self::of_text(&format!("{}\n{}", canonical(&template.0), canonical(gate)))
    }

    fn of_text(canonical: &str) -> Self {
        let digest = Sha256::digest(canonical.as_bytes());
        let mut rest = digest.iter().take(16).fold(0u128, |n, byte| n << 8 | u128::from(*byte));
        let base = ALPHABET.len() as u128;
        let name = std::iter::repeat_with(|| {
            let letter = ALPHABET[(rest % base) as usize];
            rest /= base;
            char::from(letter)
        });
        Self(name.take(LENGTH).collect())
    }

    /// The revision that the pods of an adopted Deployment are of. It is no hash of ours: nobody can ask for it by a template.
    pub fn adopted() -> Self {
        Self(crate::names::ADOPTED_REVISION.to_owned())
    }

    /// Whether it is the one of an adopted Deployment.
    pub fn is_adopted(&self) -> bool {
        self.0 == crate::names::ADOPTED_REVISION
    }

    /// As it stands in names and labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RevisionHash {
    fn from(hash: &str) -> Self {
        Self(hash.to_owned())
    }
}

impl fmt::Display for RevisionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// JSON with sorted keys, without null members and without spaces: the same text for the same value, on any version.
pub(crate) fn canonical(value: &Value) -> String {
    let mut canonical = String::new();
    write_canonical(value, &mut canonical);
    canonical
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().filter(|(_, v)| !v.is_null()).collect();
            members.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (i, (key, member)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hash(value: Value) -> String {
        RevisionHash::of(&Template(value)).0
    }

    /// P5: golden: a change here would roll every app of every user when the operator is upgraded (P5).
    #[test]
    fn an_operator_upgrade_renames_no_revision() {
        let template = json!({
            "metadata": {"labels": {"tier": "web"}},
            "spec": {"containers": [{"name": "web", "image": "x:1", "newField": {"a": [1, 2.5, true, "é\"\n"]}}]},
        });
        assert_eq!(hash(template), "ph4cjw6b");
        assert_eq!(hash(json!({})), "bwnx5jk6");
    }

    #[test]
    fn the_adopted_revision_is_never_a_template_s() {
        assert_ne!(crate::names::ADOPTED_REVISION.len(), LENGTH);
        assert!(crate::names::ADOPTED_REVISION.bytes().any(|b| !ALPHABET.contains(&b)));
    }

    #[test]
    fn nulls_and_key_order_do_not_matter() {
        let plain: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": 2}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"b": {"d": null, "c": 2}, "a": 1, "e": null}"#).unwrap();
        assert_eq!(hash(plain), hash(other));
    }

    #[test]
    fn unknown_fields_and_the_order_of_lists_matter() {
        assert_ne!(hash(json!({"x": 1})), hash(json!({"y": 1})));
        assert_ne!(hash(json!([1, 2])), hash(json!([2, 1])));
        assert_ne!(hash(json!({"a": "1"})), hash(json!({"a": 1})));
    }

    #[test]
    fn it_is_safe_in_names() {
        for n in 0..200 {
            let name = hash(json!({ "n": n }));
            assert_eq!(name.len(), LENGTH);
            assert!(name.bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        }
    }
}
