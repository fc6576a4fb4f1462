//! A server in a home of its own, and the people who use it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    Answer, Database, DatabaseKind, Finished, Forge, Http, Refusal, Server, Socket, fresh_id,
};

/// Everybody's password, unless a test is about passwords.
pub const PASSWORD: &str = "correct horse battery staple";

/// A private folder, a fresh database and the settings: what a server needs to be started, as
/// often as the test likes.
#[derive(Debug)]
pub struct Home {
    settings: BTreeMap<String, String>,
    database: Database,
    folder: TempDir,
}

impl Home {
    /// A home with settings that suit a test: a free port of the loopback address, a random secret
    /// and no limit on registrations.
    pub async fn new(kind: DatabaseKind) -> Self {
        let database = Database::create(kind).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let secret = format!("{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple());
        let settings = [
            ("AUTH_RATE_LIMIT_MAX_REQUESTS", "100000"),
            ("DATABASE_URL", database.url()),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            // Seldom: the frames that come are to be known.
            ("PRESENCE_INTERVAL_MS", "3600000"),
            ("SECRET_KEY", &secret),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            settings: BTreeMap::from(settings),
            database,
            folder,
        }
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leaves a variable out of the next start, so that its default applies.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.settings.remove(name);
        self
    }

    /// The value that a variable has at the next start.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// The folder that the server runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in that folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Starts a server and waits until it listens.
    pub async fn start(&self) -> Server {
        Server::start(self.folder.path(), &self.settings).await
    }

    /// Runs the binary with arguments until it ends by itself.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, "").await
    }

    /// The same with a line on its standard input.
    pub async fn run_with(&self, arguments: &[&str], line: &str) -> Finished {
        Server::run(self.folder.path(), &self.settings, arguments, line).await
    }
}

/// A running server with its home.
#[derive(Debug)]
pub struct World {
    /// The running server. It comes first, since it must be gone before its home is removed.
    pub server: Server,
    /// A client without a token.
    pub http: Http,
    /// What it was started from.
    pub home: Home,
}

impl World {
    /// Starts a server on a fresh database with these settings.
    pub async fn start(kind: DatabaseKind, settings: &[(&str, &str)]) -> Self {
        let mut home = Home::new(kind).await;
        for (name, value) in settings {
            home.set(name, value);
        }
        Self::at(home).await
    }

    /// Starts a server in this home.
    pub async fn at(home: Home) -> Self {
        let server = home.start().await;
        let http = Http::new(server.address());
        Self { server, http, home }
    }

    /// Starts a new server in the home of this one, which is dropped, and so killed, first.
    pub async fn restart(self) -> Self {
        let Self { server, home, .. } = self;
        drop(server);
        Self::at(home).await
    }

