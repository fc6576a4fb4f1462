//! Live events: in order, each once, to everybody who belongs, and at nobody's cost.

use futures_util::FutureExt;
use futures_util::StreamExt;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::events::EventKind;
use messenger_core::users::Username;
use messenger_core::{Error, LiveSettings};

use crate::world::{next, next_text, on_both_databases};

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
            if *told == conversation)
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
        let bob = crate::world::Person::join(&engine, "bob").await;
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
);
