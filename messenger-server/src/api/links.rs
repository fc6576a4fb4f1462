//! Links in the OpenAPI document: which operations can go on with what an answer has brought, and
//! where in the answer it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// An operation, the statuses of its answers, and what they tell: parameters of the path of other
/// operations, and where their values are.
type Source = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const CONVERSATION: &[(&str, &str)] = &[("conversation_id", "$response.body#/data/id")];

const SOURCES: [Source; 6] = [
    ("createGroup", &["201"], CONVERSATION),
    (
        "listSessions",
        &["200"],
        &[("session_id", "$response.body#/data/sessions/0/id")],
    ),
    ("openDirectConversation", &["200"], CONVERSATION),
    (
        "register",
        &["201"],
        &[("user_id", "$response.body#/data/user/id")],
    ),
    (
        "sendMessage",
        &["200", "201"],
        &[
            ("conversation_id", "$request.path.conversation_id"),
            ("message_id", "$response.body#/data/id"),
        ],
    ),
    (
        "uploadAttachment",
        &["201"],
        &[("attachment_id", "$response.body#/data/id")],
    ),
];

/// Puts the links on the answers.
pub(super) fn fill(document: &mut Value) {
    let targets = operations(document);
    for (source, statuses, told) in SOURCES {
        let told: BTreeMap<&str, &str> = told.iter().copied().collect();
        let mut links = Map::new();
        for (target, ids) in &targets {
            if ids.iter().map(String::as_str).eq(told.keys().copied()) {
                let link = json!({ "operationId": target, "parameters": told });
                links.insert(target.clone(), link);
            }
        }
        if source == "register" {
            let other = json!({ "other_user_id": "$response.body#/data/user/id" });
            let link = json!({ "operationId": "openDirectConversation", "requestBody": other });
            links.insert("openDirectConversation".to_owned(), link);
        }
        let Some(responses) = responses(document, source) else {
            continue;
        };
        for status in statuses {
            responses[*status]["links"] = Value::Object(links.clone());
        }
    }
}

/// Every operation, with the ids in its path in the order of their names.
fn operations(document: &Value) -> BTreeMap<String, Vec<String>> {
    let items = document["paths"].as_object().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object().into_iter().flatten());
    let described = operations.filter_map(|(_, operation)| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names = parameters.filter_map(|parameter| parameter["name"].as_str());
        let mut ids: Vec<String> = names
            .filter(|name| name.ends_with("_id"))
            .map(str::to_owned)
            .collect();
        ids.sort();
        Some((operation["operationId"].as_str()?.to_owned(), ids))
    });
    described.collect()
}

/// The answers of an operation.
fn responses<'a>(document: &'a mut Value, id: &str) -> Option<&'a mut Value> {
    let items = document["paths"].as_object_mut()?.values_mut();
    let mut operations = items
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut);
    let found = operations.find(|operation| operation["operationId"] == id)?;
    found.get_mut("responses")
}
