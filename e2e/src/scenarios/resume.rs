//! Clients of numbered events, across rollouts and crashes: no gap, no duplicate, and nothing that they were not told.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, load};
use crate::wire::{Heard, LedgerView, LoadSpec};

/// Enough that each pod has some.
const SOCKETS: u32 = 16;

/// SQLite, where each pod numbers its own tasks: a client hears of all that its pod does, to the last before the pod
/// goes, and begins anew at the next pod.
pub(super) async fn ws_resume(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    listeners_then_tasks(scene).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.all_sockets_connected().await?;
    scene.load().await?.stop(false).await?;
    then.ledger("each client has heard of all that its pods did", ROLLS, |view| {
        ensure!(view.unfinished.is_empty(), "{} tasks are unfinished", view.unfinished.len());
        let pods = scene.observer.pods();
        for (client, heard) in &view.sockets.heard {
            ensure!(heard.len() > 1, "{client} is on its first pod: this proves nothing");
            for heard in heard {
                in_order(client, heard)?;
                let pod = heard.pods.first().context("no pod")?;
                let uid =
                    pods.iter().find(|(_, p)| p.name == *pod).map(|(uid, _)| uid).context("no such pod")?;
                let finished = view.pods.get(uid).map_or(0, |work| work.finished);
                ensure!(
                    heard.last == finished,
                    "{client} was told of {} events of {pod}, which ended {finished} tasks: {heard:?}",
                    heard.last
                );
            }
        }
        Ok(())
    })
    .await?;
    let view = then.nothing_lost().await?;
    say(scene, &view);
    Ok(())
}

/// PostgreSQL, where there is one numbering: each client hears of each task of every pod, once, in one order, though
/// servers are killed and all pods replaced.
pub(super) async fn ws_resume_postgres(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let database = scene.world.databases.take().await?;
    given.app(AppSpec::tasks(&scene.world).postgres(&database.url).task_seconds("1-4")).await?;
    listeners_then_tasks(scene).await?;
    for pod in scene.pods().await?.iter().take(2) {
        when.server_killed(pod).await?;
        then.all_sockets_connected().await?;
    }
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.all_sockets_connected().await?;
    scene.load().await?.stop(false).await?;
    then.ledger("each client has heard of every task, once", ROLLS, |view| {
        ensure!(view.unfinished.is_empty(), "{} tasks are unfinished", view.unfinished.len());
        let mut ends = BTreeSet::new();
        for (client, heard) in &view.sockets.heard {
            let [heard] = &heard[..] else { anyhow::bail!("{client} heard of several streams: {heard:?}") };
            in_order(client, heard)?;
            ensure!(heard.not_resumed == 0, "{client} was not taken where it was: {heard:?}");
            ensure!(heard.resumed > 0, "{client} never came back: this proves nothing");
            ensure!(view.sockets.unheard.get(client) == Some(&0), "{client} was not told of all: {heard:?}");
            ends.insert((heard.stream.clone(), heard.last));
        }
        ensure!(ends.len() == 1, "clients are at different ends: {ends:?}");
        Ok(())
    })
    .await?;
    let view = then.nothing_lost_at_least_once().await?;
    if let Some(head) = database.ask("SELECT head FROM graceful_log").await? {
        let last = view.sockets.heard.values().flatten().map(|heard| heard.last).max().unwrap_or_default();
        ensure!(head.trim() == last.to_string(), "the log has {head} events, and clients heard of {last}");
    }
    say(scene, &view);
    Ok(())
}

/// The listeners are there before the first task ends, so that all are for them.
async fn listeners_then_tasks(scene: &Scene) -> anyhow::Result<()> {
    let (given, _, then) = scene.steps();
    let nothing = LoadSpec { clients: 0, rate_per_second: 0.0, ..load::usual() };
    given.load(LoadSpec { sockets: SOCKETS, numbered: true, ..nothing }).await?;
    then.all_sockets_connected().await?;
    given.load(LoadSpec { sockets: 0, ..load::usual() }).await
}

fn in_order(client: &str, heard: &Heard) -> anyhow::Result<()> {
    ensure!(heard.gaps == 0, "{client} was not told of {} events: {heard:?}", heard.gaps);
    ensure!(heard.duplicates == 0, "{client} was told of {} events again: {heard:?}", heard.duplicates);
    ensure!(heard.missed == 0, "{client} missed {} events: {heard:?}", heard.missed);
    ensure!(heard.from + heard.events == heard.last, "{client}: the numbers do not add up: {heard:?}");
    Ok(())
}

fn say(scene: &Scene, view: &LedgerView) {
    let heard = || view.sockets.heard.values().flatten();
    scene.say(&format!(
        "{} clients heard {} events of {} streams, came back {} times, gaps=0 duplicates=0",
        view.sockets.heard.len(),
        heard().map(|heard| heard.events).sum::<u64>(),
        heard().map(|heard| &heard.stream).collect::<BTreeSet<_>>().len(),
        view.sockets.closes.len(),
    ));
}
