//! WebSockets that listen.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Bytes that a socket of the generator keeps to read; the default is far too much for thousands.
const READ_BUFFER_BYTES: usize = 1 << 10;

/// An open WebSocket that is subscribed to all conversations of its user.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Opens a socket; `None` if the system has no more connections to give.
    pub(crate) async fn open(address: SocketAddr, token: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://{address}/v1/ws")
            .into_client_request()
            .unwrap();
        let authorization = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", authorization);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (stream, _) = client_async_with_config(request, stream, Some(config))
            .await
            .unwrap();
        let mut socket = Self { stream };
        assert_eq!(socket.next().await["type"], "connection.welcome");
        let subscribe = Message::text(r#"{"op":"subscribe","all":true}"#);
        socket.stream.send(subscribe).await.unwrap();
        let answer = socket.next().await;
        assert_eq!(
            (&answer["type"], &answer["ok"]),
            (&"ack".into(), &true.into())
        );
        Some(socket)
    }

    /// Returns the next frame.
    pub(crate) async fn next(&mut self) -> Value {
        let frame = self.stream.next().await.unwrap().unwrap();
        serde_json::from_str(frame.to_text().unwrap()).unwrap()
    }

    /// Returns the next message that somebody sent.
    pub(crate) async fn next_message(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == "message.created" {
                return frame;
            }
        }
    }
}
