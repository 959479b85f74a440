//! Which apps a Service or a budget of a namespace may concern, and which of those an app must look at, without comparing all with all.
//!
//! A selector matches a pod only if each of its `key=value` pairs is among the pod's labels. So a selector is filed under one of its pairs,
//! and an app under each pair of its pods' labels: both ways, a look-up of a few pairs finds the few that may match.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use graceful_api::{GracefulApp, names};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;

use crate::app_ref::AppRef;
use crate::decode::Decoded;

/// The group of selectors that no pair can be filed under (expressions, or nothing): they are compared with every app of the namespace.
pub(crate) const ANY: &str = "";

/// Labels as `key=value`.
pub(crate) type Pairs = BTreeSet<String>;

/// What changes with every pod or from moment to moment, and so is not what a selector is written for.
const PASSING: [&str; 2] = [names::SERVING_LABEL, "pod-template-hash"];

/// A pod's labels, or a template's, as pairs.
pub(crate) fn pairs<'a>(
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> impl Iterator<Item = String> {
    labels
        .into_iter()
        .filter(|(key, _)| !PASSING.contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={value}"))
}

/// Of an app's spec: the labels that its next pods will have.
pub(crate) fn pairs_to_come(app: &GracefulApp) -> Pairs {
    let labels = app.spec.template.0["metadata"]["labels"].as_object();
    let given = labels.into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_str()?)));
    let given = given.filter(|(key, _)| !PASSING.contains(&key.as_str()));
    given
        .map(|(key, value)| format!("{key}={value}"))
        .chain([format!("{}={}", names::APP_LABEL, app.name_any())])
        .collect()
}

/// By the app's label.
pub(crate) fn by_app<K: Resource>(object: &K) -> Vec<String> {
    object.labels().get(names::APP_LABEL).cloned().into_iter().collect()
}

/// By a pair of its selector. One without a selector routes to nothing of ours.
pub(crate) fn by_service_selector(service: &Decoded<Service>) -> Vec<String> {
    selected(service).map(groups).unwrap_or_default()
}

/// Likewise; a budget may select by expressions, or everything.
pub(crate) fn by_budget_selector(budget: &Decoded<PodDisruptionBudget>) -> Vec<String> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    match selector.map(|s| s.match_labels.as_ref().filter(|labels| !labels.is_empty())) {
        None => Vec::new(),
        Some(Some(labels)) => groups(labels),
        Some(None) => vec![ANY.to_owned()],
    }
}

/// What a Service selects by, if it selects.
pub(crate) fn selected(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// A budget's `matchLabels`, if it selects by those.
pub(crate) fn covered(budget: &PodDisruptionBudget) -> Option<&BTreeMap<String, String>> {
    budget.spec.as_ref()?.selector.as_ref()?.match_labels.as_ref()
}

fn groups(selector: &BTreeMap<String, String>) -> Vec<String> {
    let groups: Vec<_> = pairs(selector).collect();
    if groups.is_empty() { vec![ANY.to_owned()] } else { groups }
}

/// Every app's pairs, as its last plan saw them.
#[derive(Debug, Default)]
pub(crate) struct Concerns(Mutex<Filed>);

#[derive(Debug, Default)]
struct Filed {
    pairs: HashMap<AppRef, Pairs>,
    /// By namespace and pair.
    apps: HashMap<(String, String), HashSet<AppRef>>,
}

impl Concerns {
    /// Files that this app's pods have these labels, or will have them. Said before the selectors are looked up: one that comes in between then asks
    /// for another plan.
    pub(crate) fn file(&self, app: &AppRef, pairs: &Pairs) {
        let mut filed = self.0.lock();
        if filed.pairs.get(app) == Some(pairs) {
            return;
        }
        filed.take(app);
        let namespace = app.namespace.clone().unwrap_or_default();
        for pair in pairs {
            filed.apps.entry((namespace.clone(), pair.clone())).or_default().insert(app.clone());
        }
        filed.pairs.insert(app.clone(), pairs.clone());
    }

    /// The app is gone.
    pub(crate) fn forget(&self, app: &AppRef) {
        self.0.lock().take(app);
    }

    /// The apps of the namespace that have all these pairs among their pods' labels. None if any app may.
    pub(crate) fn of(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Option<Vec<AppRef>> {
        let filed = self.0.lock();
        let mut sets: Vec<_> = Vec::new();
        for pair in pairs(selector) {
            match filed.apps.get(&(namespace.to_owned(), pair)) {
                Some(apps) => sets.push(apps),
                None => return Some(Vec::new()),
            }
        }
        let fewest = sets.iter().min_by_key(|apps| apps.len())?;
        Some(fewest.iter().filter(|app| sets.iter().all(|apps| apps.contains(*app))).cloned().collect())
    }
}

impl Filed {
    fn take(&mut self, app: &AppRef) {
        let namespace = app.namespace.clone().unwrap_or_default();
        for pair in self.pairs.remove(app).unwrap_or_default() {
            let key = (namespace.clone(), pair);
            if let Some(apps) = self.apps.get_mut(&key) {
                apps.remove(app);
                if apps.is_empty() {
                    self.apps.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
