//! Users: oneself, search, look-up.

use serde_json::{Value, json};
use tests::{
    PASSWORD, Person, World, assert_fields, assert_user, encoded, fresh_id, on_both_databases,
    texts,
};

async fn named(world: &World, username: &str, display_name: &str) -> Person {
    let body = json!({"username": username, "display_name": display_name, "password": PASSWORD});
    let answer = world.http.post("/v1/auth/register", &body).await;
    world.person(answer.data(201))
}

/// The usernames that a search finds, in its order.
async fn found(person: &Person, query: &str) -> Vec<String> {
    let answer = person
        .get(&format!("/v1/users/search?query={}", encoded(query)))
        .await;
    texts(&answer.data(200)["users"], "username")
}

/// The usernames that a look-up gives, in its order.
async fn looked_up(person: &Person, ids: &Value) -> Vec<String> {
    let answer = person.post("/v1/users/batch", &json!({"ids": ids})).await;
    texts(&answer.data(200)["users"], "username")
}

/// The routes that take ids of people.
const LOOK_UPS: [&str; 2] = ["/v1/users/batch", "/v1/users/presence"];

on_both_databases!(
    async fn me_is_the_caller(world: World) {
        let alice = world.register("alice").await;

        let answer = alice.get("/v1/users/me").await;

        assert_user(answer.data(200));
        assert_eq!(answer.data(200), &alice.user);
    }

    async fn a_search_finds_part_of_a_username_or_display_name_in_any_case(world: World) {
        let alice = world.register("alice").await;
        named(&world, "bob.miller", "Robert").await;
        named(&world, "carol", "Caroline MILLER").await;

        assert_eq!(found(&alice, "MILL").await, ["bob.miller", "carol"]);
        assert_eq!(found(&alice, "mill").await, ["bob.miller", "carol"]);
        assert_eq!(found(&alice, "b.m").await, ["bob.miller"]);
        assert_eq!(found(&alice, "robert").await, ["bob.miller"]);
        assert_eq!(found(&alice, "nobody").await, [""; 0]);
    }

    async fn a_search_ignores_case_beyond_ascii(world: World) {
        let alice = world.register("alice").await;
        named(&world, "oerjan", "Ørjan ÅSEN").await;
        named(&world, "olga", "ольга").await;

        assert_eq!(found(&alice, "ørjan åsen").await, ["oerjan"]);
        assert_eq!(found(&alice, "ØRJAN").await, ["oerjan"]);
        assert_eq!(found(&alice, "ОЛЬГА").await, ["olga"]);
    }

    async fn a_search_takes_every_character_for_itself(world: World) {
        let alice = world.register("alice").await;
        named(&world, "percent", "100%").await;
        named(&world, "under_score", "Under").await;
        named(&world, "backslash", r"C:\dir").await;
        named(&world, "quote", "O'Hara").await;
        named(&world, "plain", "Plain").await;

        assert_eq!(found(&alice, "%").await, ["percent"]);
        assert_eq!(found(&alice, "_").await, ["under_score"]);
        assert_eq!(found(&alice, r"\").await, ["backslash"]);
        assert_eq!(found(&alice, "'").await, ["quote"]);
        assert_eq!(found(&alice, "%%").await, [""; 0]);
        assert_eq!(found(&alice, "p%n").await, [""; 0]);
        assert_eq!(found(&alice, "under_").await, ["under_score"]);
        assert_eq!(found(&alice, "underXscore").await, [""; 0]);
    }

    async fn a_search_leaves_the_caller_out(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;

        assert_eq!(found(&alice, "alice").await, [""; 0]);
        assert_eq!(found(&bob, "alice").await, ["alice"]);
    }

    async fn a_search_is_ordered_by_username_and_bounded(world: World) {
        let me = world.register("searcher").await;
        for number in (0..23).rev() {
            world.register(&format!("user{number:02}")).await;
        }
        let names: Vec<_> = (0..23).map(|number| format!("user{number:02}")).collect();

        assert_eq!(
            found(&me, "user").await,
            names[..20],
            "20 unless asked otherwise"
        );
        for (limit, expected) in [(1, &names[..1]), (22, &names[..22]), (50, &names[..])] {
            let answer = me
                .get(&format!("/v1/users/search?query=user&limit={limit}"))
                .await;
            assert_fields(answer.data(200), &["users"]);
            assert_eq!(texts(&answer.data(200)["users"], "username"), expected);
        }
    }

    // A database may sort by the rules of a language, in which punctuation counts for little; two
    // databases would then give two orders.
    async fn the_order_of_usernames_is_that_of_their_characters(world: World) {
        let me = world.register("searcher").await;
        let names = [
            "u-b", "u-c", "u.b", "u1b", "u_b", "uab", "uB-", "ub1", "uc_",
        ];
        for name in names.iter().rev() {
            world.register(name).await;
        }

        assert_eq!(found(&me, "u").await, names);
    }

    async fn a_search_gives_public_profiles(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;

        let answer = alice.get("/v1/users/search?query=bob").await;

        assert_eq!(answer.data(200), &json!({"users": [bob.user]}));
    }

    async fn a_search_has_1_to_64_characters(world: World) {
        let alice = world.register("alice").await;
        named(&world, "bob", &"é".repeat(64)).await;

        assert_eq!(found(&alice, &"é".repeat(64)).await, ["bob"]);
        for query in [
            "",
            "?query=",
            &format!("?query={}", encoded(&"é".repeat(65))),
        ] {
            alice
                .get(&format!("/v1/users/search{query}"))
                .await
                .invalid("query");
        }
    }

    async fn the_limit_of_a_search_is_a_number_from_1_to_50(world: World) {
        let alice = world.register("alice").await;
        for limit in [
            "0",
            "51",
            "-1",
            "x",
            "1.5",
            "1e1",
            "",
            "99999999999999999999",
        ] {
            let answer = alice
                .get(&format!("/v1/users/search?query=a&limit={limit}"))
                .await;
            answer.invalid("limit");
        }
    }

    async fn a_look_up_gives_oneself_and_those_who_share_a_conversation(world: World) {
        let [alice, bob, carol] = world.register_all(["alice", "bob", "carol"]).await;
        alice.open(&bob).await;
        let ids = json!([carol.id, bob.id, alice.id, fresh_id()]);

        let answer = alice.post("/v1/users/batch", &json!({"ids": ids})).await;

        assert_eq!(answer.data(200), &json!({"users": [alice.user, bob.user]}));
        assert_eq!(looked_up(&carol, &ids).await, ["carol"]);
    }

    async fn a_look_up_is_ordered_by_username(world: World) {
        let [carol, alice, bob] = world.register_all(["carol", "alice", "bob"]).await;
        alice.open(&bob).await;
        alice.open(&carol).await;

        let names = looked_up(&alice, &json!([carol.id, bob.id, alice.id])).await;

        assert_eq!(names, ["alice", "bob", "carol"]);
    }

    async fn a_look_up_trims_and_drops_blanks_and_repeats(world: World) {
        let alice = world.register("alice").await;
        let padded = format!("  {}\t", alice.id);

        let names = looked_up(&alice, &json!([padded, "", "   ", alice.id, alice.id])).await;

        assert_eq!(names, ["alice"]);
    }

    async fn what_is_no_id_is_left_out_of_a_look_up(world: World) {
        let alice = world.register("alice").await;

        assert_eq!(
            looked_up(&alice, &json!(["alice", alice.id, "7"])).await,
            ["alice"]
        );
        assert_eq!(looked_up(&alice, &json!(["nonsense"])).await, [""; 0]);
    }

    async fn a_look_up_names_1_to_100_users(world: World) {
        let alice = world.register("alice").await;
        let ids = |count: usize| -> Vec<_> { (0..count).map(|_| fresh_id()).collect() };

        let hundred = [ids(99), vec![alice.id.clone()]].concat();
        assert_eq!(looked_up(&alice, &json!(hundred)).await, ["alice"]);
        let repeated = [hundred.clone(), hundred].concat();
        assert_eq!(looked_up(&alice, &json!(repeated)).await, ["alice"]);
        for ids in [json!([]), json!(["", "  "]), json!(ids(101))] {
            for path in LOOK_UPS {
                let answer = alice.post(path, &json!({"ids": ids})).await;
                answer.invalid("ids");
            }
        }
    }

    async fn a_look_up_needs_a_list_of_texts(world: World) {
        let alice = world.register("alice").await;
        for ids in [
            json!(null),
            json!("x"),
            json!({"a": 1}),
            json!([7]),
            json!([null]),
            json!([[]]),
        ] {
            for path in LOOK_UPS {
                let answer = alice.post(path, &json!({"ids": ids})).await;
                answer.invalid("ids");
            }
        }
        for path in LOOK_UPS {
            alice.post(path, &json!({})).await.invalid("ids");
        }
    }

    async fn a_profile_is_changed_once_and_shown_to_everybody(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let body = json!({"display_name": "Alice A."});
        let change = async |key: &str, body: &Value| {
            let request = alice.http.request("PATCH".parse().unwrap(), "/v1/users/me");
            let request = request.header("Idempotency-Key", key).json(body);
            alice.http.send(request).await
        };

        let changed = change("profile-1", &body).await;
        assert_eq!(changed.data(200)["display_name"], "Alice A.");
        assert_eq!(changed.data(200)["username"], "alice");
        let later = json!({"display_name": "Alice B."});
        change("profile-2", &later).await.data(200);
        // The repetition changes nothing, and says how it is.
        assert_eq!(
            change("profile-1", &body).await.data(200)["display_name"],
            "Alice B."
        );
        change("profile-1", &later)
            .await
            .error(409, "client_write_conflict");

        let path = format!("/v1/conversations/{conversation}");
        let members = bob.get(&path).await.data(200)["members"].clone();
        let names: Vec<_> = texts(&members, "display_name");
        assert!(names.iter().any(|it| it == "Alice B."), "{names:?}");
        for wrong in ["", &"x".repeat(65)] {
            let answer = alice
                .patch("/v1/users/me", &json!({"display_name": wrong}))
                .await;
            answer.invalid("display_name");
        }
    }

    // A long poll is woken by whatever a page can bring.
    async fn a_changed_profile_wakes_a_poll(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let start = bob.get("/v1/sync/bootstrap").await.data(200)["next_cursor"].clone();
        let path = format!(
            "/v1/sync/changes?cursor={}&wait=25",
            start.as_str().unwrap()
        );
        let body = json!({"display_name": "Alice A."});

        let (page, changed) = tokio::join!(bob.get(&path), alice.patch("/v1/users/me", &body));

        assert_eq!(page.data(200)["users"], json!([changed.data(200)]));
        assert_eq!(changed.data(200)["display_name"], "Alice A.");
        let version = changed.data(200)["version"].as_i64().unwrap();
        assert!(version > alice.user["version"].as_i64().unwrap());
    }
);
