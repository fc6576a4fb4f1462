//! The client of the example, against the real server: whatever happens while it is away, and
//! however it is cut off, it ends with what somebody has who begins.
//!
//! `OFFLINE_HISTORIES` sets how many random histories are tried on each database (2), `SOCKET_KILLS`
//! how often a connection is cut (150), `OFFLINE_SEED` what both come from; it is printed.

#![expect(clippy::print_stdout, reason = "a failure is repeated by its seed")]

#[path = "../../../examples/offline_client/replica.rs"]
mod replica;
#[path = "../../../examples/offline_client/reply.rs"]
mod reply;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    Answer, DatabaseKind, EventStream, Person, Random, Socket, World, fresh_id, on_both_databases,
};

use self::replica::{Next, Replica, Write};
use self::reply::Reply;

/// The device of somebody.
struct Device {
    person: Person,
    replica: Replica,
    _folder: TempDir,
}

/// How a device catches up.
#[derive(Clone, Copy, Debug)]
enum Way {
    Rest,
    Socket,
    Stream,
}

const WAYS: [Way; 3] = [Way::Rest, Way::Socket, Way::Stream];

/// What a device is connected by.
enum Line {
    Socket(Box<Socket>),
    Stream(EventStream),
}

impl Line {
    async fn next(&mut self) -> Value {
        match self {
            Self::Socket(socket) => socket.next_json().await,
            Self::Stream(stream) => stream.next().await.expect("the stream goes on").data,
        }
    }
}

