//! A WebSocket of the server, as a client sees it.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        http::{HeaderName, HeaderValue},
    },
};

use crate::{PATIENCE, soon, within};

/// An open socket that has been welcomed.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The first frame.
    pub welcome: Value,
}

/// How a socket ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// The code of the close frame, if one came.
    pub code: Option<u16>,
    /// The frames that came before it.
    pub frames: Vec<Value>,
}

/// Why no socket was opened: refused by HTTP, or closed in place of a welcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The handshake was answered with this status and body.
    Handshake(u16, String),
    /// It was opened, then closed with this code and no welcome.
    Closed(Option<u16>),
}

impl Socket {
    /// Opens a socket and reads its welcome.
    pub async fn open(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refusal> {
        let tcp = TcpStream::connect(address)
            .await
            .expect("the server listens");
        Self::on(tcp, address, path, headers).await
    }

    /// Opens a socket whose kernel takes in next to nothing that is not read.
    pub async fn open_narrow(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refusal> {
        let tcp = TcpSocket::new_v4().expect("a socket can be made");
        tcp.set_recv_buffer_size(4096)
            .expect("a buffer can be small");
        let tcp = tcp.connect(address).await.expect("the server listens");
        Self::on(tcp, address, path, headers).await
    }

    async fn on(
        tcp: TcpStream,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refusal> {
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .expect("a path makes a request");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header has a name");
            let value = HeaderValue::from_str(value).expect("a header has a value");
            request.headers_mut().insert(name, value);
        }
        let stream = match soon("the handshake", client_async(request, tcp)).await {
            Ok((stream, _)) => stream,
            Err(Error::Http(response)) => {
                let status = response.status().as_u16();
                let body = response.into_body().unwrap_or_default();
                return Err(Refusal::Handshake(
                    status,
                    String::from_utf8_lossy(&body).into_owned(),
                ));
            }
            Err(error) => panic!("the handshake failed: {error}"),
        };
        let mut socket = Self {
            stream,
            welcome: Value::Null,
        };
        match socket.next(PATIENCE).await {
            Ok(welcome) if welcome["type"] == "connection.welcome" => {
                socket.welcome = welcome;
                Ok(socket)
            }
            // A refusal may tell its reason before it closes.
            Ok(frame) if frame["type"] == "error" => {
                Err(Refusal::Closed(socket.closed().await.code))
            }
            Ok(frame) => panic!("the first frame is no welcome: {frame}"),
            Err(code) => Err(Refusal::Closed(code)),
        }
    }

    /// The next frame, or the code with which the socket was closed in place of one.
    async fn next(&mut self, limit: Duration) -> Result<Value, Option<u16>> {
        loop {
            match within(limit, "a frame", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str::<Value>(&text);
                    return Ok(frame.unwrap_or_else(|_| panic!("a frame is JSON: {text}")));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|it| it.code.into())),
                Some(Ok(frame)) => panic!("an unexpected frame: {frame:?}"),
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    ///
    /// When none comes within [`PATIENCE`], or the socket is closed.
    pub async fn next_json(&mut self) -> Value {
        match self.next(PATIENCE).await {
            Ok(frame) => frame,
            Err(code) => panic!("closed with {code:?} in place of a frame"),
        }
    }

    /// The next two frames, which must be the two events of one message: first what
    /// `message.created` says, then what `conversation.updated` says.
    pub async fn next_message(&mut self) -> (Value, Value) {
        let events = [self.next_json().await, self.next_json().await];
        let find = |kind: &str| {
            let event = events.iter().find(|event| event["type"] == kind);
            event
                .unwrap_or_else(|| panic!("no {kind} among {events:?}"))
                .clone()
        };
        let (created, updated) = (find("message.created"), find("conversation.updated"));
        assert_eq!(
            created["conversation_id"], updated["conversation_id"],
            "{events:?}"
        );
        assert_eq!(created["seq"], updated["seq"], "{events:?}");
        (created, updated)
    }

    /// The next frame, which must announce a conversation that somebody has just opened.
    pub async fn next_announcement(&mut self) -> Value {
        let frame = self.next_json().await;
        assert_eq!(frame["type"], "conversation.updated", "{frame}");
        assert_eq!(frame["seq"], 0, "{frame}");
        frame
    }

    /// Reads on until the server closes.
    ///
    /// # Panics
    ///
    /// When it does not within [`PATIENCE`] of the last frame.
    pub async fn closed(&mut self) -> Closed {
        let mut frames = Vec::new();
        loop {
            match self.next(PATIENCE).await {
                Ok(frame) => frames.push(frame),
                Err(code) => return Closed { code, frames },
            }
        }
    }

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: &str) {
        let sent = self.stream.send(Message::text(text)).await;
        sent.expect("an open socket takes a frame");
    }

    /// Sends a text frame on a socket that the server may be closing. Tells whether it went out.
    pub async fn try_send_text(&mut self, text: &str) -> bool {
        self.stream.send(Message::text(text)).await.is_ok()
    }

    /// The next frame of whatever kind, those of the protocol itself included.
    pub async fn next_frame(&mut self) -> Message {
        match soon("a frame", self.stream.next()).await {
            Some(Ok(frame)) => frame,
            other => panic!("no frame: {other:?}"),
        }
    }

    /// Sends JSON in a text frame.
    pub async fn send_json(&mut self, command: &Value) {
        self.send_text(&command.to_string()).await;
    }

    /// Sends any frame.
    pub async fn send_frame(&mut self, frame: Message) {
        self.stream
            .send(frame)
            .await
            .expect("an open socket takes a frame");
    }

    /// Sends a command and gives the next frame.
    pub async fn ask(&mut self, command: &Value) -> Value {
        self.send_json(command).await;
        self.next_json().await
    }

    /// Sends a command that must be refused with this code.
    pub async fn refused(&mut self, command: &Value, code: &str) -> Value {
        let answer = self.ask(command).await;
        assert_refusal(&answer, code);
        answer
    }

    /// Sends text that must be refused with this code.
    pub async fn refused_text(&mut self, text: &str, code: &str) {
        self.send_text(text).await;
        assert_refusal(&self.next_json().await, code);
    }

    /// Subscribes to conversations and insists on the acknowledgement.
    pub async fn subscribe(&mut self, conversations: &[&str]) {
        let answer = self
            .ask(&json!({"op": "subscribe", "conversation_ids": conversations}))
            .await;
        assert_eq!(
            (&answer["type"], &answer["ok"]),
            (&json!("ack"), &json!(true)),
            "{answer}"
        );
    }

    /// Takes subscriptions back and insists on the acknowledgement.
    pub async fn unsubscribe(&mut self, conversations: &[&str]) {
        let answer = self
            .ask(&json!({"op": "unsubscribe", "conversation_ids": conversations}))
            .await;
        assert_eq!(
            (&answer["type"], &answer["ok"]),
            (&json!("ack"), &json!(true)),
            "{answer}"
        );
    }

    /// Insists that the marker is the next frame that comes: everything that was to come before it
    /// has had its chance, and did not come.
    ///
    /// Events of one socket come in the order in which they happened, so an event that happened
    /// later, in a conversation that is listened to, is a marker for all that happened before.
    pub async fn expect_quiet_until(&mut self, marker: impl Fn(&Value) -> bool) {
        let frame = self.next_json().await;
        assert!(
            marker(&frame),
            "something came where nothing should: {frame}"
        );
    }

    /// Insists that the socket still answers, and that nothing else is on its way.
    pub async fn expect_pong(&mut self) {
        let answer = self.ask(&json!({"op": "ping", "ts": 7})).await;
        assert_eq!(answer, json!({"type": "pong", "ts": 7}));
    }
}

#[track_caller]
fn assert_refusal(answer: &Value, code: &str) {
    assert_eq!(answer["type"], "error", "{answer}");
    assert_eq!(answer["error"]["code"], code, "{answer}");
    assert!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|it| !it.is_empty()),
        "{answer}"
    );
}
