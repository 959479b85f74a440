//! What is remembered of a Deployment that was adopted: written on itself, so that whoever lets go of it again, another operator perhaps, can put it right.

use serde::{Deserialize, Serialize};

use crate::names;

/// The value of [`names::ADOPTED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// The Deployment's own uid: a copy that somebody made of it is not adopted.
    pub uid: String,
    /// The Deployment was paused before.
    #[serde(default)]
    pub paused: bool,
    /// Its [`names::ARGO_SYNC_OPTIONS`] before, if it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_options: Option<String>,
}

impl Adopted {
    /// As the annotation's value.
    pub fn to_annotation(&self) -> String {
        // Serializing cannot fail: there are no maps, and no custom errors.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From an annotation's value.
    pub fn from_annotation(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What Argo CD is to be told while the Deployment is ours: what it was told before, and that it must not delete it.
    pub fn sync_options_now(&self) -> String {
        let others = self.sync_options.iter().flat_map(|all| all.split(',').map(str::trim));
        let others = others.filter(|one| !one.is_empty() && !one.starts_with("Prune="));
        others.chain([names::ARGO_KEEP]).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argo_cd_keeps_it_and_does_what_else_it_was_told() {
        let now = |before: Option<&str>| {
            let sync_options = before.map(str::to_owned);
            Adopted { uid: "u".to_owned(), paused: false, sync_options }.sync_options_now()
        };
        assert_eq!(now(None), "Prune=false");
        assert_eq!(now(Some("")), "Prune=false");
        assert_eq!(now(Some("Replace=true, Prune=true")), "Replace=true,Prune=false");
        assert_eq!(now(Some("Prune=false")), "Prune=false");
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let adopted =
            Adopted { uid: "u".to_owned(), paused: true, sync_options: Some("Prune=true".to_owned()) };
        assert_eq!(Adopted::from_annotation(&adopted.to_annotation()).unwrap(), adopted);
        assert!(Adopted::from_annotation("{}").is_err(), "without the uid it says nothing");
    }
}
