//! What the log must not have in it.

use serde_json::json;
use tests::{Person, World, on_both_databases};

/// Everything that a client does in a day, the failures included. Gives what must stay secret.
async fn whole_session(world: &World) -> Vec<String> {
    let [alice, bob] = world.register_all(["alice", "bob"]).await;
    let conversation = alice.open(&bob).await;
    let text = "meet me at the old mill at nine";
    let query = format!("/v1/ws?access_token={}", bob.access_token);
    let mut socket = world.handshake(&query, &[]).await.unwrap();
    socket.subscribe(&[&conversation]).await;
    alice.send(&conversation, text).await;
    socket.next_message().await;
    socket
        .refused_text("{\"op\":\"a secret plan to dance\"}", "INVALID_COMMAND")
        .await;
    bob.get("/v1/sync/bootstrap").await.data(200);
    bob.get("/v1/sync/changes").await.data(200);
    bob.messages(&conversation, "").await;

    let wrong = "the wrong password of alice";
    let body = json!({"username": "alice", "password": wrong});
    world
        .http
        .post("/v1/auth/login", &body)
        .await
        .error(401, "invalid_credentials");
    let broken = format!(r#"{{"username": "alice", "password": "{wrong}", }}"#);
    world
        .http
        .post_text("/v1/auth/login", broken)
        .await
        .error(422, "validation_error");
    let unsent = "a message that is too long ".repeat(100);
    alice
        .try_send(&conversation, "client-message-1", &unsent)
        .await
        .invalid("content");
    let forged = format!("{}x", bob.access_token);
    world
        .http
        .with_token(&forged)
        .get("/v1/users/me")
        .await
        .error(401, "invalid_token");
    let refused = world
        .handshake(&format!("/v1/ws?access_token={forged}"), &[])
        .await;
    assert!(refused.is_err(), "{refused:?}");

    let body = json!({"refresh_token": alice.refresh_token});
    let renewed = world.http.post("/v1/auth/refresh", &body).await;
    let renewed = world.person(renewed.data(200));
    world
        .http
        .post("/v1/auth/refresh", &body)
        .await
        .error(401, "invalid_refresh_token");
    let body = json!({"refresh_token": bob.refresh_token});
    world.http.post("/v1/auth/logout", &body).await.data(200);
    socket.closed().await;

    let mut secrets: Vec<_> = [tests::PASSWORD, wrong, text, "a secret plan"]
        .iter()
        .map(|secret| (*secret).to_owned())
        .collect();
    secrets.push("a message that is too long".to_owned());
    secrets.push(world.home.setting("SECRET_KEY").to_owned());
    for Person {
        access_token,
        refresh_token,
        ..
    } in [alice, bob, renewed]
    {
        secrets.extend([access_token, refresh_token]);
    }
    secrets
}

/// Insists that a log has lines and none of the secrets, in whatever way it may quote them.
fn assert_silent(log: &str, secrets: &[String]) {
    assert!(!log.is_empty(), "an empty log proves nothing");
    for secret in secrets {
        let bytes = format!("{:?}", secret.as_bytes());
        for form in [secret.as_str(), &bytes[1..bytes.len() - 1]] {
            let line = log.lines().find(|line| line.contains(form));
            assert!(line.is_none(), "{secret:?} is in the log: {line:?}");
        }
    }
}

on_both_databases!(
    // A library that asks whether its own line would be logged must not swallow the next one.
    async fn the_start_and_the_stop_are_told_line_by_line(world: World) {
        world.server.signal("TERM");
        world.server.end().await;

        let log = world.server.log();
        let at = |text: &str| {
            log.find(text)
                .unwrap_or_else(|| panic!("no {text:?}: {log}"))
        };
        assert!(at("database is open") < at("listening"), "{log}");
        assert!(at("listening") < at("stopping"), "{log}");
    }

    async fn the_log_has_no_token_no_password_and_no_text(world: World) {
        let secrets = whole_session(&world).await;

        assert_silent(&world.server.log(), &secrets);
    }

    #[with(DEBUG = "true", RUST_LOG = "trace")]
    async fn the_log_of_everything_has_none_either(world: World) {
        let secrets = whole_session(&world).await;

        let log = world.server.log();
        assert!(
            log.lines().count() > 10,
            "a log of everything is long: {log}"
        );
        assert_silent(&log, &secrets);
    }

    #[with(DEBUG = "true", LOG_FORMAT = "json")]
    async fn a_log_of_json_is_json_in_every_line(world: World) {
        let secrets = whole_session(&world).await;

        let log = world.server.log();
        assert_silent(&log, &secrets);
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                line["level"].is_string() && line["timestamp"].is_string(),
                "{line}"
            );
        }
    }

    #[with(DEBUG = "true")]
    async fn what_clients_call_things_makes_no_line_of_its_own(world: World) {
        let body = json!({
            "username": "alice", "password": tests::PASSWORD,
            "display_name": "x\n2026-01-01 ERROR forged line\u{1b}[31m",
        });
        world.http.post("/v1/auth/register", &body).await.data(201);
        let path = "/v1/%0A2026-01-01%20ERROR%20forged%20line";
        world.http.get(path).await.error(404, "not_found");

        let log = world.server.log();

        assert!(
            !log.lines()
                .any(|line| line.starts_with("2026-01-01 ERROR forged")),
            "{log}"
        );
        assert!(!log.contains('\u{1b}'), "{log}");
    }
);
