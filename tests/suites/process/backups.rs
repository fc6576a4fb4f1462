//! Backups by command.

use serde_json::json;
use tests::{DatabaseKind, Finished, World};

/// Insists that a command was refused with one line that has this in it.
#[track_caller]
fn assert_refused(finished: &Finished, about: &str) {
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains(about), "{about}: {finished:?}");
}

#[tokio::test]
async fn a_backup_of_a_running_server_is_put_back_while_it_is_stopped() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let kept = alice.send(&conversation, "kept").await;

    let finished = world.home.run(&["backup", "copy.db"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("copy.db"), "{finished:?}");
    let again = world.home.run(&["backup", "copy.db"]).await;
    assert_refused(&again, "is there already");
    alice.send(&conversation, "lost").await;
    let start = bob.get("/v1/sync/bootstrap?limit=200").await;
    let cursor = start.data(200)["next_cursor"].clone();
    let in_use = world.home.run(&["restore", "copy.db"]).await;
    assert_refused(&in_use, "stop the server first");
    alice.send(&conversation, "lost too").await;

    let World { server, home, .. } = world;
    server.signal("TERM");
    assert_eq!(server.end().await.code(), Some(0));
    let restored = home.run(&["restore", "copy.db"]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert!(restored.stdout.contains(".before-"), "{restored:?}");

    let world = World::at(home).await;
    let (alice, bob) = (world.again(&alice), world.again(&bob));
    let path = format!("/v1/sync/changes?cursor={}", cursor.as_str().unwrap());
    bob.get(&path).await.error(410, "resync_required");
    assert_eq!(bob.messages(&conversation, "").await, [kept]);
    let body = json!({"client_message_id": "after the restore", "content": "instead"});
    let messages = format!("/v1/conversations/{conversation}/messages");
    assert_eq!(alice.post(&messages, &body).await.data(201)["seq"], 2);
}

#[tokio::test]
async fn what_can_not_be_backed_up_or_put_back_is_said_in_one_line() {
    let world = World::start(DatabaseKind::Postgres, &[]).await;
    for command in ["backup", "restore"] {
        let finished = world.home.run(&[command, "copy.db"]).await;
        assert_refused(&finished, "pg_dump");
    }
    let World {
        server, mut home, ..
    } = world;
    drop(server);
    home.set("DATABASE_URL", "sqlite://none.db");
    assert_refused(&home.run(&["backup", "copy.db"]).await, "can not be opened");
    assert_refused(
        &home.run(&["restore", "copy.db"]).await,
        "can not be opened",
    );
    assert!(!home.file("none.db").exists());
}
