//! Access tokens: what they say, and which are refused.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tests::{Forge, on_both_databases};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

on_both_databases!(
    async fn an_access_token_is_a_jwt_that_says_who_what_and_until_when(world: World) {
        let alice = world.register("alice").await;

        let (header, claims) = Forge::read(&alice.access_token);

        assert_eq!(header["alg"], "HS256");
        assert_eq!(claims["sub"], alice.id);
        assert_eq!(claims["type"], "access");
        let issued = claims["iat"].as_u64().unwrap();
        assert!(now() - issued < 10, "issued at {issued}, now {}", now());
        assert_eq!(claims["exp"].as_u64().unwrap(), issued + 15 * 60);
    }

    #[with(JWT_ALGORITHM = "HS512", ACCESS_TOKEN_EXPIRE_MINUTES = "2")]
    async fn the_algorithm_and_the_life_of_a_token_are_settings(world: World) {
        let body = json!({"username": "alice", "password": tests::PASSWORD});
        let answer = world.http.post("/v1/auth/register", &body).await;
        let alice = world.person(answer.data(201));

        let (header, claims) = Forge::read(&alice.access_token);

        assert_eq!(header["alg"], "HS512");
        assert_eq!(
            claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
            120
        );
        assert_eq!(answer.data(201)["tokens"]["expires_in"], 120);
        assert_eq!(alice.get("/v1/users/me").await.data(200), &alice.user);
    }

    async fn without_a_token_nothing_is_shown(world: World) {
        let id = "018f0000-0000-7000-8000-000000000000";
        let paths = [
            "/v1/users/me".to_owned(),
            "/v1/users/search?query=a".to_owned(),
            "/v1/conversations".to_owned(),
            format!("/v1/conversations/{id}/messages"),
            "/v1/sync/bootstrap".to_owned(),
            "/v1/sync/changes".to_owned(),
        ];
        for path in paths {
            world.http.get(&path).await.error(401, "not_authenticated");
        }
        let bodies = [
            ("/v1/users/batch".to_owned(), json!({"ids": [id]})),
            ("/v1/users/presence".to_owned(), json!({"ids": [id]})),
            (
                "/v1/conversations/direct".to_owned(),
                json!({"other_user_id": id}),
            ),
            (
                format!("/v1/conversations/{id}/messages"),
                json!({"client_message_id": "12345678", "content": "hi"}),
            ),
        ];
        for (path, body) in bodies {
            world
                .http
                .post(&path, &body)
                .await
                .error(401, "not_authenticated");
        }
    }

    async fn another_scheme_or_no_token_is_no_authentication(world: World) {
        let alice = world.register("alice").await;
        let token = &alice.access_token;
        for value in [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Basic {token}"),
        ] {
            let request = world.http.request("GET".parse().unwrap(), "/v1/users/me");
            let answer = world
                .http
                .send(request.header("authorization", &value))
                .await;
            assert_eq!(answer.status, 401, "{value:?}: {}", answer.text);
        }
    }

    async fn the_scheme_may_be_written_in_any_case(world: World) {
        let alice = world.register("alice").await;
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let request = world.http.request("GET".parse().unwrap(), "/v1/users/me");
            let value = format!("{scheme} {}", alice.access_token);
            let answer = world
                .http
                .send(request.header("authorization", value))
                .await;
            assert_eq!(answer.data(200), &alice.user);
        }
    }

    async fn a_refresh_token_opens_no_door(world: World) {
        let alice = world.register("alice").await;
        let http = world.http.with_token(&alice.refresh_token);

        http.get("/v1/users/me").await.error(401, "invalid_token");
    }

    async fn a_token_of_another_server_is_refused(world: World) {
        let alice = world.register("alice").await;
        let (header, claims) = Forge::read(&alice.access_token);
        let elsewhere = Forge::new("another secret that is long enough").token(&header, &claims);

        let answer = world.http.with_token(&elsewhere).get("/v1/users/me").await;

        answer.error(401, "invalid_token");
    }

    async fn a_damaged_token_is_refused(world: World) {
        let alice = world.register("alice").await;
        let token = &alice.access_token;
        let parts: Vec<_> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("three parts: {token}")
        };
        let damaged = [
            "x".to_owned(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            "x".repeat(6000),
            header.to_owned(),
            format!("{header}.{claims}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}.{}", &signature[..signature.len() - 1]),
            format!("{header}.{claims}.{signature}A"),
            format!("{header}.{claims}.{signature}="),
            format!("{header}.{claims}.{signature}.{signature}"),
            format!("{header}.{claims}.{}", signature.to_lowercase()),
            format!("{header}..{signature}"),
            format!(".{claims}.{signature}"),
            format!("{claims}.{header}.{signature}"),
            format!("{token}, {token}"),
        ];
        for token in damaged {
            let answer = world.http.with_token(&token).get("/v1/users/me").await;
            answer.error(401, "invalid_token");
        }
    }

    async fn a_forged_header_is_refused(world: World) {
        let alice = world.register("alice").await;
        let (header, claims) = Forge::read(&alice.access_token);
        let forge = world.forge();
        let with = |changes: Value| {
            let mut header = header.clone();
            header
                .as_object_mut()
                .unwrap()
                .extend(changes.as_object().unwrap().clone());
            header
        };
        // The forge itself is right, else nothing below would prove anything.
        let good = world
            .http
            .with_token(&forge.token(&header, &claims))
            .get("/v1/users/me")
            .await;
        assert_eq!(good.data(200), &alice.user);

        let mut forged = Vec::new();
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let unsigned = Forge::unsigned(&with(json!({"alg": alg})), &claims);
            forged.push(format!("{unsigned}."));
            forged.push(forge.token(&with(json!({"alg": alg})), &claims));
        }
        for alg in [
            "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", "HS256 ",
        ] {
            forged.push(forge.token(&with(json!({"alg": alg})), &claims));
        }
        forged.push(forge.token(&with(json!({"alg": 256})), &claims));
        forged.push(forge.token(&json!({}), &claims));
        forged.push(forge.token(&json!([]), &claims));
        for token in forged {
            let answer = world.http.with_token(&token).get("/v1/users/me").await;
            assert_eq!(answer.status, 401, "{:?}", Forge::read(&token));
            answer.error(401, "invalid_token");
        }
    }

    async fn forged_claims_are_refused(world: World) {
        let alice = world.register("alice").await;
        let (header, claims) = Forge::read(&alice.access_token);
        let forge = world.forge();
        let mut forged = Vec::new();
        for name in ["sub", "type", "exp"] {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().remove(name);
            forged.push(claims);
        }
        let past = now() - 120;
        let wrong = [
            ("sub", json!("")),
            ("sub", json!("alice")),
            ("sub", json!(7)),
            ("sub", json!(null)),
            ("sub", json!([alice.id])),
            ("type", json!("refresh")),
            ("type", json!("ACCESS")),
            ("type", json!(["access"])),
            ("type", json!(null)),
            ("exp", json!(past)),
            ("exp", json!(0)),
            ("exp", json!(-1)),
            ("exp", json!(null)),
            ("exp", json!((now() + 900).to_string())),
            ("exp", json!([now() + 900])),
            ("exp", json!(true)),
        ];
        for (name, value) in wrong {
            let mut claims = claims.clone();
            claims[name] = value;
            forged.push(claims);
        }
        forged.extend([json!([]), json!("x"), json!(null), json!({})]);
        for claims in forged {
            let token = forge.token(&header, &claims);
            let answer = world.http.with_token(&token).get("/v1/users/me").await;
            assert_eq!(answer.status, 401, "{claims}: {}", answer.text);
            answer.error(401, "invalid_token");
        }
    }

    async fn an_expired_token_is_refused(world: World) {
        let alice = world.register("alice").await;
        let (header, mut claims) = Forge::read(&alice.access_token);
        claims["iat"] = json!(now() - 1000);
        claims["exp"] = json!(now() - 100);

        let token = world.forge().token(&header, &claims);

        world
            .http
            .with_token(&token)
            .get("/v1/users/me")
            .await
            .error(401, "invalid_token");
    }
);
