//! The API server's voice: paths, verbs and watches over a [`World`].

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::DATE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};

use super::faulty::Dice;
use super::world::{Key, Refusal, World, merge, now};

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What a request is about.
pub(super) struct Target {
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    subresource: Option<String>,
    query: Vec<(String, String)>,
}

impl Target {
    /// `/apis/GROUP/VERSION[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]`, or the same under `/api/v1`.
    pub(super) fn of(request: &Request<Body>) -> Self {
        let mut words = request.uri().path().split('/').filter(|w| !w.is_empty()).map(str::to_owned);
        let skip = if request.uri().path().starts_with("/apis") { 3 } else { 2 };
        let mut rest: Vec<_> = words.by_ref().skip(skip).collect();
        let namespaced = rest.first().is_some_and(|w| w == "namespaces") && rest.len() > 2;
        let namespace = if namespaced { rest.drain(..2).nth(1).unwrap() } else { String::new() };
        let mut rest = rest.into_iter();
        let query =
            request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        Self {
            plural: rest.next().unwrap_or_default(),
            namespace,
            name: rest.next(),
            subresource: rest.next(),
            query: query
                .map(|(k, v)| {
                    (
                        k.to_owned(),
                        v.replace("%3D", "=").replace("%2F", "/").replace("%2C", ",").replace("%21", "!"),
                    )
                })
                .collect(),
        }
    }

