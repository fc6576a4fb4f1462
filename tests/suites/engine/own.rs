//! What is only somebody's own: whom they have blocked, what they keep by keys.

use std::time::Duration;

use futures_util::StreamExt;
use messenger_core::accounts::Erase;
use messenger_core::events::{EventKind, Update};
use messenger_core::messages::{MessageBody, Reaction};
use messenger_core::sync::Pull;
use messenger_core::users::{PrefKey, PrefValue};
use messenger_core::{ClientWriteId, Error, Result};
use tests::soon;

use crate::replica::{Replica, Size};
use crate::world::{Person, message, message_as, next, next_text, on_both_databases};

const SIZE: Size = Size {
    limit: 2,
    timeline: 1,
};

fn is_blocked<T: std::fmt::Debug>(outcome: &Result<T>) -> bool {
    matches!(outcome, Err(Error::Blocked))
}

/// The position of the last change.
async fn head(person: &Person) -> i64 {
    let bootstrap = person.engine.sync().bootstrap(&person.actor).await.unwrap();
    bootstrap.stamp.as_of.get()
}

/// What somebody keeps, as `key=json`.
async fn kept(person: &Person) -> Vec<String> {
    let prefs = person.engine.users().prefs(&person.actor).await.unwrap();
    let prefs = prefs.iter();
    prefs
        .map(|pref| format!("{}={}", pref.key, pref.value.as_ref().unwrap().as_str()))
        .collect()
}

