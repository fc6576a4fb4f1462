//! The last hand on the OpenAPI document: what poem-openapi does not know or can not say.

use std::collections::BTreeSet;

use messenger_core::Seq;
use serde_json::{Map, Value, json};

use crate::api::envelope::KNOWN_CODES;
use crate::api::idempotency::IDEMPOTENCY_KEY;
use crate::api::{examples, links};

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

/// A text that every database keeps alike.
const TEXT: &str = r"^[^\u0000]*$";

/// What a text in a body is like, which the engine judges and the types do not say.
const TEXTS: [(&str, &str, &str); 8] = [
    ("EditRequest", "content", TEXT),
    ("GroupRequest", "client_conversation_id", TEXT),
    ("GroupRequest", "title", TEXT),
    ("ProfileRequest", "display_name", TEXT),
    ("RegisterRequest", "display_name", TEXT),
    ("SendRequest", "client_message_id", TEXT),
    ("SendRequest", "content", TEXT),
    ("UpdateRequest", "title", TEXT),
];

/// What a text in the path or the query is like that has no format.
const PARAMETERS: [(&str, &str); 6] = [
    (
        "after",
        r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[^\s\u0000-\u001f\u007f-\u009f]+$",
    ),
    ("emoji", r"^[^\s\u0000-\u001f\u007f-\u009f]+$"),
    ("key", "^[a-z0-9._-]+$"),
    (
        "name",
        r"^[^/\\\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]+$",
    ),
    ("query", TEXT),
    ("seen", "^0:[0-9]{1,16}(,0:[0-9]{1,16})*$"),
];

/// How long a list of a request may be that the engine judges.
const LISTS: [(&str, &str, u32); 2] = [
    ("SendRequest", "attachment_ids", 10),
    ("SendRequest", "mentions", 50),
];

/// The lists of a request that are closed: another value is refused.
const CHOICES: [(&str, &str, &[&str]); 3] = [
    ("DeleteRequest", "erase", &["nothing", "messages"]),
    ("GroupRequest", "history", &["all", "since_join"]),
    ("RoleRequest", "role", &["member", "admin", "owner"]),
];

/// Finishes the document that poem-openapi made: puts the prefix on the paths, names the licence,
/// says which operations need no token, what texts are like, which lists are open and that unsigned
/// is not negative, and links answers to what can be done with them; and sorts, so that the same
/// routes always give the same bytes. Ends in a line break.
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
    // What OpenAPI calls `webhooks` from 3.1 on.
    if let Some(webhooks) = document
        .as_object_mut()
        .and_then(|it| it.remove("webhooks"))
    {
        document["x-webhooks"] = told(webhooks);
    }
    let schemas = &mut document["components"]["schemas"];
    schemas["ErrorBody"]["properties"]["code"]["x-extensible-enum"] = json!(KNOWN_CODES);
    schemas["ConversationSummary"]["properties"]["type"]["x-extensible-enum"] =
        json!(["direct", "group"]);
    for (schema, field) in IDS {
        let id = &mut schemas[schema]["properties"][field];
        match id.get_mut("items") {
            Some(item) => item["format"] = json!("uuid"),
            None => id["format"] = json!("uuid"),
        }
    }
    for (schema, field, pattern) in TEXTS {
        schemas[schema]["properties"][field]["pattern"] = json!(pattern);
    }
    for (schema, field, most) in LISTS {
        schemas[schema]["properties"][field]["maxItems"] = json!(most);
    }
    for (schema, field, values) in CHOICES {
        schemas[schema]["properties"][field]["enum"] = json!(values);
    }
    schemas["IdempotencyKey"] = json!({
        "description": "An id of a write, to repeat it safely. A UUIDv7 is best.",
        "example": "01989f70-1a2b-7c1d-9a44-0d8e2c5b7f11",
        "maxLength": 64,
        "minLength": 8,
        "type": "string",
    });
    describe_variants(schemas);
    allow_null(&mut document);
    links::fill(&mut document);
    examples::fill(&mut document);
    tidy(&mut document);
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn on_prefix(path: &str, prefix: &str) -> String {
    match path {
        "/health" | "/ready" => path.to_owned(),
        _ => format!("{prefix}{path}"),
    }
}

/// Says of each operation without a token that it needs none, of a WebSocket only that it opens, and
/// of parameters what they are like.
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
        let parameters = operation.get_mut("parameters");
        for parameter in parameters
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            describe_parameter(parameter);
        }
    }
    item
}