impl Device {
    async fn new(person: &Person) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("replica.db");
        Self {
            person: person.clone(),
            replica: Replica::open(&file, &person.id).await.unwrap(),
            _folder: folder,
        }
    }

    /// Fetches a page; tells whether there are more.
    async fn page(&mut self, size: (u32, u32)) -> Next {
        let path = self.replica.next_page(size.0, size.1).await.unwrap();
        let answer = self.person.get(&path).await;
        if answer.status == 410 {
            self.replica.begin_again().await.unwrap();
            return Next::BeginAgain;
        }
        self.replica.take_page(answer.data(200)).await.unwrap()
    }

    /// Damages the cursor.
    async fn damage(&mut self) {
        let frame = json!({"type": "sync.cursor", "cursor": "damaged"});
        self.replica.take_frame(&frame).await.unwrap();
    }

    async fn connect(&mut self, way: Way, size: (u32, u32)) -> Line {
        if let Way::Stream = way {
            let command = self.replica.resume(size.0, size.1).await.unwrap();
            let path = format!("/v1/events?limit={}&timeline_limit={}", size.0, size.1);
            let path = match command["seen"].as_str() {
                Some(seen) => format!("{path}&seen={seen}"),
                None => path,
            };
            let cursor = command["cursor"].as_str();
            return Line::Stream(EventStream::open(&self.person.http, &path, cursor).await);
        }
        let mut socket = self.person.socket().await;
        let command = self.replica.resume(size.0, size.1).await.unwrap();
        socket.send_json(&command).await;
        Line::Socket(Box::new(socket))
    }

    /// Catches up one way or the other, in pages of random sizes, and perhaps is cut off meanwhile,
    /// or has to begin again.
    async fn catch_up(&mut self, random: &mut Random) {
        loop {
            if random.below(8) == 0 {
                self.damage().await;
            }
            let (way, size) = (*random.of(&WAYS), size(random));
            if let Way::Rest = way {
                if self.page(size).await == Next::UpToDate {
                    return;
                }
                continue;
            }
            let mut line = self.connect(way, size).await;
            for _ in 0..=random.below(6) {
                let frame = line.next().await;
                let next = self.replica.take_frame(&frame).await.unwrap();
                if matches!(next, Some(Next::BeginAgain | Next::AskAgain)) {
                    break;
                }
                if frame["type"] == "sync.live" {
                    return;
                }
            }
        }
    }

    /// Asks for the messages of some holes, and gives the answers, to be taken in later.
    async fn ask_for_holes(&mut self, random: &mut Random) -> Vec<(String, Value)> {
        let mut answers = Vec::new();
        for hole in self.replica.holes().await.unwrap() {
            if random.below(2) == 0 {
                continue;
            }
            let (after, before) = (hole.from_seq - 1, hole.to_seq + 1);
            let path = format!(
                "/v1/conversations/{}/messages?after_seq={after}&before_seq={before}&limit=5",
                hole.conversation
            );
            let answer = self.person.get(&path).await;
            if answer.status == 200 {
                answers.push((hole.conversation, answer.data(200).clone()));
            }
        }
        answers
    }

    /// Insists that this device has what one has that begins now, in all that it knows for certain,
    /// and knows what it has not.
    async fn assert_whole(&mut self) {
        let mut fresh = Self::new(&self.person).await;
        while fresh.page((500, 200)).await != Next::UpToDate {}
        let conversations = self.replica.conversations().await.unwrap();
        assert_eq!(conversations, fresh.replica.conversations().await.unwrap());
        let (own, fresh_own) = (&mut self.replica, &mut fresh.replica);
        assert_eq!(own.prefs().await.unwrap(), fresh_own.prefs().await.unwrap());
        assert_eq!(
            own.blocks().await.unwrap(),
            fresh_own.blocks().await.unwrap()
        );
        let holes = self.replica.holes().await.unwrap();
        for conversation in &conversations {
            let id = conversation["id"].as_str().unwrap();
            let truth = everything(&self.person, id).await;
            let known = self.replica.messages(id, 0).await.unwrap();
            let known: BTreeMap<i64, Value> = known
                .into_iter()
                .map(|message| (message["seq"].as_i64().unwrap(), message))
                .collect();
            for message in &truth {
                let seq = message["seq"].as_i64().unwrap();
                let is_missing = holes.iter().any(|hole| {
                    hole.conversation == id && (hole.from_seq..=hole.to_seq).contains(&seq)
                });
                let here = known.get(&seq);
                assert!(
                    is_missing || here == Some(message),
                    "{seq} of {id} is {here:?} and not {message}"
                );
            }
            let last = truth.last().map_or(0, |it| it["seq"].as_i64().unwrap());
            assert!(known.keys().all(|seq| *seq <= last));
            assert_eq!(
                conversation["unread_count"],
                unread(conversation, &truth, &self.person)
            );
            let reads = self.replica.reads(id).await.unwrap();
            assert_eq!(reads, fresh.replica.reads(id).await.unwrap());
            for member in conversation["member_ids"].as_array().unwrap() {
                let member = member.as_str().unwrap();
                let user = self.replica.find_user(member).await.unwrap();
                assert_eq!(user, fresh.replica.find_user(member).await.unwrap());
            }
        }
    }
}

fn size(random: &mut Random) -> (u32, u32) {
    let limit = *random.of(&[1, 2, 3, 7, 50, 500]);
    (limit, *random.of(&[1, 2, 5, 200]))
}

/// All messages that somebody may see in a conversation.
async fn everything(person: &Person, conversation: &str) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let after = messages.last().map_or(0, |it| it["seq"].as_i64().unwrap());
        let page = person
            .messages(conversation, &format!("?after_seq={after}&limit=100"))
            .await;
        if page.is_empty() {
            return messages;
        }
        messages.extend(page);
    }
}

/// How many messages somebody has not read, counted one by one.
fn unread(conversation: &Value, messages: &[Value], person: &Person) -> usize {
    let is_unread = |message: &&Value| {
        message["seq"].as_i64() > conversation["last_read_seq"].as_i64()
            && message["deleted_at"].is_null()
            && message["sender_id"] != *person.id
    };
    messages.iter().filter(is_unread).count()
}

