//! Editing, deleting and reacting, and what a message has beside its text.

use serde_json::{Value, json};
use tests::{
    Answer, Person, assert_fields, assert_id, assert_message, assert_time, encoded, fresh_id,
    on_both_databases,
};

/// The path of a message.
fn path(message: &Value) -> String {
    let (conversation, id) = (&message["conversation_id"], &message["id"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    format!(
        "/v1/conversations/{}/messages/{}",
        text(conversation),
        text(id)
    )
}

fn reaction_path(message: &Value, emoji: &str) -> String {
    format!("{}/reactions/{}", path(message), encoded(emoji))
}

/// The message of an answer that says of what moment it is.
fn unstamped(answer: &Answer) -> Value {
    let mut message = answer.data(200).clone();
    let stamp = message.as_object_mut().unwrap().remove("stamp");
    assert!(stamp.unwrap()["as_of"].as_i64() >= message["version"].as_i64());
    message
}

/// A request with a body and a key, where there are any.
async fn ask(who: &Person, method: &str, path: &str, body: Option<Value>, key: &str) -> Answer {
    let mut request = who.http.request(method.parse().unwrap(), path);
    if let Some(body) = body {
        request = request.json(&body);
    }
    if !key.is_empty() {
        request = request.header("Idempotency-Key", key);
    }
    who.http.send(request).await
}

async fn edit(who: &Person, message: &Value, content: &str) -> Answer {
    let body = json!({ "content": content });
    ask(who, "PATCH", &path(message), Some(body), "").await
}

async fn react(who: &Person, message: &Value, emoji: &str) -> Answer {
    ask(who, "PUT", &reaction_path(message, emoji), None, "").await
}

async fn unreact(who: &Person, message: &Value, emoji: &str) -> Answer {
    ask(who, "DELETE", &reaction_path(message, emoji), None, "").await
}

/// Insists on the fields that came after version 1 of the protocol.
#[track_caller]
fn assert_whole(message: &Value) {
    assert_message(message);
    let names = ["version", "edited_at", "deleted_at", "reply_to"];
    let more = ["mentions", "reactions", "metadata"];
    assert_fields(message, &[&names[..], &more].concat());
    assert!(
        message["version"].as_i64().is_some_and(|it| it > 0),
        "{message}"
    );
}

on_both_databases!(
    async fn a_new_message_has_every_field(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;

        let message = alice.send(&conversation, "hello").await;

        assert_whole(&message);
        for none in ["edited_at", "deleted_at", "reply_to", "metadata"] {
            assert_eq!(message[none], Value::Null, "{none}");
        }
        assert_eq!(message["mentions"], json!([]));
        assert_eq!(message["reactions"], json!([]));
    }

    async fn a_message_answers_another_names_members_and_carries_facts(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let first = alice.send(&conversation, "first").await;
        let body = json!({
            "client_message_id": "client-message-1", "content": "@alice", "reply_to": first["id"],
            "mentions": [alice.id, alice.id], "metadata": {"order": {"id": 7}},
        });
        let messages = format!("/v1/conversations/{conversation}/messages");

        let answer = bob.post(&messages, &body).await;

        let message = answer.data(201);
        assert_whole(message);
        assert_eq!(message["reply_to"], first["id"]);
        assert_eq!(message["mentions"], json!([alice.id]));
        assert_eq!(message["metadata"], json!({"order": {"id": 7}}));
        assert_eq!(&unstamped(&alice.get(&path(message)).await), message);
        assert_eq!(
            &alice.messages(&conversation, "?after_seq=1").await[0],
            message
        );

        let carol = world.register("carol").await;
        let with = |name: &str, value: Value| {
            let mut body = json!({"client_message_id": fresh_id(), "content": "hi"});
            body[name] = value;
            body
        };
        let nothing = with("reply_to", json!(fresh_id()));
        bob.post(&messages, &nothing)
            .await
            .error(404, "message_not_found");
        let stranger = with("mentions", json!([carol.id]));
        bob.post(&messages, &stranger)
            .await
            .error(404, "member_not_found");
        for (name, wrong) in [
            ("reply_to", json!("x")),
            ("reply_to", json!(7)),
            ("mentions", json!(["x"])),
            ("mentions", json!("x")),
            (
                "mentions",
                json!((0..51).map(|_| fresh_id()).collect::<Vec<_>>()),
            ),
            ("metadata", json!([])),
            ("metadata", json!("{}")),
            ("metadata", json!({"x": "x".repeat(4096)})),
        ] {
            bob.post(&messages, &with(name, wrong)).await.invalid(name);
        }
        for name in ["reply_to", "mentions", "metadata"] {
            bob.post(&messages, &with(name, Value::Null))
                .await
                .data(201);
        }
    }

    async fn an_edit_is_seen_by_everybody(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "helo").await;

        let answer = edit(&alice, &sent, "hello").await;

        let edited = &unstamped(&answer);
        assert_whole(edited);
        assert_eq!(edited["content"], "hello");
        assert_time(&edited["edited_at"]);
        assert!(edited["version"].as_i64() > sent["version"].as_i64());
        for same in ["id", "seq", "created_at", "client_message_id", "sender_id"] {
            assert_eq!(edited[same], sent[same]);
        }
        assert_eq!(&bob.messages(&conversation, "").await[0], edited);
        assert_eq!(
            bob.conversations().await[0]["last_message_preview"],
            "hello"
        );
        let again = edit(&alice, &sent, "hello").await;
        assert_eq!(&unstamped(&again), edited);
        for wrong in [json!(""), json!("x".repeat(2001)), json!(7), Value::Null] {
            let body = json!({ "content": wrong });
            let answer = ask(&alice, "PATCH", &path(&sent), Some(body), "").await;
            answer.invalid("content");
        }
    }

    async fn a_deleted_message_is_a_tombstone_in_history_and_sync(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "a secret").await;
        react(&bob, &sent, "👍").await.data(200);

        let answer = alice.delete(&path(&sent)).await;

        let deleted = &unstamped(&answer);
        assert_whole(deleted);
        assert_eq!(deleted["content"], "");
        assert_time(&deleted["deleted_at"]);
        assert_eq!(deleted["reactions"], json!([]));
        assert_eq!(&unstamped(&alice.delete(&path(&sent)).await), deleted);
        let history = bob.messages(&conversation, "").await;
        assert_eq!(history, std::slice::from_ref(deleted));
        let bootstrap = bob.get("/v1/sync/bootstrap").await;
        assert_eq!(bootstrap.data(200)["recent_messages"], json!([deleted]));
        let preview = &bootstrap.data(200)["conversations"][0]["last_message_preview"];
        assert_eq!(preview, "");
        let changes = bob.get("/v1/sync/changes").await;
        assert_eq!(changes.data(200)["messages"], json!([deleted]));
        for answer in [
            edit(&alice, &sent, "back").await,
            react(&bob, &sent, "👍").await,
            unreact(&bob, &sent, "👍").await,
        ] {
            answer.error(409, "message_deleted");
        }
    }

    async fn reactions_are_counted_and_one_knows_ones_own(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "hello").await;

        react(&alice, &sent, "👩‍👩‍👧").await.data(200);
        let answer = react(&bob, &sent, "👩‍👩‍👧").await;

        let both = json!([{"emoji": "👩‍👩‍👧", "count": 2, "mine": true}]);
        assert_eq!(answer.data(200)["reactions"], both);
        for who in [&alice, &bob] {
            assert_eq!(who.messages(&conversation, "").await[0]["reactions"], both);
            let changes = who.get("/v1/sync/changes").await;
            assert_eq!(changes.data(200)["messages"][0]["reactions"], both);
            let bootstrap = who.get("/v1/sync/bootstrap").await;
            assert_eq!(bootstrap.data(200)["recentMessages"][0]["reactions"], both);
        }
        let again = react(&bob, &sent, "👩‍👩‍👧").await;
        assert_eq!(again.data(200), answer.data(200));
        unreact(&bob, &sent, "👩‍👩‍👧").await.data(200);
        let left = bob.get(&path(&sent)).await;
        let one = json!([{"emoji": "👩‍👩‍👧", "count": 1, "mine": false}]);
        assert_eq!(left.data(200)["reactions"], one);

        for wrong in [" ", "a b", "\n", &"x".repeat(65)] {
            react(&bob, &sent, wrong).await.invalid("emoji");
            unreact(&bob, &sent, wrong).await.invalid("emoji");
        }
        for n in 0..9 {
            react(&alice, &sent, &format!("word-{n}")).await.data(200);
        }
        react(&alice, &sent, "one-too-many").await.invalid("emoji");
    }

    async fn it_is_told_who_reacts_page_by_page(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "hello").await;
        let list = format!("{}/reactions", path(&sent));
        let none = json!({"reactions": [], "next_after": null});
        assert_eq!(bob.get(&list).await.data(200), &none);
        let mut expected = Vec::new();
        for who in [&alice, &bob] {
            for emoji in ["+1", "a:b/c", "👍"] {
                react(who, &sent, emoji).await.data(200);
                expected.push((who.id.clone(), emoji.to_owned()));
            }
        }
        expected.sort();

        let (mut found, mut query) = (Vec::new(), "?limit=4".to_owned());
        loop {
            let answer = bob.get(&format!("{list}{query}")).await;
            let page = answer.data(200);
            for reaction in page["reactions"].as_array().unwrap() {
                assert_time(&reaction["created_at"]);
                let text = |name: &str| reaction[name].as_str().unwrap().to_owned();
                found.push((text("user_id"), text("emoji")));
            }
            match page["next_after"].as_str() {
                Some(after) => query = format!("?limit=4&after={}", encoded(after)),
                None => break,
            }
        }

        assert_eq!(found, expected);
        for (name, wrong) in [
            ("limit", "0"),
            ("limit", "101"),
            ("after", "x"),
            ("after", ""),
        ] {
            let answer = bob.get(&format!("{list}?{name}={wrong}")).await;
            answer.invalid(name);
        }
        let carol = world.register("carol").await;
        carol.get(&list).await.error(404, "conversation_not_found");
        alice.delete(&path(&sent)).await.data(200);
        assert_eq!(bob.get(&list).await.data(200), &none);
    }

    async fn only_the_sender_edits_and_deletes(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "mine").await;

        edit(&bob, &sent, "yours").await.error(403, "forbidden");
        bob.delete(&path(&sent)).await.error(403, "forbidden");

        assert_eq!(bob.messages(&conversation, "").await, [sent]);
    }

    async fn a_stranger_cannot_tell_whether_a_message_exists(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "between us").await;
        let carol = world.register("carol").await;
        let nowhere = json!({"conversation_id": fresh_id(), "id": sent["id"]});
        let nothing = json!({"conversation_id": conversation, "id": fresh_id()});

        let mut seen = Vec::new();
        for message in [&sent, &nowhere, &nothing] {
            let answers = [
                carol.get(&path(message)).await,
                edit(&carol, message, "x").await,
                carol.delete(&path(message)).await,
                react(&carol, message, "x").await,
                unreact(&carol, message, "x").await,
            ];
            for answer in &answers {
                answer.error(404, "conversation_not_found");
            }
            seen.push(answers.map(|answer| answer.text));
        }
        assert!(seen.iter().all(|texts| *texts == seen[0]));

        let elsewhere = bob.open(&carol).await;
        let elsewhere = bob.send(&elsewhere, "elsewhere").await;
        let crossed = json!({"conversation_id": conversation, "id": elsewhere["id"]});
        let no_id = json!({"conversation_id": conversation, "id": "x"});
        for message in [&nothing, &crossed, &no_id] {
            for answer in [
                bob.get(&path(message)).await,
                edit(&bob, message, "x").await,
                bob.delete(&path(message)).await,
                react(&bob, message, "x").await,
                unreact(&bob, message, "x").await,
            ] {
                answer.error(404, "message_not_found");
            }
        }
    }

    async fn an_outbox_that_is_played_again_changes_nothing(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "draft").await;
        let at = path(&sent);
        let edit = async |key: &str, text: &str| {
            let body = json!({ "content": text });
            ask(&alice, "PATCH", &at, Some(body), key).await
        };
        let thumb = reaction_path(&sent, "👍");

        edit("edit-number-1", "A").await.data(200);
        edit("edit-number-2", "B").await.data(200);
        ask(&bob, "PUT", &thumb, None, "reaction-1").await.data(200);
        ask(&bob, "DELETE", &thumb, None, "reaction-2")
            .await
            .data(200);
        let now = alice.get(&at).await.data(200).clone();

        let replayed = edit("edit-number-1", "A").await;
        assert_eq!(replayed.data(200), &now);
        let replayed = ask(&bob, "PUT", &thumb, None, "reaction-1").await;
        assert_eq!(replayed.data(200), &now);
        assert_eq!(alice.get(&at).await.data(200), &now);

        edit("edit-number-1", "C")
            .await
            .error(409, "client_write_conflict");
        let answer = ask(&alice, "DELETE", &at, None, "edit-number-1").await;
        answer.error(409, "client_write_conflict");
        let answer = ask(&bob, "DELETE", &thumb, None, "reaction-1").await;
        answer.error(409, "client_write_conflict");
        assert_eq!(alice.get(&at).await.data(200), &now);
    }

    async fn an_idempotency_key_has_8_to_64_characters(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "hello").await;
        let thumb = reaction_path(&sent, "👍");

        for good in ["x".repeat(8), "x".repeat(64)] {
            ask(&alice, "PUT", &thumb, None, &good).await.data(200);
        }
        for bad in ["x".repeat(7), "x".repeat(65)] {
            for method in ["PUT", "DELETE"] {
                let answer = ask(&alice, method, &thumb, None, &bad).await;
                let error = answer.error(422, "validation_error");
                assert_eq!(
                    error["details"][0]["loc"],
                    json!(["header", "Idempotency-Key"])
                );
            }
            let body = json!({"content": "other"});
            let answer = ask(&alice, "PATCH", &path(&sent), Some(body), &bad).await;
            answer.invalid("Idempotency-Key");
            let answer = ask(&alice, "DELETE", &path(&sent), None, &bad).await;
            answer.invalid("Idempotency-Key");
        }
        let request = alice.http.request("PUT".parse().unwrap(), &thumb);
        let no_text = request.header("Idempotency-Key", &b"not-utf-8-\xff"[..]);
        alice.http.send(no_text).await.invalid("Idempotency-Key");
    }

    async fn history_is_read_backwards_too(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for number in 1..=7 {
            alice.send(&conversation, &number.to_string()).await;
        }
        let read = async |query: &str| {
            let path = format!("/v1/conversations/{conversation}/messages{query}");
            let answer = bob.get(&path).await;
            let data = answer.data(200);
            let messages = data["messages"].as_array().unwrap();
            let seqs = messages.iter().map(|it| it["seq"].as_i64().unwrap());
            (
                seqs.collect::<Vec<_>>(),
                data["has_more"].as_bool().unwrap(),
            )
        };

        assert_eq!(read("").await, ((1..=7).collect(), false));
        assert_eq!(read("?limit=6").await, ((1..=6).collect(), true));
        assert_eq!(read("?before_seq=6&limit=2").await, (vec![4, 5], true));
        assert_eq!(read("?before_seq=3&limit=2").await, (vec![1, 2], false));
        let hole = "?after_seq=2&before_seq=6&limit=2";
        assert_eq!(read(hole).await, (vec![4, 5], true));
        assert_eq!(
            read("?after_seq=2&before_seq=6").await,
            (vec![3, 4, 5], false)
        );
        assert_eq!(read("?before_seq=0").await, (vec![], false));
        for before in ["-1", "x", "1.5", ""] {
            let path = format!("/v1/conversations/{conversation}/messages?before_seq={before}");
            bob.get(&path).await.invalid("before_seq");
        }
    }

    async fn a_socket_of_version_1_hears_of_messages_only(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        let sent = alice.send(&conversation, "first").await;
        socket.next_message().await;

        edit(&alice, &sent, "edited").await.data(200);
        react(&alice, &sent, "👍").await.data(200);
        alice.delete(&path(&sent)).await.data(200);
        alice.send(&conversation, "second").await;

        let (created, updated) = socket.next_message().await;
        assert_eq!(created["payload"]["content"], "second");
        assert_eq!(created["seq"], 2);
        let payload = created["payload"].as_object().unwrap();
        let mut names: Vec<_> = payload.keys().map(String::as_str).collect();
        names.sort_unstable();
        let known = [
            "client_message_id",
            "content",
            "created_at",
            "id",
            "sender",
            "sender_id",
        ];
        assert_eq!(names, known);
        assert_id(&updated["payload"]["id"]);
    }

    async fn the_methods_of_a_message_are_told(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let sent = alice.send(&conversation, "hello").await;

        let answer = ask(&alice, "POST", &path(&sent), Some(json!({})), "").await;
        answer.error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET, PATCH, DELETE"));
        let thumb = reaction_path(&sent, "x");
        let answer = alice.get(&thumb).await;
        answer.error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("PUT, DELETE"));
    }
);
