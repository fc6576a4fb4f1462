//! The bounds of `Limits` are reached here, but for these:
//!
//! - `hashings_*`, `revocations_remembered_max`, `message_chars_max`: unit tests beside the code;
//! - `subscriber_queue_max`: `live::a_reader_who_falls_far_behind_…`;
//! - `ended_sessions_kept`: `accounts::sessions_and_tokens_that_ended_long_ago_are_deleted`;
//! - `transaction_wait_max`: `outages::a_connection_that_falls_silent_is_replaced`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::users::Username;
use messenger_core::{Error, ErrorKind, Limits, MessengerEngine, Seq, UserId};
use uuid::Uuid;

use crate::world::{Person, World, eventually, message, next, next_text, on_both_databases};

/// The world's engine, opened anew with other limits.
async fn with(world: &World, change: impl FnOnce(&mut Limits)) -> MessengerEngine {
    world.engine.close().await;
    let mut limits = Limits::default();
    change(&mut limits);
    world.place.builder().limits(limits).open().await.unwrap()
}

on_both_databases!(
    async fn a_page_has_at_most_a_hundred_messages(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let membership = world
            .engine
            .conversations()
            .membership(&alice.actor, conversation.id)
            .await
            .unwrap();
        for limit in [0, 101, u32::MAX] {
            let refused = world
                .engine
                .messages()
                .page(&membership, Seq::ZERO, limit)
                .await;
            assert!(matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "limit"));
        }
        for n in 0..101 {
            alice.send(conversation.id, &n.to_string()).await;
        }
        let messages = world.engine.messages();
        let page = messages.page(&membership, Seq::ZERO, 100).await.unwrap();
        assert_eq!(page.len(), 100);
        assert_eq!(page.last().unwrap().seq.get(), 100);
        let after_all = messages.page(&membership, Seq::MAX, 100).await.unwrap();
        assert!(after_all.is_empty());
    }

    async fn a_search_and_a_batch_of_users_are_bounded(world: World) {
        let alice = world.person("alice").await;
        let users = world.engine.users();
        for limit in [0, 51] {
            let refused = users.search(&alice.actor, "a", limit).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
        }
        for query in [String::new(), "x".repeat(65)] {
            let refused = users.search(&alice.actor, &query, 1).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
        }
        let ids: Vec<UserId> = (0..101).map(|_| Uuid::now_v7().into()).collect();
        assert_eq!(
            users.batch(&alice.actor, &ids).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert!(
            users
                .batch(&alice.actor, &ids[..100])
                .await
                .unwrap()
                .is_empty()
        );
    }

    async fn a_bootstrap_shares_its_messages_out_and_leaves_no_conversation_empty(world: World) {
        let engine = with(&world, |limits| {
            limits.bootstrap_messages_max = 6;
            limits.bootstrap_messages_per_conversation_max = 4;
        })
        .await;
        let alice = Person::join(&engine, "alice").await;
        let mut conversations = Vec::new();
        for (name, count) in [("bob", 9), ("carol", 1), ("dave", 5)] {
            let other = Person::join(&engine, name).await;
            let conversation = alice.open_direct(&other).await;
            for n in 0..count {
                alice.send(conversation.id, &n.to_string()).await;
            }
            conversations.push(conversation.id);
        }

        let bootstrap = engine.sync().bootstrap(&alice.actor).await.unwrap();

        let seqs = |id| -> Vec<i64> {
            let messages = bootstrap.recent_messages.iter();
            messages
                .filter(|m| m.conversation_id == id)
                .map(|m| m.seq.get())
                .collect()
        };
        assert_eq!(seqs(conversations[0]), [8, 9]);
        assert_eq!(seqs(conversations[1]), [1]);
        assert_eq!(seqs(conversations[2]), [4, 5]);
    }

    async fn an_answer_of_a_sync_is_bounded_and_says_where_to_go_on(world: World) {
        let engine = with(&world, |limits| {
            limits.changes_messages_max = 7;
            limits.changes_messages_per_conversation_max = 3;
            limits.conversations_named_max = 4;
        })
        .await;
        let alice = Person::join(&engine, "alice").await;
        let mut expected = Vec::new();
        for name in ["bob", "carol", "dave"] {
            let other = Person::join(&engine, name).await;
            let conversation = alice.open_direct(&other).await;
            for n in 0..8 {
                expected.push(alice.send(conversation.id, &n.to_string()).await);
            }
        }

        let mut after = BTreeMap::new();
        let mut messages = Vec::new();
        loop {
            let changes = engine
                .sync()
                .changes_after(&alice.actor, &after)
                .await
                .unwrap();
            assert!((1..=7).contains(&changes.messages.len()));
            messages.extend(changes.messages);
            after = changes.next_after_seq;
            if !changes.has_more {
                break;
            }
        }

        messages.sort_by_key(|message| message.id);
        assert_eq!(messages, expected);
        for _ in 0..5 {
            after.insert(Uuid::now_v7().into(), Seq::ZERO);
        }
        let refused = engine
            .sync()
            .changes_after(&alice.actor, &after)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        let ids: Vec<_> = after.keys().copied().collect();
        let refused = engine
            .conversations()
            .memberships(&alice.actor, &ids)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }

    async fn an_answer_of_a_sync_is_bounded_in_bytes(world: World) {
        let engine = with(&world, |limits| limits.sync_bytes_max = 100).await;
        let alice = Person::join(&engine, "alice").await;
        let mut sent = Vec::new();
        for n in 0..20 {
            let other = Person::join(&engine, &format!("other-{n}")).await;
            let conversation = alice.open_direct(&other).await;
            for text in ["first", "second"] {
                sent.push(
                    alice
                        .send(conversation.id, &format!("{text} {}", "x".repeat(50)))
                        .await,
                );
            }
        }

        let bootstrap = engine.sync().bootstrap(&alice.actor).await.unwrap();
        assert!(bootstrap.recent_messages.len() < sent.len());
        for conversation in &bootstrap.conversations {
            let messages = bootstrap.recent_messages.iter();
            let mut seqs = messages
                .filter(|message| message.conversation_id == conversation.id)
                .map(|message| message.seq.get());
            assert_eq!(
                seqs.next_back(),
                Some(2),
                "every conversation has its last message"
            );
        }

        let (mut after, mut caught_up, mut answers) = (BTreeMap::new(), Vec::new(), 0);
        loop {
            let changes = engine
                .sync()
                .changes_after(&alice.actor, &after)
                .await
                .unwrap();
            let order = |message: &messenger_core::messages::Message| {
                (message.conversation_id, message.seq)
            };
            assert!(changes.messages.is_sorted_by_key(order));
            caught_up.extend(changes.messages);
            after = changes.next_after_seq;
            answers += 1;
            if !changes.has_more {
                break;
            }
        }
        assert!(answers > 1);
        caught_up.sort_by_key(|message| message.id);
        assert_eq!(caught_up, sent);
    }

    async fn past_the_limit_of_sessions_the_one_unused_for_longest_ends(world: World) {
        let engine = with(&world, |limits| limits.sessions_per_user_max = 2).await;
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: Some("first".to_owned()),
        };
        let first = engine.auth().register(account).await.unwrap();
        let second = engine
            .auth()
            .log_in("alice", "correct horse", None)
            .await
            .unwrap();
        let first = engine
            .auth()
            .refresh(&first.tokens.refresh_token)
            .await
            .unwrap();

        let third = engine
            .auth()
            .log_in("alice", "correct horse", None)
            .await
            .unwrap();

        let auth = engine.auth();
        assert!(auth.verify(&second.tokens.access_token).await.is_err());
        assert!(auth.refresh(&second.tokens.refresh_token).await.is_err());
        let actor = auth.verify(&first.tokens.access_token).await.unwrap();
        let ids: Vec<_> = auth
            .sessions(&actor)
            .await
            .unwrap()
            .iter()
            .map(|s| s.id)
            .collect();
        assert_eq!(ids, [third.session_id, first.session_id]);
    }

    async fn a_read_waits_for_a_connection_and_is_then_refused(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let engine = with(&world, |limits| {
            limits.read_connections = 1;
            limits.read_wait_max = Duration::from_millis(200);
        })
        .await;
        let membership = engine
            .conversations()
            .membership(&alice.actor, conversation.id)
            .await
            .unwrap();
        let page = || async { engine.messages().page(&membership, Seq::ZERO, 1).await };

        // One is polled once and left alone with the connection, if it came to have it.
        let mut tries = 0..50;
        let (refused, holding) = loop {
            tries.next().expect("a read is refused");
            let mut holding = Box::pin(page());
            let answered = (&mut holding).now_or_never();
            match page().await {
                Err(error) => break (error, holding),
                Ok(_) if answered.is_none() => drop(holding.await),
                Ok(_) => {}
            }
        };
        assert_eq!(refused.kind(), ErrorKind::Busy, "{refused:?}");

        assert_eq!(holding.await.unwrap(), []);
        page().await.unwrap();
    }

    async fn a_full_queue_of_writes_makes_callers_wait_and_then_refuses(world: World) {
        let engine = with(&world, |limits| {
            limits.writes_queued_max = 1;
            limits.batch_operations_max = 1;
            limits.write_queue_wait_max = Duration::ZERO;
        })
        .await;
        let (alice, bob) = (
            Person::join(&engine, "alice").await,
            Person::join(&engine, "bob").await,
        );
        let conversation = alice.open_direct(&bob).await;

        let sends = (0..200).map(|_| alice.try_send(conversation.id, message("hello")));
        let outcomes = join_all(sends).await;

        let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        for error in refused {
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            assert!(error.retry_after().is_some());
        }
        assert!((1..200).contains(&stored), "{stored}");
        assert_eq!(alice.history(conversation.id).await.len(), stored);
    }

    async fn a_transaction_is_bounded_in_bytes_and_its_working_set_in_rows(world: World) {
        let engine = with(&world, |limits| {
            limits.batch_bytes_max = 10;
            limits.working_set_rows_max = 1;
        })
        .await;
        let (alice, bob) = (
            Person::join(&engine, "alice").await,
            Person::join(&engine, "bob").await,
        );
        let conversation = alice.open_direct(&bob).await;

        let sends = (0..50).map(|_| alice.try_send(conversation.id, message("twelve bytes")));
        for sent in join_all(sends).await {
            sent.unwrap();
        }

        crate::world::assert_contiguous(&bob.history(conversation.id).await);
    }

    async fn a_hub_that_is_overrun_reads_the_rest_from_the_database(world: World) {
        let engine = with(&world, |limits| {
            limits.hub_queue_max = 1;
            limits.hub_joins_max = 1;
            limits.subscriber_queue_max = 1;
        })
        .await;
        let (alice, bob) = (
            Person::join(&engine, "alice").await,
            Person::join(&engine, "bob").await,
        );
        let conversation = alice.open_direct(&bob).await;
        let mut bobs = bob.subscribe().await;

        let sends = (0..300).map(|n| {
            let alice = alice.clone();
            tokio::spawn(async move { alice.send(conversation.id, &n.to_string()).await })
        });
        join_all(sends).await;

        for message in alice.history(conversation.id).await {
            assert_eq!(next_text(&mut bobs).await, message.content);
        }
    }

    async fn the_change_log_is_cut_and_who_is_behind_the_cut_is_told(world: World) {
        let engine = with(&world, |limits| {
            limits.events_kept_min = 5;
            limits.event_age_min = Duration::ZERO;
            limits.prune_interval = Duration::from_millis(1);
            limits.subscriber_queue_max = 1;
        })
        .await;
        let (alice, bob) = (
            Person::join(&engine, "alice").await,
            Person::join(&engine, "bob").await,
        );
        let conversation = alice.open_direct(&bob).await;
        let mut slow = bob.subscribe().await;
        for n in 0..50 {
            alice.send(conversation.id, &n.to_string()).await;
        }

        eventually("the log is cut", async || {
            world.place.count("events").await <= 6
        })
        .await;

        let ended = loop {
            match next(&mut slow).await {
                Some(Ok(_)) => {}
                ended => break ended,
            }
        };
        assert!(
            matches!(ended, Some(Err(Error::SubscriptionLost))),
            "{ended:?}"
        );
        assert_eq!(bob.history(conversation.id).await.len(), 50);
    }
);
