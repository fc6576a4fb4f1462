//! Going on from a cursor, on a WebSocket and as server-sent events: what was missed, and then what
//! happens, each change once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{
    EventStream, PATIENCE, Person, Socket, assert_fields, assert_id, assert_message, assert_time,
    on_both_databases, texts, within,
};

/// Longer than anybody is waited for who does not read.
const TOO_SLOW: Duration = Duration::from_secs(15);
/// How long the end of a session may take to be known.
const SOON: Duration = Duration::from_secs(2);

/// Where somebody is who has just begun.
async fn begun(person: &Person) -> String {
    let start = person.get("/v1/sync/bootstrap").await;
    start.data(200)["next_cursor"].as_str().unwrap().to_owned()
}

fn cursor(frame: &Value) -> String {
    frame["cursor"].as_str().unwrap().to_owned()
}

/// Opens a socket that goes on from a cursor, and is acknowledged.
async fn resumed(person: &Person, cursor: &str) -> Socket {
    let mut socket = person.socket().await;
    resume(&mut socket, json!({"cursor": cursor})).await;
    socket
}

async fn resume(socket: &mut Socket, with: Value) {
    let mut command = with;
    command["op"] = json!("resume");
    let answer = socket.ask(&command).await;
    let ack = json!({"type": "ack", "op": "resume", "ok": true, "details": {"mode": "replay"}});
    assert_eq!(answer, ack);
}

async fn expect(socket: &mut Socket, kind: &str) -> Value {
    let frame = socket.next_json().await;
    assert_eq!(frame["type"], kind, "{frame}");
    frame
}