/// People who do random things.
struct History {
    random: Random,
    people: Vec<Person>,
    conversations: Vec<String>,
    sent: Vec<(Person, Value)>,
}

impl History {
    async fn begin(random: Random, people: Vec<Person>) -> Self {
        let direct = people[0].open(&people[1]).await;
        Self {
            random,
            people,
            conversations: vec![direct],
            sent: Vec::new(),
        }
    }

    /// One random change of messages.
    async fn talk(&mut self) {
        let who = self.random.of(&self.people).clone();
        let conversation = self.random.of(&self.conversations).clone();
        let what = self.random.below(20);
        if what < 11 || self.sent.is_empty() {
            let text = format!("text {}", self.random.below(1_000_000));
            let answer = who.try_send(&conversation, &fresh_id(), &text).await;
            if answer.status == 201 {
                self.sent.push((who, answer.data(201).clone()));
            }
            return;
        }
        let (sender, message) = self.random.of(&self.sent).clone();
        let text = |field: &str| message[field].as_str().unwrap().to_owned();
        let path = format!(
            "/v1/conversations/{}/messages/{}",
            text("conversation_id"),
            text("id")
        );
        let emoji = *self.random.of(&["a", "b"]);
        let reaction = format!("{path}/reactions/{emoji}");
        let answer = match what {
            11..14 => {
                let body = json!({"content": format!("edit {}", self.random.below(1_000_000))});
                sender.patch(&path, &body).await
            }
            14 => sender.delete(&path).await,
            15..18 => who.put(&reaction, &json!({})).await,
            _ => who.delete(&reaction).await,
        };
        harmless(&answer);
    }

    /// One random change of anything.
    async fn step(&mut self) {
        let what = self.random.below(100);
        let who = self.random.of(&self.people).clone();
        let other = self.random.of(&self.people).clone();
        let id = self.random.of(&self.conversations).clone();
        let path = format!("/v1/conversations/{id}");
        let seq = json!({"seq": self.random.below(12)});
        let answer = match what {
            0..49 => return self.talk().await,
            49..51 => {
                let name = format!("Name {}", self.random.below(1000));
                who.patch("/v1/users/me", &json!({"display_name": name}))
                    .await
            }
            51..53 => {
                let path = format!("/v1/users/me/blocks/{}", other.id);
                match self.random.below(2) {
                    0 => who.put(&path, &json!({})).await,
                    _ => who.delete(&path).await,
                }
            }
            53..55 => {
                let path = format!("/v1/users/me/prefs/key{}", self.random.below(3));
                match self.random.below(3) {
                    0 => who.delete(&path).await,
                    n => who.put(&path, &json!({"value": n})).await,
                }
            }
            55..65 => who.put(&format!("{path}/read"), &seq).await,
            65..68 => who.put(&format!("{path}/delivered"), &seq).await,
            68..72 => {
                let body = json!({"title": "Group", "member_ids": [other.id],
                    "history": *self.random.of(&["all", "since_join"])});
                let answer = who.post("/v1/conversations/groups", &body).await;
                if answer.status == 201 {
                    let id = answer.data(201)["id"].as_str().unwrap();
                    self.conversations.push(id.to_owned());
                }
                answer
            }
            72..80 => {
                let body = json!({"member_ids": [other.id]});
                who.post(&format!("{path}/members"), &body).await
            }
            80..86 => who.delete(&format!("{path}/members/{}", other.id)).await,
            86..89 => {
                let role = json!({"role": *self.random.of(&["member", "admin", "owner"])});
                who.patch(&format!("{path}/members/{}", other.id), &role)
                    .await
            }
            89..92 => {
                let title = json!({"title": format!("Group {}", self.random.below(1000))});
                who.patch(&path, &title).await
            }
            92..97 => {
                let body = match self.random.below(3) {
                    0 => json!({"pinned": self.random.below(2) == 0}),
                    1 => json!({"archived": self.random.below(2) == 0}),
                    _ => json!({"marked_unread": self.random.below(2) == 0}),
                };
                who.patch(&format!("{path}/settings"), &body).await
            }
            97 => who.delete(&path).await,
            _ => who.put(&format!("{path}/read"), &json!({"seq": 100})).await,
        };
        harmless(&answer);
    }
}