    /// As RBAC calls it.
    fn right(&self, method: &Method) -> (String, &'static str) {
        let subresource = self.subresource.iter().map(|part| format!("/{part}")).collect::<String>();
        let verb = match *method {
            Method::GET if self.watches() => "watch",
            Method::GET if self.name.is_none() => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "another",
        };
        (format!("{}{subresource}", self.plural), verb)
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn watches(&self) -> bool {
        self.query("watch") == Some("true")
    }

    /// What is really done, in short: `DELETE pods`, `PATCH deployments/scale`; a dry run is `dry`.
    pub(super) fn called(&self, method: &Method) -> String {
        let subresource = self.subresource.iter().map(|part| format!("/{part}")).collect::<String>();
        if self.dry() { "dry".to_owned() } else { format!("{method} {}{subresource}", self.plural) }
    }

    fn key(&self) -> Key {
        (self.plural.clone(), self.namespace.clone(), self.name.clone().unwrap_or_default())
    }

    fn status(&self) -> bool {
        self.subresource.as_deref() == Some("status")
    }

    fn scale(&self) -> bool {
        self.subresource.as_deref() == Some("scale")
    }

    fn dry(&self) -> bool {
        self.query("dryRun").is_some()
    }

    /// Of field selectors only `status.phase!=` is known, as far as it is used.
    fn selects_fields(&self, object: &Value) -> bool {
        let fields = self.query("fieldSelector").unwrap_or_default();
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        fields.split(',').filter_map(|f| f.strip_prefix("status.phase!=")).all(|not| phase != not)
    }

    fn selects(&self, object: &Value) -> bool {
        let here = self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace.as_str();
        let labels = &object["metadata"]["labels"];
        here && self.query("labelSelector").unwrap_or_default().split(',').filter(|t| !t.is_empty()).all(
            |term| match (term.split_once("!="), term.split_once('=')) {
                (Some((key, value)), _) => labels[key] != value,
                (None, Some((key, value))) => labels[key] == value,
                (None, None) => !labels[term].is_null(),
            },
        )
    }
}

/// Answers one request.
pub(super) async fn answer(world: &World, request: Request<Body>, dice: Dice) -> Answer {
    let target = Target::of(&request);
    // A Role in each namespace gives no right to ask for all.
    let namespaced = !matches!(target.plural.as_str(), "nodes" | "namespaces");
    if world.open().has_roles_alone && namespaced && target.namespace.is_empty() {
        return refuse(403, "Forbidden");
    }
    if world.open().admission.without_role.is_some_and(|namespace| target.namespace == namespace) {
        return refuse(403, "Forbidden");
    }
    world.open().asked.insert(target.right(request.method()));
    if target.watches() {
        return watch(world, target, dice);
    }
    world.open().calls += 1;
    let (parts, body) = request.into_parts();
    world.open().writes += u64::from(parts.method != Method::GET && !target.dry());
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let kind = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    match act(world, &parts.method, &target, &kind, body) {
        Ok(object) => reply(StatusCode::OK, &object),
        Err((code, reason)) => refuse(code, reason),
    }
}

fn act(
    world: &World,
    method: &Method,
    target: &Target,
    kind: &str,
    mut body: Value,
) -> Result<Value, Refusal> {
    let key = target.key();
    if *method == Method::POST && world.open().admission.takes_ours_off == Some(target.plural.as_str()) {
        let others_only = |words: &mut serde_json::Map<String, Value>| {
            words.retain(|key, _| !key.starts_with("graceful.dev/"));
        };
        for kind in ["labels", "annotations"] {
            body["metadata"][kind].as_object_mut().map(others_only);
        }
    }
    if *method == Method::GET && target.plural == "secrets" {
        let left = &mut world.open().failing_secret_reads;
        if let Some(fewer) = left.checked_sub(1) {
            *left = fewer;
            return Err((500, "etcdserver: request timed out"));
        }
    }
    if target.plural == "namespaces" {
        let since = world.open().admission.namespace_goes.then(now);
        return Ok(json!({"metadata": {"name": "x", "deletionTimestamp": since}}));
    }
    if method == Method::POST && !body["spec"]["template"]["metadata"]["labels"]["refuse"].is_null() {
        return Err((422, "refused by the test"));
    }
    if *method == Method::DELETE && target.plural == "pods" && world.open().admission.keeps_pods {
        return Err((403, "denied: pods are kept"));
    }
    if *method == Method::DELETE && target.plural == "services" && world.open().admission.keeps_services {
        world.open().refused_services += 1;
        return Err((403, "denied: services are kept"));
    }
    if *method == Method::PATCH && target.plural == "pods" && world.open().admission.ignores_pods {
        return world.open().all.get(&key).cloned().ok_or((404, "NotFound"));
    }
    if *method == Method::PATCH {
        world.open().admission.judge(target.plural == "deployments" && target.scale(), &target.plural)?;
    }
    if target.dry() && *method == Method::POST {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let taken = world.open().all.contains_key(&(target.plural.clone(), target.namespace.clone(), name));
        return if taken { Err((409, "AlreadyExists")) } else { Ok(body) };
    }
    if target.scale() {
        return scale(world, method, target, &key, &body);
    }
    match *method {
        Method::GET if target.name.is_some() => world.open().all.get(&key).cloned().ok_or((404, "NotFound")),
        Method::GET if world.open().admission.hides == Some(target.plural.as_str()) => {
            Err((403, "Forbidden"))
        }
        Method::GET => {
            let version = world.open().version();
            let wanted = |o: &Value| target.selects(o) && target.selects_fields(o);
            let items: Vec<_> = world.list(&target.plural).into_iter().filter(wanted).collect();
            world.open().listed += items.len() as u64;
            Ok(json!({"metadata": {"resourceVersion": version.to_string()}, "items": items}))
        }
        Method::POST => world.write(|w| w.create(&target.plural, &target.namespace, body)),
        Method::DELETE => world.write(|w| w.delete(&key, &body)),
        Method::PUT => world.write(|w| {
            w.edit(&key, &body, |object| {
                object["spec"] = body["spec"].clone();
                Ok(())
            })
        }),
        Method::PATCH if kind.contains("apply-patch") => world.write(|w| {
            if !w.all.contains_key(&key) && !target.status() {
                // What an apply makes needs both rights.
                w.asked.insert((target.plural.clone(), "create"));
                return w.create(&target.plural, &target.namespace, body);
            }
            w.edit(&key, &body, |object| {
                if target.status() {
                    object["status"] = body["status"].clone();
                } else {
                    let before = object["spec"].clone();
                    merge(object, &body);
                    apply_lists(&before, object, &body);
                }
                Ok(())
            })
        }),
        Method::PATCH => world.write(|w| {
            let mutates = w.admission.mutates_templates && target.plural == "deployments";
            let (bare, unlabels) = (w.admission.takes_finalizers, w.admission.unlabels_pods);
            let strips = w.admission.strips;
            w.try_edit(&key, &body, target.dry(), |object| {
                let (uid, version) =
                    (object["metadata"]["uid"].clone(), object["metadata"]["resourceVersion"].clone());
                merge(object, &body);
                if unlabels && target.plural == "pods" {
                    object["metadata"]["labels"]
                        .as_object_mut()
                        .map(|labels| labels.remove("graceful.dev/app"));
                }
                if let Some((_, key)) = strips.filter(|(plural, _)| target.plural == *plural) {
                    for kind in ["labels", "annotations"] {
                        object["metadata"][kind].as_object_mut().map(|words| words.remove(key));
                    }
                }
                if bare && target.plural == "gracefulapps" {
                    object["metadata"]["finalizers"] = json!([]);
                }
                object["metadata"]["uid"] = uid;
                object["metadata"]["resourceVersion"] = version;
                if mutates {
                    object["spec"]["template"]["metadata"]["annotations"]["team"] = json!("a");
                }
                Ok(())
            })
        }),
        _ => Err((405, "MethodNotAllowed")),
    }
}

/// The object as it was before this version, if it was selected then.
fn selected_before(world: &World, target: &Target, object: &Value, version: u64) -> Option<Value> {
    let objects = world.open();
    let earlier = objects.log.iter().rev().find(|(v, plural, event)| {
        *v < version
            && *plural == target.plural
            && event["object"]["metadata"]["uid"] == object["metadata"]["uid"]
    })?;
    let mut before = earlier.2["object"].clone();
    before["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
    target.selects(&before).then_some(before)
}

/// The scale of a Deployment, as the API server shows it: a replicas of 0 is left out, and neither labels nor annotations are there.
fn scale(world: &World, method: &Method, target: &Target, key: &Key, body: &Value) -> Result<Value, Refusal> {
    let deployment = match *method {
        Method::GET => world.open().all.get(key).cloned().ok_or((404, "NotFound"))?,
        Method::PATCH => world.write(|w| {
            w.dry_scales += u64::from(target.dry());
            let least = w.admission.least_replicas;
            w.try_edit(key, body, target.dry(), |object| {
                object["spec"]["replicas"] = json!(body["spec"]["replicas"].as_u64().unwrap().max(least));
                Ok(())
            })
        })?,
        _ => return Err((405, "MethodNotAllowed")),
    };
    let metadata = &deployment["metadata"];
    let replicas = deployment["spec"]["replicas"].as_u64().filter(|n| *n > 0);
    Ok(json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"]},
        "spec": replicas.map_or(json!({}), |n| json!({"replicas": n})),
    }))
}

