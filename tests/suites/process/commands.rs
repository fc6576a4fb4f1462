//! What an operator does by command, beside a server that runs.

use serde_json::Value;
use tests::{Finished, Home, PASSWORD, World, on_both_databases};

/// What a command printed as JSON.
#[track_caller]
fn told(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stderr, "", "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Insists that a command was refused with one line that has this in it.
#[track_caller]
fn assert_refused(finished: &Finished, code: i32, about: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains(about), "{about}: {finished:?}");
}

async fn fences(world: &World) -> usize {
    // Each answer of a sync is stamped with the fence that it was read in.
    let alice = world.log_in("alice").await;
    let start = alice.get("/v1/sync/bootstrap?limit=200").await;
    let stamp = &start.data(200)["stamps"][0]["fence"];
    usize::try_from(stamp.as_u64().unwrap()).unwrap()
}

on_both_databases!(
    async fn stats_count_what_is_there_and_leave_no_trace(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for n in 0..3 {
            alice.send(&conversation, &n.to_string()).await;
        }
        bob.create_group("Hikers", &[&alice]).await;
        let before = fences(&world).await;

        let stats = told(&world.home.run(&["stats", "--json"]).await);

        assert_eq!(stats["people"], 2);
        assert_eq!(stats["people_deleted"], 0);
        assert_eq!(stats["direct_conversations"], 1);
        assert_eq!(stats["groups"], 1);
        assert_eq!(stats["messages"], 3);
        assert_eq!(stats["sessions"], 3);
        assert!(stats["changes"].as_u64().unwrap() >= 7, "{stats}");
        assert!(stats["database_bytes"].as_u64().unwrap() > 4_096);
        assert_eq!(fences(&world).await, before);
        let text = world.home.run(&["stats"]).await;
        assert!(text.stdout.contains("messages              3"), "{text:?}");
    }

    async fn people_are_listed_page_by_page(world: World) {
        world.register_all(["alice", "bob", "carol"]).await;
        let before = fences(&world).await;

        let list = async |arguments: &[&str]| -> Vec<String> {
            let arguments = [&["user", "list", "--json"], arguments].concat();
            let people = told(&world.home.run(&arguments).await);
            let people = people.as_array().unwrap().iter();
            people
                .map(|person| person["username"].as_str().unwrap().to_owned())
                .collect()
        };

        assert_eq!(list(&[]).await, ["alice", "bob", "carol"]);
        assert_eq!(list(&["--limit", "2"]).await, ["alice", "bob"]);
        assert_eq!(list(&["--after", "bob"]).await, ["carol"]);
        assert_eq!(list(&["--search", "ARO"]).await, ["carol"]);
        assert_eq!(list(&["--search", "%"]).await, [""; 0]);
        assert_eq!(fences(&world).await, before);
        let sessions = world.home.run(&["user", "sessions", "alice", "--json"]);
        assert_eq!(told(&sessions.await).as_array().unwrap().len(), 3);
        let text = world.home.run(&["user", "list"]).await;
        assert_eq!(text.stdout.lines().count(), 3, "{text:?}");
    }

    async fn an_account_that_is_added_beside_a_server_logs_in_there(world: World) {
        let alice = world.register("alice").await;
        let cursor = alice.get("/v1/sync/bootstrap?limit=200").await;
        let cursor = cursor.data(200)["next_cursor"].as_str().unwrap().to_owned();

        let added = world
            .home
            .run_with(&["user", "add", "dave"], PASSWORD)
            .await;
        assert_eq!(added.code, Some(0), "{added:?}");

        let dave = world.log_in("dave").await;
        assert!(added.stdout.contains(&dave.id), "{added:?}");
        let conversation = alice.open(&dave).await;
        alice.send(&conversation, "welcome").await;
        let changes = alice
            .get(&format!("/v1/sync/changes?cursor={cursor}"))
            .await;
        assert_eq!(changes.data(200)["messages"].as_array().unwrap().len(), 1);
        let again = world
            .home
            .run_with(&["user", "add", "DAVE"], PASSWORD)
            .await;
        assert_refused(&again, 1, "the username is taken");
    }

    async fn another_password_ends_what_the_server_knew(world: World) {
        let alice = world.register("alice").await;
        let mut socket = alice.socket().await;

        let arguments = ["user", "password", "alice"];
        let changed = world.home.run_with(&arguments, "another password").await;

        assert_eq!(changed.code, Some(0), "{changed:?}");
        assert!(
            changed.stdout.contains("1 session has ended"),
            "{changed:?}"
        );
        assert_eq!(socket.closed().await.code, Some(1008));
        alice
            .get("/v1/conversations")
            .await
            .error(401, "invalid_token");
        let body = serde_json::json!({"username": "alice", "password": PASSWORD});
        let old = world.http.post("/v1/auth/login", &body).await;
        old.error(401, "invalid_credentials");
        let body = serde_json::json!({"username": "alice", "password": "another password"});
        world.http.post("/v1/auth/login", &body).await.data(200);
    }

    async fn all_sessions_of_somebody_end_by_command(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        world.log_in("alice").await;
        let mut socket = alice.socket().await;

        let ended = world.home.run(&["user", "logout", "Alice"]).await;

        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("2 sessions have ended"), "{ended:?}");
        assert_eq!(socket.closed().await.code, Some(1008));
        bob.get("/v1/conversations").await.data(200);
    }

    async fn an_account_is_deleted_by_command_only_after_a_yes(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(&conversation, "kept").await;

        let unsure = world.home.run(&["user", "delete", "alice"]).await;
        assert_refused(&unsure, 1, "--yes");
        alice.get("/v1/conversations").await.data(200);
        let deleted = world.home.run(&["user", "delete", "alice", "--yes"]).await;

        assert_eq!(deleted.code, Some(0), "{deleted:?}");
        let body = serde_json::json!({"username": "alice", "password": PASSWORD});
        let login = world.http.post("/v1/auth/login", &body).await;
        login.error(401, "invalid_credentials");
        let kept = bob.messages(&conversation, "").await;
        assert_eq!(kept[0]["content"], "kept");
        let again = world.home.run(&["user", "delete", "alice", "--yes"]).await;
        assert_refused(&again, 1, "there is nobody");
        let stats = told(&world.home.run(&["stats", "--json"]).await);
        assert_eq!(
            (&stats["people"], &stats["people_deleted"]),
            (&1.into(), &1.into())
        );
    }

    async fn a_migration_says_what_it_did(world: World) {
        let World { server, home, .. } = world;
        let nothing = home.run(&["migrate"]).await;
        assert!(nothing.stdout.starts_with("nothing to do"), "{nothing:?}");
        drop(server);
        let fresh = Home::new(home.database().kind()).await;

        let early = fresh.run(&["stats"]).await;
        assert_eq!(early.code, Some(1), "{early:?}");
        let made = told(&fresh.run(&["migrate", "--json"]).await);
        let again = told(&fresh.run(&["migrate", "--json"]).await);

        assert_eq!(made["from"], Value::Null);
        assert_eq!(again["from"], made["to"]);
        assert_eq!(told(&fresh.run(&["stats", "--json"]).await)["people"], 0);
        World::at(fresh).await.register("alice").await;
    }

    async fn a_health_check_needs_no_program_but_the_server(world: World) {
        let World {
            server, mut home, ..
        } = world;
        home.set("PORT", &server.address().port().to_string());

        let healthy = home.run(&["health"]).await;
        server.signal("TERM");
        server.end().await;
        let gone = home.run(&["health"]).await;

        assert_eq!(healthy.code, Some(0), "{healthy:?}");
        let said: Value = serde_json::from_str(&healthy.stdout).unwrap();
        assert_eq!(said["data"]["ok"], true);
        assert_refused(&gone, 1, "does not answer");
    }

    async fn what_is_wrong_with_a_command_is_said_in_one_line(world: World) {
        for (arguments, code, about) in [
            (&["user", "sessions", "nobody"][..], 1, "there is nobody"),
            (&["user", "add", "x"], 2, "username"),
            (&["user", "list", "--limit", "0"], 2, "limit"),
            (&["user", "list", "--limit", "x"], 2, "--limit"),
            (&["user", "add"], 2, "<NAME>"),
            (&["user"], 2, "user"),
            (&["users"], 2, "users"),
            (&["stats", "--dance"], 2, "--dance"),
        ] {
            let finished = world.home.run_with(arguments, "short").await;
            assert_refused(&finished, code, about);
        }
        let short = world.home.run_with(&["user", "add", "erin"], "short").await;
        assert_refused(&short, 2, "password");
    }
);
