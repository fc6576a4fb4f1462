//! What must not depend on who comes first.

use std::collections::HashSet;

use futures_util::future::join_all;
use messenger_core::Error;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::conversations::Role;
use messenger_core::users::Username;

use crate::world::{Person, World, assert_contiguous, message, message_as, on_both_databases};

on_both_databases!(
    async fn sixty_four_opens_of_one_direct_conversation_make_one(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);

        let opens = (0..64).map(|i| {
            let (me, other) = if i % 2 == 0 {
                (&alice, &bob)
            } else {
                (&bob, &alice)
            };
            let (me, other) = (me.clone(), other.clone());
            tokio::spawn(async move { me.open_direct(&other).await.id })
        });
        let opened: HashSet<_> = join_all(opens)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();

        assert_eq!(opened.len(), 1);
        assert_eq!(
            world
                .engine
                .conversations()
                .list(&bob.actor)
                .await
                .unwrap()
                .len(),
            1
        );
    }

    async fn a_thousand_repeats_of_one_send_store_one_message(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let again = message_as("the-same-client-id", "once");

        let sends = (0..1_000).map(|_| {
            let (alice, again) = (alice.clone(), again.clone());
            tokio::spawn(async move { alice.try_send(conversation.id, again).await.unwrap() })
        });
        let sent: Vec<_> = join_all(sends)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();

        assert_eq!(sent.iter().filter(|sent| sent.created).count(), 1);
        assert!(sent.iter().all(|other| other.message == sent[0].message));
        assert_eq!(
            bob.history(conversation.id).await,
            [sent[0].message.clone()]
        );
    }

    async fn thirty_two_writers_fill_one_conversation_without_a_gap(world: World) {
        thirty_two_writers(world, 1_000).await;
    }

    async fn admins_who_add_and_remove_one_person_at_once_leave_the_group_well_counted(
        world: World,
    ) {
        let alice = world.person("alice").await;
        let (bob, carol) = (world.person("bob").await, world.person("carol").await);
        let group = alice.create_group(&[&bob]).await;
        alice.set_role(group, &bob, Role::Admin).await.unwrap();

        let changes = (0..64).flat_map(|_| {
            [&alice, &bob].map(|admin| {
                let (admin, carol) = (admin.clone(), carol.clone());
                tokio::spawn(async move {
                    admin.add(group, &[&carol]).await.unwrap();
                    match admin.remove(group, &carol).await {
                        Ok(_) | Err(Error::MemberNotFound) => {}
                        Err(error) => panic!("{error}"),
                    }
                })
            })
        });
        for change in join_all(changes).await {
            change.unwrap();
        }

        let joined = "SELECT count(*) FROM members WHERE state = 1";
        let joined = world.place.number(joined).await;
        let counted = "SELECT member_count FROM conversations";
        assert_eq!(world.place.number(counted).await, joined);
        let conversations = world.engine.conversations();
        let seen = conversations.get(&alice.actor, group).await.unwrap();
        assert_eq!(seen.members.len() as i64, joined);
    }

    async fn of_two_last_owners_who_leave_at_once_one_stays(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let carol = world.person("carol").await;
        let other = world.place.open().await;
        for engine in [&world.engine, &other] {
            let group = alice.create_group(&[&bob, &carol]).await;
            alice.set_role(group, &bob, Role::Owner).await.unwrap();

            let bobs = bob.at(engine);
            let (one, two) = futures_util::join!(alice.leave(group), bobs.leave(group));

            let outcomes = [one, two];
            let left = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            let stayed = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Err(Error::LastOwner)));
            assert_eq!((left, stayed.count()), (1, 1));
        }
        other.close().await;
    }

    async fn of_two_owners_who_demote_each_other_at_once_one_stays(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        alice.set_role(group, &bob, Role::Owner).await.unwrap();

        let (one, two) = futures_util::join!(
            alice.set_role(group, &bob, Role::Member),
            bob.set_role(group, &alice, Role::Member)
        );

        let outcomes = [one, two];
        let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let refused = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(Error::Forbidden)));
        assert_eq!((done, refused.count()), (1, 1));
    }

    async fn fifty_registrations_of_one_name_make_one_account(world: World) {
        let registrations = (0..50).map(|i| {
            let engine = world.engine.clone();
            tokio::spawn(async move {
                let name = if i % 2 == 0 { "alice" } else { "ALICE" };
                let account = NewAccount {
                    username: Username::parse(name).unwrap(),
                    display_name: None,
                    password: Password::parse("correct horse").unwrap(),
                    device: None,
                };
                engine.auth().register(account).await
            })
        });
        let outcomes: Vec<_> = join_all(registrations)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();

        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        for error in refused {
            assert!(matches!(error, Error::UsernameTaken), "{error}");
        }
    }

    async fn fifty_refreshes_with_one_token_have_one_successor_which_is_dead(world: World) {
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let login = world.engine.auth().register(account).await.unwrap();

        let refreshes = (0..50).map(|_| {
            let (engine, token) = (world.engine.clone(), login.tokens.refresh_token.clone());
            tokio::spawn(async move { engine.auth().refresh(&token).await })
        });
        let outcomes: Vec<_> = join_all(refreshes)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let winners: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();

        assert_eq!(winners.len(), 1);
        let tokens = &winners[0].tokens;
        let auth = world.engine.auth();
        assert!(matches!(
            auth.refresh(&tokens.refresh_token).await,
            Err(Error::InvalidRefreshToken)
        ));
        assert!(matches!(
            auth.verify(&tokens.access_token).await,
            Err(Error::InvalidToken)
        ));
    }
);

async fn thirty_two_writers(world: World, each: usize) {
    let (alice, bob, conversation) = world.alice_and_bob().await;

    let writers = (0..32).map(|i| {
        let writer: Person = if i % 2 == 0 {
            alice.clone()
        } else {
            bob.clone()
        };
        tokio::spawn(async move {
            let mut last = 0;
            for n in 0..each {
                let sent = writer
                    .try_send(conversation.id, message(&format!("{i} says {n}")))
                    .await
                    .unwrap();
                // One's own messages keep the order in which they were acknowledged.
                assert!(sent.created && sent.message.seq.get() > last);
                last = sent.message.seq.get();
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }

    let history = alice.history(conversation.id).await;
    assert_eq!(history.len(), 32 * each);
    assert_contiguous(&history);
    let texts: HashSet<&str> = history
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert_eq!(texts.len(), 32 * each);
}
