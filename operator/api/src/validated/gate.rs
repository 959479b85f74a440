//! `spec.gate`, held against the template that it stands in, the question that it asks, and the Service that leads to it.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::Errors;
use crate::gated::{self, CONTAINER, Gated, Place};
use crate::policy::{InFlightPolicy, Question};
use crate::quantity::quantity;
use crate::spec::{Drain, Format, Gate, GateResources, GracefulAppSpec, InFlight, ServiceTemplate, Signal};
use crate::template::{OutlineContainer, OutlinePod, OutlinePort};

const PORT: &str = "spec.gate.port";

/// The gate, and what of it is part of the revision's name.
pub(super) fn gate(
    gate: &Gate,
    spec: &GracefulAppSpec,
    question: Option<&Question>,
    pod: &OutlinePod,
    errors: &mut Errors,
) -> Option<(Gated, Value)> {
    let GracefulAppSpec { in_flight, drain, service, .. } = spec;
    check_drain(drain, errors);
    check_name(pod, errors);
    check_call(gate, errors);
    check_env(gate, errors);
    check_resources(gate.resources.as_ref(), errors);
    let (container, port) = locate(gate, pod, errors)?;
    let app_port = number(port.container_port, PORT, errors)?;
    check_service(gate, app_port, service.as_ref(), errors);
    let asked_port = asked_port(gate, in_flight, pod, errors)?;
    let asked = gated::question(in_flight, question?, asked_port);
    let place = Place { app_container: container.name.clone(), app_port, asked_port, taken: taken(pod) };
    let identity = gated::identity(gate, asked.as_ref());
    let gated = Gated::new(gate, asked, drain, place);
    if gated.is_none() {
        errors.add(
            PORT,
            "leaves no number for the gate: the containers declare all ports from 9808 on; remove some",
        );
    }
    Some((gated?, identity))
}

/// The gate speaks the protocol for the app.
pub(super) fn policy(gated: &Gated) -> InFlightPolicy {
    let usual = InFlight::default();
    InFlightPolicy {
        container: CONTAINER.to_owned(),
        app_container: Some(gated.app_container.clone()),
        port: gated.admin_port,
        path: usual.path,
        question: Question::Graceful,
        poll_interval_seconds: usual.poll_interval_seconds,
        timeout_seconds: usual.timeout_seconds,
    }
}

/// The one container that has the port's name.
fn locate<'a>(
    gate: &Gate,
    pod: &'a OutlinePod,
    errors: &mut Errors,
) -> Option<(&'a OutlineContainer, &'a OutlinePort)> {
    let name = &gate.port;
    let ports = || pod.lasting_containers().flat_map(|c| c.ports.iter().flatten().map(move |p| (c, p)));
    let mut found = ports().filter(|(_, p)| p.name.as_ref() == Some(name));
    let Some((container, port)) = found.next() else {
        let named: Vec<_> = ports().filter_map(|(_, p)| p.name.as_deref()).collect();
        let there = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
        let why = format!(
            "no container has a port named {name:?} (there are: {there}); add {{name: {name}, containerPort: 8000}} to the container that \
             listens there, or name a port that is there"
        );
        errors.add(PORT, why);
        return None;
    };
    if let Some((other, _)) = found.next() {
        let why = format!(
            "containers {} and {} both have a port named {name:?}, and clients would reach one of them past the gate; rename the \
             port of the one that is not to be gated",
            container.name, other.name
        );
        errors.add(PORT, why);
        return None;
    }
    if let Some(host) = port.host_port.filter(|n| *n != 0) {
        let why = format!(
            "{name:?} has hostPort {host}, which leads past the gate; remove the hostPort, or gate another port"
        );
        errors.add(PORT, why);
    }
    if let Some(protocol) = port.protocol.as_deref().filter(|protocol| *protocol != "TCP") {
        errors.add(PORT, format!("{name:?} is {protocol}, and the gate is for TCP; gate another port"));
    }
    Some((container, port))
}