/// Most of what the rules refuse is part of the history; what is ours to answer for is not.
fn harmless(answer: &Answer) {
    let is_ours = answer.status >= 500 || [405, 422].contains(&answer.status);
    assert!(!is_ours, "{answer:?}");
}

fn random() -> Random {
    let seed = Random::seed("OFFLINE_SEED");
    println!("OFFLINE_SEED={seed}");
    Random::new(seed)
}

fn number(variable: &str, usual: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.and_then(|it| it.parse().ok()).unwrap_or(usual)
}

on_both_databases!(
    async fn a_device_that_was_away_ends_with_what_a_new_one_has(world: World) {
        let mut random = random();
        for history in 0..number("OFFLINE_HISTORIES", 2) {
            let mut people = Vec::new();
            for name in ["alice", "bob", "carol"] {
                people.push(world.register(&format!("{name}{history}")).await);
            }
            let mut devices = Vec::new();
            for person in &people {
                devices.push(Device::new(person).await);
            }
            let mut happens = History::begin(random.clone(), people).await;
            let mut late: Vec<(usize, String, Value)> = Vec::new();
            for _ in 0..40 {
                for _ in 0..random.below(12) {
                    happens.step().await;
                }
                let place = random.below(devices.len());
                let device = &mut devices[place];
                match random.below(4) {
                    0 => {
                        let answers = device.ask_for_holes(&mut random).await;
                        late.extend(answers.into_iter().map(|(id, data)| (place, id, data)));
                    }
                    1 if !late.is_empty() => {
                        let (place, id, data) = late.swap_remove(random.below(late.len()));
                        devices[place]
                            .replica
                            .take_history(&id, &data)
                            .await
                            .unwrap();
                    }
                    _ => device.catch_up(&mut random).await,
                }
            }
            for (place, id, data) in late {
                devices[place]
                    .replica
                    .take_history(&id, &data)
                    .await
                    .unwrap();
            }
            for device in &mut devices {
                device.catch_up(&mut random).await;
                device.assert_whole().await;
            }
        }
    }

    // An answer that is lost leaves a write in the outbox, and it is sent again: at once, or after
    // weeks in which others went on.
    async fn an_outbox_that_is_played_again_changes_nothing(world: World) {
        let mut random = random();
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let mut happens = History::begin(random.clone(), vec![alice.clone(), bob.clone()]).await;
        let conversation = happens.conversations[0].clone();
        let mut device = Device::new(&alice).await;
        let messages = format!("/v1/conversations/{conversation}/messages");
        let mut played = Vec::new();
        let mut last = alice.send(&conversation, "first").await;
        for n in 0..30 {
            let of_last = format!("{messages}/{}", last["id"].as_str().unwrap());
            let (method, path, body) = match random.below(8) {
                0..3 => {
                    let body = json!({"client_message_id": fresh_id(), "content": n.to_string()});
                    ("POST", messages.clone(), body)
                }
                3 => ("PATCH", of_last, json!({"content": format!("edit {n}")})),
                4 => ("PUT", format!("{of_last}/reactions/a"), json!({})),
                5 => ("DELETE", format!("{of_last}/reactions/a"), json!({})),
                6 => {
                    let path = format!("/v1/conversations/{conversation}/settings");
                    ("PATCH", path, json!({"pinned": n % 2 == 0}))
                }
                _ => {
                    let body = json!({"title": "Group", "member_ids": [bob.id]});
                    ("POST", "/v1/conversations/groups".to_owned(), body)
                }
            };
            let key = fresh_id();
            device
                .replica
                .write(&key, method, &path, &body)
                .await
                .unwrap();
            happens.talk().await;
            while let Some(write) = device.replica.next_write().await.unwrap() {
                let answer = send(&alice, &write).await;
                if random.below(2) == 0 {
                    continue; // the answer is lost
                }
                assert!([200, 201].contains(&answer.status), "{write:?}: {answer:?}");
                if write.path == messages {
                    last = answer.body["data"].clone();
                }
                device
                    .replica
                    .confirmed(&write, &answer.body["data"])
                    .await
                    .unwrap();
                played.push(write);
            }
        }
        while device.page((500, 200)).await != Next::UpToDate {}
        let before = device.replica.next_page(500, 200).await.unwrap();

        for write in &played {
            let answer = send(&alice, write).await;
            assert!([200, 201].contains(&answer.status), "{write:?}: {answer:?}");
        }

        let after = alice.get(&before).await.data(200).clone();
        for rows in ["conversations", "messages", "reads", "users"] {
            assert_eq!(after[rows], json!([]), "{rows}");
        }
        device.assert_whole().await;
    }

    // While others write, the last page that a socket brings may say that there are more, and none
    // follows: then `sync.live` is the end of what the client began again for.
    async fn a_client_that_begins_again_on_a_socket_drops_what_does_not_come_again(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let left = alice.create_group("Left", &[&bob]).await;
        for n in 0..12 {
            alice.create_group(&format!("Group {n}"), &[&bob]).await;
        }
        let elsewhere = alice.open(&carol).await;
        let mut device = Device::new(&bob).await;
        while device.page((50, 5)).await != Next::UpToDate {}
        let member = format!("/v1/conversations/{left}/members/{}", bob.id);
        bob.delete(&member).await.data(200);

        device.replica.begin_again().await.unwrap();
        let mut line = device.connect(Way::Socket, (2, 1)).await;
        loop {
            let frame = line.next().await;
            device.replica.take_frame(&frame).await.unwrap();
            if frame["type"] == "sync.live" {
                break;
            }
            alice.send(&elsewhere, "meanwhile").await;
        }

        device.assert_whole().await;
    }

    // A frame that was under way may be older than an answer that was taken meanwhile.
    async fn only_a_later_page_makes_what_was_seen_void(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send_many(&conversation, 10).await;
        let mut device = Device::new(&bob).await;
        while device.page((50, 2)).await != Next::UpToDate {}
        let path = device.replica.next_page(50, 2).await.unwrap();
        let mut line = device.connect(Way::Socket, (50, 2)).await;
        while line.next().await["type"] != "sync.live" {}
        alice.send(&conversation, "one").await;
        let frame = line.next().await;
        let page = bob.get(&path).await.data(200).clone();
        alice.send(&conversation, "two").await;
        let hole = device.replica.holes().await.unwrap().remove(0);
        let (after, before) = (hole.from_seq - 1, hole.to_seq + 1);
        let path = format!(
            "/v1/conversations/{conversation}/messages?after_seq={after}&before_seq={before}"
        );
        let history = bob.get(&path).await.data(200).clone();
        let as_of = history["stamp"]["as_of"].as_i64().unwrap();
        let seen = format!("seen=0:{as_of}");
        assert!(frame["payload"]["version"].as_i64().unwrap() < as_of);

        let replica = &mut device.replica;
        replica.take_history(&conversation, &history).await.unwrap();
        replica.take_frame(&frame).await.unwrap();
        assert!(replica.next_page(50, 2).await.unwrap().contains(&seen));
        replica.take_page(&page).await.unwrap();
        assert!(replica.next_page(50, 2).await.unwrap().contains(&seen));

        device.page((50, 2)).await;
        let path = device.replica.next_page(50, 2).await.unwrap();
        assert!(!path.contains("seen"), "{path}");
        device.assert_whole().await;
    }

    // Whatever the moment, what was stored goes with its cursor, so the next connection brings the
    // rest: nothing is lost, and nothing comes twice.
    // Ten thousand cuts take longer than a token usually lasts.
    #[with(ACCESS_TOKEN_EXPIRE_MINUTES = "1440")]
    async fn a_connection_that_is_cut_at_any_frame_is_gone_on_from(world: World) {
        let mut random = random();
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let group = alice.create_group("Hikers", &[&bob]).await;
        let mut happens = History::begin(random.clone(), vec![alice, bob.clone()]).await;
        happens.conversations.push(group);
        let mut device = Device::new(&bob).await;
        let kills = number("SOCKET_KILLS", 150);
        let mut taken = BTreeSet::new();
        let mut frames = 0;
        let is_over = Cell::new(false);
        let cuts = async {
            for _ in 0..kills {
                let (way, size) = (*random.of(&[Way::Socket, Way::Stream]), size(&mut random));
                let mut line = device.connect(way, size).await;
                for _ in 0..random.below(8) {
                    let frame = line.next().await;
                    let Some(_) = device.replica.take_frame(&frame).await.unwrap() else {
                        continue; // the welcome of the command
                    };
                    frames += 1;
                    for message in messages_of(&frame) {
                        let row = (message["id"].to_string(), message["version"].as_i64());
                        assert!(taken.insert(row), "twice: {message}");
                    }
                }
            }
            is_over.set(true);
        };
        let talk = async {
            while !is_over.get() {
                happens.talk().await;
            }
        };

        tokio::join!(cuts, talk);

        println!(
            "{kills} cuts after {frames} frames, {} messages taken",
            taken.len()
        );
        while device.page((50, 20)).await != Next::UpToDate {}
        device.assert_whole().await;
    }
);

