//! A node is drained where much else stands in the way: somebody's own PodDisruptionBudget, a volume that is on that node alone, a rollout that has not worked yet, and
//! one that never will. And the chart's settings of node drains. These run alone, as those of `nodes` do.

use std::time::Duration;

use anyhow::ensure;
use graceful_api::{DrainReason, GracefulAppStatus, Phase, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::nodes::{SAID, is_on, kubectl_drain, node, pods_on, returned, warns};
use crate::harness::app::{AppSpec, NAME};
use crate::harness::charts;
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS, load};

/// Somebody's own budget.
const FOREIGN: &str = "mine";

/// A volume claim that one node alone can serve.
const CLAIM: &str = "books";

/// More than a task takes: whom the eviction API ends by itself drains itself in it.
const GRACE: u32 = 30;

/// For so many seconds a rollout is given its chance, and its pods keep the surge, node or not: longer than it takes until the node is drained.
const MAY_WORK_YET: u32 = 20;

/// How long nothing is seen to happen.
const WOULD_SHOW: Duration = Duration::from_secs(4);

/// One of the chart's `taints`.
const AUTOSCALER: &str = "ToBeDeletedByClusterAutoscaler";

/// An image that no registry has.
const NOWHERE: &str = "graceful/nowhere:dev";

/// P1, P3, P8: `kubectl drain` ends by itself whatever the apps on the node are at: a foreign budget is named and ours steps aside, a claim that is bound to the node is
/// named and waited for until maxSurge is 0, a rollout that is not proven and one that is stalled leave the node with what serves.
pub(super) async fn node_drained_whatever_else_is_wrong(scene: &Scene) -> anyhow::Result<()> {
    let node = node(scene).await?;
    let beside = async |name: &str, nth: u32| {
        Scene::in_namespace(&scene.world, name, format!("{}-{nth}", scene.namespace)).await
    };
    let bound = beside("node_drained_with_a_claim", 2).await?;
    let unproven = beside("node_drained_unproven", 3).await?;
    let stalled = beside("node_drained_stalled", 4).await?;
    let all = Hindered { covered: scene, bound: &bound, unproven: &unproven, stalled: &stalled };
    let mut result = all.drained(&node).await;
    let volume = Api::<PersistentVolume>::all(scene.client.clone());
    let removed = volume.delete(&bound.namespace, &DeleteParams::default()).await;
    result = result.and(removed.map(drop).map_err(Into::into));
    for other in [&bound, &unproven, &stalled] {
        result = result.and(other.remove_namespace().await);
    }
    returned(scene, &node, result).await
}

/// Four apps, each with its own hindrance.
struct Hindered<'a> {
    /// By somebody's own budget.
    covered: &'a Scene,
    /// To the node, by a volume.
    bound: &'a Scene,
    /// Its rollout may work yet when the node is drained.
    unproven: &'a Scene,
    /// Its rollout is past its deadline.
    stalled: &'a Scene,
}

