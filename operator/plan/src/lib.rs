//! The pure planner: one view of one app in, what to do next out.
//!
//! Nothing here does IO or reads a clock: `now` is an argument. `operator/src` observes, calls [`plan`], executes the [`Action`]s
//! in order and keeps the [`Conversation`]s going; after anything fails or anything is heard it observes and plans again.
//!
//! Read [`plan`] first: it is the table of contents. Then, by what they decide:
//!
//! - what all rules stand on: `observed` is the view, `contact` what a pod has said, `action` what may be done, `report` what is shown, `ids` what names a pod
//!   and a drain; `snapshot` has the facts that several rules ask for, `clock` notes the next moment that matters, and `draft` the actions as they are planned;
//!   `doubling` is a pause that grows, and `phrases` is what sentences share;
//! - how many pods there are and serve: `course` says where the app is going, `budget` how many pods may be missing (P3), `rollout` makes and drains by that;
//!   `expendable` says how many pods of a superseded revision nobody waits for, `going_nodes` and `node_drain` what nodes that go change, `overdue` what is late
//!   in a rollout; `teardown` is a deletion, `creation_backoff` stops revisions whose pods come to nothing, and `put_back` returns draining pods to service;
//! - when a pod may be ended (P1, P7): `proofs` has the proofs, `busy` says in which pods nothing can run, `retire` plans the end, `retirement` is its order, call by call,
//!   and `last_look` allows it just before the kill, `brake` bounds how many are ended for one spec; `handed_over` knows those that drain themselves after their DELETE; `endpoints` says until
//!   when clients are sent to a pod that drains;
//! - what happens to pods on their way: `unroute` takes them out of service, `drains` ends those that have a proof, `bridge` ends what kept them reachable, and
//!   `spares` unroutes those that go before they were Ready;
//! - what a pod is told and has answered: `conversation`, `converse` and `dialogue`; `astray` finds pods that contradict the protocol, `token_refused` those that
//!   refuse our token;
//! - a Deployment that the app takes over, and one that it leaves behind: `adoption` and `leave`;
//! - children and Deployments that follow the spec: `upkeep`; `lag` finds controllers that act late; `refusals` says how long what was refused is left alone;
//!   `marks` says which pods an eviction waits for;
//! - what people are shown (P8): `settled`, `stall`, `status`, and `waiting_for` with its parts `drain_words`, `new_pods`, `node_words` and `way_out`; `others` tells of pods that
//!   somebody else ended.
mod action;
mod adoption;
mod astray;
mod brake;
mod bridge;
mod budget;
mod busy;
mod clock;
mod condemned;
mod contact;
mod conversation;
mod converse;
mod count;
mod course;
mod creation_backoff;
mod dialogue;
mod doubling;
mod draft;
mod drain_words;
mod drains;
mod endpoints;
mod expendable;
#[cfg(test)]
mod fixture;
mod going_nodes;
mod handed_over;
mod ids;
mod lag;
pub mod last_look;
mod leave;
mod marks;
mod new_pods;
mod node_drain;
mod node_words;
mod observed;
mod others;
mod overdue;
mod phrases;
mod proofs;
mod put_back;
pub mod refusals;
mod report;
mod retire;
pub mod retirement;
mod rollout;
mod settled;
mod snapshot;
mod spares;
mod stall;
mod status;
mod teardown;
mod token_refused;
mod unroute;
mod upkeep;
mod waiting_for;
mod way_out;

pub use action::{Action, DeletionCost, Plan, PodRef, Proof};
pub use brake::Brake;
pub use contact::{
    Acknowledged, Answer, Astray, Contact, ContactError, InFlight, Protocol, Restarted, Scheduled, Way,
    ZeroRun,
};
pub use conversation::Conversation;
pub use creation_backoff::{Absences, Rejections};
pub use dialogue::{Dialogue, News, Reading, Request, longest_gap};
pub use doubling::Doubling;
pub use handed_over::is_handed_over;
pub use ids::{Epoch, PodUid};
pub use lag::Lags;
pub use marks::MARK_RESTS;
pub use observed::{
    Absent, Adoption, App, Backoff, BackoffCause, Bypass, Child, Containers, CutNote, Deletion, DrainNote,
    Endpoints, Failure, KeptBy, Kubelet, Lag, LeftBehind, Mark, Node, NodeFate, Observed, Pod, Readiness,
    Rejected, Revision, Surroundings, TemplateVerdict, Warning,
};
pub use report::{ConditionReport, DrainingPodReport, EndedPodReport, Report, RevisionReport};
pub use waiting_for::LONGEST_SENTENCE;
pub use way_out::way_out;

