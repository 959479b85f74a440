//! `spec.gate`: what the user says of the gate before their app. docs/gate.md says what it does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A reverse proxy that the operator puts beside the app, in each pod of new revisions: it closes admission for an app that cannot, counts what is in flight,
/// and is asked in the app's place. A change of it is a new revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Name of the container port that clients come to. In the pods the gate has that name, and the app its number alone: Services must target the name.
    #[schemars(length(min = 1, max = 63))]
    pub port: String,
    /// What the app speaks there. Http: HTTP/1.1 and h2c; requests are in flight. Tcp: anything, TLS among it; connections are.
    #[serde(default)]
    pub protocol: GateProtocol,
    /// Whether an open WebSocket (with Tcp: a connection) holds a drain. Hold: it is waited for. Farewell: it is told goodbye once nothing else is left.
    #[serde(default)]
    pub open_sockets: OpenSockets,
    /// A call to the app as a drain begins, so that it stops taking work from elsewhere (a message queue, a timer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_drain: Option<OnDrain>,
    /// What the gate's container is given. By default 100m of CPU and 64Mi of memory are requested; limits equal to them where the other containers make the
    /// pod Guaranteed, and none elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<GateResources>,
    /// Further variables of the gate's container, as a container has them: those of docs/gate.md that no field here stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub env: Option<Vec<EnvVar>>,
}

/// What the app speaks on the gated port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateProtocol {
    /// HTTP/1.1 and h2c.
    #[default]
    Http,
    /// Anything.
    Tcp,
}

impl GateProtocol {
    /// The word, here and for the gate.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "Http",
            Self::Tcp => "Tcp",
        }
    }
}

/// What an open socket is to a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OpenSockets {
    /// In flight.
    #[default]
    Hold,
    /// Told and closed last.
    Farewell,
}

impl OpenSockets {
    /// The word, here and for the gate.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "Hold",
            Self::Farewell => "Farewell",
        }
    }
}

/// A call to the app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnDrain {
    /// HTTP method; POST by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[A-Za-z]+$"))]
    pub method: Option<String>,
    /// HTTP path, on the app's own port.
    #[schemars(length(max = 1024), regex(pattern = r"^/[^\s#]*$"))]
    pub path: String,
    /// What is sent; nothing by default. JSON is sent as application/json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
}

/// Requests and limits. Raw quantities: `500m`, `1` and `0.5` all pass, as they do in a pod's template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateResources {
    /// What is reserved for it on its node, by resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<BTreeMap<String, Value>>,
    /// What it may take at most, by resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, Value>>,
}
