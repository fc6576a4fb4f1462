//! The socket: who gets one, what it is told first, and what it answers to commands.

use serde_json::{Value, json};
use tests::{
    Forge, PATIENCE, Refusal, Socket, World, assert_fields, assert_id, assert_time, fresh_id,
    on_both_databases,
};
use tokio_tungstenite::tungstenite::Message;

/// Opens a socket as a browser of this origin would.
async fn from_origin(world: &World, token: &str, origin: &str) -> Result<Socket, Refusal> {
    let bearer = format!("Bearer {token}");
    world
        .handshake("/v1/ws", &[("authorization", &bearer), ("origin", origin)])
        .await
}

fn assert_refused(refusal: Result<Socket, Refusal>) {
    match refusal {
        Err(Refusal::Handshake(401 | 403, _) | Refusal::Closed(Some(1008))) => {}
        Err(other) => panic!("refused, but how: {other:?}"),
        Ok(_) => panic!("opened"),
    }
}

on_both_databases!(
    async fn the_first_frame_is_the_welcome(world: World) {
        let alice = world.register("alice").await;

        let socket = alice.socket().await;

        let welcome = &socket.welcome;
        let fields = [
            "type",
            "connection_id",
            "user_id",
            "server_time",
            "heartbeat_sec",
        ];
        assert_fields(welcome, &[&fields[..], &["protocol_version"]].concat());
        assert_eq!(welcome["type"], "connection.welcome");
        assert_id(&welcome["connection_id"]);
        assert_eq!(welcome["user_id"], alice.id);
        assert_time(&welcome["server_time"]);
        assert_eq!(welcome["heartbeat_sec"], 25);
        assert_eq!(welcome["protocol_version"], 1);
    }

    async fn each_connection_has_an_id_of_its_own(world: World) {
        let alice = world.register("alice").await;

        let (one, two) = (alice.socket().await, alice.socket().await);

        assert_ne!(one.welcome["connection_id"], two.welcome["connection_id"]);
    }

    #[with(WS_HEARTBEAT_SEC = "7")]
    async fn the_heartbeat_is_a_setting(world: World) {
        let socket = world.register("alice").await.socket().await;

        assert_eq!(socket.welcome["heartbeat_sec"], 7);
    }

    async fn the_token_comes_in_the_header_or_in_the_query(world: World) {
        let alice = world.register("alice").await;
        let bearer = format!("Bearer {}", alice.access_token);
        let query = format!("/v1/ws?access_token={}", alice.access_token);

        let header = world
            .handshake("/v1/ws", &[("authorization", &bearer)])
            .await
            .unwrap();
        let query = world.handshake(&query, &[]).await.unwrap();

        assert_eq!(header.welcome["user_id"], alice.id);
        assert_eq!(query.welcome["user_id"], alice.id);
    }

    async fn the_token_in_the_header_counts_before_the_one_in_the_query(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let query = format!("/v1/ws?access_token={}", bob.access_token);
        let bearer = format!("Bearer {}", alice.access_token);

        let socket = world
            .handshake(&query, &[("authorization", &bearer)])
            .await
            .unwrap();

        assert_eq!(socket.welcome["user_id"], alice.id);
    }

    async fn a_bad_token_opens_no_session(world: World) {
        let alice = world.register("alice").await;
        let (header, mut claims) = Forge::read(&alice.access_token);
        claims["exp"] = json!(1_700_000_000);
        let expired = world.forge().token(&header, &claims);
        let bob = world.register("bob").await;
        let logout = json!({"refresh_token": bob.refresh_token});
        world.http.post("/v1/auth/logout", &logout).await.data(200);

        assert_refused(world.handshake("/v1/ws", &[]).await);
        for token in ["x", &alice.refresh_token, &expired, &bob.access_token] {
            let bearer = format!("Bearer {token}");
            assert_refused(
                world
                    .handshake("/v1/ws", &[("authorization", &bearer)])
                    .await,
            );
            assert_refused(
                world
                    .handshake(&format!("/v1/ws?access_token={token}"), &[])
                    .await,
            );
        }
        assert_refused(world.handshake("/v1/ws?access_token=", &[]).await);
    }

    async fn a_request_that_is_no_handshake_is_refused_in_the_envelope(world: World) {
        let alice = world.register("alice").await;

        let with = alice.get("/v1/ws").await;
        let without = world.http.get("/v1/ws").await;

        assert!((400..500).contains(&with.status), "{}", with.text);
        assert!((400..500).contains(&without.status), "{}", without.text);
    }

    // A page of another site can open a socket with whatever it has stolen or was lent; browsers
    // send where the page is from and ask nobody for permission.
    async fn a_page_from_elsewhere_gets_no_socket(world: World) {
        let alice = world.register("alice").await;
        let elsewhere = [
            "https://evil.example",
            "http://localhost:3000.evil.example",
            "http://evil.example/http://localhost:3000",
            "http://localhost:3001",
            "https://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:1",
            "null",
            "file://",
        ];
        for origin in elsewhere {
            match from_origin(&world, &alice.access_token, origin).await {
                Err(Refusal::Handshake(403, body)) => {
                    let body: Value = serde_json::from_str(&body).unwrap();
                    assert!(body["error"]["code"].is_string(), "{body}");
                }
                Err(other) => panic!("{origin} is refused, but how: {other:?}"),
                Ok(_) => panic!("{origin} got a socket"),
            }
        }
    }

    async fn a_page_that_is_allowed_gets_a_socket(world: World) {
        let alice = world.register("alice").await;
        for origin in ["http://localhost:3000", "http://localhost:8081"] {
            let socket = from_origin(&world, &alice.access_token, origin)
                .await
                .unwrap();
            assert_eq!(socket.welcome["user_id"], alice.id);
        }
    }

    #[with(CORS_ORIGINS = "https://chat.example, https://other.example")]
    async fn the_allowed_pages_are_a_setting(world: World) {
        let alice = world.register("alice").await;
        for origin in ["https://chat.example", "https://other.example"] {
            from_origin(&world, &alice.access_token, origin)
                .await
                .unwrap();
        }
        let default = from_origin(&world, &alice.access_token, "http://localhost:3000").await;
        assert!(
            matches!(default, Err(Refusal::Handshake(403, _))),
            "{default:?}"
        );
    }

    // React Native is no browser, but its sockets send an `Origin` all the same: the address of
    // the server itself. Existing clients are such apps.
    async fn an_app_whose_origin_is_the_server_itself_gets_a_socket(world: World) {
        let alice = world.register("alice").await;
        let origin = format!("http://{}", world.address());

        let socket = from_origin(&world, &alice.access_token, &origin)
            .await
            .unwrap();

        assert_eq!(socket.welcome["user_id"], alice.id);
    }

    async fn a_ping_is_answered_with_its_time(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        let pong = socket
            .ask(&json!({"op": "ping", "ts": 1_700_000_000_000_i64}))
            .await;
        assert_eq!(pong, json!({"type": "pong", "ts": 1_700_000_000_000_i64}));
        let pong = socket.ask(&json!({"op": "ping"})).await;
        assert_eq!(pong, json!({"type": "pong"}));
        for ts in [0, -1, i64::MAX, i64::MIN] {
            let pong = socket.ask(&json!({"op": "ping", "ts": ts})).await;
            assert_eq!(pong, json!({"type": "pong", "ts": ts}));
        }
    }

    async fn a_ping_frame_of_the_protocol_is_answered_by_the_protocol(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        socket.send_frame(Message::Ping("hello".into())).await;

        assert_eq!(socket.next_frame().await, Message::Pong("hello".into()));
        socket.expect_pong().await;
    }

    async fn subscribing_is_acknowledged_with_the_conversations(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let (one, two) = (alice.open(&bob).await, alice.open(&carol).await);
        let mut socket = alice.socket().await;

        for op in ["subscribe", "subscribe", "unsubscribe", "unsubscribe"] {
            let ack = socket
                .ask(&json!({"op": op, "conversation_ids": [one, two]}))
                .await;
            assert_fields(&ack, &["type", "op", "ok", "details"]);
            assert_eq!(
                (&ack["type"], &ack["op"], &ack["ok"]),
                (&json!("ack"), &json!(op), &json!(true))
            );
            assert_eq!(ack["details"], json!({"conversation_ids": [one, two]}));
        }
    }

    async fn an_error_frame_has_a_code_and_a_message(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        let error = socket
            .refused(&json!({"op": "dance"}), "INVALID_COMMAND")
            .await;

        assert_fields(&error, &["type", "error"]);
        let names: Vec<_> = error["error"].as_object().unwrap().keys().collect();
        assert!(
            names
                .iter()
                .all(|name| ["code", "message", "details"].contains(&name.as_str()))
        );
    }

    async fn a_frame_that_is_no_command_is_refused_and_the_connection_stays(world: World) {
        let mut socket = world.register("alice").await.socket().await;
        let wrong = [
            "",
            " ",
            "ping",
            "null",
            "true",
            "7",
            "\"ping\"",
            "[]",
            "{}",
            "{",
            "{\"op\":\"ping\"} x",
            "{\"op\":7}",
            "{\"op\":null}",
            "{\"op\":[\"ping\"]}",
            "{\"op\":\"PING\"}",
            "{\"op\":\"dance\"}",
            "{\"type\":\"ping\"}",
            "[{\"op\":\"ping\"}]",
            "{\"op\":\"ping\"",
            "\u{0}",
            "{\"op\":\"ping\\u0000\"}",
        ];
        for text in wrong {
            socket.refused_text(text, "INVALID_COMMAND").await;
        }
        socket.expect_pong().await;
    }

    async fn a_command_with_an_unknown_field_is_refused(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let mut socket = alice.socket().await;
        for command in [
            json!({"op": "ping", "extra": 1}),
            json!({"op": "ping", "conversation_ids": [conversation]}),
            json!({"op": "subscribe", "conversation_ids": [conversation], "extra": null}),
            json!({"op": "subscribe", "conversation_ids": [conversation], "ts": 1}),
            json!({"op": "unsubscribe", "conversation_ids": [conversation], "user_id": alice.id}),
        ] {
            socket.refused(&command, "INVALID_COMMAND").await;
        }
        socket.expect_pong().await;
    }

    async fn a_command_with_a_field_of_a_wrong_type_is_refused(world: World) {
        let mut socket = world.register("alice").await.socket().await;
        for command in [
            json!({"op": "ping", "ts": "1"}),
            json!({"op": "ping", "ts": 1.5}),
            json!({"op": "ping", "ts": [1]}),
            json!({"op": "ping", "ts": {}}),
            json!({"op": "subscribe"}),
            json!({"op": "subscribe", "conversation_ids": null}),
            json!({"op": "subscribe", "conversation_ids": "x"}),
            json!({"op": "subscribe", "conversation_ids": [7]}),
            json!({"op": "subscribe", "conversation_ids": [null]}),
            json!({"op": "subscribe", "conversation_ids": {}}),
            json!({"op": "unsubscribe"}),
            json!({"op": "unsubscribe", "conversation_ids": 7}),
        ] {
            socket.refused(&command, "INVALID_COMMAND").await;
        }
        socket.expect_pong().await;
    }

    async fn subscribing_to_anything_of_others_refuses_the_whole_command(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let [carol, dave] = world.register_all(["carol", "dave"]).await;
        let (theirs, mine) = (carol.open(&dave).await, bob.open(&carol).await);
        let mut socket = bob.socket().await;

        for other in [&theirs, &fresh_id()] {
            let command = json!({"op": "subscribe", "conversation_ids": [conversation, other]});
            socket.refused(&command, "FORBIDDEN_CONVERSATION").await;
        }

        // Nothing of the refused commands was done: only the later subscription hears anything.
        socket.subscribe(&[&mine]).await;
        alice.send(&conversation, "not heard").await;
        carol.send(&mine, "heard").await;
        socket
            .expect_quiet_until(|frame| frame["conversation_id"] == mine)
            .await;
    }

    async fn a_socket_cannot_tell_whether_a_conversation_exists(world: World) {
        let (_, _, conversation) = world.alice_and_bob().await;
        let mut socket = world.register("carol").await.socket().await;
        let nowhere = fresh_id();

        let mut answers = Vec::new();
        for id in [&conversation, &nowhere] {
            let command = json!({"op": "subscribe", "conversation_ids": [id]});
            let answer = socket.refused(&command, "FORBIDDEN_CONVERSATION").await;
            answers.push(answer.to_string().replace(id.as_str(), "<id>"));
        }

        assert_eq!(answers[0], answers[1]);
    }

    async fn a_socket_lives_no_longer_than_its_token(world: World) {
        let alice = world.register("alice").await;
        let (header, mut claims) = Forge::read(&alice.access_token);
        let now = claims["iat"].as_i64().unwrap();
        claims["exp"] = json!(now + 3);
        let bearer = format!("Bearer {}", world.forge().token(&header, &claims));
        let mut socket = world
            .handshake("/v1/ws", &[("authorization", &bearer)])
            .await
            .unwrap();

        let closed = socket.closed().await;

        assert_eq!(closed.code, Some(1008));
        let codes: Vec<_> = closed
            .frames
            .iter()
            .map(|frame| &frame["error"]["code"])
            .collect();
        assert_eq!(codes, ["TOKEN_EXPIRED"]);
    }

    #[with(WS_IDLE_TIMEOUT_SEC = "1")]
    async fn a_silent_socket_is_closed(world: World) {
        let mut socket = world.register("alice").await.socket().await;
        let start = std::time::Instant::now();

        let closed = socket.closed().await;

        assert_eq!(closed.frames, [json!(null); 0]);
        assert_eq!(closed.code, Some(1001));
        assert!(
            start.elapsed() < PATIENCE / 2,
            "closed after {:?}",
            start.elapsed()
        );
    }

    #[with(WS_IDLE_TIMEOUT_SEC = "2")]
    async fn a_socket_that_speaks_stays_open(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        // The rule is about time, so here time has to pass: twice what silence is granted.
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(250));
        for _ in 0..17 {
            ticks.tick().await;
            socket.expect_pong().await;
        }
    }

    async fn a_client_that_says_goodbye_is_answered(world: World) {
        let mut socket = world.register("alice").await.socket().await;

        socket.send_frame(Message::Close(None)).await;

        assert_eq!(socket.closed().await.frames, [json!(null); 0]);
    }

    #[with(API_V1_PREFIX = "/api/v7")]
    async fn the_prefix_of_every_path_is_a_setting(world: World) {
        let body = json!({"username": "alice", "password": tests::PASSWORD});
        world
            .http
            .post("/v1/auth/register", &body)
            .await
            .error(404, "not_found");
        let answer = world.http.post("/api/v7/auth/register", &body).await;
        let alice = world.person(answer.data(201));

        alice.get("/api/v7/users/me").await.data(200);
        alice.get("/v1/users/me").await.error(404, "not_found");
        let query = format!("/api/v7/ws?access_token={}", alice.access_token);
        world.handshake(&query, &[]).await.unwrap();
        world.http.get("/health").await.data(200);
    }
);