    /// Starts a second server on the same database, in the same folder.
    pub async fn second_node(&self) -> Node {
        let server = self.home.start().await;
        let http = Http::new(server.address());
        Node { server, http }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Registers somebody with the usual password.
    pub async fn register(&self, username: &str) -> Person {
        let body = json!({"username": username, "password": PASSWORD});
        let answer = self.http.post("/v1/auth/register", &body).await;
        self.person(answer.data(201))
    }

    /// Registers several people at once.
    pub async fn register_all<const N: usize>(&self, usernames: [&str; N]) -> [Person; N] {
        let people = join_all(usernames.map(|username| self.register(username))).await;
        people.try_into().expect("as many people as names")
    }

    /// Logs somebody in with the usual password: another device.
    pub async fn log_in(&self, username: &str) -> Person {
        let body = json!({"username": username, "password": PASSWORD});
        let answer = self.http.post("/v1/auth/login", &body).await;
        self.person(answer.data(200))
    }

    /// The person that a register, login or refresh answered.
    pub fn person(&self, data: &Value) -> Person {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let access_token = text(&data["tokens"]["access_token"]);
        Person {
            id: text(&data["user"]["id"]),
            username: text(&data["user"]["username"]),
            user: data["user"].clone(),
            refresh_token: text(&data["tokens"]["refresh_token"]),
            http: self.http.with_token(&access_token),
            address: self.address(),
            access_token,
        }
    }

    /// Somebody of the server before, with the same tokens, as a client of this one.
    pub fn again(&self, person: &Person) -> Person {
        person.at(&self.http, self.address())
    }

    /// Alice and bob and the conversation of the two.
    pub async fn alice_and_bob(&self) -> (Person, Person, String) {
        let [alice, bob] = self.register_all(["alice", "bob"]).await;
        let conversation = alice.open(&bob).await;
        (alice, bob, conversation)
    }

    /// Tries to open a socket.
    pub async fn handshake(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Refusal> {
        Socket::open(self.address(), path, headers).await
    }

    /// Signs tokens with the secret of this server.
    pub fn forge(&self) -> Forge {
        Forge::new(self.home.setting("SECRET_KEY"))
    }
}

/// One more server on the database of a [`World`].
#[derive(Debug)]
pub struct Node {
    /// The running server.
    pub server: Server,
    /// A client without a token.
    pub http: Http,
}

impl Node {
    /// Somebody of the world, with the same tokens, as a client of this server.
    pub fn again(&self, person: &Person) -> Person {
        person.at(&self.http, self.server.address())
    }
}

/// Somebody who is logged in, on one device.
#[derive(Clone, Debug)]
pub struct Person {
    /// Their id.
    pub id: String,
    /// Their name.
    pub username: String,
    /// Their `UserPublic`.
    pub user: Value,
    /// The access token of this device.
    pub access_token: String,
    /// The refresh token of this device.
    pub refresh_token: String,
    /// A client with their access token.
    pub http: Http,
    address: SocketAddr,
}

impl Person {
    /// The same person as a client of another server.
    fn at(&self, http: &Http, address: SocketAddr) -> Self {
        Self {
            http: http.with_token(&self.access_token),
            address,
            ..self.clone()
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.http.get(path).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.http.post(path, body).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.http.put(path, body).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.http.patch(path, body).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.http.delete(path).await
    }

    /// Opens the direct conversation with somebody and gives its id.
    pub async fn open(&self, other: &Self) -> String {
        let body = json!({"other_user_id": other.id});
        let answer = self.post("/v1/conversations/direct", &body).await;
        answer.data(200)["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Creates a group and gives its id.
    pub async fn create_group(&self, title: &str, members: &[&Self]) -> String {
        let ids: Vec<_> = members.iter().map(|person| &person.id).collect();
        let body = json!({"title": title, "member_ids": ids});
        let answer = self.post("/v1/conversations/groups", &body).await;
        answer.data(201)["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Tries to send a message.
    pub async fn try_send(&self, conversation: &str, client_id: &str, content: &str) -> Answer {
        let body = json!({"client_message_id": client_id, "content": content});
        self.post(&messages_path(conversation), &body).await
    }

    /// Sends a new message and gives it back as the server stored it.
    pub async fn send(&self, conversation: &str, content: &str) -> Value {
        self.try_send(conversation, &fresh_id(), content)
            .await
            .data(201)
            .clone()
    }

    /// Sends `count` messages, many at a time and so in any order: `message 1`, `message 2`, …
    pub async fn send_many(&self, conversation: &str, count: usize) {
        let numbers: Vec<_> = (1..=count).collect();
        for some in numbers.chunks(50) {
            let texts: Vec<_> = some
                .iter()
                .map(|number| format!("message {number}"))
                .collect();
            join_all(texts.iter().map(|text| self.send(conversation, text))).await;
        }
    }

    /// The messages of a conversation, with a query such as `?limit=2`.
    pub async fn messages(&self, conversation: &str, query: &str) -> Vec<Value> {
        let answer = self
            .get(&format!("{}{query}", messages_path(conversation)))
            .await;
        answer.data(200)["messages"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Every message of a conversation, read page by page.
    pub async fn whole_conversation(&self, conversation: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all
                .last()
                .and_then(|message| message["seq"].as_i64())
                .unwrap_or(0);
            let page = self
                .messages(conversation, &format!("?limit=100&after_seq={after}"))
                .await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// The conversations of this person.
    pub async fn conversations(&self) -> Vec<Value> {
        let answer = self.get("/v1/conversations").await;
        answer.data(200).as_array().cloned().unwrap_or_default()
    }

    /// Opens a socket with the token in the header. The welcome has been read.
    pub async fn socket(&self) -> Socket {
        let bearer = format!("Bearer {}", self.access_token);
        let opened = Socket::open(self.address, "/v1/ws", &[("authorization", &bearer)]).await;
        opened.unwrap_or_else(|refusal| panic!("{} gets no socket: {refusal:?}", self.username))
    }

    /// Opens a socket and subscribes it to conversations.
    pub async fn listening(&self, conversations: &[&str]) -> Socket {
        let mut socket = self.socket().await;
        socket.subscribe(conversations).await;
        socket
    }
}

fn messages_path(conversation: &str) -> String {
    format!("/v1/conversations/{conversation}/messages")
}
