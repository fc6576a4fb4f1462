//! Opening and closing.

use messenger_core::{Durability, Error, ErrorKind, MessengerEngine};
use sqlx::Connection as _;
use tests::DatabaseKind;

use crate::world::{assert_contiguous, message, on_both_databases, secret};

on_both_databases!(
    async fn everything_is_there_after_a_restart(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "for later").await;
        world.engine.close().await;

        let engine = world.place.open().await;

        let bob = bob.at(&engine);
        assert_eq!(bob.history(conversation.id).await, [sent]);
        let next = bob.send(conversation.id, "still here").await;
        assert_eq!(next.seq.get(), 2);
    }

    async fn a_closed_engine_refuses_every_call(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;

        world.engine.close().await;
        world.engine.close().await;

        let sent = alice.try_send(conversation.id, message("too late")).await;
        assert!(matches!(sent, Err(Error::Closed)), "{sent:?}");
        let health = world.engine.health().await;
        assert!(matches!(health, Err(Error::Closed)), "{health:?}");
        let subscribed = world.engine.events().subscribe(&bob.actor).await;
        assert!(matches!(subscribed, Err(Error::Closed)), "{subscribed:?}");
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await;
        assert!(matches!(bootstrap, Err(Error::Closed)), "{bootstrap:?}");
        let me = world.engine.users().me(&bob.actor).await;
        assert!(matches!(me, Err(Error::Closed)), "{me:?}");
    }

    async fn writes_that_are_queued_when_the_engine_closes_are_finished(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let sends: Vec<_> = (0..500)
            .map(|n| {
                let alice = alice.clone();
                let text = n.to_string();
                tokio::spawn(async move { alice.try_send(conversation.id, message(&text)).await })
            })
            .collect();
        tokio::task::yield_now().await;

        world.engine.close().await;

        let mut stored = 0;
        for send in sends {
            match send.await.unwrap() {
                Ok(sent) => {
                    assert!(sent.created);
                    stored += 1;
                }
                Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
            }
        }
        let engine = world.place.open().await;
        let history = alice.at(&engine).history(conversation.id).await;
        assert_eq!(history.len(), stored);
        assert_contiguous(&history);
    }

    async fn a_schema_from_the_future_is_refused_and_left_alone(world: World) {
        world.engine.close().await;
        let url = world.place.url();
        let sql = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_later', 0)";
        match world.place.kind() {
            DatabaseKind::Sqlite => {
                let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
                sqlx::query(sql).execute(&mut db).await.unwrap();
            }
            DatabaseKind::Postgres => {
                let mut db = sqlx::PgConnection::connect(&url).await.unwrap();
                sqlx::query(sql).execute(&mut db).await.unwrap();
            }
        }

        let refused = world.place.builder().open().await.unwrap_err();

        assert_eq!(refused.kind(), ErrorKind::Internal);
        assert!(
            refused.to_string().contains("m29991231_000001_later"),
            "{refused}"
        );
    }

    async fn the_engine_says_what_it_runs_on(world: World) {
        let health = world.engine.health().await.unwrap();
        let expected = match world.place.is_synced().await {
            true => Durability::Full,
            false => Durability::Relaxed,
        };
        assert_eq!(health.durability, expected);
        let name = match world.place.kind() {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgres",
        };
        assert_eq!(health.database, name);

        world.engine.close().await;
        let relaxed = world
            .place
            .builder()
            .durability(Durability::Relaxed)
            .open()
            .await
            .unwrap();
        // What is reported is what the database says of its connection, not what was asked for.
        assert_eq!(
            relaxed.health().await.unwrap().durability,
            Durability::Relaxed
        );
    }
);

#[tokio::test]
async fn an_sqlite_file_and_its_secret_are_only_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.db");
    let url = format!("sqlite://{}", file.display());

    let engine = MessengerEngine::builder(&url).open().await.unwrap();

    let made = engine.health().await.unwrap().secret_created.unwrap();
    assert_eq!(made, folder.path().join("chat.db.secret"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(
        names,
        ["chat.db", "chat.db-shm", "chat.db-wal", "chat.db.secret"]
    );

    engine.close().await;
    let again = MessengerEngine::builder(&url).open().await.unwrap();
    assert_eq!(again.health().await.unwrap().secret_created, None);
}

#[tokio::test]
async fn what_can_not_be_opened_is_said_in_one_line() {
    for (url, part) in [
        (
            "sqlite:///nowhere/at/all/chat.db",
            "/nowhere/at/all/chat.db",
        ),
        ("postgres://nobody@127.0.0.1:1/nothing", "127.0.0.1:1"),
        ("mysql://somewhere/chat", "sqlite://FILE"),
        ("sqlite::memory:", "names no file"),
    ] {
        let error = MessengerEngine::builder(url)
            .secret(secret())
            .open()
            .await
            .unwrap_err();

        let text = error.to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
}
