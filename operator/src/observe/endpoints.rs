//! Whether the Services that route by the serving label have let go of a pod that has lost it. Read live, of pods that drain and only until they have: no app at rest
//! costs a call, and no watch holds the EndpointSlices of a whole cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::names;
use graceful_plan::{Containers, Doubling, Endpoints, Epoch, NodeFate, PodUid};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use super::pods::uid;
use super::revisions::Ours;
use super::surroundings::selects;
use super::view::View;
use crate::error::{Error, call, chain};

/// When to look again while one is listed still, and the longest time between two looks. The EndpointSlice controller follows within a tenth of a second where
/// nothing holds it up.
const LOOK_AGAIN: Doubling = Doubling { first: Duration::from_millis(200), longest: Duration::from_secs(2) };

/// A look may take a tenth of the time. The slices of two thousand pods are megabytes, and some pod of theirs drains all through a rollout.
const SHARE: u32 = 10;

/// What is remembered of the looks at one app's pods.
#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    /// What is known of each pod that drains, as of this drain of it. Withdrawn stays so.
    known: BTreeMap<(PodUid, Epoch), Endpoints>,
    /// The Services that ask for the serving label, while pods drain.
    fenced: BTreeSet<String>,
    /// Looks in a row that found one listed.
    looks: u32,
    /// When the next is due.
    again: Option<Duration>,
    /// None before that.
    not_before: Option<Instant>,
}

impl Withdrawals {
    /// When to look again; none where nothing is waited for.
    pub(super) fn due(&self) -> Option<Duration> {
        self.again
    }

    /// Looks at those of these pods that drain and are not known to be withdrawn.
    pub(super) async fn update(
        &mut self,
        client: &Client,
        namespace: &str,
        view: &View,
        pods: &[(&Pod, &Ours)],
        parsed: &mut [graceful_plan::Pod],
        now: Timestamp,
    ) {
        let draining: Vec<_> = parsed.iter().filter(|p| drains(p)).filter_map(key).collect();
        let goes_on: BTreeSet<_> = draining.iter().collect();
        self.known.retain(|pod, _| goes_on.contains(pod));
        let services = if draining.is_empty() { Vec::new() } else { fenced(view, pods) };
        self.fence(services.iter().cloned().collect());
        let in_doubt: Vec<_> = draining.iter().filter(|pod| !self.is_withdrawn(pod)).collect();
        if !in_doubt.is_empty() && self.rests_for().is_zero() {
            let began = Instant::now();
            let found = slices(client, namespace, &services).await.map_err(|error| chain(&error));
            self.not_before = Some(began + SHARE * began.elapsed());
            if let Err(why) = &found
                && self.looks == 0
            {
                warn!(namespace, "pods that drain are not told to close: {why}");
            }
            let listings = found.as_deref().map(Listings::of);
            let addresses = addresses(pods);
            for pod in in_doubt {
                let is = match &listings {
                    Err(why) => Endpoints::Unread((*why).clone()),
                    Ok(listings) => listings
                        .of_pod(&pod.0, addresses.get(&pod.0).map_or(&[], Vec::as_slice))
                        .map_or(Endpoints::WithdrawnAt(now), listed_in),
                };
                self.known.insert(pod.clone(), is);
            }
            self.looks = self.looks.saturating_add(1);
        }
        let mut waits = false;
        for pod in parsed.iter_mut().filter(|p| drains(p)) {
            let known = key(pod).and_then(|pod| self.known.get(&pod).cloned());
            pod.endpoints = known.unwrap_or_else(|| Endpoints::Unread(SOON.to_owned()));
            waits |= matches!(pod.endpoints, Endpoints::Listed { .. } | Endpoints::Unread(_));
        }
        if !waits {
            self.looks = 0;
        }
        let pause = LOOK_AGAIN.after(self.looks.saturating_sub(1));
        self.again = waits.then(|| pause.max(self.rests_for()));
    }

    /// One that asks for the label once more, since somebody had put its selector back, has sent clients to pods that it had let go of before.
    fn fence(&mut self, services: BTreeSet<String>) {
        if !services.is_subset(&self.fenced) {
            self.known.clear();
        }
        self.fenced = services;
    }

