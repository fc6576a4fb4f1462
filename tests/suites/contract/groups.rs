//! Groups, their members, and where everybody is in a conversation.

use serde_json::{Value, json};
use tests::{
    assert_fields, assert_time, assert_user, assert_written, fresh_id, on_both_databases, strings,
    texts,
};

fn at(group: &str, rest: &str) -> String {
    format!("/v1/conversations/{group}{rest}")
}

on_both_databases!(
    async fn a_group_has_the_fields_of_a_conversation(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let body = json!({"title": "Hikers", "member_ids": [bob.id]});

        let answer = alice.post("/v1/conversations/groups", &body).await;

        let group = answer.data(201);
        assert_fields(
            group,
            &[
                "id",
                "type",
                "title",
                "updated_at",
                "last_message_preview",
                "last_message_at",
                "last_seq",
                "member_count",
                "member_ids",
                "members",
                "members_mode",
                "role",
                "visible_from_seq",
                "last_read_seq",
                "last_delivered_seq",
                "unread_count",
                "marked_unread",
                "muted_until",
                "pinned_at",
                "archived_at",
                "version",
                "members_version",
                "own_version",
                "membership_version",
            ],
        );
        assert_eq!(group["type"], "group");
        assert_eq!(group["title"], "Hikers");
        assert_eq!(
            (&group["member_count"], &group["role"]),
            (&json!(2), &json!("owner"))
        );
        assert_eq!(
            texts(&group["members"], "id"),
            strings(&group["member_ids"])
        );
        for member in group["members"].as_array().unwrap() {
            assert_user(member);
            let role = if member["id"] == alice.id {
                "owner"
            } else {
                "member"
            };
            assert_eq!(member["role"], role);
        }
        let id = group["id"].as_str().unwrap();
        assert_eq!(alice.get(&at(id, "")).await.data(200), group);
        assert_eq!(bob.get(&at(id, "")).await.data(200)["role"], "member");
        assert_eq!(alice.conversations().await, std::slice::from_ref(group));
    }

    async fn a_group_that_is_wrong_is_refused_field_by_field(world: World) {
        let alice = world.register("alice").await;
        let groups = "/v1/conversations/groups";
        let wrong = json!({
            "title": "", "member_ids": [], "history": "some", "client_conversation_id": "short",
        });

        let answer = alice.post(groups, &wrong).await;

        for field in ["title", "history", "client_conversation_id"] {
            answer.invalid(field);
        }
        alice.post(groups, &json!({})).await.invalid("member_ids");
        let long = json!({"title": "x".repeat(129), "member_ids": []});
        alice.post(groups, &long).await.invalid("title");
        let many: Vec<_> = (0..129).map(|_| fresh_id()).collect();
        let many = json!({"title": "Hikers", "member_ids": many});
        alice.post(groups, &many).await.invalid("member_ids");
        for nobody in [fresh_id(), "bob".to_owned()] {
            let body = json!({"title": "Hikers", "member_ids": [nobody]});
            alice.post(groups, &body).await.error(404, "user_not_found");
        }
        assert_eq!(alice.conversations().await, [json!(null); 0]);
    }

    async fn a_group_is_created_once_under_either_name_of_its_id(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let (groups, id) = ("/v1/conversations/groups", fresh_id());
        let plain = json!({"title": "Hikers", "member_ids": [bob.id]});
        let mut named = plain.clone();
        named["client_conversation_id"] = json!(id);

        let first = alice.post(groups, &named).await;
        let first = first.data(201);
        for answer in [
            alice.post(groups, &named).await,
            alice.http.post_once(groups, &id, &plain).await,
            alice.http.post_once(groups, &id, &named).await,
        ] {
            assert_eq!(answer.data(201), first);
        }
        assert_eq!(alice.conversations().await.len(), 1);

        let other = alice.http.post_once(groups, &fresh_id(), &named).await;
        other.invalid("client_conversation_id");
        let mut renamed = named.clone();
        renamed["title"] = json!("Cyclists");
        let conflict = alice.post(groups, &renamed).await;
        conflict.error(409, "client_write_conflict");
        for key in ["short", &"x".repeat(65)] {
            let answer = alice.http.post_once(groups, key, &plain).await;
            let error = answer.error(422, "validation_error");
            assert_eq!(
                error["details"][0]["loc"],
                json!(["header", "Idempotency-Key"])
            );
        }
    }

    async fn members_come_change_and_go(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let group = alice.create_group("Hikers", &[&bob]).await;
        let members = at(&group, "/members");
        let of = |person: &tests::Person| format!("{members}/{}", person.id);
        let add = json!({"member_ids": [carol.id, bob.id]});

        bob.post(&members, &add).await.error(403, "forbidden");
        let added = alice.post(&members, &add).await;
        assert_eq!(added.data(200)["member_count"], 3);

        let role = json!({"role": "admin"});
        bob.patch(&of(&bob), &role).await.error(403, "forbidden");
        alice
            .patch(&of(&bob), &json!({"role": "boss"}))
            .await
            .invalid("role");
        alice.patch(&of(&bob), &role).await.data(200);
        let renamed = bob
            .patch(&at(&group, ""), &json!({"title": "Walkers"}))
            .await;
        assert_eq!(renamed.data(200)["title"], "Walkers");
        bob.patch(&at(&group, ""), &json!({"title": ""}))
            .await
            .invalid("title");

        let page = carol.get(&format!("{members}?limit=2")).await;
        let page = page.data(200)["members"].clone();
        let last = page[1]["id"].as_str().unwrap();
        let rest = carol.get(&format!("{members}?after={last}")).await;
        let mut roles = texts(&page, "role");
        roles.extend(texts(&rest.data(200)["members"], "role"));
        roles.sort();
        assert_eq!(roles, ["admin", "member", "owner"]);
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("after=x", "after"),
        ] {
            carol
                .get(&format!("{members}?{query}"))
                .await
                .invalid(field);
        }

        assert_written(bob.delete(&of(&carol)).await.data(200));
        bob.delete(&of(&carol)).await.error(404, "member_not_found");
        bob.delete(&format!("{members}/x"))
            .await
            .error(404, "member_not_found");
        bob.delete(&of(&alice)).await.error(403, "forbidden");
        alice.delete(&of(&alice)).await.error(409, "last_owner");
        bob.delete(&of(&bob)).await.data(200);
        for answer in [
            bob.get(&at(&group, "")).await,
            bob.get(&members).await,
            bob.post(&members, &add).await,
            bob.try_send(&group, &fresh_id(), "hello?").await,
            bob.get(&at(&group, "/messages")).await,
            bob.put(&at(&group, "/read"), &json!({"seq": 1})).await,
            bob.patch(&at(&group, "/settings"), &json!({"pinned": true}))
                .await,
            bob.delete(&at(&group, "")).await,
            bob.get(&at("x", "")).await,
        ] {
            answer.error(404, "conversation_not_found");
        }

        alice.delete(&at(&group, "")).await.data(200);
        alice
            .get(&at(&group, ""))
            .await
            .error(404, "conversation_not_found");
        assert_eq!(alice.conversations().await, [json!(null); 0]);
    }

    async fn a_direct_conversation_is_no_group(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let member = at(&conversation, &format!("/members/{}", bob.id));
        let ids = json!({"member_ids": [bob.id]});

        for answer in [
            alice
                .patch(&at(&conversation, ""), &json!({"title": "Us"}))
                .await,
            alice.delete(&at(&conversation, "")).await,
            alice.post(&at(&conversation, "/members"), &ids).await,
            alice.patch(&member, &json!({"role": "admin"})).await,
            alice.delete(&member).await,
        ] {
            answer.error(400, "not_a_group");
        }
        let members = alice.get(&at(&conversation, "/members")).await;
        assert_eq!(
            members.data(200)["members"].as_array().map(Vec::len),
            Some(2)
        );
    }

    async fn markers_go_forward_and_say_what_is_unread(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send_many(&conversation, 5).await;
        assert_eq!(bob.conversations().await[0]["unread_count"], 5);
        let (read, delivered) = (at(&conversation, "/read"), at(&conversation, "/delivered"));
        let numbers = |markers: &Value| {
            ["last_read_seq", "last_delivered_seq", "unread_count"]
                .map(|name| markers[name].as_i64().unwrap())
        };

        let answer = bob.put(&delivered, &json!({"seq": 4})).await;
        assert_eq!(numbers(answer.data(200)), [0, 4, 5]);
        let answer = bob.put(&read, &json!({"seq": 3})).await;
        assert_eq!(numbers(answer.data(200)), [3, 4, 2]);
        let answer = bob.put(&read, &json!({"seq": 1})).await;
        assert_eq!(numbers(answer.data(200)), [3, 4, 2]);
        let answer = bob
            .put(&read, &json!({"seq": 9_007_199_254_740_991_i64}))
            .await;
        assert_eq!(numbers(answer.data(200)), [5, 5, 0]);
        let listed = bob.conversations().await.remove(0);
        assert_eq!(numbers(&listed), [5, 5, 0]);
        assert_eq!(listed["own_version"], answer.data(200)["own_version"]);
        for wrong in [json!({"seq": -1}), json!({"seq": "5"}), json!({})] {
            bob.put(&read, &wrong).await.invalid("seq");
        }
    }

    async fn settings_change_one_by_one(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let settings = at(&conversation, "/settings");
        let until = json!({"muted_until": "2100-01-01T01:00:00+01:00", "pinned": true});

        let kept = alice.patch(&settings, &until).await;
        let kept = kept.data(200);
        assert_eq!(kept["muted_until"], "2100-01-01T00:00:00.000000Z");
        assert_time(&kept["pinned_at"]);
        assert_eq!(kept["archived_at"], Value::Null);

        let marked = alice
            .patch(&settings, &json!({"marked_unread": true}))
            .await;
        let marked = marked.data(200);
        assert_eq!(marked["marked_unread"], true);
        assert_eq!(marked["pinned_at"], kept["pinned_at"]);
        let loud = json!({"muted_until": null, "pinned": false, "archived": true});
        let loud = alice.patch(&settings, &loud).await;
        assert_eq!(loud.data(200)["muted_until"], Value::Null);
        assert_eq!(loud.data(200)["pinned_at"], Value::Null);
        assert_time(&loud.data(200)["archived_at"]);
        for (field, value) in [("muted_until", json!("soon")), ("pinned", json!("yes"))] {
            let wrong = alice.patch(&settings, &json!({ field: value })).await;
            wrong.invalid(field);
        }
        let theirs = &bob.conversations().await[0];
        assert_eq!(theirs["marked_unread"], false);
        assert_eq!(theirs["archived_at"], Value::Null);
    }

    async fn a_socket_follows_its_user_into_a_group_and_out_of_it(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        let elsewhere = alice.open(&bob).await;
        let before = alice.create_group("Hikers", &[&bob]).await;
        let mut bobs = bob.listening(&[&before, &elsewhere]).await;

        // A group to which one is added is announced like a conversation that is opened.
        let later = alice.create_group("Cyclists", &[&bob]).await;
        let announced = bobs.next_announcement().await;
        assert_eq!(announced["conversation_id"], later);
        alice.send(&later, "hello").await;
        let (created, _) = bobs.next_message().await;
        assert_eq!(created["payload"]["content"], "hello");

        // Whatever else happens to it has no frame.
        let members = at(&before, "/members");
        let ids = json!({"member_ids": [carol.id]});
        alice.post(&members, &ids).await.data(200);
        alice
            .patch(&at(&before, ""), &json!({"title": "Walkers"}))
            .await
            .data(200);
        alice.send(&before, "one").await;
        alice
            .put(&at(&before, "/read"), &json!({"seq": 1}))
            .await
            .data(200);
        let (created, _) = bobs.next_message().await;
        assert_eq!(created["payload"]["content"], "one");

        // After a removal nothing of it comes, until one is added again.
        alice
            .delete(&format!("{members}/{}", bob.id))
            .await
            .data(200);
        alice.send(&before, "without bob").await;
        alice.send(&elsewhere, "marker").await;
        let (created, _) = bobs.next_message().await;
        assert_eq!(created["payload"]["content"], "marker");
        bobs.refused(
            &json!({"op": "subscribe", "conversation_ids": [before]}),
            "FORBIDDEN_CONVERSATION",
        )
        .await;
        alice
            .post(&members, &json!({"member_ids": [bob.id]}))
            .await
            .data(200);
        let announced = bobs.next_announcement().await;
        assert_eq!(announced["conversation_id"], before);
        assert_eq!(announced["payload"]["last_message_preview"], Value::Null);
        alice.send(&before, "welcome back").await;
        let (created, _) = bobs.next_message().await;
        assert_eq!(created["payload"]["content"], "welcome back");

        alice.delete(&at(&before, "")).await.data(200);
        alice.send(&elsewhere, "the end").await;
        let (created, _) = bobs.next_message().await;
        assert_eq!(created["payload"]["content"], "the end");
    }
);
