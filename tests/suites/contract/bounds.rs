//! Numbers and texts at the edge of what can be written down: an answer of the contract, never a
//! failure, and the same on both databases.

use serde_json::json;
use tests::{PASSWORD, encoded, on_both_databases};

/// Numbers as people and programs write them, most of them no good.
const NUMBERS: [&str; 26] = [
    "0",
    "1",
    "-1",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "-1e400",
    "1.0",
    "0.1",
    "1e2",
    "NaN",
    "Infinity",
    "00",
    "+1",
];

on_both_databases!(
    async fn no_number_in_a_query_breaks_the_server(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send(&conversation, "hi").await;
        for number in NUMBERS {
            let number = encoded(number);
            for path in [
                format!("/v1/conversations/{conversation}/messages?after_seq={number}"),
                format!("/v1/conversations/{conversation}/messages?limit={number}"),
                format!("/v1/users/search?query=bob&limit={number}"),
            ] {
                let answer = alice.get(&path).await;
                assert!(
                    [200, 422].contains(&answer.status),
                    "{path}: {}",
                    answer.text
                );
            }
        }
    }

    async fn no_number_in_a_map_of_seqs_breaks_the_server(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send(&conversation, "hi").await;
        for number in NUMBERS {
            for map in [
                format!("{{\"{conversation}\":{number}}}"),
                format!("{conversation}:{number}"),
            ] {
                let path = format!(
                    "/v1/sync/changes?after_seq_by_conversation={}",
                    encoded(&map)
                );
                let answer = alice.get(&path).await;
                assert!(
                    [200, 422].contains(&answer.status),
                    "{map}: {}",
                    answer.text
                );
            }
        }
    }

    async fn the_largest_seq_has_nothing_after_it(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        bob.send(&conversation, "hi").await;
        // The largest integer that every client can count to.
        let largest = (1_i64 << 53) - 1;

        let after = alice
            .messages(&conversation, &format!("?after_seq={largest}"))
            .await;
        let map = encoded(&json!({&conversation: largest}).to_string());
        let changes = alice
            .get(&format!("/v1/sync/changes?after_seq_by_conversation={map}"))
            .await;

        assert_eq!(after, [json!(null); 0]);
        assert_eq!(changes.data(200)["messages"], json!([]));
        assert_eq!(changes.data(200)["has_more"], false);
    }

    async fn no_number_in_a_body_breaks_the_server(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for number in NUMBERS {
            let bodies = [
                (
                    "/v1/auth/login".to_owned(),
                    format!("{{\"username\":{number},\"password\":\"x\"}}"),
                ),
                (
                    "/v1/users/batch".to_owned(),
                    format!("{{\"ids\":[{number}]}}"),
                ),
                (
                    "/v1/conversations/direct".to_owned(),
                    format!("{{\"other_user_id\":{number}}}"),
                ),
                (
                    format!("/v1/conversations/{conversation}/messages"),
                    format!("{{\"client_message_id\":{number},\"content\":{number}}}"),
                ),
            ];
            for (path, body) in bodies {
                alice
                    .http
                    .post_text(&path, body)
                    .await
                    .error(422, "validation_error");
            }
        }
    }

    async fn no_number_in_a_command_breaks_the_socket(world: World) {
        let alice = world.register("alice").await;
        for numbers in NUMBERS.chunks(20) {
            let mut socket = alice.socket().await;
            for number in numbers {
                socket
                    .send_text(&format!("{{\"op\":\"ping\",\"ts\":{number}}}"))
                    .await;
                let answer = socket.next_json().await;
                let refused = answer["error"]["code"] == "INVALID_COMMAND";
                assert!(refused || answer["type"] == "pong", "{number}: {answer}");
            }
            socket.expect_pong().await;
        }
    }

    // PostgreSQL can not keep the character, SQLite can: so nobody may send it.
    async fn a_nul_character_is_refused_in_every_text(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let path = format!("/v1/conversations/{conversation}/messages");
        for content in ["\0", "a\0b", "end\0"] {
            alice
                .try_send(&conversation, "client-message-1", content)
                .await
                .invalid("content");
        }
        alice
            .try_send(&conversation, "client\0message", "hi")
            .await
            .invalid("client_message_id");
        let account = |username: &str, display_name: &str| json!({"username": username, "display_name": display_name, "password": PASSWORD});
        let register = "/v1/auth/register";
        world
            .http
            .post(register, &account("dave\0", "Dave"))
            .await
            .invalid("username");
        world
            .http
            .post(register, &account("dave", "Da\0ve"))
            .await
            .invalid("display_name");
        alice
            .get("/v1/users/search?query=a%00b")
            .await
            .invalid("query");
        assert_eq!(alice.get(&path).await.data(200)["messages"], json!([]));
    }

    async fn a_nul_character_names_nobody(world: World) {
        let alice = world.register("alice").await;
        let login = json!({"username": "alice\0", "password": PASSWORD});
        let answers = [
            world.http.post("/v1/auth/login", &login).await,
            alice.post("/v1/users/batch", &json!({"ids": ["\0"]})).await,
            alice
                .post("/v1/conversations/direct", &json!({"other_user_id": "\0"}))
                .await,
            alice
                .get("/v1/sync/changes?after_seq_by_conversation=%00")
                .await,
        ];
        let statuses = answers.map(|answer| answer.status);

        assert!([401, 422].contains(&statuses[0]), "{statuses:?}");
        assert!([200, 422].contains(&statuses[1]), "{statuses:?}");
        assert!([404, 422].contains(&statuses[2]), "{statuses:?}");
        assert_eq!(statuses[3], 422, "{statuses:?}");
    }

    async fn strange_texts_come_back_as_they_were(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let texts = [
            " ",
            "\n",
            "\u{feff}",
            "\u{200b}",
            "\u{202e}abc",
            "e\u{301}",
            "é",
            "\u{fffd}",
            "\u{fffe}",
            "\u{10ffff}",
            "ﷺ",
            "𝕳𝖊𝖑𝖑𝖔",
            "👨‍👩‍👧‍👦",
            "'; DROP TABLE messages; --",
            "${jndi:ldap://x}",
            "%s%n",
            "\\u0000",
            "<script>alert(1)</script>",
            "\u{1b}[31mred",
            "a\u{1}b",
            "\u{85}\u{2028}",
        ];
        for text in texts {
            alice.send(&conversation, text).await;
        }

        let read: Vec<_> = bob.messages(&conversation, "").await;
        let contents: Vec<_> = read
            .iter()
            .map(|message| message["content"].as_str().unwrap())
            .collect();

        assert_eq!(contents, texts);
    }

    async fn an_escaped_character_counts_as_one(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let content = "\"".repeat(2000);

        alice.send(&conversation, &content).await;

        assert_eq!(bob.messages(&conversation, "").await[0]["content"], content);
    }
);
