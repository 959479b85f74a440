//! Keeps the [`Keyring`] as the Secret is, while this operator leads, and the Secret free of keys that nobody names.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::ring::{KeyId, Ring};
use super::secret::{KeySecret, SecretError, Store};
use super::{AWAITED, Keyring};
use crate::clock::Clock;
use crate::error::chain;
use crate::leader::Leadership;

/// How soon a rotation is taken up, for what signs. Nothing hastens that: retired keys sign as well as the new ones. A new revision asks for a look of its own.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How soon after a failure it is retried: new revisions wait for keys that were never read.
const RETRY_EVERY: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });

/// What nobody names is no danger, only clutter.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// What keeping them takes.
pub(crate) struct Keep {
    pub(crate) secret: KeySecret,
    /// One that writes only while this process leads.
    pub(crate) client: Client,
    pub(crate) keyring: Keyring,
    pub(crate) leadership: Leadership,
    pub(crate) clock: Clock,
    /// Told once the first attempt is over, however it ended: plans begin then.
    pub(crate) tried: watch::Sender<bool>,
}

/// Never ends. `named` says which keys are in use, if that can be said; `renewed` is called as other keys are held than before.
pub(crate) async fn keep(
    keep: Keep,
    named: impl Fn() -> Option<BTreeSet<KeyId>> + Send,
    renewed: impl Fn() + Send,
) {
    let Keep { secret, client, keyring, leadership, clock, tried } = keep;
    leadership.gained().await;
    let store = Store::new(client, secret);
    let (mut said, mut pruned) = (None, Instant::now());
    loop {
        let (held, began) = (keyring.ring(), Instant::now());
        let (pause, failure) = match store.read_or_fill(held.as_deref(), || clock.now()).await {
            Ok(ring) => {
                said = None;
                take(&keyring, ring, &renewed);
                (LOOK_EVERY, None)
            }
            Err(error) => {
                say(&mut said, &error, held.is_some());
                (RETRY_EVERY, Some(chain(&error)))
            }
        };
        keyring.looked(began, failure);
        tried.send_replace(true);
        if pruned.elapsed() >= PRUNE_EVERY && keyring.ring().is_some() {
            pruned = Instant::now();
            if let Some(named) = named() {
                match prune(&store, keyring.ring().as_deref(), &named, clock.now()).await {
                    Ok(ring) => take(&keyring, ring, &renewed),
                    Err(error) => say(&mut said, &error, true),
                }
            }
        }
        // Where somebody asked while this look was under way, the next begins at once: this one may have read what was there before a rotation.
        let _asked_or_due = timeout(pause, keyring.asked.notified()).await;
    }
}

async fn prune(
    store: &Store,
    held: Option<&Ring>,
    named: &BTreeSet<KeyId>,
    now: Timestamp,
) -> Result<Ring, SecretError> {
    store
        .change(|found| match (found, held) {
            // It may have been restored since the look just now.
            (Some(found), Some(held)) => Ok(found.with(held, now).pruned(named, now)),
            (Some(found), None) => Ok(found.pruned(named, now)),
            // The next look fills it.
            (None, _) => Err(store.empty()),
        })
        .await
}

fn take(keyring: &Keyring, ring: Ring, renewed: &impl Fn()) {
    let words = ring.summary();
    if keyring.hold(ring) {
        info!("drains are signed with the keys in the Secret: {words}");
        renewed();
    }
}

/// Once for each other failure.
fn say(said: &mut Option<String>, error: &SecretError, holds_keys: bool) {
    let words = warning(error, holds_keys);
    if said.as_ref() != Some(&words) {
        warn!("{words}");
    }
    *said = Some(words);
}

/// Keys that were read once are kept and go on signing, whatever becomes of the Secret.
fn warning(error: &SecretError, holds_keys: bool) -> String {
    let words = chain(error);
    if holds_keys {
        format!(
            "cannot read or prune the Secret with the drain keys; still signing with those read before: {words}"
        )
    } else {
        format!(
            "no drain keys: pods that verify refuse what they are told, and are ended once their in-flight count has stayed 0 for quietSeconds; new \
             revisions wait up to {} s for keys, and are then made without: {words}",
            AWAITED.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::KeySecret;
    use super::*;

    #[test]
    fn an_operator_that_has_read_the_keys_once_does_not_say_that_it_has_none() {
        let secret = KeySecret { namespace: "graceful-system".to_owned(), name: "keys".to_owned() };
        let error = SecretError::Empty { secret };
        assert!(
            warning(&error, true)
                .contains("; still signing with those read before: Secret graceful-system/keys")
        );
        assert!(warning(&error, false).starts_with("no drain keys: "));
    }
}
