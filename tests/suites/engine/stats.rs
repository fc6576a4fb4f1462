//! The numbers of an engine.

use futures_util::StreamExt;
use futures_util::future::join_all;
use messenger_core::{ConversationId, Error, Limits, LiveSettings};
use uuid::Uuid;

use crate::world::{Person, eventually, message, message_as, next_text, on_both_databases};

on_both_databases!(
    async fn an_engine_counts_what_it_stored_and_what_it_refused(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut bobs = bob.subscribe().await;
        let before = world.engine.stats();

        let sends = (0..100)
            .map(|n| alice.try_send(conversation.id, message_as("the-same-id", &n.to_string())));
        let sent = join_all(sends).await;
        assert!(sent.iter().all(Result::is_ok));
        let nowhere = ConversationId::from(Uuid::now_v7());
        let refused = alice.try_send(nowhere, message("nobody")).await;
        assert!(matches!(refused, Err(Error::ConversationNotFound)));
        next_text(&mut bobs).await;

        let stats = world.engine.stats();
        assert_eq!(stats.messages_sent - before.messages_sent, 1);
        assert_eq!(stats.writes - before.writes, 100);
        assert_eq!(stats.writes_refused - before.writes_refused, 1);
        assert_eq!(stats.writes_failed, 0);
        let writes = stats.batch_writes.sum - before.batch_writes.sum;
        assert_eq!(writes, 101.0);
        let batches = stats.batch_writes.count() - before.batch_writes.count();
        assert!((2..=101).contains(&batches), "{batches}");
        assert_eq!(stats.commit_seconds.count(), stats.batch_seconds.count());
        assert_eq!(stats.head.get() - before.head.get(), 1);
        assert_eq!(stats.listeners, 1);
        eventually("all is delivered", async || world.engine.stats().lag() == 0).await;
    }

    async fn the_queue_of_a_listener_who_does_not_read_is_counted(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.subscriber_queue_max = 2;
        let mut live = LiveSettings::default();
        (live.presence_ms, live.heartbeat_ms) = (0, 3_600_000);
        let builder = world.place.builder().limits(limits).live(live);
        let engine = builder.open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await.id;
        let mut bobs = bob.subscribe().await;
        for n in 0..5 {
            alice.send(conversation, &n.to_string()).await;
        }

        let queue = || {
            let stats = engine.stats();
            (
                stats.subscriber_queue_longest,
                stats.subscriber_queue_overflows,
            )
        };
        eventually("all is handed on", async || queue() == (2, 3)).await;
        for n in 0..5 {
            assert_eq!(next_text(&mut bobs).await, n.to_string());
        }
        let read_up = async { while futures_util::poll!(bobs.next()).is_ready() {} };
        read_up.await;
        eventually("the queue is read", async || queue() == (0, 3)).await;
    }

    async fn each_engine_has_numbers_of_its_own(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let other = world.place.open().await;

        alice.send(conversation.id, "here").await;

        eventually("the other has seen it", async || {
            other.stats().delivered == world.engine.stats().head
        })
        .await;
        assert_eq!(other.stats().messages_sent, 0);
        assert_eq!(world.engine.stats().messages_sent, 1);
        other.close().await;
    }

    async fn a_database_says_how_large_it_is(world: World) {
        let empty = world.engine.database_bytes().await.unwrap();
        let (alice, _, conversation) = world.alice_and_bob().await;

        for _ in 0..200 {
            alice.send(conversation.id, &"x".repeat(2_000)).await;
        }

        let full = world.engine.database_bytes().await.unwrap();
        assert!(full >= empty + 50_000, "{empty} {full}");
    }
);
