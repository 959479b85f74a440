//! Runs scenarios side by side, each in its namespace, and counts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Instant, timeout};

use super::databases::Databases;
use super::dump;
use super::scene::{Figures, NAMESPACE_LABEL, Scene};
use super::wait::eventually;
use super::world::World;

/// No scenario takes half of it on an idle machine.
const LONGEST: Duration = Duration::from_secs(420);
/// But for those that are run by name alone.
const LONGEST_BY_NAME: Duration = Duration::from_secs(1800);
/// A namespace with a GracefulApp in it must not hang: its finalizer lets go at once.
const NAMESPACES_GONE: Duration = Duration::from_secs(90);

/// A scenario, and what it needs.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, which the filter matches.
    pub name: &'static str,
    /// What its tags say: how it runs, and what it needs.
    pub tags: &'static [&'static str],
    /// Runs its steps.
    pub run: for<'a> fn(&'a Scene) -> BoxFuture<'a, anyhow::Result<()>>,
}

/// The scenario disturbs the operator itself, and so must run alone.
const ALONE: &str = "alone";
/// The scenario needs a PostgreSQL that pods reach.
const POSTGRES: &str = "postgres";
/// The scenario kills processes of the nodes, which must be of this machine.
const KILLS: &str = "kills";
/// The scenario opens a page from this machine, which must reach the pods.
const BROWSER: &str = "browser";
/// The scenario asks the nodes' own ports from this machine.
const NODE_PORTS: &str = "node_ports";
/// The scenario mounts programs and packages of this machine.
const PACKAGES: &str = "packages";
/// The scenario takes many minutes, and says the same until somebody changes what it is about: run by its name alone.
const LONG: &str = "long";

impl Scenario {
    /// Run where it is asked for by name, and else left out and named.
    pub fn is_long(&self) -> bool {
        self.tags.contains(&LONG)
    }

    /// Why it cannot run here.
    fn impossible(&self, world: &World) -> Option<&'static str> {
        match self
            .tags
            .iter()
            .find(|tag| ![ALONE, POSTGRES, KILLS, BROWSER, NODE_PORTS, PACKAGES, LONG].contains(tag))
        {
            Some(_) => Some("its tags are not what we know"),
            None if self.tags.contains(&POSTGRES) && matches!(world.databases, Databases::None) => {
                Some("it needs a PostgreSQL that pods reach: give --postgres-url")
            }
            None if self.tags.contains(&KILLS) && !world.ours => {
                Some("it kills processes of the nodes: only on this machine's own cluster")
            }
            None if self.tags.contains(&BROWSER) && !world.ours => {
                Some("its browser runs on this machine and does not reach the pods of another cluster")
            }
            None if self.tags.contains(&PACKAGES) && !world.ours => {
                Some("it mounts programs of this machine, which the nodes of another cluster do not have")
            }
            None if self.tags.contains(&NODE_PORTS) && !world.ours => Some(
                "it asks node ports from this machine, which does not reach the nodes of another cluster",
            ),
            None => None,
        }
    }
}

/// One scenario that was run, and why it failed if it did.
struct Finished {
    name: &'static str,
    took: Duration,
    figures: Figures,
    error: Option<anyhow::Error>,
}

/// Runs all scenarios, `jobs` side by side and then those that must be alone. True when all passed.
pub async fn run(world: &World, scenarios: Vec<Scenario>, jobs: usize) -> anyhow::Result<bool> {
    let world = Arc::new(world.clone());
    let (possible, skipped): (Vec<_>, Vec<_>) =
        scenarios.into_iter().partition(|s| s.impossible(&world).is_none());
    let (alone, together): (Vec<_>, Vec<_>) = possible.into_iter().partition(|s| s.tags.contains(&ALONE));
    let start = |scenario: Scenario| {
        let world = world.clone();
        async move { one(&world, scenario).await }
    };
    let before = namespaces(&world).await?;
    let mut outcomes: Vec<Finished> =
        stream::iter(together).map(start).buffer_unordered(jobs).collect().await;
    outcomes.extend(stream::iter(alone).map(start).buffer_unordered(1).collect::<Vec<_>>().await);
    if !world.keep {
        let begun = Instant::now();
        let error = namespaces_gone(&world, &before).await.err();
        let (took, figures) = (begun.elapsed(), Figures::default());
        outcomes.push(Finished { name: "namespaces_go", took, figures, error });
    }
    for scenario in &skipped {
        println!("skipped {}: {}", scenario.name, scenario.impossible(&world).unwrap_or_default());
    }
    Ok(report(&outcomes, skipped.len(), world.seed))
}

