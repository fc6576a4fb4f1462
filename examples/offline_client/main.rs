//! A client that works without the server: it shows what it has, takes what you write, and brings
//! both sides together when it can.
//!
//! Start a server (`cargo run --release`), then in two terminals:
//!
//! ```text
//! cargo run -p messenger-server --example offline_client -- http://127.0.0.1:8000 alice bob alice.db
//! cargo run -p messenger-server --example offline_client -- http://127.0.0.1:8000 bob alice bob.db
//! ```
//!
//! What you type is sent, when it can be; what is sent to you is printed. Stop the server, type, and
//! start it again. It registers you at the first start, for which it needs the server. Ends with the
//! input.
//!
//! `replica.rs` is what it keeps, `reply.rs` what an answer means; here is how it speaks to the
//! server.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "replica.rs"]
mod replica;
#[path = "reply.rs"]
mod reply;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use uuid::Uuid;

use self::replica::{Next, Replica, Write};
use self::reply::Reply;

const PASSWORD: &str = "correct horse battery staple";

/// Rows of a page, and new messages of one conversation.
const PAGE: (u32, u32) = (200, 50);

/// The pauses between attempts to reach the server.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A client, and how far it has come.
struct OfflineClient {
    server: String,
    name: String,
    /// The person's id.
    me: String,
    http: Client,
    token: String,
    replica: Replica,
    /// The conversation that is shown, and the last message that was printed.
    conversation: String,
    printed: i64,
    /// How far the other person was said to have read.
    read: i64,
    lines: Lines<BufReader<Stdin>>,
}

/// Why the client is not connected any more.
enum End {
    /// There is no more input.
    Input,
    /// The server can not be reached, or has refused for now.
    Offline,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, me, other, file] = arguments.as_slice() else {
        bail!("usage: offline_client URL YOUR-NAME THEIR-NAME FILE");
    };
    let http = Client::new();
    // Who one is and with whom one talks is asked at every start, until it is known here.
    let known = format!("{file}.who");
    let who = match std::fs::read_to_string(&known) {
        Ok(who) => serde_json::from_str(&who)?,
        Err(_) => {
            let who = introduce(&http, server, me, other).await?;
            std::fs::write(&known, who.to_string())?;
            who
        }
    };
    let text = |field: &str| who[field].as_str().unwrap_or_default().to_owned();
    let mut client = OfflineClient {
        server: server.clone(),
        name: me.clone(),
        me: text("me"),
        http,
        token: String::new(),
        replica: Replica::open(Path::new(file), &text("me")).await?,
        conversation: text("conversation"),
        printed: 0,
        read: 0,
        lines: BufReader::new(tokio::io::stdin()).lines(),
    };
    client.print().await?;
    client.run().await
}

/// Registers if need be, finds the other person and opens the conversation.
async fn introduce(http: &Client, server: &str, me: &str, other: &str) -> anyhow::Result<Value> {
    let account = json!({"username": me, "password": PASSWORD});
    let register = http.post(format!("{server}/v1/auth/register"));
    // Somebody who is registered already is told so, and logs in.
    register.json(&account).send().await?;
    let login = log_in(http, server, me).await?;
    let token = login["tokens"]["access_token"]
        .as_str()
        .context("no token")?;
    let other = loop {
        let search = http
            .get(format!("{server}/v1/users/search?query={other}"))
            .bearer_auth(token);
        let found = data(search.send().await?).await?;
        let users = found["users"].as_array().cloned().unwrap_or_default();
        match users.into_iter().find(|user| user["username"] == *other) {
            Some(user) => break user["id"].clone(),
            None => sleep(PAUSE_MIN).await,
        }
    };
    let open = http
        .post(format!("{server}/v1/conversations/direct"))
        .bearer_auth(token);
    let conversation = data(open.json(&json!({"other_user_id": other})).send().await?).await?;
    Ok(json!({"me": login["user"]["id"], "conversation": conversation["id"]}))
}

async fn log_in(http: &Client, server: &str, name: &str) -> anyhow::Result<Value> {
    let account = json!({"username": name, "password": PASSWORD});
    let login = http.post(format!("{server}/v1/auth/login"));
    data(login.json(&account).send().await?).await
}

