//! The facts: every one that more than one rule needs, taken once from the view.

use std::collections::BTreeMap;

use graceful_api::{DrainPolicy, DrainReason, ReplaceWhen, RevisionHash, Signal};
use jiff::Timestamp;

use crate::clock::{Clock, after, seconds};
use crate::condemned;
use crate::contact::{Answer, Contact, Protocol};
use crate::count::count;
use crate::handed_over;
use crate::ids::Epoch;
use crate::observed::{
    Adoption, Backoff, Containers, NodeFate, Observed, Pod, Readiness, Revision, TemplateVerdict,
};

/// The view, with the questions that rules ask of it.
pub(crate) struct Snapshot<'a> {
    pub(crate) observed: &'a Observed,
    pub(crate) clock: Clock,
    /// Active pods ([`Pod::is_active`]) that are not condemned, by name. Most rules ask of these.
    pub(crate) remaining: Vec<&'a Pod>,
    /// The other active pods: their ReplicaSet has been told to delete them and has not yet (`last_look::may_scale_first`). As good as gone, but for P3.
    condemned: Vec<&'a Pod>,
    /// Pods that end, whoever began it.
    pub(crate) terminating: Vec<&'a Pod>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn of(observed: &'a Observed, now: Timestamp) -> Self {
        let mut remaining: Vec<_> = observed.pods.iter().filter(|p| p.is_active()).collect();
        remaining.sort_by(|a, b| a.name.cmp(&b.name));
        let mut condemned = Vec::new();
        for revision in &observed.revisions {
            let surplus = count(remaining.iter().filter(|p| p.revision == revision.hash))
                .saturating_sub(revision.replicas);
            let next = condemned::next(observed, revision, &remaining);
            condemned.extend(remaining.extract_if(.., |p| next.contains(&p.uid)).take(surplus as usize));
        }
        let mut terminating: Vec<_> = observed.pods.iter().filter(|p| p.terminating).collect();
        terminating.sort_by(|a, b| a.name.cmp(&b.name));
        Self { observed, clock: Clock::at(now), remaining, condemned, terminating }
    }

    pub(crate) fn update(&self) -> &'a RevisionHash {
        &self.observed.app.update
    }

    pub(crate) fn revision(&self, hash: &RevisionHash) -> Option<&'a Revision> {
        self.observed.revisions.iter().find(|r| r.hash == *hash)
    }

    /// Whether nothing that ending the pod needs is in a pause: writes to the pod, its Deployment's scale and controllers, the brake.
    pub(crate) fn may_be_ended(&self, pod: &Pod) -> bool {
        let scale = self.revision(&pod.revision).and_then(|r| r.scale_backoff.as_ref());
        let lag = self.observed.lags.get(&pod.revision).and_then(|lag| lag.not_followed.as_ref());
        let brake = self.observed.surroundings.brake.as_ref();
        !self.is_scaled_by_others(&pod.revision)
            && [pod.write_backoff.as_ref(), scale, lag, brake].into_iter().all(|b| !self.backs_off(b))
    }

    /// Whether somebody else scales the Deployment of this revision, which was adopted: each pod of it that we ended would be made again.
    fn is_scaled_by_others(&self, revision: &RevisionHash) -> bool {
        let adoption = &self.observed.surroundings.adoption;
        revision.is_adopted() && matches!(adoption, Adoption::Taken { scaler: Some(_), .. })
    }

    /// Whether a Deployment of the update revision may be asked for. Where another revision runs, Kubernetes is asked first, by a dry run; where none is,
    /// its making is the question: the API server is as strict with it, and nothing that runs is touched.
    pub(crate) fn may_be_made(&self) -> bool {
        match self.observed.surroundings.template {
            TemplateVerdict::Accepted => true,
            TemplateVerdict::Unknown => self.observed.revisions.is_empty(),
            TemplateVerdict::Awaits(_)
            | TemplateVerdict::Refused(_)
            | TemplateVerdict::RefusedBefore(_)
            | TemplateVerdict::Unanswered { .. } => false,
        }
    }

    /// Whether the spec asks for another revision than the pod's.
    pub(crate) fn is_superseded(&self, pod: &Pod) -> bool {
        pod.revision != *self.update()
    }

    /// Condemned queue workers, which have work to finish once their ReplicaSet deletes them.
    pub(crate) fn condemned_workers(&self) -> impl Iterator<Item = &'a Pod> {
        let works = |p: &&Pod| self.policy(p).signal == Signal::Sigterm && p.has_begun();
        self.condemned.iter().copied().filter(works)
    }

    /// How the pod is drained: as its revision says, but for one that refuses to be told. Its admission cannot be closed, so that its zero must hold, as under signal
    /// None. (A signal that tells nobody anything is left as it is.)
    pub(crate) fn policy(&self, pod: &Pod) -> DrainPolicy {
        let policy = self.revision(&pod.revision).map_or(self.observed.app.policy, |r| r.policy);
        let tells = policy.signal == Signal::Http;
        if tells && self.refuses_token(pod) { DrainPolicy { signal: Signal::None, ..policy } } else { policy }
    }

    /// Whether the pod was told, and refused our token ([`crate::token_refused`]).
    pub(crate) fn refuses_token(&self, pod: &Pod) -> bool {
        self.contact(pod).is_some_and(|c| c.refused.is_some())
    }

    pub(crate) fn contact(&self, pod: &Pod) -> Option<&'a Contact> {
        self.observed.contacts.get(&pod.uid)
    }

    pub(crate) fn answer(&self, pod: &Pod) -> Option<&'a Answer> {
        self.contact(pod)?.answer.as_ref()
    }

    /// The protocol part of the pod's last answer, where it has one.
    pub(crate) fn protocol(&self, pod: &Pod) -> Option<Protocol> {
        self.answer(pod)?.protocol
    }

    /// When the pod is, or will be, Available; none while it is not Ready.
    pub(crate) fn available_from(&self, pod: &Pod) -> Option<Timestamp> {
        match pod.readiness {
            // Its node's clock may be ahead: what is Ready is so by now.
            Readiness::Ready(since) => {
                Some(after(since.min(self.clock.now()), seconds(self.observed.app.min_ready_seconds)))
            }
            Readiness::Lost(_) | Readiness::Never => None,
        }
    }

    pub(crate) fn available(&self, pod: &Pod) -> bool {
        self.available_from(pod).is_some_and(|from| self.clock.has_come(from))
    }

    /// A pod that was handed over is known by its revision's signal: with another one it would be forgotten while it still works. So a new signal waits for it.
    pub(crate) fn may_sync_policy(&self, revision: &Revision) -> bool {
        let of_it = |p: &Pod| p.revision == revision.hash;
        let forgets = !revision.signal_current && self.handed_over_running().any(of_it);
        !revision.policy_current && !forgets && !self.backs_off(revision.annotation_backoff.as_ref())
    }

    /// Not now: what the last try met is still in its pause.
    pub(crate) fn backs_off(&self, backoff: Option<&Backoff>) -> bool {
        backoff.is_some_and(|b| !self.clock.has_come(b.until))
    }

    /// Routed to and Available: traffic reaches it.
    pub(crate) fn serves(&self, pod: &Pod) -> bool {
        pod.routed && self.available(pod)
    }

    /// Whether the pod serves and may be relied on. One of the update revision must have given a valid answer, and accept. (Older ones proved themselves when they
    /// came; after an operator's restart they are not asked to prove it again.) One that has a drain note although it is labelled closes at any moment, until
    /// `put_back::repair` has put it back.
    pub(crate) fn takes_work(&self, pod: &Pod) -> bool {
        self.serves(pod)
            && pod.drain.is_none()
            && (self.is_superseded(pod) || (self.answer(pod).is_some() && !self.not_accepting(pod)))
    }

    /// A serving pod whose admission is closed, or will be: its last resumption has not reached it yet. (Under signal Http alone is a pod told an epoch.)
    pub(crate) fn not_accepting(&self, pod: &Pod) -> bool {
        let is_told = self.policy(pod).signal == Signal::Http;
        self.protocol(pod)
            .is_some_and(|p| !p.accepting || (is_told && pod.epoch.is_some_and(|e| p.epoch < e)))
    }

    /// Nothing in it can be busy: see [`crate::busy`]. A crashed pod that was never Ready may have been sent something all the same where a Service
    /// publishes unready addresses, or where it pulls its work, as its own last count says.
    pub(crate) fn cannot_be_busy(&self, pod: &Pod) -> bool {
        let only_ready_are_routed = self.observed.surroundings.publishing_unready.is_empty();
        let had_work = self.answer(pod).is_some_and(|a| a.in_flight.total > 0);
        pod.nothing_runs() && (pod.containers != Containers::Crashed || (only_ready_are_routed && !had_work))
    }

    pub(crate) fn serving(&self) -> u32 {
        count(self.remaining.iter().filter(|p| self.serves(p)))
    }

    /// Those that may be relied on; where a node dies, not on its pods.
    pub(crate) fn taking_work(&self) -> u32 {
        let lasts = |p: &&&Pod| p.stays() || p.node.fate == NodeFate::Emptied;
        count(self.remaining.iter().filter(lasts).filter(|p| self.takes_work(p)))
    }

    /// Some pod of it may be relied on.
    pub(crate) fn any_takes_work(&self, hash: &RevisionHash) -> bool {
        self.remaining.iter().any(|p| p.revision == *hash && self.takes_work(p))
    }

    /// Pods without the serving label: those that drain, and those that lost it otherwise.
    pub(crate) fn unrouted(&self) -> impl Iterator<Item = &'a Pod> {
        self.remaining.iter().copied().filter(|p| !p.routed)
    }

    /// The pods that the report shows as draining: the unrouted, the condemned that have drained (they are there until their ReplicaSet has deleted them, and it may
    /// be kept from that), and those that drain themselves after their DELETE.
    pub(crate) fn shown_as_draining(&self) -> impl Iterator<Item = &'a Pod> {
        let drained = |p: &&Pod| !p.routed && p.drain.is_some_and(|note| note.reason != DrainReason::Spare);
        let condemned = self.condemned.iter().copied().filter(drained);
        self.unrouted().chain(condemned).chain(self.handed_over())
    }

    /// Pods that drain themselves after their DELETE ([`handed_over`]), by name.
    pub(crate) fn handed_over(&self) -> impl Iterator<Item = &'a Pod> {
        self.terminating.iter().copied().filter(|p| handed_over::is_handed_over(self.observed, p))
    }

    /// Those of them that run, as far as is known.
    pub(crate) fn handed_over_running(&self) -> impl Iterator<Item = &'a Pod> {
        self.handed_over().filter(|p| !p.node.is_silent() && p.node.fate != NodeFate::ShutDown)
    }

    /// Those of them that count towards replicas + maxSurge, so that a new pod waits for them. One whose node dies soon is as good as gone there, like any pod.
    pub(crate) fn handed_over_in_room(&self) -> impl Iterator<Item = &'a Pod> {
        let counts = self.observed.app.replace_when == ReplaceWhen::Drained;
        self.handed_over_running().filter(move |p| counts && p.node.fate != NodeFate::Dying)
    }

    /// Pods that are, or are to be, routed to.
    pub(crate) fn routed(&self) -> impl Iterator<Item = &'a Pod> {
        self.remaining.iter().copied().filter(|p| p.routed)
    }

    pub(crate) fn remaining_of(&self, hash: &RevisionHash) -> u32 {
        count(self.remaining.iter().filter(|p| p.revision == *hash))
    }

    /// How many remaining pods are of other revisions than the spec asks for.
    pub(crate) fn count_superseded(&self) -> u32 {
        count(self.remaining.iter().filter(|p| self.is_superseded(p)))
    }

    /// Whether no Service would send clients to an unrouted pod, nor past its gate, nor to pods alone that an adoption takes away.
    pub(crate) fn services_are_fenced(&self) -> bool {
        let around = &self.observed.surroundings;
        around.unfenced_services.is_empty() && around.bypasses.is_empty() && around.left_behind.is_empty()
    }

    /// How many pods a revision will have in service once its ReplicaSet has followed: its replicas less its draining pods.
    pub(crate) fn wanted_of(&self, revision: &Revision) -> i64 {
        let draining = count(self.unrouted().filter(|p| p.revision == revision.hash));
        i64::from(revision.replicas) - i64::from(draining)
    }

    /// The same, of those that stay: one on a node that goes is to be replaced.
    pub(crate) fn staying_of(&self, revision: &Revision) -> i64 {
        let leave = self.on_going_nodes().filter(|p| p.revision == revision.hash);
        self.wanted_of(revision) - i64::from(count(leave))
    }

    /// Pods that are routed to, and whose node is emptied, dying or shut down.
    pub(crate) fn on_going_nodes(&self) -> impl Iterator<Item = &'a Pod> {
        self.routed().filter(|p| !p.stays())
    }

    /// How many pods may be made, by P3. Those whose node dies or is shut down do not count: they are as good as gone, and their replacements come at once. (So many
    /// of them at most as there may be pods: one that tolerates every taint is made on such a node again and again.)
    pub(crate) fn room(&self) -> i64 {
        let app = &self.observed.app;
        let most = app.replicas.saturating_add(app.max_surge);
        let doomed =
            self.remaining.iter().filter(|p| matches!(p.node.fate, NodeFate::Dying | NodeFate::ShutDown));
        let handed_over = i64::from(count(self.handed_over_in_room()));
        i64::from(most) - i64::from(self.total()) - handed_over + i64::from(count(doomed).min(most))
    }

    /// All pods there are or will be, of all revisions: what P3 bounds by replicas + maxSurge.
    pub(crate) fn total(&self) -> u32 {
        let owned: u32 =
            self.observed.revisions.iter().map(|r| r.replicas.max(self.remaining_of(&r.hash))).sum();
        let orphans = count(self.remaining.iter().filter(|p| self.revision(&p.revision).is_none()));
        owned.saturating_add(orphans).saturating_add(count(self.condemned.iter()))
    }

    /// Whether no pod of this revision can have been sent anything by a Service: it is not proven, and no Service publishes unready addresses. Then it can only be
    /// a bad revision or a new one.
    pub(crate) fn cannot_have_worked(&self, hash: &RevisionHash) -> bool {
        self.revision(hash).is_some_and(|r| !self.observed.is_proven(r))
            && self.observed.surroundings.publishing_unready.is_empty()
    }

    /// All pods of a revision, terminating and finished ones too.
    pub(crate) fn pods_of(&self, hash: &RevisionHash) -> impl Iterator<Item = &'a Pod> {
        self.observed.pods.iter().filter(move |p| p.revision == *hash)
    }

    /// The revision that the update revision replaces: the newest other one that takes work; where none does, the newest other one that still wants pods.
    pub(crate) fn predecessor(&self) -> Option<&'a Revision> {
        self.observed
            .revisions
            .iter()
            .filter(|r| r.hash != *self.update())
            .filter(|r| self.wanted_of(r) > 0)
            .max_by_key(|r| (self.any_takes_work(&r.hash), r.created, &r.hash))
    }

    /// The epochs that this plan may still write: each above all plausible annotations of the app, and above what the pod itself carries and has said. (One that is
    /// told before it is written, by `put_back`, is the pod's own next.)
    pub(crate) fn epochs(&self) -> Epochs {
        let epochs = self.observed.pods.iter().filter_map(|p| p.epoch);
        let last = epochs.filter(|e| *e < IMPLAUSIBLE).max().unwrap_or_default();
        Epochs { last }
    }

    /// Pods by revision, for the report.
    pub(crate) fn by_revision(&self) -> BTreeMap<&'a RevisionHash, Vec<&'a Pod>> {
        let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pod in &self.remaining {
            map.entry(&pod.revision).or_default().push(*pod);
        }
        map
    }
}

/// An epoch that no operator of ours has counted up to: a thousand drains a second reach it after 34 years. Somebody told it to one pod by hand,
/// and that pod alone must live with it: its annotation is read, and counts for no other pod. (`operator/src/observe` reads no annotation from 2^52 on: that one
/// leaves the pod no numbers above it.)
const IMPLAUSIBLE: Epoch = Epoch(1 << 40);

/// Hands out epochs.
pub(crate) struct Epochs {
    last: Epoch,
}

impl Epochs {
    /// One for this pod. A pod that lies about what it has seen burns its own numbers, nobody else's.
    pub(crate) fn next_for(&mut self, snapshot: &Snapshot<'_>, pod: &Pod) -> Epoch {
        self.last = self.last.next();
        let seen = snapshot.protocol(pod).map(|p| p.epoch.next()).unwrap_or_default();
        let annotated = pod.epoch.map(Epoch::next).unwrap_or_default();
        self.last.max(seen).max(annotated)
    }
}
