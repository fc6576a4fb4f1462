//! One shape for every answer, whatever goes wrong. That each answer has it is checked by the
//! harness; here is what goes wrong.

use serde_json::{Value, json};
use tests::{PASSWORD, RawAnswer, World, on_both_databases, raw};

/// Every path that takes a JSON body by `POST`, with a body that it would take.
fn posts(conversation: &str) -> Vec<(String, Value)> {
    let id = "018f0000-0000-7000-8000-000000000000";
    let token = json!({"refresh_token": "x".repeat(64)});
    vec![
        (
            "/v1/auth/register".to_owned(),
            json!({"username": "carol", "password": PASSWORD}),
        ),
        (
            "/v1/auth/login".to_owned(),
            json!({"username": "carol", "password": PASSWORD}),
        ),
        ("/v1/auth/refresh".to_owned(), token.clone()),
        ("/v1/auth/logout".to_owned(), token),
        ("/v1/users/batch".to_owned(), json!({"ids": [id]})),
        ("/v1/users/presence".to_owned(), json!({"ids": [id]})),
        (
            "/v1/conversations/direct".to_owned(),
            json!({"other_user_id": id}),
        ),
        (
            format!("/v1/conversations/{conversation}/messages"),
            json!({"client_message_id": "client-message-1", "content": "hi"}),
        ),
    ]
}

async fn post_raw(
    world: &World,
    path: &str,
    token: &str,
    framing: &str,
    rest: impl IntoIterator<Item = Vec<u8>>,
) -> RawAnswer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n{framing}\r\n\r\n",
        world.address()
    );
    raw(world.address(), head.as_bytes(), rest).await
}