impl OfflineClient {
    /// Is connected whenever it can be, until the input ends.
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.connected(&mut pause).await {
                Ok(End::Input) => return Ok(()),
                Ok(End::Offline) => {}
                Err(error) if error.is::<reqwest::Error>() => {}
                Err(error) => return Err(error),
            }
            // Away from the server there still is a person who types.
            let wait = sleep(pause);
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    line = self.lines.next_line() => {
                        let Some(line) = line? else { return Ok(()) };
                        self.write(&line).await?;
                        println!("waits: {line}");
                    }
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Empties the outbox, catches up, and follows what happens.
    async fn connected(&mut self, pause: &mut Duration) -> anyhow::Result<End> {
        let login = log_in(&self.http, &self.server, &self.name).await?;
        let token = login["tokens"]["access_token"]
            .as_str()
            .context("no token")?;
        token.clone_into(&mut self.token);
        if !self.send().await? || !self.catch_up().await? {
            return Ok(End::Offline);
        }
        let mut request =
            format!("{}/v1/ws", self.server.replacen("http", "ws", 1)).into_client_request()?;
        let bearer = format!("Bearer {}", self.token).parse()?;
        request.headers_mut().insert("authorization", bearer);
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(request).await else {
            return Ok(End::Offline);
        };
        let resume = self.replica.resume(PAGE.0, PAGE.1).await?.to_string();
        if socket.send(Message::text(resume)).await.is_err() {
            return Ok(End::Offline);
        }
        *pause = PAUSE_MIN;
        let mut heartbeat = interval(Duration::from_secs(25));
        loop {
            tokio::select! {
                frame = socket.next() => {
                    let Some(Ok(frame)) = frame else { return Ok(End::Offline) };
                    let Ok(text) = frame.to_text() else { continue };
                    let frame = serde_json::from_str(text).unwrap_or_default();
                    match self.replica.take_frame(&frame).await? {
                        Some(Next::BeginAgain) => {
                            let wait = frame["retry_after_ms"].as_u64().unwrap_or_default();
                            *pause = Duration::from_millis(wait).max(PAUSE_MIN);
                            return Ok(End::Offline);
                        }
                        Some(Next::UpToDate | Next::More) => self.show().await?,
                        None => {}
                    }
                }
                line = self.lines.next_line() => {
                    let Some(line) = line? else { return Ok(End::Input) };
                    self.write(&line).await?;
                    if !self.send().await? {
                        println!("waits: {line}");
                        return Ok(End::Offline);
                    }
                }
                _ = heartbeat.tick() => {
                    if socket.send(Message::text(r#"{"op":"ping"}"#)).await.is_err() {
                        return Ok(End::Offline);
                    }
                }
            }
        }
    }

    /// Fetches what was missed, page by page. Tells whether nothing is missing now.
    async fn catch_up(&mut self) -> anyhow::Result<bool> {
        loop {
            let page = self.replica.next_page(PAGE.0, PAGE.1).await?;
            let page = self.http.get(format!("{}{page}", self.server));
            let Ok(answer) = page.bearer_auth(&self.token).send().await else {
                return Ok(false);
            };
            if answer.status() == StatusCode::GONE {
                self.replica.begin_again().await?;
                continue;
            }
            if self.replica.take_page(&data(answer).await?).await? == Next::UpToDate {
                self.show().await?;
                return Ok(true);
            }
        }
    }

    /// Shows what is new, and says what was read.
    async fn show(&mut self) -> anyhow::Result<()> {
        self.fill().await?;
        let before = self.printed;
        self.print().await?;
        if self.printed > before && self.unread().await? > 0 {
            let path = format!("/v1/conversations/{}/read", self.conversation);
            let (id, body) = (Uuid::now_v7().to_string(), json!({"seq": self.printed}));
            self.replica.write(&id, "PUT", &path, &body).await?;
            self.send().await?;
        }
        let reads = self.replica.reads(&self.conversation).await?;
        let of_other = reads.iter().find(|read| read["user_id"] != *self.me);
        let read = of_other.and_then(|read| read["last_read_seq"].as_i64());
        if read > Some(self.read) {
            self.read = read.unwrap_or_default();
            println!("read up to {}", self.read);
        }
        Ok(())
    }

    /// How many messages of the conversation its person has not read.
    async fn unread(&mut self) -> anyhow::Result<i64> {
        let conversations = self.replica.conversations().await?;
        let this = conversations
            .iter()
            .find(|it| it["id"] == *self.conversation);
        let unread = this.and_then(|it| it["unread_count"].as_i64());
        Ok(unread.unwrap_or_default())
    }

    /// Keeps what was typed. From here on it is sent, once, whatever happens.
    async fn write(&mut self, line: &str) -> anyhow::Result<()> {
        let path = format!("/v1/conversations/{}/messages", self.conversation);
        let id = Uuid::now_v7().to_string();
        let body = json!({"client_message_id": id, "content": line});
        self.replica.write(&id, "POST", &path, &body).await?;
        Ok(())
    }

    /// Sends what waits in the outbox, in its order. Tells whether all of it could be sent.
    async fn send(&mut self) -> anyhow::Result<bool> {
        while let Some(write) = self.replica.next_write().await? {
            let Write {
                key,
                method,
                path,
                body,
                ..
            } = &write;
            let request = self
                .http
                .request(method.parse::<Method>()?, format!("{}{path}", self.server))
                .bearer_auth(&self.token)
                .header("Idempotency-Key", key)
                .json(body);
            match reply(request).await {
                Reply::Done(data) => self.replica.confirmed(&write, &data).await?,
                Reply::Refused(error) => {
                    println!("refused: {body}: {}", error["message"]);
                    self.replica.refused(&write).await?;
                }
                Reply::Failed if self.replica.failed(&write).await? => {
                    println!("kept for later: {body}");
                }
                Reply::Unauthenticated | Reply::Failed | Reply::Later => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Reads what is missing of the conversation that is shown.
    async fn fill(&mut self) -> anyhow::Result<()> {
        for hole in self.replica.holes().await? {
            if hole.conversation != self.conversation {
                continue;
            }
            let (after, before) = (hole.from_seq - 1, hole.to_seq + 1);
            let path = format!(
                "{}/v1/conversations/{}/messages?after_seq={after}&before_seq={before}&limit=100",
                self.server, hole.conversation,
            );
            let history = data(self.http.get(path).bearer_auth(&self.token).send().await?).await?;
            self.replica
                .take_history(&hole.conversation, &history)
                .await?;
        }
        Ok(())
    }

    /// Prints the messages that were not printed yet, up to the first that is missing.
    async fn print(&mut self) -> anyhow::Result<()> {
        let holes = self.replica.holes().await?;
        let of_this = holes
            .iter()
            .filter(|it| it.conversation == self.conversation);
        let missing = of_this.map(|hole| hole.from_seq).min().unwrap_or(i64::MAX);
        let messages = self.replica.messages(&self.conversation, self.printed);
        for message in messages.await? {
            let seq = message["seq"].as_i64().unwrap_or_default();
            if seq >= missing {
                break;
            }
            self.printed = seq;
            let sender = message["sender_id"].as_str().unwrap_or_default();
            let sender = self.replica.find_user(sender).await?.unwrap_or_default();
            let name = sender["display_name"].as_str().unwrap_or("somebody");
            println!(
                "{seq} {name}: {}",
                message["content"].as_str().unwrap_or_default()
            );
        }
        Ok(())
    }
}

/// What comes of a request. No answer at all is as good as one that says "later".
async fn reply(request: RequestBuilder) -> Reply {
    let answer = async {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        reqwest::Result::Ok(Reply::of(status, &answer.bytes().await?))
    };
    answer.await.unwrap_or(Reply::Later)
}

/// The data of an answer, or its error.
async fn data(answer: Response) -> anyhow::Result<Value> {
    let status = answer.status();
    let mut body: Value = answer.json().await?;
    if !status.is_success() {
        bail!("{status}: {}", body["error"]["message"]);
    }
    Ok(body["data"].take())
}
