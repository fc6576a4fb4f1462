//! The bounds of `Limits` are reached here, but for these:
//!
//! - `hashings_*`, `revocations_remembered_max`, `message_chars_max`, `metadata_bytes_max`,
//!   `reaction_bytes_max`: unit tests beside the code;
//! - `attachment_*`, `attachments_*`, `uploads_*`, `upload_*`, `downloads_*`: `attachments`, and beside
//!   the code;
//! - `preview_*`: beside the code;
//! - `pref_bytes_max`, `json_depth_max`: beside the code as well;
//! - `erased_at_once_max`: `deletions::an_erasure_that_was_cut_off_…`;
//! - `subscriber_queue_max`: `live::a_reader_who_falls_far_behind_…`;
//! - `ended_sessions_kept`: `accounts::sessions_and_tokens_that_ended_long_ago_are_deleted`;
//! - `transaction_wait_max`: `outages::a_connection_that_falls_silent_is_replaced`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, join3};
use futures_util::{FutureExt, StreamExt};
use messenger_core::auth::{NewAccount, Password};
use messenger_core::conversations::{HistoryPolicy, NewGroup, Title};
use messenger_core::messages::{Message, Reacted};
use messenger_core::sync::Pull;
use messenger_core::users::Username;
use messenger_core::{Error, ErrorKind, Limits, MessengerEngine, Seq, UserId};
use tests::soon;
use uuid::Uuid;

