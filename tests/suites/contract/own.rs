//! What is only the caller's own: what is kept by keys, whom the caller has blocked.

use reqwest::Method;
use serde_json::{Value, json};

use tests::{Person, assert_fields, assert_user, assert_written, fresh_id, on_both_databases};

fn block(person: &Person) -> String {
    format!("/v1/users/me/blocks/{}", person.id)
}

async fn own(person: &Person) -> Value {
    let start = person.get("/v1/sync/bootstrap").await.data(200).clone();
    start["self"].clone()
}

on_both_databases!(
    async fn a_value_is_kept_under_a_key_until_it_is_deleted(world: World) {
        let alice = world.register("alice").await;
        let at = "/v1/users/me/prefs/theme.dark";
        let value = json!({"on": true, "since": 1.5, "then": null});

        let answer = alice.put(at, &json!({"value": value})).await;
        assert_written(answer.data(200));

        let prefs = alice.get("/v1/users/me/prefs").await.data(200).clone();
        let pref = &prefs["prefs"][0];
        assert_fields(pref, &["key", "value", "deleted", "version"]);
        assert_eq!(pref["key"], "theme.dark");
        assert_eq!(pref["value"], value);
        assert_eq!(own(&alice).await["prefs"], prefs["prefs"]);

        alice.delete(at).await.data(200);
        alice.delete(at).await.data(200);
        let prefs = alice.get("/v1/users/me/prefs").await;
        assert_eq!(prefs.data(200), &json!({"prefs": []}));
    }

    async fn a_value_is_told_as_it_was_written(world: World) {
        let alice = world.register("alice").await;
        let value = "[1.2345678901234567890123456789, {\"z\":1, \"a\":1}]";

        let at = alice.http.request(Method::PUT, "/v1/users/me/prefs/exact");
        let body = format!("{{\"value\": {value}}}");
        let at = at.header("content-type", "application/json").body(body);
        alice.http.send(at).await.data(200);

        for path in ["/v1/users/me/prefs", "/v1/sync/bootstrap"] {
            let told = alice.get(path).await.text;
            assert!(told.contains(&format!("\"value\":{value},")), "{told}");
        }
    }

    // A frame of the stream is a line.
    async fn a_value_with_line_breaks_is_told_in_one_frame(world: World) {
        let alice = world.register("alice").await;
        let at = alice.http.request(Method::PUT, "/v1/users/me/prefs/lines");
        let at = at.header("content-type", "application/json");
        let at = at.body("{\"value\": [1,\r\n2]}");
        alice.http.send(at).await.data(200);

        let answer = alice.get("/v1/sync/bootstrap").await.text;

        assert!(answer.contains("\"value\":[1,  2],"), "{answer}");
    }

    async fn keys_and_values_are_checked(world: World) {
        let alice = world.register("alice").await;
        let at = |key: &str| format!("/v1/users/me/prefs/{key}");

        for key in ["A", "a%20b", "%C3%A4", &"x".repeat(65)] {
            let answer = alice.put(&at(key), &json!({"value": 1})).await;
            answer.invalid("key");
            alice.delete(&at(key)).await.invalid("key");
        }
        let long = "x".repeat(4_095);
        let answer = alice.put(&at("a"), &json!({"value": long})).await;
        answer.invalid("value");
        alice.put(&at("a"), &json!({})).await.invalid("value");
        let longest = "x".repeat(4_094);
        alice
            .put(&at("a"), &json!({"value": longest}))
            .await
            .data(200);
        let none = json!({"value": null});
        alice.put(&at("a"), &none).await.data(200);
    }

    async fn a_block_is_one_code_in_both_directions(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let answer = alice.put(&block(&bob), &json!(null)).await;
        assert_written(answer.data(200));

        for (one, other) in [(&alice, &bob), (&bob, &alice)] {
            let body = json!({"other_user_id": other.id});
            let answer = one.post("/v1/conversations/direct", &body).await;
            answer.error(403, "blocked");
        }
        let blocks = alice.get("/v1/users/me/blocks").await.data(200).clone();
        assert_user(&blocks["blocks"][0]["user"]);
        assert_eq!(blocks["blocks"][0]["user"], bob.user);
        let blocks = bob.get("/v1/users/me/blocks").await;
        assert_eq!(blocks.data(200), &json!({"blocks": []}));

        alice.delete(&block(&bob)).await.data(200);
        let conversation = bob.open(&alice).await;
        alice.put(&block(&bob), &json!(null)).await.data(200);
        let path = format!("/v1/conversations/{conversation}/messages");
        for one in [&alice, &bob] {
            let body = json!({"client_message_id": fresh_id(), "content": "hello"});
            one.post(&path, &body).await.error(403, "blocked");
            one.get(&path).await.data(200);
        }
    }

    async fn blocks_that_make_no_sense_are_refused(world: World) {
        let alice = world.register("alice").await;

        let answer = alice.put(&block(&alice), &json!(null)).await;
        answer.error(400, "invalid_target");
        let nobody = |id: &str| format!("/v1/users/me/blocks/{id}");
        for id in [fresh_id(), "nobody".to_owned()] {
            let answer = alice.put(&nobody(&id), &json!(null)).await;
            answer.error(404, "user_not_found");
        }
        // Whoever is not there is not blocked; a text that is no id is refused like anywhere.
        alice.delete(&nobody(&fresh_id())).await.data(200);
        let answer = alice.delete(&nobody("nobody")).await;
        answer.error(404, "user_not_found");
        alice
            .get("/v1/users/me/blocks?limit=0")
            .await
            .invalid("limit");
        alice
            .get("/v1/users/me/blocks?after=x")
            .await
            .invalid("after");
    }

    async fn ones_own_needs_a_caller(world: World) {
        for path in ["/v1/users/me/prefs", "/v1/users/me/blocks"] {
            world.http.get(path).await.error(401, "not_authenticated");
        }
    }

    async fn a_sync_tells_only_the_caller_of_their_own(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let start = alice
            .get("/v1/sync/bootstrap?limit=5")
            .await
            .data(200)
            .clone();
        assert_eq!(start["self"], json!({"prefs": [], "blocks": []}));
        alice.put(&block(&bob), &json!(null)).await.data(200);
        alice.delete(&block(&bob)).await.data(200);
        let body = json!({"value": 1});
        alice.put("/v1/users/me/prefs/a", &body).await.data(200);
        alice.delete("/v1/users/me/prefs/a").await.data(200);

        let cursor = start["next_cursor"].as_str().unwrap();
        let path = format!("/v1/sync/changes?cursor={cursor}");
        let page = alice.get(&path).await.data(200).clone();

        let block = &page["self"]["blocks"][0];
        assert_fields(block, &["user_id", "blocked", "version"]);
        assert_eq!(
            (&block["user_id"], &block["blocked"]),
            (&bob.user["id"], &json!(false))
        );
        let pref = &page["self"]["prefs"][0];
        assert_eq!(
            (&pref["value"], &pref["deleted"]),
            (&json!(null), &json!(true))
        );
        assert_eq!(page["users"].as_array().unwrap().len(), 1);
        // Whoever begins is not told what is no more; whoever asks without a cursor, nothing.
        assert_eq!(own(&alice).await, json!({"prefs": [], "blocks": []}));
        assert_eq!(own(&bob).await, json!({"prefs": [], "blocks": []}));
        let old = alice.get("/v1/sync/changes").await.data(200).clone();
        assert_eq!(old["self"], json!({"prefs": [], "blocks": []}));
    }

    async fn a_block_that_is_repeated_by_its_key_takes_place_once(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let put = || {
            let request = alice.http.request(Method::PUT, &block(&bob));
            request.header("Idempotency-Key", "block-once")
        };
        alice.http.send(put()).await.data(200);
        alice.delete(&block(&bob)).await.data(200);

        alice.http.send(put()).await.data(200);

        let blocks = alice.get("/v1/users/me/blocks").await;
        assert_eq!(blocks.data(200), &json!({"blocks": []}));
    }
);
