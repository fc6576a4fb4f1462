//! Accounts and sessions, as an embedder sees them.

use std::time::Duration;

use messenger_core::auth::{Login, NewAccount, Password};
use messenger_core::users::{DisplayName, Username};
use messenger_core::{Error, MessengerEngine};

use tests::DatabaseKind;

use crate::world::on_both_databases;

async fn register(engine: &MessengerEngine, name: &str) -> Login {
    let account = NewAccount {
        username: Username::parse(name).unwrap(),
        display_name: None,
        password: Password::parse("correct horse").unwrap(),
        device: Some(format!("{name}'s \u{1b}[31mphone{}", "x".repeat(200))),
    };
    engine.auth().register(account).await.unwrap()
}

on_both_databases!(
    async fn a_device_is_named_without_control_characters_and_cut(world: World) {
        let login = register(&world.engine, "alice").await;
        let actor = world
            .engine
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();

        let sessions = world.engine.auth().sessions(&actor).await.unwrap();

        let device = sessions[0].device.as_deref().unwrap();
        assert!(device.starts_with("alice's [31mphonexxx"), "{device}");
        assert_eq!(device.chars().count(), 128);
    }

    async fn one_can_not_end_the_session_of_somebody_else(world: World) {
        let auth = world.engine.auth();
        let alices = register(&world.engine, "alice").await;
        let mallorys = register(&world.engine, "mallory").await;
        let mallory = auth.verify(&mallorys.tokens.access_token).await.unwrap();

        let refused = auth.revoke(&mallory, alices.session_id).await;

        assert!(matches!(refused, Err(Error::SessionNotFound)));
        assert!(auth.verify(&alices.tokens.access_token).await.is_ok());
    }

    async fn a_lost_reply_is_forgiven_once_where_a_grace_is_set(world: World) {
        world.engine.close().await;
        let builder = world
            .place
            .builder()
            .refresh_grace(Duration::from_secs(3_600));
        let engine = builder.open().await.unwrap();
        let auth = engine.auth();
        let first = register(&engine, "alice").await.tokens.refresh_token;

        // The reply with the second token gets lost, and the client repeats itself.
        let lost = auth.refresh(&first).await.unwrap().tokens.refresh_token;
        let third = auth.refresh(&first).await.unwrap().tokens.refresh_token;

        // The third token goes on; the lost one was spent in its place.
        let fourth = auth.refresh(&third).await.unwrap();
        assert!(auth.verify(&fourth.tokens.access_token).await.is_ok());
        // Somebody who uses the lost one within the grace is forgiven only while the token that
        // took its place is unused, and nothing took its place.
        assert!(matches!(
            auth.refresh(&lost).await,
            Err(Error::InvalidRefreshToken)
        ));
        assert!(matches!(
            auth.verify(&fourth.tokens.access_token).await,
            Err(Error::InvalidToken)
        ));
    }

    async fn a_spent_token_at_log_out_ends_its_session_too(world: World) {
        let auth = world.engine.auth();
        let first = register(&world.engine, "alice").await;
        let second = auth.refresh(&first.tokens.refresh_token).await.unwrap();

        auth.log_out(&first.tokens.refresh_token).await.unwrap();

        assert!(auth.refresh(&second.tokens.refresh_token).await.is_err());
        assert!(auth.verify(&second.tokens.access_token).await.is_err());
    }

    async fn a_session_expires_when_it_is_not_used(world: World) {
        world.engine.close().await;
        let builder = world.place.builder().refresh_token_ttl(Duration::ZERO);
        let engine = builder.open().await.unwrap();
        let login = register(&engine, "alice").await;

        let refused = engine.auth().refresh(&login.tokens.refresh_token).await;

        assert!(matches!(refused, Err(Error::InvalidRefreshToken)));
    }

    async fn what_ended_before_a_restart_has_ended_after_it(world: World) {
        let login = register(&world.engine, "alice").await;
        world
            .engine
            .auth()
            .log_out(&login.tokens.refresh_token)
            .await
            .unwrap();
        world.engine.close().await;

        let engine = world.place.open().await;

        let refused = engine.auth().verify(&login.tokens.access_token).await;
        assert!(matches!(refused, Err(Error::InvalidToken)));
    }

    async fn sessions_and_tokens_that_ended_long_ago_are_deleted(world: World) {
        world.engine.close().await;
        let mut limits = messenger_core::Limits::default();
        limits.ended_sessions_kept = Duration::ZERO;
        limits.prune_interval = Duration::from_millis(1);
        let builder = world
            .place
            .builder()
            .refresh_token_ttl(Duration::from_millis(1));
        let engine = builder.clone().open().await.unwrap();
        register(&engine, "alice").await;
        engine.close().await;
        // More tokens than one transaction deletes.
        let (digits, hash) = match world.place.kind() {
            DatabaseKind::Sqlite => ("json_each('[0,1,2,3,4,5,6,7,8,9]')", "randomblob(32)"),
            DatabaseKind::Postgres => ("generate_series(0, 9)", "sha256(random()::text::bytea)"),
        };
        world
            .place
            .number(&format!(
                "INSERT INTO refresh_tokens (hash, session_id, created_at) \
                 SELECT {hash}, sessions.id, 1 FROM sessions, {digits} AS a, {digits} AS b, {digits} AS c, \
                 (SELECT 1 UNION SELECT 2 UNION SELECT 3) AS d RETURNING created_at"
            ))
            .await;
        assert_eq!(world.place.count("refresh_tokens").await, 3_001);

        let engine = builder.limits(limits).open().await.unwrap();
        crate::world::eventually("the session is deleted", async || {
            world.place.count("sessions").await == 0
                && world.place.count("refresh_tokens").await == 0
        })
        .await;

        assert!(
            engine
                .auth()
                .log_in("alice", "correct horse", None)
                .await
                .is_ok()
        );
    }

    async fn of_two_forms_of_a_profile_the_newer_one_has_the_greater_version(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let users = world.engine.users();
        let late = users.batch(&bob.actor, &[alice.user.id]).await.unwrap();
        assert_eq!(late, std::slice::from_ref(&alice.user));

        let name = DisplayName::parse("Alice B").unwrap();
        let changed = users.change_profile(&alice.actor, name).await.unwrap();

        assert!(changed.version > late[0].version);
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        assert!(bootstrap.users.contains(&changed));
        assert!(changed.version <= bootstrap.stamp.as_of);
    }
);
