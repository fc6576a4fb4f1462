//! A host with its own log-in uses everything without a password.

use messenger_core::users::{DisplayName, HostUser};
use messenger_core::{Error, Seq};
use uuid::Uuid;

use crate::world::{host_user, is_not_found, message, on_both_databases};

on_both_databases!(
    async fn a_user_of_the_host_talks_without_a_password(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;

        let sent = alice.send(conversation.id, "hello").await;

        assert_eq!(bob.history(conversation.id).await, [sent]);
    }

    async fn a_user_of_the_host_can_be_ensured_again(world: World) {
        let alice = host_user("alice");
        let first = world.engine.users().ensure(alice.clone()).await.unwrap();

        let again = world.engine.users().ensure(alice.clone()).await.unwrap();
        let renamed = HostUser {
            display_name: DisplayName::parse("Alice L.").unwrap(),
            ..alice
        };
        let renamed = world.engine.users().ensure(renamed).await.unwrap();

        assert_eq!(again, first);
        assert_eq!(renamed.id, first.id);
        let me = world
            .engine
            .users()
            .me(&world.engine.trust(first.id))
            .await
            .unwrap();
        assert_eq!(me.display_name.as_str(), "Alice L.");
    }

    async fn two_users_of_the_host_can_not_have_one_username(world: World) {
        world
            .engine
            .users()
            .ensure(host_user("alice"))
            .await
            .unwrap();

        let taken = world.engine.users().ensure(host_user("ALICE")).await;

        assert!(matches!(taken, Err(Error::UsernameTaken)), "{taken:?}");
    }

    async fn a_user_of_the_host_can_not_log_in_with_a_password(world: World) {
        world
            .engine
            .users()
            .ensure(host_user("alice"))
            .await
            .unwrap();

        for password in ["", "alice", "correct horse battery staple"] {
            let refused = world.engine.auth().log_in("alice", password, None).await;
            assert!(
                matches!(refused, Err(Error::InvalidCredentials)),
                "{refused:?}"
            );
        }
    }

    async fn somebody_whom_the_engine_does_not_know_is_told_so(world: World) {
        let bob = world.person("bob").await;
        let stranger = world.engine.trust(Uuid::now_v7().into());

        let me = world.engine.users().me(&stranger).await;
        let opened = world
            .engine
            .conversations()
            .open_direct(&stranger, bob.user.id)
            .await;
        let bootstrap = world.engine.sync().bootstrap(&stranger).await;

        assert!(matches!(me, Err(Error::UserNotFound)));
        assert!(matches!(opened, Err(Error::UserNotFound)));
        assert!(matches!(bootstrap, Err(Error::UserNotFound)));
        assert!(
            world
                .engine
                .conversations()
                .list(&bob.actor)
                .await
                .unwrap()
                .is_empty()
        );
    }

    async fn a_stranger_can_not_tell_whether_a_conversation_exists(world: World) {
        let (_, _, conversation) = world.alice_and_bob().await;
        let mallory = world.person("mallory").await;

        for id in [conversation.id, Uuid::now_v7().into()] {
            let conversations = world.engine.conversations();
            assert!(is_not_found(
                &conversations.membership(&mallory.actor, id).await
            ));
            assert!(is_not_found(
                &conversations.memberships(&mallory.actor, &[id]).await
            ));
            assert!(is_not_found(
                &mallory.try_send(id, message("let me in")).await
            ));
        }
        assert!(conversation.last_seq == Seq::ZERO);
    }
);
