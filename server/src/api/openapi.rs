//! The OpenAPI document: as strict as the API itself, so that a fuzzer can hold one against the other. It knows the kinds
//! of task of the server that serves it; `server/openapi.json` is the one of the binary `server`.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::api::{bulk, overview, queues, seed, submission, tasks};
use crate::kind::Kinds;
use crate::problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Graceful task server",
        description = "Hand it a task over HTTP, watch it over a WebSocket, and it is done, whatever happens to the pod.\n\n\
            **Accepted is on disk.** A task runs at least once: when its pod dies, or an attempt fails, another attempt \
            follows, until it has succeeded, is dead (no attempt is left) or is cancelled.\n\n\
            **Whose tasks.** With SQLite each pod has a queue of its own and answers 404 for a task of another; behind \
            a Service, watch `/ws/{client_id}`. With PostgreSQL all pods share one queue.\n\n\
            **Errors** are RFC 9457 problem documents, `application/problem+json`: `detail` says what to do instead, \
            `field` where. 429 and 503 have `Retry-After`: while a pod drains it finishes what it accepted, and takes \
            nothing new.\n\n\
            **Watching.** `GET /ws/{client_id}` upgrades to a WebSocket: the seed's text frames, or JSON frames with \
            `?format=json`; `?after=<id of the last event>` resumes without a gap. OpenAPI can't describe it."
    ),
    tags(
        (name = "tasks", description = "Hand in, look at, cancel, try again."),
        (name = "bulk", description = "The same for many tasks."),
        (name = "queues", description = "What tasks wait in, and what may run of each."),
        (name = "queue", description = "How much there is to do, and what can be done."),
        (name = "seed", description = "The first clients' routes."),
    ),
    paths(
        tasks::submit,
        tasks::list,
        tasks::read,
        tasks::cancel,
        tasks::retry,
        tasks::delete,
        bulk::submit,
        bulk::cancel,
        bulk::retry,
        bulk::delete,
        queues::list,
        queues::read,
        queues::put,
        queues::remove,
        queues::pause,
        queues::resume,
        overview::queue,
        overview::history,
        overview::kinds,
        seed::create_task,
        seed::queue_length,
        seed::health,
    )
)]
struct Document;

/// The OpenAPI document of a server with these kinds of task.
#[must_use]
pub fn document(kinds: &Kinds) -> Value {
    // utoipa's own types always serialize.
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    for operation in operations(&mut document) {
        for (status, response) in entries(operation.get_mut("responses")) {
            complete(status, response);
        }
        // A header is there or not; it is never null.
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            if parameter["in"] == "header" {
                parameter["schema"]["type"] = json!("string");
            }
        }
    }
    offer_tokens(&mut document);
    let new_task = &mut document["components"]["schemas"]["NewTask"];
    *new_task = of_kinds(new_task, kinds);
    document
}

/// Each operation but health may be asked with a token, and must be where the server has `--tokens`.
fn offer_tokens(document: &mut Value) {
    document["components"]["securitySchemes"]["token"] = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "Where the server was started with --tokens: made by `server token NAME submit,read`.",
    });
    let refused = |description: &str| {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        json!({"description": description, "content": {problem::CONTENT_TYPE: {"schema": schema}}})
    };
    for operation in operations(document).filter(|operation| operation["operationId"] != "health") {
        operation["security"] = json!([{}, {"token": []}]);
        operation["responses"]["401"] =
            refused("The server asks for a token, and this is none that it knows.");
        if operation["responses"].get("403").is_none() {
            operation["responses"]["403"] =
                refused("The token is not for this, or the page is one of another site.");
        }
    }
}

fn entries(object: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    object.and_then(Value::as_object_mut).into_iter().flatten()
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    entries(document.get_mut("paths"))
        .flat_map(|(_, path)| entries(Some(path)))
        .map(|(_, operation)| operation)
}

/// What holds for each response of its sort is said here once, rather than at each route.
fn complete(status: &str, response: &mut Value) {
    let is_problem = |content: &Map<String, Value>| {
        content
            .get("application/json")
            .is_some_and(|json| json["schema"]["$ref"] == "#/components/schemas/Problem")
    };
    let content = response.get_mut("content").and_then(Value::as_object_mut);
    if let Some(content) = content.filter(|content| is_problem(content))
        && let Some(schema) = content.remove("application/json")
    {
        content.insert(problem::CONTENT_TYPE.to_owned(), schema);
        if status == "429" || status == "503" {
            response["headers"]["Retry-After"] = json!({
                "description": "Seconds to wait before the next try.",
                "schema": {"type": "integer", "minimum": 0},
            });
        }
    }
    for (_, header) in entries(response.get_mut("headers")) {
        let optional = header["schema"]["type"].as_array().is_some();
        header["required"] = json!(!optional);
        if optional {
            header["schema"]["type"] = json!("string");
        }
    }
}

/// The body of a submission, with each kind's own input: one variant a kind.
fn of_kinds(general: &Value, kinds: &Kinds) -> Value {
    let variants = kinds.schemas().map(|(name, input)| {
        let mut variant = general.clone();
        let properties = &mut variant["properties"];
        let mut required = Vec::new();
        if name == submission::DEFAULT_KIND {
            properties["kind"]["enum"] = json!([name, null]);
        } else {
            properties["kind"]["enum"] = json!([name]);
            required.push("kind");
        }
        let description = general["properties"]["input"]["description"].clone();
        // One that is left out, or null, is an empty object.
        let may_be_empty = input["required"].as_array().is_none_or(Vec::is_empty);
        variant["properties"]["input"] = if may_be_empty {
            json!({"description": description, "anyOf": [input, {"type": "null"}]})
        } else {
            required.push("input");
            json!({"description": description, "allOf": [input]})
        };
        if !required.is_empty() {
            variant["required"] = json!(required);
        }
        variant
    });
    let mut variants: Vec<_> = variants.collect();
    match variants.len() {
        1 => variants.remove(0),
        _ => json!({"description": general["description"], "anyOf": variants}),
    }
}
