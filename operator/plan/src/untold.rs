//! Pods that refuse to be told (401): they verify who drains them, and take no token of ours, since a key was lost or an operator without keys runs them.
//!
//! # Guarantees
//! None of them is undrainable. Its admission cannot be closed, so that it is drained as under signal None: its zero must hold through quietSeconds. What
//! slips in after that meets its SIGTERM, with a grace of at least the deadline (Hold: 7 days), in which an app that speaks the protocol drains itself.

use graceful_api::conditions::Reason;
use graceful_api::{DrainPolicy, Signal};

use crate::observed::{Pod, Warning};
use crate::others::and_more;
use crate::snapshot::Snapshot;

/// Whether the pod was told, and refused it.
pub(crate) fn refuses(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.contact(pod).is_some_and(|c| c.refused.is_some())
}

/// It closed before it refused (a key was lost meanwhile), and cannot be told to open again.
pub(crate) fn stays_closed(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let said = snapshot.answer(pod).and_then(|a| a.protocol);
    refuses(snapshot, pod) && said.is_some_and(|p| !p.accepting)
}

/// The policy of one that does. A signal that tells nobody anything is left as it is.
pub(crate) fn by_quiet(policy: DrainPolicy) -> DrainPolicy {
    let signal = match policy.signal {
        Signal::Http => Signal::None,
        told_nothing @ (Signal::Sigterm | Signal::None) => told_nothing,
    };
    DrainPolicy { signal, ..policy }
}

/// What WAITING-FOR says of it: the pod's own words, and what a person can do.
pub(crate) fn words(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<String> {
    let why = &snapshot.contact(pod)?.refused.as_ref()?.message;
    Some(format!("it refuses our token ({why}), so that its zero must hold before it ends; {REMEDY}"))
}

const REMEDY: &str = "restore the Secret with the drain keys, if it was lost (docs/operating.md, Drain keys)";

/// The Warning condition's part: the first such pod, and how many others there are.
pub(crate) fn warning(snapshot: &Snapshot<'_>) -> Option<Warning> {
    let refusal = |p: &&Pod| Some((p.name.clone(), snapshot.contact(p)?.refused.as_ref()?.message.clone()));
    let mut found = snapshot.live.iter().filter_map(refusal);
    let (pod, why) = found.next()?;
    let others = and_more(found.count());
    let message = format!(
        "{pod}{others}: it refuses our token ({why}): its admission cannot be closed before it ends, so that it goes by its zero alone; {REMEDY}"
    );
    Some(Warning { reason: Reason::TokenRefused, message })
}
