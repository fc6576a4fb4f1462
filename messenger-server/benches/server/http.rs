//! HTTP/1.1 on connections that are kept, written by hand: what a client costs is taken from the
//! same cores that the server has.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// A connection on which one request is asked after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            answer: Vec::with_capacity(16 << 10),
        }
    }

    /// Sends a request and returns the status and the body of its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert!(read > 0, "the server has closed the connection");
            if let Some((status, body_at, end)) = extent(&self.answer)
                && self.answer.len() >= end
            {
                assert_eq!(self.answer.len(), end, "more than one answer");
                return (status, &self.answer[body_at..]);
            }
        }
    }

    /// Sends a request that must succeed and returns its `data`.
    pub(crate) async fn data(&mut self, request: &[u8]) -> Value {
        let (status, body) = self.ask(request).await;
        let mut answer: Value = serde_json::from_slice(body).unwrap();
        assert!((200..300).contains(&status), "{status} {answer}");
        answer["data"].take()
    }
}

/// Returns the status, and where the body begins and ends; `None` until the whole head is there.
fn extent(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let head_end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).unwrap();
    let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
    let length = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().parse().unwrap();
    Some((status, head_end + 4, head_end + 4 + length))
}

/// Returns a request without a body.
pub(crate) fn get(path: &str, token: &str) -> Vec<u8> {
    let authorization = authorization(token);
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{authorization}\r\n").into_bytes()
}

/// Returns a request with a JSON body.
pub(crate) fn post(path: &str, token: &str, body: &str) -> Vec<u8> {
    let (authorization, length) = (authorization(token), body.len());
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn authorization(token: &str) -> String {
    match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    }
}

/// Digits of the stamp that a message begins with.
const STAMP_DIGITS: usize = 20;
/// Length of a message.
const CONTENT_BYTES: usize = 200;

/// The request that sends a message, of which only the ids and the stamp are written anew.
pub(crate) struct SendRequest {
    bytes: Vec<u8>,
    id_at: usize,
    stamp_at: usize,
}

impl SendRequest {
    pub(crate) fn new(path: &str, token: &str) -> Self {
        let (id, content) = (Uuid::nil(), "0".repeat(CONTENT_BYTES));
        let body = format!(r#"{{"client_message_id":"{id}","content":"{content}"}}"#);
        let bytes = post(path, token, &body);
        let body_at = bytes.len() - body.len();
        Self {
            id_at: body_at + r#"{"client_message_id":""#.len(),
            stamp_at: bytes.len() - r#""}"#.len() - CONTENT_BYTES,
            bytes,
        }
    }

    /// Returns the request for one more message.
    pub(crate) fn next(&mut self, stamp: u64) -> &[u8] {
        let id = Uuid::now_v7().hyphenated();
        id.encode_lower(&mut self.bytes[self.id_at..]);
        write!(&mut self.bytes[self.stamp_at..], "{stamp:0STAMP_DIGITS$}").unwrap();
        &self.bytes
    }
}

/// Returns the stamp of a message.
pub(crate) fn stamp(content: &str) -> u64 {
    content[..STAMP_DIGITS].parse().unwrap()
}

/// Returns the `seq` that the answer to a send has.
pub(crate) fn seq(answer: &[u8]) -> u64 {
    let answer = std::str::from_utf8(answer).unwrap();
    let (_, rest) = answer.split_once(r#""seq":"#).unwrap();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    rest[..digits].parse().unwrap()
}
