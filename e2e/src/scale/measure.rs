//! One row, phase by phase: new apps, a cold start beside them, rest, rollouts, removal.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::answers::Pods;
use super::apps::Apps;
use super::calls::{self, Calls};
use super::counters::Health;
use super::process::{Ended, Operator, Program};
use super::quiet::{Course, quiet};
use super::relay::{Relay, Traffic};
use super::rows::Row;

const LOOK: Duration = Duration::from_millis(100);
/// A whole phase, plus what each app and each pod may add to it: well above the aims, and an end for what never ends.
const TIMEOUT: Duration = Duration::from_secs(120);
const TIMEOUT_AN_APP: Duration = Duration::from_millis(100);
const TIMEOUT_A_POD: Duration = Duration::from_millis(150);
/// What an operator does after the last app is settled (statuses, Events) is part of its cost.
const WINDS_DOWN: Duration = Duration::from_secs(60);

/// What all rows share.
pub(super) struct Surroundings<'a> {
    pub(super) client: &'a Client,
    pub(super) program: &'a Program,
    pub(super) relay: &'a Relay,
    pub(super) pods: Option<&'a Pods>,
    pub(super) rest: Duration,
}

/// One row's figures, as far as it came.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub(super) row: String,
    pub(super) apps: usize,
    pub(super) replicas: u32,
    pub(super) new: Option<Phase>,
    pub(super) restart: Option<Phase>,
    pub(super) rest: Option<Rest>,
    pub(super) rollout_of_one: Option<Phase>,
    pub(super) rollout_of_all: Option<Phase>,
    pub(super) removal: Option<Phase>,
    /// Why it came no further.
    pub(super) failed: Option<String>,
}

/// From a moment until the operator had nothing more to do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    /// Until the last app was there; none where that did not come.
    pub(super) seconds: Option<f64>,
    /// How many apps came as far, and how many should.
    pub(super) done: usize,
    pub(super) of: usize,
    pub(super) cpu_seconds: f64,
    pub(super) cpu_milliseconds_an_app: f64,
    /// Most resident memory since the process started.
    pub(super) peak_mebibytes: f64,
    pub(super) plans: Option<u64>,
    pub(super) failed_plans: Option<u64>,
    pub(super) calls: Calls,
    pub(super) sent_mebibytes: f64,
    pub(super) received_mebibytes: f64,
    pub(super) connections: u64,
    pub(super) note: Option<String>,
}

/// Some time in which nothing happens.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rest {
    pub(super) seconds: f64,
    pub(super) cpu_percent_of_a_core: f64,
    pub(super) calls: Calls,
    /// Questions that the pods answered.
    pub(super) questions: u64,
}

/// Measures the row into `figures`: what comes before an error stays.
pub(super) async fn measure(
    around: &Surroundings<'_>,
    row: Row,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let apps = Apps::prepare(around.client, row).await?;
    let bound = TIMEOUT + TIMEOUT_AN_APP * row.apps as u32 + TIMEOUT_A_POD * row.replicas * row.apps as u32;
    let mut run = Run::start(around, row, bound).await?;
    run.until_ready().await.context("an operator without apps")?;

    let mark = run.mark().await?;
    let (created, settled) = tokio::join!(apps.create(), run.settle(&apps, mark.at));
    created?;
    figures.new = Some(run.phase(mark, settled).await?);

    run.operator.stop().await?;
    // Before it starts: its lists are made within milliseconds.
    let (calls, traffic) = (calls::counted(around.client).await?, around.relay.traffic());
    let mark = Mark { at: Instant::now(), cpu_seconds: 0.0, calls, traffic, plans: None };
    run = Run::start(around, row, bound).await?;
    let settled = run.cold_start(mark.at).await;
    let restart = run.phase(mark, settled).await?;
    let well = restart.note.is_none();
    figures.restart = Some(restart);
    if well {
        figures.rest = Some(run.rest().await?);
    }
    if well && row.replicas > 0 {
        figures.rollout_of_one = Some(run.rollout(&apps, 1).await?);
        figures.rollout_of_all = Some(run.rollout(&apps, row.apps).await?);
    }
    if run.operator.look().is_ok() {
        let mark = run.mark().await?;
        apps.delete().await?;
        let gone = run.gone(&apps, mark.at).await;
        figures.removal = Some(run.phase(mark, gone).await?);
    }
    run.operator.stop().await
}

/// An operator that runs, and what is known of it.
struct Run<'a> {
    around: &'a Surroundings<'a>,
    row: Row,
    bound: Duration,
    operator: Operator<'a>,
    health: Health,
}

/// A moment, and all counts at it.
struct Mark {
    at: Instant,
    cpu_seconds: f64,
    calls: Calls,
    traffic: Traffic,
    plans: Option<(u64, u64)>,
}

/// How long it took until all was done, or how far it got.
struct Waited {
    seconds: Option<f64>,
    done: usize,
    note: Option<String>,
}

impl<'a> Run<'a> {
    async fn start(around: &'a Surroundings<'a>, row: Row, bound: Duration) -> anyhow::Result<Self> {
        let operator = around.program.start()?;
        let health = Health::at(operator.health)?;
        Ok(Self { around, row, bound, operator, health })
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        match quiet(&mut self.operator, &self.health, 0, TIMEOUT).await {
            Course::Quiet(_) => Ok(()),
            Course::Busy(counters) => anyhow::bail!("it does not come to rest: {counters:?}"),
            Course::Ended(ended) => Err(ended.into()),
        }
    }

