//! What the API server itself refuses, as CEL rules with messages that say what to write instead.
//!
//! `validated.rs` checks the same and more, for what CEL cannot or may not afford. The cost budget is met by the bounds
//! that `crd.rs` sets on lists and strings.

use serde_json::{Value, json};

use crate::names::MAX_APP_NAME;

/// One rule, at one place of the schema.
pub(crate) struct Rule {
    /// Where it stands, as a path from the root.
    pub(crate) at: &'static str,
    /// The field that an error is told of, from there.
    pub(crate) field: &'static str,
    rule: String,
    message: Message,
}

enum Message {
    Text(String),
    Expression(String),
}

impl Rule {
    fn new(
        at: &'static str,
        field: &'static str,
        rule: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { at, field, rule: rule.into(), message: Message::Text(message.into()) }
    }

    /// As the schema has it.
    pub(crate) fn to_json(&self) -> Value {
        let mut rule = json!({"rule": self.rule});
        match &self.message {
            Message::Text(text) => rule["message"] = json!(text),
            Message::Expression(cel) => rule["messageExpression"] = json!(cel),
        }
        if !self.field.is_empty() {
            rule["fieldPath"] = json!(self.field);
        }
        rule
    }
}

/// All rules, in the order of the spec.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules = vec![name_is_a_label(), name_leaves_room(), port_exists(), signal_suits_format()];
    rules.extend(gate());
    rules.extend(template());
    rules.extend(in_flight("spec.inFlight"));
    rules.extend(adopt());
    rules.extend(drain());
    rules.extend(rollout());
    rules.push(target_port());
    rules.extend(service_ports());
    rules
}

fn name_is_a_label() -> Rule {
    Rule::new(
        "",
        "",
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be a DNS label: lower-case letters, digits and -, starting with a letter",
    )
}

fn name_leaves_room() -> Rule {
    Rule::new(
        "",
        "",
        format!("self.metadata.name.size() <= {MAX_APP_NAME}"),
        format!(
            "metadata.name is too long: use at most {MAX_APP_NAME} characters, since Deployments and pods are named after it"
        ),
    )
}

/// Spelt with `has` throughout: an optional's default has no bound on its size, and would exceed the cost budget.
fn port_exists() -> Rule {
    let exists = some_port_is("self.inFlight.port");
    Rule {
        at: "spec",
        field: ".inFlight.port",
        // Before a gate the format Graceful asks nobody.
        rule: format!(
            "type(self.inFlight.port) != string || (has(self.gate) && self.inFlight.format == 'Graceful') || {exists}"
        ),
        message: Message::Expression(
            "'no container or native sidecar has a port named ' + string(self.inFlight.port) + \
             '; add {name: ' + string(self.inFlight.port) + ', containerPort: 9808} to the one that answers, or name a port that is there'"
                .to_owned(),
        ),
    }
}

/// The rule that a container or a native sidecar has a port of this name.
fn some_port_is(name: &str) -> String {
    let named = format!("has(c.ports) && c.ports.exists(p, has(p.name) && p.name == {name})");
    let sidecar = "has(c.restartPolicy) && c.restartPolicy == 'Always'";
    format!(
        "self.template.spec.containers.exists(c, {named}) || \
         (has(self.template.spec.initContainers) && self.template.spec.initContainers.exists(c, {sidecar} && {named}))"
    )
}

/// What `validated/gate.rs` checks beside these needs more than CEL may cost.
fn gate() -> [Rule; 4] {
    [
        Rule {
            at: "spec",
            field: ".gate.port",
            rule: format!("!has(self.gate) || {}", some_port_is("self.gate.port")),
            message: Message::Expression(
                "'no container or native sidecar has a port named ' + self.gate.port + \
                 '; add {name: ' + self.gate.port + ', containerPort: 8000} to the one that listens there, or name a port that is there'"
                    .to_owned(),
            ),
        },
        Rule::new(
            "spec",
            ".drain.signal",
            "!has(self.gate) || self.?drain.signal.orValue('Http') == 'Http'",
            "with gate the signal is Http, since the gate is told over HTTP; remove it",
        ),
        Rule::new(
            "spec",
            ".drain.preStopCommand",
            "!has(self.gate) || !has(self.drain) || !has(self.drain.preStopCommand)",
            "preStopCommand has no place beside gate, which brings hooks of its own; remove it",
        ),
        Rule::new(
            "spec",
            ".inFlight.format",
            "!has(self.gate) || self.inFlight.format != 'Graceful' || (self.inFlight.path == '/drain' && \
             type(self.inFlight.port) == string && self.inFlight.port == 'admin')",
            "with gate the format Graceful is the gate's own; write JsonPointer or Prometheus with what the gate is to ask the app, or remove inFlight",
        ),
    ]
}

fn signal_suits_format() -> Rule {
    Rule::new(
        "spec",
        ".drain.signal",
        "self.?drain.signal.orValue('') != 'Http' || self.inFlight.format == 'Graceful' || has(self.gate)",
        "signal Http needs inFlight.format: Graceful; set that format, or write signal: None, or signal: Sigterm if the app drains itself on SIGTERM",
    )
}

