//! Watches the app's pods for the whole of a test and holds them against P1 and P3, whatever the test itself looks at.
//!
//! Caveats: a spare (the pod that a ReplicaSet starts for one that was just deleted, and takes back at once) may stand
//! beside a surge pod for a moment. Pods that were deleted without ever running a container are therefore recorded apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use graceful_api::names;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::app::Limits;
use crate::loadgen::now_ms;
use crate::wire::LedgerView;

/// How long a change of the spec may take to reach the operator: until then both the old and the new limits count.
const TRANSITION: Duration = Duration::from_secs(5);
/// A report on its way while the DELETE is; the operator deletes only what reported long before.
const REPORT_SLACK_MS: u64 = 700;

/// A ReplicaSet replaces a deleted pod within milliseconds; this is for a busy controller manager.
const SPARE_MS: u64 = 2_000;

/// One pod's life as the watch showed it.
#[derive(Clone, Debug)]
pub struct PodLife {
    /// The pod's name.
    pub name: String,
    /// The node that it is on.
    pub node: Option<String>,
    /// When it was first seen.
    pub seen: Instant,
    /// From its first sight to its readiness; none for a pod that was there before the watch, or is not ready yet.
    pub started: Option<Duration>,
    /// When its deletion was first seen, on the harness' clock.
    pub deleted_ms: Option<u64>,
    /// Whether a container of it ever ran.
    pub ran: bool,
    /// Whether it has the serving label.
    pub serving: bool,
    /// Whether it is Ready.
    pub ready: bool,
    /// Why it drains or drained.
    pub reason: Option<String>,
    /// What was cut, as its annotation says.
    pub cut: Option<String>,
    /// The revision label.
    pub revision: Option<String>,
    /// Whether its ReplicaSet started it for a drained pod that was deleted a moment before.
    pub spare: bool,
    /// Whether clients were ever sent to it: it was Ready, with its label.
    pub served: bool,
    /// Whether it was draining once and serves again.
    pub returned: bool,
    /// Succeeded or Failed: it runs nothing.
    pub over: bool,
    /// The pod is no more in the API.
    pub gone: bool,
}

impl PodLife {
    /// The operator drains it just now.
    pub fn drains(&self) -> bool {
        self.counts() && self.drained_by_operator()
    }

    /// Counts towards replicas + maxSurge.
    fn counts(&self) -> bool {
        self.deleted_ms.is_none() && !self.over
    }

    /// Counts towards replicas − maxUnavailable.
    fn serves(&self) -> bool {
        self.counts() && self.serving && self.ready
    }

    /// The operator drained it; a test's own deletion leaves no trace of a drain.
    fn drained_by_operator(&self) -> bool {
        self.reason.is_some() && !self.serving
    }
}

#[derive(Default)]
struct Seen {
    pods: BTreeMap<String, PodLife>,
    limits: Vec<(Instant, Option<Limits>)>,
    /// Creations above the limit; spares are told apart when the test is over.
    over: Vec<Excess>,
    violations: Vec<String>,
    /// Serving pods that were deleted without a drain, by uid: a ReplicaSet chose them.
    taken: Vec<String>,
    /// Names of pods that the test itself deleted.
    deleted_by_test: Vec<String>,
    app_drains_itself: bool,
}

/// A pod was created while there were more than allowed.
struct Excess {
    created: String,
    most: u64,
    counting: Vec<String>,
}

/// Watches until dropped.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the whole test amounts to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Promises that were broken, a sentence each.
    pub violations: Vec<String>,
    /// Spare pods seen: what a ReplicaSet started for one that the operator had just deleted.
    pub spares: usize,
    /// The spares that ran a container.
    pub spares_ran: usize,
}

