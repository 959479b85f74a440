//! The dialogue with the pods. The plan says what is to be said to whom; the tasks here say it and write the answers into the [`Dialogues`].
//!
//! # Flow
//! plan → [`Probes::converse`] starts, changes and stops one task a pod → each answer goes into its pod's dialogue and pulls the trigger → plan.
//!
//! # Guarantees
//! Unknown is busy: nothing but a valid answer becomes an `Answer`. Only addresses of owned pods are asked ([`address`]), each app has its own
//! bounded number of open questions, those that fail apart from those that answer ([`slots`]), and a failing pod is asked less and less often.

mod address;
mod conversation;
mod count;
mod dialogues;
mod error;
mod http;
mod pace;
mod parse;
mod pod_client;
mod slots;
mod trigger;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use graceful_plan::{Contact, Conversation, PodUid};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tracing::error;

use self::dialogues::Dialogues;
#[cfg(test)]
pub(crate) use self::error::AskErrorClass;
pub(crate) use self::http::Asker;
pub(crate) use self::pace::{MARKS, Pace};
use self::pod_client::PodClient;
pub(crate) use self::pod_client::Target;
use self::slots::{AllSlots, Lane, Slots};
pub(crate) use self::trigger::{Trigger, Triggered};
use crate::app_ref::AppRef;
use crate::clock::Clock;
use crate::keys::Keyring;
use crate::telemetry::Metrics;

/// All conversations of this operator.
pub(crate) struct Probes {
    asker: Asker,
    keyring: Keyring,
    dialogues: Dialogues,
    pace: Pace,
    trigger: Trigger,
    metrics: Arc<Metrics>,
    slots: AllSlots,
    clock: Clock,
    apps: Mutex<HashMap<AppRef, Conversations>>,
}

/// One app's conversations.
struct Conversations {
    slots: Slots,
    /// Every pod of which a dialogue may be kept.
    known: HashSet<PodUid>,
    open: HashMap<PodUid, Open>,
}

struct Open {
    target: Target,
    conversation: Conversation,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    pub(crate) fn new(
        asker: Asker,
        keyring: Keyring,
        trigger: Trigger,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let (dialogues, pace) = (Dialogues::default(), Pace::of(pace::SURVEYS));
        let slots = AllSlots::of_this_process();
        Self { asker, keyring, dialogues, pace, trigger, metrics, slots, clock, apps: Mutex::default() }
    }

    /// The address, if a pod may be asked there.
    pub(crate) fn permitted(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.asker.checked(address).ok()
    }

