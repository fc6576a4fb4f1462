//! The checked-in documents are what the server generates.

use super::root;
use super::tidy::error_codes;

#[test]
fn the_checked_in_document_is_what_the_server_generates() {
    assert_checked_in("openapi.json", &messenger_server::spec());
    let events = messenger_server::asyncapi();
    assert_checked_in("messenger-server/asyncapi.json", &events);
    let settings = messenger_server::settings_reference();
    assert_checked_in("messenger-server/SETTINGS.md", &settings);
}

fn assert_checked_in(name: &str, generated: &str) {
    let path = root().join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, generated).unwrap();
    }

    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();

    assert!(
        checked_in == generated,
        "{name} lags behind the code: UPDATE=1 .ci/test -E 'test(checked_in_document)'"
    );
}

/// All that is said on a socket is in both documents, and refers to nothing that is missing.
#[test]
fn every_frame_and_command_is_in_the_documents() {
    let [rest, events] = [messenger_server::spec(), messenger_server::asyncapi()]
        .map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
    for name in ["SocketCommand", "SocketFrame", "LiveFrame"] {
        let variants = rest["components"]["schemas"][name]["oneOf"].as_array();
        for variant in variants.unwrap() {
            let place = variant["$ref"].as_str().unwrap().trim_start_matches('#');
            assert!(events.pointer(place).is_some(), "{place}");
            let message = place.replace("schemas", "messages");
            assert!(events.pointer(&message).is_some(), "{message}");
        }
    }
    let text = events.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let place = reference.split('"').next().unwrap();
        assert!(events.pointer(place).is_some(), "{place}");
    }
}

/// Generators write names in the manner of their language: two that differ only in the manner
/// become one.
#[test]
fn no_schema_has_two_names_that_a_generator_makes_one() {
    let document: serde_json::Value = serde_json::from_str(&messenger_server::spec()).unwrap();
    for (schema, described) in document["components"]["schemas"].as_object().unwrap() {
        let properties = described["properties"].as_object();
        let plain = |name: &String| name.replace('_', "").to_lowercase();
        let mut names: Vec<_> = properties
            .into_iter()
            .flat_map(|it| it.keys())
            .map(plain)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{schema}");
    }
}

#[test]
fn every_operation_says_what_a_generator_needs() {
    let document: serde_json::Value = serde_json::from_str(&messenger_server::spec()).unwrap();
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if !["get", "post", "delete", "put", "patch"].contains(&method.as_str()) {
                continue;
            }
            let name = format!("{method} {path}");
            for field in ["operationId", "summary", "description"] {
                assert!(operation[field].is_string(), "{name} has no {field}");
            }
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.as_str() < "400" {
                    continue;
                }
                // The one envelope, whatever the status: generators give one error type.
                let schema = &response["content"]["application/json"]["schema"];
                assert_eq!(
                    schema["$ref"], "#/components/schemas/ErrorEnvelope",
                    "{name} answers {status} with {response}"
                );
            }
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids repeat");
}

/// Words of the descriptions of failures that are no codes: why one must start again.
const REASONS: [&str; 4] = [
    "history_diverged",
    "cursor_malformed",
    "cursor_version",
    "compacted",
];

#[test]
fn the_document_lists_every_error_code() {
    let document: serde_json::Value = serde_json::from_str(&messenger_server::spec()).unwrap();
    let listed = &document["components"]["schemas"]["ErrorBody"]["properties"]["code"];
    let listed = listed["x-extensible-enum"].as_array().unwrap();
    let is_listed = |code: &str| listed.iter().any(|it| it == code);
    // Subscriptions are not an answer of any route.
    for code in error_codes() {
        assert!(is_listed(&code) || code == "subscription_lost", "{code}");
    }
    let operations = document["paths"].as_object().unwrap().values();
    for operation in operations.flat_map(|item| item.as_object().unwrap().values()) {
        let failures = operation["responses"].as_object().unwrap().iter();
        for (_, failure) in failures.filter(|(status, _)| status.as_str() >= "400") {
            let described = failure["description"].as_str().unwrap();
            for word in described.split('`').skip(1).step_by(2) {
                let is_code = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let is_known = is_listed(word) || REASONS.contains(&word);
                assert!(!is_code || is_known, "{word} of {described}");
            }
        }
    }
}

#[test]
fn messages_are_described_one_by_one() {
    let events: serde_json::Value = serde_json::from_str(&messenger_server::asyncapi()).unwrap();
    let messages = events["components"]["messages"].as_object().unwrap();
    let ping = &messages["SocketCommand_Ping"]["summary"];
    assert!(ping.as_str().unwrap().contains("ask whether the server is"));
    let unions = ["What a stream", "What a socket", "A command of"];
    for (name, message) in messages {
        let summary = message["summary"].as_str().unwrap();
        assert!(!unions.iter().any(|it| summary.starts_with(it)), "{name}");
    }
}
