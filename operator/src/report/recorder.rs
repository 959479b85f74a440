//! Sends Events. kube's own recorder folds what has the same reason into one and keeps the first one's words, so that of three pods that drain
//! only the first was named; here only what says the same of the same pod is folded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use graceful_api::{GracefulApp, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tracing::debug;

use super::events::Happening;
use crate::error::{Error, call, chain};

/// The API server refuses notes of more than 1024 bytes.
const LONGEST_NOTE: usize = 1000;

/// How long the same words are counted on one Event: as client-go does.
const SERIES: Duration = Duration::from_secs(360);

/// Events of one app that are remembered for that.
const REMEMBERED: usize = 32;

/// Events of one app that may be sent at once, and the time in which one more may. A rollout of two thousand pods is told by its beginning, its
/// end and some of its pods: the API server keeps each Event for an hour.
const BURST: u32 = 100;
const ONE_MORE: Duration = Duration::from_secs(5);

/// Under which name the operator writes Events.
#[derive(Clone)]
pub(crate) struct Recorder {
    client: Client,
    instance: String,
}

/// What was sent about one app.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    recent: VecDeque<One>,
    /// Spent of the burst, as of then. Warnings have their own, and so has what is said of the app itself: the pods of a large rollout drown neither.
    spent: [(u32, Option<Instant>); 4],
}

#[derive(Debug)]
struct One {
    happening: Happening,
    event: String,
    count: i32,
    at: Instant,
}

impl Recorder {
    pub(crate) fn new(client: Client, instance: Option<String>) -> Self {
        Self { client, instance: instance.unwrap_or_else(|| names::FIELD_MANAGER.to_owned()) }
    }

    /// An Event that cannot be sent is not worth a failure.
    pub(super) async fn publish(&self, app: &GracefulApp, sent: &mut Sent, happenings: Vec<Happening>) {
        for happening in happenings {
            if !sent.may(happening.warning, happening.pod.is_some()) {
                debug!(
                    app = app.name_any(),
                    reason = happening.reason,
                    "one Event too many: {}",
                    happening.note
                );
                continue;
            }
            if let Err(error) = self.send(app, sent, happening).await {
                debug!("{}", chain(&error));
            }
        }
    }

    async fn send(&self, app: &GracefulApp, sent: &mut Sent, happening: Happening) -> Result<(), Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &app.namespace().unwrap_or_default());
        let now = Timestamp::now();
        if let Some(before) = sent.same(&happening) {
            let series = json!({"series": {"count": before.count + 1, "lastObservedTime": MicroTime(now)}});
            let patch = Patch::Merge(series);
            match call("publish an Event", api.patch(&before.event, &PatchParams::default(), &patch)).await {
                Ok(_) => {
                    (before.count, before.at) = (before.count + 1, Instant::now());
                    return Ok(());
                }
                Err(error) if error.not_found() => {} // it has expired
                Err(error) => return Err(error),
            }
        }
        let event = self.event(app, &happening, now);
        let name = event.name_any();
        call("publish an Event", api.create(&PostParams::default(), &event)).await?;
        sent.recent.retain(|one| one.happening != happening);
        sent.recent.truncate(REMEMBERED - 1);
        sent.recent.push_front(One { happening, event: name, count: 1, at: Instant::now() });
        Ok(())
    }

    fn event(&self, app: &GracefulApp, happening: &Happening, now: Timestamp) -> Event {
        let Happening { warning, reason, note, pod } = happening;
        let regarding = app.object_ref(&());
        let related = pod.as_ref().map(|(name, uid)| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: regarding.namespace.clone(),
            name: Some(name.clone()),
            uid: Some(uid.0.clone()),
            ..ObjectReference::default()
        });
        Event {
            metadata: ObjectMeta {
                namespace: regarding.namespace.clone(),
                name: Some(format!("{}.{:x}", app.name_any(), now.as_nanosecond())),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            reason: Some((*reason).to_owned()),
            note: Some(cut(note).to_owned()),
            type_: Some(if *warning { "Warning" } else { "Normal" }.to_owned()),
            event_time: Some(MicroTime(now)),
            regarding: Some(regarding),
            related,
            reporting_controller: Some(names::FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

impl Sent {
    fn same(&mut self, happening: &Happening) -> Option<&mut One> {
        self.recent.iter_mut().find(|one| one.happening == *happening && one.at.elapsed() < SERIES)
    }

    /// Spends one, if there is one left.
    fn may(&mut self, warning: bool, of_a_pod: bool) -> bool {
        let (spent, since) = &mut self.spent[usize::from(warning) + 2 * usize::from(of_a_pod)];
        let since = since.get_or_insert_with(Instant::now);
        let back = u32::try_from(since.elapsed().as_secs() / ONE_MORE.as_secs()).unwrap_or(u32::MAX);
        if back > 0 {
            (*spent, *since) = (spent.saturating_sub(back), Instant::now());
        }
        let may = *spent < BURST;
        *spent += u32::from(may);
        may
    }
}

fn cut(note: &str) -> &str {
    let end = (0..=LONGEST_NOTE.min(note.len())).rev().find(|i| note.is_char_boundary(*i));
    &note[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_events_ends_and_leaves_room_for_warnings() {
        let mut sent = Sent::default();
        assert_eq!((0..500).filter(|_| sent.may(false, true)).count(), 100);
        assert!(sent.may(true, true), "a warning");
        assert!(sent.may(false, false), "the rollout's end");
    }

    #[test]
    fn a_long_note_is_cut_between_two_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"€".repeat(400)).len(), 999);
    }
}
