//! What the objects of the contract look like.

use serde_json::Value;
use uuid::Uuid;

/// Insists that an object has these fields; others may have been added.
#[track_caller]
pub fn assert_fields(object: &Value, names: &[&str]) {
    let mut found: Vec<_> = object
        .as_object()
        .into_iter()
        .flat_map(|it| it.keys())
        .collect();
    let mut names = names.to_vec();
    found.retain(|name| names.contains(&name.as_str()));
    found.sort_unstable();
    names.sort_unstable();
    assert_eq!(found, names, "{object}");
}

/// Insists on an id: a UUID of 36 characters in lower case.
#[track_caller]
pub fn assert_id(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let id = Uuid::parse_str(text).unwrap_or_else(|_| panic!("no id: {value}"));
    assert_eq!(id.to_string(), text);
}

/// Insists on a time: RFC 3339 in UTC with six digits of the second and a `Z`.
#[track_caller]
pub fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let pattern = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    let fits = |(letter, expected): (char, char)| match expected {
        'd' => letter.is_ascii_digit(),
        _ => letter == expected,
    };
    let all_fit = text.chars().zip(pattern.chars()).all(fits);
    assert!(text.len() == pattern.len() && all_fit, "no time: {value}");
}

/// Insists on a `UserPublic`.
#[track_caller]
pub fn assert_user(user: &Value) {
    assert_fields(user, &["id", "username", "display_name", "created_at"]);
    assert_id(&user["id"]);
    assert_time(&user["created_at"]);
    assert!(
        user["username"].is_string() && user["display_name"].is_string(),
        "{user}"
    );
}

/// Insists on the answer to a write that has nothing to show: where it took place.
#[track_caller]
pub fn assert_written(data: &Value) {
    assert_fields(data, &["ok", "version"]);
    assert_eq!(data["ok"], true);
    assert!(data["version"].as_i64().is_some_and(|it| it > 0), "{data}");
}

/// Insists on what register, login and refresh answer.
#[track_caller]
pub fn assert_session_opened(data: &Value) {
    assert_fields(data, &["user", "tokens"]);
    assert_user(&data["user"]);
    let tokens = &data["tokens"];
    assert_fields(
        tokens,
        &["access_token", "refresh_token", "token_type", "expires_in"],
    );
    assert_eq!(tokens["token_type"], "bearer");
    assert_eq!(tokens["expires_in"], 900);
    assert!(
        tokens["access_token"].is_string() && tokens["refresh_token"].is_string(),
        "{tokens}"
    );
}

/// Insists on a `ConversationSummary`.
#[track_caller]
pub fn assert_conversation(conversation: &Value) {
    let names = [
        "id",
        "type",
        "updated_at",
        "last_message_preview",
        "last_message_at",
        "members",
    ];
    assert_fields(conversation, &[&names[..], &["member_ids"]].concat());
    assert_id(&conversation["id"]);
    assert_eq!(conversation["type"], "direct");
    assert_time(&conversation["updated_at"]);
    if conversation["last_message_preview"].is_null() {
        assert!(conversation["last_message_at"].is_null(), "{conversation}");
    } else {
        assert!(
            conversation["last_message_preview"].is_string(),
            "{conversation}"
        );
        assert_time(&conversation["last_message_at"]);
    }
    let ids = strings(&conversation["member_ids"]);
    assert!(ids.is_sorted(), "{conversation}");
    let mut members = texts(&conversation["members"], "id");
    members.sort();
    assert_eq!(ids, members, "{conversation}");
    conversation["members"]
        .as_array()
        .into_iter()
        .flatten()
        .for_each(assert_user);
}

/// Insists on a `Message`.
#[track_caller]
pub fn assert_message(message: &Value) {
    let names = [
        "id",
        "conversation_id",
        "sender_id",
        "client_message_id",
        "seq",
        "content",
    ];
    assert_fields(message, &[&names[..], &["created_at"]].concat());
    ["id", "conversation_id", "sender_id"]
        .iter()
        .for_each(|name| assert_id(&message[name]));
    assert_time(&message["created_at"]);
    assert!(
        message["seq"].as_i64().is_some_and(|seq| seq >= 1),
        "{message}"
    );
    assert!(
        message["client_message_id"].is_string() && message["content"].is_string(),
        "{message}"
    );
}

/// The texts of a list of texts.
#[track_caller]
pub fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    items
        .iter()
        .map(|item| item.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// One field of each object of a list, as text.
#[track_caller]
pub fn texts(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    items
        .iter()
        .map(|item| item[field].as_str().unwrap_or_default().to_owned())
        .collect()
}
