//! What an endpoint over HTTP is told, and what becomes of its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tests::{DatabaseKind, Home, Person, World, soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_bmV4dCBzZWNyZXQgb2YgdGhlIGVuZHBvaW50IQ==";

/// What the endpoint answers: all of it, head and body.
type Decide = Box<dyn Fn(&Call) -> String + Send + Sync>;

fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} Said\r\ncontent-length: 0\r\n\r\n")
}

/// A request that came.
#[derive(Clone, Debug)]
struct Call {
    path: String,
    headers: HeaderMap,
    body: Value,
    raw: Vec<u8>,
}

impl Call {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn id(&self) -> &str {
        self.header("webhook-id")
    }

    fn text(&self) -> &str {
        self.body["data"]["message"]["content"]
            .as_str()
            .unwrap_or("")
    }

    fn conversation(&self) -> String {
        let id = &self.body["data"]["conversation"]["id"];
        id.as_str().unwrap_or_default().to_owned()
    }
}

/// An endpoint that remembers what it was told.
#[derive(Clone)]
struct Endpoint {
    port: u16,
    decide: Arc<Mutex<Decide>>,
    calls: Arc<Mutex<Vec<Call>>>,
    taken: Arc<Mutex<Vec<Call>>>,
    told: Arc<Notify>,
    listening: Arc<Mutex<Option<AbortHandle>>>,
}

impl Endpoint {
    async fn start(decide: impl Fn(&Call) -> String + Send + Sync + 'static) -> Self {
        let endpoint = Self {
            port: 0,
            decide: Arc::new(Mutex::new(Box::new(decide))),
            calls: Arc::default(),
            taken: Arc::default(),
            told: Arc::default(),
            listening: Arc::default(),
        };
        endpoint.listen().await
    }

    /// Listens, on the port that it had if it had one.
    async fn listen(mut self) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let endpoint = self.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let endpoint = endpoint.clone();
                connections.spawn(async move { endpoint.serve(stream).await });
            }
        });
        *self.listening.lock().unwrap() = Some(accepting.abort_handle());
        self
    }

    /// Goes away, with all connections.
    fn leave(&self) {
        if let Some(listening) = self.listening.lock().unwrap().take() {
            listening.abort();
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end;
                }
                if stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            };
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            let mut lines = head.split("\r\n");
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: HeaderMap = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| {
                    let name: HeaderName = name.parse().unwrap();
                    (name, HeaderValue::from_str(value).unwrap())
                })
                .collect();
            let length: usize = headers["content-length"].to_str().ok()?.parse().ok()?;
            let mut rest = bytes.split_off(end + 4);
            while rest.len() < length {
                if stream.read_buf(&mut rest).await.ok()? == 0 {
                    return None;
                }
            }
            bytes = rest.split_off(length);
            let call = Call {
                path,
                headers,
                body: serde_json::from_slice(&rest).unwrap(),
                raw: rest,
            };
            let answer = (self.decide.lock().unwrap())(&call);
            self.calls.lock().unwrap().push(call.clone());
            if answer.starts_with("HTTP/1.1 2") {
                self.taken.lock().unwrap().push(call);
            }
            self.told.notify_waiters();
            if answer.is_empty() {
                // It never answers.
                std::future::pending::<()>().await;
            }
            let is_endless = answer.contains("chunked");
            stream.write_all(answer.as_bytes()).await.ok()?;
            if is_endless {
                let chunk = format!("400\r\n{}\r\n", "x".repeat(1_024));
                loop {
                    stream.write_all(chunk.as_bytes()).await.ok()?;
                }
            }
        }
    }

    fn now(&self, decide: impl Fn(&Call) -> String + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks?from=chat", self.port)
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn taken(&self) -> Vec<Call> {
        self.taken.lock().unwrap().clone()
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        until(&self.told, what, || is_so(self)).await;
    }

    async fn until_taken(&self, count: usize) {
        let what = format!("{count} calls that were taken");
        self.until(&what, |endpoint| endpoint.taken().len() >= count)
            .await;
    }

    /// The texts that it took of each conversation, each for the first time.
    fn texts(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut texts: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for call in self.taken() {
            if seen.insert(call.id().to_owned()) {
                let texts = texts.entry(call.conversation()).or_default();
                texts.push(call.text().to_owned());
            }
        }
        texts
    }

    /// Insists that every call is signed.
    fn assert_signed(&self, secret: &str) {
        let webhook = Webhook::new(secret).unwrap();
        let calls = self.calls();
        assert!(!calls.is_empty());
        for call in calls {
            let mut headers = call.headers.clone();
            webhook.verify(&call.raw, &headers).unwrap();
            headers.insert("webhook-id", "another".parse().unwrap());
            assert!(webhook.verify(&call.raw, &headers).is_err());
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if Arc::strong_count(&self.calls) == 1 {
            self.leave();
        }
    }
}

/// A server that tells this endpoint.
async fn world(kind: DatabaseKind, endpoint: &Endpoint, settings: &[(&str, &str)]) -> World {
    let mut home = Home::new(kind).await;
    home.set("WEBHOOK_URL", &endpoint.url());
    home.set("WEBHOOK_SECRET", SECRET);
    for (name, value) in settings {
        home.set(name, value);
    }
    World::at(home).await
}

async fn message(person: &Person, conversation: &str, id: &str) -> Value {
    let path = format!("/v1/conversations/{conversation}/messages/{id}");
    let mut message = person.get(&path).await.data(200).clone();
    message.as_object_mut().unwrap().remove("stamp");
    for reaction in message["reactions"].as_array_mut().unwrap() {
        reaction.as_object_mut().unwrap().remove("mine");
    }
    message
}

macro_rules! on_both {
    ($(async fn $rule:ident($kind:ident: DatabaseKind $(,)?) $body:block)+) => {
        $(async fn $rule($kind: DatabaseKind) $body)+
        mod sqlite {
            $(#[tokio::test] async fn $rule() {
                super::$rule(tests::DatabaseKind::Sqlite).await;
            })+
        }
        mod postgres {
            $(#[tokio::test] async fn $rule() {
                super::$rule(tests::DatabaseKind::Postgres).await;
            })+
        }
    };
}