/// Where the gate asks, where it is not the app's own port. Outer none: it cannot be known.
#[expect(clippy::option_option, reason = "the inner one is the app's own port")]
fn asked_port(
    gate: &Gate,
    in_flight: &InFlight,
    pod: &OutlinePod,
    errors: &mut Errors,
) -> Option<Option<u16>> {
    const FIELD: &str = "spec.inFlight.port";
    let usual = InFlight::default();
    if in_flight.format == Format::Graceful {
        if in_flight.port != usual.port || in_flight.path != usual.path {
            let why = "is Graceful, which the gate itself speaks; write JsonPointer or Prometheus with what the gate is to ask the app, or \
                       remove inFlight";
            errors.add("spec.inFlight.format", why);
        }
        return Some(None);
    }
    let wanted = match &in_flight.port {
        IntOrString::Int(wanted) => number(*wanted, FIELD, errors)?,
        IntOrString::String(name) if *name == gate.port => return Some(None),
        IntOrString::String(name) => {
            let mut ports = pod.lasting_containers().flat_map(|c| c.ports.iter().flatten());
            let Some(found) = ports.find(|p| p.name.as_ref() == Some(name)) else {
                let why = format!(
                    "no container has a port named {name:?}; write {} for the app's own, another that is there, or a number",
                    gate.port
                );
                errors.add(FIELD, why);
                return None;
            };
            number(found.container_port, FIELD, errors)?
        }
    };
    Some(Some(wanted))
}

fn number(port: i32, field: &str, errors: &mut Errors) -> Option<u16> {
    let number = u16::try_from(port).ok().filter(|n| *n > 0);
    if number.is_none() {
        errors.add(field, format!("{port} is not a port; use 1 to 65535"));
    }
    number
}

fn taken(pod: &OutlinePod) -> Vec<u16> {
    let all = pod.containers.iter().chain(&pod.init_containers).flatten();
    all.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| u16::try_from(p.container_port).ok()).collect()
}

/// What a gated pod is drained by is fixed.
fn check_drain(drain: &Drain, errors: &mut Errors) {
    if let Some(signal @ (Signal::Sigterm | Signal::None)) = drain.signal {
        let why = format!("is {signal:?}, and a gate is told over HTTP; remove it, or write signal: Http");
        errors.add("spec.drain.signal", why);
    }
    if drain.pre_stop_command.is_some() {
        errors.add(
            "spec.drain.preStopCommand",
            "has no place beside spec.gate, which brings hooks of its own; remove it",
        );
    }
}

fn check_name(pod: &OutlinePod, errors: &mut Errors) {
    let mut all = pod.containers.iter().chain(&pod.init_containers).flatten();
    if all.any(|c| c.name == CONTAINER) {
        errors.add(
            "spec.template.spec",
            format!("has a container named {CONTAINER}, the gate's own name; rename it"),
        );
    }
}

fn check_call(gate: &Gate, errors: &mut Errors) {
    let Some(call) = &gate.on_drain else { return };
    let path = &call.path;
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c == '#') {
        errors.add(
            "spec.gate.onDrain.path",
            format!("{path:?} must start with /, without spaces and #, as in /stop"),
        );
    }
    if let Some(method) =
        call.method.as_ref().filter(|m| m.is_empty() || !m.bytes().all(|b| b.is_ascii_alphabetic()))
    {
        errors.add("spec.gate.onDrain.method", format!("{method:?} is no HTTP method; write POST"));
    }
}

fn check_env(gate: &Gate, errors: &mut Errors) {
    for variable in gate.env.iter().flatten() {
        let ours = gated::env::OURS.iter().find(|(name, _)| *name == variable.name);
        if let Some((name, is)) = ours {
            errors.add("spec.gate.env", format!("{name} {is}; remove it here"));
        }
    }
}

fn check_resources(resources: Option<&GateResources>, errors: &mut Errors) {
    let Some(GateResources { requests, limits }) = resources else { return };
    for (kind, map) in [("requests", requests), ("limits", limits)] {
        for (name, value) in map.iter().flatten().filter(|(_, value)| quantity(value).is_none()) {
            let field = format!("spec.gate.resources.{kind}.{name}");
            errors.add(field, format!("{value} is no quantity; write one as in 100m or 64Mi"));
        }
    }
}

/// Of the Service that the operator keeps. The user's own are known when they are seen.
fn check_service(gate: &Gate, app_port: u16, service: Option<&ServiceTemplate>, errors: &mut Errors) {
    for port in service.iter().flat_map(|s| &s.ports) {
        let goes_to = match &port.target_port {
            None => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(_)) => None,
        };
        if goes_to == Some(app_port.into()) {
            let (from, name) = (port.port, &gate.port);
            let why = format!(
                "port {from} goes to {app_port}, the app's own number, past the gate; write targetPort: {name}"
            );
            errors.add("spec.service.ports", why);
        }
    }
}

#[cfg(test)]
mod tests;
