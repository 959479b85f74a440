//! `spec.adopt`: what can be said of it before its Deployment is looked at, and what only then.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::question::question;
use super::{Errors, FieldError, MAX_DEADLINE_SECONDS, declared};
use crate::policy::{DrainPolicy, InFlightPolicy, Policy, Question};
use crate::spec::{Adopt, AdoptedDrain, Format, InFlight, Signal};
use crate::template::Template;

const IN_FLIGHT: &str = "spec.adopt.inFlight";

/// A `spec.adopt` that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoption {
    /// The Deployment's name.
    pub deployment: String,
    in_flight: InFlight,
    question: Question,
    drain: DrainPolicy,
}

impl Adoption {
    /// How the pods that this template made are asked and drained.
    ///
    /// # Errors
    /// Where the port that is to be asked is none of theirs.
    pub fn policy(&self, template: &Template) -> Result<Policy, FieldError> {
        let fault = |field: &str, message: String| FieldError { field: field.to_owned(), message };
        let outline = template.outline().map_err(|e| fault("spec.adopt.deployment", e.to_string()))?;
        let pod = outline.spec.unwrap_or_default();
        if pod.host_network == Some(true) {
            let why = "its pods have hostNetwork, and a pod is asked at its own IP; remove it there first";
            return Err(fault("spec.adopt.deployment", why.to_owned()));
        }
        let InFlight { port, path, poll_interval_seconds, timeout_seconds, .. } = &self.in_flight;
        let field = format!("{IN_FLIGHT}.port");
        let (container, number) = declared(port, &pod).map_err(|there| {
            let why = format!(
                "{there}, in Deployment {}; name one that is there, or write its number",
                self.deployment
            );
            fault(&field, why)
        })?;
        let number = u16::try_from(number).ok().filter(|n| *n > 0);
        let number = number.ok_or_else(|| fault(&field, "is not a port; use 1 to 65535".to_owned()))?;
        Ok(Policy {
            in_flight: InFlightPolicy {
                container,
                app_container: None,
                port: number,
                path: path.clone(),
                question: self.question.clone(),
                poll_interval_seconds: (*poll_interval_seconds).max(1),
                timeout_seconds: (*timeout_seconds).max(1),
            },
            drain: self.drain,
        })
    }
}

/// What of it is right without a look at the Deployment.
pub(super) fn adoption(adopt: &Adopt, errors: &mut Errors) -> Option<Adoption> {
    let Adopt { deployment, in_flight, drain } = adopt;
    let before = errors.0.len();
    check_name(deployment, errors);
    let mut of_question = Errors::default();
    let question = question(in_flight, &mut of_question);
    // Those are told as of spec.inFlight.
    errors.0.extend(of_question.0.into_iter().map(|FieldError { field, message }| {
        let field = field.replacen("spec.inFlight", IN_FLIGHT, 1);
        FieldError { field, message }
    }));
    if in_flight.format == Format::Graceful {
        let why = "Graceful needs pods that were made for it (they answer with their uid); write JsonPointer or Prometheus, with what the pods \
                   answer now";
        errors.add(format!("{IN_FLIGHT}.format"), why);
    }
    if !in_flight.path.starts_with('/') {
        errors.add(format!("{IN_FLIGHT}.path"), format!("{:?} must start with /", in_flight.path));
    }
    if let IntOrString::Int(number) = in_flight.port
        && !(1..=65_535).contains(&number)
    {
        errors.add(format!("{IN_FLIGHT}.port"), format!("{number} is not a port; use 1 to 65535"));
    }
    let drain = policy(drain, errors);
    let question = question.filter(|_| errors.0.len() == before)?;
    Some(Adoption { deployment: deployment.clone(), in_flight: in_flight.clone(), question, drain })
}

fn policy(drain: &AdoptedDrain, errors: &mut Errors) -> DrainPolicy {
    let AdoptedDrain { signal, linger_seconds, quiet_seconds, deadline_seconds, on_deadline } = *drain;
    if signal == Some(Signal::Http) {
        let why = "Http needs pods that were made for the drain protocol; remove it, or write Sigterm if the app drains itself on SIGTERM";
        errors.add("spec.adopt.drain.signal", why);
    }
    if deadline_seconds == 0 || deadline_seconds > MAX_DEADLINE_SECONDS {
        let why = format!("must be 1 to {MAX_DEADLINE_SECONDS} (7 days)");
        errors.add("spec.adopt.drain.deadlineSeconds", why);
    }
    let signal = signal.unwrap_or(Signal::None);
    DrainPolicy { signal, linger_seconds, quiet_seconds, deadline_seconds, on_deadline }
}

