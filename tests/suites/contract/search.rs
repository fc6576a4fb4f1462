//! Searching messages.

use serde_json::{Value, json};
use tests::{Person, assert_fields, encoded, fresh_id, on_both_databases, texts};

fn asking(query: &str, more: &str) -> String {
    format!("/v1/messages/search?query={}{more}", encoded(query))
}

/// What is found once everything is looked through, which a server that has just started does not
/// do at once.
async fn found(person: &Person, query: &str) -> Value {
    loop {
        let answer = person.get(&asking(query, "")).await;
        let found = answer.data(200);
        if found["complete"] == json!(true) {
            return found.clone();
        }
        tokio::task::yield_now().await;
    }
}

on_both_databases!(
    async fn a_message_is_found_as_the_history_has_it(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "我家在上海东边").await;
        bob.send(&conversation, "Nice to meet you").await;

        let found = found(&bob, "上海").await;

        assert_fields(&found, &["messages", "complete"]);
        let history = bob.messages(&conversation, "?limit=1").await;
        assert_eq!(found["messages"], json!(history));
    }

    async fn a_removed_member_finds_nothing(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let group = alice.create_group("Hikers", &[&bob]).await;
        alice.send(&group, "我家在上海东边").await;
        assert_eq!(
            found(&bob, "上海").await["messages"]
                .as_array()
                .unwrap()
                .len(),
            1
        );

        let member = format!("/v1/conversations/{group}/members/{}", bob.id);
        alice.delete(&member).await.data(200);

        assert_eq!(
            found(&bob, "上海").await,
            json!({"messages": [], "complete": true})
        );
        let there = bob
            .get(&asking("上海", &format!("&conversation_id={group}")))
            .await;
        there.error(404, "conversation_not_found");
        assert_eq!(
            found(&alice, "上海").await["messages"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }

    async fn a_page_says_where_the_next_begins(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for number in 1..=5 {
            alice.send(&conversation, &format!("step {number}")).await;
        }
        found(&alice, "step").await;

        let first = alice.get(&asking("step", "&limit=3")).await;
        let first = first.data(200);
        let before = &first["next_before"];
        let within = format!("&limit=3&before={before}&conversation_id={conversation}");
        let second = alice.get(&asking("step", &within)).await;

        assert_eq!(
            texts(&first["messages"], "content"),
            ["step 5", "step 4", "step 3"]
        );
        let second = second.data(200);
        assert_eq!(texts(&second["messages"], "content"), ["step 2", "step 1"]);
        assert_fields(second, &["messages", "complete"]);
    }

    async fn what_can_not_be_searched_for_is_named(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;

        for query in [
            "",
            "?query=",
            &format!("?query={}", encoded(&"é".repeat(257))),
        ] {
            let answer = alice.get(&format!("/v1/messages/search{query}")).await;
            answer.invalid("query");
        }
        alice.get(&asking("?!", "")).await.invalid("query");
        alice.get(&asking("a\0b", "")).await.invalid("query");
        for limit in ["0", "51", "x", "-1"] {
            let answer = alice.get(&asking("a", &format!("&limit={limit}"))).await;
            answer.invalid("limit");
        }
        for before in ["0", "x", "9007199254740992"] {
            let answer = alice.get(&asking("a", &format!("&before={before}"))).await;
            answer.invalid("before");
        }
        alice
            .get(&asking("a", "&conversation_id=x"))
            .await
            .invalid("conversation_id");
        let strange = alice
            .get(&asking("a", &format!("&conversation_id={}", fresh_id())))
            .await;
        strange.error(404, "conversation_not_found");
        let long = asking(
            &"é".repeat(256),
            &format!("&conversation_id={conversation}"),
        );
        alice.get(&long).await.data(200);
    }
);
