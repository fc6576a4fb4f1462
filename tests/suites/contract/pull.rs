//! Sync by cursor, over the wire.

use serde_json::{Value, json};
use tests::{Person, assert_fields, assert_message, fresh_id, on_both_databases, texts};

/// Asks for what comes after a cursor.
async fn pull(person: &Person, cursor: &str, query: &str) -> Value {
    let path = format!("/v1/sync/changes?cursor={cursor}{query}");
    person.get(&path).await.data(200).clone()
}

async fn begin(person: &Person) -> Value {
    person.get("/v1/sync/bootstrap").await.data(200).clone()
}

fn number(field: &Value) -> i64 {
    field.as_i64().unwrap()
}

fn cursor(data: &Value) -> &str {
    data["next_cursor"].as_str().unwrap()
}

on_both_databases!(
    async fn a_cursor_brings_what_came_after_it_and_then_nothing(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begin(&bob).await;
        assert_eq!(start["has_more"], false);
        // Nobody has read anything, which a client that begins is told of both.
        assert_eq!(start["reads"].as_array().unwrap().len(), 2);
        let sent = alice.send(&conversation, "hello").await;

        let page = pull(&bob, cursor(&start), "").await;
        assert_fields(
            &page,
            &[
                "users",
                "conversations",
                "messages",
                "reads",
                "removed_conversations",
                "gaps",
                "stamps",
                "has_more",
                "next_cursor",
            ],
        );
        assert_eq!(page["messages"], json!([sent]));
        page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .for_each(assert_message);
        assert_eq!(page["has_more"], false);
        let changed = &page["conversations"][0];
        assert_eq!(changed["id"], conversation);
        assert_eq!(changed["initial"], false);
        assert_eq!(changed["members_mode"], "unchanged");
        assert_eq!(changed["unread_count"], 1);
        assert_eq!(changed["last_seq"], 1);
        // Alice has read what she sent.
        assert_eq!(page["reads"][0]["last_read_seq"], 1);
        assert_eq!(texts(&page["users"], "username"), ["alice"]);

        let idle = pull(&bob, cursor(&page), "").await;
        for nothing in ["users", "conversations", "messages", "reads", "gaps"] {
            assert_eq!(idle[nothing], json!([]), "{nothing}");
        }
    }

    async fn an_edit_a_deletion_and_a_removal_reach_whoever_was_away(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let group = alice.create_group("Hikers", &[&bob]).await;
        let one = alice.send(&group, "one").await;
        let two = alice.send(&group, "two").await;
        let start = begin(&bob).await;
        let of = |message: &Value| {
            let id = message["id"].as_str().unwrap();
            format!("/v1/conversations/{group}/messages/{id}")
        };
        alice
            .patch(&of(&one), &json!({"content": "eins"}))
            .await
            .data(200);
        alice.delete(&of(&two)).await.data(200);

        let page = pull(&bob, cursor(&start), "").await;
        let contents = texts(&page["messages"], "content");
        assert_eq!(contents, ["eins", ""]);
        assert!(page["messages"][0]["edited_at"].is_string());
        assert!(page["messages"][1]["deleted_at"].is_string());

        let member = format!("/v1/conversations/{group}/members/{}", bob.id);
        alice.delete(&member).await.data(200);
        let after = pull(&bob, cursor(&page), "").await;
        assert_eq!(after["conversations"], json!([]));
        assert_eq!(texts(&after["removed_conversations"], "id"), [group]);
        assert_eq!(
            texts(&after["removed_conversations"], "reason"),
            ["removed"]
        );
    }

    async fn what_is_left_out_is_a_gap_that_history_fills(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begin(&bob).await;
        alice.send_many(&conversation, 12).await;

        let page = pull(&bob, cursor(&start), "&timeline_limit=5").await;
        let seqs: Vec<_> = page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["seq"].clone())
            .collect();
        assert_eq!(seqs, [8, 9, 10, 11, 12]);
        let gap = &page["gaps"][0];
        assert_eq!((&gap["from_seq"], &gap["to_seq"]), (&json!(1), &json!(7)));

        let query = "after_seq=0&before_seq=8&limit=100";
        let path = format!("/v1/conversations/{conversation}/messages?{query}");
        let history = bob.get(&path).await.data(200).clone();
        assert_eq!(history["messages"].as_array().unwrap().len(), 7);
        assert_eq!(history["stamp"]["fence"], page["stamps"][0]["fence"]);
        assert!(history["stamp"]["as_of"].as_i64() >= gap["as_of"].as_i64());
        assert_eq!(
            history["membership_version"],
            page["conversations"][0]["membership_version"]
        );
        let seen = format!("&seen=0:{}", history["stamp"]["as_of"]);
        pull(&bob, cursor(&page), &seen).await;
    }

    async fn whoever_keeps_the_answer_to_a_write_knows_of_what_moment_it_is(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let start = begin(&alice).await;
        let messages = format!("/v1/conversations/{conversation}/messages");
        let message = json!({"client_message_id": fresh_id(), "content": "hello"});
        let sent = alice.post(&messages, &message).await.data(201).clone();
        let one = format!("{messages}/{}", sent["id"].as_str().unwrap());

        let answers = [
            alice.patch(&one, &json!({"content": "edited"})).await,
            alice.get(&one).await,
            alice.put(&format!("{one}/reactions/x"), &json!({})).await,
            alice.delete(&format!("{one}/reactions/x")).await,
            alice.delete(&one).await,
        ];

        let mut newest = number(&sent["version"]);
        for answer in answers {
            let (message, stamp) = (answer.data(200), &answer.data(200)["stamp"]);
            assert_eq!(stamp["shard"], 0);
            assert_eq!(stamp["fence"], start["stamps"][0]["fence"]);
            assert!(number(&stamp["as_of"]) >= newest.max(number(&message["version"])));
            newest = number(&stamp["as_of"]);
        }
        let page = pull(&alice, cursor(&start), &format!("&seen=0:{newest}")).await;
        assert_eq!(number(&page["stamps"][0]["as_of"]), newest);
    }

    async fn a_start_in_pages_brings_everything_once(world: World) {
        let alice = world.register("alice").await;
        let mut groups = Vec::new();
        for n in 0..40 {
            let group = alice.create_group(&format!("group {n}"), &[]).await;
            alice.send(&group, "hello").await;
            groups.push(group);
        }

        let mut page = alice
            .get("/v1/sync/bootstrap?limit=10&timeline_limit=5")
            .await
            .data(200)
            .clone();
        assert_eq!(page["me"]["username"], "alice");
        assert_eq!(page["recent_messages"], page["recentMessages"]);
        let mut found = texts(&page["conversations"], "id");
        assert_eq!(found[0], groups[39]);
        while page["has_more"] == true {
            page = pull(&alice, cursor(&page), "&limit=10").await;
            found.extend(texts(&page["conversations"], "id"));
        }

        found.sort();
        groups.sort();
        assert_eq!(found, groups);
    }

    async fn a_request_that_waits_is_answered_when_something_happens(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let start = begin(&bob).await;

        let waiting = pull(&bob, cursor(&start), "&wait=25");
        let (page, _) = futures_util::future::join(waiting, alice.send(&conversation, "now")).await;

        assert_eq!(texts(&page["messages"], "content"), ["now"]);
    }

    async fn what_is_no_cursor_of_the_caller_is_told_to_start_again(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let start = begin(&alice).await;
        let alices = cursor(&start);
        let mut forged = alices.to_owned();
        forged.replace_range(10..11, if &forged[10..11] == "A" { "B" } else { "A" });
        let long = "A".repeat(5_000);

        for (person, text) in [
            (&bob, alices),
            (&alice, &alices[..20]),
            (&alice, forged.as_str()),
            (&alice, "%00"),
            (&alice, "%20"),
            (&alice, "not-a-cursor"),
            (&alice, long.as_str()),
        ] {
            let path = format!("/v1/sync/changes?cursor={text}");
            let answer = person.get(&path).await;
            let error = answer.error(410, "resync_required");
            let reason = error["details"]["reason"].as_str().unwrap();
            assert!(
                ["cursor_malformed", "cursor_version"].contains(&reason),
                "{text}"
            );
        }
        let future = format!("&seen=0:{}", (1_i64 << 53) - 1);
        let path = format!("/v1/sync/changes?cursor={alices}{future}");
        let answer = alice.get(&path).await;
        let error = answer.error(410, "resync_required");
        assert_eq!(error["details"]["reason"], "history_diverged");
        let wait = error["details"]["retry_after_ms"].as_u64().unwrap();
        assert!(wait <= 30_000, "{error}");
        // Who begins knows nothing that could have been taken back.
        alice
            .get(&format!("/v1/sync/changes?cursor={future}"))
            .await
            .data(200);
    }

    async fn whoever_begins_takes_everything_anew(world: World) {
        let (alice, _, _) = world.alice_and_bob().await;
        for path in ["/v1/sync/bootstrap?limit=200", "/v1/sync/changes?cursor="] {
            let page = alice.get(path).await.data(200).clone();
            assert_eq!(page["conversations"][0]["initial"], true, "{path}");
        }
    }

    async fn bounds_that_are_none_are_named(world: World) {
        let alice = world.register("alice").await;
        let start = begin(&alice).await;
        for query in [
            "&limit=0",
            "&limit=501",
            "&limit=x",
            "&timeline_limit=0",
            "&timeline_limit=201",
            "&wait=26",
            "&wait=-1",
            "&seen=5",
            "&seen=1:5",
            "&seen=0:-5",
            "&seen=",
        ] {
            let path = format!("/v1/sync/changes?cursor={}{query}", cursor(&start));
            alice.get(&path).await.error(422, "validation_error");
        }
        alice
            .get("/v1/sync/bootstrap?limit=0")
            .await
            .error(422, "validation_error");
    }

    async fn the_old_sync_names_conversations_that_are_not_the_callers(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let other = fresh_id();
        let known = tests::encoded(&json!({ conversation: 0, other.clone(): 5 }).to_string());

        let path = format!("/v1/sync/changes?after_seq_by_conversation={known}");
        let data = alice.get(&path).await.data(200).clone();

        assert_eq!(texts(&data["removed_conversations"], "id"), [other]);
        assert_eq!(
            texts(&data["removed_conversations"], "reason"),
            ["not_member"]
        );
        assert_eq!(data["next_cursor"], Value::Null);
    }
);
