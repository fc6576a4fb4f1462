//! What a client learns from a database that was put back to an older state.

use std::time::Duration;

use messenger_core::conversations::SettingsChange;
use messenger_core::sync::Pull;
use messenger_core::{Error, ResyncReason};
use tests::DatabaseKind;

use crate::replica::{Replica, Size};
use crate::world::World;

/// What a copy that is put back `later` does to those who have seen more than it, and to others.
async fn try_restore(kind: DatabaseKind, later: Duration) {
    let world = World::new(kind).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let size = Size {
        limit: 3,
        timeline: 2,
    };
    let mut behind = Replica::default();
    behind.catch_up(&bob, size).await;
    let mut ahead = behind.clone();
    world.engine.close().await;
    let copy = world.place.copy().await;
    let fork = world.place.number("SELECT pos FROM sync_heads").await;

    let engine = world.place.open().await;
    let (alice, bob) = (alice.at(&engine), bob.at(&engine));
    alice.send(conversation.id, "lost").await;
    ahead.catch_up(&bob, size).await;
    // In the middle of a run whose beginning was kept, and from a read between two syncs.
    let mut running = behind.clone();
    for _ in 0..4 {
        alice.send(conversation.id, "lost too").await;
    }
    let one_row = Size {
        limit: 1,
        timeline: 2,
    };
    assert!(running.pull(&bob, one_row).await);
    engine.close().await;
    let end = world.place.number("SELECT pos FROM sync_heads").await;
    world.place.put_back(&copy).await;

    tokio::time::sleep(later).await;
    let engine = world.place.open().await;
    let (alice, bob) = (alice.at(&engine), bob.at(&engine));
    for _ in 0..8 {
        alice.send(conversation.id, "instead").await;
    }
    for lost in [&mut ahead, &mut running] {
        let pull = Pull {
            cursor: lost.cursor.clone(),
            ..Pull::default()
        };
        let refused = engine.sync().pull(&bob.actor, &pull).await;
        assert!(
            matches!(
                refused,
                Err(Error::ResyncRequired(ResyncReason::HistoryDiverged))
            ),
            "{refused:?}"
        );
        lost.lost.push((fork, end));
        lost.catch_up(&bob, size).await;
        lost.assert_equals_a_fresh_one(&bob).await;
    }
    let pull = Pull {
        cursor: behind.cursor.clone(),
        ..Pull::default()
    };
    engine.sync().pull(&bob.actor, &pull).await.unwrap();
    behind.catch_up(&bob, size).await;
    behind.assert_equals_a_fresh_one(&bob).await;
    engine.close().await;
}

/// The server runs on, so nothing that it says of itself tells its databases apart.
#[tokio::test]
async fn postgres_a_database_that_was_made_from_an_older_copy_is_another() {
    try_restore(DatabaseKind::Postgres, Duration::ZERO).await;
}

/// What a restore into the database as it is leaves: every table emptied and filled again.
#[tokio::test]
async fn postgres_a_database_whose_rows_were_replaced_is_another() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let pull = async |cursor| {
        let pull = Pull {
            cursor,
            ..Pull::default()
        };
        world.engine.sync().pull(&bob.actor, &pull).await
    };
    let kept = pull(None).await.unwrap().next;
    world
        .place
        .execute("CREATE TABLE kept AS SELECT * FROM sync_heads")
        .await;
    let pinned = SettingsChange {
        pinned: Some(true),
        ..SettingsChange::default()
    };
    let lost = alice.change_settings(conversation.id, pinned).await;
    lost.unwrap();
    let lost = pull(Some(kept.clone())).await.unwrap().next;

    let replace = "DO $$ BEGIN TRUNCATE sync_heads; \
                   INSERT INTO sync_heads SELECT * FROM kept; END $$";
    world.place.execute(replace).await;
    alice.send(conversation.id, "instead").await;

    let refused = pull(Some(lost)).await;
    assert!(
        matches!(
            refused,
            Err(Error::ResyncRequired(ResyncReason::HistoryDiverged))
        ),
        "{refused:?}"
    );
    pull(Some(kept)).await.unwrap();
}

#[tokio::test]
async fn sqlite_whoever_has_seen_what_a_restore_took_back_starts_again() {
    try_restore(DatabaseKind::Sqlite, Duration::from_millis(1_100)).await;
}

#[tokio::test]
async fn sqlite_a_copy_that_is_put_back_at_once_reuses_no_position() {
    // All of it within one second of the clock.
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    tokio::time::sleep(Duration::from_nanos(u64::from(
        1_000_000_000 - now.subsec_nanos(),
    )))
    .await;
    try_restore(DatabaseKind::Sqlite, Duration::ZERO).await;
}
