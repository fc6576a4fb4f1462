//! The bounds of a socket: reaching one is an answer, and the connection stays.

use serde_json::{Value, json};
use tests::{Refusal, fresh_id, on_both_databases};

fn subscribe(ids: &[impl AsRef<str>]) -> Value {
    let ids: Vec<_> = ids.iter().map(AsRef::as_ref).collect();
    json!({"op": "subscribe", "conversation_ids": ids})
}

fn unknown(count: usize) -> Vec<String> {
    (0..count).map(|_| fresh_id()).collect()
}

/// A ping, filled up with blanks to so many bytes.
fn ping_of(bytes: usize) -> String {
    let ping = r#"{"op":"ping"}"#;
    format!("{ping}{}", " ".repeat(bytes - ping.len()))
}

on_both_databases!(
    async fn a_subscription_names_1_to_100_conversations(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        socket
            .refused(&subscribe(&[""; 0]), "INVALID_COMMAND")
            .await;
        socket
            .refused(&subscribe(&unknown(101)), "INVALID_COMMAND")
            .await;
        // A hundred are not too many; that alice is in none of them is another matter.
        socket
            .refused(&subscribe(&unknown(100)), "FORBIDDEN_CONVERSATION")
            .await;
        let unsubscribe = json!({"op": "unsubscribe", "conversation_ids": []});
        socket.refused(&unsubscribe, "INVALID_COMMAND").await;
        let unsubscribe = json!({"op": "unsubscribe", "conversation_ids": unknown(101)});
        socket.refused(&unsubscribe, "INVALID_COMMAND").await;
        socket.expect_pong().await;
    }

    #[with(WS_MAX_IDS_PER_SUBSCRIBE = "1")]
    async fn how_many_ids_a_command_may_name_is_a_setting(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (one, two) = (alice.open(&bob).await, alice.open(&carol).await);
        let mut socket = alice.socket().await;

        socket
            .refused(&subscribe(&[&one, &two]), "INVALID_COMMAND")
            .await;
        socket.subscribe(&[&one]).await;
        socket.subscribe(&[&two]).await;
    }

    #[with(WS_MAX_SUBSCRIPTIONS_PER_CONNECTION = "2")]
    async fn a_connection_has_so_many_subscriptions_and_no_more(world: World) {
        let [alice, bob, carol, dave] = world.register_all(["alice", "bob", "carol", "dave"]).await;
        let one = alice.open(&bob).await;
        let two = alice.open(&carol).await;
        let three = alice.open(&dave).await;
        let mut socket = alice.socket().await;

        socket
            .refused(&subscribe(&[&one, &two, &three]), "INVALID_COMMAND")
            .await;
        socket.subscribe(&[&one, &two]).await;
        socket
            .refused(&subscribe(&[&three]), "INVALID_COMMAND")
            .await;
        // What is subscribed to already takes no second place, and what is left frees one.
        socket.subscribe(&[&one, &two]).await;
        socket.unsubscribe(&[&one]).await;
        socket.subscribe(&[&three]).await;
        bob.send(&one, "not heard").await;
        dave.send(&three, "heard").await;
        socket
            .expect_quiet_until(|frame| frame["conversation_id"] == three)
            .await;
    }

    #[with(WS_MAX_SUBSCRIPTIONS_PER_CONNECTION = "1")]
    async fn another_connection_has_subscriptions_of_its_own(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (one, two) = (alice.open(&bob).await, alice.open(&carol).await);

        alice.listening(&[&one]).await;
        alice.listening(&[&two]).await;
    }

    async fn a_command_has_at_most_8192_bytes(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        socket.send_text(&ping_of(8192)).await;
        assert_eq!(socket.next_json().await, json!({"type": "pong"}));
        socket.refused_text(&ping_of(8193), "INVALID_COMMAND").await;
        socket
            .refused_text(&ping_of(20_000), "INVALID_COMMAND")
            .await;
        socket.expect_pong().await;
    }

    #[with(WS_MAX_COMMAND_BYTES = "64")]
    async fn the_length_of_a_command_is_a_setting(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        socket.send_text(&ping_of(64)).await;
        assert_eq!(socket.next_json().await, json!({"type": "pong"}));
        socket.refused_text(&ping_of(65), "INVALID_COMMAND").await;
        socket.expect_pong().await;
    }

    async fn a_frame_far_too_large_ends_that_connection_at_most(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut flood = alice.socket().await;
        let mut honest = bob.listening(&[&conversation]).await;

        for text in ["x".repeat(1 << 20), "[".repeat(1 << 20)] {
            // The server may close before it has read everything.
            flood.try_send_text(&text).await;
        }

        honest.expect_pong().await;
        alice.send(&conversation, "still here").await;
        honest.next_message().await;
    }

    async fn thirty_commands_in_ten_seconds_are_enough(world: World) {
        let mut socket = world.register("alice").await.socket().await;
        for _ in 0..30 {
            assert_eq!(
                socket.ask(&json!({"op": "ping"})).await,
                json!({"type": "pong"})
            );
        }

        socket.refused(&json!({"op": "ping"}), "RATE_LIMITED").await;
        socket
            .refused(&json!({"op": "dance"}), "RATE_LIMITED")
            .await;
    }

    async fn a_socket_that_is_rate_limited_still_hears_its_conversations(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        for _ in 0..29 {
            socket.ask(&json!({"op": "ping"})).await;
        }
        socket.refused(&json!({"op": "ping"}), "RATE_LIMITED").await;

        alice.send(&conversation, "hello").await;

        assert_eq!(socket.next_message().await.0["seq"], 1);
    }

    #[with(WS_RATE_LIMIT_MAX_COMMANDS = "3", WS_RATE_LIMIT_WINDOW_SEC = "1")]
    async fn after_the_window_a_socket_may_speak_again(world: World) {
        let mut socket = world.register("alice").await.socket().await;
        for _ in 0..3 {
            assert_eq!(
                socket.ask(&json!({"op": "ping"})).await,
                json!({"type": "pong"})
            );
        }
        socket.refused(&json!({"op": "ping"}), "RATE_LIMITED").await;

        // The rule is about time, so here time has to pass.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;

        assert_eq!(
            socket.ask(&json!({"op": "ping"})).await,
            json!({"type": "pong"})
        );
    }

    #[with(WS_RATE_LIMIT_MAX_COMMANDS = "1")]
    async fn another_connection_has_commands_of_its_own(world: World) {
        let alice = world.register("alice").await;
        for _ in 0..3 {
            let mut socket = alice.socket().await;
            assert_eq!(
                socket.ask(&json!({"op": "ping"})).await,
                json!({"type": "pong"})
            );
        }
    }

    async fn a_text_that_is_no_id_is_no_conversation_of_mine(world: World) {
        let mut socket = world.register("alice").await.socket().await;
        for id in ["x", "", " ", "018f0000-0000-7000-8000-00000000000", "'; --"] {
            let answer = socket.ask(&subscribe(&[id])).await;
            let code = answer["error"]["code"].as_str().unwrap_or_default();
            assert!(
                ["INVALID_COMMAND", "FORBIDDEN_CONVERSATION"].contains(&code),
                "{id:?}: {answer}"
            );
        }
        socket.expect_pong().await;
    }

    async fn a_refused_handshake_leaves_the_server_as_it_was(world: World) {
        for _ in 0..20 {
            let refusal = world
                .handshake("/v1/ws", &[("authorization", "Bearer x")])
                .await;
            assert!(matches!(
                refusal,
                Err(Refusal::Handshake(..) | Refusal::Closed(_))
            ));
        }
        world
            .register("alice")
            .await
            .socket()
            .await
            .expect_pong()
            .await;
    }
);
