//! An answer of the server, and what must be true of every one of them.

use reqwest::header::HeaderMap;
use serde_json::Value;

/// An answer of the server: its status, its headers and its JSON.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body as it was sent.
    pub text: String,
    /// The body as JSON, the envelope included.
    pub body: Value,
}

impl Answer {
    /// Reads an answer and checks what every answer owes: JSON in the envelope, no failure of the
    /// server but to be busy, `WWW-Authenticate` on a 401 and `Retry-After` on a 429 and a 503.
    pub(crate) fn new(asked: &str, status: u16, headers: HeaderMap, text: String) -> Self {
        let told = format!("{asked} answered {status} {headers:?} {text}");
        let content_type = headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        assert!(
            content_type.starts_with("application/json"),
            "not JSON: {told}"
        );
        let Ok(body) = serde_json::from_str::<Value>(&text) else {
            panic!("not JSON: {told}");
        };
        let object = body
            .as_object()
            .unwrap_or_else(|| panic!("not an object: {told}"));
        assert_eq!(object.len(), 1, "the envelope has exactly one key: {told}");
        if status < 400 {
            assert!(object.contains_key("data"), "a success has data: {told}");
        } else {
            let error = body["error"].as_object();
            let error = error.unwrap_or_else(|| panic!("a failure has an error: {told}"));
            let code = body["error"]["code"].as_str().unwrap_or_default();
            let snake_case = |letter: char| letter.is_ascii_lowercase() || letter == '_';
            assert!(
                !code.is_empty() && code.chars().all(snake_case),
                "a code: {told}"
            );
            let message = body["error"]["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty(), "a message for a person: {told}");
            for key in error.keys() {
                assert!(
                    ["code", "message", "details"].contains(&key.as_str()),
                    "{key}: {told}"
                );
            }
        }
        assert!(
            status < 500 || status == 503,
            "a failure of the server: {told}"
        );
        if status == 401 {
            let scheme = headers
                .get("www-authenticate")
                .and_then(|value| value.to_str().ok());
            assert_eq!(
                scheme,
                Some("Bearer"),
                "a 401 says how to authenticate: {told}"
            );
        }
        if [429, 503].contains(&status) {
            let seconds = headers
                .get("retry-after")
                .and_then(|value| value.to_str().ok());
            let seconds: Option<u64> = seconds.and_then(|value| value.parse().ok());
            assert!(
                seconds.is_some_and(|it| it >= 1),
                "it says when to retry: {told}"
            );
        }
        if status == 422 && body["error"]["code"] == "validation_error" {
            let details = body["error"]["details"].as_array();
            let details = details.unwrap_or_else(|| panic!("details is a list: {told}"));
            assert!(!details.is_empty(), "details says what is wrong: {told}");
            for detail in details {
                let keys: Vec<_> = detail
                    .as_object()
                    .into_iter()
                    .flat_map(|it| it.keys())
                    .collect();
                assert_eq!(keys, ["loc", "msg"], "a detail is where and what: {told}");
                assert!(detail["msg"].is_string(), "{told}");
            }
        }
        Self {
            status,
            headers,
            text,
            body,
        }
    }

    /// Insists on a success with this status and gives its `data`.
    #[track_caller]
    pub fn data(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text);
        &self.body["data"]
    }

    /// Insists on a failure with this status and code and gives its `error`.
    #[track_caller]
    pub fn error(&self, status: u16, code: &str) -> &Value {
        let found = self.body["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((self.status, found), (status, code), "{}", self.text);
        &self.body["error"]
    }

    /// Insists on a validation failure one of whose details is about this field.
    #[track_caller]
    pub fn invalid(&self, field: &str) {
        let error = self.error(422, "validation_error");
        let about = |detail: &Value| match &detail["loc"] {
            Value::String(loc) => loc.split('.').any(|part| part == field),
            Value::Array(loc) => loc.iter().any(|part| part == field),
            _ => false,
        };
        let details = error["details"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        assert!(
            details.iter().any(about),
            "nothing about {field}: {}",
            self.text
        );
    }

    /// A header as text, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
