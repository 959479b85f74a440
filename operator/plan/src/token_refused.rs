//! Pods that refuse our token (401): they verify who drains them, and a key was lost, or an operator without keys runs them.
//!
//! # Guarantees
//! None of them is undrainable. Its admission cannot be closed, so that it is drained as under signal None: its in-flight count must stay 0 for quietSeconds.
//! What slips in after that meets its SIGTERM, with a grace of at least the deadline (Hold: 7 days), in which an app that speaks the protocol drains itself.

use graceful_api::conditions::Reason;

use crate::observed::{Pod, Warning};
use crate::phrases::first_of;
use crate::snapshot::Snapshot;

/// It closed before it refused (a key was lost meanwhile), and cannot be told to open again.
pub(crate) fn cannot_reopen(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let protocol = snapshot.protocol(pod);
    snapshot.refuses_token(pod) && protocol.is_some_and(|p| !p.accepting)
}

/// What WAITING-FOR says of it: the pod's own words, and what a person can do.
pub(crate) fn explanation(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<String> {
    let why = &snapshot.contact(pod)?.refused.as_ref()?.message;
    Some(format!(
        "it refuses the operator's token ({why}), so its admission cannot be closed: {HOW_IT_ENDS}; {REMEDY}"
    ))
}

const HOW_IT_ENDS: &str = "it is ended once its in-flight count has stayed 0 for quietSeconds";

/// Until either, pods of that revision that come to replace others are made with the same keys.
const REMEDY: &str = "restore the Secret with the drain keys, if it was lost, or roll the app once by any change of spec.template, so that its pods \
                      are given those of now (docs/operating.md, Drain keys)";

/// The Warning condition's part: the first such pod, and how many others there are.
pub(crate) fn warning(snapshot: &Snapshot<'_>) -> Option<Warning> {
    let refusal = |p: &&Pod| Some((p.name.clone(), snapshot.contact(p)?.refused.as_ref()?.message.clone()));
    let (pods, why) = first_of(snapshot.remaining.iter().filter_map(refusal))?;
    let message = format!(
        "{pods}: it refuses the operator's token ({why}), so its admission cannot be closed: {HOW_IT_ENDS}; {REMEDY}"
    );
    Some(Warning { reason: Reason::TokenRefused, message })
}
