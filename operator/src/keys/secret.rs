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
use kube::api::Patch;
use kube::{Api, Client, Config};
use serde_json::{Map, Value, json};

use super::FRESH;
use super::ring::{Ring, Unreadable};
use crate::clock::{Clock, heard_by};
use crate::error::{Error, call};
use crate::merge::{Mode, merge};

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

/// Why the Secret could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(transparent)]
    Call(#[from] Error),
    #[error("Secret {secret}: {why}")]
    Unreadable { secret: KeySecret, why: Unreadable },
    #[error("Secret {secret} was changed by others at each of {ATTEMPTS} tries")]
    Contended { secret: KeySecret },
    #[error("Secret {secret} has no keys yet: the operator that leads makes them as it starts")]
    Empty { secret: KeySecret },
}

/// Each conflict means that another has written; what it wrote is nearly always what was wanted.
const ATTEMPTS: u32 = 5;

/// The Secret as an API.
pub(crate) struct Store {
    api: Api<Secret>,
    secret: KeySecret,
}

impl Store {
    pub(crate) fn new(client: Client, secret: KeySecret) -> Self {
        Self { api: Api::namespaced(client, &secret.namespace), secret }
    }

    /// What it holds, and what this process has held beside it: somebody may have put an older one back. Where it holds nothing: `held` (somebody emptied it), or
    /// else what is made now.
    pub(crate) async fn read_or_fill(
        &self,
        held: Option<&Ring>,
        now: impl Fn() -> Timestamp,
    ) -> Result<Ring, SecretError> {
        self.change(|found| {
            Ok(match (found, held) {
                (Some(found), Some(held)) => found.with(held, now()),
                (Some(found), None) => found.clone(),
                (None, Some(held)) => held.clone(),
                (None, None) => Ring::random(&mut rand::rng()),
            })
        })
        .await
    }

    /// Reads the Secret, applies `change`, and writes the result if it differs; retries when others wrote meanwhile.
    pub(crate) async fn change(
        &self,
        change: impl Fn(Option<&Ring>) -> Result<Ring, SecretError>,
    ) -> Result<Ring, SecretError> {
        for _ in 0..ATTEMPTS {
            let secret = call("read the Secret with the drain keys", self.api.get(&self.secret.name)).await?;
            let entries = entries(&secret);
            let found = Ring::read(&entries)
                .map_err(|why| SecretError::Unreadable { secret: self.secret.clone(), why })?;
            let wanted = change(found.as_ref())?;
            if found.as_ref() == Some(&wanted) {
                return Ok(wanted);
            }
            let patch = Patch::Merge(patch(&secret, &entries, &wanted.entries()));
            let params = merge(Mode::Real);
            let write = self.api.patch(&self.secret.name, &params, &patch);
            match call("write the Secret with the drain keys", write).await {
                Ok(_) => return Ok(wanted),
                Err(error) if error.conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SecretError::Contended { secret: self.secret.clone() })
    }

    pub(crate) fn empty(&self) -> SecretError {
        SecretError::Empty { secret: self.secret.clone() }
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

/// `operator rotate-key`: the next key becomes the current one, and a new next one is made. Says which they are now, and from when on new revisions are given them.
///
/// # Errors
/// When the API server cannot be found or does not take it, or the Secret has no keys yet.
pub async fn rotate(secret: KeySecret) -> anyhow::Result<String> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let summary = rotate_by(Client::try_from(config)?, secret).await?.summary();
    Ok(format!(
        "{summary}; revisions that are made from {} s from now on are given these two",
        FRESH.as_secs()
    ))
}

/// When a key is retired is written by the API server's clock, which its age is later compared with: the `Date` of the GET that comes before.
async fn rotate_by(client: Client, secret: KeySecret) -> Result<Ring, SecretError> {
    let clock = Clock::default();
    let store = Store::new(heard_by(&clock, client), secret);
    store
        .change(|found| {
            let found = found.ok_or_else(|| store.empty())?;
            Ok(found.rotated(&mut rand::rng(), clock.now()))
        })
        .await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use http::{HeaderValue, Request, Response};
    use jiff::SignedDuration;
    use kube::client::Body;

    use super::*;

    fn holding(ring: &Ring) -> Secret {
        Secret {
            metadata: ObjectMeta {
                uid: Some("u".to_owned()),
                resource_version: Some("7".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(ring.entries().into_iter().map(|(k, v)| (k, ByteString(v))).collect()),
            ..Secret::default()
        }
    }

    /// A node whose clock is wrong must not decide how long a retired key is kept: the operator that prunes goes by the API server's.
    #[tokio::test]
    async fn a_key_is_retired_by_the_api_servers_clock() {
        let first = Ring::random(&mut rand::rng());
        let secret = holding(&first);
        // An API server whose clock says 1994.
        let service = tower::service_fn(move |_: Request<Body>| {
            let body = serde_json::to_vec(&secret).unwrap();
            async move {
                let mut response = Response::new(Body::from(body));
                let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
                response.headers_mut().insert(http::header::DATE, date);
                Ok::<_, kube::Error>(response)
            }
        });
        let secret = KeySecret { namespace: "graceful-system".to_owned(), name: "keys".to_owned() };
        let rotated = rotate_by(Client::new(service, "graceful-system"), secret).await.unwrap();
        let retired = Timestamp::from_second(784_111_777).unwrap();
        let named = std::collections::BTreeSet::new();
        let retired_keys = |hours| {
            let later = retired.checked_add(SignedDuration::from_hours(hours)).unwrap();
            rotated.pruned(&named, later).entries().keys().filter(|entry| entry.starts_with("old.")).count()
        };
        assert_eq!((retired_keys(0), retired_keys(2)), (1, 0), "by the wall clock it would live for decades");
    }

    #[test]
    fn a_write_names_what_it_saw_and_leaves_what_is_others() {
        let first = Ring::random(&mut rand::rng());
        let rotated = first.rotated(&mut rand::rng(), Timestamp::UNIX_EPOCH);
        let pruned = rotated.pruned(&std::collections::BTreeSet::new(), Timestamp::now());
        let mut found = rotated.entries();
        found.insert("note".to_owned(), b"mine".to_vec());
        let mut secret = holding(&first);
        secret.data = Some(found.iter().map(|(k, v)| (k.clone(), ByteString(v.clone()))).collect());
        let patch = patch(&secret, &entries(&secret), &pruned.entries());
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        let data = patch["data"].as_object().unwrap();
        let gone: Vec<_> = data.iter().filter(|(_, value)| value.is_null()).map(|(entry, _)| entry).collect();
        assert_eq!(gone.len(), 1, "{patch}");
        assert!(gone[0].starts_with("old.") && !data.contains_key("note"), "{patch}");
    }
}
