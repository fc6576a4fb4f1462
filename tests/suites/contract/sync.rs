//! Bootstrap and the changes after it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::{
    Answer, Person, assert_conversation, assert_fields, assert_message, assert_user, encoded,
    fresh_id, on_both_databases, strings, texts,
};

const BOOTSTRAP: &str = "/v1/sync/bootstrap";

async fn changes(person: &Person, after: &str) -> Answer {
    let query = encoded(after);
    person
        .get(&format!(
            "/v1/sync/changes?after_seq_by_conversation={query}"
        ))
        .await
}

fn list(data: &Value, field: &str) -> Vec<Value> {
    data[field]
        .as_array()
        .unwrap_or_else(|| panic!("no {field}: {data}"))
        .clone()
}

/// The seqs of the messages of one conversation, in the order of the answer.
fn seqs(messages: &[Value], conversation: &str) -> Vec<i64> {
    let of_it = messages
        .iter()
        .filter(|message| message["conversation_id"] == conversation);
    of_it
        .map(|message| message["seq"].as_i64().unwrap())
        .collect()
}

/// Insists that `users` covers every id that the answer names, each once.
fn assert_users_cover(data: &Value, messages: &str) {
    let users = texts(&data["users"], "id");
    let mut named: BTreeSet<_> = texts(&data[messages], "sender_id").into_iter().collect();
    for conversation in list(data, "conversations") {
        named.extend(strings(&conversation["member_ids"]));
    }
    let known: BTreeSet<_> = users.iter().cloned().collect();
    assert!(
        named.is_subset(&known),
        "{named:?} are named, {known:?} are there"
    );
    assert_eq!(known.len(), users.len(), "each user comes once");
    list(data, "users").iter().for_each(assert_user);
}

/// Follows the pages of changes from a map until they end. Gives the messages in their order.
async fn follow(person: &Person, mut after: Value) -> Vec<Value> {
    let mut messages = Vec::new();
    for _ in 0..100 {
        let answer = changes(person, &after.to_string()).await;
        let data = answer.data(200);
        assert_users_cover(data, "messages");
        messages.extend(list(data, "messages"));
        if data["has_more"] == false {
            return messages;
        }
        assert_eq!(data["has_more"], true, "{data}");
        let next = &data["next_after_seq_by_conversation"];
        assert_ne!(*next, after, "every page gets further");
        after = next.clone();
    }
    panic!("a hundred pages, and no end");
}