impl Hindered<'_> {
    fn all(&self) -> [&Scene; 4] {
        [self.covered, self.bound, self.unproven, self.stalled]
    }

    async fn drained(&self, node: &str) -> anyhow::Result<()> {
        self.set_up(node).await?;
        let drain = kubectl_drain(self.covered, node);
        tokio::pin!(drain);
        tokio::select! {
            ended = &mut drain => anyhow::bail!("kubectl drain did not wait for the claim: {ended:?}"),
            waits = self.claim_waits(node) => waits?,
        }
        let took = drain.await?;
        self.covered.say(&format!("node_drained_hindered: kubectl_drain_seconds={:.1}", took.as_secs_f64()));
        for one in self.all() {
            let left = pods_on(one, node).await?;
            ensure!(left == 0, "{left} pods of {} are left on {node}", one.namespace);
        }
        let (.., then) = self.bound.steps();
        then.status("it says what its pod waits for", SAID, |s| s.waiting_for.contains(CLAIM)).await?;
        for one in [self.unproven, self.stalled] {
            let (.., then) = one.steps();
            then.status("as many serve elsewhere as before", ROLLS, |s| s.serving_replicas == 2).await?;
            let status = one.app().await?.status.unwrap_or_default();
            ensure!(status.updated_replicas == 0, "what does not work serves: {status:?}");
        }
        self.covered.world.kubectl(&["uncordon", node]).await?;
        self.settled().await
    }

    /// All four serve under load, with a pod on the node each, and what stands in the way is there.
    async fn set_up(&self, node: &str) -> anyhow::Result<()> {
        let world = &self.covered.world;
        bound_volume(self.bound, node).await?;
        let with_claim = AppSpec::tasks(world).replicas(1);
        let with_claim = mounted(with_claim);
        let serves = async |scene: &Scene, spec: AppSpec| {
            let (given, ..) = scene.steps();
            given.app(spec).await?;
            given.load(load::usual()).await
        };
        tokio::try_join!(
            serves(self.covered, AppSpec::tasks(world).replicas(3).grace(GRACE)),
            serves(self.bound, with_claim),
            serves(
                self.unproven,
                apart(AppSpec::tasks(world)).rollout("progressDeadlineSeconds", MAY_WORK_YET)
            ),
            serves(self.stalled, apart(AppSpec::tasks(world)).rollout("progressDeadlineSeconds", 1)),
        )?;
        for one in self.all() {
            ensure!(pods_on(one, node).await? > 0, "no pod of {} is on {node}", one.namespace);
        }
        self.covered_by_another().await?;
        for one in [self.unproven, self.stalled] {
            let (_, when, _) = one.steps();
            when.app_changes("the new image does not exist", |spec| spec.image(NOWHERE)).await?;
        }
        let (.., then) = self.unproven.steps();
        then.status("it rolls, and nothing has come of it", STARTS, |s| s.phase == Some(Phase::Rolling))
            .await?;
        let (.., then) = self.stalled.steps();
        then.status("it is Stalled", STARTS, |s| s.phase == Some(Phase::Stalled)).await?;
        Ok(())
    }

    /// The API server answers 500 to an eviction that two budgets have a say in: ours steps aside, and both are named.
    async fn covered_by_another(&self) -> anyhow::Result<()> {
        let scene = self.covered;
        let (.., then) = scene.steps();
        let budget = json!({"metadata": {"name": FOREIGN},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": NAME}}}});
        let budgets = scene.api::<PodDisruptionBudget>();
        budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?;
        let ours = names::pdb_name(NAME);
        then.status("both budgets are named", SAID, |s| {
            warns(s, &format!("PodDisruptionBudget {FOREIGN} covers")) && warns(s, &ours)
        })
        .await?;
        let look = || async {
            let there: Vec<_> =
                budgets.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
            ensure!(there == [FOREIGN], "there are {there:?}");
            Ok(())
        };
        scene.step("then ours has stepped aside", eventually("one budget", SAID, look)).await?;
        for pod in scene.pods().await? {
            scene.observer.deletes(&pod.name_any());
        }
        Ok(())
    }

    /// Nothing can take its pod's place elsewhere: that is said, and it is kept until the user lets it go first.
    async fn claim_waits(&self, node: &str) -> anyhow::Result<()> {
        let (_, when, then) = self.bound.steps();
        then.status("it names the claim that keeps it there", SAID + STARTS, |s| {
            s.waiting_for.contains(&format!("volume claim {CLAIM}")) && s.waiting_for.contains("maxSurge")
        })
        .await?;
        then.holds("its pod serves", WOULD_SHOW, |s| s.serving_replicas == 1 && s.draining_replicas == 0)
            .await?;
        ensure!(pods_on(self.bound, node).await? == 1, "its pod has left");
        when.app_changes("a pod may go before its replacement comes", |spec| {
            spec.rollout("maxSurge", 0).rollout("maxUnavailable", 1)
        })
        .await?;
        then.status("it drains", SAID, drains_for_its_node).await?;
        Ok(())
    }

    /// All are as they should be, ours is the only budget again, and nothing is lost.
    async fn settled(&self) -> anyhow::Result<()> {
        let image = self.covered.world.image("server");
        let budgets = self.covered.api::<PodDisruptionBudget>();
        budgets.delete(FOREIGN, &DeleteParams::default()).await?;
        let (.., then) = self.covered.steps();
        then.status("no foreign budget is told of", SAID, |s| !warns(s, FOREIGN)).await?;
        let there = budgets.list(&ListParams::default()).await?.items;
        ensure!(there.len() == 1 && there[0].name_any() == names::pdb_name(NAME), "ours has not come back");
        for one in [self.unproven, self.stalled] {
            let (_, when, _) = one.steps();
            when.app_changes("the image is the first again", |spec| spec.image(&image)).await?;
        }
        for one in self.all() {
            let (.., then) = one.steps();
            then.rolled_out().await?;
        }
        // Its only pod went before another came: clients found nobody, and what was accepted was done.
        let (.., then) = self.bound.steps();
        then.nothing_lost_but_requests().await?;
        for one in [self.covered, self.unproven, self.stalled] {
            let (.., then) = one.steps();
            then.nothing_lost().await?;
        }
        Ok(())
    }
}

/// A volume that this node alone has, and a claim that is bound to it.
async fn bound_volume(scene: &Scene, node: &str) -> anyhow::Result<()> {
    let there = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let volume = json!({
        "metadata": {"name": scene.namespace},
        "spec": {
            "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": scene.namespace, "name": CLAIM},
            "hostPath": {"path": "/usr", "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [there]}]}},
        },
    });
    let claim = json!({
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": scene.namespace,
            "resources": {"requests": {"storage": "1Mi"}}},
    });
    let volumes = Api::<PersistentVolume>::all(scene.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
    let claims = scene.api::<PersistentVolumeClaim>();
    claims.create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    Ok(())
}

/// The claim is mounted, and not written to.
fn mounted(spec: AppSpec) -> AppSpec {
    let mut spec = spec;
    let pod = &mut spec.0["template"]["spec"];
    let add = |list: &mut Value, item: Value| {
        if let Some(list) = list.as_array_mut() {
            list.push(item);
        }
    };
    add(
        &mut pod["volumes"],
        json!({"name": CLAIM, "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": true}}),
    );
    let mount = json!({"name": CLAIM, "mountPath": "/books", "readOnly": true});
    add(&mut pod["containers"][0]["volumeMounts"], mount);
    spec
}

