//! What is known of nodes: whether their kubelets are heard, and whether they go.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use graceful_api::names;
use graceful_plan::{KeptBy, Kubelet, Node, NodeFate, Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod as PodObject, Taint};
use kube::{Api, Client, ResourceExt};

use crate::decode::Decoded;
use crate::error::{Error, call};
use crate::index::Index;

/// Which nodes go, as the chart's `nodeDrain` says it. Taints are named by their keys; their values and effects do not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDrain {
    /// A node is emptied when it is cordoned.
    pub on_cordon: bool,
    /// A node is emptied when it has one of these taints.
    pub taints: BTreeSet<String>,
    /// A node is dying when it has one of these.
    pub urgent_taints: BTreeSet<String>,
}

/// Cluster-autoscaler's and Karpenter's.
pub const TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];

/// AWS' (of its node termination handler) and GKE's.
pub const URGENT_TAINTS: [&str; 2] =
    ["aws-node-termination-handler/spot-itn", "cloud.google.com/impending-node-termination"];

/// Kubernetes' own, by which a person says that a node is shut down and does not come back by itself; to be taken off when it does.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

impl Default for NodeDrain {
    fn default() -> Self {
        let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Self { on_cordon: true, taints: owned(&TAINTS), urgent_taints: owned(&URGENT_TAINTS) }
    }
}

impl NodeDrain {
    fn fate(&self, node: &NodeObject, kubelet: Kubelet) -> NodeFate {
        let spec = node.spec.as_ref();
        let taints = || spec.and_then(|s| s.taints.as_ref()).into_iter().flatten().map(|t| t.key.as_str());
        let kept = node.annotations().get(names::KEEP).is_some_and(|keep| keep == "true");
        let cordoned = spec.and_then(|s| s.unschedulable) == Some(true);
        // Kubernetes goes by it on a node that is not Ready alone. One whose kubelet is heard runs: it was put on too early, or was not taken off.
        let out_of_service = taints().any(|key| key == OUT_OF_SERVICE);
        if out_of_service && kubelet == Kubelet::Silent {
            NodeFate::ShutDown
        } else if taints().any(|key| self.urgent_taints.contains(key)) {
            NodeFate::Dying
        } else if self.on_cordon && cordoned
            || out_of_service
            || taints().any(|key| self.taints.contains(key))
        {
            if kept { NodeFate::Kept(KeptBy::Annotation) } else { NodeFate::Emptied }
        } else if cordoned {
            NodeFate::Kept(KeptBy::Chart)
        } else {
            NodeFate::Stays
        }
    }

    /// Since when it goes, as its taints say it: the node controller writes on that of a cordon when it put it there; most autoscalers do not.
    /// One that dies soon did not begin to with a cordon that came before.
    fn goes_since(&self, node: &NodeObject) -> Option<Timestamp> {
        let spec = node.spec.as_ref()?;
        let cordoned = self.on_cordon && spec.unschedulable == Some(true);
        let urgent = |taint: &Taint| self.urgent_taints.contains(&taint.key);
        let dies = spec.taints.iter().flatten().any(urgent);
        let goes = |taint: &&Taint| match dies {
            true => urgent(taint),
            false => cordoned && taint.key == UNSCHEDULABLE || self.taints.contains(&taint.key),
        };
        spec.taints.iter().flatten().filter(goes).filter_map(|taint| Some(taint.time_added.as_ref()?.0)).min()
    }
}

/// The nodes as the watch shows them.
#[derive(Clone)]
pub(crate) struct Nodes {
    /// None where they are not read.
    seen: Option<(Index<Decoded<NodeObject>>, Arc<NodeDrain>)>,
}

impl Nodes {
    pub(crate) fn of_index(index: Index<Decoded<NodeObject>>, drain: Arc<NodeDrain>) -> Self {
        Self { seen: Some((index, drain)) }
    }

    pub(crate) fn unread() -> Self {
        Self { seen: None }
    }

    /// Waits for the first whole list.
    pub(crate) async fn listed(&self) {
        if let Some((index, _)) = &self.seen {
            index.listed().await;
        }
    }

    /// Whether the scheduler may put the pod on its node, whatever is said of that by now. Not where nodes are not read.
    pub(super) fn may_take(&self, pod: &PodObject) -> bool {
        let name = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let node = self.seen.as_ref().zip(name).and_then(|((index, _), name)| index.get("", name));
        node.is_some_and(|node| tolerates(pod, &node))
    }