use crate::message_changes::reaction;
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

    async fn a_message_names_a_bounded_number_of_members(world: World) {
        let engine = with(&world, |limits| limits.mentions_max = 1).await;
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await;
        let names = |people: &[&Person]| {
            let mut names = message("hey");
            names.mentions = people.iter().map(|person| person.user.id).collect();
            names
        };

        let twice = names(&[&bob, &bob]);
        let sent = alice.try_send(conversation.id, twice).await.unwrap();
        assert_eq!(sent.message.mentions, [bob.user.id]);
        let two = names(&[&bob, &alice]);
        let refused = alice.try_send(conversation.id, two).await;
        assert!(
            matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "mentions"),
            "{refused:?}"
        );
    }

    async fn a_page_of_reactions_is_bounded_and_the_next_one_goes_on(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "hello").await;
        for emoji in ["a", "b", "c"] {
            alice.react(&sent, emoji).await.unwrap();
            bob.react(&sent, emoji).await.unwrap();
        }
        let conversations = world.engine.conversations();
        let membership = conversations.membership(&bob.actor, conversation.id).await;
        let (membership, messages) = (membership.unwrap(), world.engine.messages());
        for limit in [0, 101] {
            let refused = messages.reactions(&membership, sent.id, None, limit).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        }

        let mut all: Vec<Reacted> = Vec::new();
        loop {
            let last = all.last().map(|last| (last.user_id, reaction(&last.emoji)));
            let after = last.as_ref().map(|(user, emoji)| (*user, emoji));
            let page = messages.reactions(&membership, sent.id, after, 2).await;
            let page = page.unwrap();
            all.extend(page.clone());
            if page.len() < 2 {
                break;
            }
        }

        let mut expected = Vec::new();
        for person in [&alice, &bob] {
            expected.extend(["a", "b", "c"].map(|emoji| (person.user.id, emoji)));
        }
        expected.sort_unstable();
        let found = all.iter().map(|one| (one.user_id, one.emoji.as_str()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    async fn the_reactions_to_a_message_are_bounded(world: World) {
        let engine = with(&world, |limits| {
            limits.reactions_per_message_max = 3;
            limits.reactions_per_user_max = 2;
        })
        .await;
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await;
        let sent = alice.send(conversation.id, "hello").await;
        let other = alice.send(conversation.id, "other").await;
        let is_full = |outcome: Result<Message, Error>| match outcome {
            Err(Error::Invalid(rule)) => assert_eq!(rule.field, "emoji"),
            other => panic!("not refused: {other:?}"),
        };

        alice.react(&sent, "a").await.unwrap();
        alice.react(&sent, "b").await.unwrap();
        is_full(alice.react(&sent, "c").await);
        // One's own again is none more, and another message has its own bounds.
        alice.react(&sent, "b").await.unwrap();
        alice.react(&other, "c").await.unwrap();
        bob.react(&sent, "c").await.unwrap();
        is_full(bob.react(&sent, "d").await);
        bob.react(&sent, "a").await.unwrap();
        is_full(bob.react(&sent, "b").await);

        alice.unreact(&sent, "a").await.unwrap();
        let reacted = alice.react(&sent, "c").await.unwrap();
        let counts = reacted.reactions.iter();
        let counts: Vec<_> = counts.map(|r| (r.emoji.as_str(), r.count)).collect();
        assert_eq!(counts, [("a", 1), ("b", 1), ("c", 2)]);
    }

    async fn people_who_are_blocked_are_bounded(world: World) {
        let engine = with(&world, |limits| {
            limits.blocks_per_user_max = 2;
            limits.page_blocks_max = 2;
        })
        .await;
        let alice = Person::join(&engine, "alice").await;
        let mut others = Vec::new();
        for name in ["bob", "carol", "dave"] {
            others.push(Person::join(&engine, name).await);
        }
        alice.block(&others[0]).await.unwrap();
        alice.block(&others[1]).await.unwrap();

        let refused = alice.block(&others[2]).await;
        assert!(matches!(refused, Err(Error::BlocksFull)), "{refused:?}");
        alice.block(&others[1]).await.unwrap();
        alice.unblock(&others[0]).await.unwrap();
        alice.block(&others[2]).await.unwrap();
        // Of those who ask at once, one gets the last place.
        alice.unblock(&others[1]).await.unwrap();
        let both = join_all([alice.block(&others[0]), alice.block(&others[1])]).await;
        assert_eq!(both.iter().filter(|one| one.is_ok()).count(), 1);

        let users = engine.users();
        for limit in [0, 3] {
            let refused = users.blocked(&alice.actor, None, limit).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    async fn what_one_keeps_is_bounded_and_so_is_what_one_has_kept(world: World) {
        let engine = with(&world, |limits| {
            limits.prefs_per_user_max = 2;
            limits.pref_keys_per_user_max = 3;
        })
        .await;
        let alice = Person::join(&engine, "alice").await;
        let full = |outcome| assert!(matches!(outcome, Err(Error::PrefsFull)), "{outcome:?}");
        alice.keep("a", Some("1")).await.unwrap();
        alice.keep("b", Some("1")).await.unwrap();

        full(alice.keep("c", Some("1")).await);
        alice.keep("b", Some("2")).await.unwrap();
        alice.keep("a", None).await.unwrap();
        alice.keep("c", Some("1")).await.unwrap();
        alice.keep("c", None).await.unwrap();
        full(alice.keep("d", Some("1")).await);
        alice.keep("a", Some("2")).await.unwrap();
        // Somebody else has room of their own.
        let bob = Person::join(&engine, "bob").await;
        bob.keep("d", Some("1")).await.unwrap();
    }

    async fn a_group_has_as_many_members_as_it_may_and_not_one_more(world: World) {
        let engine = with(&world, |limits| limits.group_members_max = 3).await;
        let alice = Person::join(&engine, "alice").await;
        let mut others = Vec::new();
        for name in ["bob", "carol", "dave"] {
            others.push(Person::join(&engine, name).await);
        }
        let others: Vec<&Person> = others.iter().collect();
        let conversations = engine.conversations();
        let group = alice.create_group(&others[..1]).await;
        let full = |outcome| assert!(matches!(outcome, Err(Error::GroupFull)), "{outcome:?}");

        full(alice.add(group, &others).await);
        let seen = conversations.get(&alice.actor, group).await.unwrap();
        assert_eq!(seen.member_count, 2);
        // Who belongs to it already needs no room.
        alice.add(group, &others[..2]).await.unwrap();
        full(alice.add(group, &others[2..]).await);
        others[0].leave(group).await.unwrap();
        alice.add(group, &others[2..]).await.unwrap();
        let new = NewGroup {
            title: Title::parse("Too many", engine.limits()).unwrap(),
            members: others.iter().map(|person| person.user.id).collect(),
            history: HistoryPolicy::All,
        };
        let created = conversations.create_group(&alice.actor, new).await;
        assert!(matches!(created, Err(Error::GroupFull)), "{created:?}");
    }

    async fn a_hundred_and_twenty_eight_are_added_at_once_at_one_position(world: World) {
        let alice = world.person("alice").await;
        let joins = (0..129).map(|n| {
            let engine = world.engine.clone();
            async move { Person::join(&engine, &format!("person-{n}")).await }
        });
        let people = join_all(joins).await;
        let people: Vec<&Person> = people.iter().collect();
        let group = alice.create_group(&[]).await;
        let conversations = world.engine.conversations();
        let membership = conversations.membership(&alice.actor, group).await.unwrap();
        let head = "SELECT pos FROM sync_heads";
        let before = world.place.number(head).await;

        let refused = alice.add(group, &people).await;
        assert!(matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "member_ids"));
        alice.add(group, &people[..128]).await.unwrap();

        assert_eq!(world.place.number(head).await, before + 1);
        let seen = conversations.get(&alice.actor, group).await.unwrap();
        assert_eq!((seen.member_count, seen.is_large), (129, true));
        // A list of members is read in pages.
        for limit in [0, 501] {
            let refused = conversations.members(&membership, None, limit).await;
            assert!(matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "limit"));
        }
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = conversations.members(&membership, after, 50).await.unwrap();
            listed.extend(page.iter().map(|member| member.user.id));
            after = listed.last().copied();
            if page.len() < 50 {
                break;
            }
        }
        assert_eq!(listed.len(), 129);
        assert!(listed.is_sorted());
        assert_eq!(people[127].send(group, "hello").await.seq.get(), 1);
    }

    async fn a_title_has_at_most_as_many_characters_as_it_may(world: World) {
        let engine = with(&world, |limits| limits.title_chars_max = 6).await;
        let alice = Person::join(&engine, "alice").await;
        let group = alice.create_group(&[]).await;

        alice.rename(group, "längst").await.unwrap();
        let refused = alice.rename(group, "längste").await;
        assert!(matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "title"));
    }

    async fn exports_are_bounded_and_one_at_a_time_for_each_person(world: World) {
        let engine = with(&world, |limits| limits.exports_max = 2).await;
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol"] {
            let person = Person::join(&engine, name).await;
            let group = person.create_group(&[]).await;
            let sends = (0..200).map(|n| person.send(group, if n == 0 { "first" } else { "more" }));
            join_all(sends).await;
            people.push(person);
        }
        let users = engine.users();
        let busy = |person: &Person| {
            let refused = users.export(&person.actor);
            assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        };

        let first = users.export(&people[0].actor).unwrap();
        busy(&people[0]);
        let mut second = users.export(&people[1].actor).unwrap();
        busy(&people[2]);
        while let Some(line) = soon("a line", second.next()).await {
            line.unwrap();
        }
        let _third = users.export(&people[2].actor).unwrap();
        drop(first);
        eventually("there is room again", async || {
            users.export(&people[0].actor).is_ok()
        })
        .await;
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
            let order = |message: &Message| (message.conversation_id, message.seq);
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
        let alice = world.person("alice").await;
        let engine = with(&world, |limits| {
            limits.read_connections = 1;
            limits.read_wait_max = Duration::from_secs(3);
        })
        .await;
        let me = || async { engine.users().me(&alice.actor).await };

        // One is polled once and left alone with the connection, if it came to have it.
        let mut tries = 0..50;
        let (refused, holding) = loop {
            tries.next().expect("a read is refused");
            let mut holding = Box::pin(me());
            let answered = (&mut holding).now_or_never();
            match me().await {
                Err(error) => break (error, holding),
                Ok(_) if answered.is_none() => drop(holding.await),
                Ok(_) => {}
            }
        };
        assert_eq!(refused.kind(), ErrorKind::Busy, "{refused:?}");

        drop(holding);
        assert_eq!(me().await.unwrap(), alice.user);
    }

    async fn a_full_queue_of_writes_makes_callers_wait_and_then_refuses(world: World) {
        // Its own writes may take the one place there is, so everything is made before.
        let (alice, _, conversation) = world.alice_and_bob().await;
        let engine = with(&world, |limits| {
            limits.writes_queued_max = 1;
            limits.batch_operations_max = 1;
            limits.write_queue_wait_max = Duration::ZERO;
        })
        .await;
        let alice = alice.at(&engine);

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

    async fn whoever_syncs_too_much_at_a_time_waits_for_their_turn(world: World) {
        let engine = with(&world, |limits| {
            limits.syncs_per_user_max = 0;
            limits.read_wait_max = Duration::from_secs(1);
        })
        .await;
        let alice = Person::join(&engine, "alice").await;
        let (sync, nothing) = (engine.sync(), BTreeMap::new());
        let pull = Pull::default();

        let (first, page, changes) = join3(
            sync.bootstrap(&alice.actor),
            sync.pull(&alice.actor, &pull),
            sync.changes_after(&alice.actor, &nothing),
        )
        .await;

        let busy = [first.err(), page.err(), changes.err()];
        for error in busy {
            assert!(matches!(error, Some(Error::Busy { .. })), "{error:?}");
        }
    }
);