fn template() -> Vec<Rule> {
    vec![
        Rule::new(
            "spec.template.spec",
            ".restartPolicy",
            "self.?restartPolicy.orValue('Always') == 'Always'",
            "restartPolicy must be Always, as in a Deployment; remove the line",
        ),
        Rule::new(
            "spec.template.spec",
            ".hostNetwork",
            "!self.?hostNetwork.orValue(false)",
            "hostNetwork is not supported, since a pod is asked at its own IP; remove it, and use spec.service or a hostPort",
        ),
        Rule::new(
            "spec.template",
            ".metadata.labels",
            "!has(self.metadata) || !has(self.metadata.labels) || self.metadata.labels.all(key, !key.startsWith('graceful.dev/'))",
            "labels of graceful.dev/ are set by the operator; remove them",
        ),
    ]
}

/// Of `spec.inFlight`, and of the one for adopted pods.
fn in_flight(at: &'static str) -> Vec<Rule> {
    vec![
        retired(at, ".jsonPointer", "jsonPointers"),
        retired(at, ".metric", "metrics"),
        Rule::new(
            at,
            ".jsonPointers",
            "!has(self.jsonPointers) || self.format == 'JsonPointer'",
            "jsonPointers needs format: JsonPointer; set it, or remove jsonPointers",
        ),
        Rule::new(
            at,
            "",
            "self.format != 'JsonPointer' || has(self.jsonPointers) || has(self.jsonPointer)",
            "format JsonPointer needs jsonPointers; say where the number is, as in jsonPointers: [/queue/length]",
        ),
        Rule::new(
            at,
            ".jsonPointers",
            "!has(self.jsonPointers) || self.jsonPointers.all(pointer, pointer == '' || pointer.startsWith('/'))",
            "each of jsonPointers must start with /, as in /queue/length",
        ),
        some(at, ".jsonPointers", "[/queue/length]"),
        different(at, ".jsonPointers"),
        Rule::new(
            at,
            ".metrics",
            "!has(self.metrics) || self.format == 'Prometheus'",
            "metrics needs format: Prometheus; set it, or remove metrics",
        ),
        Rule::new(
            at,
            "",
            "self.format != 'Prometheus' || has(self.metrics) || has(self.metric)",
            "format Prometheus needs metrics; name them, as in metrics: [queue_length] or metrics: ['queue_length{state=\"running\"}']",
        ),
        some(at, ".metrics", "[queue_length]"),
        different(at, ".metrics"),
        Rule::new(
            at,
            ".whenAbsent",
            "!has(self.whenAbsent) || self.format == 'Prometheus'",
            "whenAbsent needs format: Prometheus; set it, or remove whenAbsent",
        ),
        Rule::new(
            at,
            ".idleAt",
            "self.idleAt == 0 || self.format != 'Graceful'",
            "idleAt needs another format: with Graceful the pod itself says what is in flight; remove idleAt",
        ),
        Rule::new(at, ".path", "self.path.startsWith('/')", "path must start with /, as in /drain"),
        Rule::new(
            at,
            ".path",
            "self.format != 'Graceful' || !self.path.contains('?')",
            "path must have no query with format Graceful: the drain protocol adds its own; remove it from ? on",
        ),
        Rule::new(
            at,
            ".port",
            "type(self.port) != int || (self.port >= 1 && self.port <= 65535)",
            "port must be a port's name, or a number from 1 to 65535",
        ),
    ]
}

/// A field that a list has replaced. It is kept to be refused: what a schema does not have is pruned without a word wherever validation is not strict.
fn retired(at: &'static str, field: &'static str, list: &str) -> Rule {
    Rule {
        at,
        field,
        rule: format!("!has(self{field})"),
        message: Message::Expression(format!(
            r#"'write {list}: ["' + self{field}.replace('\\', '\\\\').replace('"', '\\"') + '"]'"#
        )),
    }
}

/// A sum over nothing would be zero.
fn some(at: &'static str, field: &'static str, example: &str) -> Rule {
    let name = &field[1..];
    let rule = format!("!has(self{field}) || self{field}.size() > 0");
    Rule::new(at, field, rule, format!("{name} is empty; name one at least, as in {name}: {example}"))
}

fn different(at: &'static str, field: &'static str) -> Rule {
    let name = &field[1..];
    let rule = format!("!has(self{field}) || self{field}.all(m, self{field}.exists_one(n, n == m))");
    Rule::new(at, field, rule, format!("{name} has the same member twice; remove one of the two"))
}

/// Of an int-or-string the schema says nothing: what does not fit into a port would be taken, and be unreadable to every client of the Kubernetes API.
fn target_port() -> Rule {
    Rule::new(
        "spec.service.ports.[]",
        ".targetPort",
        "!has(self.targetPort) || type(self.targetPort) != int || (self.targetPort >= 1 && self.targetPort <= 65535)",
        "targetPort must be a port's name, or a number from 1 to 65535",
    )
}

