//! What an answer means to whoever waits for it. Between a client and its server there are also
//! proxies, and hotels that answer everything with their own page.

use serde_json::Value;

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// It took place: the `data`.
    Done(Value),
    /// It did not, and never will: the `error`.
    Refused(Value),
    /// The token is no longer valid: get another one, and ask again.
    Unauthenticated,
    /// The server failed at it. Ask again, but not for ever.
    Failed,
    /// Not now, or this was not the server: ask again.
    Later,
}

impl Reply {
    /// Reads an answer.
    pub(crate) fn of(status: u16, body: &[u8]) -> Self {
        let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
        match status {
            200..300 if body.get("data").is_some() => Self::Done(body["data"].take()),
            401 => Self::Unauthenticated,
            408 | 425 | 429 => Self::Later,
            400..500 if body["error"]["code"].is_string() => Self::Refused(body["error"].take()),
            500 => Self::Failed,
            _ => Self::Later,
        }
    }
}
