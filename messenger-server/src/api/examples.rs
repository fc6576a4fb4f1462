//! Examples for the answers in the OpenAPI document: made from the schemas, so that none is
//! forgotten and none contradicts its schema. Requests have theirs beside their types.

use serde_json::{Map, Value, json};

/// Puts an example on every answer that has a body.
pub(super) fn fill(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    let items = document["paths"].as_object_mut().into_iter();
    let operations = items
        .flat_map(Map::values_mut)
        .filter_map(Value::as_object_mut);
    for operation in operations.flat_map(Map::values_mut) {
        let Some(responses) = operation["responses"].as_object_mut() else {
            continue;
        };
        for (status, response) in responses {
            let described = response["description"].as_str().unwrap_or_default();
            let code = described.split('`').nth(1).unwrap_or("internal_error");
            let failed = json!({"error": {"code": code, "message": "what went wrong"}});
            let contents = response
                .get_mut("content")
                .and_then(|content| content.get_mut("application/json"));
            if let Some(content) = contents {
                content["example"] = if status.as_str() >= "400" {
                    failed
                } else {
                    sample("data", &content["schema"], &schemas)
                };
            }
        }
    }
}

/// Returns a value that fits the schema of a property called `name`.
fn sample(name: &str, schema: &Value, schemas: &Value) -> Value {
    if let Some(path) = schema["$ref"].as_str() {
        let referred = path.rsplit('/').next().unwrap_or_default();
        return sample(name, &schemas[referred], schemas);
    }
    if let Some(first) = schema["allOf"].get(0).or(schema["oneOf"].get(0)) {
        return sample(name, first, schemas);
    }
    match schema["type"].as_str() {
        Some("object") => match schema["properties"].as_object() {
            Some(properties) => {
                let fields = properties.iter();
                let fields = fields.map(|(name, of)| (name.clone(), sample(name, of, schemas)));
                Value::Object(fields.collect())
            }
            None if name == "metadata" => json!({ "order": 7 }),
            None => json!({ CONVERSATION: 1 }),
        },
        Some("array") => json!([sample(name, &schema["items"], schemas)]),
        Some("integer") if name.ends_with("version") || name == "as_of" || name == "fence" => {
            json!(1_882_578_503_197_248_i64)
        }
        kind => leaf(name, kind),
    }
}

const CONVERSATION: &str = "01989f70-2c1b-7b52-8f0a-6d1e7f3a9b02";
const ALICE: &str = "01989f70-0a3c-7d41-9c55-2b7f10e4a6d1";

/// Returns the value of a property that has no parts.
fn leaf(name: &str, kind: Option<&str>) -> Value {
    match name {
        "id" | "sender_id" | "member_ids" | "mentions" | "user_id" => json!(ALICE),
        "reply_to" => json!("01989f70-1e62-7a0b-8d11-4c9a7e5f2b38"),
        "emoji" => json!("👍"),
        "name" => json!("hike.jpg"),
        "media_type" => json!("image/jpeg"),
        "next_cursor" => json!("AQABAIDAzMTHtawDgMDMxMe1rAPQq2ZKmXlTIg"),
        "reason" => json!("left"),
        "shard" => json!(0),
        "next_after" => json!(format!("{ALICE}:👍")),
        "conversation_id" => json!(CONVERSATION),
        "client_message_id" => json!("01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10"),
        "username" => json!("alice"),
        "display_name" => json!("Alice"),
        "device" => json!("Pixel 9"),
        "content" | "last_message_preview" => json!("Good morning!"),
        "type" => json!("direct"),
        "token_type" => json!("bearer"),
        "access_token" => {
            json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl")
        }
        "refresh_token" => {
            json!("kq3Jr0V2m8Xw5cTzYb1HdN7uPfA9sLgE4oQiR6tC_xZ-vBnMjKhGyUeWaSdFl0p2")
        }
        "database" => json!("sqlite"),
        "durability" => json!("durable"),
        "version" if kind == Some("string") => json!(env!("CARGO_PKG_VERSION")),
        "ok" | "current" | "mine" => json!(true),
        "has_more" => json!(false),
        "key" => json!("theme"),
        "value" => json!({ "dark": true }),
        "expires_in" => json!(900),
        "title" => json!("Hikers"),
        "role" => json!("member"),
        "members_mode" => json!("full"),
        "unread_count" => json!(0),
        "muted_until" => json!("2026-02-23T09:30:00.123456Z"),
        "seq" | "ended" | "count" => json!(1),
        time if time.ends_with("_at") => json!("2026-02-23T09:30:00.123456Z"),
        _ => match kind {
            Some("integer") => json!(1),
            Some("boolean") => json!(false),
            _ => Value::Null,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_with_a_body_has_an_example_without_a_hole() {
        let document: Value = serde_json::from_str(&crate::spec()).unwrap_or_default();
        let mut examples = 0;
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    if response["content"].get("application/json").is_none() {
                        continue;
                    }
                    let example = response["content"]["application/json"]["example"].to_string();
                    assert!(
                        !example.contains("null"),
                        "{method} {path} {status}: {example}"
                    );
                    examples += 1;
                }
            }
        }
        assert!(examples > 100, "{examples}");
    }
}
