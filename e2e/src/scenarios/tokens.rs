//! Only the operator drains: others are refused, keys are rotated without a restart, and lost without a pod that cannot be drained. These run alone: all
//! apps share the keys.

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::app::AppSpec;
use crate::harness::scene::Scene;
use crate::harness::{ROLLS, charts, load};

/// As the chart names it.
const SECRET: &str = "graceful-operator-drain-keys";

/// P1, P5: whoever is not the operator gets a 401, before and after keys are rotated; the operator drains as ever, and no pod restarts for it.
pub(super) async fn only_the_operator_drains(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    given.app(AppSpec::tasks(&scene.world)).await?;
    given.load(load::usual()).await?;
    refused(scene).await?;
    let before = uids(scene).await?;
    for _ in 0..2 {
        let rotate = ["-n", charts::NAMESPACE, "exec", charts::OPERATOR, "--", "/operator", "rotate-key"];
        scene.step("when the keys are rotated", scene.world.kubectl(&rotate)).await?;
    }
    refused(scene).await?;
    ensure!(uids(scene).await? == before, "a rotation replaced pods");
    when.template_changes("after the rotations").await?;
    then.rolled_out().await?;
    refused(scene).await?;
    let view = then.nothing_lost().await?;
    let secret = secret(scene).get(SECRET).await?;
    let entries: Vec<_> = secret.data.iter().flatten().map(|(entry, _)| entry.as_str()).collect();
    scene.say(&format!("tokens: accepted={} keys={entries:?}", view.accepted));
    Ok(())
}

/// P1, P8: the keys are lost: pods of before refuse what is signed with the new ones. It is said, and they go by their quiet zero.
pub(super) async fn lost_keys_hold_nobody(scene: &Scene) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    // Nobody can close their admission: what slips in drains itself, for which the hook needs its time.
    given.app(AppSpec::tasks(&scene.world).task_seconds("2-4")).await?;
    given.load(load::usual()).await?;
    scene.step("when no operator runs", charts::scale(&scene.world, 0)).await?;
    let lost = async {
        let patch = Patch::Merge(json!({"data": null}));
        secret(scene).patch(SECRET, &PatchParams::default(), &patch).await?;
        Ok(())
    };
    let lost = scene.step("and the keys are lost", lost).await;
    scene.step("and it is back", charts::scale(&scene.world, charts::REPLICAS)).await?;
    lost?;
    when.template_changes("after the loss").await?;
    then.status("it warns of refused tokens", ROLLS, |s| {
        s.conditions
            .iter()
            .any(|c| c.type_ == "Warning" && c.message.contains("refuses the operator's token"))
    })
    .await?;
    // Clients that keep their connections would not let it go quiet: docs/operating.md says so.
    let load = scene.load().await?;
    scene.step("when its clients let go", load.stop(true)).await?;
    then.rolled_out().await?;
    when.template_changes("with the new keys").await?;
    then.rolled_out().await?;
    then.nothing_lost_but_requests().await?;
    Ok(())
}

/// From a node's address, by way of the API server: with no token, and with one that is none.
async fn refused(scene: &Scene) -> anyhow::Result<()> {
    let body = async {
        for pod in scene.pods().await?.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
            let path =
                format!("/api/v1/namespaces/{}/pods/{}:9808/proxy/drain", scene.namespace, pod.name_any());
            let status: Value = scene.client.request(http::Request::get(&path).body(Vec::new())?).await?;
            ensure!(status["verifies"] == true, "{} does not verify: {status}", pod.name_any());
            let epoch = status["epoch"].as_u64().context("no epoch")? + 1;
            for token in [None, Some("Bearer e30.e30.AA")] {
                let mut request = http::Request::put(&path).header("content-type", "application/json");
                if let Some(token) = token {
                    request = request.header("authorization", token);
                }
                let request = request.body(json!({"epoch": epoch}).to_string().into_bytes())?;
                match scene.client.request_text(request).await {
                    Err(kube::Error::Api(status)) if status.code == 401 => {}
                    other => bail!("{} was drained by a stranger: {other:?}", pod.name_any()),
                }
            }
        }
        Ok(())
    };
    scene.step("then strangers are refused", body).await
}

async fn uids(scene: &Scene) -> anyhow::Result<Vec<Option<String>>> {
    let mut uids: Vec<_> = scene.pods().await?.iter().map(ResourceExt::uid).collect();
    uids.sort();
    Ok(uids)
}

fn secret(scene: &Scene) -> Api<Secret> {
    Api::namespaced(scene.client.clone(), charts::NAMESPACE)
}