impl Observer {
    /// Starts watching pods with this label in the namespace.
    pub fn start(client: Client, namespace: &str, selector: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let config = watcher::Config::default().labels(selector);
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let events = watcher(pods, config).default_backoff();
            let mut events = std::pin::pin!(events);
            loop {
                match events.try_next().await {
                    Ok(Some(event)) => shared.lock().event(event),
                    Ok(None) => return,
                    Err(_) => {} // the back-off above paces the next try
                }
            }
        });
        Self { seen, task: task.abort_handle() }
    }

    /// From now on these limits hold; None suspends the check (the app is being deleted).
    pub fn expect(&self, limits: Option<Limits>) {
        self.seen.lock().limits.push((Instant::now(), limits));
    }

    /// With `signal: Sigterm` a pod may finish tasks after its DELETE, for that is its drain; and it counts until it is gone.
    pub fn app_drains_itself(&self) {
        self.seen.lock().app_drains_itself = true;
    }

    /// The test deletes this pod by hand: nobody promised that it is drained first.
    pub fn deletes(&self, pod: &str) {
        self.seen.lock().deleted_by_test.push(pod.to_owned());
    }

    /// Every pod seen so far, by uid.
    pub fn pods(&self) -> BTreeMap<String, PodLife> {
        self.seen.lock().pods.clone()
    }

    /// Joins what was seen with the ledger; `clock_offset_ms` is the harness' clock minus the ledger's.
    pub fn findings(&self, ledger: Option<(&LedgerView, i64)>) -> Findings {
        let seen = self.seen.lock();
        let mut violations = seen.violations.clone();
        // A spare is its ReplicaSet's making, not the operator's, and on a busy machine it may run before it is taken back.
        let taken_back =
            |uid: &String| seen.pods.get(uid).is_some_and(|p| p.deleted_ms.is_some() && (!p.ran || p.spare));
        for Excess { created, most, counting } in &seen.over {
            let running: Vec<_> = counting.iter().filter(|uid| !taken_back(uid)).collect();
            if !taken_back(created) && running.len() as u64 > *most {
                let names = running.iter().filter_map(|uid| seen.pods.get(*uid)).map(|p| p.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                violations.push(format!("P3: {} pods where {most} are allowed: {names}", running.len()));
            }
        }
        let taken = seen.taken.iter().filter_map(|uid| seen.pods.get(uid));
        for life in taken.filter(|p| !p.spare && !seen.deleted_by_test.contains(&p.name)) {
            violations.push(format!("P1: {} was serving and was deleted without a drain", life.name));
        }
        if let Some((ledger, offset)) = ledger.filter(|_| !seen.app_drains_itself) {
            violations.extend(seen.killed_while_busy(ledger, offset));
        }
        let spares = seen.pods.values().filter(|p| p.spare);
        let spares_ran = spares.clone().filter(|p| p.ran).count();
        Findings { violations, spares: spares.count(), spares_ran }
    }
}

