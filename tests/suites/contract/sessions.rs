//! Sessions of a user: listed, ended one by one or all together, and by a new password.

use serde_json::{Value, json};
use tests::{
    PASSWORD, Person, World, assert_fields, assert_id, assert_time, fresh_id, on_both_databases,
};

const SESSIONS: &str = "/v1/auth/sessions";
const LOGOUT_ALL: &str = "/v1/auth/logout-all";
const PASSWORD_PATH: &str = "/v1/auth/password";

async fn sessions(person: &Person) -> Vec<Value> {
    let answer = person.get(SESSIONS).await;
    answer.data(200)["sessions"].as_array().unwrap().clone()
}

async fn assert_ended(world: &World, person: &Person) {
    person.get("/v1/users/me").await.error(401, "invalid_token");
    let body = json!({"refresh_token": person.refresh_token});
    world
        .http
        .post("/v1/auth/refresh", &body)
        .await
        .error(401, "invalid_refresh_token");
}

on_both_databases!(
    async fn sessions_are_listed_newest_first_and_the_own_one_is_marked(world: World) {
        let alice = world.register("alice").await;
        let phone = world.log_in("alice").await;
        world.register("bob").await;

        let seen = sessions(&alice).await;

        assert_eq!(seen.len(), 2);
        for session in &seen {
            let fields = [
                "id",
                "device",
                "created_at",
                "last_used_at",
                "expires_at",
                "current",
            ];
            assert_fields(session, &fields);
            assert_id(&session["id"]);
            ["created_at", "last_used_at", "expires_at"]
                .iter()
                .for_each(|name| assert_time(&session[name]));
        }
        assert!(
            seen[0]["created_at"].as_str() > seen[1]["created_at"].as_str(),
            "{seen:?}"
        );
        let current: Vec<_> = seen
            .iter()
            .map(|session| session["current"].as_bool().unwrap())
            .collect();
        assert_eq!(current, [false, true]);
        let from_phone = sessions(&phone).await;
        assert_eq!(
            (&from_phone[0]["id"], &from_phone[0]["current"]),
            (&seen[0]["id"], &json!(true))
        );
    }

    async fn a_list_of_sessions_has_no_token(world: World) {
        let alice = world.register("alice").await;

        let answer = alice.get(SESSIONS).await;

        for secret in [&alice.access_token, &alice.refresh_token] {
            assert!(!answer.text.contains(secret.as_str()), "{}", answer.text);
        }
    }

    async fn a_session_can_be_ended_from_another(world: World) {
        let alice = world.register("alice").await;
        let phone = world.log_in("alice").await;
        let mut socket = phone.socket().await;
        let id = sessions(&phone).await[0]["id"].as_str().unwrap().to_owned();

        alice.delete(&format!("{SESSIONS}/{id}")).await.data(200);

        assert_ended(&world, &phone).await;
        assert_eq!(socket.closed().await.code, Some(1008));
        assert_eq!(sessions(&alice).await.len(), 1);
    }

    async fn a_session_is_known_by_what_its_device_says_it_is(world: World) {
        world.register("alice").await;
        let body = json!({"username": "alice", "password": PASSWORD});
        let request = world
            .http
            .request("POST".parse().unwrap(), "/v1/auth/login")
            .json(&body);
        let answer = world
            .http
            .send(request.header("user-agent", "Pixel 9"))
            .await;
        let phone = world.person(answer.data(200));

        let seen = sessions(&phone).await;

        assert_eq!(seen[0]["device"], "Pixel 9");
        assert_eq!(seen[1]["device"], json!(null));
    }

    async fn refreshing_goes_on_with_the_same_session(world: World) {
        let alice = world.register("alice").await;
        let before = sessions(&alice).await;
        let body = json!({"refresh_token": alice.refresh_token});
        let answer = world.http.post("/v1/auth/refresh", &body).await;

        let after = sessions(&world.person(answer.data(200))).await;

        assert_eq!(after.len(), 1);
        assert_eq!(
            (&after[0]["id"], &after[0]["current"]),
            (&before[0]["id"], &json!(true))
        );
        assert!(after[0]["last_used_at"].as_str() > before[0]["last_used_at"].as_str());
    }

    async fn nobody_ends_a_session_of_somebody_else(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let id = sessions(&alice).await[0]["id"].as_str().unwrap().to_owned();

        let theirs = bob.delete(&format!("{SESSIONS}/{id}")).await;
        let nobodys = bob.delete(&format!("{SESSIONS}/{}", fresh_id())).await;

        theirs.error(404, "session_not_found");
        let no_id = bob.delete(&format!("{SESSIONS}/x")).await;
        no_id.error(404, "session_not_found");
        assert_eq!(theirs.text, nobodys.text);
        alice.get("/v1/users/me").await.data(200);
    }

    async fn logging_out_everywhere_ends_every_session(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let phone = world.log_in("alice").await;
        let mut socket = phone.socket().await;

        let answer = alice.post(LOGOUT_ALL, &json!({})).await;

        assert_eq!(answer.data(200), &json!({"ok": true, "ended": 2}));
        for device in [&alice, &phone] {
            assert_ended(&world, device).await;
        }
        assert_eq!(socket.closed().await.code, Some(1008));
        bob.get("/v1/users/me").await.data(200);
        world.log_in("alice").await;
    }

    async fn a_new_password_ends_all_other_sessions(world: World) {
        let alice = world.register("alice").await;
        let phone = world.log_in("alice").await;
        let mut socket = phone.socket().await;
        let new = "another horse battery staple";
        let body = json!({"current_password": PASSWORD, "new_password": new});

        alice.post(PASSWORD_PATH, &body).await.data(200);

        assert_ended(&world, &phone).await;
        assert_eq!(socket.closed().await.code, Some(1008));
        alice.get("/v1/users/me").await.data(200);
        let old = json!({"username": "alice", "password": PASSWORD});
        world
            .http
            .post("/v1/auth/login", &old)
            .await
            .error(401, "invalid_credentials");
        let new = json!({"username": "alice", "password": new});
        world.http.post("/v1/auth/login", &new).await.data(200);
    }

    async fn a_new_password_needs_the_old_one_and_follows_the_rules(world: World) {
        let alice = world.register("alice").await;
        let phone = world.log_in("alice").await;

        let wrong = json!({"current_password": "wrong wrong", "new_password": "long enough"});
        alice
            .post(PASSWORD_PATH, &wrong)
            .await
            .error(401, "invalid_credentials");
        let short = json!({"current_password": PASSWORD, "new_password": "short"});
        alice
            .post(PASSWORD_PATH, &short)
            .await
            .invalid("new_password");

        phone.get("/v1/users/me").await.data(200);
        world.log_in("alice").await;
    }

    async fn sessions_are_for_those_who_are_logged_in(world: World) {
        let id = fresh_id();
        world
            .http
            .get(SESSIONS)
            .await
            .error(401, "not_authenticated");
        world
            .http
            .delete(&format!("{SESSIONS}/{id}"))
            .await
            .error(401, "not_authenticated");
        world
            .http
            .post(LOGOUT_ALL, &json!({}))
            .await
            .error(401, "not_authenticated");
        let body = json!({"current_password": PASSWORD, "new_password": "long enough"});
        world
            .http
            .post(PASSWORD_PATH, &body)
            .await
            .error(401, "not_authenticated");
    }

    async fn an_ended_session_stays_ended_after_a_restart(world: World) {
        let alice = world.register("alice").await;
        let phone = world.log_in("alice").await;
        let body = json!({"refresh_token": phone.refresh_token});
        world.http.post("/v1/auth/logout", &body).await.data(200);

        let world = world.restart().await;

        let old = world.http.with_token(&phone.access_token);
        old.get("/v1/users/me").await.error(401, "invalid_token");
        let kept = world.http.with_token(&alice.access_token);
        assert_eq!(kept.get("/v1/users/me").await.data(200), &alice.user);
    }
);
