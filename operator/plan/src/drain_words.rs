//! WAITING-FOR's sentence of a pod that drains: what it has in flight, for how long it drains, and what is wrong.

use graceful_api::{PodState, Signal};
use jiff::{SignedDuration, Timestamp};

use crate::action::Proof;
use crate::astray::contradiction;
use crate::clock::{after, seconds};
use crate::contact::{InFlight, Scheduled};
use crate::endpoints;
use crate::observed::Pod;
use crate::phrases::{and_more, whole_seconds};
use crate::proofs::{Progress, progress, state};
use crate::snapshot::Snapshot;
use crate::token_refused;
use crate::way_out::way_out;

/// How long past its linger a pod may still say that it accepts before that is called wrong. (Its EndpointSlices go sooner: `bridge::LATCHES_WITHIN`.)
const LATCH_OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// What is said of a draining pod: the facts first, and what a person can do last.
pub(crate) fn draining(snapshot: &Snapshot<'_>, pod: &Pod, others: usize) -> String {
    let Age { text: age, .. } = age(snapshot.clock.now(), drains_since(snapshot, pod));
    let others = and_more(others);
    let contact = snapshot.contact(pod);
    let error = contact.and_then(|c| c.error.as_ref());
    let known = || {
        snapshot
            .answer(pod)
            .map_or(String::new(), |a| format!(" (last known {} in flight)", a.in_flight.total))
    };
    let mut help = Vec::new();
    let what = if pod.node.is_silent() {
        help.push("if the node is lost for good, remove it from the cluster".to_owned());
        format!("counted busy: its node is not Ready, so nobody knows what it does{}", known())
    } else if pod.terminating && error.is_some() {
        // Mostly its process has ended, as it should, and its kubelet has yet to say so.
        format!("SIGTERM sent, it drains itself, and does not answer{}", known())
    } else if let Some(error) = error {
        help.push(error.message.clone());
        format!("counted busy, since it cannot be asked{}", known())
    } else {
        in_flight(snapshot, pod)
    };
    let restarted = match contact.and_then(|c| c.restarted) {
        Some(r) => format!(", restarted in place {} ({} in flight before)", times(r.times), r.last_known),
        None => String::new(),
    };
    help.extend(contact.and_then(contradiction).map(str::to_owned));
    help.extend(token_refused::explanation(snapshot, pod));
    let mut held = String::new();
    if progress(snapshot, pod) == Progress::Held {
        held = format!(", past its deadline of {} s and held", snapshot.policy(pod).deadline_seconds);
        help.extend(way_out(&snapshot.observed.app.namespace, pod));
    }
    let colon = if help.is_empty() { "" } else { ": " };
    format!("{}{others}: {what}{restarted}, draining for {age}{held}{colon}{}", pod.name, help.join("; "))
}

fn times(n: u32) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

fn drains_since(snapshot: &Snapshot<'_>, pod: &Pod) -> Timestamp {
    pod.drain.map_or(snapshot.clock.now(), |d| d.since)
}