async fn one(world: &World, scenario: Scenario) -> Finished {
    let begun = Instant::now();
    let (figures, error) = match Scene::new(world, scenario.name).await {
        Ok(scene) => {
            let longest = if scenario.is_long() { LONGEST_BY_NAME } else { LONGEST };
            let result = match timeout(longest, (scenario.run)(&scene)).await {
                Ok(result) => result,
                Err(_) => Err(anyhow!("not over after {} s", longest.as_secs())),
            };
            let figures = scene.figures().clone();
            (figures, finish(&scene, result).await.err())
        }
        Err(error) => (Figures::default(), Some(error)),
    };
    Finished { name: scenario.name, took: begun.elapsed(), figures, error }
}

async fn finish(scene: &Scene, result: anyhow::Result<()>) -> anyhow::Result<()> {
    if let Err(error) = &result {
        scene.say(&format!("FAILED: {error:#}"));
        dump::dump(scene).await;
    }
    if scene.world.keep {
        scene.say(&format!("namespace {} is kept", scene.namespace));
        return result;
    }
    result.and(scene.remove_namespace().await.context("cannot delete the namespace"))
}

/// Waits until every namespace that tests made is gone, but for those that were there before: of the demo, or kept.
async fn namespaces_gone(world: &World, before: &[String]) -> anyhow::Result<()> {
    eventually("the tests' namespaces are gone", NAMESPACES_GONE, || async {
        let mut left = namespaces(world).await?;
        left.retain(|name| !before.contains(name));
        ensure!(left.is_empty(), "still there: {}", left.join(", "));
        Ok(())
    })
    .await
}

/// The namespaces that tests and demos made.
async fn namespaces(world: &World) -> anyhow::Result<Vec<String>> {
    let all: Api<Namespace> = Api::all(world.client.clone());
    let found = all.list(&ListParams::default().labels(NAMESPACE_LABEL)).await?.items;
    Ok(found.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
}

fn report(outcomes: &[Finished], skipped: usize, seed: u64) -> bool {
    println!();
    let total: Figures = outcomes.iter().fold(Figures::default(), |mut sum, o| {
        let Figures { accepted, finished, lost, unanswered, spares, spares_ran } = o.figures;
        sum.accepted += accepted;
        sum.finished += finished;
        sum.lost += lost;
        sum.unanswered += unanswered;
        sum.spares += spares;
        sum.spares_ran += spares_ran;
        sum
    });
    for Finished { name, took, figures, error } in outcomes {
        let word = if error.is_none() { "passed" } else { "FAILED" };
        let Figures { accepted, finished, lost, unanswered, spares, spares_ran } = figures;
        println!(
            "{word} {name:<28} {:>6.1} s  accepted={accepted} finished={finished} lost={lost} unanswered={unanswered} spares={spares} (ran={spares_ran})",
            took.as_secs_f64()
        );
        if let Some(error) = error {
            println!("       {error:#}");
        }
    }
    let failed = outcomes.iter().filter(|o| o.error.is_some()).count();
    let passed = outcomes.len() - failed;
    println!(
        "tasks: accepted={} finished={} requests unanswered={} spare pods={} of which ran={} seed={seed}",
        total.accepted, total.finished, total.unanswered, total.spares, total.spares_ran
    );
    println!("{passed} passed, {failed} failed");
    println!("e2e: passed={passed} failed={failed} skipped={skipped} lost={}", total.lost);
    failed == 0 && passed > 0 && total.lost == 0
}