    async fn mark(&mut self) -> anyhow::Result<Mark> {
        let counters = self.health.counters().await.ok();
        Ok(Mark {
            calls: calls::counted(self.around.client).await?,
            traffic: self.around.relay.traffic(),
            cpu_seconds: self.operator.look().unwrap_or(self.operator.last()).cpu_seconds,
            plans: counters.map(|c| (c.plans, c.failed)),
            at: Instant::now(),
        })
    }

    /// Until all apps say that they are settled.
    async fn settle(&mut self, apps: &Apps, begun: Instant) -> Waited {
        let of = self.row.apps;
        self.until(apps, begun, |apps| apps.settled(), |settled| settled >= of).await
    }

    /// Until no app is left.
    async fn gone(&mut self, apps: &Apps, begun: Instant) -> Waited {
        let of = self.row.apps;
        self.until(apps, begun, |apps| of - apps.there().min(of), |gone| gone >= of).await
    }

    async fn until(
        &mut self,
        apps: &Apps,
        begun: Instant,
        count: impl Fn(&Apps) -> usize,
        enough: impl Fn(usize) -> bool,
    ) -> Waited {
        loop {
            let done = count(apps);
            let took = begun.elapsed().as_secs_f64();
            let note = match self.operator.look() {
                Ok(_) if enough(done) => None,
                Ok(_) if begun.elapsed() > self.bound => {
                    Some(format!("not within {} s", self.bound.as_secs()))
                }
                Ok(_) => {
                    apps.moved(LOOK).await;
                    continue;
                }
                Err(Ended(why)) => Some(format!("{why} after {took:.1} s")),
            };
            return Waited { seconds: note.is_none().then_some(took), done, note };
        }
    }

    /// Until it has planned all apps that are there, and has nothing more to do.
    async fn cold_start(&mut self, begun: Instant) -> Waited {
        let of = self.row.apps;
        match quiet(&mut self.operator, &self.health, of, self.bound).await {
            Course::Quiet(at) => {
                Waited { seconds: Some(at.duration_since(begun).as_secs_f64()), done: of, note: None }
            }
            Course::Busy(counters) => {
                let note = format!("not at rest within {} s", self.bound.as_secs());
                Waited { seconds: None, done: counters.serving, note: Some(note) }
            }
            Course::Ended(Ended(why)) => {
                let note = format!("{why} after {:.1} s", begun.elapsed().as_secs_f64());
                Waited { seconds: None, done: 0, note: Some(note) }
            }
        }
    }

    /// Changes so many templates, and waits until all apps are settled again.
    async fn rollout(&mut self, apps: &Apps, count: usize) -> anyhow::Result<Phase> {
        let mark = self.mark().await?;
        apps.change(count, &format!("rollout of {count}")).await?;
        let settled = self.settle(apps, mark.at).await;
        let mut phase = self.phase(mark, settled).await?;
        phase.of = count;
        phase.done = phase.done.saturating_sub(self.row.apps - count);
        Ok(phase)
    }

    /// The cost since `mark`, once the operator has come to rest.
    async fn phase(&mut self, mark: Mark, outcome: Waited) -> anyhow::Result<Phase> {
        let Waited { seconds, done, mut note } = outcome;
        if note.is_none() {
            note = match quiet(&mut self.operator, &self.health, 0, WINDS_DOWN).await {
                Course::Quiet(_) => None,
                Course::Busy(_) => Some(format!("still at work {} s later", WINDS_DOWN.as_secs())),
                Course::Ended(Ended(why)) => Some(format!("{why} once that was done")),
            };
        }
        let now = self.mark().await?;
        let cpu_seconds = now.cpu_seconds - mark.cpu_seconds;
        let (plans_before, failed_before) = mark.plans.unwrap_or_default();
        let Traffic { sent, received, connections } = now.traffic;
        Ok(Phase {
            seconds,
            done,
            of: self.row.apps,
            cpu_seconds,
            cpu_milliseconds_an_app: cpu_seconds * 1000.0 / self.row.apps as f64,
            peak_mebibytes: mebibytes(self.operator.last().peak_bytes),
            plans: now.plans.map(|(plans, _)| plans.saturating_sub(plans_before)),
            failed_plans: now.plans.map(|(_, failed)| failed.saturating_sub(failed_before)),
            calls: now.calls - mark.calls,
            sent_mebibytes: mebibytes(sent - mark.traffic.sent),
            received_mebibytes: mebibytes(received - mark.traffic.received),
            connections: connections - mark.traffic.connections,
            note,
        })
    }

    async fn rest(&mut self) -> anyhow::Result<Rest> {
        let asked = || self.around.pods.map_or(0, Pods::answered);
        let (mark, questions) = (self.mark().await?, asked());
        sleep(self.around.rest).await;
        let questions = asked() - questions;
        // Before its metrics are read again.
        let used = self.operator.look()?.cpu_seconds - mark.cpu_seconds;
        let seconds = mark.at.elapsed().as_secs_f64();
        let calls = calls::counted(self.around.client).await? - mark.calls;
        Ok(Rest { seconds, cpu_percent_of_a_core: used / seconds * 100.0, calls, questions })
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
