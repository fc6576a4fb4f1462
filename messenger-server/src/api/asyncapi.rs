//! The AsyncAPI document: what is said on the WebSocket and in the event stream. It is made of the
//! schemas of the OpenAPI document, so the two can not disagree.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

const SCHEMAS: &str = "#/components/schemas/";

/// Returns the document for the schemas of an OpenAPI document, as JSON that ends in a line break.
pub(crate) fn document(openapi: &str, prefix: &str) -> String {
    let openapi: Value = serde_json::from_str(openapi).unwrap_or_default();
    let schemas = &openapi["components"]["schemas"];
    let [commands, frames, live] =
        ["SocketCommand", "SocketFrame", "LiveFrame"].map(|union| variants(&schemas[union]));
    let mut messages = Map::new();
    let mut used = BTreeSet::new();
    for (name, schema) in commands.iter().chain(&frames).chain(&live) {
        collect(schema, schemas, &mut used);
        let title = &schemas[key(schema)]["description"];
        let message = json!({
            "name": name,
            "summary": title,
            "payload": { "$ref": schema },
        });
        messages.insert(key(schema), message);
    }
    let schemas: Map<String, Value> = used
        .into_iter()
        .map(|name| {
            let mut schema = schemas[&name].clone();
            to_json_schema(&mut schema);
            (name, schema)
        })
        .collect();
    let of = |place: &str, variants: &[(String, String)]| -> Vec<Value> {
        let keys = variants.iter().map(|(_, schema)| key(schema));
        keys.map(|key| json!({ "$ref": format!("#/{place}/messages/{key}") }))
            .collect()
    };
    let channel = |messages: &[&[(String, String)]]| -> Map<String, Value> {
        let keys = messages
            .iter()
            .copied()
            .flatten()
            .map(|(_, schema)| key(schema));
        keys.map(|key| {
            let message = json!({ "$ref": format!("#/components/messages/{key}") });
            (key, message)
        })
        .collect()
    };
    let (socket, stream) = ("channels/socket", "channels/stream");
    let document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": openapi["info"]["title"],
            "version": openapi["info"]["version"],
            "license": openapi["info"]["license"],
            "description": "What is said on the WebSocket, and in the stream of server-sent events. \
                The REST API is described by openapi.json, which has the handshakes too. Lists of \
                types, codes and fields may grow: ignore what is unknown.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": format!("{prefix}/ws"),
                "title": "A WebSocket",
                "description": "Commands and frames are one JSON object a text frame.",
                "messages": channel(&[&commands, &frames, &live]),
                "bindings": { "ws": { "method": "GET", "query": {
                    "type": "object",
                    "properties": { "access_token": {
                        "type": "string",
                        "description": "The access token, where a header can not be set.",
                    } },
                } } },
            },
            "stream": {
                "address": format!("{prefix}/events"),
                "title": "Server-sent events",
                "description": "`event` is the frame's `type`, `data` the frame, `id` its cursor.",
                "messages": channel(&[&live]),
            },
        },
        "operations": {
            "command": {
                "action": "receive",
                "channel": { "$ref": format!("#/{socket}") },
                "summary": "A client says what it wants.",
                "messages": of(socket, &commands),
            },
            "answer": {
                "action": "send",
                "channel": { "$ref": format!("#/{socket}") },
                "summary": "The server answers, and tells a client that subscribes what happens.",
                "messages": of(socket, &frames),
            },
            "follow": {
                "action": "send",
                "channel": { "$ref": format!("#/{socket}") },
                "summary": "The server tells a client that has resumed everything, each change once.",
                "messages": of(socket, &live),
            },
            "stream": {
                "action": "send",
                "channel": { "$ref": format!("#/{stream}") },
                "summary": "The same as server-sent events.",
                "messages": of(stream, &live),
            },
        },
        "components": { "messages": messages, "schemas": schemas },
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// The variants of a union: the value that tells them apart, and their schema.
fn variants(union: &Value) -> Vec<(String, String)> {
    let mapping = union["discriminator"]["mapping"].as_object();
    let variants = mapping.into_iter().flatten();
    variants
        .filter_map(|(name, schema)| Some((name.clone(), schema.as_str()?.to_owned())))
        .collect()
}

/// The key of the message that has a schema.
fn key(schema: &str) -> String {
    schema[SCHEMAS.len()..].to_owned()
}

/// Adds the name of a schema, and of all that it refers to.
fn collect(reference: &str, schemas: &Value, used: &mut BTreeSet<String>) {
    let Some(name) = reference.strip_prefix(SCHEMAS) else {
        return;
    };
    if used.insert(name.to_owned()) {
        refer(&schemas[name], &mut |reference| {
            collect(reference, schemas, used);
        });
    }
}

/// Calls `found` for each reference in a value.
fn refer(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(object) => {
            if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                found(reference);
            }
            object.values().for_each(|value| refer(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| refer(value, found)),
        _ => {}
    }
}

/// Makes a JSON schema of what OpenAPI 3.0 writes in its own way.
fn to_json_schema(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("discriminator");
            if let Some(example) = object.remove("example") {
                object.insert("examples".to_owned(), json!([example]));
            }
            object.values_mut().for_each(to_json_schema);
            if object.remove("nullable") == Some(json!(true)) {
                let kind = object.get("type").cloned();
                if let Some(kind) = kind {
                    object.insert("type".to_owned(), json!([kind, "null"]));
                } else {
                    let inner = Value::Object(std::mem::take(object));
                    object.insert("anyOf".to_owned(), json!([inner, { "type": "null" }]));
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(to_json_schema),
        _ => {}
    }
}
