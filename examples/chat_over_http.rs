//! A small client of a running server: logs in, opens a conversation, sends, prints live messages.
//!
//! Start a server (`cargo run --release`), then in two terminals:
//!
//! ```text
//! cargo run -p messenger-server --example chat_over_http -- http://127.0.0.1:8000 alice bob
//! cargo run -p messenger-server --example chat_over_http -- http://127.0.0.1:8000 bob alice
//! ```
//!
//! What you type is sent; what is sent to you is printed. It registers you at the first start, and
//! waits until the other person has registered. Ends with the input.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use uuid::Uuid;

const PASSWORD: &str = "correct horse battery staple";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, me, other] = arguments.as_slice() else {
        bail!("usage: chat_over_http URL YOUR-NAME THEIR-NAME");
    };
    let http = Client::new();

    // Log in, or register at the first start.
    let account = json!({"username": me, "password": PASSWORD});
    let mut answer = http
        .post(format!("{server}/v1/auth/login"))
        .json(&account)
        .send()
        .await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        answer = http
            .post(format!("{server}/v1/auth/register"))
            .json(&account)
            .send()
            .await?;
    }
    let login = data(answer).await?;
    let token = login["tokens"]["access_token"]
        .as_str()
        .context("no token")?;

    // Find the other person.
    let other = loop {
        let search = http
            .get(format!("{server}/v1/users/search?query={other}"))
            .bearer_auth(token);
        let found = data(search.send().await?).await?;
        let users = found["users"].as_array().cloned().unwrap_or_default();
        match users
            .into_iter()
            .find(|user| user["username"] == json!(other))
        {
            Some(user) => break user["id"].clone(),
            None => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let open = http
        .post(format!("{server}/v1/conversations/direct"))
        .bearer_auth(token);
    let conversation = data(open.json(&json!({"other_user_id": other})).send().await?).await?;
    let id = conversation["id"].as_str().context("no id")?;
    let messages = format!("{server}/v1/conversations/{id}/messages");

    // Listen first, and then read what was sent before: nothing falls between the two.
    let mut request =
        format!("{}/v1/ws", server.replacen("http", "ws", 1)).into_client_request()?;
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {token}").parse()?);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
    let subscribe = json!({"op": "subscribe", "conversation_ids": [id]}).to_string();
    socket.send(Message::text(subscribe)).await?;
    loop {
        let frame = socket.next().await.context("the server has hung up")??;
        if frame.is_text() && serde_json::from_str::<Value>(frame.to_text()?)?["type"] == "ack" {
            break;
        }
    }
    let mut seen = 0;
    loop {
        let page = http
            .get(format!("{messages}?after_seq={seen}&limit=100"))
            .bearer_auth(token);
        let page = data(page.send().await?).await?;
        let page = page["messages"].as_array().cloned().unwrap_or_default();
        if page.is_empty() {
            break;
        }
        for message in page {
            seen = message["seq"].as_i64().context("no seq")?;
            println!(
                "{seen} {}: {}",
                name(&conversation, &message["sender_id"]),
                text(&message)
            );
        }
    }

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut heartbeat = tokio::time::interval(Duration::from_secs(25));
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                // One id for each message, not for each attempt: to send again is safe.
                let message = json!({"client_message_id": Uuid::now_v7(), "content": line});
                data(http.post(&messages).bearer_auth(token).json(&message).send().await?).await?;
            }
            frame = socket.next() => {
                let frame = frame.context("the server has hung up")??;
                if !frame.is_text() {
                    continue;
                }
                let frame: Value = serde_json::from_str(frame.to_text()?)?;
                let seq = frame["seq"].as_i64().unwrap_or_default();
                if frame["type"] == "message.created" && seq > seen {
                    seen = seq;
                    let message = &frame["payload"];
                    println!("{seq} {}: {}", name(&conversation, &message["sender_id"]), text(message));
                }
            }
            _ = heartbeat.tick() => socket.send(Message::text(r#"{"op":"ping"}"#)).await?,
        }
    }
}

/// What a member of a conversation is called.
fn name<'a>(conversation: &'a Value, id: &Value) -> &'a str {
    let members = conversation["members"].as_array();
    let member = members.and_then(|members| members.iter().find(|member| member["id"] == *id));
    member
        .and_then(|member| member["display_name"].as_str())
        .unwrap_or("somebody")
}

fn text(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

/// The data of an answer, or its error.
async fn data(answer: Response) -> anyhow::Result<Value> {
    let status = answer.status();
    let mut body: Value = answer.json().await?;
    if !status.is_success() {
        bail!(
            "{status}: {} ({})",
            body["error"]["message"],
            body["error"]["code"]
        );
    }
    Ok(body["data"].take())
}
