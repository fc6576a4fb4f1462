//! What somebody takes along, over the wire.

use reqwest::Method;
use serde_json::{Value, json};
use tests::on_both_databases;

on_both_databases!(
    async fn an_export_is_one_json_object_a_line(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "of alice").await;
        bob.send(&conversation, "of bob").await;
        let body = json!({"value": [1, 2]});
        alice.put("/v1/users/me/prefs/order", &body).await.data(200);

        let request = alice.http.request(Method::GET, "/v1/users/me/export");
        let response = alice.http.bare(request).await;

        assert_eq!(response.status().as_u16(), 200);
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "application/x-ndjson");
        let text = response.text().await.unwrap();
        assert!(text.ends_with('\n'));
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| line["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            ["profile", "pref", "session", "conversation", "message"]
        );
        assert_eq!(lines[4]["content"], "of alice");
        assert_eq!(lines[1]["value"], json!([1, 2]));
    }

    async fn an_export_needs_a_caller(world: World) {
        let answer = world.http.get("/v1/users/me/export").await;
        answer.error(401, "not_authenticated");
    }
);