on_both!(
    async fn a_new_message_is_told_signed_and_in_the_shapes_of_the_api(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|_| status(204)).await;
        let world = world(kind, &endpoint, &[]).await;
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let body = json!({
            "client_message_id": "client-message-1",
            "content": "hello",
            "mentions": [bob.id],
            "metadata": {"exact": 1.2345678901234567},
        });
        let path = format!("/v1/conversations/{conversation}/messages");
        let sent = alice.post(&path, &body).await.data(201).clone();
        endpoint.until_taken(1).await;

        let call = endpoint.calls().remove(0);
        assert_eq!(call.path, "/hooks?from=chat");
        assert_eq!(call.header("content-type"), "application/json");
        assert_eq!(call.body["type"], "message.created");
        tests::assert_time(&call.body["timestamp"]);
        let data = &call.body["data"];
        let id = sent["id"].as_str().unwrap();
        assert_eq!(data["message"], message(&alice, &conversation, id).await);
        assert_eq!(data["sender"], alice.user);
        assert_eq!(data["notify"], json!([bob.id]));
        assert_eq!(
            data["conversation"],
            json!({"id": conversation, "type": "direct", "title": null, "member_count": 2})
        );
        assert!(String::from_utf8_lossy(&call.raw).contains("1.2345678901234567"));
        endpoint.assert_signed(SECRET);
        assert_eq!(endpoint.calls().len(), 1);
        assert!(!world.server.log().contains("whsec_"));
    }

    async fn every_kind_of_change_is_as_the_document_says(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|_| status(200)).await;
        let events = "message.created, message.updated,message.deleted,conversation.created,\
                      conversation.updated,conversation.deleted,members.added,member.removed,\
                      member.updated,read.updated,user.updated,password.changed,sessions.ended";
        let world = world(kind, &endpoint, &[("WEBHOOK_EVENTS", events)]).await;
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let group = json!({"title": "Hikers", "member_ids": [bob.id]});
        let created = alice.post("/v1/conversations/groups", &group).await;
        let group = created.data(201)["id"].as_str().unwrap().to_owned();
        let at = |rest: &str| format!("/v1/conversations/{group}{rest}");
        let sent = alice.send(&group, "hello").await;
        let id = sent["id"].as_str().unwrap();
        let edit = json!({"content": "hello all"});
        alice
            .patch(&at(&format!("/messages/{id}")), &edit)
            .await
            .data(200);
        bob.put(&at(&format!("/messages/{id}/reactions/%2B1")), &json!({}))
            .await
            .data(200);
        alice
            .delete(&at(&format!("/messages/{id}")))
            .await
            .data(200);
        alice
            .post(&at("/members"), &json!({"member_ids": [carol.id]}))
            .await
            .data(200);
        alice
            .patch(&at(""), &json!({"title": "Climbers"}))
            .await
            .data(200);
        let role = json!({"role": "admin"});
        alice
            .patch(&at(&format!("/members/{}", bob.id)), &role)
            .await
            .data(200);
        bob.put(&at("/read"), &json!({"seq": 1})).await.data(200);
        let password = json!({
            "current_password": tests::PASSWORD,
            "new_password": "another horse battery staple",
        });
        carol.post("/v1/auth/password", &password).await.data(200);
        world
            .log_in("bob")
            .await
            .post("/v1/auth/logout-all", &json!({}))
            .await
            .data(200);
        alice
            .delete(&at(&format!("/members/{}", bob.id)))
            .await
            .data(200);
        alice.delete(&at("")).await.data(200);
        endpoint
            .until("one of each kind", |endpoint| {
                let calls = endpoint.calls();
                let kinds = calls.iter().filter_map(|it| it.body["type"].as_str());
                let seen: BTreeSet<&str> = kinds.collect();
                events.split(',').all(|kind| seen.contains(kind.trim()))
            })
            .await;

        let document: Value = serde_json::from_str(&messenger_server::spec()).unwrap();
        let mapping =
            &document["components"]["schemas"]["WebhookEvent"]["discriminator"]["mapping"];
        assert_eq!(mapping.as_object().unwrap().len(), 14);
        for call in endpoint.calls() {
            let schema = &mapping[call.body["type"].as_str().unwrap()];
            fits(&call.body, &json!({ "$ref": schema }), &document, "body");
            let text = String::from_utf8_lossy(&call.raw).into_owned();
            assert!(
                !text.contains("password\":") && !text.contains("token"),
                "{text}"
            );
        }
        endpoint.assert_signed(SECRET);
    }

    async fn an_endpoint_that_was_away_gets_all_in_order_with_the_same_ids(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|_| status(500)).await;
        let world = world(kind, &endpoint, &[]).await;
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let conversations = [alice.open(&bob).await, alice.open(&carol).await];

        for n in 0..3 {
            for conversation in &conversations {
                alice.send(conversation, &n.to_string()).await;
            }
        }
        endpoint
            .until("it is tried", |it| it.calls().len() >= 2)
            .await;
        endpoint.leave();
        for n in 3..6 {
            for conversation in &conversations {
                alice.send(conversation, &n.to_string()).await;
            }
        }
        endpoint.now(|_| status(200));
        let endpoint = endpoint.listen().await;
        endpoint.until_taken(12).await;

        let expected: Vec<String> = (0..6).map(|n| n.to_string()).collect();
        let expected = conversations.map(|id| (id, expected.clone())).into();
        assert_eq!(endpoint.texts(), expected);
        endpoint.assert_signed(SECRET);
        let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for call in endpoint.calls() {
            let key = format!("{} {}", call.conversation(), call.text());
            ids.entry(key).or_default().insert(call.id().to_owned());
        }
        assert_eq!(ids.len(), 12);
        assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    }

    async fn a_server_that_is_killed_while_it_tells_misses_nothing(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|call| match call.text().ends_with('3') {
            true => status(503),
            false => status(200),
        })
        .await;
        let mut world = world(kind, &endpoint, &[]).await;
        let (mut alice, _, conversation) = world.alice_and_bob().await;

        for round in 0..2 {
            for n in 0..10 {
                alice.send(&conversation, &format!("{round}.{n}")).await;
            }
            let least = 2 + round;
            endpoint
                .until("some of it", |it| it.calls().len() > least)
                .await;
            world.server.kill();
            world = world.restart().await;
            alice = world.again(&alice);
        }
        endpoint.now(|_| status(200));
        let all: Vec<String> = (0..20).map(|n| format!("{}.{}", n / 10, n % 10)).collect();
        tests::within(4 * tests::PATIENCE, "all of it", async {
            loop {
                let told = endpoint.told.notified();
                if endpoint.texts().values().map(Vec::len).sum::<usize>() == 20 {
                    return;
                }
                told.await;
            }
        })
        .await;

        assert_eq!(endpoint.texts(), BTreeMap::from([(conversation, all)]));
    }

    async fn only_a_2xx_takes_a_change_and_redirects_lead_nowhere(kind: DatabaseKind) {
        let elsewhere = Endpoint::start(|_| status(200)).await;
        let there = elsewhere.url();
        let answers = Mutex::new(vec![
            status(200),
            status(400),
            format!("HTTP/1.1 307 Moved\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n"),
        ]);
        let endpoint = Endpoint::start(move |_| {
            let mut answers = answers.lock().unwrap();
            answers.pop().unwrap_or_else(|| status(200))
        })
        .await;
        let world = world(kind, &endpoint, &[]).await;
        let (alice, _, conversation) = world.alice_and_bob().await;

        alice.send(&conversation, "hello").await;
        let third = |it: &Endpoint| it.calls().len() == 3;
        tests::within(3 * tests::PATIENCE, "the third try", async {
            loop {
                let told = endpoint.told.notified();
                if third(&endpoint) {
                    return;
                }
                told.await;
            }
        })
        .await;

        let ids: BTreeSet<String> = endpoint
            .calls()
            .iter()
            .map(|it| it.id().to_owned())
            .collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(elsewhere.calls().len(), 0);
    }

    async fn an_endpoint_that_is_gone_is_told_nothing_until_a_start(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|_| status(410)).await;
        let world = world(kind, &endpoint, &[]).await;
        let (alice, _, conversation) = world.alice_and_bob().await;

        alice.send(&conversation, "1").await;
        endpoint
            .until("it is told", |it| it.calls().len() == 1)
            .await;
        alice.send(&conversation, "2").await;
        assert_eq!(endpoint.calls().len(), 1);
        endpoint.now(|_| status(200));
        let world = world.restart().await;
        endpoint.until_taken(2).await;

        assert_eq!(endpoint.texts()[&conversation], ["1", "2"]);
        drop(world);
    }

    async fn of_an_endless_answer_little_is_read(kind: DatabaseKind) {
        let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let endpoint = Endpoint::start(move |_| endless.to_owned()).await;
        let world = world(kind, &endpoint, &[]).await;
        let (alice, _, conversation) = world.alice_and_bob().await;

        for n in 0..3 {
            alice.send(&conversation, &n.to_string()).await;
        }
        endpoint.until_taken(3).await;

        assert_eq!(endpoint.texts()[&conversation], ["0", "1", "2"]);
        assert!(world.server.memory_peak_mib() < 500);
    }

    async fn both_secrets_sign_while_one_takes_over_from_the_other(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|_| status(200)).await;
        let both = format!("{SECRET} {NEXT_SECRET}");
        let world = world(kind, &endpoint, &[("WEBHOOK_SECRET", &both)]).await;
        let (alice, _, conversation) = world.alice_and_bob().await;

        alice.send(&conversation, "hello").await;
        endpoint.until_taken(1).await;

        endpoint.assert_signed(SECRET);
        endpoint.assert_signed(NEXT_SECRET);
    }

    async fn the_numbers_of_an_endpoint_are_told(kind: DatabaseKind) {
        let endpoint = Endpoint::start(|_| status(200)).await;
        let world = world(kind, &endpoint, &[("METRICS_LISTEN", "127.0.0.1:0")]).await;
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "hello").await;
        endpoint.until_taken(1).await;
        let url = format!("http://{}/metrics", world.server.metrics_address());
        soon("the numbers", async {
            loop {
                let told = reqwest::get(&url).await.unwrap().text().await.unwrap();
                let has = |line: &str| told.lines().any(|it| it == line);
                if has("messenger_hook_changes_total{hook=\"webhook\",outcome=\"told\"} 1")
                    && has("messenger_hook_changes_total{hook=\"webhook\",outcome=\"failed\"} 0")
                    && has("messenger_hook_conversations_waiting{hook=\"webhook\"} 0")
                    && has("messenger_hook_lag{hook=\"webhook\"} 0")
                    && has("messenger_hook_stopped{hook=\"webhook\"} 0")
                {
                    return;
                }
            }
        })
        .await;
    }
);