/// Sends a write of the outbox.
async fn send(person: &Person, write: &Write) -> Answer {
    let request = person
        .http
        .request(write.method.parse().unwrap(), &write.path);
    let request = request
        .header("Idempotency-Key", &write.key)
        .json(&write.body);
    person.http.send(request).await
}

/// The messages that a frame brings.
fn messages_of(frame: &Value) -> Vec<&Value> {
    let rows = frame["data"]["messages"].as_array();
    let rows = rows.into_iter().flatten();
    let payload = Some(&frame["payload"]).filter(|it| it["client_message_id"].is_string());
    rows.chain(payload).collect()
}

/// Puts the files of an SQLite database, whose server does not run, into another folder.
fn copy_database(from: &Path, to: &Path) {
    for file in ["app.db", "app.db-wal", "app.db-shm"] {
        // A server that has stopped by itself leaves one file.
        let _ = std::fs::remove_file(to.join(file));
        let _ = std::fs::copy(from.join(file), to.join(file));
    }
    assert!(to.join("app.db").exists());
}

// They were answered, so nobody else would ever know of them.
#[tokio::test]
async fn sqlite_writes_that_a_restore_has_taken_back_are_sent_again() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let mut device = Device::new(&alice).await;
    while device.page((50, 5)).await != Next::UpToDate {}
    let World { server, home, .. } = world;
    drop(server);
    let copy = tempfile::tempdir().unwrap();
    copy_database(home.folder(), copy.path());

    let World { server, home, .. } = {
        let world = World::at(home).await;
        let replica = &mut device.replica;
        let messages = format!("/v1/conversations/{conversation}/messages");
        let message = json!({"client_message_id": fresh_id(), "content": "lost"});
        let block = format!("/v1/users/me/blocks/{}", bob.id);
        for (method, path, body) in [
            ("POST", messages.as_str(), message),
            ("PUT", "/v1/users/me/prefs/theme", json!({"value": "dark"})),
            ("PUT", block.as_str(), json!({})),
        ] {
            let written = replica.write(&fresh_id(), method, path, &body).await;
            written.unwrap();
        }
        flush(replica, &world.again(&alice)).await;
        world
    };
    drop(server);
    copy_database(copy.path(), home.folder());
    let world = World::at(home).await;
    device.person = world.again(&alice);

    let path = device.replica.next_page(50, 5).await.unwrap();
    let refused = device.person.get(&path).await;
    refused.error(410, "resync_required");
    for way in [Way::Socket, Way::Stream] {
        let mut line = device.connect(way, (50, 5)).await;
        let mut frame = line.next().await;
        if frame["type"] == "ack" {
            frame = line.next().await;
        }
        assert_eq!(frame["type"], "sync.reset", "{way:?}: {frame}");
    }
    assert_eq!(device.page((50, 5)).await, Next::BeginAgain);
    flush(&mut device.replica, &device.person).await;
    while device.page((50, 5)).await != Next::UpToDate {}
    device.assert_whole().await;
    let messages = device.replica.messages(&conversation, 0).await.unwrap();
    assert_eq!(messages[0]["content"], "lost");
    assert_eq!(device.replica.prefs().await.unwrap()[0]["value"], "dark");
    let blocks = device.replica.blocks().await.unwrap();
    assert_eq!(blocks[0]["user_id"], *bob.id);
    // The sync has brought all of it.
    device.replica.begin_again().await.unwrap();
    assert_eq!(device.replica.next_write().await.unwrap(), None);
}

