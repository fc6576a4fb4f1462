//! Copies of an SQLite database, taken while it is in use and put back.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use messenger_core::sync::Pull;
use messenger_core::{Error, MessengerEngine, ResyncReason};
use sqlx::Connection as _;
use tests::DatabaseKind;

use crate::replica::{Replica, Size};
use crate::world::{Person, World, message};

const SIZE: Size = Size {
    limit: 50,
    timeline: 200,
};

/// Whether a call was refused for a reason that has these words.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, words: &str) {
    let error = outcome.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Setup(..)) && text.contains(words),
        "{text}"
    );
}

#[tokio::test]
async fn a_backup_under_load_has_what_was_acknowledged_before() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let goes_on = Arc::new(AtomicBool::new(true));
    let writers = (0..8).map(|_| {
        let (alice, goes_on) = (alice.clone(), goes_on.clone());
        tokio::spawn(async move {
            while goes_on.load(Ordering::Relaxed) {
                alice
                    .try_send(conversation.id, message("more"))
                    .await
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let folder = tempfile::tempdir().unwrap();
    for n in 0..5 {
        let file = folder.path().join(format!("{n}.db"));
        let before = alice.send(conversation.id, "acknowledged").await.seq;
        world.engine.backup(&file).await.unwrap();

        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let copy = folder.path().join(format!("{n}-copy.db"));
        std::fs::copy(&file, &copy).unwrap();
        let url = format!("sqlite://{}", copy.display());
        let engine = MessengerEngine::builder(url).open().await.unwrap();
        let history = bob.at(&engine).history(conversation.id).await;
        let seqs = history.iter().map(|message| message.seq.get());
        assert!(seqs.eq(1..=history.len() as i64));
        assert!(history.last().unwrap().seq >= before);
        engine.close().await;
    }
    goes_on.store(false, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    refused(
        world.engine.backup(folder.path().join("0.db")).await,
        "is there already",
    );
    refused(
        world.engine.backup("/nowhere/at/all.db").await,
        "can not be made",
    );
}

#[tokio::test]
async fn a_backup_that_is_put_back_voids_what_clients_know_from_before() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let mut behind = Replica::default();
    behind.catch_up(&bob, SIZE).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.db");
    world.engine.backup(&file).await.unwrap();
    alice.send(conversation.id, "lost").await;
    let mut ahead = behind.clone();
    ahead.catch_up(&bob, SIZE).await;
    let builder = || MessengerEngine::builder(world.place.url());
    refused(builder().restore(&file).await, "stop the server first");
    world.engine.close().await;

    let former = builder().restore(&file).await.unwrap().unwrap();

    let engine = world.place.open().await;
    let (alice, bob) = (alice.at(&engine), bob.at(&engine));
    alice.send(conversation.id, "instead").await;
    for known in [&behind, &ahead] {
        let pull = Pull {
            cursor: known.cursor.clone(),
            ..Pull::default()
        };
        let pulled = engine.sync().pull(&bob.actor, &pull).await;
        let reason = match pulled {
            Err(Error::ResyncRequired(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason, ResyncReason::HistoryDiverged);
    }
    assert_eq!(texts(&bob, &conversation).await, ["kept", "instead"]);
    engine.close().await;

    // The one that was there is whole.
    let url = format!("sqlite://{}", former.display());
    let engine = MessengerEngine::builder(url).open().await.unwrap();
    assert_eq!(
        texts(&bob.at(&engine), &conversation).await,
        ["kept", "lost"]
    );
    engine.close().await;
}

async fn texts(person: &Person, of: &messenger_core::conversations::Conversation) -> Vec<String> {
    let history = person.history(of.id).await;
    history.into_iter().map(|message| message.content).collect()
}

#[tokio::test]
async fn what_is_no_backup_is_not_put_back() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    world.engine.backup(file("whole.db")).await.unwrap();
    world.engine.close().await;
    let whole = std::fs::read(file("whole.db")).unwrap();
    std::fs::write(file("half.db"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(file("text.db"), "not at all").unwrap();

    for name in ["half.db", "text.db", "absent.db"] {
        let builder = MessengerEngine::builder(world.place.url());
        let outcome = builder.restore(file(name)).await;
        assert!(
            matches!(outcome, Err(Error::Setup(..))),
            "{name}: {outcome:?}"
        );
    }

    let engine = world.place.open().await;
    assert_eq!(alice.at(&engine).history(conversation.id).await.len(), 1);
    engine.close().await;
}

#[tokio::test]
async fn a_database_that_is_damaged_gives_way_to_a_backup() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.db");
    world.engine.backup(&file).await.unwrap();
    world.engine.close().await;
    let url = world.place.url();
    let database = url.strip_prefix("sqlite://").unwrap();
    std::fs::write(database, "damaged beyond repair").unwrap();

    let former = MessengerEngine::builder(url.clone())
        .restore(&file)
        .await
        .unwrap();

    assert_eq!(
        std::fs::read(former.unwrap()).unwrap(),
        b"damaged beyond repair"
    );
    let engine = world.place.open().await;
    assert_eq!(alice.at(&engine).history(conversation.id).await.len(), 1);
    engine.close().await;
}

#[tokio::test]
async fn a_copy_of_the_files_is_put_back_with_its_log() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    world.engine.backup(file("first.db")).await.unwrap();
    alice.send(conversation.id, "in the log").await;
    // As somebody copies the files of a server that was killed.
    let url = world.place.url();
    let database = url.strip_prefix("sqlite://").unwrap();
    for suffix in ["", "-wal"] {
        let from = format!("{database}{suffix}");
        std::fs::copy(from, file(&format!("copy.db{suffix}"))).unwrap();
    }
    world.engine.close().await;

    let builder = MessengerEngine::builder(url.clone());
    builder.restore(file("first.db")).await.unwrap();
    let builder = MessengerEngine::builder(url);
    builder.restore(file("copy.db")).await.unwrap();

    let engine = world.place.open().await;
    assert_eq!(
        texts(&alice.at(&engine), &conversation).await,
        ["kept", "in the log"]
    );
    engine.close().await;
}

#[tokio::test]
async fn a_backup_of_a_newer_version_leaves_what_is_there() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("newer.db");
    world.engine.backup(&file).await.unwrap();
    world.engine.close().await;
    let url = format!("sqlite://{}", file.display());
    let mut newer = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("INSERT INTO seaql_migrations VALUES ('m29991231_000001_later', 0)")
        .execute(&mut newer)
        .await
        .unwrap();
    newer.close().await.unwrap();

    let builder = MessengerEngine::builder(world.place.url());
    refused(builder.restore(&file).await, "a newer version");

    let engine = world.place.open().await;
    assert_eq!(alice.at(&engine).history(conversation.id).await.len(), 1);
    engine.close().await;
}

#[tokio::test]
async fn postgres_has_backups_of_its_own() {
    let world = World::new(DatabaseKind::Postgres).await;
    refused(world.engine.backup("somewhere.db").await, "pg_dump");
}