    /// The node of this name, read just now: before what a watch shows of it ends a pod, or puts one back.
    pub(crate) async fn read(&self, client: &Client, name: &str) -> Result<Node, Error> {
        let Some((_, drain)) = &self.seen else { return Ok(self.of(name)) };
        let api: Api<NodeObject> = Api::all(client.clone());
        let found = call("read a node", api.get_opt(name)).await?;
        Ok(found.map_or_else(|| absent(name.to_owned()), |node| state(&node, drain)))
    }

    /// The node of this name. One that is not there is not heard: the word of its agent on a pod is then worthless.
    pub(crate) fn of(&self, name: &str) -> Node {
        let name = name.to_owned();
        match &self.seen {
            None => Node { name: Some(name), kubelet: Kubelet::Unread, fate: NodeFate::Stays },
            Some((index, drain)) => match index.get("", &name) {
                None => absent(name),
                Some(node) => state(&node, drain),
            },
        }
    }
}

impl Nodes {
    /// Whether the node of this name goes, and since when, where its own taints say that.
    pub(super) fn going(&self, name: &str) -> Going {
        let node = self.seen.as_ref().and_then(|(index, drain)| Some((index.get("", name)?, drain)));
        Going { fate: self.of(name).fate, since: node.and_then(|(node, drain)| drain.goes_since(&node)) }
    }
}

/// Whether and since when a node goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Going {
    fate: NodeFate,
    since: Option<Timestamp>,
}

fn absent(name: String) -> Node {
    Node { name: Some(name), kubelet: Kubelet::Silent, fate: NodeFate::Stays }
}

/// What the operator goes by of a node: where this has not changed, nothing has.
pub(crate) fn state(node: &NodeObject, drain: &NodeDrain) -> Node {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let kubelet = if ready { Kubelet::Heard } else { Kubelet::Silent };
    Node { name: Some(node.name_any()), kubelet, fate: drain.fate(node, kubelet) }
}

/// Since when the nodes of one app go, as far as this process has seen it. Nodes that say it themselves are known to go since then by the next process as well, which
/// would otherwise take what was put there meanwhile for what was there before, and replace it once more.
#[derive(Debug, Default)]
pub(crate) struct Departures(HashMap<String, (NodeFate, Timestamp)>);

/// A scheduler that has not heard of a cordon may put a pod there for so long, and clocks differ.
const UNHEARD: SignedDuration = SignedDuration::from_secs(if cfg!(test) { 1 } else { 10 });

/// What Kubernetes puts on a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Whether the scheduler may put the pod on the node all the same: it tolerates each taint that would keep it away.
pub(super) fn tolerates(pod: &PodObject, node: &NodeObject) -> bool {
    let tolerations = || pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).into_iter().flatten();
    let spec = node.spec.as_ref();
    let tolerated = |taint: &Taint| {
        tolerations().any(|t| {
            t.key.as_deref().is_none_or(|key| key.is_empty() || key == taint.key)
                && t.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect)
                && (t.operator.as_deref() == Some("Exists")
                    || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
        })
    };
    let cordon = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let cordoned = spec.and_then(|s| s.unschedulable) == Some(true);
    let taints = spec.and_then(|s| s.taints.as_ref()).into_iter().flatten();
    taints.chain(Some(&cordon).filter(|_| cordoned)).filter(|t| t.effect != "PreferNoSchedule").all(tolerated)
}

