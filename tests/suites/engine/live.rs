//! Live events: in order, each once, to everybody who belongs, and at nobody's cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::conversations::{Role, SettingsChange};
use messenger_core::events::{EventKind, Update};
use messenger_core::sync::Pull;
use messenger_core::users::{DisplayName, Username};
use messenger_core::{Error, Limits, LiveSettings, Seq};
use tests::soon;
use tokio::sync::Barrier;
use tokio::time::timeout;

use crate::world::{Person, live_settings, next, next_text, on_both_databases};

on_both_databases!(
    async fn both_members_hear_a_message_on_every_subscription(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut heard = [
            alice.subscribe().await,
            alice.subscribe().await,
            bob.subscribe().await,
        ];

        let sent = alice.send(conversation.id, "hello").await;

        let mut ids = Vec::new();
        for events in &mut heard {
            let event = next(events).await.unwrap().unwrap();
            let EventKind::MessageCreated {
                message,
                sender,
                conversation,
            } = &event.kind
            else {
                panic!("{event:?}");
            };
            assert_eq!((message, sender), (&sent, &alice.user));
            assert_eq!(conversation.last_message_preview.as_deref(), Some("hello"));
            assert_eq!(conversation.last_message_at, Some(sent.created_at));
            ids.push(event.id);
        }
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    async fn a_stranger_hears_nothing(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let mut carols = carol.subscribe().await;

        alice.send(conversation.id, "between us").await;
        let with_carol = alice.open_direct(&carol).await;
        alice.send(with_carol.id, "to carol").await;

        let opened = next(&mut carols).await.unwrap().unwrap();
        assert!(
            matches!(&opened.kind, EventKind::ConversationCreated { conversation }
            if conversation.id == with_carol.id)
        );
        assert_eq!(next_text(&mut carols).await, "to carol");
    }

    async fn who_was_listening_before_is_told_of_a_new_conversation_and_its_messages(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let mut bobs = bob.subscribe().await;

        let conversation = alice.open_direct(&bob).await;
        alice.send(conversation.id, "we have not met").await;

        let opened = next(&mut bobs).await.unwrap().unwrap();
        assert!(
            matches!(&opened.kind, EventKind::ConversationCreated { conversation: told }
            if told.id == conversation.id && told.updated_at == conversation.updated_at)
        );
        assert_eq!(next_text(&mut bobs).await, "we have not met");
    }

    async fn a_reader_who_falls_far_behind_still_gets_every_event_once_and_in_order(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let (quick, slow) = (bob.subscribe().await, bob.subscribe().await);

        // Far more than the queue of a subscriber, none of which the slow one reads.
        let texts: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let reading = tokio::spawn(quick.take(texts.len()).collect::<Vec<_>>());
        for text in &texts {
            alice.send(conversation.id, text).await;
        }

        for events in [
            reading.await.unwrap(),
            slow.take(texts.len()).collect().await,
        ] {
            let heard: Vec<String> = events
                .into_iter()
                .map(|event| match &event.unwrap().kind {
                    EventKind::MessageCreated { message, .. } => message.content.clone(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(heard, texts);
        }
    }

    async fn a_subscription_ends_with_its_session_and_not_with_another(world: World) {
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let auth = world.engine.auth();
        let phone = auth.register(account).await.unwrap();
        let laptop = auth.log_in("alice", "correct horse", None).await.unwrap();
        let phones_actor = auth.verify(&phone.tokens.access_token).await.unwrap();
        let laptops_actor = auth.verify(&laptop.tokens.access_token).await.unwrap();
        let mut on_phone = world
            .engine
            .events()
            .subscribe(&phones_actor)
            .await
            .unwrap();
        let mut on_laptop = world
            .engine
            .events()
            .subscribe(&laptops_actor)
            .await
            .unwrap();

        auth.revoke(&laptops_actor, phone.session_id).await.unwrap();

        assert!(matches!(
            next(&mut on_phone).await,
            Some(Err(Error::InvalidToken))
        ));
        assert!(next(&mut on_phone).await.is_none());
        assert!(on_laptop.next().now_or_never().is_none());
        let refused = world.engine.events().subscribe(&phones_actor).await;
        assert!(matches!(refused, Err(Error::InvalidToken)));
    }

    async fn what_was_sent_before_the_end_of_a_session_is_not_heard_after_it(world: World) {
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let login = world.engine.auth().register(account).await.unwrap();
        let alice = world
            .engine
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();
        let bob = world.person("bob").await;
        let conversation = world
            .engine
            .conversations()
            .open_direct(&bob.actor, alice.user_id())
            .await
            .unwrap();
        let mut unread = world.engine.events().subscribe(&alice).await.unwrap();
        for n in 0..200 {
            bob.send(conversation.id, &n.to_string()).await;
        }

        let token = &login.tokens.refresh_token;
        world.engine.auth().log_out(token).await.unwrap();

        assert!(matches!(
            next(&mut unread).await,
            Some(Err(Error::InvalidToken))
        ));
    }

    async fn a_subscription_ends_when_the_engine_closes(world: World) {
        let alice = world.person("alice").await;
        let mut events = alice.subscribe().await;

        world.engine.close().await;

        assert!(matches!(next(&mut events).await, Some(Err(Error::Closed))));
        assert!(next(&mut events).await.is_none());
        assert!(alice.engine.users().me(&alice.actor).await.is_err());
    }

    async fn with_live_events_off_no_cursor_passes_what_is_not_told(world: World) {
        let mut live = live_settings();
        live.enabled = false;
        world.engine.close().await;
        let engine = world.place.builder().live(live).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await.id;
        let mut stream = engine.events().resume(&bob.actor, Pull::default());
        let mut updates = async || soon("an update", stream.next()).await.unwrap().unwrap();
        while !matches!(updates().await, Update::Live { .. }) {}

        alice.send(conversation, "not to be lost").await;
        let name = DisplayName::parse("Alice B").unwrap();
        let users = engine.users();
        users.change_profile(&alice.actor, name).await.unwrap();
        // Whoever is blocked hears of it in a page, if at all.
        bob.block(&alice).await.unwrap();

        let told = timeout(Duration::from_secs(1), updates()).await;
        assert!(told.is_err(), "{told:?}");
        engine.close().await;
    }

    async fn with_live_events_off_sessions_still_end(world: World) {
        let mut live = LiveSettings::default();
        live.enabled = false;
        world.engine.close().await;
        let engine = world.place.builder().live(live).open().await.unwrap();
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let login = engine.auth().register(account).await.unwrap();
        let alice = engine
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();
        let bob = Person::join(&engine, "bob").await;
        let mut events = engine.events().subscribe(&alice).await.unwrap();

        let conversation = engine
            .conversations()
            .open_direct(&bob.actor, alice.user_id())
            .await;
        bob.send(conversation.unwrap().id, "nobody hears this")
            .await;
        engine.auth().log_out_all(&alice).await.unwrap();

        assert!(matches!(
            next(&mut events).await,
            Some(Err(Error::InvalidToken))
        ));
    }

    async fn who_is_removed_hears_of_it_and_of_nothing_after_it(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let carol = world.person("carol").await;
        let other = world.place.open().await;
        let group = alice.create_group(&[&bob, &carol]).await;
        // At this engine, at another one, and read only after all of it has happened.
        let mut bobs = [
            bob.subscribe().await,
            bob.at(&other).subscribe().await,
            bob.subscribe().await,
        ];
        let mut carols = carol.subscribe().await;

        alice.send(group, "before").await;
        alice.remove(group, &bob).await.unwrap();
        for n in 0..200 {
            alice.send(group, &n.to_string()).await;
        }
        alice.rename(group, "Without Bob").await.unwrap();
        let elsewhere = alice.open_direct(&bob).await;
        alice.send(elsewhere.id, "only we two").await;

        for events in &mut bobs {
            assert_eq!(next_text(events).await, "before");
            let event = next(events).await.unwrap().unwrap();
            assert!(
                matches!(event.kind, EventKind::MemberRemoved { conversation, user, by }
                if conversation == group && user == bob.user.id && by == alice.user.id),
                "{event:?}"
            );
            let event = next(events).await.unwrap().unwrap();
            assert!(
                matches!(&event.kind, EventKind::ConversationCreated { conversation }
                if conversation.id == elsewhere.id),
                "{event:?}"
            );
            assert_eq!(next_text(events).await, "only we two");
        }
        assert_eq!(next_text(&mut carols).await, "before");
        let event = next(&mut carols).await.unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::MemberRemoved { .. }));
        for n in 0..200 {
            assert_eq!(next_text(&mut carols).await, n.to_string());
        }
        let event = next(&mut carols).await.unwrap().unwrap();
        assert!(
            matches!(&event.kind, EventKind::GroupChanged { title, .. } if title == "Without Bob")
        );
        other.close().await;
    }

    async fn who_comes_back_hears_what_follows_and_nothing_of_the_time_between(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let other = world.place.open().await;
        let group = alice.create_group(&[&bob]).await;
        alice.remove(group, &bob).await.unwrap();
        let mut bobs = [bob.subscribe().await, bob.at(&other).subscribe().await];

        alice.send(group, "between").await;
        alice.add(group, &[&bob]).await.unwrap();
        alice.send(group, "welcome back").await;
        bob.leave(group).await.unwrap();
        alice.send(group, "between, again").await;
        alice.add(group, &[&bob]).await.unwrap();
        alice.delete(group).await.unwrap();
        let elsewhere = alice.open_direct(&bob).await;

        for events in &mut bobs {
            let mut kinds = Vec::new();
            loop {
                let event = next(events).await.unwrap().unwrap();
                kinds.push(match &event.kind {
                    EventKind::MembersAdded { users, .. } if *users == [bob.user.id] => "added",
                    EventKind::MessageCreated { message, .. } => {
                        assert_eq!(message.content, "welcome back");
                        "message"
                    }
                    EventKind::MemberRemoved { user, by, .. } if user == by => "left",
                    EventKind::ConversationDeleted { conversation, .. } => {
                        assert_eq!(*conversation, group);
                        "deleted"
                    }
                    EventKind::ConversationCreated { conversation } => {
                        assert_eq!(conversation.id, elsewhere.id);
                        break;
                    }
                    other => panic!("{other:?}"),
                });
            }
            assert_eq!(kinds, ["added", "message", "left", "added", "deleted"]);
        }
        other.close().await;
    }

    async fn whoever_begins_to_listen_amid_coming_and_going_hears_only_what_they_may(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let other = world.place.open().await;
        let group = alice.create_group(&[]).await;
        let (done, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(3)));
        let changes = {
            let (alice, bob) = (alice.clone(), bob.clone());
            let (done, begun) = (done.clone(), begun.clone());
            tokio::spawn(async move {
                begun.wait().await;
                for n in 0..150 {
                    alice.send(group, "out").await;
                    alice.add(group, &[&bob]).await.unwrap();
                    alice.send(group, &n.to_string()).await;
                    alice.remove(group, &bob).await.unwrap();
                }
                done.store(true, Ordering::SeqCst);
            })
        };

        let listeners = [bob.clone(), bob.at(&other)].map(|bob| {
            let (done, begun) = (done.clone(), begun.clone());
            tokio::spawn(async move {
                // All at once share a channel, and one after the other begin with a new picture.
                let (mut heard, mut subscriptions) = (0, vec![(bob.subscribe().await, None)]);
                begun.wait().await;
                while !done.load(Ordering::SeqCst) {
                    let mut events = bob.subscribe().await;
                    let mut within = None;
                    for _ in 0..7 {
                        let event = soon("an event", events.next()).await.unwrap().unwrap();
                        heard += usize::from(hears_what_it_may(&event.kind, &mut within));
                        if done.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                    subscriptions.push((events, within));
                    subscriptions.truncate(4);
                }
                (heard, subscriptions)
            })
        });
        changes.await.unwrap();
        // What everybody hears at last, however late they begin.
        let heard = Arc::new(AtomicBool::new(false));
        let ends = {
            let (alice, heard) = (alice.clone(), heard.clone());
            tokio::spawn(async move {
                while !heard.load(Ordering::SeqCst) {
                    alice.send(direct.id, "the end").await;
                }
            })
        };
        for listener in listeners {
            let (mut messages, subscriptions) = listener.await.unwrap();
            for (mut events, mut within) in subscriptions {
                loop {
                    let event = next(&mut events).await.unwrap().unwrap();
                    if matches!(&event.kind, EventKind::MessageCreated { message, .. }
                        if message.content == "the end")
                    {
                        break;
                    }
                    messages += usize::from(hears_what_it_may(&event.kind, &mut within));
                }
            }
            assert!(messages > 0);
        }
        heard.store(true, Ordering::SeqCst);
        ends.await.unwrap();
        other.close().await;
    }

    async fn a_slow_reader_who_left_and_came_back_is_told_so_and_of_what_followed(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        let mut slow = bob.subscribe().await;

        bob.leave(group).await.unwrap();
        for n in 0..200 {
            alice.send(group, &n.to_string()).await;
        }
        alice.add(group, &[&bob]).await.unwrap();
        alice.send(group, "welcome back").await;

        let event = next(&mut slow).await.unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::MemberRemoved { user, .. } if user == bob.user.id));
        let event = next(&mut slow).await.unwrap().unwrap();
        assert!(
            matches!(event.kind, EventKind::MembersAdded { .. }),
            "{event:?}"
        );
        assert_eq!(next_text(&mut slow).await, "welcome back");
    }

    async fn everybody_hears_of_roles_and_markers_and_only_oneself_of_settings(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let other = world.place.open().await;
        let group = alice.create_group(&[&bob]).await;
        alice.send(group, "one").await;
        alice.send(group, "two").await;
        let mut subscriptions = [
            (true, bob.subscribe().await),
            (false, alice.subscribe().await),
            (true, bob.at(&other).subscribe().await),
            (false, alice.at(&other).subscribe().await),
        ];

        alice.set_role(group, &bob, Role::Admin).await.unwrap();
        let markers = bob.mark_read(group, Seq::new(1).unwrap()).await.unwrap();
        let pin = SettingsChange {
            pinned: Some(true),
            ..SettingsChange::default()
        };
        bob.change_settings(group, pin).await.unwrap();
        bob.send(group, "three").await;

        assert_eq!(markers.unread_count, 1);
        for (is_bob, events) in &mut subscriptions {
            let event = next(events).await.unwrap().unwrap();
            assert!(
                matches!(event.kind, EventKind::RoleChanged { user, role, by, .. }
                if user == bob.user.id && role == Role::Admin && by == alice.user.id)
            );
            let event = next(events).await.unwrap().unwrap();
            assert!(
                matches!(event.kind, EventKind::MarkerChanged { user, markers: told, .. }
                if user == bob.user.id && told == markers),
                "{event:?}"
            );
            if *is_bob {
                let event = next(events).await.unwrap().unwrap();
                assert!(
                    matches!(event.kind, EventKind::OwnChanged { conversation, settings }
                    if conversation == group && settings.pinned_at.is_some()),
                    "{event:?}"
                );
            }
            assert_eq!(next_text(events).await, "three");
        }
        other.close().await;
    }

    async fn in_a_large_group_only_oneself_hears_of_a_marker(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.small_conversation_members_max = 2;
        limits.subscriber_queue_max = 2;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let carol = Person::join(&engine, "carol").await;
        let group = alice.create_group(&[&bob, &carol]).await;
        alice.send(group, "hello").await;
        let (mut alices, mut bobs) = (alice.subscribe().await, bob.subscribe().await);

        bob.mark_read(group, Seq::MAX).await.unwrap();
        for text in ["one", "two", "three", "four"] {
            alice.send(group, text).await;
        }

        let conversations = engine.conversations();
        let seen = conversations.get(&carol.actor, group).await.unwrap();
        let ids: Vec<_> = seen.members.iter().map(|member| member.user.id).collect();
        assert!(seen.is_large);
        assert_eq!(ids, [alice.user.id, carol.user.id]);
        // Both have fallen behind, and read it from the change log.
        assert_eq!(next_text(&mut alices).await, "one");
        let event = next(&mut bobs).await.unwrap().unwrap();
        assert!(
            matches!(event.kind, EventKind::MarkerChanged { .. }),
            "{event:?}"
        );
        assert_eq!(next_text(&mut bobs).await, "one");
    }
);

/// Insists that the listener belongs to the group when it hears of it, as far as it knows. Tells
/// whether it was a message.
fn hears_what_it_may(kind: &EventKind, within: &mut Option<bool>) -> bool {
    match kind {
        EventKind::MembersAdded { .. } => {
            assert_ne!(within.replace(true), Some(true));
            false
        }
        // A slow reader may hear of several ends in a row.
        EventKind::MemberRemoved { .. } => {
            *within = Some(false);
            false
        }
        EventKind::MessageCreated { message, .. } if message.content == "the end" => false,
        EventKind::MessageCreated { message, .. } => {
            assert_ne!(message.content, "out");
            assert_ne!(*within, Some(false));
            true
        }
        other => panic!("{other:?}"),
    }
}
