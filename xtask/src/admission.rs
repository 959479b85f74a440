//! What a real API server says to good and bad GracefulApps: each CEL rule is seen to refuse, in words that help.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::api_server::Server;

/// Tries all cases by dry run.
pub(crate) fn check(server: &Server) -> anyhow::Result<()> {
    for (pointer, value, said) in refused() {
        let (name, spec) = app_with(pointer, value.clone());
        match server.try_app(&name, &spec)? {
            Ok(_) => bail!("{pointer} = {value} was accepted; it should be refused with: {said}"),
            Err(why) => {
                ensure!(
                    why.contains(said),
                    "{pointer} = {value} was refused with\n{why}\nand not with: {said}"
                );
            }
        }
    }
    for (pointer, value) in accepted() {
        let (name, spec) = app_with(pointer, value.clone());
        let made = server.try_app(&name, &spec)?;
        made.map_err(anyhow::Error::msg)
            .with_context(|| format!("{pointer} = {value} should be accepted"))?;
    }
    passes_through(server)?;
    defaults(server)
}

/// What is refused, and in which words.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    let ports = |name: &str| json!([{"name": name, "containerPort": 1}]);
    vec![
        ("/name", json!("a".repeat(38)), "metadata.name is too long: use at most 37 characters"),
        ("/name", json!("a.b"), "metadata.name must be a DNS label"),
        ("/replicas", json!(-1), "should be greater than or equal to 0"),
        ("/template", json!({}), "spec.template.spec: Required value"),
        (
            "/template/spec/restartPolicy",
            json!("OnFailure"),
            "restartPolicy must be Always, as in a Deployment",
        ),
        ("/template/spec/hostNetwork", json!(true), "hostNetwork is not supported"),
        (
            "/template/metadata",
            json!({"labels": {"graceful.dev/serving": "x"}}),
            "are set by the operator; remove",
        ),
        (
            "/inFlight",
            json!({"port": "amdin"}),
            "has a port named amdin; add {name: amdin, containerPort: 9808}",
        ),
        (
            "/template/spec",
            json!({"containers": [{"name": "web"}], "initContainers": [{"name": "i", "ports": ports("admin")}]}),
            "no container or native sidecar has a port named admin",
        ),
        ("/inFlight", json!({"port": 0}), "port must be a port's name, or a number from 1 to 65535"),
        ("/inFlight", json!({"path": "drain"}), "path must start with /"),
        ("/inFlight", json!({"path": "/drain?x=1"}), "path must have no query with format Graceful"),
        (
            "/inFlight",
            json!({"format": "Json"}),
            r#"supported values: "Graceful", "JsonPointer", "Prometheus""#,
        ),
        ("/inFlight", json!({"jsonPointers": ["/n"]}), "jsonPointers needs format: JsonPointer"),
        ("/inFlight", json!({"format": "JsonPointer"}), "format JsonPointer needs jsonPointers"),
        (
            "/inFlight",
            json!({"format": "JsonPointer", "jsonPointers": ["/m", "n"]}),
            "each of jsonPointers must start with /",
        ),
        (
            "/inFlight",
            json!({"format": "JsonPointer", "jsonPointers": []}),
            "jsonPointers is empty; name one",
        ),
        (
            "/inFlight",
            json!({"format": "JsonPointer", "jsonPointers": ["/n", "/m", "/n"]}),
            "jsonPointers has the same member twice",
        ),
        ("/inFlight", json!({"metrics": ["n"]}), "metrics needs format: Prometheus"),
        ("/inFlight", json!({"format": "Prometheus"}), "format Prometheus needs metrics"),
        ("/inFlight", json!({"format": "Prometheus", "metrics": []}), "metrics is empty; name one"),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": ["n", "n"]}),
            "metrics has the same member twice",
        ),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": (0..17).map(|n| format!("q{n}")).collect::<Vec<_>>()}),
            "spec.inFlight.metrics: Too many: 17: must have at most 16 items",
        ),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metric": "q{state=\"running\"}"}),
            r#"spec.inFlight.metric: Invalid value: write metrics: ["q{state=\"running\"}"]"#,
        ),
        (
            "/inFlight",
            json!({"format": "JsonPointer", "jsonPointer": "/a\\b"}),
            r#"spec.inFlight.jsonPointer: Invalid value: write jsonPointers: ["/a\\b"]"#,
        ),
        ("/inFlight", json!({"idleAt": 1}), "idleAt needs another format"),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": ["n"], "idleAt": 1001}),
            "should be less than or equal to 1000",
        ),
        ("/inFlight", json!({"whenAbsent": "Zero"}), "whenAbsent needs format: Prometheus"),
        ("/drain", json!({"lingerSeconds": -1}), "should be greater than or equal to 0"),
        ("/drain", json!({"deadlineSeconds": 604_801}), "deadlineSeconds must be at most 604800 (7 days)"),
        ("/drain", json!({"preStopCommand": []}), "preStopCommand is empty; write a command"),
        ("/drain", json!({"preStop": "None", "preStopCommand": ["x"]}), "preStopCommand needs preStop: Auto"),
        (
            "/rollout",
            json!({"maxSurge": "0%", "maxUnavailable": 0}),
            "are both 0, so no pod could ever be replaced",
        ),
        ("/rollout", json!({"maxSurge": "25"}), "maxSurge must be a number of 0 or more, or a percentage"),
        (
            "/rollout",
            json!({"maxUnavailable": -1}),
            "maxUnavailable must be a number of 0 or more, or a percentage",
        ),
        ("/rollout", json!({"maxSurge": 3_000_000_000u64}), "maxSurge must be at most 2147483647"),
        (
            "/rollout",
            json!({"maxUnavailable": 3_000_000_000u64}),
            "maxUnavailable must be at most 2147483647",
        ),
        (
            "/service",
            json!({"ports": [{"port": 80, "targetPort": 99_999_999_999u64}]}),
            "targetPort must be a port's name, or a number from 1 to 65535",
        ),
        (
            "/service",
            json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "TCP"}]}),
            "two ports have the same port and protocol",
        ),
        (
            "/service",
            json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
            "two ports have the same name",
        ),
        ("/rollout", json!({"maxUnavailable": "101%"}), "maxUnavailable must be at most 100%"),
        (
            "/rollout",
            json!({"minReadySeconds": 600}),
            "progressDeadlineSeconds must be longer than minReadySeconds",
        ),
        ("", http_without_graceful(), "signal Http needs inFlight.format: Graceful"),
        (
            "",
            gated(&json!({"port": "web"}), &json!({})),
            "has a port named web; add {name: web, containerPort: 8000}",
        ),
        ("/gate", json!({"port": "admin", "protocol": "Udp"}), r#"supported values: "Http", "Tcp""#),
        ("/gate", json!({"protocol": "Http"}), "spec.gate.port: Required value"),
        ("/gate", json!({"port": "admin", "onDrain": {"path": "stop"}}), "spec.gate.onDrain.path"),
        (
            "",
            gated(&json!({"port": "admin"}), &json!({"drain": {"signal": "Sigterm"}})),
            "with gate the signal is Http",
        ),
        (
            "",
            gated(&json!({"port": "admin"}), &json!({"drain": {"preStopCommand": ["x"]}})),
            "preStopCommand has no place beside gate",
        ),
        (
            "",
            gated(&json!({"port": "admin"}), &json!({"inFlight": {"path": "/mine"}})),
            "with gate the format Graceful is the gate's own",
        ),
        ("/adopt", json!({"deployment": "web"}), "spec.adopt.inFlight: Required value"),
        (
            "/adopt",
            adopting(&json!({"deployment": "Web"})),
            "deployment must be the name of the Deployment to adopt",
        ),
        ("/adopt", adopting(&json!({"inFlight": {}})), "format Graceful needs pods that were made for it"),
        (
            "/adopt",
            adopting(&json!({"inFlight": {"format": "Prometheus"}})),
            "format Prometheus needs metrics; name them",
        ),
        (
            "/adopt",
            adopting(&json!({"drain": {"signal": "Http"}})),
            "signal Http needs pods that were made for the drain protocol",
        ),
        (
            "/adopt",
            adopting(&json!({"drain": {"deadlineSeconds": 604_801}})),
            "deadlineSeconds must be at most 604800 (7 days)",
        ),
    ]
}

