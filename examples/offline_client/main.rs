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
//! `replica.rs` is what it keeps, `server.rs` how it speaks to the server, `reply.rs` what an answer
//! means; here is what it does when.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "replica.rs"]
mod replica;
#[path = "reply.rs"]
mod reply;
#[path = "server.rs"]
mod server;

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::time::{Instant, interval, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use self::replica::{Hole, Next, Replica, Write};
use self::reply::Reply;
use self::server::{Offline, Server};

const PASSWORD: &str = "correct horse battery staple";

/// Rows of a page, and new messages of one conversation.
const PAGE: (u32, u32) = (200, 50);

/// The pauses between attempts to reach the server.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often to show that one is there, unless the welcome says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// A client, and how far it has come.
struct OfflineClient {
    server: Server,
    replica: Replica,
    /// The person's id.
    me: String,
    /// The conversation that is shown, and the last message that was printed.
    conversation: String,
    printed: i64,
    /// How far the other person was said to have read.
    read: i64,
    lines: Lines<BufReader<Stdin>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, me, other, file] = arguments.as_slice() else {
        bail!("usage: offline_client URL YOUR-NAME THEIR-NAME FILE");
    };
    let mut server = Server::new(url, me, PASSWORD, format!("{file}.tokens").into());
    // Who one is and with whom one talks is asked at every start, until it is known here.
    let known = format!("{file}.who");
    let who: Value = match std::fs::read_to_string(&known) {
        Ok(who) => serde_json::from_str(&who)?,
        Err(_) => {
            let who = introduced(&mut server, other).await?;
            std::fs::write(&known, who.to_string())?;
            who
        }
    };
    let text = |field: &str| who[field].as_str().unwrap_or_default().to_owned();
    let mut client = OfflineClient {
        server,
        replica: Replica::open(Path::new(file), &text("me")).await?,
        me: text("me"),
        conversation: text("conversation"),
        printed: 0,
        read: 0,
        lines: BufReader::new(tokio::io::stdin()).lines(),
    };
    client.print().await?;
    client.run().await
}

