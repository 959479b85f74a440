//! A GracefulApp read once: everything resolved, rounded and checked. Nothing downstream reads the raw spec again.

use std::fmt;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use self::adopt::Adoption;
use crate::budget::Budget;
use crate::gated::Gated;
use crate::names;
pub use crate::policy::MAX_DEADLINE_SECONDS;
use crate::policy::{DrainPolicy, InFlightPolicy, Policy, Question};
use crate::revision::RevisionHash;
use crate::spec::{
    Disruption, Drain, Format, GracefulApp, InFlight, PreStop, ReplaceWhen, Rollout, ServiceTemplate, Signal,
};
use crate::template::{Outline, OutlineContainer, OutlinePod, Template};

/// Seconds in the grace period beyond linger and deadline: for the app to close its sockets and exit, for the kubelet
/// to notice, and for the clock it starts before the hook.
pub const GRACE_MARGIN_SECONDS: u32 = 15;

/// A GracefulApp that makes sense.
///
/// ```
/// use graceful_api::{GracefulApp, Validated};
///
/// let app: GracefulApp = serde_json::from_value(serde_json::json!({
///     "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp", "metadata": {"name": "tasks"},
///     "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:1"}]}}},
/// }))?;
/// let errors = Validated::try_from(&app).expect_err("it has no port to ask");
/// assert!(errors[0].to_string().starts_with("spec.inFlight.port: no container has a port named \"admin\""));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: children of an earlier app of the same name are not ours.
    pub uid: String,
    /// The generation that was read.
    pub generation: i64,
    /// Pods wanted serving.
    pub replicas: u32,
    /// The user's template, raw.
    pub template: Template,
    /// The name of the template's revision.
    pub revision: RevisionHash,
    /// The gate in its pods, if the app wants one.
    pub gate: Option<Gated>,
    /// The Deployment to adopt, if any.
    pub adopt: Option<Adoption>,
    /// The Service to keep, if any.
    pub service: Option<ServiceTemplate>,
    /// How pods of this revision are asked and drained.
    pub policy: Policy,
    /// The grace period that new pods get.
    pub grace_seconds: u32,
    /// Whether containers without a preStop hook get one.
    pub pre_stop: PreStop,
    /// The command of the hook in the in-flight container.
    pub pre_stop_command: Option<Vec<String>>,
    /// Surge and unavailable in pods.
    pub budget: Budget,
    /// Seconds a new pod must be Ready.
    pub min_ready_seconds: u32,
    /// Seconds a new pod may take.
    pub progress_deadline_seconds: u32,
    /// Seconds a new pod may find no node before maxUnavailable is spent in its place.
    pub surge_timeout_seconds: u32,
    /// When a pod that drains itself on SIGTERM may be replaced.
    pub replace_when: ReplaceWhen,
    /// No new drain for a rollout.
    pub paused: bool,
    /// Emptied Deployments to keep.
    pub revision_history_limit: u32,
    /// What an eviction does.
    pub disruption: Disruption,
    /// Services of the user's own may route to draining pods.
    pub accept_unfenced_services: bool,
    /// Why the grace period is shorter than a drain may take, if it is.
    pub grace_warning: Option<String>,
}