impl Departures {
    /// Pods that were put on a node after it began to go stay there: their replacements might be put there as well, without end. Of a pod that tolerates whatever
    /// keeps others away that is known at once.
    pub(super) fn update(
        &mut self,
        pods: &mut [Pod],
        going: impl Fn(&str) -> Going,
        tolerates: impl Fn(&Pod) -> bool,
        now: Timestamp,
    ) {
        let goes = |fate| matches!(fate, NodeFate::Emptied | NodeFate::Dying);
        // One that is emptied and then dies goes anew: what was put there meanwhile is to leave as well.
        self.0.retain(|name, (fate, _)| going(name).fate == *fate);
        for pod in pods.iter_mut().filter(|p| goes(p.node.fate)) {
            let Some(name) = pod.node.name.clone() else { continue };
            let Going { fate, since: said } = going(&name);
            let (_, seen) = *self.0.entry(name).or_insert((fate, now));
            // What does not tolerate the taint was there before it, whatever the clock says by which that was written.
            let (since, unheard) = match (tolerates(pod), said) {
                (true, Some(said)) => (said.min(seen), SignedDuration::ZERO),
                (true, None) => (seen, SignedDuration::ZERO),
                (false, _) => (seen, UNHEARD),
            };
            if pod.created.duration_since(since) > unheard {
                pod.node.fate = NodeFate::Kept(KeptBy::Toleration);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::pods::parse;
    use super::*;

    fn fate(drain: &NodeDrain, annotations: &Value, spec: &Value) -> NodeFate {
        let node = json!({"metadata": {"name": "n", "annotations": annotations}, "spec": spec});
        state(&serde_json::from_value(node).unwrap(), drain).fate
    }

    fn tainted(key: &str) -> Value {
        json!({"taints": [{"key": key, "effect": "NoSchedule"}]})
    }

    #[test]
    fn a_node_goes_as_its_taints_and_the_chart_say() {
        let drain = NodeDrain::default();
        let of = |spec: Value| fate(&drain, &json!({}), &spec);
        assert_eq!(of(json!({})), NodeFate::Stays);
        assert_eq!(of(json!({"unschedulable": true})), NodeFate::Emptied);
        assert_eq!(of(tainted("ToBeDeletedByClusterAutoscaler")), NodeFate::Emptied);
        assert_eq!(of(tainted("karpenter.sh/disrupted")), NodeFate::Emptied);
        assert_eq!(of(tainted("gpu")), NodeFate::Stays);
        assert_eq!(of(tainted("aws-node-termination-handler/spot-itn")), NodeFate::Dying);
        assert_eq!(of(tainted("node.kubernetes.io/out-of-service")), NodeFate::ShutDown);
    }

    /// Put on before the machine was off, or left on after its repair: what runs there is drained, and not given up.
    #[test]
    fn a_node_that_is_heard_is_not_shut_down() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let node = json!({"metadata": {"name": "n"}, "spec": tainted("node.kubernetes.io/out-of-service"), "status": ready});
        let fate = state(&serde_json::from_value(node).unwrap(), &NodeDrain::default()).fate;
        assert_eq!(fate, NodeFate::Emptied);
    }

    #[test]
    fn a_cordon_may_mean_nothing_and_a_node_may_be_kept() {
        let by_taints = NodeDrain { on_cordon: false, ..NodeDrain::default() };
        assert_eq!(
            fate(&by_taints, &json!({}), &json!({"unschedulable": true})),
            NodeFate::Kept(KeptBy::Chart)
        );
        assert_eq!(fate(&by_taints, &json!({}), &tainted("karpenter.sh/disrupted")), NodeFate::Emptied);
        let kept = |spec: Value| fate(&NodeDrain::default(), &json!({"graceful.dev/keep": "true"}), &spec);
        assert_eq!(kept(json!({})), NodeFate::Stays);
        assert_eq!(kept(json!({"unschedulable": true})), NodeFate::Kept(KeptBy::Annotation));
        assert_eq!(kept(tainted("karpenter.sh/disrupted")), NodeFate::Kept(KeptBy::Annotation));
        assert_eq!(
            kept(tainted("aws-node-termination-handler/spot-itn")),
            NodeFate::Dying,
            "it dies all the same"
        );
    }

    #[test]
    fn a_pod_is_put_on_a_tainted_node_where_it_tolerates_every_taint() {
        let node: NodeObject = serde_json::from_value(json!({"spec": {"unschedulable": true, "taints": [
            {"key": "spot", "value": "soon", "effect": "NoSchedule"}, {"key": "slow", "effect": "PreferNoSchedule"}]}}))
        .unwrap();
        let may = |tolerations: Value| {
            tolerates(
                &serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
                    .unwrap(),
                &node,
            )
        };
        let cordon = json!({"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"});
        assert!(may(json!([{"operator": "Exists"}])));
        assert!(may(json!([cordon, {"key": "spot", "operator": "Exists"}])));
        assert!(may(json!([cordon, {"key": "spot", "value": "soon"}])));
        assert!(!may(json!([cordon, {"key": "spot", "value": "never"}])));
        assert!(!may(json!([cordon, {"key": "spot", "operator": "Exists", "effect": "NoExecute"}])));
        assert!(!may(json!([cordon])));
        assert!(!may(json!([{"key": "spot", "operator": "Exists"}])), "the cordon keeps it away");
    }

    /// A burst of replacements that each drain at once is one, and not as many as fit into the time in which a scheduler may not have heard.
    #[test]
    fn a_replacement_that_tolerates_the_taint_stays_at_once() {
        let second = |n: i64| Timestamp::from_second(n).unwrap();
        let dying =
            |_: &str| Node { name: Some("n".to_owned()), kubelet: Kubelet::Heard, fate: NodeFate::Dying };
        let on = |created: i64| {
            let metadata = json!({"creationTimestamp": second(created).to_string()});
            let pod = json!({"metadata": metadata, "spec": {"containers": [], "nodeName": "n"}});
            parse(&serde_json::from_value(pod).unwrap(), None, dying, second(created))
        };
        let going = |since: Option<Timestamp>| move |_: &str| Going { fate: NodeFate::Dying, since };
        let fates = |tolerates: bool| {
            let mut departures = Departures::default();
            let mut pods = [on(90), on(101)];
            departures.update(&mut pods[..1], going(None), |_| tolerates, second(100));
            departures.update(&mut pods, going(None), |_| tolerates, second(101));
            pods.map(|p| p.node.fate)
        };
        assert_eq!(fates(true), [NodeFate::Dying, NodeFate::Kept(KeptBy::Toleration)]);
        assert_eq!(fates(false), [NodeFate::Dying, NodeFate::Dying], "its scheduler may not have heard");
        // The next process sees the node go an hour later.
        let after_a_hand_over = |since: Option<Timestamp>, tolerates: bool| {
            let mut pods = [on(90), on(101)];
            Departures::default().update(&mut pods, going(since), |_| tolerates, second(3700));
            pods.map(|p| p.node.fate)
        };
        let as_before = [NodeFate::Dying, NodeFate::Kept(KeptBy::Toleration)];
        assert_eq!(after_a_hand_over(Some(second(100)), true), as_before, "replaced anew with each leader");
        assert_eq!(after_a_hand_over(None, true), [NodeFate::Dying; 2], "its taint does not say since when");
        // The controller manager's clock is behind.
        assert_eq!(
            after_a_hand_over(Some(second(50)), false),
            [NodeFate::Dying; 2],
            "no pod may come any more"
        );
    }

    #[test]
    fn a_node_goes_since_its_first_taint_that_counts() {
        let since = |drain: &NodeDrain, unschedulable: bool| {
            let added = |second: i64| Timestamp::from_second(second).unwrap().to_string();
            let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": unschedulable, "taints": [
                {"key": "gpu", "effect": "NoSchedule", "timeAdded": added(1)},
                {"key": UNSCHEDULABLE, "effect": "NoSchedule", "timeAdded": added(2)},
                {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"},
                {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule", "timeAdded": added(3)}]}});
            drain.goes_since(&serde_json::from_value(node).unwrap()).map(Timestamp::as_second)
        };
        let by_taints = NodeDrain { on_cordon: false, ..NodeDrain::default() };
        assert_eq!(since(&NodeDrain::default(), true), Some(2));
        assert_eq!(since(&by_taints, true), Some(3), "cordons mean nothing");
        assert_eq!(
            since(&NodeDrain::default(), false),
            Some(3),
            "a cordon that is taken back: its taint follows"
        );
        let mut dies = NodeDrain::default();
        dies.urgent_taints.insert("ToBeDeletedByClusterAutoscaler".to_owned());
        assert_eq!(since(&dies, true), Some(3), "and not since the cordon before");
        let nothing = NodeDrain { taints: BTreeSet::new(), ..by_taints };
        assert_eq!(since(&nothing, true), None);
    }

    #[test]
    fn the_chart_names_the_same_taints() {
        let values = include_str!("../../../charts/graceful-operator/values.yaml");
        for (key, taints) in [("taints", TAINTS.as_slice()), ("urgentTaints", URGENT_TAINTS.as_slice())] {
            let line = format!("  {key}: [{}]\n", taints.join(", "));
            assert!(values.contains(&line), "{line}");
        }
    }
}
