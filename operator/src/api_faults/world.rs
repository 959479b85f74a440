//! Objects as an API server keeps them: one clock of versions, preconditions, merge, JSON and apply patches, finalizers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// plural, namespace, name.
pub(super) type Key = (String, String, String);

/// An HTTP status and its reason.
pub(super) type Refusal = (u16, &'static str);

#[derive(Clone, Default)]
pub(super) struct World(Arc<Mutex<Objects>>, Arc<Notify>);

#[derive(Default)]
pub(super) struct Objects {
    pub(super) all: BTreeMap<Key, Value>,
    /// version, plural, event.
    pub(super) log: Vec<(u64, String, Value)>,
    pub(super) admission: Admission,
    /// The operator has rights in namespaces, and of what has none may read nodes.
    pub(super) has_roles_alone: bool,
    /// Requests that were answered, watches apart.
    pub(super) calls: u64,
    /// The requests that were to change something, whether or not they did.
    pub(super) writes: u64,
    /// Removals of Services that were denied.
    pub(super) refused_services: u64,
    /// Scales that were tried dry.
    pub(super) dry_scales: u64,
    /// Objects in their answers.
    pub(super) listed: u64,
    /// What was asked for, as RBAC has it: a resource, and a verb.
    pub(super) asked: BTreeSet<(String, &'static str)>,
    /// So many reads of Secrets fail.
    pub(super) failing_secret_reads: u32,
    clock: u64,
}

/// What policies, webhooks and a weak server do to writes.
#[derive(Clone, Copy, Default)]
pub(super) struct Admission {
    /// Writes through `deployments/scale` are denied, as a change freeze does.
    pub(super) refuses_scales: bool,
    /// Writes of Services meet a webhook that is down.
    pub(super) service_webhook_is_down: bool,
    /// Writes of pods are denied.
    pub(super) refuses_pods: bool,
    /// An annotation is added to the pod template of each Deployment that is written.
    pub(super) mutates_templates: bool,
    /// Writes of this kind meet a webhook that never answers.
    pub(super) hangs: Option<&'static str>,
    /// A scale below that is made that, as a cost or an availability policy does.
    pub(super) least_replicas: u64,
    /// Writes of pods are answered with a 200, and change nothing.
    pub(super) ignores_pods: bool,
    /// DELETEs of pods are denied.
    pub(super) keeps_pods: bool,
    /// DELETEs of Services are denied.
    pub(super) keeps_services: bool,
    /// What is made of this kind has neither our labels nor our annotations.
    pub(super) takes_ours_off: Option<&'static str>,
    /// Objects of this kind lose this label or annotation whenever they are written to.
    pub(super) strips: Option<(&'static str, &'static str)>,
    /// Pods that are written to lose the app's label.
    pub(super) unlabels_pods: bool,
    /// The namespace is being deleted.
    pub(super) namespace_goes: bool,
    /// Lists of this kind are forbidden.
    pub(super) hides: Option<&'static str>,
    /// There is no Role for us in this namespace.
    pub(super) without_role: Option<&'static str>,
    /// GracefulApps are left without finalizers.
    pub(super) takes_finalizers: bool,
    /// Of these (`DELETE pods`, `PATCH deployments/scale`) the connection is reset once they are done, before the answer.
    pub(super) resets: &'static [&'static str],
    /// How long the Deployment controller's writes of ReplicaSets take.
    pub(super) replica_sets_take: std::time::Duration,
    /// How long a write to a pod takes.
    pub(super) pods_take: std::time::Duration,
    /// How long a call takes.
    pub(super) takes: std::time::Duration,
}

impl Admission {
    pub(super) fn judge(&self, scale: bool, plural: &str) -> Result<(), Refusal> {
        match plural {
            "deployments" if scale && self.refuses_scales => Err((422, "denied: change freeze")),
            "pods" if self.refuses_pods => Err((403, "denied: pods are frozen")),
            "services" if self.service_webhook_is_down => {
                Err((500, "Internal error occurred: failed calling webhook \"services.example.com\""))
            }
            _ => Ok(()),
        }
    }
}

impl World {
    pub(super) fn open(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap()
    }

    /// Changes something, and wakes the watches.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Objects) -> T) -> T {
        let value = change(&mut self.open());
        self.1.notify_waiters();
        value
    }

    /// Waits for the next change, or at most 10 ms.
    pub(super) async fn changed(&self) {
        let _quiet = tokio::time::timeout(std::time::Duration::from_millis(10), self.1.notified()).await;
    }

    pub(super) fn list(&self, plural: &str) -> Vec<Value> {
        self.open().list(plural)
    }
}

impl Objects {
    pub(super) fn list(&self, plural: &str) -> Vec<Value> {
        self.all.iter().filter(|((p, ..), _)| p == plural).map(|(_, o)| o.clone()).collect()
    }