/// What is wrong with one field, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FieldError {
    /// The field's path, as in `spec.inFlight.port`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl TryFrom<&GracefulApp> for Validated {
    type Error = Vec<FieldError>;

    fn try_from(app: &GracefulApp) -> Result<Self, Vec<FieldError>> {
        // Destructured whole, so that a new field cannot be forgotten here.
        let crate::GracefulAppSpec {
            replicas,
            template,
            service,
            in_flight,
            gate,
            adopt,
            drain,
            rollout,
            disruption,
        } = &app.spec;
        let Rollout {
            max_surge,
            max_unavailable,
            min_ready_seconds,
            progress_deadline_seconds,
            surge_timeout_seconds,
            replace_when,
            paused,
            revision_history_limit,
        } = rollout;
        let mut errors = Errors::default();
        let name = app.metadata.name.clone().unwrap_or_default();
        check_name(&name, &mut errors);
        let budget = Budget::resolve(*replicas, max_surge, max_unavailable)
            .map_err(|(field, message)| errors.add(format!("spec.rollout.{field}"), message))
            .ok();
        let outline = template.outline().map_err(|e| errors.add("spec.template", e.to_string())).ok();
        let pod = outline.as_ref().and_then(|t| check_template(t, &mut errors));
        let question = question::question(in_flight, &mut errors);
        let gated = gate.as_ref().zip(pod);
        let gated = gated.and_then(|(g, pod)| gate::gate(g, &app.spec, question.as_ref(), pod, &mut errors));
        let (signal, asked) = match gate {
            Some(_) => (Signal::Http, gated.as_ref().map(|(gated, _)| gate::policy(gated))),
            None => {
                let signal = signal(drain, in_flight.format, &mut errors);
                let place = pod.and_then(|pod| locate(&in_flight.port, pod, &mut errors));
                (signal, place.zip(question).map(|(place, question)| policy(in_flight, place, question)))
            }
        };
        check_drain(drain, &mut errors);
        let adopt = adopt.as_ref().and_then(|adopt| adopt::adoption(adopt, &mut errors));
        if !in_flight.path.starts_with('/') {
            errors.add("spec.inFlight.path", format!("{:?} must start with /", in_flight.path));
        }
        if progress_deadline_seconds <= min_ready_seconds {
            let why = format!("must be longer than minReadySeconds ({min_ready_seconds})");
            errors.add("spec.rollout.progressDeadlineSeconds", why);
        }
        let given_grace = pod.and_then(|pod| pod.termination_grace_period_seconds);
        let grace = grace(given_grace, drain, &mut errors);

        let (Some(budget), Some(asked), true) = (budget, asked, errors.0.is_empty()) else {
            return Err(errors.0);
        };
        let revision = match &gated {
            Some((_, identity)) => RevisionHash::of_gated(template, identity),
            None => RevisionHash::of(template),
        };
        let annotations = app.metadata.annotations.as_ref();
        let accepts = annotations.and_then(|a| a.get(names::ACCEPT_UNFENCED_SERVICES));
        Ok(Self {
            namespace: app.metadata.namespace.clone().unwrap_or_default(),
            name,
            uid: app.metadata.uid.clone().unwrap_or_default(),
            generation: app.metadata.generation.unwrap_or_default(),
            replicas: *replicas,
            template: template.clone(),
            revision,
            gate: gated.map(|(gated, _)| gated),
            adopt,
            service: service.clone(),
            policy: Policy {
                in_flight: asked,
                drain: DrainPolicy {
                    signal,
                    linger_seconds: drain.linger_seconds,
                    quiet_seconds: drain.quiet_seconds,
                    deadline_seconds: drain.deadline_seconds,
                    on_deadline: drain.on_deadline,
                },
            },
            grace_seconds: grace,
            pre_stop: drain.pre_stop,
            pre_stop_command: drain.pre_stop_command.clone(),
            budget,
            min_ready_seconds: *min_ready_seconds,
            progress_deadline_seconds: *progress_deadline_seconds,
            surge_timeout_seconds: *surge_timeout_seconds,
            replace_when: *replace_when,
            paused: *paused,
            revision_history_limit: *revision_history_limit,
            disruption: *disruption,
            accept_unfenced_services: accepts.is_some_and(|v| v == "true"),
            grace_warning: grace_warning(grace, drain, signal),
        })
    }
}

#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }
}

/// The Service and the pods are named after the app, so that its name must be a DNS label and leave room.
fn check_name(name: &str, errors: &mut Errors) {
    let label = name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !label {
        let why =
            format!("{name:?} must be a DNS label: lower-case letters, digits and -, starting with a letter");
        errors.add("metadata.name", why);
    }
    if name.len() > names::MAX_APP_NAME {
        let (is, may) = (name.len(), names::MAX_APP_NAME);
        errors.add(
            "metadata.name",
            format!("has {is} characters; use at most {may}, since pods are named after it"),
        );
    }
}

/// What the operator itself needs of a template. All else is Kubernetes' to judge, by a dry run.
fn check_template<'a>(template: &'a Outline, errors: &mut Errors) -> Option<&'a OutlinePod> {
    let metadata = template.metadata.as_ref();
    for (kind, map) in [
        ("labels", metadata.and_then(|m| m.labels.as_ref())),
        ("annotations", metadata.and_then(|m| m.annotations.as_ref())),
    ] {
        for key in map.into_iter().flat_map(|m| m.keys()).filter(|k| k.starts_with("graceful.dev/")) {
            let why = format!("{key} is set by the operator; remove it");
            errors.add(format!("spec.template.metadata.{kind}"), why);
        }
    }
    let Some(pod) = &template.spec else {
        errors.add("spec.template.spec", "is missing; write a pod's spec, with its containers");
        return None;
    };
    if pod.restart_policy.as_deref().is_some_and(|p| p != "Always") {
        errors.add("spec.template.spec.restartPolicy", "must be Always, as in a Deployment; remove the line");
    }
    if pod.host_network == Some(true) {
        let why =
            "is not supported: a pod is asked at its own IP; remove it, and use a Service or a hostPort";
        errors.add("spec.template.spec.hostNetwork", why);
    }
    Some(pod)
}

/// Of an app without a gate.
fn policy(in_flight: &InFlight, (container, port): (String, u16), question: Question) -> InFlightPolicy {
    InFlightPolicy {
        container,
        app_container: None,
        port,
        path: in_flight.path.clone(),
        question,
        poll_interval_seconds: in_flight.poll_interval_seconds.max(1),
        timeout_seconds: in_flight.timeout_seconds.max(1),
    }
}