fn in_flight(snapshot: &Snapshot<'_>, pod: &Pod) -> String {
    match progress(snapshot, pod) {
        Progress::MayEnd(Proof::NotRunning) => {
            return "nothing runs in it, so that it needs no drain".to_owned();
        }
        Progress::MayEnd(Proof::NeverWorked { .. }) => {
            return "no pod of its revision ever worked, so that it needs no drain".to_owned();
        }
        Progress::MayEnd(_) | Progress::Busy | Progress::Held => {}
    }
    let Some(answer) = snapshot.answer(pod) else {
        let what = if pod.terminating {
            "SIGTERM sent, it drains itself, and is not heard"
        } else {
            "not heard yet"
        };
        return what.to_owned();
    };
    let count = answer.in_flight;
    if let Some(why) = still_listed(snapshot, pod) {
        return format!("{}, {why}", in_flight_by_kind(count, None));
    }
    let suffix = match state(snapshot, pod) {
        _ if never_latches(snapshot, pod) => {
            ", and it still accepts long after its linger: after PUT /drain the app must stop accepting once lingerSeconds have passed (docs/protocol.md)"
        }
        PodState::Lingering => ", lingering",
        PodState::Draining if count.total == 0 && snapshot.policy(pod).signal == Signal::Http => {
            match answer.protocol {
                Some(p) if Some(p.epoch) == pod.epoch && p.accepting => ", and it is about to stop accepting",
                Some(p) if Some(p.epoch) == pod.epoch => ", but it must confirm this drain again",
                Some(_) | None => ", but it has not confirmed this drain yet",
            }
        }
        // Its end by itself is waited for, and no zero.
        PodState::Draining if pod.terminating => ", SIGTERM sent, it drains itself",
        PodState::Draining if count.total == 0 && snapshot.policy(pod).signal == Signal::None => {
            return format!(
                "0 in flight, ended once that has held for {} s (quietSeconds)",
                snapshot.policy(pod).quiet_seconds
            );
        }
        PodState::Idle => ", idle",
        PodState::Draining => "",
    };
    format!(
        "{}{suffix}",
        in_flight_by_kind(count, answer.scheduled.filter(|s| !snapshot.clock.has_come(s.next)))
    )
}

/// Its Services have not followed within the linger that it was given: what is wrong.
fn still_listed(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<String> {
    let why = endpoints::why_not_told_to_close(snapshot, pod)?;
    let given = after(pod.drain?.since, seconds(snapshot.policy(pod).linger_seconds));
    snapshot.clock.has_come(given).then_some(why)
}

/// As in "3 in flight (1 queued, 2 running)", and "1 in flight (1 queued, due at 2026-11-26T16:30:00Z)".
pub(crate) fn in_flight_by_kind(count: InFlight, scheduled: Option<Scheduled>) -> String {
    let queued = match scheduled {
        None => "queued".to_owned(),
        Some(Scheduled { tasks: 1, next }) if count.queued == 1 => {
            format!("queued, due at {}", whole_seconds(next))
        }
        Some(Scheduled { tasks, next }) if tasks == count.queued => {
            format!("queued, the first due at {}", whole_seconds(next))
        }
        Some(Scheduled { tasks, next }) => {
            format!("queued, {tasks} of them for later, the first due at {}", whole_seconds(next))
        }
    };
    let kinds: Vec<_> =
        [(count.queued, queued.as_str()), (count.running, "running"), (count.requests, "requests")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, kind)| format!("{n} {kind}"))
            .collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    format!("{} in flight{kinds}", count.total)
}

/// Whether the pod took the drain's epoch, and its linger is long over since then: it may have been told late.
fn never_latches(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let protocol = snapshot.protocol(pod);
    let linger = seconds(snapshot.policy(pod).linger_seconds) + LATCH_OVERDUE;
    let since = snapshot.contact(pod).and_then(|c| c.acknowledged).map(|known| known.at);
    protocol.is_some_and(|p| p.accepting && Some(p.epoch) == pod.epoch)
        && since.is_some_and(|at| snapshot.clock.has_come(after(at, linger)))
}

/// How long what is said of this pod stands where nothing else happens: there is an age in it.
pub(crate) fn stands_for(snapshot: &Snapshot<'_>, pod: &Pod) -> SignedDuration {
    age(snapshot.clock.now(), drains_since(snapshot, pod)).stands_for
}

/// How long something has lasted.
struct Age {
    text: String,
    /// How long the text stands.
    stands_for: SignedDuration,
}

/// As coarse as it is old: a status is written only when this text changes, so a drain of hours must not write each second.
fn age(now: Timestamp, since: Timestamp) -> Age {
    let age = now.duration_since(since).as_secs().max(0);
    let (text, step) = match age {
        0..60 => (format!("{age} s"), 5),
        60..3600 => (format!("{} min", age / 60), 60),
        _ => (format!("{} h {} min", age / 3600, age % 3600 / 60), 300),
    };
    Age { text, stands_for: SignedDuration::from_secs(step - age % step) }
}

#[cfg(test)]
mod tests {
    use graceful_api::DrainReason;

