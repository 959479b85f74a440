//! The keys themselves: pure, as they stand in the Secret, and what rotating and pruning make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::digest::digest;

/// A key's name, derived from its public half: the first 16 hexadecimal digits of its SHA-256. Two keys never share one, and nobody has to keep count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KeyId(pub(crate) String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One key, with its private half.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) id: KeyId,
    pub(super) signing: SigningKey,
}

/// Never the private half.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.id.0).finish()
    }
}

impl Key {
    fn of(signing: SigningKey) -> Self {
        Self { id: KeyId(digest(signing.verifying_key().as_bytes())), signing }
    }

    fn random(random: &mut impl Rng) -> Self {
        let mut seed = [0; 32];
        random.fill_bytes(&mut seed);
        Self::of(SigningKey::from_bytes(&seed))
    }
}

/// All keys that live. Signed with is the first that a pod knows: `next` is given to pods before it is used, so that a rotation finds it known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    current: Key,
    next: Key,
    /// Retired keys, and when each ceased to be `current`; the latest first.
    old: Vec<(Key, Timestamp)>,
}

/// Why what the Secret holds is no ring. It is never overwritten then: some pod may know a key in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "its entry {entry} is no private Ed25519 key as a JWK with the key's own id; restore it, or empty the Secret to have new keys made"
)]
pub(crate) struct Unreadable {
    entry: String,
}

/// RFC 8037, with `retired` beside it on those that were current once.
#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    kid: KeyId,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<Timestamp>,
}

const CURRENT: &str = "current";
const NEXT: &str = "next";
const OLD: &str = "old.";

/// A key that nobody names is kept for so long after it was `current`: our view of who names it may be late, and a standby with older keys may have
/// just begun to lead. An hour is far beyond both, and costs a few bytes.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

impl Ring {
    /// A first one.
    pub(crate) fn random(random: &mut impl Rng) -> Self {
        Self { current: Key::random(random), next: Key::random(random), old: Vec::new() }
    }

    /// From the Secret's entries. None where neither key was ever made.
    pub(crate) fn read(entries: &BTreeMap<String, Vec<u8>>) -> Result<Option<Self>, Unreadable> {
        if !entries.contains_key(CURRENT) && !entries.contains_key(NEXT) {
            return Ok(None);
        }
        let key = |entry: &str| {
            let read = entries.get(entry).and_then(|text| private(text));
            read.ok_or_else(|| Unreadable { entry: entry.to_owned() })
        };
        let (current, next) = (key(CURRENT)?.0, key(NEXT)?.0);
        let mut old = Vec::new();
        for entry in entries.keys().filter(|entry| entry.starts_with(OLD)) {
            let (key, retired) = key(entry)?;
            old.push((key, retired.unwrap_or(Timestamp::UNIX_EPOCH)));
        }
        latest_first(&mut old);
        Ok(Some(Self { current, next, old }))
    }

    /// The Secret's entries.
    pub(crate) fn entries(&self) -> BTreeMap<String, Vec<u8>> {
        let Self { current, next, old } = self;
        let entry = |key: &Key, retired| serde_json::to_vec(&jwk(key, true, retired)).unwrap_or_default();
        let old = old.iter().map(|(key, at)| (format!("{OLD}{}", key.id), entry(key, Some(*at))));
        let young = [(CURRENT.to_owned(), entry(current, None)), (NEXT.to_owned(), entry(next, None))];
        young.into_iter().chain(old).collect()
    }

    /// `next` becomes `current`, and a new one is made. Pods that know the old two know one of the new two.
    pub(crate) fn rotated(&self, random: &mut impl Rng, now: Timestamp) -> Self {
        let Self { current, next, old } = self;
        let old = std::iter::once((current.clone(), now)).chain(old.iter().cloned());
        Self { current: next.clone(), next: Key::random(random), old: old.collect() }
    }

