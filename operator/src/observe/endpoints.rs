//! Whether the Services that route by the serving label have let go of a pod that has lost it. Read live, of pods that drain and only until they have: no app at rest
//! costs a call, and no watch holds the EndpointSlices of a whole cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use graceful_api::names;
use graceful_plan::{Containers, Endpoints, Epoch, NodeFate, PodUid};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use super::pods::uid;
use super::revisions::Ours;
use super::view::View;
use crate::doubled::doubled;
use crate::error::{Error, call, chain};

/// When to look again while one is listed still, and the longest time between two looks. The EndpointSlice controller follows within a tenth of a second where
/// nothing holds it up.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What is remembered of the looks at one app's pods.
#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    /// Since when no EndpointSlice lists a pod, as of this drain of it.
    since: BTreeMap<(PodUid, Epoch), Timestamp>,
    /// Looks in a row that found one listed.
    looks: u32,
    /// When the next is due.
    again: Option<Duration>,
}

impl Withdrawals {
    /// When to look again; none where nothing is waited for.
    pub(super) fn due(&self) -> Option<Duration> {
        self.again
    }

    /// Looks at those of these pods that drain and are not known to be withdrawn.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        namespace: &str,
        view: &View,
        pods: &[(&Pod, &Ours)],
        parsed: &mut [graceful_plan::Pod],
        now: Timestamp,
    ) {
        self.since.retain(|(uid, epoch), _| parsed.iter().any(|p| p.uid == *uid && p.epoch == Some(*epoch)));
        self.again = None;
        let in_doubt = |p: &&mut graceful_plan::Pod| drains(p) && self.known(p).is_none();
        let found = match parsed.iter_mut().any(|p| in_doubt(&p)) {
            true => slices(client, namespace, &fenced(view, pods)).await.map_err(|error| chain(&error)),
            false => Ok(Vec::new()),
        };
        if let Err(why) = &found
            && self.looks == 0
        {
            warn!(namespace, "pods that drain are not told to close: {why}");
        }
        let mut waits = false;
        for pod in parsed.iter_mut().filter(|p| drains(p)) {
            let listed = |slices: &[EndpointSlice]| {
                let ips = ips(&pod.uid, pods);
                slices.iter().find(|s| lists(s, &pod.uid, &ips)).map(listed_in)
            };
            pod.endpoints = match (self.known(pod), &found) {
                (Some(at), _) => Endpoints::WithdrawnAt(at),
                (None, Err(why)) => Endpoints::Unread(why.clone()),
                (None, Ok(slices)) => listed(slices).unwrap_or_else(|| {
                    self.since.extend(pod.epoch.map(|epoch| ((pod.uid.clone(), epoch), now)));
                    Endpoints::WithdrawnAt(now)
                }),
            };
            waits |= matches!(pod.endpoints, Endpoints::Listed { .. } | Endpoints::Unread(_));
        }
        self.again = waits.then(|| doubled(AGAIN.0, self.looks, AGAIN.1));
        self.looks = if waits { self.looks.saturating_add(1) } else { 0 };
    }

    fn known(&self, pod: &graceful_plan::Pod) -> Option<Timestamp> {
        self.since.get(&(pod.uid.clone(), pod.epoch?)).copied()
    }
}

/// It is to be told to close, or to be ended. One whose node dies closes whoever is sent to it.
fn drains(pod: &graceful_plan::Pod) -> bool {
    let goes_on = !pod.terminating && pod.containers != Containers::Finished;
    goes_on && !pod.routed && pod.drain.is_some() && pod.epoch.is_some() && pod.node.fate != NodeFate::Dying
}

/// Services that route to the app's pods while those have the serving label. Of one that routes to them without it the app is told already: it never lets go.
fn fenced(view: &View, pods: &[(&Pod, &Ours)]) -> Vec<String> {
    let routes = |service: &&Arc<Service>| {
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
        selector.filter(|s| s.contains_key(names::SERVING_LABEL)).is_some_and(|selector| {
            let others = || selector.iter().filter(|(key, _)| *key != names::SERVING_LABEL);
            pods.iter().any(|(pod, _)| others().all(|(key, value)| pod.labels().get(key) == Some(value)))
        })
    };
    view.services.iter().filter(routes).map(|s| s.name_any()).collect()
}

/// The slices of these Services. Those of ours are no such thing: they keep a lingering pod reachable for those who know it already.
async fn slices(client: &Client, namespace: &str, services: &[String]) -> Result<Vec<EndpointSlice>, Error> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let mut slices = Vec::new();
    for service in services {
        let params = ListParams::default().labels(&format!("{}={service}", names::SLICE_SERVICE));
        slices.extend(call("list EndpointSlices", api.list(&params)).await?);
    }
    slices.retain(|slice| managed_by(slice) != names::GROUP);
    Ok(slices)
}

/// Who keeps it, as its label says.
fn managed_by(slice: &EndpointSlice) -> &str {
    slice.labels().get(names::SLICE_MANAGER).map_or("", String::as_str)
}

fn listed_in(slice: &EndpointSlice) -> Endpoints {
    Endpoints::Listed { slice: slice.name_any(), managed_by: managed_by(slice).to_owned() }
}

/// Whether clients are sent to this pod by it. One that was made by hand need not name the pod: then its address does.
fn lists(slice: &EndpointSlice, pod: &PodUid, ips: &[String]) -> bool {
    slice.endpoints.iter().flatten().filter(|e| is_sent_clients(e)).any(|endpoint| {
        match endpoint.target_ref.as_ref().and_then(|of| of.uid.as_ref()) {
            Some(uid) => *uid == pod.0,
            None => ips.iter().any(|ip| endpoint.addresses.contains(ip)),
        }
    })
}

fn ips(pod: &PodUid, pods: &[(&Pod, &Ours)]) -> Vec<String> {
    let found = pods.iter().find(|(object, _)| uid(object) == *pod);
    let status = found.and_then(|(object, _)| object.status.as_ref());
    status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.clone()).collect()
}

/// A proxy falls back to one that is not ready only where it terminates, and none of these does.
fn is_sent_clients(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_proxy_sends_clients_to_is_listed() {
        let ips = ["10.0.0.1".to_owned(), "fd00::1".to_owned()];
        let read = |endpoint: serde_json::Value| {
            let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [endpoint]});
            lists(&serde_json::from_value(slice).unwrap(), &PodUid::from("u"), &ips)
        };
        let of = |uid: &str, ready: serde_json::Value| {
            read(
                json!({"addresses": ["10.0.0.9"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "uid": uid}}),
            )
        };
        assert!(of("u", json!(true)));
        assert!(of("u", json!(null)), "not said is ready, by the API's own words");
        assert!(!of("u", json!(false)));
        assert!(!of("another", json!(true)));
        assert!(read(json!({"addresses": ["10.0.0.1"]})), "made by hand, and no pod named");
        assert!(read(json!({"addresses": ["fd00::1"]})));
        assert!(!read(json!({"addresses": ["10.0.0.2"]})));
    }
}