/// A Deployment to adopt, with these members otherwise.
fn adopting(more: &Value) -> Value {
    let in_flight = json!({"port": "http", "path": "/n", "format": "JsonPointer", "jsonPointers": ["/n"]});
    let mut adopt = json!({"deployment": "web", "inFlight": in_flight});
    for (key, member) in more.as_object().into_iter().flatten() {
        adopt[key] = member.clone();
    }
    adopt
}

/// A gate, and what else is set beside it.
fn gated(gate: &Value, more: &Value) -> Value {
    let mut spec = more.clone();
    spec["gate"] = gate.clone();
    spec
}

fn accepted() -> Vec<(&'static str, Value)> {
    let sidecar = json!([{"name": "agent", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 5}]}]);
    vec![
        ("/name", json!("a".repeat(37))),
        // Each container and port is looked at for the gate's name as well: at their most, the rules still fit what a request may cost.
        ("", gated(&json!({"port": "p31"}), &json!({"template": {"spec": {"containers": crowd()}}}))),
        (
            "/gate",
            json!({"port": "admin", "resources": {"limits": {"cpu": 0.5, "memory": 1_000_000}},
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        ),
        (
            "",
            gated(
                &json!({"port": "admin", "protocol": "Tcp", "openSockets": "Farewell", "onDrain": {"path": "/stop", "body": "{}"}}),
                &json!({"inFlight": {"port": "admin", "format": "JsonPointer", "jsonPointers": ["/n"]}, "drain": {"signal": "Http"}}),
            ),
        ),
        ("/adopt", adopting(&json!({}))),
        (
            "/adopt",
            adopting(
                &json!({"deployment": "web.v1", "drain": {"signal": "Sigterm", "onDeadline": "Terminate"}}),
            ),
        ),
        ("/inFlight", json!({"port": 9000})),
        ("/inFlight", json!({"format": "JsonPointer", "jsonPointers": [""]})),
        ("/inFlight", json!({"format": "JsonPointer", "jsonPointers": ["/running", "/queued"], "idleAt": 1})),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": ["q{state=\"running\"}", "q{state=\"waiting\"}"]}),
        ),
        (
            "/inFlight",
            json!({"format": "Prometheus", "metrics": ["q"], "whenAbsent": "Zero", "idleAt": 1000}),
        ),
        ("/rollout", json!({"maxSurge": 0, "maxUnavailable": "100%"})),
        (
            "/service",
            json!({"ports": [{"port": 80, "targetPort": "admin"}, {"port": 81, "name": "b", "targetPort": 65_535}]}),
        ),
        (
            "/service",
            json!({"ports": [{"port": 53, "name": "udp", "protocol": "UDP"}, {"port": 53, "name": "tcp"}]}),
        ),
        ("/template/spec", json!({"containers": [{"name": "web"}], "initContainers": sidecar})),
        ("/drain", json!({"signal": null, "preStopCommand": null, "lingerSeconds": null})),
        ("/template/metadata", json!({"creationTimestamp": null, "labels": null})),
        ("/template/spec/restartPolicy", Value::Null),
    ]
}