impl Seen {
    fn event(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init | watcher::Event::InitDone => {}
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => self.applied(&pod),
            watcher::Event::Delete(pod) => {
                self.applied(&pod);
                if let Some(life) = pod.uid().and_then(|uid| self.pods.get_mut(&uid)) {
                    life.deleted_ms.get_or_insert_with(now_ms);
                    life.gone = true;
                }
            }
        }
    }

    fn applied(&mut self, pod: &Pod) {
        let Some(uid) = pod.uid() else { return };
        let before = self.pods.get(&uid).cloned();
        let mut life = life(pod, before.as_ref());
        if before.is_none() {
            life.spare = self.replaces_a_drained_pod(&life);
        }
        self.pods.insert(uid.clone(), life.clone());
        match before {
            None if life.counts() => self.created(uid),
            Some(before) if before.serves() && life.counts() && !life.serving => self.unrouted(&life),
            Some(before)
                if before.serves()
                    && life.ran
                    && life.deleted_ms.is_some()
                    && life.reason.is_none()
                    && self.allowed(|l| l.most, u64::max).is_some() =>
            {
                self.taken.push(uid);
            }
            _ => {}
        }
    }

    /// The operator wants no pod in place of one it drained, so this is the ReplicaSet's doing.
    fn replaces_a_drained_pod(&self, life: &PodLife) -> bool {
        let now = now_ms();
        self.pods.values().any(|p| {
            p.revision == life.revision
                && p.drained_by_operator()
                && p.deleted_ms.is_some_and(|deleted| now.saturating_sub(deleted) < SPARE_MS)
        })
    }

    /// A pod is new: P3's upper bound.
    fn created(&mut self, created: String) {
        let Some(most) = self.allowed(|l| l.most, u64::max) else { return };
        // One that the operator handed over to its own drain counts until it is gone.
        let drains = |p: &PodLife| {
            self.app_drains_itself && p.drained_by_operator() && p.ran && !p.spare && !p.gone && !p.over
        };
        let counting: Vec<_> =
            self.pods.iter().filter(|(_, p)| p.counts() || drains(p)).map(|(uid, _)| uid.clone()).collect();
        if counting.len() as u64 > most {
            self.over.push(Excess { created, most, counting });
        }
    }

    /// A serving pod lost its label and lives: a drain starts, and P3's lower bound must hold without it.
    fn unrouted(&mut self, life: &PodLife) {
        if life.reason.as_deref() == Some("Delete") {
            return;
        }
        let Some(fewest) = self.allowed(|l| l.fewest, u64::min) else { return };
        let serving = self.pods.values().filter(|p| p.serves()).count() as u64;
        if serving < fewest {
            let name = &life.name;
            self.violations.push(format!("P3: {serving} pods serve without {name}, at least {fewest} must"));
        }
    }

    /// The most lenient of the limits in force now and, for a moment after a change, before it.
    fn allowed(&self, of: impl Fn(&Limits) -> u64, lenient: impl Fn(u64, u64) -> u64) -> Option<u64> {
        let mut result = None;
        for (index, (_, limits)) in self.limits.iter().enumerate() {
            let replaced = self.limits.get(index + 1).map(|(at, _)| *at);
            if replaced.is_some_and(|at| at.elapsed() > TRANSITION) {
                continue;
            }
            let value = of(limits.as_ref()?);
            result = Some(result.map_or(value, |r| lenient(r, value)));
        }
        result
    }

    /// P1 seen from outside: a pod that the operator deleted must not report another task after its deletion.
    fn killed_while_busy(&self, ledger: &LedgerView, offset: i64) -> Vec<String> {
        let late = |(uid, life): (&String, &PodLife)| {
            let deleted = life.deleted_ms?;
            // A spare is unrouted as it comes, and its ReplicaSet takes it: what it pulls from a shared queue until then, it finishes in its
            // grace period. It may become Ready in the meantime, also after its DELETE.
            let never_served = life.spare && !life.served;
            // One that the test's own `kubectl drain` evicts in mid-drain finishes in its grace period what it still has.
            let by_others = self.deleted_by_test.contains(&life.name);
            if !life.drained_by_operator() || life.cut.is_some() || never_served || by_others {
                return None;
            }
            let last = ledger.pods.get(uid)?.last_report_ms.saturating_add_signed(offset);
            let late = last.checked_sub(deleted + REPORT_SLACK_MS)?;
            Some(format!(
                "P1: {} finished a task {} ms after its deletion",
                life.name,
                late + REPORT_SLACK_MS
            ))
        };
        self.pods.iter().filter_map(late).collect()
    }
}

/// A container that was deleted before it started is reported as terminated too, but without a start.
fn has_run(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    let running = state.is_some_and(|s| s.running.is_some());
    let ended = state.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.started_at.is_some());
    container.restart_count > 0 || running || ended
}

fn life(pod: &Pod, before: Option<&PodLife>) -> PodLife {
    let status = pod.status.as_ref();
    let condition = |kind: &str| {
        status
            .and_then(|s| s.conditions.as_ref())
            .is_some_and(|c| c.iter().any(|c| c.type_ == kind && c.status == "True"))
    };
    let containers = status.and_then(|s| s.container_statuses.as_ref());
    let runs = containers.is_some_and(|all| all.iter().any(has_run));
    let serving = pod.labels().get(names::SERVING_LABEL).is_some_and(|v| v == names::SERVING);
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let deleted = pod.metadata.deletion_timestamp.is_some().then(now_ms);
    let seen = before.map_or_else(Instant::now, |b| b.seen);
    let ready = condition("Ready");
    let served = serving && ready && deleted.is_none();
    let started = match before {
        Some(b) if ready && !b.ready && b.started.is_none() => Some(seen.elapsed()),
        Some(b) => b.started,
        None => None,
    };
    PodLife {
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        seen,
        started,
        deleted_ms: before.and_then(|b| b.deleted_ms).or(deleted),
        ran: runs || before.is_some_and(|b| b.ran),
        serving,
        ready,
        reason: pod.annotations().get(names::DRAIN_REASON).cloned(),
        cut: pod.annotations().get(names::CUT).cloned(),
        revision: pod.labels().get(names::REVISION_LABEL).cloned(),
        spare: before.is_some_and(|b| b.spare),
        served: served || before.is_some_and(|b| b.served),
        returned: before.is_some_and(|b| b.returned || (!b.serving && b.reason.is_some() && serving)),
        over: matches!(phase, "Succeeded" | "Failed"),
        gone: false,
    }
}

#[cfg(test)]
mod tests;
