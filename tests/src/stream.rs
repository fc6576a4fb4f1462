//! An event stream of the server, as a client sees it.

use serde_json::Value;

use crate::{Http, soon};

/// A stream of server-sent events that has been answered with 200.
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    received: String,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamEvent {
    /// The field `event`.
    pub kind: String,
    /// The field `id`, if there was one, perhaps empty.
    pub id: Option<String>,
    /// The field `data`, as JSON.
    pub data: Value,
    /// The field `retry`, in milliseconds.
    pub retry: Option<u64>,
}

impl EventStream {
    /// Opens a stream; `last_event_id` is the header.
    pub async fn open(http: &Http, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = http.request(reqwest::Method::GET, path);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = http.bare(request).await;
        assert_eq!(response.status(), 200, "{path}");
        let content_type = response.headers()["content-type"].to_str();
        assert_eq!(content_type.ok(), Some("text/event-stream"));
        Self {
            response,
            received: String::new(),
        }
    }

    /// The next event that has data; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        let mut retry = None;
        loop {
            while let Some((event, rest)) = self.received.split_once("\n\n") {
                let mut event = parsed(event);
                self.received = rest.to_owned();
                retry = event.retry.or(retry);
                if event.data != Value::Null {
                    event.retry = retry;
                    return Some(event);
                }
            }
            let chunk = soon("a chunk of a stream", self.response.chunk()).await;
            let chunk = chunk.ok().flatten()?;
            self.received += std::str::from_utf8(&chunk).expect("a chunk is text");
        }
    }

    /// The next event, which must come.
    pub async fn expect(&mut self, kind: &str) -> StreamEvent {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.kind, kind, "{event:?}");
        assert_eq!(event.data["type"], kind);
        event
    }
}

fn parsed(text: &str) -> StreamEvent {
    let mut event = StreamEvent::default();
    for line in text.lines() {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "event" => event.kind = value.to_owned(),
            "id" => event.id = Some(value.to_owned()),
            "data" => event.data = serde_json::from_str(value).expect("data is JSON"),
            "retry" => event.retry = value.parse().ok(),
            _ => panic!("an unknown field: {line}"),
        }
    }
    event
}