on_both_databases!(
    async fn a_block_stands_between_two_people_in_both_directions(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        alice.block(&bob).await.unwrap();

        for (one, other) in [(&alice, &bob), (&bob, &alice)] {
            let conversations = world.engine.conversations();
            let opened = conversations.open_direct(&one.actor, other.user.id).await;
            assert!(is_blocked(&opened), "{opened:?}");
        }

        alice.unblock(&bob).await.unwrap();
        let opened = bob.open_direct(&alice).await;
        bob.send(opened.id, "hello").await;
    }

    async fn nothing_new_is_said_where_there_is_a_block_and_the_past_stays(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut of_bob = message_as("before-the-block", "before");
        let sent = bob.try_send(conversation.id, of_bob.clone()).await.unwrap();
        let of_alice = alice.send(conversation.id, "before").await;
        alice.block(&bob).await.unwrap();
        let before = head(&alice).await;

        for person in [&alice, &bob] {
            let refused = person.try_send(conversation.id, message("after")).await;
            assert!(is_blocked(&refused), "{refused:?}");
            let own = if person.user == bob.user {
                &sent.message
            } else {
                &of_alice
            };
            let messages = world.engine.messages();
            let body = MessageBody::parse("other", world.engine.limits()).unwrap();
            let edited = messages.edit(&person.actor, conversation.id, own.id, body);
            assert!(is_blocked(&edited.await));
            let reaction = Reaction::parse("👍", world.engine.limits()).unwrap();
            let reacted = messages.react(&person.actor, conversation.id, own.id, reaction);
            assert!(is_blocked(&reacted.await));
            // The one that there is, is what it was.
            let other = if person.user == bob.user {
                &alice
            } else {
                &bob
            };
            assert_eq!(person.open_direct(other).await.id, conversation.id);
            assert_eq!(person.history(conversation.id).await.len(), 2);
        }
        assert_eq!(head(&alice).await, before);

        // What was sent before the block is answered as before, and may be deleted.
        of_bob.mentions.clear();
        let again = bob.try_send(conversation.id, of_bob).await.unwrap();
        assert_eq!((again.created, again.message.id), (false, sent.message.id));
        let messages = world.engine.messages();
        let deleted = messages.delete(&bob.actor, conversation.id, sent.message.id);
        assert!(deleted.await.unwrap().message.deleted_at.is_some());
    }

    async fn a_block_does_not_reach_into_groups(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        alice.block(&bob).await.unwrap();
        let mut events = alice.subscribe().await;

        bob.send(group, "hello").await;

        assert_eq!(next_text(&mut events).await, "hello");
    }

    async fn who_is_blocked_is_not_told_and_a_block_that_stands_changes_nothing(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut of_alice = alice.subscribe().await;
        let mut of_bob = bob.subscribe().await;
        let before = head(&alice).await;

        alice.block(&bob).await.unwrap();
        alice.block(&bob).await.unwrap();
        assert_eq!(head(&alice).await, before + 1);
        alice.unblock(&bob).await.unwrap();
        alice.unblock(&bob).await.unwrap();
        assert_eq!(head(&alice).await, before + 2);

        for _ in 0..2 {
            let told = next(&mut of_alice).await.unwrap().unwrap();
            assert!(matches!(told.kind, EventKind::SelfChanged), "{told:?}");
        }
        let carol = world.person("carol").await;
        carol.open_direct(&bob).await;
        let told = next(&mut of_bob).await.unwrap().unwrap();
        assert!(matches!(told.kind, EventKind::ConversationCreated { .. }));
    }

    async fn one_blocks_somebody_else_who_exists(world: World) {
        let alice = world.person("alice").await;

        let refused = alice.block(&alice).await;
        assert!(matches!(refused, Err(Error::InvalidTarget)), "{refused:?}");
        let nobody = uuid::Uuid::now_v7().into();
        let users = world.engine.users();
        let refused = users.block(&alice.actor, nobody).await;
        assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
        users.unblock(&alice.actor, nobody).await.unwrap();
    }

    async fn only_a_user_blocks_anybody(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let users = world.engine.users();
        users.delete_me(&alice.actor, Erase::Nothing).await.unwrap();
        let nobody = world.engine.trust(uuid::Uuid::now_v7().into());

        for actor in [&alice.actor, &nobody] {
            let refused = users.block(actor, bob.user.id).await;
            assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
        }
        assert_eq!(world.place.count("blocks").await, 0);
    }

    async fn whom_one_has_blocked_is_listed_page_by_page(world: World) {
        let alice = world.person("alice").await;
        let mut others = Vec::new();
        for n in 0..3 {
            let other = world.person(&format!("other-{n}")).await;
            alice.block(&other).await.unwrap();
            others.push(other);
        }
        alice.unblock(&others[0]).await.unwrap();

        let users = world.engine.users();
        let first = users.blocked(&alice.actor, None, 1).await.unwrap();
        assert_eq!(first[0].user, others[1].user);
        let after = Some(first[0].user.id);
        let rest = users.blocked(&alice.actor, after, 500).await.unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].user, others[2].user);
        assert!(rest[0].version > first[0].version);
        let of_others = users.blocked(&others[1].actor, None, 500).await.unwrap();
        assert!(of_others.is_empty());
    }

    async fn a_block_that_an_outbox_repeats_does_not_come_back(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let id = ClientWriteId::parse("the-block").unwrap();
        let block = async || {
            let users = world.engine.users().once(id.clone());
            users.block(&alice.actor, bob.user.id).await
        };
        block().await.unwrap();
        alice.unblock(&bob).await.unwrap();

        block().await.unwrap();

        alice.open_direct(&bob).await;
        let users = world.engine.users().once(id.clone());
        let other = users.unblock(&alice.actor, bob.user.id).await;
        assert!(
            matches!(other, Err(Error::ClientWriteConflict)),
            "{other:?}"
        );
    }

    async fn what_is_kept_is_the_last_value_of_each_key(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let before = head(&alice).await;

        alice.keep("theme", Some("\"light\"")).await.unwrap();
        alice.keep("theme", Some("\"dark\"")).await.unwrap();
        alice.keep("theme", Some("\"dark\"")).await.unwrap();
        alice.keep("order", Some("[1, 2]")).await.unwrap();
        assert_eq!(kept(&alice).await, ["order=[1, 2]", "theme=\"dark\""]);
        assert_eq!(head(&alice).await, before + 3);

        alice.keep("theme", None).await.unwrap();
        alice.keep("theme", None).await.unwrap();
        alice.keep("nothing", None).await.unwrap();
        assert_eq!(kept(&alice).await, ["order=[1, 2]"]);
        assert_eq!(head(&alice).await, before + 4);
        alice.keep("theme", Some("null")).await.unwrap();
        assert_eq!(kept(&alice).await, ["order=[1, 2]", "theme=null"]);
        assert!(kept(&bob).await.is_empty());
    }

    async fn a_value_that_an_outbox_repeats_does_not_undo_a_later_one(world: World) {
        let alice = world.person("alice").await;
        let id = ClientWriteId::parse("first-value").unwrap();
        let first = async || {
            let users = world.engine.users().once(id.clone());
            let key = PrefKey::parse("theme").unwrap();
            let value = PrefValue::parse("1", world.engine.limits()).unwrap();
            users.set_pref(&alice.actor, key, value).await
        };
        first().await.unwrap();
        alice.keep("theme", Some("2")).await.unwrap();

        first().await.unwrap();

        assert_eq!(kept(&alice).await, ["theme=2"]);
    }

    async fn only_a_user_keeps_anything(world: World) {
        let nobody = world.engine.trust(uuid::Uuid::now_v7().into());
        let key = PrefKey::parse("theme").unwrap();
        let value = PrefValue::parse("1", world.engine.limits()).unwrap();

        let refused = world.engine.users().set_pref(&nobody, key, value).await;

        assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
    }

    async fn ones_own_reaches_a_device_that_was_away_page_by_page(world: World) {
        let alice = world.person("alice").await;
        let mut replica = Replica::default();
        replica.catch_up(&alice, SIZE).await;
        let mut others = Vec::new();
        for n in 0..5 {
            let other = world.person(&format!("other-{n}")).await;
            alice.block(&other).await.unwrap();
            alice.keep(&format!("key-{n}"), Some("1")).await.unwrap();
            others.push(other);
        }

        assert!(replica.catch_up(&alice, SIZE).await >= 5);
        replica.assert_equals_a_fresh_one(&alice).await;
        assert_eq!((replica.blocks.len(), replica.prefs.len()), (5, 5));

        alice.unblock(&others[2]).await.unwrap();
        alice.keep("key-3", None).await.unwrap();
        replica.catch_up(&alice, SIZE).await;
        replica.assert_equals_a_fresh_one(&alice).await;
        assert!(!replica.blocks[&others[2].user.id].blocked);
        // Whoever begins is told what is, and not what was.
        let bootstrap = world.engine.sync().bootstrap(&alice.actor).await.unwrap();
        assert_eq!(bootstrap.own.blocks.len(), 4);
        assert_eq!(bootstrap.own.prefs.len(), 4);
        for block in &bootstrap.own.blocks {
            assert!(bootstrap.users.iter().any(|user| user.id == block.user_id));
        }
    }

    async fn what_changes_between_two_pages_of_ones_own_is_not_lost(world: World) {
        let alice = world.person("alice").await;
        let size = Size {
            limit: 1,
            timeline: 1,
        };
        let mut replica = Replica::default();
        replica.catch_up(&alice, size).await;
        for key in ["a", "b", "c", "d"] {
            alice.keep(key, Some("1")).await.unwrap();
        }

        assert!(replica.pull(&alice, size).await);
        alice.keep("a", Some("2")).await.unwrap();
        alice.keep("b", Some("2")).await.unwrap();
        assert!(replica.pull(&alice, size).await);
        alice.keep("d", None).await.unwrap();
        replica.catch_up(&alice, size).await;

        replica.assert_equals_a_fresh_one(&alice).await;
    }

    async fn a_stream_that_goes_on_reads_ones_own_in_a_page(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let mut stream = world.engine.events().resume(&alice.actor, Pull::default());
        loop {
            let update = soon("the stream is live", stream.next()).await;
            if matches!(update.unwrap().unwrap(), Update::Live { .. }) {
                break;
            }
        }

        alice.block(&bob).await.unwrap();

        let update = soon("a page", stream.next()).await.unwrap().unwrap();
        let Update::Page { page, .. } = update else {
            panic!("no page: {update:?}");
        };
        assert_eq!(page.own.blocks[0].user_id, bob.user.id);
        assert!(page.conversations.is_empty() && page.messages.is_empty());
    }

    async fn a_pull_that_waits_hears_of_ones_own(world: World) {
        let alice = world.person("alice").await;
        let bootstrap = world.engine.sync().bootstrap(&alice.actor).await.unwrap();
        let pull = Pull {
            cursor: Some(bootstrap.next),
            wait: Duration::from_secs(25),
            ..Pull::default()
        };

        let sync = world.engine.sync();
        let waiting = sync.pull(&alice.actor, &pull);
        let keeping = alice.keep("theme", Some("1"));
        let (pulled, _) = soon("an answer", futures_util::future::join(waiting, keeping)).await;

        assert_eq!(pulled.unwrap().page.own.prefs.len(), 1);
    }

    async fn another_engine_over_the_same_database_knows_of_a_block(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let engine = world.place.open().await;
        let there = bob.at(&engine);
        there.send(conversation.id, "before").await;

        alice.block(&bob).await.unwrap();

        let refused = there.try_send(conversation.id, message("after")).await;
        assert!(is_blocked(&refused), "{refused:?}");
        alice.unblock(&bob).await.unwrap();
        there.send(conversation.id, "after").await;
        engine.close().await;
    }
);
