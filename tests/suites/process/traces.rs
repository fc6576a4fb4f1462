//! Traces, as a collector receives them.

use std::sync::Arc;

use serde_json::json;
use tests::{DatabaseKind, Home, World, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify};

/// A collector that keeps what it is sent, as it came.
#[derive(Clone, Default)]
struct Collector {
    received: Arc<Mutex<Vec<u8>>>,
    more: Arc<Notify>,
}

impl Collector {
    /// Starts one, and returns its address.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let accepting = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().converse(stream));
            }
        });
        (collector, address)
    }

    async fn converse(self, mut stream: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        let mut request = Vec::new();
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            request.extend_from_slice(&buffer[..count]);
            let Some(head) = find(&request, b"\r\n\r\n") else {
                continue;
            };
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |it| it.parse().unwrap());
            if request.len() < head + 4 + length {
                continue;
            }
            self.received.lock().await.append(&mut request);
            self.more.notify_waiters();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    /// Waits until it was sent this.
    async fn receives(&self, part: &[u8]) {
        let received = async {
            loop {
                let more = self.more.notified();
                if find(&self.received.lock().await, part).is_some() {
                    return;
                }
                more.await;
            }
        };
        let what = format!("the collector to be sent {}", String::from_utf8_lossy(part));
        soon(&what, received).await;
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[tokio::test]
async fn a_request_is_a_span_of_its_callers_trace_and_tells_nothing_of_people() {
    let (collector, address) = Collector::start().await;
    let mut home = Home::new(DatabaseKind::Sqlite).await;
    home.set("OTEL_EXPORTER_OTLP_ENDPOINT", &address);
    // Sent at once, and not every five seconds.
    home.set("OTEL_BSP_SCHEDULE_DELAY", "50");
    let world = World::at(home).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    let trace: [u8; 16] = *b"a trace of alice";
    let hex: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();

    let path = format!("/v1/conversations/{conversation}/messages");
    let request = alice.http.request(reqwest::Method::POST, &path);
    let body = json!({"client_message_id": "client-message-1", "content": "between us"});
    let request = request
        .header("traceparent", format!("00-{hex}-00f067aa0ba902b7-01"))
        .header("x-request-id", "asked-by-alice")
        .json(&body);
    alice.http.send(request).await.data(201);

    collector.receives(&trace).await;
    let route = "POST /v1/conversations/{conversation_id}/messages";
    for part in [route, "http.route", "asked-by-alice", "messenger-server"] {
        collector.receives(part.as_bytes()).await;
    }
    for span in ["write", "batch", "commit"] {
        collector.receives(span.as_bytes()).await;
    }
    world.server.signal("TERM");
    assert_eq!(world.server.end().await.code(), Some(0));
    let received = collector.received.lock().await;
    assert!(find(&received, b"POST /v1/traces HTTP/1.1").is_some());
    let secrets = [
        conversation.as_str(),
        "between us",
        &alice.access_token,
        &alice.id,
    ];
    for secret in secrets {
        assert_eq!(find(&received, secret.as_bytes()), None, "{secret}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nobody_up() {
    let mut home = Home::new(DatabaseKind::Sqlite).await;
    home.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let world = World::at(home).await;

    let (alice, _, conversation) = world.alice_and_bob().await;
    alice.send(&conversation, "hello").await;

    world.server.signal("TERM");
    assert_eq!(world.server.end().await.code(), Some(0));
}