    pub(super) fn version(&self) -> u64 {
        self.clock
    }

    pub(super) fn create(
        &mut self,
        plural: &str,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), namespace.to_owned(), name);
        if self.all.contains_key(&key) {
            return Err((409, "AlreadyExists"));
        }
        self.clock += 1;
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["uid"] = json!(format!("uid-{}", self.clock));
        object["metadata"]["creationTimestamp"] = json!(now());
        object["metadata"]["generation"] = json!(1);
        Ok(self.put(&key, object, "ADDED"))
    }

    /// Edits the object, unless the preconditions in the patch's own metadata fail. Removed once it is going and no finalizer holds it.
    pub(super) fn edit(
        &mut self,
        key: &Key,
        patch: &Value,
        edit: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Value, Refusal> {
        let (before, mut object) = self.edited(key, patch, edit)?;
        if object == before {
            return Ok(before);
        }
        // Of Deployments the annotations as well: their controller copies them to the ReplicaSet.
        let annotated =
            key.0 == "deployments" && object["metadata"]["annotations"] != before["metadata"]["annotations"];
        if object["spec"] != before["spec"] || annotated {
            object["metadata"]["generation"] =
                json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let going = !object["metadata"]["deletionTimestamp"].is_null();
        if going && !held && key.0 != "pods" {
            return Ok(self.remove(key));
        }
        Ok(self.put(key, object, "MODIFIED"))
    }

    /// The same, or only its answer.
    pub(super) fn try_edit(
        &mut self,
        key: &Key,
        patch: &Value,
        dry: bool,
        edit: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Value, Refusal> {
        if dry { self.edited(key, patch, edit).map(|(_, after)| after) } else { self.edit(key, patch, edit) }
    }

    /// Before and after.
    fn edited(
        &self,
        key: &Key,
        patch: &Value,
        edit: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<(Value, Value), Refusal> {
        let before = self.all.get(key).cloned().ok_or((404, "NotFound"))?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &patch["metadata"][field];
            if !wanted.is_null() && *wanted != before["metadata"][field] {
                return Err((409, "Conflict"));
            }
        }
        let mut object = before.clone();
        edit(&mut object)?;
        Ok((before, object))
    }

    pub(super) fn delete(&mut self, key: &Key, options: &Value) -> Result<Value, Refusal> {
        let object = self.all.get(key).cloned().ok_or((404, "NotFound"))?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err((409, "Conflict"));
            }
        }
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if !held && key.0 != "pods" {
            return Ok(self.remove(key));
        }
        // The first DELETE's grace may be any; a later one may only shorten it.
        let own = match key.0.as_str() {
            "pods" => object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30),
            _ => 0,
        };
        let asked = options["gracePeriodSeconds"].as_i64();
        self.edit(key, &json!({}), |object| {
            let meta = &mut object["metadata"];
            let before = meta["deletionGracePeriodSeconds"].as_i64();
            let grace = match (before, asked) {
                (None, asked) => asked.unwrap_or(own),
                (Some(before), asked) => asked.unwrap_or(before).min(before),
            };
            if before != Some(grace) {
                let end = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
                let since = match (meta["deletionTimestamp"].as_str(), before) {
                    (Some(at), Some(before)) => end(at) - jiff::SignedDuration::from_secs(before),
                    _ => end(&now()),
                };
                meta["deletionTimestamp"] =
                    json!((since + jiff::SignedDuration::from_secs(grace)).to_string());
                meta["deletionGracePeriodSeconds"] = json!(grace);
            }
            Ok(())
        })
    }

    pub(super) fn remove(&mut self, key: &Key) -> Value {
        self.clock += 1;
        let mut object = self.all.remove(key).unwrap_or_default();
        object["metadata"]["resourceVersion"] = json!(self.clock.to_string());
        self.log.push((self.clock, key.0.clone(), json!({"type": "DELETED", "object": object})));
        object
    }

    fn put(&mut self, key: &Key, mut object: Value, event: &str) -> Value {
        self.clock += 1;
        object["metadata"]["resourceVersion"] = json!(self.clock.to_string());
        self.all.insert(key.clone(), object.clone());
        self.log.push((self.clock, key.0.clone(), json!({"type": event, "object": object})));
        object
    }
}

/// RFC 7386.
pub(super) fn merge(object: &mut Value, patch: &Value) {
    let (Value::Object(fields), true) = (patch, object.is_object() || object.is_null()) else {
        *object = patch.clone();
        return;
    };
    if object.is_null() {
        *object = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else if value.is_object() {
            merge(&mut object[key], value);
        } else {
            object[key] = value.clone();
        }
    }
}

pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap().to_string()
}
