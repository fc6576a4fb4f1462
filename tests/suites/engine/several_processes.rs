//! Several engines over one database: they neither lose each other's changes nor repeat them.

use std::collections::HashSet;

use futures_util::future::join_all;
use messenger_core::Error;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::events::EventKind;
use messenger_core::users::Username;

use crate::world::{assert_contiguous, message, message_as, next, next_text, on_both_databases};

on_both_databases!(
    async fn a_message_sent_at_one_engine_is_heard_at_the_other(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let other = world.place.open().await;
        let mut bobs = bob.at(&other).subscribe().await;

        alice.send(conversation.id, "across").await;
        bob.at(&other).send(conversation.id, "and back").await;

        assert_eq!(next_text(&mut bobs).await, "across");
        assert_eq!(next_text(&mut bobs).await, "and back");
        other.close().await;
    }

    async fn two_engines_number_one_conversation_without_a_gap(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let other = world.place.open().await;
        let mut alices = alice.subscribe().await;

        let writers = (0..8).map(|i| {
            let writer = if i % 2 == 0 {
                alice.clone()
            } else {
                bob.at(&other)
            };
            tokio::spawn(async move {
                for n in 0..50 {
                    let text = format!("{i} says {n}");
                    let sent = writer
                        .try_send(conversation.id, message(&text))
                        .await
                        .unwrap();
                    assert!(sent.created);
                }
            })
        });
        for writer in join_all(writers).await {
            writer.unwrap();
        }

        let history = alice.history(conversation.id).await;
        assert_eq!(history.len(), 400);
        assert_contiguous(&history);
        for message in &history {
            assert_eq!(next_text(&mut alices).await, message.content);
        }
        other.close().await;
    }

    async fn a_repeat_at_another_engine_returns_the_first_message(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let other = world.place.open().await;
        let again = message_as("the-same-client-id", "once");

        let sends = (0..200).map(|i| {
            let alice = if i % 2 == 0 {
                alice.clone()
            } else {
                alice.at(&other)
            };
            let again = again.clone();
            tokio::spawn(async move { alice.try_send(conversation.id, again).await.unwrap() })
        });
        let sent: Vec<_> = join_all(sends)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();

        assert_eq!(sent.iter().filter(|sent| sent.created).count(), 1);
        assert!(sent.iter().all(|other| other.message == sent[0].message));
        other.close().await;
    }

    async fn a_pair_has_one_conversation_whichever_engine_opens_it(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let other = world.place.open().await;

        let opens = (0..64).map(|i| {
            let (alice, bob) = (alice.clone(), bob.at(&other));
            tokio::spawn(async move {
                if i % 2 == 0 {
                    alice.open_direct(&bob).await.id
                } else {
                    bob.open_direct(&alice).await.id
                }
            })
        });
        let opened: HashSet<_> = join_all(opens)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();

        assert_eq!(opened.len(), 1);
        other.close().await;
    }

    async fn a_session_that_ends_at_one_engine_ends_at_the_other(world: World) {
        let other = world.place.open().await;
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let login = world.engine.auth().register(account).await.unwrap();
        let alice = other
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();
        let mut events = other.events().subscribe(&alice).await.unwrap();

        world
            .engine
            .auth()
            .log_out(&login.tokens.refresh_token)
            .await
            .unwrap();

        assert!(matches!(
            next(&mut events).await,
            Some(Err(Error::InvalidToken))
        ));
        let refused = other.auth().verify(&login.tokens.access_token).await;
        assert!(matches!(refused, Err(Error::InvalidToken)));
        other.close().await;
    }

    async fn a_password_changed_at_one_engine_does_not_open_the_other(world: World) {
        let other = world.place.open().await;
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("the old password").unwrap(),
            device: None,
        };
        let login = world.engine.auth().register(account).await.unwrap();
        let alice = world
            .engine
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();
        other
            .auth()
            .log_in("alice", "the old password", None)
            .await
            .unwrap();

        let new = Password::parse("the new password").unwrap();
        world
            .engine
            .auth()
            .change_password(&alice, "the old password", new)
            .await
            .unwrap();

        let refused = other.auth().log_in("alice", "the old password", None).await;
        assert!(matches!(refused, Err(Error::InvalidCredentials)));
        other
            .auth()
            .log_in("alice", "the new password", None)
            .await
            .unwrap();
        other.close().await;
    }

    async fn a_column_that_a_newer_program_adds_does_not_disturb_a_running_one(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "before").await;
        let mut bobs = bob.subscribe().await;

        for table in ["users", "conversations", "members", "messages", "events"] {
            world
                .place
                .execute(&format!("ALTER TABLE {table} ADD COLUMN later integer"))
                .await;
        }

        let other = world.place.open().await;
        bob.at(&other).send(conversation.id, "by another").await;
        alice.send(conversation.id, "after").await;
        assert_eq!(alice.history(conversation.id).await.len(), 3);
        assert_eq!(next_text(&mut bobs).await, "by another");
        assert_eq!(next_text(&mut bobs).await, "after");
        other.close().await;
    }

    async fn an_event_rendered_from_the_log_equals_the_one_from_the_writer(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let other = world.place.open().await;
        let (mut here, mut there) = (bob.subscribe().await, bob.at(&other).subscribe().await);

        let conversation = alice.open_direct(&bob).await;
        alice.send(conversation.id, "the same to all").await;

        for _ in 0..2 {
            let (one, two) = (next(&mut here).await, next(&mut there).await);
            let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
            assert_eq!((one.id, one.position), (two.id, two.position));
            assert_eq!(one.occurred_at, two.occurred_at);
            match (&one.kind, &two.kind) {
                (
                    EventKind::ConversationCreated { conversation: one },
                    EventKind::ConversationCreated { conversation: two },
                ) => assert_eq!(one, two),
                (
                    EventKind::MessageCreated {
                        message,
                        sender,
                        conversation,
                    },
                    EventKind::MessageCreated {
                        message: message2,
                        sender: sender2,
                        conversation: conversation2,
                    },
                ) => assert_eq!(
                    (message, sender, conversation),
                    (message2, sender2, conversation2)
                ),
                (one, two) => panic!("{one:?} is not {two:?}"),
            }
        }
        other.close().await;
    }
);