    /// Until the next look may be.
    fn rests_for(&self) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    fn is_withdrawn(&self, pod: &(PodUid, Epoch)) -> bool {
        matches!(self.known.get(pod), Some(Endpoints::WithdrawnAt(_)))
    }
}

/// Of a pod that began to drain since the last look.
const SOON: &str = "they are read again in a moment";

fn key(pod: &graceful_plan::Pod) -> Option<(PodUid, Epoch)> {
    Some((pod.uid.clone(), pod.epoch?))
}

/// Whether the pod is to be told to close, or to be ended. One whose node dies closes whoever is sent to it.
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

/// Whom clients are sent to, and by which slice.
struct Listings<'a> {
    pods: HashMap<&'a str, &'a EndpointSlice>,
    /// Of endpoints that were made by hand and name no pod.
    addresses: HashMap<&'a str, &'a EndpointSlice>,
}

impl<'a> Listings<'a> {
    fn of(slices: &'a [EndpointSlice]) -> Self {
        let mut all = Self { pods: HashMap::new(), addresses: HashMap::new() };
        for slice in slices {
            for endpoint in slice.endpoints.iter().flatten().filter(|e| is_sent_clients(e)) {
                match endpoint.target_ref.as_ref().and_then(|of| of.uid.as_deref()) {
                    Some(uid) => all.pods.extend([(uid, slice)]),
                    None => all.addresses.extend(endpoint.addresses.iter().map(|ip| (ip.as_str(), slice))),
                }
            }
        }
        all
    }

    /// The slice that sends clients to this pod.
    fn of_pod(&self, pod: &PodUid, addresses: &[String]) -> Option<&'a EndpointSlice> {
        let by_address = || addresses.iter().find_map(|ip| self.addresses.get(ip.as_str()));
        self.pods.get(pod.0.as_str()).or_else(by_address).copied()
    }
}

/// The addresses of each pod.
fn addresses(pods: &[(&Pod, &Ours)]) -> HashMap<PodUid, Vec<String>> {
    let of = |pod: &Pod| {
        let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
        ips.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
    };
    pods.iter().map(|(pod, _)| (uid(pod), of(pod))).collect()
}

/// A proxy falls back to one that is not ready only where it terminates, and none of these does.
fn is_sent_clients(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false)
}

/// The app's own Service, and others of the user's that ask for the serving label.
pub(super) fn local_services(view: &View, pods: &[(&Pod, &Ours)]) -> Vec<String> {
    let local = |service: &&Arc<Service>| {
        let spec = service.spec.as_ref();
        let policies = |s: &ServiceSpec| {
            let each = [&s.external_traffic_policy, &s.internal_traffic_policy];
            each.into_iter().flatten().any(|policy| policy == "Local")
        };
        let fenced = |s: &ServiceSpec| {
            s.selector.as_ref().is_some_and(|selector| selector.contains_key(names::SERVING_LABEL))
        };
        spec.is_some_and(|s| policies(s) && fenced(s))
            && pods.iter().any(|(pod, _)| selects(service, pod.labels()))
    };
    view.services.iter().filter(local).map(|s| s.name_any()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_that_is_fenced_again_is_looked_at_again() {
        let services = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let pod = (PodUid::from("u"), Epoch(1));
        let mut withdrawals = Withdrawals::default();
        withdrawals.fence(services(&["web"]));
        withdrawals.known.insert(pod.clone(), Endpoints::WithdrawnAt(Timestamp::UNIX_EPOCH));
        withdrawals.fence(services(&["web"]));
        assert!(withdrawals.is_withdrawn(&pod));
        withdrawals.fence(services(&[]));
        assert!(withdrawals.is_withdrawn(&pod), "it is no reason to look while none asks for the label");
        withdrawals.fence(services(&["web"]));
        assert!(!withdrawals.is_withdrawn(&pod));
    }

    #[test]
    fn what_a_proxy_sends_clients_to_is_listed() {
        let ips = ["10.0.0.1".to_owned(), "fd00::1".to_owned()];
        let read = |endpoint: serde_json::Value| {
            let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [endpoint]});
            let slices = [serde_json::from_value(slice).unwrap()];
            Listings::of(&slices).of_pod(&PodUid::from("u"), &ips).is_some()
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