/// One pod on each of two nodes, where both take pods.
fn apart(spec: AppSpec) -> AppSpec {
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": NAME}}}]);
    spec.replicas(2).set("/template/spec/topologySpreadConstraints", spread)
}

fn drains_for_its_node(status: &GracefulAppStatus) -> bool {
    status.draining.iter().any(|pod| pod.reason == DrainReason::NodeDrain)
}

/// P1, P3, P8: `nodeDrain.onCordon: false` leaves a cordon alone and empties a node for a taint; `nodeDrain.enabled: false` reads no node and has no right to, and rollouts,
/// scaling and deletion go on.
pub(super) async fn node_drain_as_the_chart_says(scene: &Scene) -> anyhow::Result<()> {
    let node = node(scene).await?;
    let result = as_the_chart_says(scene, &node).await;
    // Whatever came of it, the other tests need them as they were.
    let untainted = super::leaving::untaint(scene, &node, &format!("{AUTOSCALER}-")).await;
    let reset = scene.step("and the chart is as ever", charts::upgrade(&scene.world, &[])).await;
    returned(scene, &node, result.and(untainted).and(reset)).await
}

async fn as_the_chart_says(scene: &Scene, node: &str) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    let world = &scene.world;
    let set = async |setting: &str| {
        let arguments = ["--set", setting];
        scene.step(format!("given a chart with {setting}"), charts::upgrade(world, &arguments)).await
    };
    set("nodeDrain.onCordon=false").await?;
    given.app(apart(AppSpec::tasks(world))).await?;
    given.load(load::usual()).await?;
    let before = pods_on(scene, node).await?;
    ensure!(before > 0, "no pod is on {node}");
    scene.step(format!("when {node} is cordoned"), world.kubectl(&["cordon", node])).await?;
    then.status("it says that cordons are left alone", SAID, |s| warns(s, "nodeDrain.onCordon is false"))
        .await?;
    then.holds("no pod drains", WOULD_SHOW, |s| s.draining_replicas == 0).await?;
    ensure!(pods_on(scene, node).await? == before, "a pod left a node that is only cordoned");
    let taint = format!("{AUTOSCALER}=soon:NoSchedule");
    scene.step(format!("when {node} is tainted"), world.kubectl(&["taint", "node", node, &taint])).await?;
    then.status("pods drain for the node", ROLLS, drains_for_its_node).await?;
    then.pods("none is left there", ROLLS, |pods| {
        ensure!(!pods.iter().any(|p| is_on(p, node)), "some are");
        Ok(())
    })
    .await?;
    super::leaving::untaint(scene, node, &format!("{AUTOSCALER}-")).await?;
    world.kubectl(&["uncordon", node]).await?;
    then.rolled_out().await?;
    set("nodeDrain.enabled=false").await?;
    ensure!(!may_read_nodes(scene).await?, "it may still read nodes");
    when.template_changes("while no node is read").await?;
    then.rolled_out().await?;
    scene.step(format!("when {node} is cordoned"), world.kubectl(&["cordon", node])).await?;
    then.holds("no pod drains for it", WOULD_SHOW, |s| s.draining_replicas == 0).await?;
    when.scaled(1).await?;
    then.rolled_out().await?;
    then.nothing_lost().await?;
    when.deleted(kube::api::PropagationPolicy::Background).await?;
    then.pods("all is gone", ROLLS, |pods| {
        ensure!(pods.is_empty(), "{} pods", pods.len());
        Ok(())
    })
    .await
}

async fn may_read_nodes(scene: &Scene) -> anyhow::Result<bool> {
    let operator = format!("--as=system:serviceaccount:{}:graceful-operator", charts::NAMESPACE);
    // kubectl's exit code is 1 where the answer is no.
    match scene.world.kubectl(&["auth", "can-i", "list", "nodes", &operator]).await {
        Ok(_) => Ok(true),
        Err(error) if format!("{error:#}").contains("no") => Ok(false),
        Err(error) => Err(error),
    }
}
