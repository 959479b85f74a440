//! Who is spoken to, and how.

use std::collections::BTreeMap;

use graceful_api::Signal;

use crate::conversation::Conversation;
use crate::draft::Draft;
use crate::endpoints::waits_for_them;
use crate::ids::PodUid;
use crate::observed::{Pod, Readiness};
use crate::others::ended_by_others;
use crate::snapshot::Snapshot;

/// Above so many pods that end, they are asked as rarely as serving ones: the report alone needs their counts.
const SURVEY_ABOVE: usize = 20;

/// A conversation for each pod that can hold one.
pub(crate) fn conversations(snapshot: &Snapshot<'_>, draft: &Draft) -> BTreeMap<PodUid, Conversation> {
    let remaining =
        snapshot.remaining.iter().filter_map(|p| Some((p.uid.clone(), conversation(snapshot, draft, p)?)));
    // Pods that others end, and those that drain themselves, are asked while they end, since STATUS reports their counts. Many at once (a namespace that goes) are asked as rarely as serving ones.
    let ended: Vec<_> = ended_by_others(snapshot).chain(snapshot.handed_over()).collect();
    let how = if ended.len() > SURVEY_ABOVE { Conversation::Survey } else { Conversation::Ask };
    remaining.chain(ended.into_iter().map(|p| (p.uid.clone(), how))).collect()
}

fn conversation(snapshot: &Snapshot<'_>, draft: &Draft, pod: &Pod) -> Option<Conversation> {
    if let Some(epoch) = draft.reopening.get(&pod.uid) {
        return Some(Conversation::Resume { epoch: *epoch });
    }
    let policy = snapshot.policy(pod);
    if pod.routed {
        return serving(snapshot, draft, pod, policy.signal);
    }
    let (epoch, _) = (pod.epoch?, pod.drain?);
    Some(match policy.signal {
        // It is told once its Services have followed.
        Signal::Http if waits_for_them(snapshot, pod) => Conversation::Ask,
        Signal::Http => Conversation::Drain { epoch, linger_seconds: policy.linger_seconds },
        Signal::None => Conversation::CountZeros { epoch },
        // Polled for STATUS only: the DELETE does not depend on its count.
        Signal::Sigterm => Conversation::Ask,
    })
}

/// A serving pod is asked rarely, unless something waits for its word: that it may be relied on, or how idle it is. One whose resumption has not
/// arrived is told until it has.
fn serving(snapshot: &Snapshot<'_>, draft: &Draft, pod: &Pod, signal: Signal) -> Option<Conversation> {
    let protocol = snapshot.protocol(pod);
    let undelivered = protocol.and_then(|p| pod.epoch.filter(|e| p.epoch < *e && p.resumable));
    if let (Signal::Http, Some(epoch)) = (signal, undelivered) {
        return Some(Conversation::Resume { epoch });
    }
    if !matches!(pod.readiness, Readiness::Ready(_)) {
        return None;
    }
    let never_heard = !snapshot.is_superseded(pod) && snapshot.answer(pod).is_none();
    Some(if draft.ask_serving || draft.ask_for_marks || never_heard {
        Conversation::Ask
    } else {
        Conversation::Survey
    })
}
