//! An app with a gate before it: what follows from `spec.gate`, and from the template and `spec.inFlight` beside it, for the pods of its revision.
//!
//! The app keeps its number, and the gate takes its port's name: the two share the pod's network, and one `targetPort` must serve pods with and without a gate
//! while one kind replaces the other. ADR 25 says what else there was.

use k8s_openapi::api::core::v1::EnvVar;
use serde_json::{Value, json};

use crate::policy::Question;
use crate::revision::canonical;
use crate::spec::{Drain, Gate, InFlight, WhenAbsent};

/// The gate's container.
pub const CONTAINER: &str = "graceful-gate";
/// The name of its admin port.
pub const ADMIN_PORT_NAME: &str = "graceful-admin";
/// The first port that its admin port may be. It and the next one are taken, where no container of the pod has them: numbers of the template, and of nothing
/// else, so that each operator version comes to the same. Never changed: running pods listen where they were told.
const FIRST_PORT: u16 = 9808;

/// Variables of the gate that the spec stands for; its users read them in docs/gate.md.
pub mod env {
    /// Where clients come.
    pub const LISTEN_PORT: &str = "GRACEFUL_GATE_LISTEN_PORT";
    /// Where the app is.
    pub const APP_PORT: &str = "GRACEFUL_GATE_APP_LISTEN_PORT";
    /// Where the operator comes.
    pub const ADMIN_PORT: &str = "GRACEFUL_ADMIN_LISTEN_PORT";
    /// Http or Tcp.
    pub const PROTOCOL: &str = "GRACEFUL_GATE_PROTOCOL";
    /// Hold or Farewell.
    pub const OPEN_SOCKETS: &str = "GRACEFUL_GATE_OPEN_SOCKETS";
    /// A call, as JSON.
    pub const ON_DRAIN: &str = "GRACEFUL_GATE_ON_DRAIN";
    /// A question, as JSON.
    pub const IN_FLIGHT: &str = "GRACEFUL_GATE_IN_FLIGHT";
    /// How long the app's zero must hold.
    pub const QUIET: &str = "GRACEFUL_GATE_QUIET_SECONDS";
    /// The linger of a drain that the pod begins itself.
    pub const LINGER: &str = "GRACEFUL_LINGER_SECONDS";

    /// Each of them, and what stands for it in a GracefulApp.
    pub(crate) const OURS: [(&str, &str); 9] = [
        (LISTEN_PORT, "follows from spec.gate.port"),
        (APP_PORT, "follows from spec.gate.port"),
        (ADMIN_PORT, "is chosen by the operator"),
        (PROTOCOL, "is spec.gate.protocol"),
        (OPEN_SOCKETS, "is spec.gate.openSockets"),
        (ON_DRAIN, "is spec.gate.onDrain"),
        (IN_FLIGHT, "is spec.inFlight"),
        (QUIET, "is spec.drain.quietSeconds"),
        (LINGER, "is spec.drain.lingerSeconds"),
    ];
}

/// A gate that makes sense, and its place in the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Gated {
    /// The port's name, which is the gate's in the pods.
    pub port: String,
    /// The container that has it in the template: the app.
    pub app_container: String,
    /// The number there, which the app keeps.
    pub app_port: u16,
    /// Where the gate listens for clients.
    pub listen_port: u16,
    /// Where it is asked.
    pub admin_port: u16,
    /// Its variables, by name, in the order that they are written in.
    pub settings: Vec<(&'static str, String)>,
    /// The user's own, after those.
    pub env: Vec<EnvVar>,
    /// As the user wrote them; none: the defaults.
    pub resources: Option<Value>,
}

/// Where things are in a pod.
pub(crate) struct Place {
    pub(crate) app_container: String,
    pub(crate) app_port: u16,
    /// What the gate's question goes to, where it is not the app's own port.
    pub(crate) asked_port: Option<u16>,
    /// All numbers that the pod's containers have.
    pub(crate) taken: Vec<u16>,
}

impl Gated {
    pub(crate) fn new(gate: &Gate, question: Option<Value>, drain: &Drain, place: Place) -> Option<Self> {
        let Gate { port, protocol, open_sockets, on_drain, resources, env: theirs } = gate;
        let Place { app_container, app_port, asked_port, taken } = place;
        let taken = |n: &u16| taken.contains(n) || *n == app_port || asked_port == Some(*n);
        let mut free = (FIRST_PORT..=u16::MAX).filter(|n| !taken(n));
        let (admin_port, listen_port) = (free.next()?, free.next()?);
        let mut settings = vec![
            (env::LISTEN_PORT, listen_port.to_string()),
            (env::APP_PORT, app_port.to_string()),
            (env::ADMIN_PORT, admin_port.to_string()),
            (env::PROTOCOL, protocol.as_str().to_owned()),
            (env::OPEN_SOCKETS, open_sockets.as_str().to_owned()),
            (env::LINGER, drain.linger_seconds.to_string()),
        ];
        if let Some(question) = question {
            settings.push((env::IN_FLIGHT, canonical(&question)));
            settings.push((env::QUIET, drain.quiet_seconds.to_string()));
        }
        settings.extend(on_drain.as_ref().map(|call| (env::ON_DRAIN, canonical(&json!(call)))));
        Some(Self {
            port: port.clone(),
            app_container,
            app_port,
            listen_port,
            admin_port,
            settings,
            env: theirs.clone().unwrap_or_default(),
            resources: resources.as_ref().map(|resources| json!(resources)),
        })
    }
}

/// `inFlight` as the gate reads it; none where the app is not asked. `port`: where it is not the app's own.
pub(crate) fn question(in_flight: &InFlight, question: &Question, port: Option<u16>) -> Option<Value> {
    let mut asked = match question {
        Question::Graceful => return None,
        Question::JsonPointer { pointers, idle_at } => {
            json!({"jsonPointers": pointers.as_slice(), "idleAt": idle_at})
        }
        Question::Prometheus { metrics, when_absent, idle_at } => {
            let metrics: Vec<_> = metrics.as_slice().iter().map(ToString::to_string).collect();
            let mut asked = json!({"metrics": metrics, "idleAt": idle_at});
            if *when_absent == WhenAbsent::Zero {
                asked["whenAbsent"] = json!(when_absent);
            }
            asked
        }
    };
    if let Some(port) = port {
        asked["port"] = json!(port);
    }
    asked["path"] = json!(in_flight.path);
    asked["pollIntervalSeconds"] = json!(in_flight.poll_interval_seconds.max(1));
    asked["timeoutSeconds"] = json!(in_flight.timeout_seconds.max(1));
    Some(asked)
}

/// What of a gate is part of its revision's name: all that its pods are made with and that decides what they do, but for the times in `spec.drain`. What is at
/// its default is left out, so that a field of a later version changes no name.
pub(crate) fn identity(gate: &Gate, question: Option<&Value>) -> Value {
    let Gate { port, protocol, open_sockets, on_drain, resources, env } = gate;
    let unless_default = |is_default: bool, word: &str| if is_default { Value::Null } else { json!(word) };
    json!({
        "port": port,
        "protocol": unless_default(*protocol == Default::default(), protocol.as_str()),
        "openSockets": unless_default(*open_sockets == Default::default(), open_sockets.as_str()),
        "onDrain": on_drain,
        "resources": resources,
        "env": env.as_ref().filter(|env| !env.is_empty()),
        "inFlight": question,
    })
}