    /// What these pods have said.
    pub(crate) fn contacts<'a>(&self, pods: impl Iterator<Item = &'a PodUid>) -> BTreeMap<PodUid, Contact> {
        self.dialogues.contacts(pods)
    }

    /// Makes the conversations of one app what the plan wants them to be. A pod without a target (no IP yet) is not spoken to.
    pub(crate) fn converse(
        &self,
        app: &AppRef,
        wanted: &BTreeMap<PodUid, Conversation>,
        targets: &BTreeMap<PodUid, Target>,
    ) {
        let mut apps = self.apps.lock();
        let conversations = self.of(&mut apps, app);
        conversations.open.retain(|uid, open| {
            // One that has ended has panicked: they are loops without an end.
            let holds = !open.task.is_finished();
            holds && wanted.get(uid) == Some(&open.conversation) && targets.get(uid) == Some(&open.target)
        });
        for gone in conversations.known.extract_if(|uid| !targets.contains_key(uid)) {
            self.dialogues.forget(&gone);
        }
        for (uid, conversation) in wanted {
            let Some(target) = targets.get(uid) else { continue };
            if !conversations.open.contains_key(uid) {
                self.begin(conversations, uid, *conversation, target);
            }
        }
    }

    /// Tells one pod what follows from a write that went through just now, in the midst of a plan: the rest of it may take seconds, and the next plan says the same.
    pub(crate) fn tell(&self, app: &AppRef, pod: &PodUid, conversation: Conversation, target: &Target) {
        let mut apps = self.apps.lock();
        let conversations = self.of(&mut apps, app);
        self.begin(conversations, pod, conversation, target);
    }

    fn of<'a>(&self, apps: &'a mut HashMap<AppRef, Conversations>, app: &AppRef) -> &'a mut Conversations {
        apps.entry(app.clone()).or_insert_with(|| Conversations {
            slots: Slots::of_app(&self.slots),
            known: HashSet::new(),
            open: HashMap::new(),
        })
    }

    /// In the place of the conversation that is open, if one is.
    fn begin(
        &self,
        conversations: &mut Conversations,
        pod: &PodUid,
        conversation: Conversation,
        target: &Target,
    ) {
        conversation::begin(&self.dialogues, target, conversation, self.clock.now());
        let client = PodClient {
            target: target.clone(),
            asker: self.asker.clone(),
            keyring: self.keyring.clone(),
            dialogues: self.dialogues.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            slots: conversations.slots.clone(),
            lane: Lane::Answers,
        };
        let talk = conversation::hold(client, conversation, self.trigger.clone(), self.pace.clone());
        let open = Open {
            target: target.clone(),
            conversation,
            task: tokio::spawn(taken_up_again(talk, target.clone(), self.trigger.clone())).abort_handle(),
        };
        conversations.known.insert(pod.clone());
        conversations.open.insert(pod.clone(), open);
    }

    /// We have other keys: pods that refused are told again.
    pub(crate) fn forget_refusals(&self) {
        let apps: Vec<_> = self.apps.lock().keys().cloned().collect();
        self.dialogues.forget_refusals();
        apps.iter().for_each(|app| self.trigger.pull(app));
    }

    /// Ends the conversation with a pod that has been ended: it would only be told that nobody listens.
    pub(crate) fn stop_asking(&self, app: &AppRef, pod: &PodUid) {
        let mut apps = self.apps.lock();
        if let Some(conversations) = apps.get_mut(app) {
            conversations.open.remove(pod);
        }
    }

    /// Apps that are spoken to and are not among these.
    pub(crate) fn known_beside(&self, apps: &HashSet<AppRef>) -> Vec<AppRef> {
        let known = self.apps.lock();
        known.keys().filter(|app| !apps.contains(app)).cloned().collect()
    }

    /// Ends all conversations: another operator may speak to the pods from now on.
    pub(crate) fn silence(&self) {
        self.apps.lock().clear();
    }

    /// Ends all conversations of an app that is gone.
    pub(crate) fn forget(&self, app: &AppRef) {
        let conversations = self.apps.lock().remove(app);
        for uid in conversations.iter().flat_map(|conversations| &conversations.known) {
            self.dialogues.forget(uid);
        }
    }
}

/// For `fuzzing`: what an answer that comes in pieces of so many bytes says, if it can be read.
#[cfg(feature = "fuzzing")]
pub(crate) fn read(
    question: &graceful_api::Question,
    asked: &PodUid,
    body: &[u8],
    piece: usize,
    framed: bool,
) -> Option<u64> {
    use self::http::Sink;

    let mut hearing = parse::Hearing::new(question, asked);
    body.chunks(piece).try_for_each(|piece| hearing.take(piece)).ok()?;
    hearing.reading(framed).ok().map(|reading| reading.in_flight.total)
}

/// A conversation that panics is said, and begun anew by the plan that is asked for after a while.
async fn taken_up_again(talk: impl Future<Output = ()>, target: Target, trigger: Trigger) {
    if AssertUnwindSafe(talk).catch_unwind().await.is_err() {
        error!(app = %target.app, pod = target.pod, "the conversation with this pod panicked; retrying in {} s", AFTER_PANIC.as_secs());
        tokio::time::sleep(AFTER_PANIC).await;
        trigger.pull(&target.app);
    }
}

/// What made it panic is most likely what the pod says, and will say again.
const AFTER_PANIC: Duration = Duration::from_secs(30);