on_both_databases!(
    async fn a_newcomer_bootstraps_with_nothing_but_oneself(world: World) {
        let alice = world.register("alice").await;

        let answer = alice.get(BOOTSTRAP).await;

        let data = answer.data(200);
        assert_eq!(data["me"], alice.user);
        assert_eq!(data["user"], alice.user);
        assert_eq!(data["users"], json!([alice.user]));
        for empty in ["conversations", "recent_messages", "recentMessages"] {
            assert_eq!(data[empty], json!([]), "{empty}");
        }
    }

    async fn a_bootstrap_has_everything_a_client_shows_first(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let message = bob.send(&conversation, "hi alice").await;

        let answer = alice.get(BOOTSTRAP).await;

        let data = answer.data(200);
        let fields = [
            "me",
            "user",
            "users",
            "conversations",
            "recent_messages",
            "recentMessages",
        ];
        assert_fields(data, &fields);
        assert_eq!(data["me"], alice.user);
        assert_eq!(data["user"], data["me"]);
        assert_eq!(data["conversations"], json!(alice.conversations().await));
        assert_eq!(data["recent_messages"], json!([message]));
        assert_eq!(data["recentMessages"], data["recent_messages"]);
        list(data, "conversations")
            .iter()
            .for_each(assert_conversation);
        list(data, "recent_messages")
            .iter()
            .for_each(assert_message);
        assert_users_cover(data, "recent_messages");
    }

    async fn a_bootstrap_lists_the_conversations_like_the_list(world: World) {
        let [alice, bob, carol, dave] = world.register_all(["alice", "bob", "carol", "dave"]).await;
        let with_bob = alice.open(&bob).await;
        alice.open(&carol).await;
        alice.open(&dave).await;
        bob.send(&with_bob, "newest").await;

        let answer = alice.get(BOOTSTRAP).await;

        assert_eq!(
            answer.data(200)["conversations"],
            json!(alice.conversations().await)
        );
    }

    async fn every_conversation_has_its_newest_messages_in_a_bootstrap(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (quiet, loud) = (alice.open(&carol).await, alice.open(&bob).await);
        carol.send(&quiet, "long ago").await;
        bob.send_many(&loud, 250).await;

        let answer = alice.get(BOOTSTRAP).await;

        let messages = list(answer.data(200), "recent_messages");
        assert_eq!(seqs(&messages, &quiet), [1]);
        let loud = seqs(&messages, &loud);
        assert_eq!(
            loud,
            (251 - loud.len() as i64..=250).collect::<Vec<_>>(),
            "the newest, in order"
        );
        assert!(!loud.is_empty());
        assert_users_cover(answer.data(200), "recent_messages");
    }

    async fn changes_take_json_or_pairs(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (one, two) = (alice.open(&bob).await, alice.open(&carol).await);
        for _ in 0..3 {
            bob.send(&one, "from bob").await;
            carol.send(&two, "from carol").await;
        }

        let object = json!({&one: 1, &two: 2}).to_string();
        for after in [
            object,
            format!("{one}:1,{two}:2"),
            format!("{two}:2,{one}:1"),
        ] {
            let answer = changes(&alice, &after).await;
            let messages = list(answer.data(200), "messages");
            assert_eq!(seqs(&messages, &one), [2, 3], "{after}");
            assert_eq!(seqs(&messages, &two), [3], "{after}");
        }
    }

    async fn a_conversation_that_is_not_named_counts_from_0(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (one, two) = (alice.open(&bob).await, alice.open(&carol).await);
        bob.send(&one, "from bob").await;
        carol.send(&two, "from carol").await;

        let named = changes(&alice, &format!("{one}:1")).await;
        assert_eq!(seqs(&list(named.data(200), "messages"), &one), [0; 0]);
        assert_eq!(seqs(&list(named.data(200), "messages"), &two), [1]);
        let absent = alice.get("/v1/sync/changes").await;
        for answer in [
            absent,
            changes(&alice, "{}").await,
            changes(&alice, "").await,
        ] {
            let messages = list(answer.data(200), "messages");
            assert_eq!(
                (seqs(&messages, &one), seqs(&messages, &two)),
                (vec![1], vec![1])
            );
        }
    }

    async fn changes_name_everything_that_they_speak_of(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let message = bob.send(&conversation, "hi alice").await;

        let answer = changes(&alice, "{}").await;

        let data = answer.data(200);
        let fields = [
            "users",
            "conversations",
            "messages",
            "has_more",
            "next_after_seq_by_conversation",
        ];
        assert_fields(data, &fields);
        assert_eq!(data["messages"], json!([message]));
        assert_eq!(data["conversations"], json!(alice.conversations().await));
        assert_eq!(data["has_more"], false);
        assert_users_cover(data, "messages");
    }

    async fn an_after_seq_that_cannot_be_read_is_refused(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send(&conversation, "hi").await;
        let id = &conversation;
        let wrong = [
            "nonsense".to_owned(),
            "{".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            "7".to_owned(),
            "\"x\"".to_owned(),
            format!("[\"{id}\"]"),
            format!("{{\"{id}\": -1}}"),
            format!("{{\"{id}\": \"1\"}}"),
            format!("{{\"{id}\": 1.5}}"),
            format!("{{\"{id}\": null}}"),
            format!("{{\"{id}\": [1]}}"),
            format!("{{\"{id}\": 1}} x"),
            format!("{{\"{id}\": 99999999999999999999}}"),
            id.clone(),
            format!("{id}:"),
            format!("{id}:-1"),
            format!("{id}:x"),
            format!("{id}:1.5"),
            format!("{id}:1:2"),
            format!("{id}=1"),
            format!("{id}:1;{id}:2"),
            ":1".to_owned(),
            "chat:1".to_owned(),
            "{\"chat\": 1}".to_owned(),
            format!("{id}:1,{id}:2"),
            format!("{{\"{id}\": 1, \"{id}\": 2}}"),
            format!("{id}:9007199254740992"),
        ];
        for after in wrong {
            let answer = changes(&alice, &after).await;
            assert_eq!(answer.status, 422, "{after}: {}", answer.text);
            answer.error(422, "invalid_after_seq");
        }
    }

    async fn a_conversation_of_others_in_the_map_reveals_nothing(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "between us").await;
        let carol = world.register("carol").await;

        let theirs = changes(&carol, &json!({&conversation: 0}).to_string()).await;
        let nowhere = changes(&carol, &json!({fresh_id(): 0}).to_string()).await;

        for answer in [&theirs, &nowhere] {
            let data = answer.data(200);
            assert_eq!(
                (&data["messages"], &data["conversations"]),
                (&json!([]), &json!([]))
            );
            assert_eq!(data["has_more"], false);
        }
    }

    async fn changes_say_that_there_is_more_and_where_to_go_on(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send_many(&conversation, 250).await;

        let first = changes(&alice, "{}").await;
        assert_eq!(first.data(200)["has_more"], true);
        let page = seqs(&list(first.data(200), "messages"), &conversation);
        assert_eq!(
            page,
            (1..=100).collect::<Vec<_>>(),
            "existing clients count on 100"
        );
        assert_eq!(
            first.data(200)["next_after_seq_by_conversation"][&conversation],
            100
        );

        let messages = follow(&alice, json!({})).await;
        assert_eq!(
            seqs(&messages, &conversation),
            (1..=250).collect::<Vec<_>>()
        );
        let rest = follow(&alice, json!({&conversation: 249})).await;
        assert_eq!(seqs(&rest, &conversation), [250]);
    }

    async fn changes_of_several_conversations_end_with_all_of_each(world: World) {
        let [alice, bob, carol, dave] = world.register_all(["alice", "bob", "carol", "dave"]).await;
        let counts = [(&bob, 130), (&carol, 1), (&dave, 205)];
        let mut expected = BTreeMap::new();
        for (other, count) in counts {
            let conversation = alice.open(other).await;
            other.send_many(&conversation, count).await;
            expected.insert(conversation, count as i64);
        }

        let messages = follow(&alice, json!({})).await;

        assert_eq!(messages.len(), 130 + 1 + 205);
        for (conversation, count) in expected {
            assert_eq!(
                seqs(&messages, &conversation),
                (1..=count).collect::<Vec<_>>()
            );
        }
    }

    async fn a_bootstrap_and_the_changes_after_it_are_everything(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send_many(&conversation, 20).await;
        let bootstrap = alice.get(BOOTSTRAP).await;
        bob.send_many(&conversation, 130).await;

        let seen = seqs(&list(bootstrap.data(200), "recent_messages"), &conversation);
        let last = seen.last().copied().unwrap();
        let after = follow(&alice, json!({&conversation: last})).await;

        assert_eq!(last, 20);
        assert_eq!(seqs(&after, &conversation), (21..=150).collect::<Vec<_>>());
    }

    async fn what_was_acknowledged_is_in_the_next_sync(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for seq in 1..=30 {
            let sent = bob.send(&conversation, "hi").await;
            let answer = changes(&alice, &format!("{conversation}:{}", seq - 1)).await;
            assert_eq!(answer.data(200)["messages"], json!([sent]));
            let bootstrap = alice.get(BOOTSTRAP).await;
            let newest = list(bootstrap.data(200), "recent_messages");
            assert!(newest.contains(&sent), "{sent}");
        }
    }
);