/// Insists that JSON has what its schema has, and nothing else.
#[track_caller]
fn fits(value: &Value, schema: &Value, document: &Value, at: &str) {
    if let Some(place) = schema["$ref"].as_str() {
        let schema = document.pointer(place.trim_start_matches('#')).unwrap();
        return fits(value, schema, document, at);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let first = if value.is_null() {
            &any[any.len() - 1]
        } else {
            &any[0]
        };
        return fits(value, first, document, at);
    }
    if value.is_null() {
        assert_eq!(schema["nullable"], true, "{at}");
        return;
    }
    if let Some(all) = schema["allOf"].as_array() {
        // The variant of a union: its type, and what it wraps.
        let inner = all.iter().find(|part| part.get("$ref").is_some()).unwrap();
        let mut value = value.clone();
        if all.len() > 1 {
            value.as_object_mut().unwrap().remove("type");
        }
        return fits(&value, inner, document, at);
    }
    match schema["type"].as_str().unwrap_or("any") {
        "object" => {
            let Some(properties) = schema["properties"].as_object() else {
                return assert!(value.is_object(), "{at}");
            };
            let object = value.as_object().unwrap();
            for name in object.keys() {
                assert!(properties.contains_key(name), "{at} has {name}");
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap();
                assert!(object.contains_key(name), "{at} lacks {name}");
            }
            for (name, value) in object {
                fits(value, &properties[name], document, &format!("{at}.{name}"));
            }
        }
        "array" => {
            for item in value.as_array().unwrap() {
                fits(item, &schema["items"], document, at);
            }
        }
        "string" => assert!(value.is_string(), "{at}"),
        "integer" => assert!(value.is_i64() || value.is_u64(), "{at}"),
        "boolean" => assert!(value.is_boolean(), "{at}"),
        _ => {}
    }
}
