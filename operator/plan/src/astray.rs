//! Pods that contradict the drain protocol: what they are told is repeated less and less often (P6), and people hear what their app does wrong.

use graceful_api::conditions::Reason;

use crate::contact::{Contact, Way};
use crate::observed::{Pod, Warning};
use crate::phrases::first_of;
use crate::snapshot::Snapshot;

/// Whether a pod may be given a new epoch now.
pub(crate) fn may_be_told_anew(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    snapshot.contact(pod).and_then(Contact::retell_at).is_none_or(|from| snapshot.clock.has_come(from))
}

/// What the app does wrong; without a number that moves, since each new word is an Event.
pub(crate) fn contradiction(contact: &Contact) -> Option<&'static str> {
    if contact.several {
        return Some(
            "several processes answer, each for itself alone (boot ids alternate): one of them must answer for all",
        );
    }
    contact.retell_at()?;
    Some(match contact.astray?.way {
        Way::Epoch => {
            "it reports epochs that nobody told it: `epoch` must be the number it was told by PUT or DELETE, not a clock"
        }
        Way::Closed => {
            "it was told to serve again (DELETE) and still says accepting: false; nothing but PUT and SIGTERM may close it"
        }
    })
}

/// The Warning condition's part: the first such pod, and how many others there are.
pub(crate) fn warning(snapshot: &Snapshot<'_>) -> Option<Warning> {
    let wrong = |p: &&Pod| Some((p.name.clone(), contradiction(snapshot.contact(p)?)?));
    let (pods, why) = first_of(snapshot.remaining.iter().filter_map(wrong))?;
    let message = format!("{pods}: {why} (docs/protocol.md)");
    Some(Warning { reason: Reason::ProtocolBroken, message })
}