/// Of which messages a frame tells, or says that they are missing.
fn seqs_in(frame: &Value) -> Vec<i64> {
    let number = |field: &Value| field.as_i64().unwrap();
    match frame["type"].as_str() {
        Some("message.created") => vec![number(&frame["seq"])],
        Some("sync.page") => {
            let rows = |name: &str| frame["data"][name].as_array().unwrap().clone();
            let told = rows("messages").into_iter().map(|it| number(&it["seq"]));
            let gaps = rows("gaps").into_iter();
            told.chain(gaps.flat_map(|it| number(&it["from_seq"])..=number(&it["to_seq"])))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Insists that nothing comes after a cursor.
async fn assert_nothing_after(person: &Person, cursor: &str) {
    let path = format!("/v1/sync/changes?cursor={cursor}");
    let page = person.get(&path).await.data(200).clone();
    for rows in [
        "users",
        "conversations",
        "messages",
        "reads",
        "removed_conversations",
    ] {
        assert_eq!(page[rows], json!([]), "{rows}");
    }
}

fn path_of(message: &Value) -> String {
    let text = |field: &str| message[field].as_str().unwrap().to_owned();
    format!(
        "/v1/conversations/{}/messages/{}",
        text("conversation_id"),
        text("id")
    )
}

on_both_databases!(
    async fn a_socket_that_resumes_gets_what_it_missed_and_then_what_happens(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begun(&bob).await;
        let missed = alice.send(&conversation, "missed").await;

        let mut socket = resumed(&bob, &start).await;
        let page = expect(&mut socket, "sync.page").await;
        assert_eq!(page["data"]["messages"], json!([missed]));
        assert_eq!(page["data"]["has_more"], false);
        assert_eq!(page["data"]["next_cursor"], page["cursor"]);
        let live = expect(&mut socket, "sync.live").await;
        assert_nothing_after(&bob, &cursor(&live)).await;

        let sent = alice.send(&conversation, "live").await;
        let created = expect(&mut socket, "message.created").await;
        let fields = [
            "event_id",
            "conversation_id",
            "seq",
            "occurred_at",
            "payload",
            "cursor",
        ];
        assert_fields(&created, &fields);
        assert_id(&created["event_id"]);
        assert_time(&created["occurred_at"]);
        assert_eq!(created["conversation_id"], conversation);
        assert_eq!(created["seq"], 2);
        let payload = &created["payload"];
        assert_message(payload);
        for field in sent.as_object().unwrap().keys() {
            assert_eq!(payload[field], sent[field], "{field}");
        }
        assert_eq!(payload["sender"], alice.user);
        assert_eq!(payload["conversation"]["last_message_preview"], "live");
        assert_eq!(payload["conversation"]["version"], sent["version"]);
        assert_nothing_after(&bob, &cursor(&created)).await;
    }

    async fn a_socket_that_has_resumed_is_told_of_every_kind_of_change(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let one = alice.send(&conversation, "one").await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        alice
            .patch(&path_of(&one), &json!({"content": "eins"}))
            .await
            .data(200);
        let edited = expect(&mut socket, "message.updated").await;
        assert_eq!(edited["payload"]["content"], "eins");
        assert_eq!(edited["payload"]["reaction"], Value::Null);
        assert_eq!(
            edited["payload"]["conversation"]["last_message_preview"],
            "eins"
        );

        let reaction = format!("{}/reactions/%F0%9F%91%8D", path_of(&one));
        alice.put(&reaction, &json!({})).await.data(200);
        let reacted = expect(&mut socket, "message.updated").await;
        // Whose they are is said of the one that came only, since all are told the same.
        assert_eq!(
            reacted["payload"]["reactions"],
            json!([{"emoji": "👍", "count": 1}])
        );
        let moved = json!({"user_id": alice.id, "emoji": "👍", "added": true});
        assert_eq!(reacted["payload"]["reaction"], moved);

        let read = format!("/v1/conversations/{conversation}/read");
        bob.put(&read, &json!({"seq": 1})).await.data(200);
        let marked = expect(&mut socket, "read.updated").await;
        assert_eq!(marked["conversation_id"], conversation);
        assert_eq!(marked["seq"], 1);
        assert_eq!(marked["payload"]["user_id"], bob.id);
        assert_eq!(marked["payload"]["last_read_seq"], 1);
        assert_eq!(marked["payload"]["unread_count"], 0);

        alice.delete(&path_of(&one)).await.data(200);
        let deleted = expect(&mut socket, "message.deleted").await;
        assert_eq!(deleted["payload"]["content"], "");
        assert_time(&deleted["payload"]["deleted_at"]);
        assert_eq!(
            deleted["payload"]["conversation"]["last_message_preview"],
            ""
        );

        let name = json!({"display_name": "Alice A."});
        let alice_now = alice.patch("/v1/users/me", &name).await.data(200).clone();
        let user = expect(&mut socket, "user.updated").await;
        assert_eq!(user["payload"]["user"], alice_now);
        assert_nothing_after(&bob, &cursor(&user)).await;
    }

    // Who belongs to a conversation, and what it is to oneself, a page says better than an event.
    async fn what_no_event_can_tell_comes_as_a_page(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        let group = alice.create_group("Hikers", &[&bob]).await;
        let joined = expect(&mut socket, "sync.page").await;
        assert_eq!(joined["data"]["conversations"][0]["id"], group);
        assert_eq!(joined["data"]["conversations"][0]["initial"], true);
        expect(&mut socket, "sync.live").await;

        alice.send(&group, "hello").await;
        expect(&mut socket, "message.created").await;

        let member = format!("/v1/conversations/{group}/members/{}", bob.id);
        alice.delete(&member).await.data(200);
        let removed = expect(&mut socket, "sync.page").await;
        assert_eq!(
            texts(&removed["data"]["removed_conversations"], "id"),
            [group.as_str()]
        );
        expect(&mut socket, "sync.live").await;

        alice.send(&group, "not for bob").await;
        socket.expect_pong().await;
    }

    async fn what_is_only_ones_own_comes_as_a_page(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        let block = format!("/v1/users/me/blocks/{}", alice.id);
        bob.put(&block, &json!({})).await.data(200);

        let page = expect(&mut socket, "sync.page").await;
        assert_eq!(page["data"]["self"]["blocks"][0]["user_id"], alice.id);
        expect(&mut socket, "sync.live").await;
    }

    async fn who_is_writing_is_told_to_those_who_have_resumed(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut bobs = resumed(&bob, &begun(&bob).await).await;
        expect(&mut bobs, "sync.live").await;
        let start = begun(&bob).await;
        let mut stream = EventStream::open(&bob.http, "/v1/events", Some(&start)).await;
        stream.expect("sync.live").await;
        let mut old = bob.listening(&[&conversation]).await;
        let mut alices = alice.listening(&[&conversation]).await;

        let command = json!({"op": "typing", "conversation_id": conversation, "state": "start"});
        let answer = alices.ask(&command).await;
        assert_eq!(
            (&answer["type"], &answer["op"]),
            (&json!("ack"), &json!("typing"))
        );

        let typing = json!({
            "type": "typing", "conversation_id": conversation,
            "payload": {"user_id": alice.id, "state": "start", "ttl_ms": 6000},
        });
        assert_eq!(bobs.next_json().await, typing);
        let event = stream.expect("typing").await;
        assert_eq!(
            (event.data, event.id),
            (typing, None),
            "no place of its own"
        );
        // A client without a socket says it over REST.
        let path = format!("/v1/conversations/{conversation}/typing");
        let answer = alice.post(&path, &json!({"state": "stop"})).await;
        assert_eq!(answer.data(200), &json!({"ok": true}));
        assert_eq!(bobs.next_json().await["payload"]["state"], "stop");
        alice
            .post(&path, &json!({"state": "now"}))
            .await
            .invalid("state");
        // Whoever subscribes never hears of it.
        alice.send(&conversation, "hello").await;
        old.next_message().await;
        for wrong in ["01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10", "nonsense"] {
            let command = json!({"op": "typing", "conversation_id": wrong, "state": "stop"});
            old.refused(&command, "FORBIDDEN_CONVERSATION").await;
        }
    }

    #[with(PRESENCE_INTERVAL_MS = "50")]
    async fn who_comes_and_goes_is_told_to_those_who_have_resumed(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut old = bob.listening(&[&conversation]).await;
        let mut bobs = resumed(&bob, &begun(&bob).await).await;
        expect(&mut bobs, "sync.live").await;
        let start = begun(&bob).await;
        let mut stream = EventStream::open(&bob.http, "/v1/events", Some(&start)).await;
        stream.expect("sync.live").await;

        let alices = alice.socket().await;
        let online = json!({"user_id": alice.id, "online": true, "last_seen_at": null});
        let frame = json!({"type": "presence", "payload": {"people": [online]}});
        assert_eq!(bobs.next_json().await, frame);
        let event = stream.expect("presence").await;
        assert_eq!((event.data, event.id), (frame, None), "no place of its own");
        let ids = json!({"ids": [alice.id, bob.id, "nonsense"]});
        let answer = bob.post("/v1/users/presence", &ids).await;
        assert_eq!(answer.data(200), &json!({"people": [online]}));

        drop(alices);
        let went = expect(&mut bobs, "presence").await;
        let went = &went["payload"]["people"][0];
        assert_eq!(
            (&went["user_id"], &went["online"]),
            (&json!(alice.id), &json!(false))
        );
        assert_time(&went["last_seen_at"]);
        // Whoever subscribes never hears of it.
        alice.send(&conversation, "hello").await;
        old.next_message().await;
    }

    async fn who_does_not_read_is_closed_with_1013_and_goes_on_from_the_cursor(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut start = begun(&bob).await;
        let bearer = format!("Bearer {}", bob.access_token);
        let headers = [("authorization", bearer.as_str())];
        let stuck = Socket::open_narrow(world.address(), "/v1/ws", &headers);
        let mut stuck = stuck.await.unwrap();
        resume(&mut stuck, json!({"cursor": start})).await;
        expect(&mut stuck, "sync.live").await;

        // Eight megabytes: more than a kernel holds for a socket that nobody reads.
        let long = "😀".repeat(2000);
        for _ in 0..20 {
            join_all((0..50).map(|_| alice.send(&conversation, &long))).await;
        }
        // The rule is about time, so here time has to pass.
        tokio::time::sleep(TOO_SLOW).await;

        let closed = stuck.closed().await;
        assert!(
            matches!(closed.code, Some(1013) | None),
            "{:?}",
            closed.code
        );
        let mut known = BTreeSet::new();
        for frame in &closed.frames {
            known.extend(seqs_in(frame));
            start = cursor(frame);
        }
        assert!(
            known.len() < 1000,
            "everything arrived: the reader was not stuck"
        );
        loop {
            let path = format!("/v1/sync/changes?cursor={start}&limit=500&timeline_limit=200");
            let page = bob.get(&path).await.data(200).clone();
            known.extend(seqs_in(&json!({"type": "sync.page", "data": page})));
            start = page["next_cursor"].as_str().unwrap().to_owned();
            if page["has_more"] == false {
                break;
            }
        }
        assert!(known.into_iter().eq(1..=1000));
    }

    async fn without_a_cursor_a_socket_begins(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send_many(&conversation, 30).await;
        let mut socket = bob.socket().await;

        resume(&mut socket, json!({"limit": 10, "timeline_limit": 5})).await;
        let page = expect(&mut socket, "sync.page").await;
        assert_eq!(page["data"]["conversations"][0]["initial"], true);
        assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 5);
        assert_eq!(page["data"]["gaps"][0]["to_seq"], 25);
        expect(&mut socket, "sync.live").await;
    }

    async fn long_absences_come_in_pages_of_the_size_that_was_asked_for(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begun(&bob).await;
        alice.send_many(&conversation, 50).await;
        let mut socket = bob.socket().await;

        let with = json!({"cursor": start, "limit": 20, "timeline_limit": 200});
        resume(&mut socket, with).await;
        let mut seqs = Vec::new();
        loop {
            let frame = socket.next_json().await;
            if frame["type"] == "sync.live" {
                break;
            }
            let messages = frame["data"]["messages"].as_array().unwrap();
            assert!(messages.len() <= 20);
            seqs.extend(messages.iter().map(|it| it["seq"].as_i64().unwrap()));
        }

        assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    }

    async fn a_cursor_that_is_none_is_answered_by_a_reset_and_the_socket_stays(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let of_alice = begun(&alice).await;
        let too_long = "x".repeat(3000);
        for wrong in [" ", "nonsense", &of_alice, &of_alice[1..], &too_long] {
            let mut socket = bob.socket().await;

            let command = json!({"op": "resume", "cursor": wrong});
            let mut frame = socket.ask(&command).await;
            if frame["type"] == "ack" {
                frame = socket.next_json().await;
            }
            assert_eq!(frame["type"], "sync.reset", "{wrong}: {frame}");
            let reason = frame["reason"].as_str().unwrap();
            assert!(
                ["cursor_malformed", "cursor_version"].contains(&reason),
                "{reason}"
            );
            assert_eq!(frame["retry_after_ms"], 0);
            // Nothing comes to a client that has lost its place, until it begins.
            alice.send(&conversation, "hello").await;
            socket.expect_pong().await;
            resume(&mut socket, json!({})).await;
            expect(&mut socket, "sync.page").await;
            expect(&mut socket, "sync.live").await;
        }
    }

    async fn a_resume_that_breaks_a_rule_is_refused_and_changes_nothing(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        for wrong in [
            json!({"limit": 0}),
            json!({"limit": 501}),
            json!({"timeline_limit": 201}),
            json!({"timeline_limit": -1}),
            json!({"limit": 9_007_199_254_740_993_u64}),
            json!({"seen": "1"}),
            json!({"seen": "0:-1"}),
            json!({"cursor": 7}),
            json!({"from": "x"}),
        ] {
            let mut command = wrong;
            command["op"] = json!("resume");
            socket.refused(&command, "INVALID_COMMAND").await;
        }

        alice.send(&conversation, "hello").await;
        socket.next_message().await;
    }

    async fn a_socket_that_has_resumed_can_not_subscribe(world: World) {
        let (_, bob, conversation) = world.alice_and_bob().await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        for op in ["subscribe", "unsubscribe"] {
            let command = json!({"op": op, "conversation_ids": [conversation]});
            socket.refused(&command, "INVALID_COMMAND").await;
        }
    }

    async fn a_socket_may_resume_again_from_elsewhere(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begun(&bob).await;
        alice.send(&conversation, "one").await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        resume(&mut socket, json!({"cursor": start})).await;

        let page = expect(&mut socket, "sync.page").await;
        assert_eq!(texts(&page["data"]["messages"], "content"), ["one"]);
        expect(&mut socket, "sync.live").await;
    }

    async fn a_socket_that_subscribes_never_sees_a_frame_of_those_who_resume(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        let one = alice.send(&conversation, "one").await;
        socket.next_message().await;

        alice
            .patch(&path_of(&one), &json!({"content": "eins"}))
            .await
            .data(200);
        let read = format!("/v1/conversations/{conversation}/read");
        bob.put(&read, &json!({"seq": 1})).await.data(200);
        alice.delete(&path_of(&one)).await.data(200);
        alice.send(&conversation, "two").await;

        let (created, _) = socket.next_message().await;
        assert_eq!(created["payload"]["content"], "two");
        assert_eq!(created["cursor"], Value::Null);
    }

    async fn a_socket_that_has_resumed_is_closed_when_its_session_ends(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        bob.post("/v1/auth/logout-all", &json!({})).await;

        assert_eq!(socket.closed().await.code, Some(1008));
    }

    async fn a_socket_whose_cursor_was_refused_is_closed_when_its_session_ends(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        // One is refused at once, one by the stream.
        for wrong in ["!", &begun(&alice).await] {
            let bob = world.log_in(&bob.username).await;
            let mut socket = bob.socket().await;
            let command = json!({"op": "resume", "cursor": wrong});
            let mut frame = socket.ask(&command).await;
            if frame["type"] == "ack" {
                frame = socket.next_json().await;
            }
            assert_eq!(frame["type"], "sync.reset", "{wrong}: {frame}");
            alice.send(&conversation, "not told").await;
            socket.expect_pong().await;

            bob.post("/v1/auth/logout-all", &json!({})).await;
            let start = Instant::now();

            let closed = socket.closed().await;
            assert_eq!(closed.code, Some(1008), "{:?}", closed.frames);
            assert!(start.elapsed() < SOON, "closed after {:?}", start.elapsed());
        }
    }

    async fn an_empty_cursor_begins(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "hello").await;

        let changes = bob.get("/v1/sync/changes?cursor=").await.data(200).clone();
        assert_eq!(changes["messages"], json!([sent]));
        assert!(changes["next_cursor"].is_string(), "{changes}");
        let mut stream = EventStream::open(&bob.http, "/v1/events?cursor=", None).await;
        let page = stream.expect("sync.page").await;
        assert_eq!(page.data["data"]["messages"], json!([sent]));
        let mut socket = resumed(&bob, "").await;
        let page = expect(&mut socket, "sync.page").await;
        assert_eq!(page["data"]["messages"], json!([sent]));
    }

    async fn a_stream_of_events_goes_on_from_the_last_event_id(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begun(&bob).await;
        let missed = alice.send(&conversation, "missed").await;

        let path = format!("/v1/events?cursor={start}");
        let mut stream = EventStream::open(&bob.http, &path, None).await;
        let page = stream.expect("sync.page").await;
        assert_eq!(page.data["data"]["messages"], json!([missed]));
        assert_eq!(page.id.as_deref(), page.data["cursor"].as_str());
        assert_eq!(page.retry, Some(2000));
        stream.expect("sync.live").await;
        alice.send(&conversation, "live").await;
        let created = stream.expect("message.created").await;
        assert_eq!(created.data["payload"]["content"], "live");
        drop(stream);

        alice.send(&conversation, "later").await;
        // The header is newer than the address, which a browser does not change.
        let mut stream = EventStream::open(&bob.http, &path, created.id.as_deref()).await;
        let page = stream.expect("sync.page").await;
        assert_eq!(texts(&page.data["data"]["messages"], "content"), ["later"]);
        stream.expect("sync.live").await;
    }

    async fn a_stream_takes_the_token_in_the_address_and_insists_on_one(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let path = format!("/v1/events?access_token={}", bob.access_token);

        let mut stream = EventStream::open(&world.http, &path, None).await;
        stream.expect("sync.page").await;

        world
            .http
            .get("/v1/events")
            .await
            .error(401, "not_authenticated");
        let wrong = world.http.get("/v1/events?access_token=x").await;
        wrong.error(401, "invalid_token");
        bob.get("/v1/events?limit=0")
            .await
            .error(422, "validation_error");
        bob.get("/v1/events?seen=7")
            .await
            .error(422, "validation_error");
    }

    async fn a_stream_from_no_cursor_says_so_forgets_it_and_ends(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let too_long = "x".repeat(3000);
        for wrong in ["nonsense", &too_long] {
            let mut stream = EventStream::open(&bob.http, "/v1/events", Some(wrong)).await;

            let reset = stream.expect("sync.reset").await;

            let reason = reset.data["reason"].as_str().unwrap();
            assert!(
                ["cursor_malformed", "cursor_version"].contains(&reason),
                "{reason}"
            );
            // Whoever connects again sends no id then, and begins.
            assert_eq!(reset.id.as_deref(), Some(""));
            assert_eq!(stream.next().await, None);
        }
    }

    async fn a_stream_ends_with_its_session(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let mut stream = EventStream::open(&bob.http, "/v1/events", None).await;
        stream.expect("sync.page").await;
        stream.expect("sync.live").await;

        bob.post("/v1/auth/logout-all", &json!({})).await;

        assert_eq!(stream.next().await, None);
    }

    #[with(WS_MAX_CONNECTIONS = "1")]
    async fn streams_and_sockets_share_the_places(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let mut stream = EventStream::open(&bob.http, "/v1/events", None).await;
        stream.expect("sync.page").await;

        let second = bob.get("/v1/events").await;
        second.error(503, "service_unavailable");
        drop(stream);
        let again = async {
            while bob
                .http
                .bare(bob.http.request("GET".parse().unwrap(), "/v1/events"))
                .await
                .status()
                != 200
            {}
        };
        within(PATIENCE, "a place", again).await;
    }

    #[with(WS_MAX_CONNECTIONS_PER_USER = "1")]
    async fn one_person_does_not_take_every_place(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut stream = EventStream::open(&bob.http, "/v1/events", None).await;
        stream.expect("sync.page").await;

        let second = bob.get("/v1/events").await;
        second.error(503, "service_unavailable");
        let mut other = EventStream::open(&alice.http, "/v1/events", None).await;
        other.expect("sync.page").await;
    }

    // A client that reads slowly gets pages in place of what it did not take in time.
    async fn a_reader_who_falls_behind_goes_on_with_pages(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = resumed(&bob, &begun(&bob).await).await;
        expect(&mut socket, "sync.live").await;

        // More than the channel, the queue and the kernel hold, while half of it is read.
        let long = "😀".repeat(2000);
        let mut known = Vec::new();
        for batch in 1..=20 {
            join_all((0..50).map(|_| alice.send(&conversation, &long))).await;
            while known.len() < batch * 25 {
                known.extend(seqs_of(&socket.next_json().await));
            }
        }
        let last = alice.send(&conversation, "the end").await["seq"]
            .as_i64()
            .unwrap();
        while known.last() != Some(&last) {
            known.extend(seqs_of(&socket.next_json().await));
        }

        assert_eq!(
            known,
            (1..=last).collect::<Vec<_>>(),
            "each once, in order, or declared"
        );
    }
);

/// The places in a conversation of what a frame brings or declares as left out.
fn seqs_of(frame: &Value) -> Vec<i64> {
    let seq = |value: &Value| value.as_i64().unwrap();
    match frame["type"].as_str().unwrap() {
        "message.created" => vec![seq(&frame["seq"])],
        "sync.live" => vec![],
        "sync.page" => {
            let rows = |field: &str| frame["data"][field].as_array().unwrap().clone();
            let gaps = rows("gaps").into_iter();
            let left_out = gaps.flat_map(|gap| seq(&gap["from_seq"])..=seq(&gap["to_seq"]));
            let messages = rows("messages").into_iter().map(|it| seq(&it["seq"]));
            left_out.chain(messages).collect()
        }
        other => panic!("{other}"),
    }
}
