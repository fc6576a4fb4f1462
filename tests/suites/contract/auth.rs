//! Register, log in, refresh, log out.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Http, PASSWORD, assert_session_opened, on_both_databases};

const REGISTER: &str = "/v1/auth/register";
const LOGIN: &str = "/v1/auth/login";
const REFRESH: &str = "/v1/auth/refresh";
const LOGOUT: &str = "/v1/auth/logout";

fn account(username: &str) -> Value {
    json!({"username": username, "password": PASSWORD})
}

on_both_databases!(
    async fn registering_opens_a_session(world: World) {
        let body = json!({"username": "alice", "display_name": "Alice A.", "password": PASSWORD});
        let answer = world.http.post(REGISTER, &body).await;

        let data = answer.data(201);
        assert_session_opened(data);
        assert_eq!(data["user"]["username"], "alice");
        assert_eq!(data["user"]["display_name"], "Alice A.");
        let alice = world.person(data);
        assert_eq!(alice.get("/v1/users/me").await.data(200), &data["user"]);
    }

    async fn the_display_name_is_the_username_unless_given(world: World) {
        let absent = world.http.post(REGISTER, &account("alice")).await;
        let null = json!({"username": "bob", "display_name": null, "password": PASSWORD});
        let null = world.http.post(REGISTER, &null).await;

        assert_eq!(absent.data(201)["user"]["display_name"], "alice");
        assert_eq!(null.data(201)["user"]["display_name"], "bob");
    }

    async fn a_username_has_3_to_32_characters(world: World) {
        for length in [3, 32] {
            let answer = world
                .http
                .post(REGISTER, &account(&"a".repeat(length)))
                .await;
            assert_eq!(answer.data(201)["user"]["username"], "a".repeat(length));
        }
        for length in [0, 1, 2, 33, 1000] {
            let answer = world
                .http
                .post(REGISTER, &account(&"b".repeat(length)))
                .await;
            answer.invalid("username");
        }
    }

    async fn a_username_is_made_of_letters_digits_underscore_dot_and_hyphen(world: World) {
        let answer = world.http.post(REGISTER, &account("a_b.c-9")).await;
        assert_eq!(answer.data(201)["user"]["username"], "a_b.c-9");

        let wrong = [
            "al ice",
            "alice@",
            "ålice",
            "аlice",
            "al/ice",
            "alice\n",
            "al\u{200b}ice",
            "a+b+c",
        ];
        for username in wrong {
            world
                .http
                .post(REGISTER, &account(username))
                .await
                .invalid("username");
        }
    }

    async fn a_display_name_has_1_to_64_characters_not_bytes(world: World) {
        let named = |username: &str, display_name: &str| json!({"username": username, "display_name": display_name, "password": PASSWORD});
        for (username, name) in [("one", "😀".to_owned()), ("all", "😀".repeat(64))] {
            let answer = world.http.post(REGISTER, &named(username, &name)).await;
            assert_eq!(answer.data(201)["user"]["display_name"], name);
        }
        for name in [String::new(), "😀".repeat(65)] {
            world
                .http
                .post(REGISTER, &named("bob", &name))
                .await
                .invalid("display_name");
        }
    }

    async fn a_password_has_8_to_128_characters_not_bytes(world: World) {
        let with =
            |username: &str, password: &str| json!({"username": username, "password": password});
        for (username, password) in [("short", "é".repeat(8)), ("long", "é".repeat(128))] {
            world
                .http
                .post(REGISTER, &with(username, &password))
                .await
                .data(201);
            world
                .http
                .post(LOGIN, &with(username, &password))
                .await
                .data(200);
        }
        for password in [String::new(), "é".repeat(7), "é".repeat(129)] {
            world
                .http
                .post(REGISTER, &with("bob", &password))
                .await
                .invalid("password");
        }
    }

    async fn a_username_is_taken_once(world: World) {
        world.register("alice").await;

        let again = world.http.post(REGISTER, &account("alice")).await;

        again.error(409, "username_taken");
    }

    async fn a_username_is_taken_once_whoever_comes_at_the_same_time(world: World) {
        let body = account("alice");
        let answers = join_all((0..12).map(|_| world.http.post(REGISTER, &body))).await;

        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [&[201][..], &[409; 11][..]].concat());
    }

    async fn logging_in_opens_another_session_of_the_same_user(world: World) {
        let alice = world.register("alice").await;

        let answer = world.http.post(LOGIN, &account("alice")).await;

        let data = answer.data(200);
        assert_session_opened(data);
        assert_eq!(data["user"], alice.user);
        assert_ne!(data["tokens"]["refresh_token"], json!(alice.refresh_token));
        assert_eq!(alice.get("/v1/users/me").await.data(200), &alice.user);
    }

    async fn an_unknown_user_and_a_wrong_password_get_the_same_answer(world: World) {
        world.register("alice").await;
        let wrong = json!({"username": "alice", "password": "wrong wrong wrong"});
        let unknown = json!({"username": "nobody", "password": "wrong wrong wrong"});

        let wrong = world.http.post(LOGIN, &wrong).await;
        let unknown = world.http.post(LOGIN, &unknown).await;

        wrong.error(401, "invalid_credentials");
        assert_eq!((wrong.status, &wrong.text), (unknown.status, &unknown.text));
    }

    async fn a_password_is_taken_as_it_is(world: World) {
        let password = "  Pässwörd with spaces  ";
        let body = json!({"username": "alice", "password": password});
        world.http.post(REGISTER, &body).await.data(201);

        world.http.post(LOGIN, &body).await.data(200);
        for other in [
            password.trim(),
            &password.to_lowercase(),
            &password.to_uppercase(),
        ] {
            let body = json!({"username": "alice", "password": other});
            world
                .http
                .post(LOGIN, &body)
                .await
                .error(401, "invalid_credentials");
        }
    }

    async fn refreshing_gives_new_tokens_and_ends_the_old_one(world: World) {
        let alice = world.register("alice").await;
        let old = json!({"refresh_token": alice.refresh_token});

        let answer = world.http.post(REFRESH, &old).await;

        let data = answer.data(200);
        assert_session_opened(data);
        assert_eq!(data["user"], alice.user);
        let renewed = world.person(data);
        assert_ne!(renewed.refresh_token, alice.refresh_token);
        assert_eq!(renewed.get("/v1/users/me").await.data(200), &alice.user);
        world
            .http
            .post(REFRESH, &old)
            .await
            .error(401, "invalid_refresh_token");
    }

    async fn a_refresh_token_can_be_renewed_again_and_again(world: World) {
        let mut token = world.register("alice").await.refresh_token;
        for _ in 0..10 {
            let answer = world
                .http
                .post(REFRESH, &json!({"refresh_token": token}))
                .await;
            token = world.person(answer.data(200)).refresh_token;
        }
    }

    async fn a_refresh_token_is_used_once_whoever_comes_at_the_same_time(world: World) {
        let alice = world.register("alice").await;
        let body = json!({"refresh_token": alice.refresh_token});

        let answers = join_all((0..20).map(|_| world.http.post(REFRESH, &body))).await;

        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [&[200][..], &[401; 19][..]].concat());
    }

    async fn a_refresh_token_has_20_to_512_characters(world: World) {
        for length in [20, 512] {
            let body = json!({"refresh_token": "x".repeat(length)});
            world
                .http
                .post(REFRESH, &body)
                .await
                .error(401, "invalid_refresh_token");
        }
        // The ten are 20 bytes.
        for (character, length) in [("x", 0), ("x", 19), ("x", 513), ("é", 10)] {
            let body = json!({"refresh_token": character.repeat(length)});
            world
                .http
                .post(REFRESH, &body)
                .await
                .invalid("refresh_token");
        }
    }

    async fn a_refresh_token_has_384_bits_that_nobody_can_guess(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;

        // 384 bits are 64 characters of base64.
        for token in [&alice.refresh_token, &bob.refresh_token] {
            assert!(
                (64..=512).contains(&token.len()),
                "{} characters",
                token.len()
            );
        }
        let equal = alice.refresh_token.chars().zip(bob.refresh_token.chars());
        let equal = equal.filter(|(one, other)| one == other).count();
        assert!(equal < 20, "{equal} characters of two tokens are equal");
    }

    async fn an_access_token_is_no_refresh_token(world: World) {
        let alice = world.register("alice").await;
        let body = json!({"refresh_token": alice.access_token});

        let answer = world.http.post(REFRESH, &body).await;

        // Longer than a refresh token may be, or unknown: refused in either case.
        assert!([401, 422].contains(&answer.status), "{}", answer.text);
    }

    async fn logging_out_ends_the_session(world: World) {
        let alice = world.register("alice").await;
        let body = json!({"refresh_token": alice.refresh_token});

        assert_eq!(
            world.http.post(LOGOUT, &body).await.data(200),
            &json!({"ok": true})
        );

        world
            .http
            .post(REFRESH, &body)
            .await
            .error(401, "invalid_refresh_token");
        alice.get("/v1/users/me").await.error(401, "invalid_token");
    }

    async fn logging_out_ends_no_other_session(world: World) {
        let alice = world.register("alice").await;
        let phone = world.log_in("alice").await;

        world
            .http
            .post(LOGOUT, &json!({"refresh_token": alice.refresh_token}))
            .await
            .data(200);

        assert_eq!(phone.get("/v1/users/me").await.data(200), &alice.user);
        world
            .http
            .post(REFRESH, &json!({"refresh_token": phone.refresh_token}))
            .await
            .data(200);
    }

    async fn logging_out_with_an_unknown_or_spent_token_is_fine(world: World) {
        let alice = world.register("alice").await;
        let spent = json!({"refresh_token": alice.refresh_token});
        world.http.post(LOGOUT, &spent).await.data(200);

        let unknown = json!({"refresh_token": "x".repeat(64)});

        for body in [spent, unknown] {
            assert_eq!(
                world.http.post(LOGOUT, &body).await.data(200),
                &json!({"ok": true})
            );
        }
    }

    async fn each_missing_field_is_named(world: World) {
        let missing = [
            (REGISTER, json!({"password": PASSWORD}), "username"),
            (REGISTER, json!({"username": "alice"}), "password"),
            (LOGIN, json!({"password": PASSWORD}), "username"),
            (LOGIN, json!({"username": "alice"}), "password"),
            (REFRESH, json!({}), "refresh_token"),
            (LOGOUT, json!({}), "refresh_token"),
        ];
        for (path, body, field) in missing {
            world.http.post(path, &body).await.invalid(field);
        }
    }

    async fn each_field_of_a_wrong_type_is_named(world: World) {
        for wrong in [
            json!(7),
            json!(null),
            json!(["alice"]),
            json!({"a": 1}),
            json!(true),
        ] {
            let bodies = [
                (
                    REGISTER,
                    json!({"username": wrong, "password": PASSWORD}),
                    "username",
                ),
                (
                    REGISTER,
                    json!({"username": "alice", "password": wrong}),
                    "password",
                ),
                (
                    LOGIN,
                    json!({"username": wrong, "password": PASSWORD}),
                    "username",
                ),
                (
                    LOGIN,
                    json!({"username": "alice", "password": wrong}),
                    "password",
                ),
                (REFRESH, json!({"refresh_token": wrong}), "refresh_token"),
                (LOGOUT, json!({"refresh_token": wrong}), "refresh_token"),
            ];
            for (path, body, field) in bodies {
                world.http.post(path, &body).await.invalid(field);
            }
        }
    }

    async fn unknown_fields_of_a_body_are_ignored_and_set_nothing(world: World) {
        let mine = "00000000-0000-7000-8000-000000000000";
        let body = json!({
            "username": "alice", "password": PASSWORD, "id": mine, "is_admin": true,
            "password_hash": "x", "created_at": "1970-01-01T00:00:00.000000Z",
        });

        let answer = world.http.post(REGISTER, &body).await;

        let data = answer.data(201);
        assert_session_opened(data);
        assert_ne!(data["user"]["id"], mine);
        assert!(
            data["user"]["created_at"]
                .as_str()
                .is_some_and(|time| time > "2020")
        );
    }

    async fn the_database_holds_no_password_and_no_token(world: World) {
        let alice = world.register("alice").await;
        let body = json!({"refresh_token": alice.refresh_token});
        let answer = world.http.post(REFRESH, &body).await;
        let renewed = world.person(answer.data(200));

        let dump = world.home.database().dump(world.home.folder()).await;

        assert!(dump.contains("alice"), "the dump has what is stored");
        for secret in [
            PASSWORD,
            &alice.refresh_token,
            &alice.access_token,
            &renewed.refresh_token,
            &renewed.access_token,
        ] {
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(!dump.contains(secret) && !dump.contains(&hex), "{secret}");
        }
        assert!(
            dump.contains("$argon2id$"),
            "a password is kept as an argon2id hash"
        );
    }

    #[with(AUTH_RATE_LIMIT_MAX_REQUESTS = "12")]
    async fn the_thirteenth_request_of_a_minute_is_refused_on_each_path(world: World) {
        let bodies = [
            (
                LOGIN,
                json!({"username": "nobody", "password": PASSWORD}),
                401,
            ),
            (REFRESH, json!({"refresh_token": "x".repeat(64)}), 401),
            (REGISTER, account("alice"), 409),
        ];
        for (path, body, status) in bodies {
            let mut answers = Vec::new();
            for _ in 0..12 {
                answers.push(world.http.post(path, &body).await.status);
            }
            assert_eq!(answers[1..], [status; 11], "{path}");

            let refused = world.http.post(path, &body).await;

            refused.error(429, "rate_limited");
            let seconds: u64 = refused
                .header("retry-after")
                .unwrap_or_default()
                .parse()
                .unwrap();
            assert!(
                (1..=60).contains(&seconds),
                "{path}: retry after {seconds} s"
            );
        }
        for _ in 0..20 {
            let body = json!({"refresh_token": "x".repeat(64)});
            world.http.post(LOGOUT, &body).await.data(200);
        }
    }

    #[with(AUTH_RATE_LIMIT_MAX_REQUESTS = "3")]
    async fn a_header_gives_no_new_address(world: World) {
        let body = json!({"refresh_token": "x".repeat(64)});
        for _ in 0..3 {
            world
                .http
                .post(REFRESH, &body)
                .await
                .error(401, "invalid_refresh_token");
        }

        for header in [
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "cf-connecting-ip",
        ] {
            let request = world
                .http
                .request("POST".parse().unwrap(), REFRESH)
                .json(&body);
            let answer = world.http.send(request.header(header, "203.0.113.9")).await;
            answer.error(429, "rate_limited");
        }
        // Neither does another connection.
        Http::new(world.address())
            .post(REFRESH, &body)
            .await
            .error(429, "rate_limited");
    }

    #[with(
        AUTH_RATE_LIMIT_MAX_REQUESTS = "2",
        AUTH_RATE_LIMIT_WINDOW_SECONDS = "1"
    )]
    async fn who_waits_as_long_as_told_gets_in_again(world: World) {
        let body = json!({"refresh_token": "x".repeat(64)});
        let refused = loop {
            let answer = world.http.post(REFRESH, &body).await;
            if answer.status == 429 {
                break answer;
            }
        };
        assert_eq!(refused.header("retry-after"), Some("1"));

        // The rule is about time, so here time has to pass.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;

        world
            .http
            .post(REFRESH, &body)
            .await
            .error(401, "invalid_refresh_token");
    }
);