/// Introduces the person as soon as that can be done.
async fn introduced(server: &mut Server, other: &str) -> anyhow::Result<Value> {
    let mut pause = PAUSE_MIN;
    loop {
        match introduce(server, other).await {
            Ok(who) => return Ok(who),
            Err(error) => {
                let Offline(wait) = error.downcast()?;
                sleep(pause.max(wait)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Registers if need be, finds the other person and opens the conversation.
async fn introduce(server: &mut Server, other: &str) -> anyhow::Result<Value> {
    server.register().await?;
    let me = done(server.get("/v1/users/me").await?)?;
    let found = done(
        server
            .get(&format!("/v1/users/search?query={other}"))
            .await?,
    )?;
    let mut users = found["users"].as_array().into_iter().flatten();
    // Perhaps they come later.
    let other = users
        .find(|user| user["username"] == *other)
        .ok_or_else(Offline::default)?;
    let open = Write {
        id: 0,
        key: Uuid::now_v7().to_string(),
        method: "POST".to_owned(),
        path: "/v1/conversations/direct".to_owned(),
        body: json!({"other_user_id": other["id"]}),
    };
    let conversation = done(server.send(&open).await?)?;
    Ok(json!({"me": me["id"], "conversation": conversation["id"]}))
}

impl OfflineClient {
    /// Is connected whenever it can be, until the input ends.
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut pause = PAUSE_MIN;
        loop {
            let Err(error) = self.connected(&mut pause).await else {
                return Ok(());
            };
            let Offline(wait) = error.downcast()?;
            // Away from the server there still is a person who types.
            let wait = sleep(pause.max(wait));
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

    /// Catches up, empties the outbox, and follows what happens until the input ends.
    async fn connected(&mut self, pause: &mut Duration) -> anyhow::Result<()> {
        self.catch_up().await?;
        self.send().await?;
        let mut socket = self.server.socket().await?;
        let resume = self.replica.resume(PAGE.0, PAGE.1).await?.to_string();
        say(socket.send(Message::text(resume)).await)?;
        let (mut beat, mut heard) = (HEARTBEAT, Instant::now());
        let mut heartbeat = interval(beat);
        loop {
            tokio::select! {
                // A line may be dead without an end: every ping has an answer, so silence shows it.
                frame = timeout_at(heard + 2 * beat, socket.next()) => {
                    let Ok(Some(Ok(frame))) = frame else { bail!(Offline::default()) };
                    heard = Instant::now();
                    let Ok(text) = frame.to_text() else { continue };
                    let frame: Value = serde_json::from_str(text).unwrap_or_default();
                    match frame["type"].as_str() {
                        Some("sync.live") => *pause = PAUSE_MIN,
                        Some("connection.welcome") => {
                            let wanted = frame["heartbeat_sec"].as_u64();
                            beat = wanted.map_or(HEARTBEAT, Duration::from_secs);
                            heartbeat = interval(beat.max(PAUSE_MIN));
                        }
                        _ => {}
                    }
                    match self.replica.take_frame(&frame).await? {
                        Some(Next::UpToDate) => self.show().await?,
                        Some(Next::BeginAgain) => return Err(self.anew(&frame).into()),
                        Some(Next::AskAgain) => bail!(Offline::default()),
                        Some(Next::More) | None => {}
                    }
                }
                line = self.lines.next_line() => {
                    let Some(line) = line? else { return Ok(()) };
                    self.write(&line).await?;
                    if let Err(error) = self.send().await {
                        println!("waits: {line}");
                        return Err(error);
                    }
                }
                _ = heartbeat.tick() => {
                    say(socket.send(Message::text(r#"{"op":"ping"}"#)).await)?;
                }
            }
        }
    }

    /// Fetches what was missed, page by page.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        loop {
            let page = self.replica.next_page(PAGE.0, PAGE.1).await?;
            match self.server.get(&page).await? {
                Reply::Done(page) => {
                    if self.replica.take_page(&page).await? == Next::UpToDate {
                        return self.show().await;
                    }
                }
                Reply::Refused(error) if error["code"] == "resync_required" => {
                    self.replica.begin_again().await?;
                    return Err(self.anew(&error["details"]).into());
                }
                _ => bail!(Offline::default()),
            }
        }
    }

    /// Forgets what was shown of a history that is no more, and tells how long to wait.
    fn anew(&mut self, reset: &Value) -> Offline {
        (self.printed, self.read) = (0, 0);
        let wait = reset["retry_after_ms"].as_u64();
        Offline(Duration::from_millis(wait.unwrap_or_default()))
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

    /// Sends what waits in the outbox, in its order.
    async fn send(&mut self) -> anyhow::Result<()> {
        while let Some(write) = self.replica.next_write().await? {
            let body = &write.body;
            match self.server.send(&write).await? {
                Reply::Done(data) => self.replica.confirmed(&write, &data).await?,
                Reply::Refused(error) => {
                    println!("refused: {body}: {}", error["message"]);
                    self.replica.refused(&write).await?;
                }
                Reply::Failed if self.replica.failed(&write).await? => {
                    println!("kept for later: {body}");
                }
                Reply::Failed | Reply::Unauthenticated | Reply::Later => bail!(Offline::default()),
            }
        }
        Ok(())
    }

    /// Reads what is missing of the conversation that is shown, until nothing is.
    async fn fill(&mut self) -> anyhow::Result<()> {
        let mut before = None;
        while let Some(hole) = self.hole().await? {
            // An answer that is older than the hole, or of another stay, fills nothing.
            if before.as_ref() == Some(&hole) {
                break;
            }
            let (after, end) = (hole.from_seq - 1, hole.to_seq + 1);
            let path = format!(
                "/v1/conversations/{}/messages?after_seq={after}&before_seq={end}&limit=100",
                self.conversation,
            );
            let Reply::Done(history) = self.server.get(&path).await? else {
                break;
            };
            let taken = self.replica.take_history(&self.conversation, &history);
            if taken.await? == Next::AskAgain {
                bail!(Offline::default());
            }
            before = Some(hole);
        }
        Ok(())
    }

    /// The first hole of the conversation that is shown.
    async fn hole(&mut self) -> anyhow::Result<Option<Hole>> {
        let holes = self.replica.holes().await?;
        let mut holes = holes.into_iter();
        Ok(holes.find(|hole| hole.conversation == self.conversation))
    }

    /// Prints the messages that were not printed yet, up to the first that is missing.
    async fn print(&mut self) -> anyhow::Result<()> {
        let hole = self.hole().await?;
        let missing = hole.map_or(i64::MAX, |hole| hole.from_seq);
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

/// The data of an answer.
fn done(reply: Reply) -> anyhow::Result<Value> {
    match reply {
        Reply::Done(data) => Ok(data),
        _ => bail!(Offline::default()),
    }
}

/// What became of a frame that was sent.
fn say<E>(sent: Result<(), E>) -> Result<(), Offline> {
    sent.map_err(|_| Offline::default())
}
