//! Streams that go on from a cursor, in process.

use std::time::Duration;

use futures_util::StreamExt;
use messenger_core::LiveSettings;
use messenger_core::events::{Resumed, Update};
use messenger_core::sync::{Cursor, Pull};
use tests::soon;

use crate::world::{Person, live_settings, next_update, on_both_databases};

/// Reads until the stream is live.
async fn live(stream: &mut Resumed) -> Cursor {
    loop {
        if let Update::Live { cursor } = next_update(stream).await {
            return cursor;
        }
    }
}

/// Reads until the stream says that nothing has happened, and that from another place than `before`.
async fn quiet_after(stream: &mut Resumed, before: &Cursor) -> Cursor {
    loop {
        match next_update(stream).await {
            Update::Quiet { cursor } if cursor != *before => return cursor,
            Update::Quiet { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn heartbeats() -> LiveSettings {
    let mut settings = live_settings();
    settings.heartbeat_ms = 20;
    settings
}

on_both_databases!(
    async fn a_stream_is_live_at_once_however_long_a_sync_might_wait(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let sync = world.engine.sync();
        let start = sync.bootstrap(&bob.actor).await.unwrap();
        let pull = Pull {
            cursor: Some(start.next),
            wait: Duration::from_secs(3_600),
            ..Pull::default()
        };

        let mut stream = world.engine.events().resume(&bob.actor, pull);

        live(&mut stream).await;
    }

    // Others may write while it is told, so that nothing is left for its last page.
    async fn a_run_of_several_pages_has_an_end(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for n in 0..30 {
            alice.send(conversation.id, &n.to_string()).await;
            bob.create_group(&[&alice]).await;
        }
        let pull = Pull {
            limit: 5,
            ..Pull::default()
        };
        let mut stream = world.engine.events().resume(&bob.actor, pull);
        let mut has_more = None;
        loop {
            match soon("an update", stream.next()).await.unwrap().unwrap() {
                Update::Page { page, .. } => {
                    has_more = Some(page.has_more);
                    alice.send(conversation.id, "meanwhile").await;
                }
                Update::Live { .. } => break,
                _ => {}
            }
        }
        assert_eq!(has_more, Some(false));
    }

    // So that a catch-up after a long quiet time has little to look through.
    async fn the_cursor_of_a_quiet_stream_moves_on(world: World) {
        world.engine.close().await;
        let builder = world.place.builder().live(heartbeats());
        let engine = builder.open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let carol = Person::join(&engine, "carol").await;
        let conversation = alice.open_direct(&bob).await.id;
        let mut stream = engine.events().resume(&carol.actor, Pull::default());
        let start = live(&mut stream).await;

        alice.send(conversation, "not for carol").await;
        let later = quiet_after(&mut stream, &start).await;

        let pull = Pull {
            cursor: Some(later),
            ..Pull::default()
        };
        let pulled = engine.sync().pull(&carol.actor, &pull).await.unwrap();
        assert!(pulled.page.is_empty());
        engine.close().await;
    }

    async fn a_stream_that_is_told_nothing_stays_where_it_is(world: World) {
        world.engine.close().await;
        let mut settings = heartbeats();
        settings.enabled = false;
        let engine = world.place.builder().live(settings).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await.id;
        let mut stream = engine.events().resume(&bob.actor, Pull::default());
        let start = live(&mut stream).await;

        alice.send(conversation, "nobody is told").await;
        for _ in 0..3 {
            match next_update(&mut stream).await {
                Update::Quiet { cursor } => assert_eq!(cursor, start),
                other => panic!("{other:?}"),
            }
        }

        let pull = Pull {
            cursor: Some(start),
            ..Pull::default()
        };
        let pulled = engine.sync().pull(&bob.actor, &pull).await.unwrap();
        assert_eq!(pulled.page.messages.len(), 1);
        engine.close().await;
    }
);
