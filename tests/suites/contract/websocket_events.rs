//! Events: who gets which, in what shape and order.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{
    Person, Socket, assert_fields, assert_id, assert_time, assert_user, on_both_databases, within,
};

/// How late an event may be while others make trouble.
const SOON: Duration = Duration::from_secs(2);

/// Who has not read for so long is too slow for any server.
const TOO_SLOW: Duration = Duration::from_secs(15);

/// Reads events until `count` messages were created and gives their seqs in order of arrival.
async fn seqs(socket: &mut Socket, count: usize) -> Vec<i64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        let (created, _) = socket.next_message().await;
        seqs.push(created["seq"].as_i64().unwrap());
    }
    seqs
}

async fn logout(person: &Person) {
    let body = json!({"refresh_token": person.refresh_token});
    person.http.post("/v1/auth/logout", &body).await.data(200);
}

on_both_databases!(
    async fn a_message_makes_two_events_with_exact_fields(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;

        let message = alice.send(&conversation, "hello bob").await;

        let (created, updated) = socket.next_message().await;
        for event in [&created, &updated] {
            let fields = [
                "type",
                "event_id",
                "conversation_id",
                "seq",
                "occurred_at",
                "payload",
            ];
            assert_fields(event, &fields);
            assert_id(&event["event_id"]);
            assert_eq!(event["conversation_id"], conversation);
            assert_eq!(event["seq"], 1);
            assert_time(&event["occurred_at"]);
        }
        assert_ne!(created["event_id"], updated["event_id"]);
        let payload = &created["payload"];
        assert_user(&payload["sender"]);
        assert_eq!(
            *payload,
            json!({
                "id": message["id"], "sender_id": alice.id, "content": "hello bob",
                "client_message_id": message["client_message_id"],
                "created_at": message["created_at"], "sender": alice.user,
            })
        );
        let listed = bob.conversations().await.remove(0);
        assert_eq!(
            updated["payload"],
            json!({
                "id": conversation, "updated_at": listed["updated_at"],
                "last_message_preview": "hello bob", "last_message_at": message["created_at"],
            })
        );
    }

    async fn the_message_comes_before_the_conversation(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;

        alice.send(&conversation, "hello").await;

        assert_eq!(socket.next_json().await["type"], "message.created");
        assert_eq!(socket.next_json().await["type"], "conversation.updated");
    }

    async fn an_event_has_the_preview_of_280_characters(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;

        alice.send(&conversation, &"é".repeat(300)).await;

        let (created, updated) = socket.next_message().await;
        assert_eq!(created["payload"]["content"], "é".repeat(300));
        assert_eq!(updated["payload"]["last_message_preview"], "é".repeat(280));
    }

    async fn every_subscribed_socket_of_every_member_gets_both_events(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let phone = world.log_in("alice").await;
        let mut sockets = [
            alice.listening(&[&conversation]).await,
            alice.listening(&[&conversation]).await,
            phone.listening(&[&conversation]).await,
            bob.listening(&[&conversation]).await,
            bob.listening(&[&conversation]).await,
        ];

        let message = alice.send(&conversation, "to all of us").await;

        let mut event_ids = Vec::new();
        for socket in &mut sockets {
            let (created, updated) = socket.next_message().await;
            assert_eq!(created["payload"]["id"], message["id"]);
            event_ids.push((created["event_id"].clone(), updated["event_id"].clone()));
        }
        assert!(
            event_ids.iter().all(|ids| *ids == event_ids[0]),
            "one event, one id: {event_ids:?}"
        );
    }

    async fn a_message_that_is_sent_again_makes_no_event(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;

        alice
            .try_send(&conversation, "client-message-1", "once")
            .await
            .data(201);
        alice
            .try_send(&conversation, "client-message-1", "once")
            .await
            .data(200);
        alice.send(&conversation, "marker").await;

        assert_eq!(seqs(&mut socket, 2).await, [1, 2]);
    }

    async fn events_of_a_conversation_come_in_the_order_of_seq(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;

        let (from_alice, from_bob, seen) = futures_util::future::join3(
            join_all((0..60).map(|_| alice.send(&conversation, "from alice"))),
            join_all((0..60).map(|_| bob.send(&conversation, "from bob"))),
            seqs(&mut socket, 120),
        )
        .await;

        assert_eq!(from_alice.len() + from_bob.len(), 120);
        assert_eq!(seen, (1..=120).collect::<Vec<_>>());
    }

    async fn a_conversation_that_is_not_subscribed_to_is_not_heard(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (with_bob, with_carol) = (alice.open(&bob).await, alice.open(&carol).await);
        let mut socket = alice.listening(&[&with_bob]).await;

        carol.send(&with_carol, "not heard").await;
        bob.send(&with_bob, "heard").await;

        socket
            .expect_quiet_until(|frame| frame["conversation_id"] == with_bob)
            .await;
    }

    async fn a_conversation_that_was_unsubscribed_from_is_not_heard(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (with_bob, with_carol) = (alice.open(&bob).await, alice.open(&carol).await);
        let mut socket = alice.listening(&[&with_bob, &with_carol]).await;

        socket.unsubscribe(&[&with_carol]).await;
        carol.send(&with_carol, "not heard").await;
        bob.send(&with_bob, "heard").await;

        socket
            .expect_quiet_until(|frame| frame["conversation_id"] == with_bob)
            .await;
    }

    async fn a_stranger_hears_nothing(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.register("carol").await;
        let own = carol.open(&bob).await;
        let mut socket = carol.socket().await;
        socket.ask(&json!({"op": "subscribe", "all": true})).await;

        alice.send(&conversation, "between us").await;
        bob.send(&own, "hi carol").await;

        socket
            .expect_quiet_until(|frame| frame["conversation_id"] == own)
            .await;
    }

    async fn a_socket_may_ask_for_all_conversations_present_and_future(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.register("carol").await;
        let mut socket = bob.socket().await;

        let ack = socket.ask(&json!({"op": "subscribe", "all": true})).await;
        assert_eq!(
            (&ack["type"], &ack["op"], &ack["ok"]),
            (&json!("ack"), &json!("subscribe"), &json!(true))
        );

        alice.send(&conversation, "from a friend").await;
        let (created, _) = socket.next_message().await;
        assert_eq!(created["conversation_id"], conversation);
        let new = carol.open(&bob).await;
        carol.send(&new, "from a stranger").await;
        socket.next_announcement().await;
        let (created, _) = socket.next_message().await;
        assert_eq!(created["payload"]["content"], "from a stranger");
    }

    async fn a_new_conversation_is_announced_to_both_and_to_nobody_else(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let known = carol.open(&bob).await;
        let (mut of_alice, mut of_bob) = (alice.socket().await, bob.socket().await);
        let mut of_carol = carol.listening(&[&known]).await;

        let new = alice.open(&bob).await;

        let listed = alice.conversations().await.remove(0);
        for socket in [&mut of_alice, &mut of_bob] {
            let event = socket.next_announcement().await;
            let fields = [
                "type",
                "event_id",
                "conversation_id",
                "seq",
                "occurred_at",
                "payload",
            ];
            assert_fields(&event, &fields);
            assert_eq!(event["conversation_id"], new);
            assert_eq!(
                event["payload"],
                json!({
                    "id": new, "updated_at": listed["updated_at"],
                    "last_message_preview": null, "last_message_at": null,
                })
            );
        }
        // Opening it again is no news, and carol has no part in it.
        bob.open(&alice).await;
        bob.send(&known, "hi carol").await;
        of_carol
            .expect_quiet_until(|frame| frame["conversation_id"] == known)
            .await;
        of_alice.expect_pong().await;
        of_bob.expect_pong().await;
    }

    async fn a_new_conversation_can_be_unsubscribed_from(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let known = carol.open(&bob).await;
        let mut socket = bob.listening(&[&known]).await;
        let new = alice.open(&bob).await;
        socket.next_announcement().await;

        socket.unsubscribe(&[&new]).await;
        alice.send(&new, "not heard").await;
        carol.send(&known, "heard").await;

        socket
            .expect_quiet_until(|frame| frame["conversation_id"] == known)
            .await;
    }

    async fn whoever_subscribes_hears_what_comes_next_and_not_what_was(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "before").await;

        let mut socket = bob.listening(&[&conversation]).await;
        alice.send(&conversation, "after").await;

        assert_eq!(seqs(&mut socket, 1).await, [2]);
    }

    // The end of the session is known by then: an answer of 200 says so.
    async fn a_socket_of_an_ended_session_is_closed_within_2_seconds(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        let phone = world.log_in("bob").await;
        let mut other = phone.listening(&[&conversation]).await;

        logout(&bob).await;
        let start = std::time::Instant::now();

        let closed = socket.closed().await;
        assert!(
            start.elapsed().as_secs_f64() < 2.0,
            "closed after {:?}",
            start.elapsed()
        );
        assert_eq!(closed.code, Some(1008));
        let codes: Vec<_> = closed
            .frames
            .iter()
            .map(|frame| &frame["error"]["code"])
            .collect();
        assert!(
            codes.iter().all(|code| **code == "UNAUTHORIZED"),
            "{:?}",
            closed.frames
        );
        bob.get("/v1/users/me").await.error(401, "invalid_token");
        // The other device goes on as before.
        alice.send(&conversation, "still there?").await;
        assert_eq!(seqs(&mut other, 1).await, [1]);
    }

    async fn a_socket_of_an_ended_session_is_closed_however_busy_it_is(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;
        let sends = async {
            loop {
                join_all((0..10).map(|_| alice.send(&conversation, "hello"))).await;
            }
        };
        let ends = async {
            socket.next_message().await;
            logout(&bob).await;
            let start = std::time::Instant::now();
            (socket.closed().await.code, start.elapsed())
        };

        let (code, after) = tokio::select! {
            ended = ends => ended,
            () = sends => unreachable!("sending never ends"),
        };

        assert_eq!(code, Some(1008));
        assert!(after.as_secs_f64() < 2.0, "closed after {after:?}");
    }

    #[with(REALTIME_DISPATCHER_ENABLED = "false")]
    async fn without_the_dispatcher_everything_but_the_events_works(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.listening(&[&conversation]).await;

        for _ in 0..5 {
            alice.send(&conversation, "hello").await;
            socket.expect_pong().await;
        }

        assert_eq!(bob.messages(&conversation, "").await.len(), 5);
    }

    // Whoever resumed would wait for ever, and take what it has for everything.
    #[with(REALTIME_DISPATCHER_ENABLED = "false")]
    async fn without_the_dispatcher_nobody_goes_on_from_a_cursor(world: World) {
        let bob = world.register("bob").await;
        let mut socket = bob.socket().await;

        assert_eq!(socket.welcome["features"], json!([]));
        let resume = json!({"op": "resume"});
        socket.refused(&resume, "INVALID_COMMAND").await;
        bob.get("/v1/events").await.error(404, "not_found");
        socket.expect_pong().await;
    }

    async fn a_reader_who_does_not_read_slows_nobody_and_is_closed_with_1013(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (with_bob, with_carol) = (alice.open(&bob).await, alice.open(&carol).await);
        let bearer = format!("Bearer {}", bob.access_token);
        let headers = [("authorization", bearer.as_str())];
        let mut stuck = Socket::open_narrow(world.address(), "/v1/ws", &headers)
            .await
            .unwrap();
        stuck.subscribe(&[&with_bob]).await;
        let mut listener = carol.listening(&[&with_carol]).await;

        // Eight megabytes: more than a kernel holds for a socket that nobody reads.
        let long = "😀".repeat(2000);
        for seq in 1..=20 {
            join_all((0..50).map(|_| alice.send(&with_bob, &long))).await;
            alice.send(&with_carol, "in time").await;
            let heard = within(
                SOON,
                "an event beside a stuck reader",
                listener.next_message(),
            );
            assert_eq!(heard.await.0["seq"], seq);
        }
        // The rule is about time, so here time has to pass.
        tokio::time::sleep(TOO_SLOW).await;

        let closed = stuck.closed().await;
        assert!(
            closed.frames.len() < 2000,
            "everything arrived: the reader was not stuck"
        );
        assert!(
            matches!(closed.code, Some(1013) | None),
            "{:?}",
            closed.code
        );
        // Nothing is lost: the messages are where they always are.
        let last: Vec<Value> = bob.messages(&with_bob, "?after_seq=999").await;
        assert_eq!(last.len(), 1);
    }
);
