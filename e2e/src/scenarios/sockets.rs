//! WebSocket clients: they stay while their tasks run, are told, and come back to new pods.

use anyhow::ensure;

use crate::harness::app::AppSpec;
use crate::harness::load;
use crate::harness::scene::Scene;
use crate::wire::LoadSpec;

/// The close code that says "come back": RFC 6455's registry, 1012 Service Restart.
const SERVICE_RESTART: u16 = 1012;
/// A client reconnects within 0.4 s of its own accord; the rest is for a busy machine.
const LONGEST_GAP_MS: u64 = 3_000;
/// The last report and the close are sent at about the same time, on two connections.
const ORDER_SLACK_MS: u64 = 300;

/// Through a rollout, sockets end only when their pod has finished all it had, with the right words and code.
pub(super) async fn sockets_stay_while_their_tasks_run(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(LoadSpec { sockets: 16, ..load::usual() }).await?;
    let old: Vec<String> = scene.observer.pods().into_values().map(|p| p.name).collect();
    when.template_changes("second").await?;
    then.rolled_out().await?;
    then.all_sockets_connected().await?;
    let view = scene.load().await?.ledger().await?;
    for (client, pod) in &view.sockets.on {
        ensure!(!old.contains(pod), "{client} is still on {pod}");
    }
    ensure!(view.sockets.messages > 0, "no client heard of a task");
    let closes = &view.sockets.closes;
    ensure!(closes.len() >= 16, "only {} connections ended in a whole rollout", closes.len());
    let uids: Vec<_> = scene.observer.pods().into_iter().map(|(uid, p)| (p.name, uid)).collect();
    for close in closes {
        ensure!(close.code == Some(SERVICE_RESTART), "closed without 1012: {close:?}");
        ensure!(close.told, "not told: {close:?}");
        ensure!(close.gap_ms.is_some_and(|gap| gap <= LONGEST_GAP_MS), "away too long: {close:?}");
        let uid = uids.iter().find(|(name, _)| *name == close.pod).map(|(_, uid)| uid.clone());
        let work = uid.and_then(|uid| view.pods.get(&uid).cloned()).unwrap_or_default();
        ensure!(
            work.last_report_ms <= close.at_ms + ORDER_SLACK_MS,
            "closed {} ms before its pod's last task ended: {close:?}",
            work.last_report_ms - close.at_ms
        );
    }
    then.nothing_lost().await?;
    Ok(())
}
