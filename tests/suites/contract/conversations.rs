//! Direct conversations and the list of one's own.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{assert_conversation, fresh_id, on_both_databases, strings};

fn ids(conversations: &[Value]) -> Vec<&str> {
    conversations
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect()
}

on_both_databases!(
    async fn a_new_conversation_is_empty_and_has_two_members(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let body = json!({"other_user_id": bob.id});

        let answer = alice.post("/v1/conversations/direct", &body).await;

        let conversation = answer.data(200);
        assert_conversation(conversation);
        assert_eq!(conversation["last_message_preview"], Value::Null);
        let mut members = vec![alice.id.clone(), bob.id.clone()];
        members.sort();
        assert_eq!(strings(&conversation["member_ids"]), members);
        let profiles = conversation["members"].as_array().unwrap();
        for person in [&alice, &bob] {
            let mut profile = person.user.clone();
            profile["role"] = json!("member");
            assert!(profiles.contains(&profile), "{conversation}");
        }
    }

    async fn a_pair_has_one_conversation_whoever_opens_it(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;

        let first = alice
            .post(
                "/v1/conversations/direct",
                &json!({"other_user_id": bob.id}),
            )
            .await;
        let again = alice
            .post(
                "/v1/conversations/direct",
                &json!({"other_user_id": bob.id}),
            )
            .await;
        let other = bob
            .post(
                "/v1/conversations/direct",
                &json!({"other_user_id": alice.id}),
            )
            .await;

        assert_eq!(first.data(200), again.data(200));
        assert_eq!(first.data(200), other.data(200));
        assert_eq!(alice.conversations().await, [first.data(200).clone()]);
        assert_eq!(bob.conversations().await, [first.data(200).clone()]);
    }

    async fn one_does_not_talk_to_oneself(world: World) {
        let alice = world.register("alice").await;
        let body = json!({"other_user_id": alice.id});

        let answer = alice.post("/v1/conversations/direct", &body).await;

        answer.error(400, "invalid_target");
        assert_eq!(alice.conversations().await, [json!(null); 0]);
    }

    async fn one_does_not_talk_to_nobody(world: World) {
        let alice = world.register("alice").await;
        for nobody in [fresh_id(), "bob".to_owned(), String::new(), "0".to_owned()] {
            let body = json!({"other_user_id": nobody});
            let answer = alice.post("/v1/conversations/direct", &body).await;
            answer.error(404, "user_not_found");
        }
        assert_eq!(alice.conversations().await, [json!(null); 0]);
    }

    async fn the_other_user_must_be_named(world: World) {
        let alice = world.register("alice").await;
        for body in [
            json!({}),
            json!({"other_user_id": 7}),
            json!({"other_user_id": null}),
        ] {
            alice
                .post("/v1/conversations/direct", &body)
                .await
                .invalid("other_user_id");
        }
    }

    async fn whoever_has_no_conversation_gets_an_empty_list(world: World) {
        let alice = world.register("alice").await;

        assert_eq!(alice.get("/v1/conversations").await.data(200), &json!([]));
    }

    async fn the_list_has_the_conversation_with_the_newest_message_first(world: World) {
        let [alice, bob, carol, dave] = world.register_all(["alice", "bob", "carol", "dave"]).await;
        let with_bob = alice.open(&bob).await;
        let with_carol = alice.open(&carol).await;
        let with_dave = alice.open(&dave).await;
        assert_eq!(
            ids(&alice.conversations().await),
            [&with_dave, &with_carol, &with_bob]
        );

        bob.send(&with_bob, "one").await;
        assert_eq!(
            ids(&alice.conversations().await),
            [&with_bob, &with_dave, &with_carol]
        );
        alice.send(&with_carol, "two").await;
        assert_eq!(
            ids(&alice.conversations().await),
            [&with_carol, &with_bob, &with_dave]
        );
    }

    async fn a_message_changes_the_preview_and_the_times(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let before = bob.conversations().await.remove(0);

        let message = alice.send(&conversation, "hello bob").await;

        let after = bob.conversations().await.remove(0);
        assert_conversation(&after);
        assert_eq!(after["last_message_preview"], "hello bob");
        assert_eq!(after["last_message_at"], message["created_at"]);
        assert!(
            after["updated_at"].as_str() >= before["updated_at"].as_str(),
            "{before} {after}"
        );
        let hers = alice.conversations().await.remove(0);
        for field in ["updated_at", "last_message_preview", "last_message_at"] {
            assert_eq!(hers[field], after[field]);
        }
        assert_eq!(
            (&after["unread_count"], &hers["unread_count"]),
            (&json!(1), &json!(0))
        );
    }

    async fn the_preview_is_the_first_280_characters_not_bytes(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let cases = [
            ("é".repeat(279), "é".repeat(279)),
            ("é".repeat(280), "é".repeat(280)),
            ("é".repeat(281), "é".repeat(280)),
            ("😀".repeat(300), "😀".repeat(280)),
            (
                format!("{}{}", "a".repeat(279), "語".repeat(9)),
                format!("{}語", "a".repeat(279)),
            ),
        ];
        for (content, preview) in cases {
            alice.send(&conversation, &content).await;
            assert_eq!(
                alice.conversations().await[0]["last_message_preview"],
                preview
            );
        }
    }

    async fn a_stranger_sees_nothing_of_a_conversation(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "between us").await;
        let carol = world.register("carol").await;

        assert_eq!(carol.conversations().await, [json!(null); 0]);
        let bootstrap = carol.get("/v1/sync/bootstrap").await;
        let map = encoded_map(&conversation);
        let changes = carol
            .get(&format!("/v1/sync/changes?after_seq_by_conversation={map}"))
            .await;
        for answer in [bootstrap, changes] {
            assert_eq!(answer.data(200)["conversations"], json!([]));
            assert!(!answer.text.contains("between us"), "{}", answer.text);
            assert!(!answer.text.contains(&alice.id), "{}", answer.text);
        }
    }

    async fn many_who_open_the_same_conversation_get_the_same(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let opened = join_all((0..32).map(|number| {
            let (alice, bob) = (&alice, &bob);
            async move {
                if number % 2 == 0 {
                    alice.open(bob).await
                } else {
                    bob.open(alice).await
                }
            }
        }))
        .await;

        assert!(opened.iter().all(|id| *id == opened[0]), "{opened:?}");
        assert_eq!(ids(&alice.conversations().await), [&opened[0]]);
        assert_eq!(ids(&bob.conversations().await), [&opened[0]]);
    }
);

fn encoded_map(conversation: &str) -> String {
    tests::encoded(&json!({conversation: 0}).to_string())
}