    /// With those that `held` has beside, as retired ones: whoever has put an older Secret back knew nothing of the keys that were made after it, and pods may.
    pub(crate) fn with(&self, held: &Self, now: Timestamp) -> Self {
        let of = |ring: &Self| {
            let young = [ring.current.clone(), ring.next.clone()].map(|key| (key, now));
            young.into_iter().chain(ring.old.iter().cloned()).collect::<Vec<_>>()
        };
        let there: BTreeSet<_> = of(self).into_iter().map(|(key, _)| key.id).collect();
        let lacking = of(held).into_iter().filter(|(key, _)| !there.contains(&key.id));
        let mut old: Vec<_> = self.old.iter().cloned().chain(lacking).collect();
        latest_first(&mut old);
        Self { old, ..self.clone() }
    }

    /// Without the retired keys that nobody names.
    pub(crate) fn pruned(&self, named: &BTreeSet<KeyId>, now: Timestamp) -> Self {
        let lives = |(key, retired): &&(Key, Timestamp)| {
            named.contains(&key.id) || now.duration_since(*retired) < KEPT
        };
        Self { old: self.old.iter().filter(lives).cloned().collect(), ..self.clone() }
    }

    /// Whether an entry of the Secret is one that we write.
    pub(crate) fn owns(entry: &str) -> bool {
        entry == CURRENT || entry == NEXT || entry.starts_with(OLD)
    }

    /// The first key that is among these.
    pub(super) fn known(&self, named: &[KeyId]) -> Option<&Key> {
        let old = self.old.iter().map(|(key, _)| key);
        [&self.current, &self.next].into_iter().chain(old).find(|key| named.contains(&key.id))
    }

    /// A JWK Set of the two that a new pod is to know.
    pub(crate) fn public_halves(&self) -> String {
        #[derive(Serialize)]
        struct Set {
            keys: [Jwk; 2],
        }
        let keys = [&self.current, &self.next].map(|key| jwk(key, false, None));
        serde_json::to_string(&Set { keys }).unwrap_or_default()
    }

    /// For the log: which is current, which is next, and how many are retired.
    pub(crate) fn summary(&self) -> String {
        let Self { current, next, old } = self;
        format!("current {}, next {}, {} retired", current.id, next.id, old.len())
    }
}

fn latest_first(old: &mut [(Key, Timestamp)]) {
    old.sort_by(|(a, at), (b, bt)| (bt, &a.id).cmp(&(at, &b.id)));
}

/// The ids in a JWK Set, as a pod has it in its environment.
pub(crate) fn ids(set: &str) -> Vec<KeyId> {
    #[derive(Deserialize)]
    struct Named {
        kid: KeyId,
    }
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let keys = serde_json::from_str(set).map(|Set { keys }| keys).unwrap_or_default();
    keys.into_iter().filter_map(|key| Some(serde_json::from_value::<Named>(key).ok()?.kid)).collect()
}

fn jwk(key: &Key, private: bool, retired: Option<Timestamp>) -> Jwk {
    Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: key.id.clone(),
        x: URL_SAFE_NO_PAD.encode(key.signing.verifying_key().as_bytes()),
        d: private.then(|| URL_SAFE_NO_PAD.encode(key.signing.to_bytes())),
        retired,
    }
}