/// Server-side apply keys ports by number and protocol, and fails on two of them without naming the field.
fn service_ports() -> [Rule; 2] {
    let protocol = |p: &str| format!("(has({p}.protocol) ? {p}.protocol : 'TCP')");
    let same = format!("q.port == p.port && {} == {}", protocol("q"), protocol("p"));
    [
        Rule::new(
            "spec.service",
            ".ports",
            format!("self.ports.all(p, self.ports.exists_one(q, {same}))"),
            "two ports have the same port and protocol: give each its own port",
        ),
        Rule::new(
            "spec.service",
            ".ports",
            "self.ports.all(p, !has(p.name) || self.ports.exists_one(q, has(q.name) && q.name == p.name))",
            "two ports have the same name: give each its own",
        ),
    ]
}

fn drain() -> Vec<Rule> {
    vec![
        Rule::new(
            "spec.drain",
            ".deadlineSeconds",
            "self.deadlineSeconds <= 604800",
            "deadlineSeconds must be at most 604800 (7 days); for a longer wait use onDeadline: Hold, which waits on past it",
        ),
        Rule::new(
            "spec.drain",
            ".preStopCommand",
            "!has(self.preStopCommand) || self.preStopCommand.exists(word, word != '')",
            "preStopCommand is empty; write a command, as in [/server, pre-stop], or remove it for a sleep of lingerSeconds",
        ),
        Rule::new(
            "spec.drain",
            ".preStopCommand",
            "!has(self.preStopCommand) || self.preStop == 'Auto'",
            "preStopCommand needs preStop: Auto; set it, or remove preStopCommand",
        ),
    ]
}

/// What of it needs no look at the Deployment.
fn adopt() -> Vec<Rule> {
    let mut rules = in_flight("spec.adopt.inFlight");
    rules.extend([
        Rule::new(
            "spec.adopt",
            ".deployment",
            "self.deployment.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
            "deployment must be the name of the Deployment to adopt, in the app's namespace",
        ),
        Rule::new(
            "spec.adopt.inFlight",
            ".format",
            "self.format != 'Graceful'",
            "format Graceful needs pods that were made for it; write JsonPointer or Prometheus, with what the Deployment's pods answer now",
        ),
        Rule::new(
            "spec.adopt.drain",
            ".signal",
            "!has(self.signal) || self.signal != 'Http'",
            "signal Http needs pods that were made for the drain protocol; remove it, or write Sigterm if the app drains itself on SIGTERM",
        ),
        Rule::new(
            "spec.adopt.drain",
            ".deadlineSeconds",
            "self.deadlineSeconds <= 604800",
            "deadlineSeconds must be at most 604800 (7 days); for a longer wait use onDeadline: Hold, which waits on past it",
        ),
    ]);
    rules
}

fn rollout() -> Vec<Rule> {
    let amount = |field: &str| {
        format!(
            "type(self.{field}) == int ? int(self.{field}) >= 0 : string(self.{field}).matches('^[0-9]{{1,4}}%$')"
        )
    };
    let nothing = |field: &str| {
        format!(
            "(type(self.{field}) == int ? int(self.{field}) == 0 : string(self.{field}).matches('^0+%$'))"
        )
    };
    let fits = |field: &str| format!("type(self.{field}) != int || int(self.{field}) <= 2147483647");
    vec![
        Rule::new(
            "spec.rollout",
            ".maxSurge",
            fits("maxSurge"),
            "maxSurge must be at most 2147483647; for as many as there are, write \"100%\"",
        ),
        Rule::new(
            "spec.rollout",
            ".maxUnavailable",
            fits("maxUnavailable"),
            "maxUnavailable must be at most 2147483647; for as many as there are, write \"100%\"",
        ),
        Rule::new(
            "spec.rollout",
            ".maxSurge",
            amount("maxSurge"),
            "maxSurge must be a number of 0 or more, or a percentage such as \"25%\"",
        ),
        Rule::new(
            "spec.rollout",
            ".maxUnavailable",
            amount("maxUnavailable"),
            "maxUnavailable must be a number of 0 or more, or a percentage such as \"25%\"",
        ),
        Rule::new(
            "spec.rollout",
            ".maxUnavailable",
            "type(self.maxUnavailable) == int || string(self.maxUnavailable).matches('^0*([0-9]{1,2}|100)%$')",
            "maxUnavailable must be at most 100%",
        ),
        Rule::new(
            "spec.rollout",
            "",
            format!("!({} && {})", nothing("maxSurge"), nothing("maxUnavailable")),
            "maxSurge and maxUnavailable are both 0, so no pod could ever be replaced; set one of them to 1 or more",
        ),
        Rule::new(
            "spec.rollout",
            ".progressDeadlineSeconds",
            "self.progressDeadlineSeconds > self.minReadySeconds",
            "progressDeadlineSeconds must be longer than minReadySeconds",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fit_in_one_line_and_fields_are_paths() {
        for rule in rules() {
            let json = rule.to_json();
            let message = json["message"].as_str().or(json["messageExpression"].as_str()).unwrap();
            assert!(!message.is_empty() && !message.contains('\n'), "{message}");
            assert!(rule.field.is_empty() || rule.field.starts_with('.'), "{}", rule.field);
        }
    }
}