    use super::*;
    use crate::contact::{Acknowledged, Answer, Contact, Protocol};
    use crate::fixture;
    use crate::ids::Epoch;
    use crate::observed::DrainNote;

    #[test]
    fn what_waits_for_its_time_is_told_from_what_hangs() {
        let later = |tasks| Some(Scheduled { tasks, next: "2026-11-26T16:30:00.5Z".parse().unwrap() });
        let describe = |queued, running, scheduled| {
            in_flight_by_kind(InFlight { total: queued + running, queued, running, requests: 0 }, scheduled)
        };
        assert_eq!(describe(1, 2, None), "3 in flight (1 queued, 2 running)");
        assert_eq!(describe(1, 0, later(1)), "1 in flight (1 queued, due at 2026-11-26T16:30:00Z)");
        assert_eq!(
            describe(3, 1, later(3)),
            "4 in flight (3 queued, the first due at 2026-11-26T16:30:00Z, 1 running)"
        );
        assert_eq!(
            describe(3, 0, later(2)),
            "3 in flight (3 queued, 2 of them for later, the first due at 2026-11-26T16:30:00Z)"
        );
    }

    #[test]
    fn an_age_is_as_coarse_as_it_is_old_and_says_how_long_it_stands() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let age_after = |seconds: i64| {
            let Age { text, stands_for } = age(at(1000 + seconds), at(1000));
            (text, stands_for.as_secs())
        };
        assert_eq!(age_after(-3), ("0 s".to_owned(), 5), "the pod's clock is ahead");
        assert_eq!(age_after(59), ("59 s".to_owned(), 1));
        assert_eq!(age_after(61), ("1 min".to_owned(), 59));
        assert_eq!(age_after(3 * 3600 + 59), ("3 h 0 min".to_owned(), 241));
    }

    /// What is said of a drain grows no older than its text says.
    #[test]
    fn a_plan_is_made_again_when_the_age_in_its_sentence_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut pod = Pod { routed: false, epoch: Some(Epoch(1)), ..fixture::serving("tasks-v1-1") };
        pod.drain = Some(DrainNote { reason: DrainReason::ScaleDown, since: at(0) });
        let mut observed = fixture::observed(fixture::app(0, fixture::policy(Signal::Http)));
        observed.revisions = vec![fixture::revision("r")];
        observed.pods = vec![pod];
        let plan = crate::plan(&observed, at(61));
        assert!(plan.report.waiting_for.contains("draining for 1 min"), "{}", plan.report.waiting_for);
        assert_eq!(plan.wake_at, Some(at(120)));
    }

    /// A pod may be told minutes after its drain began: the cluster's endpoints were late, its node was cut off.
    #[test]
    fn an_app_that_never_closes_is_named_by_the_time_since_it_was_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let describe = |told: i64, now: i64| {
            let mut pod = Pod { routed: false, epoch: Some(Epoch(1)), ..fixture::serving("tasks-v1-1") };
            pod.drain = Some(DrainNote { reason: DrainReason::Rollout, since: at(0) });
            let protocol = Some(Protocol { epoch: Epoch(1), accepting: true, resumable: true });
            let answer = Answer { at: at(now), in_flight: InFlight::default(), protocol, scheduled: None };
            let contact = Contact {
                answer: Some(answer),
                acknowledged: Some(Acknowledged { epoch: Epoch(1), at: at(told) }),
                ..Contact::default()
            };
            let mut observed = fixture::observed(fixture::app(1, fixture::policy(Signal::Http)));
            observed.revisions = vec![fixture::revision("r")];
            observed.contacts = [(pod.uid.clone(), contact)].into();
            observed.pods = vec![pod];
            let snapshot = Snapshot::of(&observed, at(now));
            in_flight(&snapshot, &observed.pods[0])
        };
        assert!(!describe(300, 310).contains("it still accepts long after its linger"), "told just now");
        assert!(!describe(300, 332).contains("it still accepts long after its linger"));
        assert!(describe(300, 333).contains("it still accepts long after its linger"));
    }
}
