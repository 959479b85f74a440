//! The keys that drains are signed with: made once, kept in a Secret, their public halves given to each new revision's pods.
//!
//! # Flow
//! [`keep()`] reads the Secret once this operator leads, and fills it where it is empty → the [`Keyring`] holds what it read → `execute` writes the public
//! halves into a new revision's template (once the Secret was read moments ago: [`Keyring::renewed`]), `probe` signs what it tells each pod with a key that the pod names.
//!
//! # Guarantees
//! Two operators never hold different keys for long: all writes carry the resourceVersion that was read, and what is there is taken before anything is
//! made. A Secret that somebody puts back as it once was loses nothing that was made since: what this process held stays, among the retired. A private half lives while any Deployment, at 0 replicas included, names its id ([`in_use()`]).
//!
//! # Caveats
//! An operator that has read the keys once holds them, and signs with them, until its process ends, whatever becomes of the Secret. One that starts while the
//! Secret is not there or cannot be read has none: it tells pods without a token. New revisions wait for the keys in the first minute of that, and are made without after it, which is
//! said in a Warning: an operator that cannot sign must not lock itself out, nor keep a fix from being rolled out.

mod in_use;
mod keep;
mod ring;
mod secret;
mod token;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

pub(crate) use self::in_use::{in_use, named_by};
pub(crate) use self::keep::{Keep, keep};
#[cfg(test)]
pub(crate) use self::ring::ids;
pub(crate) use self::ring::{KeyId, Ring};
#[cfg(test)]
pub(crate) use self::secret::Store;
pub use self::secret::{KeySecret, rotate};
pub(crate) use self::token::Claims;
use crate::error::CALL_DEADLINE;

/// How old what is held may be as a new revision is given it: one that is made this long after a rotation has the new keys, and a hundred that are made at once cost
/// one look.
pub(crate) const FRESH: Duration = Duration::from_secs(2);

/// How long new revisions wait for keys that cannot be read: an API server that is upgraded, or a Secret that Helm is about to make, is back by then.
const AWAITED: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 60 });

/// A look at the Secret that is over.
#[derive(Clone, Copy, Debug)]
struct Look {
    began: Instant,
    well: bool,
}

/// There is no key: since when, and why as far as is known.
#[derive(Debug)]
struct Lack {
    since: Instant,
    why: String,
}

/// The keys of now, shared by all who need them. Empty until they are read, and for good where there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    ring: Arc<RwLock<Option<Arc<Ring>>>>,
    /// New revisions' pods are to verify.
    gives: bool,
    /// The last look; none where nobody looks.
    looked: Arc<watch::Sender<Option<Look>>>,
    /// None once keys were read.
    lacks: Arc<RwLock<Option<Lack>>>,
    /// Wakes whoever looks at the Secret.
    asked: Arc<Notify>,
}

impl Keyring {
    /// `gives`: whether new revisions' pods get the public halves. Without, tokens go on being signed for those that have them.
    pub(crate) fn new(gives: bool) -> Self {
        Self { gives, ..Self::default() }
    }

    /// One that holds these, and gives them.
    #[cfg(test)]
    pub(crate) fn of(ring: Ring) -> Self {
        let keyring = Self::new(true);
        keyring.hold(ring);
        keyring
    }

    /// All of it.
    pub(crate) fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.read().clone()
    }

    /// Takes these keys, and says whether they are others than before.
    fn hold(&self, ring: Ring) -> bool {
        let mut held = self.ring.write();
        let news = held.as_deref() != Some(&ring);
        *held = Some(Arc::new(ring));
        *self.lacks.write() = None;
        news
    }

    /// A look that began then is over. Why it failed, if it did.
    fn looked(&self, began: Instant, failure: Option<String>) {
        let well = failure.is_none();
        if let Some(why) = failure.filter(|_| self.ring().is_none()) {
            let mut lacks = self.lacks.write();
            let since = lacks.as_ref().map_or(began, |lack| lack.since);
            *lacks = Some(Lack { since, why });
        }
        self.looked.send_replace(Some(Look { began, well }));
    }

    /// Why no new revision is to be made for now: its pods would verify nobody, for life.
    pub(crate) fn awaited(&self) -> Option<String> {
        let lacks = self.lacks.read();
        let lack = lacks.as_ref().filter(|lack| self.gives && lack.since.elapsed() < AWAITED)?;
        Some(format!(
            "new revisions wait up to {} s for the drain keys, without which their pods verify nobody: {}",
            AWAITED.as_secs(),
            lack.why
        ))
    }

    /// Why new revisions' pods, which are to verify, cannot; as far as is known.
    pub(crate) fn missing(&self) -> Option<String> {
        let lacks = self.lacks.read();
        lacks.as_ref().filter(|_| self.gives).map(|lack| lack.why.clone())
    }

    /// Whether new revisions' pods get the public halves, once there are any.
    pub(crate) fn gives(&self) -> bool {
        self.gives
    }

    /// What a new revision's pods are given, if anything.
    pub(crate) fn public_halves(&self) -> Option<String> {
        self.gives.then(|| self.ring()).flatten().map(|ring| ring.public_halves())
    }

    /// Waits until the Secret was looked at moments ago, and well. One that cannot be read keeps nobody waiting for longer than that call: what is held goes on.
    pub(crate) async fn renewed(&self) {
        let asked = Instant::now();
        let mut looked = self.looked.subscribe();
        let old = looked
            .borrow_and_update()
            .is_some_and(|look| !look.well || asked.duration_since(look.began) > FRESH);
        if self.gives && old {
            self.asked.notify_one();
            let anew = looked.wait_for(|look| look.is_some_and(|look| look.began >= asked));
            let _as_it_is = timeout(CALL_DEADLINE, anew).await;
        }
    }

    /// A token by a key that the pod names. None where there is no such key.
    pub(crate) fn sign(&self, named: &[KeyId], claims: &Claims<'_>) -> Option<String> {
        self.ring()?.known(named).map(|key| token::sign(key, claims))
    }

    /// Whether a token could be made for a pod that names these.
    pub(crate) fn knows(&self, named: &[KeyId]) -> bool {
        !named.is_empty() && self.ring().is_some_and(|ring| ring.known(named).is_some())
    }
}