/// A field from a newer Kubernetes survives at every depth; a quantity without quotes is taken.
fn passes_through(server: &Server) -> anyhow::Result<()> {
    let template = json!({
        "metadata": {"labels": {"tier": "web"}, "fromTheFuture": 1},
        "spec": {
            "fromTheFuture": {"x": [1]},
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": 0.5, "fromTheFuture": 1}}],
            "containers": [{
                "name": "web", "fromTheFuture": true,
                "ports": [{"name": "admin", "containerPort": 1, "fromTheFuture": 1}],
                "resources": {"limits": {"cpu": 0.5, "memory": 1_000_000}, "fromTheFuture": 1},
                "livenessProbe": {"httpGet": {"port": "admin", "fromTheFuture": 1}},
            }],
        },
    });
    let (name, spec) = app_with("/template", template.clone());
    let made = server.try_app(&name, &spec)?.map_err(anyhow::Error::msg)?;
    let kept = &made["spec"]["template"];
    ensure!(*kept == template, "a template went in as\n{template}\nand came out as\n{kept}");
    Ok(())
}

/// The API server's defaults are those that the types have.
fn defaults(server: &Server) -> anyhow::Result<()> {
    let (name, spec) = app_with("/replicas", Value::Null);
    let made = server.try_app(&name, &spec)?.map_err(anyhow::Error::msg)?;
    let ours: graceful_api::GracefulAppSpec = serde_json::from_value(json!({"template": spec["template"]}))?;
    let ours = serde_json::to_value(ours)?;
    ensure!(made["spec"] == ours, "the server's defaults\n{}\nare not the types'\n{ours}", made["spec"]);
    Ok(())
}

/// A small valid app with one value set, by JSON pointer; `/name` is the app's.
fn app_with(pointer: &str, value: Value) -> (String, Value) {
    let mut spec = json!({"template": {"spec": {"containers": [
        {"name": "web", "image": "x:1", "ports": [{"name": "admin", "containerPort": 9808}]},
    ]}}});
    match (pointer, value) {
        ("/name", Value::String(name)) => return (name, spec),
        ("", Value::Object(members)) => {
            for (key, member) in members {
                spec[key] = member;
            }
        }
        (pointer, value) => {
            *pointer.split('/').skip(1).fold(&mut spec, |at, key| &mut at[key]) = value;
        }
    }
    ("web".to_owned(), spec)
}

/// As many containers with as many ports as there may be; one of them has the name.
fn crowd() -> Value {
    let ports = |c: usize| {
        (0..32).map(move |p| json!({"name": if c == 31 { format!("p{p}") } else { format!("c{c}p{p}") }, "containerPort": 1000 + p}))
    };
    let container =
        |c: usize| json!({"name": format!("c{c}"), "image": "x", "ports": ports(c).collect::<Vec<_>>()});
    (0..32).map(container).collect()
}

fn http_without_graceful() -> Value {
    json!({"inFlight": {"format": "Prometheus", "metrics": ["n"]}, "drain": {"signal": "Http"}})
}