/// The id and the public half follow from the private one: what says otherwise was not written by us.
fn private(text: &[u8]) -> Option<(Key, Option<Timestamp>)> {
    let Jwk { kid, d, retired, .. } = serde_json::from_slice(text).ok()?;
    let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(d?).ok()?.try_into().ok()?;
    let key = Key::of(SigningKey::from_bytes(&seed));
    (key.id == kid).then_some((key, retired))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn after(hours: i64) -> Timestamp {
        now().checked_add(SignedDuration::from_hours(hours)).unwrap()
    }

    fn ring() -> Ring {
        Ring::random(&mut rand::rng())
    }

    fn given(ring: &Ring) -> Vec<KeyId> {
        ids(&ring.public_halves())
    }

    #[test]
    fn a_ring_is_what_its_secret_says() {
        let ring = ring().rotated(&mut rand::rng(), now()).rotated(&mut rand::rng(), after(1));
        let entries = ring.entries();
        assert_eq!(entries.len(), 4);
        assert_eq!(Ring::read(&entries), Ok(Some(ring)));
        assert_eq!(Ring::read(&BTreeMap::new()), Ok(None));
    }

    #[test]
    fn what_somebody_wrote_into_the_secret_is_never_taken_for_empty() {
        for (entry, text) in [
            ("next", &b"garbage"[..]),
            ("current", br#"{"kty":"OKP","crv":"Ed25519","kid":"0011223344556677","x":"","d":""}"#),
            ("old.0011223344556677", b""),
        ] {
            let mut entries = ring().entries();
            entries.insert(entry.to_owned(), text.to_vec());
            assert_eq!(Ring::read(&entries), Err(Unreadable { entry: entry.to_owned() }));
        }
        let mut half = ring().entries();
        half.remove(CURRENT);
        assert_eq!(Ring::read(&half), Err(Unreadable { entry: CURRENT.to_owned() }));
    }

    #[test]
    fn what_pods_and_logs_get_has_no_private_half() {
        let ring = ring();
        let secret = URL_SAFE_NO_PAD.encode(ring.current.signing.to_bytes());
        assert!(!ring.public_halves().contains(&secret) && !ring.public_halves().contains("\"d\""));
        assert!(!format!("{ring:?} {}", ring.summary()).contains(&secret));
        assert_eq!(given(&ring), [ring.current.id.clone(), ring.next.id.clone()]);
    }

    /// P5: what was given with the pod is enough for its whole life.
    #[test]
    fn a_pod_is_signed_for_with_a_key_that_it_knows_however_often_keys_are_rotated() {
        let mut ring = ring();
        let pod = given(&ring);
        let with = |ring: &Ring| ring.known(&pod).map(|key| key.id.clone());
        assert_eq!(with(&ring), Some(pod[0].clone()));
        for _ in 0..5 {
            ring = ring.rotated(&mut rand::rng(), now());
            assert_eq!(with(&ring), Some(pod[1].clone()));
        }
        assert_eq!(ring.known(&[KeyId("0011223344556677".to_owned())]), None);
    }

    /// The Secret was lost, new keys were made, pods were given them, and then a backup of it came back.
    #[test]
    fn a_secret_that_is_restored_costs_no_key_that_was_made_since() {
        let backup = ring().rotated(&mut rand::rng(), now());
        let held = ring().rotated(&mut rand::rng(), after(1));
        let both = backup.with(&held, after(2));
        assert_eq!((&both.current, &both.next), (&backup.current, &backup.next));
        for (key, retired) in
            [(&held.current, 2), (&held.next, 2), (&held.old[0].0, 1), (&backup.old[0].0, 0)]
        {
            let found = both.old.iter().find(|(old, _)| old.id == key.id);
            assert_eq!(found.map(|(_, at)| *at), Some(after(retired)), "{}", key.id);
        }
        assert_eq!(both.old.len(), 4);
        assert_eq!(Ring::read(&both.entries()), Ok(Some(both.clone())), "in the Secret's order");
        // A rotation is no loss: all that was held is there, if in another place.
        let rotated = held.rotated(&mut rand::rng(), after(3));
        assert_eq!(rotated.with(&held, after(4)), rotated);
        assert_eq!(both.with(&held, after(4)), both);
    }

    #[test]
    fn a_retired_key_lives_while_it_is_named_and_an_hour_longer_than_it_was_used() {
        let first = ring();
        let pod = given(&first);
        let ring = first.rotated(&mut rand::rng(), now()).rotated(&mut rand::rng(), now());
        let lives = |named: &[KeyId], at| {
            let kept = ring.pruned(&named.iter().cloned().collect(), at);
            pod.iter().filter(|id| kept.known(std::slice::from_ref(id)).is_some()).count()
        };
        assert_eq!(lives(&[], now()), 2, "just now it was current");
        assert_eq!(lives(&pod, after(100)), 2, "a Deployment names it");
        assert_eq!(lives(&pod[1..], after(2)), 1);
        assert_eq!(lives(&[], after(2)), 0);
        let kept = ring.pruned(&BTreeSet::new(), after(2));
        assert_eq!((&kept.current, &kept.next), (&ring.current, &ring.next), "those two are never pruned");
    }
}
