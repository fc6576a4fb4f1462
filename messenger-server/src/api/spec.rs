//! The last hand on the OpenAPI document: what poem-openapi does not know or can not say.

use serde_json::{Map, Value, json};

use crate::api::envelope::KNOWN_CODES;
use crate::api::examples;

/// Ids in requests that are read as text, since what is no id names nothing, which is no fault of
/// the request.
const IDS: [(&str, &str); 7] = [
    ("DirectRequest", "other_user_id"),
    ("GroupRequest", "member_ids"),
    ("MembersRequest", "member_ids"),
    ("Subscribe", "conversation_ids"),
    ("TypingCommand", "conversation_id"),
    ("Unsubscribe", "conversation_ids"),
    ("UserIds", "ids"),
];

/// Finishes the document that poem-openapi made: puts the prefix on the paths, names the licence,
/// says which operations need no token, which lists are open and that unsigned is not negative;
/// and sorts, so that the same routes always give the same bytes. Ends in a line break.
pub(crate) fn finish(document: &str, prefix: &str) -> String {
    let mut document: Value = serde_json::from_str(document).unwrap_or_default();
    document["info"]["description"] = json!(
        "Direct and group messages over REST, with live events over a WebSocket. Every answer is \
         `{\"data\": …}` or `{\"error\": {code, message, details?}}`, ids are UUIDs and times are \
         RFC 3339 in UTC. Lists of codes, types and fields may grow: ignore what is unknown."
    );
    document["info"]["license"] = json!({
        "name": "MIT",
        "url": "https://opensource.org/license/mit",
    });
    document["servers"] = json!([{ "url": "/", "description": "This server." }]);
    if let Some(paths) = document["paths"].as_object_mut() {
        *paths = std::mem::take(paths)
            .into_iter()
            .map(|(path, item)| (on_prefix(&path, prefix), public(item)))
            .collect();
    }
    let schemas = &mut document["components"]["schemas"];
    schemas["ErrorBody"]["properties"]["code"]["x-extensible-enum"] = json!(KNOWN_CODES);
    schemas["ConversationSummary"]["properties"]["type"]["x-extensible-enum"] =
        json!(["direct", "group"]);
    // What `MaybeUndefined` takes and does not say.
    schemas["SettingsRequest"]["properties"]["muted_until"]["nullable"] = json!(true);
    for (schema, field) in IDS {
        let id = &mut schemas[schema]["properties"][field];
        match id.get_mut("items") {
            Some(item) => item["format"] = json!("uuid"),
            None => id["format"] = json!("uuid"),
        }
    }
    examples::fill(&mut document);
    tidy(&mut document);
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn on_prefix(path: &str, prefix: &str) -> String {
    match path {
        "/health" => path.to_owned(),
        _ => format!("{prefix}{path}"),
    }
}

/// Says of each operation without a token that it needs none, and of a WebSocket only that it opens.
fn public(mut item: Value) -> Value {
    for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
        // Nothing comes as the body of an answer that switches protocols.
        let switch = operation.pointer_mut("/responses/101");
        if let Some(switch) = switch.and_then(Value::as_object_mut) {
            switch.remove("content");
        }
        if operation.get("security").is_none() {
            operation["security"] = json!([]);
        }
    }
    item
}

/// Sorts the keys, writes whole numbers as such, and bounds unsigned ones.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let format = object.get("format").and_then(Value::as_str);
            if format.is_some_and(|format| format.starts_with("uint")) {
                object.entry("minimum").or_insert(json!(0));
            }
            // OpenAPI wants to know the type of what may be null, where it says so.
            let parts = object.get_mut("allOf").and_then(Value::as_array_mut);
            let null = json!({ "nullable": true });
            if parts.is_some_and(|parts| parts.pop_if(|part| *part == null).is_some()) {
                object.insert("nullable".to_owned(), json!(true));
                object.insert("type".to_owned(), json!("object"));
            }
            let mut entries: Vec<_> = std::mem::take(object).into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.iter_mut().for_each(|(_, value)| tidy(value));
            object.extend(entries);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0);
            if let (true, Some(whole)) = (number.is_f64(), whole) {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "bounds in the document are below 2^53"
                )]
                let whole = whole as i64;
                *value = json!(whole);
            }
        }
        _ => {}
    }
}