fn signal(drain: &Drain, format: Format, errors: &mut Errors) -> Signal {
    let signal = drain.signal_for(format);
    if signal == Signal::Http && format != Format::Graceful {
        let why = "Http needs inFlight.format: Graceful; set it, or write signal: None, or signal: Sigterm if the app drains itself on SIGTERM";
        errors.add("spec.drain.signal", why);
    }
    signal
}

fn check_drain(drain: &Drain, errors: &mut Errors) {
    if drain.deadline_seconds == 0 || drain.deadline_seconds > MAX_DEADLINE_SECONDS {
        let why = format!("must be 1 to {MAX_DEADLINE_SECONDS} (7 days)");
        errors.add("spec.drain.deadlineSeconds", why);
    }
    if drain.pre_stop_command.as_ref().is_some_and(|c| c.iter().all(String::is_empty)) {
        let why = "is empty; write a command, as in [/server, pre-stop], or remove it";
        errors.add("spec.drain.preStopCommand", why);
    }
}

/// What new pods get: the template's own grace period if it has one.
fn grace(given: Option<i64>, drain: &Drain, errors: &mut Errors) -> u32 {
    let enough =
        drain.linger_seconds.saturating_add(drain.deadline_seconds).saturating_add(GRACE_MARGIN_SECONDS);
    let Some(given) = given else { return enough };
    let Ok(given) = u32::try_from(given) else {
        errors.add("spec.template.spec.terminationGracePeriodSeconds", "is out of range; use 0 or more");
        return enough;
    };
    if drain.pre_stop == PreStop::Auto && drain.linger_seconds > given {
        let why = format!("({}) is longer than the template's grace period ({given})", drain.linger_seconds);
        errors.add("spec.drain.lingerSeconds", format!("{why}; shorten the one or lengthen the other"));
    }
    given
}

/// Exits that the operator does not start have the grace period alone. With Sigterm those that it started as well, where somebody cuts them short.
fn grace_warning(grace: u32, drain: &Drain, signal: Signal) -> Option<String> {
    let needed = drain.linger_seconds.saturating_add(drain.deadline_seconds);
    let who = match signal {
        Signal::Http | Signal::None => "a pod that is deleted by others may be killed while busy",
        Signal::Sigterm => {
            "the operator's own DELETE has a longer grace, but cluster-autoscaler, the shutdown of a node and whoever else \
             deletes a pod go by this one, and may kill a pod while it is busy"
        }
    };
    (grace < needed).then(|| {
        format!(
            "terminationGracePeriodSeconds is {grace}, and a drain may take {needed} (lingerSeconds + deadlineSeconds): \
             {who}. Remove it from the template, or raise it to {} or more",
            needed.saturating_add(GRACE_MARGIN_SECONDS)
        )
    })
}

/// The container and number of the in-flight port. Native sidecars count.
fn locate(port: &IntOrString, pod: &OutlinePod, errors: &mut Errors) -> Option<(String, u16)> {
    let (container, number) = declared(port, pod)
        .map_err(|there| {
            let why = format!(
                "{there}; add {{name: admin, containerPort: 9808}} to the container that answers, or name a port that is there"
            );
            errors.add("spec.inFlight.port", why);
        })
        .ok()?;
    match u16::try_from(number) {
        Ok(number @ 1..) => Some((container, number)),
        Ok(0) | Err(_) => {
            errors.add("spec.inFlight.port", format!("{number} is not a port; use 1 to 65535"));
            None
        }
    }
}

/// The container that has this port, and its number; or else that none has it, and which there are.
fn declared(port: &IntOrString, pod: &OutlinePod) -> Result<(String, i32), String> {
    let candidates: Vec<&OutlineContainer> = pod.lasting_containers().collect();
    let ports = || candidates.iter().flat_map(|c| c.ports.iter().flatten().map(move |p| (*c, p)));
    let declared = ports().find(|(_, p)| match port {
        IntOrString::Int(number) => p.container_port == *number,
        IntOrString::String(name) => p.name.as_ref() == Some(name),
    });
    // A number need not be declared. Whose it is then is clear only where there is one container.
    match (declared, port, candidates.as_slice()) {
        (Some((container, p)), _, _) => Ok((container.name.clone(), p.container_port)),
        (None, IntOrString::Int(number), [only]) => Ok((only.name.clone(), *number)),
        (None, _, _) => {
            let named: Vec<_> = ports().filter_map(|(_, p)| p.name.as_deref()).collect();
            let there = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
            let wanted = match port {
                IntOrString::Int(number) => format!("no container declares port {number}"),
                IntOrString::String(name) => format!("no container has a port named {name:?}"),
            };
            Err(format!("{wanted} (there are: {there})"))
        }
    }
}

mod adopt;
mod gate;
mod question;
#[cfg(test)]
mod tests;