/// Sends what waits in the outbox.
async fn flush(replica: &mut Replica, person: &Person) {
    while let Some(write) = replica.next_write().await.unwrap() {
        let answer = send(person, &write).await;
        let data = match answer.status {
            201 => answer.data(201),
            _ => answer.data(200),
        };
        assert!(data["version"].is_i64(), "{write:?}: {data}");
        replica.confirmed(&write, data).await.unwrap();
    }
}

#[test]
fn a_write_is_given_up_only_when_the_server_itself_refuses_it() {
    let data = br#"{"data":{"id":1}}"#.as_slice();
    let error = br#"{"error":{"code":"x","message":"y"}}"#.as_slice();
    let portal = b"<html>Welcome to our hotel</html>".as_slice();
    let proxy = br#"{"message":"no"}"#.as_slice();
    let refused = Reply::Refused(json!({"code": "x", "message": "y"}));
    for (statuses, body, expected) in [
        (&[200, 201][..], data, Reply::Done(json!({"id": 1}))),
        (&[200, 201, 204, 302], portal, Reply::Later),
        (&[200, 302], proxy, Reply::Later),
        (&[401], error, Reply::Unauthenticated),
        (&[400, 403, 404, 409, 410, 413, 422], error, refused),
        (&[400, 403, 404, 407, 413, 451], portal, Reply::Later),
        (&[403, 404], proxy, Reply::Later),
        (&[408, 425, 429, 502, 503, 504, 507], error, Reply::Later),
        (&[500], error, Reply::Failed),
    ] {
        for status in statuses {
            assert_eq!(Reply::of(*status, body), expected, "{status}");
        }
    }
}

#[tokio::test]
async fn a_write_at_which_the_server_keeps_failing_lets_others_pass_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replica.db");
    let mut replica = Replica::open(&file, "alice").await.unwrap();
    for key in ["failing", "behind"] {
        let written = replica.write(key, "POST", "/", &json!({})).await;
        written.unwrap();
    }
    let first = replica.next_write().await.unwrap().unwrap();
    assert_eq!(first.key, "failing");

    let mut tries = 1;
    while !replica.failed(&first).await.unwrap() {
        assert_eq!(replica.next_write().await.unwrap().unwrap(), first);
        tries += 1;
    }

    assert_eq!(tries, 8);
    assert_eq!(replica.next_write().await.unwrap().unwrap().key, "behind");
    let mut replica = Replica::open(&file, "alice").await.unwrap();
    assert_eq!(replica.next_write().await.unwrap().unwrap(), first);
    replica.refused(&first).await.unwrap();
    assert_eq!(replica.next_write().await.unwrap().unwrap().key, "behind");
}