on_both_databases!(
    async fn an_unknown_route_is_not_found(world: World) {
        let alice = world.register("alice").await;
        let paths = [
            "/v1",
            "/v1/",
            "/v1/nothing",
            "/v1/auth",
            "/v1/users",
            "/v1/users/me/more",
            "/v2/users/me",
            "/v1/conversations/x/y/z",
            "/V1/USERS/ME",
            "/v1//users/me",
            "/health/more",
            "/favicon.ico",
            "/v1/%F0%9F%98%80",
            "/.env",
            "/v1/users/../../etc/passwd",
        ];
        for path in paths {
            alice.get(path).await.error(404, "not_found");
            world.http.get(path).await.error(404, "not_found");
            world
                .http
                .post(path, &json!({}))
                .await
                .error(404, "not_found");
        }
    }

    async fn a_wrong_method_is_not_allowed(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let messages = format!("/v1/conversations/{conversation}/messages");
        let allowed = [
            ("POST", "/v1/auth/register"),
            ("POST", "/v1/auth/login"),
            ("POST", "/v1/auth/refresh"),
            ("POST", "/v1/auth/logout"),
            ("GET PATCH DELETE", "/v1/users/me"),
            ("GET", "/v1/users/search"),
            ("POST", "/v1/users/batch"),
            ("POST", "/v1/users/presence"),
            ("GET", "/v1/conversations"),
            ("POST", "/v1/conversations/direct"),
            ("POST", "/v1/conversations/groups"),
            ("GET POST", messages.as_str()),
            ("GET", "/v1/sync/bootstrap"),
            ("GET", "/v1/sync/changes"),
            ("GET", "/health"),
        ];
        for (methods, path) in allowed {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                if !methods.contains(method) {
                    let request = alice.http.request(method.parse().unwrap(), path);
                    let answer = alice.http.send(request).await;
                    assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text);
                    answer.error(405, "method_not_allowed");
                    let mut told: Vec<&str> = answer.header("allow").unwrap().split(", ").collect();
                    let mut expected: Vec<&str> = methods.split(' ').collect();
                    told.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(told, expected, "{method} {path}");
                }
            }
        }
    }

    async fn a_body_that_is_not_json_is_a_validation_error(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let bodies: [&[u8]; 12] = [
            b"",
            b" ",
            b"{",
            b"}",
            b"{\"username\":",
            b"nonsense",
            b"{'a': 1}",
            b"{\"a\": 1,}",
            b"{\"a\": NaN}",
            b"{\"a\": \"\xff\xfe\"}",
            b"{} x",
            b"{\"a\": \"\\ud800\"}",
        ];
        for (path, _) in posts(&conversation) {
            for body in bodies {
                let answer = alice.http.post_text(&path, body).await;
                answer.error(422, "validation_error");
            }
        }
    }

    async fn a_body_that_is_no_object_is_a_validation_error(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for (path, _) in posts(&conversation) {
            for body in ["null", "true", "7", "\"x\"", "[]", "[{}]"] {
                let answer = alice.http.post_text(&path, body).await;
                answer.error(422, "validation_error");
            }
        }
    }

    async fn a_lone_surrogate_or_half_a_character_is_a_validation_error(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let path = format!("/v1/conversations/{conversation}/messages");
        for content in ["\\ud800", "\\udc00\\ud800", "x\\udfff"] {
            let body =
                format!(r#"{{"client_message_id":"client-message-1","content":"{content}"}}"#);
            alice
                .http
                .post_text(&path, body)
                .await
                .error(422, "validation_error");
        }
        let body: &[u8] =
            b"{\"client_message_id\":\"client-message-1\",\"content\":\"\xf0\x9f\x98\"}";
        alice
            .http
            .post_text(&path, body)
            .await
            .error(422, "validation_error");
        assert_eq!(alice.messages(&conversation, "").await, [json!(null); 0]);
    }

    async fn json_that_is_deeply_nested_is_a_validation_error(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let deep = |open: &str, close: &str| {
            let nested = format!("{}{}", open.repeat(1_000), close.repeat(1_000));
            // In a field of each body there is, and in one of none.
            let fields = [
                "username",
                "refresh_token",
                "ids",
                "other_user_id",
                "content",
                "x",
            ];
            let fields = fields.map(|field| format!("\"{field}\": {nested}"));
            format!("{{{}}}", fields.join(","))
        };
        for body in [
            deep("[1,", "2]"),
            "[".repeat(50_000),
            "{\"a\":".repeat(10_000),
        ] {
            for (path, _) in posts(&conversation) {
                let answer = alice.http.post_text(&path, body.clone()).await;
                assert!(
                    [413, 422].contains(&answer.status),
                    "{path}: {}",
                    answer.text
                );
            }
        }
    }

    async fn a_field_that_nobody_knows_may_be_as_deep_as_it_likes(world: World) {
        let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let body = format!(r#"{{"username": "dave", "password": "{PASSWORD}", "x": {nested}}}"#);

        let answer = world.http.post_text("/v1/auth/register", body).await;

        assert!([201, 422].contains(&answer.status), "{}", answer.text);
        world.http.get("/health").await.data(200);
    }

    async fn a_body_that_is_not_called_json_is_refused(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let kinds = [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/xml",
            "nonsense",
        ];
        for (path, body) in posts(&conversation) {
            for kind in kinds {
                let request = alice.http.request("POST".parse().unwrap(), &path);
                let request = request.header("content-type", kind).body(body.to_string());
                let answer = alice.http.send(request).await;
                assert!(
                    [415, 422].contains(&answer.status),
                    "{kind:?} {path}: {}",
                    answer.text
                );
            }
        }
        assert_eq!(alice.messages(&conversation, "").await, [json!(null); 0]);
    }

    async fn json_may_be_called_so_in_more_than_one_way(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let path = format!("/v1/conversations/{conversation}/messages");
        let kinds = [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON;charset=UTF-8",
        ];
        for (number, kind) in kinds.iter().enumerate() {
            let id = format!("client-message-{number}");
            let body = json!({"client_message_id": id, "content": "hi"}).to_string();
            let request = alice.http.request("POST".parse().unwrap(), &path);
            let answer = alice
                .http
                .send(request.header("content-type", *kind).body(body))
                .await;
            answer.data(201);
        }
    }

    async fn an_answer_is_json_that_nobody_stores_or_takes_for_a_page(world: World) {
        let alice = world.register("alice").await;
        let answers = [
            alice.get("/v1/users/me").await,
            alice.get("/v1/conversations").await,
            alice.get("/v1/sync/bootstrap").await,
            alice.get("/v1/nothing").await,
            world.http.get("/v1/users/me").await,
        ];
        for answer in answers {
            let store = answer.header("cache-control").unwrap_or_default();
            assert!(store.contains("no-store"), "cache-control: {store:?}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
    }

    async fn too_large_a_body_is_refused_before_it_is_read(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let length = "content-length: 104857600";
        for (path, _) in posts(&conversation) {
            // A hundred megabytes are announced and a few bytes are sent: the answer comes now.
            let some = [b"{\"a\": \"aaaaaaaa".to_vec()];
            let answer = post_raw(&world, &path, &alice.access_token, length, some).await;
            assert_eq!(
                (answer.status, answer.code().as_deref()),
                (413, Some("payload_too_large")),
                "{path}"
            );
        }
    }

    async fn too_large_a_body_without_a_length_is_refused_too(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for (path, _) in posts(&conversation) {
            let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
            let endless = std::iter::repeat_n(chunk, 10_000);
            let chunked = "transfer-encoding: chunked";
            let answer = post_raw(&world, &path, &alice.access_token, chunked, endless).await;
            assert_eq!(
                (answer.status, answer.code().as_deref()),
                (413, Some("payload_too_large")),
                "{path}"
            );
        }
    }

    async fn the_longest_message_fits_however_it_is_escaped(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        // Twelve bytes of JSON for each of two thousand characters.
        let content = "\\ud83d\\ude00".repeat(2000);
        let body = format!(r#"{{"client_message_id":"client-message-1","content":"{content}"}}"#);

        let path = format!("/v1/conversations/{conversation}/messages");
        alice.http.post_text(&path, body).await.data(201);

        assert_eq!(
            bob.messages(&conversation, "").await[0]["content"],
            "😀".repeat(2000)
        );
    }

    async fn a_chunked_body_is_as_good_as_one_with_a_length(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let path = format!("/v1/conversations/{conversation}/messages");
        let body = r#"{"client_message_id":"client-message-1","content":"hi"}"#;
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes();

        let chunked = "transfer-encoding: chunked";
        let answer = post_raw(&world, &path, &alice.access_token, chunked, [chunks]).await;

        assert_eq!(answer.status, 201, "{}", answer.text);
    }

    async fn what_is_no_http_is_refused_and_the_server_goes_on(world: World) {
        let nonsense: [&[u8]; 7] = [ b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
            b"POST /v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
            b"POST /v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n{}",
        ];
        for bytes in nonsense {
            let answer = raw(world.address(), bytes, [b"\r\n\r\n".to_vec()]).await;
            assert!(
                answer.status == 0 || (400..500).contains(&answer.status),
                "{answer:?}"
            );
        }
        world.http.get("/health").await.data(200);
    }

    async fn a_huge_header_is_refused_and_the_server_goes_on(world: World) {
        let head = format!(
            "GET /health HTTP/1.1\r\nhost: a\r\nx-large: {}",
            "x".repeat(900_000)
        );
        let answer = raw(world.address(), head.as_bytes(), [b"\r\n\r\n".to_vec()]).await;

        assert!(
            answer.status == 0 || (400..500).contains(&answer.status),
            "{}",
            answer.status
        );
        world.http.get("/health").await.data(200);
    }

    async fn a_page_that_is_allowed_may_read_answers_and_no_other(world: World) {
        let ask = async |origin: &str| {
            let request = world.http.request("GET".parse().unwrap(), "/health");
            world.http.send(request.header("origin", origin)).await
        };
        for origin in ["http://localhost:3000", "http://localhost:8081"] {
            let answer = ask(origin).await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        }
        for origin in [
            "https://evil.example",
            "http://localhost:3000.evil.example",
            "null",
        ] {
            let request = world.http.request("GET".parse().unwrap(), "/health");
            let answer = world.http.bare(request.header("origin", origin)).await;
            assert_eq!(
                answer.headers().get("access-control-allow-origin"),
                None,
                "{origin}"
            );
        }
    }

    async fn a_browser_is_told_what_an_allowed_page_may_send(world: World) {
        let preflight = async |origin: &str| {
            let request = world
                .http
                .request("OPTIONS".parse().unwrap(), "/v1/conversations");
            let request = request.header("origin", origin);
            let request = request.header("access-control-request-method", "POST");
            let wants = "authorization,content-type";
            world
                .http
                .bare(request.header("access-control-request-headers", wants))
                .await
        };

        let answer = preflight("http://localhost:8081").await;
        assert!(answer.status().is_success(), "{}", answer.status());
        let header = |name: &str| {
            let value = answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_ascii_lowercase()
        };
        assert_eq!(
            header("access-control-allow-origin"),
            "http://localhost:8081"
        );
        for method in ["get", "post", "put", "patch", "delete"] {
            assert!(
                header("access-control-allow-methods").contains(method),
                "{method}"
            );
        }
        for name in ["authorization", "content-type", "idempotency-key"] {
            assert!(
                header("access-control-allow-headers").contains(name),
                "{name}"
            );
        }
        let evil = preflight("https://evil.example").await;
        assert_eq!(evil.headers().get("access-control-allow-origin"), None);
    }
);
