//! The end of an account, over the wire.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, PASSWORD, Person, assert_time, fresh_id, on_both_databases, soon};

async fn delete(person: &Person, body: &Value) -> Answer {
    let request = person.http.request(Method::DELETE, "/v1/users/me");
    person.http.send(request.json(body)).await
}

on_both_databases!(
    async fn an_account_ends_with_its_password(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "hello").await;
        let start = bob.get("/v1/sync/bootstrap").await.data(200).clone();

        delete(&alice, &json!({}))
            .await
            .error(401, "invalid_credentials");
        let wrong = json!({"password": "another password"});
        delete(&alice, &wrong)
            .await
            .error(401, "invalid_credentials");
        let odd = json!({"password": PASSWORD, "erase": "everybody"});
        delete(&alice, &odd).await.invalid("erase");
        let body = json!({"password": PASSWORD, "erase": "messages"});
        let answer = delete(&alice, &body).await;
        assert_eq!(answer.data(200), &json!({"ok": true}));

        alice.get("/v1/users/me").await.error(401, "invalid_token");
        let body = json!({"username": "alice", "password": PASSWORD});
        let answer = world.http.post("/v1/auth/login", &body).await;
        answer.error(401, "invalid_credentials");
        let answer = world.http.post("/v1/auth/register", &body).await;
        answer.error(409, "username_taken");

        let path = format!("/v1/conversations/{conversation}/messages");
        let body = json!({"client_message_id": fresh_id(), "content": "hello?"});
        bob.post(&path, &body).await.error(409, "user_deleted");
        let cursor = start["next_cursor"].as_str().unwrap();
        let path = format!("/v1/sync/changes?wait=1&cursor={cursor}");
        let page = soon("the tombstones", async {
            loop {
                let page = bob.get(&path).await.data(200).clone();
                if page["messages"][0]["deleted_at"].is_string() {
                    return page;
                }
            }
        })
        .await;
        assert_eq!(page["messages"][0]["content"], "");
        let users = page["users"].as_array().unwrap();
        let known = users.iter().find(|user| user["id"] == alice.id).unwrap();
        assert_time(&known["deleted_at"]);
        assert_eq!(
            (&known["username"], &known["display_name"]),
            (&json!(""), &json!(""))
        );
        // Nobody else has the field.
        let me = bob.get("/v1/users/me").await.data(200).clone();
        assert!(me.get("deleted_at").is_none());
    }

    // Some HTTP stacks send no body with a DELETE.
    async fn an_account_ends_by_a_post_as_well(world: World) {
        let alice = world.register("alice").await;
        let path = "/v1/users/me/delete";

        let wrong = json!({"password": "another password"});
        let refused = alice.post(path, &wrong).await;
        refused.error(401, "invalid_credentials");
        let body = json!({"password": PASSWORD});
        let answer = alice.post(path, &body).await;
        assert_eq!(answer.data(200), &json!({"ok": true}));

        alice.get("/v1/users/me").await.error(401, "invalid_token");
    }

    async fn to_end_an_account_takes_a_caller(world: World) {
        let request = world.http.request(Method::DELETE, "/v1/users/me");
        let answer = world.http.send(request.json(&json!({}))).await;
        answer.error(401, "not_authenticated");
    }
);
