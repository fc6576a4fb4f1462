//! The seven faults of the predecessor that must not come back, each by its story.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tests::{PASSWORD, Person, encoded, on_both_databases, texts};

async fn changes(person: &Person, after: &Value) -> Value {
    let after = encoded(&after.to_string());
    let answer = person
        .get(&format!(
            "/v1/sync/changes?after_seq_by_conversation={after}"
        ))
        .await;
    answer.data(200).clone()
}

on_both_databases!(
    // 1. `/sync/changes` stopped at 100 messages per conversation and did not say so: the 101st was
    // lost to every client that had been away for long.
    async fn fault_1_the_hundred_and_first_missed_message_is_not_lost(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send_many(&conversation, 101).await;

        let first = changes(&alice, &json!({})).await;
        let second = changes(&alice, &first["next_after_seq_by_conversation"]).await;

        assert_eq!(first["messages"].as_array().unwrap().len(), 100);
        assert_eq!(first["has_more"], true);
        assert_eq!(second["messages"].as_array().unwrap().len(), 1);
        assert_eq!(second["messages"][0]["seq"], 101);
        assert_eq!(second["has_more"], false);
    }

    // 2. `seq` was read and then incremented without a lock: two senders on PostgreSQL took the
    // same number, and one of them got a 500.
    async fn fault_2_senders_at_the_same_time_get_different_seqs(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;

        let mut seqs = BTreeSet::new();
        for _ in 0..5 {
            let from_alice = join_all((0..20).map(|_| alice.send(&conversation, "from alice")));
            let from_bob = join_all((0..20).map(|_| bob.send(&conversation, "from bob")));
            let (from_alice, from_bob) = join(from_alice, from_bob).await;
            seqs.extend(
                from_alice
                    .iter()
                    .chain(&from_bob)
                    .map(|it| it["seq"].as_i64().unwrap()),
            );
        }

        assert_eq!(seqs, (1..=200).collect());
    }

    // 3. Two concurrent opens of a direct conversation made two, and the history was split.
    async fn fault_3_two_who_open_at_the_same_time_get_one_conversation(world: World) {
        let alice = world.register("alice").await;
        for number in 0..10 {
            let other = world.register(&format!("other{number}")).await;
            let (one, two) = join(alice.open(&other), other.open(&alice)).await;
            assert_eq!(one, two);
        }

        assert_eq!(alice.conversations().await.len(), 10);
    }

    // 4. Bootstrap gave the 200 newest messages of all conversations together, so that quiet ones
    // came empty; and a write between bootstrap and subscribe was seen by nobody.
    async fn fault_4_a_quiet_conversation_is_not_empty(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (quiet, loud) = (alice.open(&carol).await, alice.open(&bob).await);
        carol.send(&quiet, "long ago").await;
        bob.send_many(&loud, 201).await;

        let bootstrap = alice.get("/v1/sync/bootstrap").await;

        let contents = texts(&bootstrap.data(200)["recent_messages"], "content");
        assert!(
            contents.contains(&"long ago".to_owned()),
            "{} messages",
            contents.len()
        );
    }

    async fn fault_4_a_write_between_bootstrap_and_subscribe_is_seen(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send(&conversation, "before").await;
        alice.get("/v1/sync/bootstrap").await.data(200);
        bob.send(&conversation, "in between").await;
        let mut socket = alice.listening(&[&conversation]).await;
        bob.send(&conversation, "after").await;

        let live = socket.next_message().await.0;
        let missed = changes(&alice, &json!({&conversation: 1})).await;

        assert_eq!(live["payload"]["content"], "after");
        assert_eq!(
            texts(&missed["messages"], "content"),
            ["in between", "after"]
        );
    }

    // 5. The outbox was polled every 200 ms: each event was that late, and one exception ended the
    // dispatcher for good. Here a poll would come too late for any patience.
    #[with(REALTIME_DISPATCHER_POLL_MS = "600000")]
    async fn fault_5_events_do_not_wait_for_a_poll(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        for number in 1..=20 {
            alice.send(&conversation, "hello").await;
            assert_eq!(socket.next_message().await.0["seq"], number);
        }
    }

    async fn fault_5_a_bad_moment_does_not_end_the_events(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        for number in 1..=20 {
            // Sockets that go away in the middle of everything.
            let doomed = bob.listening(&[&conversation]).await;
            let message = alice.send(&conversation, "hello");
            let (message, ()) = join(message, async { drop(doomed) }).await;
            assert_eq!(message["seq"], number);
            assert_eq!(socket.next_message().await.0["seq"], number);
        }
    }

    // 6. A first message from a stranger reached no socket, since nobody had subscribed to that
    // conversation yet.
    async fn fault_6_a_first_message_from_a_stranger_reaches_an_old_socket(world: World) {
        let (alice, bob, known) = world.alice_and_bob().await;
        let mut idle = bob.socket().await;
        let mut busy = bob.listening(&[&known]).await;
        let carol = world.register("carol").await;

        let new = carol.open(&bob).await;
        carol.send(&new, "hi, we have not met").await;

        for socket in [&mut idle, &mut busy] {
            assert_eq!(socket.next_announcement().await["conversation_id"], new);
            let created = socket.next_message().await.0;
            assert_eq!(created["conversation_id"], new);
            assert_eq!(created["payload"]["content"], "hi, we have not met");
        }
        // And what they listen to besides is as it was.
        alice.send(&known, "hi").await;
        assert_eq!(busy.next_message().await.0["conversation_id"], known);
    }

    // 7. No reuse detection on refresh tokens; a logged-out user's socket stayed open; the secret
    // defaulted to a public constant; usernames differing only in case were two accounts.
    async fn fault_7_a_refresh_token_used_twice_ends_the_whole_family(world: World) {
        let alice = world.register("alice").await;
        let other = world.log_in("alice").await;
        let stolen = json!({"refresh_token": alice.refresh_token});
        let thief = world.http.post("/v1/auth/refresh", &stolen).await;
        let thief = world.person(thief.data(200));
        let mut socket = thief.socket().await;

        world
            .http
            .post("/v1/auth/refresh", &stolen)
            .await
            .error(401, "invalid_refresh_token");

        let newest = json!({"refresh_token": thief.refresh_token});
        world
            .http
            .post("/v1/auth/refresh", &newest)
            .await
            .error(401, "invalid_refresh_token");
        thief.get("/v1/users/me").await.error(401, "invalid_token");
        alice.get("/v1/users/me").await.error(401, "invalid_token");
        assert_eq!(socket.closed().await.code, Some(1008));
        // Another session of hers has nothing to do with it.
        other.get("/v1/users/me").await.data(200);
    }

    async fn fault_7_the_socket_of_a_user_who_logs_out_is_closed(world: World) {
        let alice = world.register("alice").await;
        let mut socket = alice.socket().await;

        let body = json!({"refresh_token": alice.refresh_token});
        world.http.post("/v1/auth/logout", &body).await.data(200);

        assert_eq!(socket.closed().await.code, Some(1008));
    }

    async fn fault_7_usernames_that_differ_only_in_case_are_one_account(world: World) {
        let alice = world.register("Alice").await;
        assert!(alice.username.eq_ignore_ascii_case("alice"));

        for username in ["alice", "ALICE", "aLiCe", "Alice"] {
            let body = json!({"username": username, "password": PASSWORD});
            world
                .http
                .post("/v1/auth/register", &body)
                .await
                .error(409, "username_taken");
            assert_eq!(world.log_in(username).await.id, alice.id);
        }
    }
);
