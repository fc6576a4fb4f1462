//! Opening and closing.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use messenger_core::hooks::ChangeSettings;
use messenger_core::messages::{Search, SearchText};
use messenger_core::{ConversationId, Durability, Error, ErrorKind, MessengerEngine};
use migration::{Migrator, MigratorTrait};
use sqlx::Connection as _;
use tests::DatabaseKind;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::world::{
    Person, Place, assert_contiguous, eventually, message, on_both_databases, secret,
};

/// A database of the first so many migrations, in which Alice (1) and Bob (2) have said "hello" in
/// their conversation (3).
async fn older(kind: DatabaseKind, migrations: usize) -> Place {
    let place = Place::new(kind).await;
    let url = match kind {
        DatabaseKind::Sqlite => format!("{}?mode=rwc", place.url()),
        DatabaseKind::Postgres => place.url(),
    };
    let db = migration::Database::connect(url).await.unwrap();
    let migrations = u32::try_from(migrations).unwrap();
    Migrator::up(&db, Some(migrations)).await.unwrap();
    db.close().await.unwrap();
    let id = |n: u128| match kind {
        DatabaseKind::Sqlite => format!("x'{n:032x}'"),
        DatabaseKind::Postgres => format!("'{}'", Uuid::from_u128(n)),
    };
    let pair = format!("{:032x}{:032x}", 1, 2);
    let pair = match kind {
        DatabaseKind::Sqlite => format!("x'{pair}'"),
        DatabaseKind::Postgres => format!("decode('{pair}', 'hex')"),
    };
    let (alice, bob, both, said) = (id(1), id(2), id(3), id(4));
    for rows in [
        "sync_heads (shard, pos, fence_start, incarnation, horizon_pos) VALUES (1, 4, 1, '', 0)"
            .to_owned(),
        format!(
            "users (id, username, username_key, display_name, display_name_key, created_at, \
             changed_pos) VALUES ({alice}, 'alice', 'alice', 'alice', 'alice', 1, 1), \
             ({bob}, 'bob', 'bob', 'bob', 'bob', 2, 2)"
        ),
        format!(
            "conversations (id, shard, kind, state, created_by, direct_key, history_policy, \
             last_seq, min_seq, member_count, members_pos, changed_pos, last_pos, \
             last_message_at, last_message_preview, created_at, updated_at) VALUES ({both}, 1, 1, \
             1, {alice}, {pair}, 1, 1, 1, 2, 3, 4, 4, 4, 'hello', 3, 4)"
        ),
        format!(
            "members (conversation_id, user_id, role, state, joined_pos, changed_pos, \
             visible_from_seq, last_read_seq, read_pos, self_pos) VALUES \
             ({both}, {alice}, 1, 1, 3, 3, 1, 1, 4, 4), ({both}, {bob}, 1, 1, 3, 3, 1, 0, 0, 3)"
        ),
        format!(
            "messages (id, conversation_id, seq, sender_id, client_message_id, kind, content, \
             created_at, created_pos, changed_pos) VALUES ({said}, {both}, 1, {alice}, 'first', 1, \
             'hello', 4, 4, 4)"
        ),
        format!(
            "events (shard, pos, kind, conversation_id, user_id, seq, created_at) VALUES \
             (1, 1, 1, NULL, {alice}, NULL, 1), (1, 2, 1, NULL, {bob}, NULL, 2), \
             (1, 3, 2, {both}, NULL, NULL, 3), (1, 4, 3, {both}, NULL, 1, 4)"
        ),
    ] {
        place.execute(&format!("INSERT INTO {rows}")).await;
    }
    place
}

on_both_databases!(
    async fn each_migration_is_told_before_it_begins(world: World) {
        let place = older(world.place.kind(), 2).await;
        let mut names = Vec::new();
        let mut numbers = Vec::new();

        let change = place.builder().migrate(|step| {
            numbers.push((step.number, step.of));
            names.push(step.name);
        });
        let change = change.await.unwrap();

        let all = Migrator::migrations();
        let missing: Vec<_> = all[2..].iter().map(|it| it.name().to_owned()).collect();
        assert_eq!(names, missing);
        let of = missing.len();
        assert_eq!(numbers, (1..=of).map(|n| (n, of)).collect::<Vec<_>>());
        assert_eq!(change.from.as_deref(), Some(all[1].name()));
        assert_eq!(Some(&change.to), missing.last());
        let again = place.builder().migrate(|step| panic!("{step:?}"));
        assert_eq!(again.await.unwrap().from, Some(change.to));
    }

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

    async fn an_opening_that_is_given_up_leaves_nothing_running(world: World) {
        world.engine.close().await;
        let running = || Handle::current().metrics().num_alive_tasks();
        let before = running();

        for polls in 1.. {
            let builder = world.place.builder();
            let builder =
                builder.on_change("push", ChangeSettings::default(), |_| async { Ok(()) });
            let mut opening = pin!(builder.open());
            let mut left = polls;
            let opened = poll_fn(|cx| match left {
                0 => Poll::Ready(None),
                _ => {
                    left -= 1;
                    opening.as_mut().poll(cx).map(Some)
                }
            });
            if let Some(engine) = opened.await {
                assert!(polls > 5, "{polls}");
                engine.unwrap().close().await;
                break;
            }
        }
        eventually("nothing runs", async || running() <= before).await;
        world.place.open().await.close().await;
    }

    async fn what_an_older_version_has_stored_is_there_after_an_update(world: World) {
        for migrations in 1..Migrator::migrations().len() {
            let place = older(world.place.kind(), migrations).await;

            let engine = place.open().await;

            let of = async |n: u128| {
                let actor = engine.trust(Uuid::from_u128(n).into());
                Person {
                    user: engine.users().me(&actor).await.unwrap(),
                    actor,
                    engine: engine.clone(),
                }
            };
            let (alice, bob) = (of(1).await, of(2).await);
            let conversation = ConversationId::from(Uuid::from_u128(3));
            assert_eq!(bob.open_direct(&alice).await.id, conversation);
            bob.send(conversation, "hello again").await;
            let said: Vec<String> = alice
                .history(conversation)
                .await
                .into_iter()
                .map(|message| message.content)
                .collect();
            assert_eq!(said, ["hello", "hello again"]);
            let start = engine.sync().bootstrap(&bob.actor).await.unwrap();
            assert_eq!(start.recent_messages.len(), 2);
            let search = Search::new(SearchText::parse("hello", engine.limits()).unwrap());
            let found = engine.messages().search(&bob.actor, search).await.unwrap();
            assert_eq!(found.messages.len(), 2, "{migrations}");
            engine.close().await;
        }
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

/// See `.cargo/config.toml`, and what the manual says of how SQLite is built.
#[tokio::test]
async fn connections_to_sqlite_have_a_page_cache_each() {
    let place = Place::new(DatabaseKind::Sqlite).await;
    place.open().await.close().await;

    let is_shared = "SELECT sqlite_compileoption_used('ENABLE_MEMORY_MANAGEMENT')";
    assert_eq!(place.number(is_shared).await, 0);
}

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