use draft::Draft;
use snapshot::Snapshot;

/// Decides everything.
///
/// # Flow
/// Of an app that stays, in this order:
///
/// 1. take what is to be adopted; stop revisions whose pods come to nothing; record on Deployments that their revision has worked, nudge controllers that wait, make the children as the spec
///    says, and ask by a dry run whether a new template would be taken;
/// 2. take spares out of service, and raise `spec.replicas` where a ReplicaSet would choose among pods that run;
/// 3. return to service the labelled pods that somebody else closed, the labelled ones that have a drain note, and those that lost the label without a drain;
/// 4. end superseded pods that need no drain; then put draining pods back that can serve again, and make new ones;
/// 5. end what keeps lingering pods reachable, and the pods whose drain is over;
/// 6. shrink: end pods that need no drain, take back replicas without a pod, and start drains, first for nodes that go, then within the budget;
/// 7. delete old Deployments, and mark which pods an eviction waits for.
///
/// Last, who is spoken to and what people are told.
///
/// # Guarantees
/// The same view and moment give the same plan. A view that is as the spec says gives no actions (P6). Every [`Action::Retire`] rests on a
/// [`Proof`], and silence is never one (P7).
///
/// # Assumptions
/// The view holds our own last writes to this app. Views may otherwise be late: each action carries what it was decided on.
///
/// # Caveats
/// One pod a Deployment is retired in each plan, since each retirement scales from the number that it saw.
pub fn plan(observed: &Observed, now: jiff::Timestamp) -> Plan {
    match leave::as_left(observed) {
        Some(left) => decide(&left, now),
        None => decide(observed, now),
    }
}

fn decide(observed: &Observed, now: jiff::Timestamp) -> Plan {
    let snapshot = Snapshot::of(observed, now);
    let mut draft = Draft::new(&snapshot);
    let course = course::course(&snapshot);
    match observed.app.deletion {
        // All is being taken there, and nothing can be made.
        Deletion::No if observed.surroundings.namespace_terminating => {}
        Deletion::No if !observed.app.finalizer => upkeep::claim(&snapshot, &mut draft),
        Deletion::No => {
            adoption::take(&snapshot, &mut draft);
            if !adoption::is_awaited(&snapshot) {
                creation_backoff::stop(&snapshot, &mut draft);
                upkeep::children(&snapshot, &mut draft);
                pods(&snapshot, &mut draft, &course);
            }
        }
        Deletion::Leave if observed.surroundings.namespace_terminating => {
            teardown::drain(&snapshot, &mut draft);
        }
        Deletion::Leave if !observed.app.finalizer || leave::finish(&snapshot, &mut draft) => {}
        Deletion::Leave => {
            adoption::carry_on(&snapshot, &mut draft);
            creation_backoff::stop(&snapshot, &mut draft);
            upkeep::of_deployments(&snapshot, &mut draft);
            leave::put_back(&snapshot, &mut draft);
            pods(&snapshot, &mut draft, &course);
        }
        Deletion::Drain => teardown::drain(&snapshot, &mut draft),
        Deletion::Orphan => teardown::orphan(&snapshot, &mut draft),
    }
    let conversations = converse::conversations(&snapshot, &draft);
    let report = status::report(&snapshot, &draft, &course);
    Plan { wake_at: snapshot.clock.next(), actions: draft.actions, conversations, report }
}

/// Pods of an app that stays, or leaves in good order.
fn pods(snapshot: &Snapshot<'_>, draft: &mut Draft, course: &course::Course<'_>) {
    spares::unroute(snapshot, draft);
    rollout::protect(snapshot, draft);
    put_back::repair(snapshot, draft);
    let clearing = rollout::clear_away(snapshot, draft, course);
    rollout::grow(snapshot, draft, course, clearing);
    bridge::remove(snapshot, draft);
    drains::end_drained(snapshot, draft);
    rollout::shrink(snapshot, draft, course);
    upkeep::history(snapshot, draft);
    marks::keep(snapshot, draft);
}
