//! Sending and reading messages.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, assert_message, fresh_id, on_both_databases};

fn seqs(messages: &[Value]) -> Vec<i64> {
    messages
        .iter()
        .map(|message| message["seq"].as_i64().unwrap())
        .collect()
}

/// What somebody can see of an answer that must look the same.
fn visible(answer: &Answer) -> (u16, String, Vec<String>) {
    let mut names: Vec<_> = answer.headers.keys().map(|name| name.to_string()).collect();
    names.sort();
    (answer.status, answer.text.clone(), names)
}

on_both_databases!(
    async fn a_message_is_stored_as_it_was_sent(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let content = "  <b>Hello</b> \u{202e}wörld 👩‍👩‍👧‍👦\r\n\t\"quoted\" \\ {{x}} ' -- ; \u{7f} ";

        let answer = alice
            .try_send(&conversation, "client-message-1", content)
            .await;

        let message = answer.data(201);
        assert_message(message);
        assert_eq!(message["conversation_id"], conversation);
        assert_eq!(message["sender_id"], alice.id);
        assert_eq!(message["client_message_id"], "client-message-1");
        assert_eq!(message["seq"], 1);
        assert_eq!(message["content"], content);
        assert_eq!(
            bob.messages(&conversation, "").await,
            std::slice::from_ref(message)
        );
    }

    async fn sending_again_gives_the_first_message(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;

        let first = alice
            .try_send(&conversation, "client-message-1", "once")
            .await;
        let again = alice
            .try_send(&conversation, "client-message-1", "once")
            .await;

        assert_eq!(first.data(201), again.data(200));
        bob.send(&conversation, "in between").await;
        let later = alice
            .try_send(&conversation, "client-message-1", "once")
            .await;
        assert_eq!(first.data(201), later.data(200));
        assert_eq!(seqs(&bob.messages(&conversation, "").await), [1, 2]);
    }

    async fn sending_again_on_another_device_and_after_a_restart_gives_the_first(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let first = alice
            .try_send(&conversation, "client-message-1", "once")
            .await;

        let world = world.restart().await;

        let phone = world.log_in("alice").await;
        let again = phone
            .try_send(&conversation, "client-message-1", "once")
            .await;
        assert_eq!(first.data(201), again.data(200));
    }

    async fn a_client_id_that_was_used_gives_the_first_message_whatever_is_sent(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let first = alice
            .try_send(&conversation, "client-message-1", "first")
            .await;

        let other = alice
            .try_send(&conversation, "client-message-1", "second")
            .await;

        assert_eq!(other.data(200), first.data(201));
        assert_eq!(
            bob.messages(&conversation, "").await,
            [first.data(201).clone()]
        );
    }

    async fn many_who_send_the_same_at_once_make_one_message(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;

        let sends = (0..32).map(|_| alice.try_send(&conversation, "client-message-1", "once"));
        let answers = join_all(sends).await;

        let created = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(created, 1);
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));
        assert_eq!(seqs(&alice.messages(&conversation, "").await), [1]);
    }

    async fn two_people_may_use_the_same_client_id(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;

        let from_alice = alice
            .try_send(&conversation, "client-message-1", "from alice")
            .await;
        let from_bob = bob
            .try_send(&conversation, "client-message-1", "from bob")
            .await;

        assert_eq!(from_alice.data(201)["seq"], 1);
        assert_eq!(from_bob.data(201)["seq"], 2);
        assert_eq!(from_bob.data(201)["content"], "from bob");
    }

    async fn a_client_id_that_was_used_in_another_conversation_is_a_conflict(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (with_bob, with_carol) = (alice.open(&bob).await, alice.open(&carol).await);
        alice
            .try_send(&with_bob, "client-message-1", "hi")
            .await
            .data(201);

        let answer = alice.try_send(&with_carol, "client-message-1", "hi").await;

        answer.error(409, "client_message_conflict");
        assert_eq!(carol.messages(&with_carol, "").await, [json!(null); 0]);
        assert!(!answer.text.contains(&with_bob), "{}", answer.text);
    }

    async fn a_stranger_cannot_tell_whether_a_conversation_exists(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "between us").await;
        let carol = world.register("carol").await;
        let nowhere = fresh_id();

        let mut seen = Vec::new();
        for id in [&conversation, &nowhere] {
            let read = carol.get(&format!("/v1/conversations/{id}/messages")).await;
            read.error(404, "conversation_not_found");
            let write = carol.try_send(id, "client-message-1", "let me in").await;
            write.error(404, "conversation_not_found");
            seen.push((visible(&read), visible(&write)));
        }

        assert_eq!(seen[0], seen[1]);
        assert_eq!(alice.messages(&conversation, "").await.len(), 1);
    }

    async fn a_used_client_id_does_not_help_a_stranger_either(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let [carol, dave] = world.register_all(["carol", "dave"]).await;
        let own = carol.open(&dave).await;
        carol
            .try_send(&own, "client-message-1", "mine")
            .await
            .data(201);

        for id in [&conversation, &fresh_id()] {
            let answer = carol.try_send(id, "client-message-1", "mine").await;
            answer.error(404, "conversation_not_found");
        }
        assert_eq!(alice.messages(&conversation, "").await, [json!(null); 0]);
    }

    async fn a_text_that_is_no_id_names_no_conversation(world: World) {
        let alice = world.register("alice").await;
        for id in [
            "x",
            "0",
            "null",
            "%00",
            "..%2f..",
            "018f0000-0000-7000-8000-00000000000",
            "%F0%9F%98%80",
        ] {
            let read = alice.get(&format!("/v1/conversations/{id}/messages")).await;
            read.error(404, "conversation_not_found");
            let write = alice.try_send(id, "client-message-1", "hi").await;
            write.error(404, "conversation_not_found");
        }
    }

    async fn a_content_has_1_to_2000_characters_not_bytes(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for content in [
            "x".to_owned(),
            "x".repeat(2000),
            "é".repeat(2000),
            "😀".repeat(2000),
        ] {
            assert_eq!(
                alice.send(&conversation, &content).await["content"],
                content
            );
        }
        for content in [String::new(), "x".repeat(2001), "😀".repeat(2001)] {
            let answer = alice
                .try_send(&conversation, "client-message-1", &content)
                .await;
            answer.invalid("content");
        }
        assert_eq!(alice.messages(&conversation, "").await.len(), 4);
    }

    #[with(MESSAGE_MAX_LENGTH = "5")]
    async fn the_longest_message_is_a_setting(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;

        alice.send(&conversation, "😀😀😀😀😀").await;

        let answer = alice
            .try_send(&conversation, "client-message-1", "123456")
            .await;
        answer.invalid("content");
    }

    async fn a_client_id_has_8_to_64_characters(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for length in [8, 64] {
            let id = "x".repeat(length);
            let answer = alice.try_send(&conversation, &id, "hi").await;
            assert_eq!(answer.data(201)["client_message_id"], id);
        }
        for length in [0, 7, 65] {
            let answer = alice
                .try_send(&conversation, &"x".repeat(length), "hi")
                .await;
            answer.invalid("client_message_id");
        }
    }

    async fn a_message_must_have_both_fields_as_texts(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let path = format!("/v1/conversations/{conversation}/messages");
        for wrong in [json!(7), json!(null), json!([]), json!({}), json!(true)] {
            let body = json!({"client_message_id": wrong, "content": "hi"});
            alice.post(&path, &body).await.invalid("client_message_id");
            let body = json!({"client_message_id": "client-message-1", "content": wrong});
            alice.post(&path, &body).await.invalid("content");
        }
        alice
            .post(&path, &json!({"content": "hi"}))
            .await
            .invalid("client_message_id");
        let body = json!({"client_message_id": "client-message-1"});
        alice.post(&path, &body).await.invalid("content");
    }

    async fn unknown_fields_of_a_message_are_ignored_and_set_nothing(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let body = json!({
            "client_message_id": "client-message-1", "content": "hi", "seq": 99,
            "sender_id": bob.id, "id": fresh_id(), "conversation_id": fresh_id(),
            "created_at": "1970-01-01T00:00:00.000000Z", "is_admin": true,
        });

        let answer = alice
            .post(&format!("/v1/conversations/{conversation}/messages"), &body)
            .await;

        let message = answer.data(201);
        assert_message(message);
        assert_eq!(message["seq"], 1);
        assert_eq!(message["sender_id"], alice.id);
        assert_eq!(message["conversation_id"], conversation);
        assert_ne!(message["id"], body["id"]);
        assert!(
            message["created_at"]
                .as_str()
                .is_some_and(|time| time > "2020")
        );
    }

    async fn seq_counts_from_1_in_each_conversation(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (with_bob, with_carol) = (alice.open(&bob).await, alice.open(&carol).await);

        assert_eq!(alice.send(&with_bob, "a").await["seq"], 1);
        assert_eq!(bob.send(&with_bob, "b").await["seq"], 2);
        assert_eq!(alice.send(&with_carol, "c").await["seq"], 1);
        assert_eq!(alice.send(&with_bob, "d").await["seq"], 3);
    }

    async fn a_refused_message_takes_no_seq(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "one").await;
        alice
            .try_send(&conversation, "client-message-1", "")
            .await
            .invalid("content");
        alice
            .try_send(&conversation, "short", "x")
            .await
            .invalid("client_message_id");
        alice
            .try_send(&conversation, "client-message-2", "two")
            .await
            .data(201);
        alice
            .try_send(&conversation, "client-message-2", "two")
            .await
            .data(200);

        assert_eq!(alice.send(&conversation, "three").await["seq"], 3);
    }

    async fn history_is_ascending_and_pages_after_a_seq(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for number in 1..=7 {
            alice
                .send(&conversation, &format!("message {number}"))
                .await;
        }

        let all = bob.messages(&conversation, "").await;
        assert_eq!(seqs(&all), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(all[2]["content"], "message 3");
        assert_eq!(
            seqs(&bob.messages(&conversation, "?limit=3").await),
            [1, 2, 3]
        );
        assert_eq!(
            seqs(&bob.messages(&conversation, "?after_seq=3&limit=2").await),
            [4, 5]
        );
        assert_eq!(
            seqs(&bob.messages(&conversation, "?after_seq=6").await),
            [7]
        );
        assert_eq!(
            seqs(&bob.messages(&conversation, "?after_seq=7").await),
            [0; 0]
        );
        assert_eq!(
            seqs(&bob.messages(&conversation, "?after_seq=1000000").await),
            [0; 0]
        );
    }

    async fn a_page_of_history_has_50_messages_and_at_most_100(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send_many(&conversation, 101).await;

        assert_eq!(
            seqs(&bob.messages(&conversation, "").await),
            (1..=50).collect::<Vec<_>>()
        );
        let most = bob.messages(&conversation, "?limit=100").await;
        assert_eq!(seqs(&most), (1..=100).collect::<Vec<_>>());
        for limit in ["0", "101", "-1", "x", "1.5", "", "9223372036854775808"] {
            let path = format!("/v1/conversations/{conversation}/messages?limit={limit}");
            bob.get(&path).await.invalid("limit");
        }
    }

    async fn the_start_of_a_page_is_no_negative_number(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for after in ["-1", "-9223372036854775808", "x", "1.5", "1e3", "", "0x1"] {
            let path = format!("/v1/conversations/{conversation}/messages?after_seq={after}");
            alice.get(&path).await.invalid("after_seq");
        }
    }
);