/// Refuses a name that cannot be part of a URL.
fn check_name(name: &str, errors: &mut Errors) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let right = (1..=253).contains(&name.len())
        && name.starts_with(fits)
        && name.ends_with(fits)
        && name.chars().all(|c| fits(c) || c == '-' || c == '.');
    if !right {
        let why = format!(
            "{name:?} is no Deployment's name; write the one of the Deployment to adopt, in the app's namespace"
        );
        errors.add("spec.adopt.deployment", why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn adopt(more: &Value) -> Value {
        let mut adopt = json!({
            "deployment": "web",
            "inFlight": {"port": "http", "path": "/count", "format": "JsonPointer", "jsonPointers": ["/n"]},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            adopt[key] = value.clone();
        }
        adopt
    }

    fn read(more: &Value) -> Result<Adoption, String> {
        let mut errors = Errors::default();
        let found = adoption(&serde_json::from_value(adopt(more)).unwrap(), &mut errors);
        found.ok_or_else(|| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    fn template() -> Template {
        let ports = json!([{"name": "http", "containerPort": 8000}]);
        Template(json!({"spec": {"containers": [{"name": "app", "ports": ports}, {"name": "side"}]}}))
    }

    #[test]
    fn old_pods_are_drained_by_a_quiet_zero_where_nothing_else_is_said() {
        let policy = read(&json!({})).unwrap().policy(&template()).unwrap();
        assert_eq!(policy.drain.signal, Signal::None);
        assert_eq!((policy.in_flight.container.as_str(), policy.in_flight.port), ("app", 8000));
        let worker = read(&json!({"drain": {"signal": "Sigterm", "deadlineSeconds": 60}})).unwrap();
        assert_eq!(worker.policy(&template()).unwrap().drain.signal, Signal::Sigterm);
    }

    #[test]
    fn each_refusal_names_the_field_and_says_what_to_write() {
        let refused = |more: &Value, field: &str, help: &str| {
            let said = read(more).unwrap_err();
            assert!(said.starts_with(&format!("{field}: ")) && said.contains(help), "{said}");
        };
        refused(
            &json!({"deployment": "Web"}),
            "spec.adopt.deployment",
            "write the one of the Deployment to adopt",
        );
        refused(&json!({"inFlight": {}}), "spec.adopt.inFlight.format", "write JsonPointer or Prometheus");
        let pointerless = json!({"inFlight": {"format": "JsonPointer"}});
        refused(&pointerless, "spec.adopt.inFlight.jsonPointers", "jsonPointers: [/queue/length]");
        let relative =
            json!({"inFlight": {"path": "count", "format": "JsonPointer", "jsonPointers": ["/n"]}});
        refused(&relative, "spec.adopt.inFlight.path", "must start with /");
        refused(&json!({"drain": {"signal": "Http"}}), "spec.adopt.drain.signal", "write Sigterm");
        refused(
            &json!({"drain": {"deadlineSeconds": 604_801}}),
            "spec.adopt.drain.deadlineSeconds",
            "7 days",
        );
    }

    #[test]
    fn what_only_the_deployment_knows_is_told_of_it() {
        let other = json!({"inFlight": {"port": "admin", "path": "/n", "format": "JsonPointer", "jsonPointers": [""]}});
        let said = read(&other).unwrap().policy(&template()).unwrap_err().to_string();
        assert!(said.starts_with("spec.adopt.inFlight.port: no container has a port named \"admin\" (there are: http), in Deployment web"), "{said}");
        let mut host = template();
        host.0["spec"]["hostNetwork"] = json!(true);
        let said = read(&json!({})).unwrap().policy(&host).unwrap_err().to_string();
        assert!(said.starts_with("spec.adopt.deployment: its pods have hostNetwork"), "{said}");
    }
}