/// What server-side apply does otherwise than a merge: selectors are one value, and ports that others added stay.
fn apply_lists(before: &Value, object: &mut Value, body: &Value) {
    if body["spec"]["selector"].is_object() {
        object["spec"]["selector"] = body["spec"]["selector"].clone();
    }
    let theirs = before["ports"].as_array().into_iter().flatten();
    if let Some(ports) = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
        let others: Vec<_> =
            theirs.filter(|p| !ports.iter().any(|o| o["port"] == p["port"])).cloned().collect();
        ports.extend(others);
    }
}

/// Each event is late by a throw of the dice, and now and then the watch ends.
fn watch(world: &World, target: Target, dice: Dice) -> Answer {
    let from: u64 = target.query("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default();
    let state = (world.clone(), target, from, dice);
    let events = stream::unfold(state, |(world, target, mut seen, mut dice)| async move {
        loop {
            if dice.is_blind(&target.plural) {
                world.changed().await;
                continue;
            }
            let next = {
                let objects = world.open();
                objects.log.iter().find(|(v, plural, _)| *v > seen && *plural == target.plural).cloned()
            };
            let Some((version, _, mut event)) = next else {
                world.changed().await;
                continue;
            };
            seen = version;
            if !target.selects(&event["object"]) {
                // As a real one does: what is selected no more is told as deleted, as it was before.
                let Some(before) = selected_before(&world, &target, &event["object"], version) else {
                    continue;
                };
                event = json!({"type": "DELETED", "object": before});
            }
            if dice.breaks_a_watch() {
                return None;
            }
            dice.lag().await;
            // The type first, as every API server prints it.
            let line =
                Bytes::from(format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"]));
            return Some((Ok(Frame::data(line)), (world, target, seen, dice)));
        }
    });
    dated(StreamBody::new(events).boxed_unsync())
}

fn reply(code: StatusCode, body: &Value) -> Answer {
    let mut answer = dated(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *answer.status_mut() = code;
    answer
}

/// Every API server says what time it has.
fn dated(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    let now = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
    answer.headers_mut().insert(DATE, now.unwrap().parse().unwrap());
    answer
}

pub(super) fn refuse(code: u16, reason: &str) -> Answer {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": reason, "metadata": {}});
    reply(StatusCode::from_u16(code).unwrap(), &status)
}