/// Says of what is told to others how it is sent, and what may be answered.
fn told(mut webhooks: Value) -> Value {
    let headers = [
        (
            "webhook-id",
            "The same at every try: what was taken before.",
        ),
        (
            "webhook-timestamp",
            "When it is sent, in seconds since 1970.",
        ),
        (
            "webhook-signature",
            "`v1,` and a signature in base64; two with a space in between.",
        ),
    ];
    let headers = headers.map(|(name, description)| {
        json!({
            "description": description,
            "in": "header",
            "name": name,
            "required": true,
            "schema": { "type": "string" },
        })
    });
    let operations = webhooks.as_object_mut().into_iter();
    for webhook in operations.flat_map(Map::values_mut) {
        let operation = &mut webhook["post"];
        let content = &mut operation["requestBody"]["content"];
        let sent = content.as_object().and_then(|it| it.values().next());
        *content = json!({ "application/json": sent });
        operation["parameters"] = json!(headers);
        operation["security"] = json!([]);
        operation["responses"] = json!({
            "2XX": { "description": "It was taken." },
            "410": { "description": "Nothing more is to be told." },
            "default": { "description": "It is told again." },
        });
    }
    webhooks
}

/// Says what a parameter is like. The key of a write is one type, whatever the write.
fn describe_parameter(parameter: &mut Value) {
    let name = parameter["name"].clone();
    let schema = &mut parameter["schema"];
    if name == IDEMPOTENCY_KEY {
        *schema = json!({ "$ref": "#/components/schemas/IdempotencyKey" });
    }
    let pattern = PARAMETERS.iter().find(|(it, _)| name == *it);
    if let Some((_, pattern)) = pattern.filter(|_| schema.get("format").is_none()) {
        schema["pattern"] = json!(pattern);
    }
}

/// Says of what may be left out of a body that it may be null as well.
fn allow_null(document: &mut Value) {
    let items = document["paths"].as_object().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object().into_iter().flatten());
    let bodies = operations.filter_map(|(_, operation)| {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        Some(schema["$ref"].as_str()?.rsplit('/').next()?.to_owned())
    });
    for body in bodies.collect::<BTreeSet<_>>() {
        let schema = &mut document["components"]["schemas"][body];
        let required = schema["required"].clone();
        let is_required = |name: &str| {
            required
                .as_array()
                .is_some_and(|it| it.contains(&json!(name)))
        };
        let fields = schema["properties"].as_object_mut().into_iter().flatten();
        for (_, field) in fields.filter(|(name, _)| !is_required(name)) {
            field["nullable"] = json!(true);
            if let Some(values) = field.get_mut("enum").and_then(Value::as_array_mut) {
                values.push(Value::Null);
            }
        }
    }
}

/// Gives the variants of unions, which have the description of the union, that of what they wrap.
fn describe_variants(schemas: &mut Value) {
    let known = schemas.clone();
    let variants = schemas
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut);
    for variant in variants {
        let wrapped = variant["allOf"][1]["$ref"].as_str();
        let wrapped = wrapped.and_then(|place| place.rsplit('/').next());
        if let Some(wrapped) = wrapped {
            variant["description"] = known[wrapped]["description"].clone();
        }
    }
}

/// Sorts the keys, writes whole numbers as such, and bounds unsigned ones.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let format = object.get("format").and_then(Value::as_str);
            if format.is_some_and(|format| format.starts_with("uint")) {
                object.entry("minimum").or_insert(json!(0));
            }
            merge(object);
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
                // serde_json reads the last number before 2^53 as the one before it.
                let is_last = whole == Seq::MAX.get() - 1;
                *value = json!(if is_last { Seq::MAX.get() } else { whole });
            }
        }
        _ => {}
    }
}

/// Makes of a reference, and of what poem-openapi says beside it in `allOf`, what generators know:
/// `allOf` with the reference alone, or `oneOf` with null.
fn merge(object: &mut Map<String, Value>) {
    let Some(parts) = object.get_mut("allOf").and_then(Value::as_array_mut) else {
        return;
    };
    let null = json!({ "nullable": true });
    let is_nullable = parts.contains(&null);
    // The description is in the object itself as well.
    let says = |part: &Value| part.get("description").is_none() || part.get("type").is_some();
    parts.retain(|part| says(part) && *part != null);
    if is_nullable {
        // `nullable` would count beside a type only, and a reference does not allow null.
        parts.push(json!({ "enum": [Value::Null], "nullable": true, "type": "object" }));
        object.remove("nullable");
        let parts = object.remove("allOf").unwrap_or_default();
        object.insert("oneOf".to_owned(), parts);
    }
}
