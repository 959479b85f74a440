//! The Secret that the keys are kept in. The chart makes it empty; it is read and patched by its name, and never made or deleted here.
//!
//! # Guarantees
//! Every write carries uid and resourceVersion: of two operators that find it empty, one writes, and the other takes what it finds then.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Config};
use serde_json::{Map, Value, json};

use super::ring::{Ring, Unreadable};
use crate::error::{Error, call};

/// Which Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySecret {
    /// Its namespace, the operator's own.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(transparent)]
    Call(#[from] Error),
    #[error("Secret {place}: {why}")]
    Unreadable { place: KeySecret, why: Unreadable },
    #[error("Secret {place} was changed by others at each of {ATTEMPTS} tries")]
    Contended { place: KeySecret },
    #[error("Secret {place} has no keys yet: the operator that leads makes them as it starts")]
    Empty { place: KeySecret },
}

/// Each conflict means that another has written; what it wrote is nearly always what was wanted.
const ATTEMPTS: u32 = 5;

/// The Secret as an API.
pub(crate) struct Store {
    api: Api<Secret>,
    place: KeySecret,
}

impl Store {
    pub(crate) fn new(client: Client, place: KeySecret) -> Self {
        Self { api: Api::namespaced(client, &place.namespace), place }
    }

    /// What it holds. Where that is nothing: `held`, which this process still has (somebody emptied it), or else what is made now.
    pub(crate) async fn read_or_fill(&self, held: Option<&Ring>) -> Result<Ring, SecretError> {
        self.change(|found| match found {
            Some(ring) => Ok(ring.clone()),
            None => Ok(held.cloned().unwrap_or_else(|| Ring::random(&mut rand::rng()))),
        })
        .await
    }

    /// Writes what `change` makes of what it finds, until that is what is there; and only where that is another.
    pub(crate) async fn change(
        &self,
        change: impl Fn(Option<&Ring>) -> Result<Ring, SecretError>,
    ) -> Result<Ring, SecretError> {
        for _ in 0..ATTEMPTS {
            let secret = call("read the Secret with the drain keys", self.api.get(&self.place.name)).await?;
            let entries = entries(&secret);
            let found = Ring::read(&entries)
                .map_err(|why| SecretError::Unreadable { place: self.place.clone(), why })?;
            let wanted = change(found.as_ref())?;
            if found.as_ref() == Some(&wanted) {
                return Ok(wanted);
            }
            let patch = Patch::Merge(patch(&secret, &entries, &wanted.entries()));
            let params = PatchParams {
                field_manager: Some(graceful_api::names::FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let write = self.api.patch(&self.place.name, &params, &patch);
            match call("write the Secret with the drain keys", write).await {
                Ok(_) => return Ok(wanted),
                Err(error) if error.conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SecretError::Contended { place: self.place.clone() })
    }

    pub(crate) fn empty(&self) -> SecretError {
        SecretError::Empty { place: self.place.clone() }
    }
}

fn entries(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(entry, bytes)| (entry.clone(), bytes.0.clone())).collect()
}

/// What has to be written and what to be taken out. What others keep there stays.
fn patch(secret: &Secret, found: &BTreeMap<String, Vec<u8>>, wanted: &BTreeMap<String, Vec<u8>>) -> Value {
    let mut data: Map<_, _> =
        wanted.iter().map(|(entry, bytes)| (entry.clone(), json!(STANDARD.encode(bytes)))).collect();
    let gone = found.keys().filter(|entry| Ring::owns(entry) && !wanted.contains_key(*entry));
    data.extend(gone.map(|entry| (entry.clone(), Value::Null)));
    let metadata = json!({"uid": secret.metadata.uid, "resourceVersion": secret.metadata.resource_version});
    json!({"metadata": metadata, "data": data})
}

/// `operator rotate-key`: the next key becomes the current one, and a new next one is made. Says which they are now.
///
/// # Errors
/// When the API server cannot be found or does not take it, or the Secret has no keys yet.
pub async fn rotate(place: KeySecret) -> anyhow::Result<String> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let store = Store::new(Client::try_from(config)?, place);
    let rotated = store
        .change(|found| {
            let found = found.ok_or_else(|| store.empty())?;
            Ok(found.rotated(&mut rand::rng(), Timestamp::now()))
        })
        .await?;
    Ok(rotated.words())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn a_write_names_what_it_saw_and_leaves_what_is_others() {
        let first = Ring::random(&mut rand::rng());
        let rotated = first.rotated(&mut rand::rng(), Timestamp::UNIX_EPOCH);
        let pruned = rotated.pruned(&std::collections::BTreeSet::new(), Timestamp::now());
        let mut found = rotated.entries();
        found.insert("note".to_owned(), b"mine".to_vec());
        let secret = Secret {
            metadata: ObjectMeta {
                uid: Some("u".to_owned()),
                resource_version: Some("7".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(found.iter().map(|(k, v)| (k.clone(), ByteString(v.clone()))).collect()),
            ..Secret::default()
        };
        let patch = patch(&secret, &entries(&secret), &pruned.entries());
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        let data = patch["data"].as_object().unwrap();
        let gone: Vec<_> = data.iter().filter(|(_, value)| value.is_null()).map(|(entry, _)| entry).collect();
        assert_eq!(gone.len(), 1, "{patch}");
        assert!(gone[0].starts_with("old.") && !data.contains_key("note"), "{patch}");
    }
}
