//! The end of an account: what goes, what stays, and who hears of it.

use messenger_core::accounts::Erase;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::conversations::{Role, SettingsChange};
use messenger_core::events::{EventKind, Update};
use messenger_core::messages::Reaction;
use messenger_core::users::Username;
use messenger_core::{ConversationId, Error, Limits, MessengerEngine, Result};

use crate::replica::{Replica, Size};
use crate::world::{
    Person, eventually, host_user, is_not_found, message, next, next_update, on_both_databases,
};

const SIZE: Size = Size {
    limit: 5,
    timeline: 3,
};

async fn delete(person: &Person, erase: Erase) -> Result<()> {
    person.engine.users().delete_me(&person.actor, erase).await
}

/// Waits until nothing is left to be erased.
async fn done(world: &crate::world::World) {
    eventually("everything is erased", async || {
        world.place.count("erasures").await == 0
    })
    .await;
}

async fn react(person: &Person, of: &messenger_core::messages::Message, emoji: &str) {
    let reaction = Reaction::parse(emoji, person.engine.limits()).unwrap();
    let messages = person.engine.messages();
    let reacted = messages.react(&person.actor, of.conversation_id, of.id, reaction);
    reacted.await.unwrap();
}

/// Who belongs to a conversation, and as what, for one who does.
async fn roles(person: &Person, group: ConversationId) -> Vec<(String, Role)> {
    let conversations = person.engine.conversations();
    let group = conversations.get(&person.actor, group).await.unwrap();
    let members = group.members.iter();
    let mut roles: Vec<_> = members
        .map(|member| (member.user.username.as_str().to_owned(), member.role))
        .collect();
    roles.sort();
    roles
}

async fn register(engine: &MessengerEngine, name: &str) -> Result<messenger_core::auth::Login> {
    let account = NewAccount {
        username: Username::parse(name)?,
        display_name: None,
        password: Password::parse("correct horse battery staple")?,
        device: Some("phone".to_owned()),
    };
    engine.auth().register(account).await
}

on_both_databases!(
    async fn sessions_end_and_nobody_logs_in_or_takes_the_username(world: World) {
        let login = register(&world.engine, "Alice").await.unwrap();
        let auth = world.engine.auth();
        let actor = auth.verify(&login.tokens.access_token).await.unwrap();
        let confirmed = auth.confirm(&actor, "a wrong password").await;
        assert!(matches!(confirmed, Err(Error::InvalidCredentials)));
        let password = "correct horse battery staple";
        auth.confirm(&actor, password).await.unwrap();

        let users = world.engine.users();
        users.delete_me(&actor, Erase::Nothing).await.unwrap();

        let refused = auth.verify(&login.tokens.access_token).await;
        assert!(matches!(refused, Err(Error::InvalidToken)), "{refused:?}");
        let refused = auth.refresh(&login.tokens.refresh_token).await;
        assert!(matches!(refused, Err(Error::InvalidRefreshToken)));
        let refused = auth.log_in("alice", password, None).await;
        assert!(matches!(refused, Err(Error::InvalidCredentials)));
        for name in ["alice", "ALICE"] {
            let refused = register(&world.engine, name).await;
            assert!(matches!(refused, Err(Error::UsernameTaken)));
            let refused = world.engine.users().ensure(host_user(name)).await;
            assert!(matches!(refused, Err(Error::UsernameTaken)));
        }
        done(&world).await;
        let names = "SELECT count(*) FROM users WHERE lower(username || display_name || username_key) LIKE '%alice%'";
        assert_eq!(world.place.number(names).await, 0);
    }

    async fn a_deleted_person_is_found_and_added_by_nobody(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        delete(&alice, Erase::Nothing).await.unwrap();

        let users = world.engine.users();
        for text in ["alice", "deleted", "a"] {
            let found = users.search(&bob.actor, text, 50).await.unwrap();
            assert!(found.is_empty(), "{text}: {found:?}");
        }
        let conversations = world.engine.conversations();
        let opened = conversations.open_direct(&bob.actor, alice.user.id).await;
        assert!(matches!(opened, Err(Error::UserNotFound)), "{opened:?}");
        let group = bob.create_group(&[]).await;
        let added = bob.add(group, &[&alice]).await;
        assert!(matches!(added, Err(Error::UserNotFound)), "{added:?}");
        let mut again = host_user("alice-again");
        again.id = alice.user.id;
        let again = users.ensure(again).await;
        assert!(matches!(again, Err(Error::UserDeleted)), "{again:?}");
    }

    async fn a_direct_conversation_stays_readable_and_nothing_more_is_said(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "bye").await;
        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;

        let history = bob.history(conversation.id).await;
        assert_eq!(history[0].content, "bye");
        let refused = bob.try_send(conversation.id, message("hello?")).await;
        assert!(matches!(refused, Err(Error::UserDeleted)), "{refused:?}");
        // A host that has not noticed yet.
        let refused = alice.try_send(conversation.id, message("still here")).await;
        assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
        assert_eq!(bob.open_direct(&alice).await.members.len(), 2);
    }

    async fn the_oldest_admin_inherits_a_group_and_else_the_oldest_member(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let (carol, dave) = (world.person("carol").await, world.person("dave").await);
        let led = alice.create_group(&[&dave]).await;
        alice.add(led, &[&carol]).await.unwrap();
        alice.add(led, &[&bob]).await.unwrap();
        for admin in [&bob, &carol] {
            alice.set_role(led, admin, Role::Admin).await.unwrap();
        }
        let plain = alice.create_group(&[]).await;
        alice.add(plain, &[&carol]).await.unwrap();
        alice.add(plain, &[&bob]).await.unwrap();
        let alone = alice.create_group(&[]).await;
        let shared = alice.create_group(&[&bob]).await;
        alice.set_role(shared, &bob, Role::Owner).await.unwrap();

        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;

        let named = |name: &str, role| (name.to_owned(), role);
        assert_eq!(
            roles(&bob, led).await,
            [
                named("bob", Role::Admin),
                named("carol", Role::Owner),
                named("dave", Role::Member)
            ]
        );
        assert_eq!(
            roles(&bob, plain).await,
            [named("bob", Role::Member), named("carol", Role::Owner)]
        );
        assert_eq!(roles(&bob, shared).await, [named("bob", Role::Owner)]);
        let conversations = world.engine.conversations();
        for group in [led, plain, alone, shared] {
            let gone = conversations.get(&alice.actor, group).await;
            assert!(is_not_found(&gone), "{gone:?}");
        }
    }

    async fn all_that_somebody_wrote_and_how_they_reacted_goes_everywhere(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = bob.create_group(&[&alice]).await;
        let left = bob.create_group(&[&alice]).await;
        let of_bob = bob.send(group, "stays").await;
        react(&alice, &of_bob, "👍").await;
        react(&alice, &of_bob, "🎉").await;
        react(&bob, &of_bob, "👍").await;
        for place in [direct.id, group, left] {
            let sent = alice.send(place, "goes").await;
            react(&bob, &sent, "x").await;
        }
        alice.leave(left).await.unwrap();
        let mut replica = Replica::default();
        replica.catch_up(&bob, SIZE).await;
        let stamped = "SELECT count(*) FROM members WHERE state <> 1 AND changed_pos > ";
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        let before = bootstrap.stamp.as_of.get();

        delete(&alice, Erase::Messages).await.unwrap();
        done(&world).await;

        for place in [direct.id, group, left] {
            let history = bob.history(place).await;
            for message in history {
                if message.sender_id == alice.user.id {
                    assert!(message.deleted_at.is_some() && message.content.is_empty());
                    assert!(message.reactions.is_empty());
                } else {
                    assert_eq!(message.content, "stays");
                    assert_eq!(message.reactions.len(), 1);
                    assert_eq!(message.reactions[0].count, 1);
                }
            }
        }
        let left_text = "SELECT count(*) FROM messages WHERE content = 'goes'";
        assert_eq!(world.place.number(left_text).await, 0);
        assert_eq!(world.place.count("reactions").await, 1);
        // Only the one group that she left now has a new stamp, not the one that she had left.
        let stamped = format!("{stamped}{before}");
        assert_eq!(world.place.number(&stamped).await, 1);

        replica.catch_up(&bob, SIZE).await;
        replica.assert_equals_a_fresh_one(&bob).await;
        let known = &replica.users[&alice.user.id];
        assert_eq!(
            (known.username.as_str(), known.display_name.as_str()),
            ("", "")
        );
        assert!(known.deleted_at.is_some());
    }

    async fn a_device_that_was_away_forgets_the_name_of_whoever_was_only_in_a_group(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = bob.create_group(&[&alice]).await;
        alice.send(group, "hello").await;
        let mut replica = Replica::default();
        replica.catch_up(&bob, SIZE).await;
        assert_eq!(replica.users[&alice.user.id], alice.user);

        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;

        replica.catch_up(&bob, SIZE).await;
        assert!(replica.users[&alice.user.id].deleted_at.is_some());
        replica.assert_equals_a_fresh_one(&bob).await;
        assert_eq!(bob.history(group).await[0].content, "hello");
    }

    async fn a_device_that_was_away_forgets_the_name_of_whoever_was_only_blocked(world: World) {
        let alice = world.person("alice").await;
        let (bob, carol) = (world.person("bob").await, world.person("carol").await);
        alice.block(&bob).await.unwrap();
        alice.block(&carol).await.unwrap();
        let mut replica = Replica::default();
        replica.catch_up(&alice, SIZE).await;
        assert_eq!(replica.users[&bob.user.id], bob.user);
        alice.unblock(&carol).await.unwrap();
        let mut following = alice.follow().await;

        for person in [&bob, &carol] {
            delete(person, Erase::Nothing).await.unwrap();
            let told = next_update(&mut following).await;
            let is_gone = matches!(&told, Update::Event { event, .. }
                if matches!(&event.kind, EventKind::UserChanged { user }
                    if user.id == person.user.id && user.deleted_at.is_some()));
            assert!(is_gone, "{told:?}");
        }

        replica.catch_up(&alice, SIZE).await;
        for person in [&bob, &carol] {
            assert!(replica.users[&person.user.id].deleted_at.is_some());
        }
    }

    async fn what_somebody_kept_for_themselves_is_emptied(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        alice.block(&bob).await.unwrap();
        alice.keep("secret", Some("\"diary\"")).await.unwrap();

        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;

        let kept = "SELECT count(*) FROM user_prefs WHERE state = 1 OR value <> ''";
        assert_eq!(world.place.number(kept).await, 0);
        let blocks = "SELECT count(*) FROM blocks WHERE state = 1";
        assert_eq!(world.place.number(blocks).await, 0);
    }

    async fn the_names_of_devices_and_how_groups_were_kept_are_erased(world: World) {
        let login = register(&world.engine, "alice").await.unwrap();
        let auth = world.engine.auth();
        let actor = auth.verify(&login.tokens.access_token).await.unwrap();
        let alice = Person {
            engine: world.engine.clone(),
            user: login.user,
            actor,
        };
        let group = alice.create_group(&[]).await;
        let mut change = SettingsChange::default();
        (change.pinned, change.archived) = (Some(true), Some(true));
        change.marked_unread = Some(true);
        alice.change_settings(group, change).await.unwrap();

        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;

        assert_eq!(world.place.count("sessions WHERE device IS NULL").await, 1);
        let kept = "SELECT count(*) FROM members \
                    WHERE pinned_at IS NOT NULL OR archived_at IS NOT NULL OR marked_unread";
        assert_eq!(world.place.number(kept).await, 0);
    }

    async fn a_device_hears_of_all_that_was_emptied_page_by_page(world: World) {
        let alice = world.person("alice").await;
        for n in 0..20 {
            let other = world.person(&format!("other-{n}")).await;
            alice.block(&other).await.unwrap();
            alice.keep(&format!("key-{n}"), Some("1")).await.unwrap();
        }
        let mut replica = Replica::default();
        replica.catch_up(&alice, SIZE).await;

        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;

        replica.catch_up(&alice, SIZE).await;
        replica.assert_equals_a_fresh_one(&alice).await;
        assert!(replica.blocks.values().all(|block| !block.blocked));
        assert!(replica.prefs.values().all(|pref| pref.value.is_none()));
    }

    async fn deleting_again_changes_nothing_or_adds_what_was_not_erased(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "hello").await;
        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;
        let head = async || {
            let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
            bootstrap.stamp.as_of
        };
        let before = head().await;

        delete(&alice, Erase::Nothing).await.unwrap();
        done(&world).await;
        assert_eq!(head().await, before);
        assert_eq!(bob.history(conversation.id).await[0].content, "hello");

        delete(&alice, Erase::Messages).await.unwrap();
        done(&world).await;
        let after = head().await;
        assert_eq!(after.get(), before.get() + 1);
        assert_eq!(bob.history(conversation.id).await[0].content, "");
        delete(&alice, Erase::Messages).await.unwrap();
        done(&world).await;
        assert_eq!(head().await, after);
    }

    async fn an_erasure_that_was_cut_off_goes_on_when_the_engine_opens(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for n in 0..40 {
            alice.send(conversation.id, &n.to_string()).await;
        }
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.erased_at_once_max = 1;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        delete(&alice.at(&engine), Erase::Messages).await.unwrap();
        engine.close().await;
        assert_eq!(world.place.count("erasures").await, 1);

        let engine = world.place.open().await;

        done(&world).await;
        let history = bob.at(&engine).history(conversation.id).await;
        assert_eq!(history.len(), 40);
        assert!(history.iter().all(|message| message.deleted_at.is_some()));
        engine.close().await;
    }

    // A row of the first one is damaged, so that it can not be read.
    async fn an_account_that_can_not_be_erased_holds_up_nobody_elses(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let carol = world.person("carol").await;
        let group = carol.create_group(&[&bob]).await;
        let damaged = alice.create_group(&[]).await;
        let damage = match world.place.kind() {
            tests::DatabaseKind::Sqlite => format!("x'{}'", damaged.as_uuid().simple()),
            tests::DatabaseKind::Postgres => format!("'{damaged}'"),
        };
        let damage = format!("UPDATE members SET role = 99 WHERE conversation_id = {damage}");
        world.place.execute(&damage).await;

        delete(&alice, Erase::Nothing).await.unwrap();
        delete(&bob, Erase::Nothing).await.unwrap();

        eventually("bob's is erased", async || {
            world.place.count("erasures").await == 1
        })
        .await;
        let left = roles(&carol, group).await;
        assert_eq!(left, [("carol".to_owned(), Role::Owner)]);
    }

    async fn a_deletion_that_nobody_waits_for_is_finished_at_once(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = bob.create_group(&[&alice]).await;
        let users = world.engine.users();

        let mut deleting = Box::pin(users.delete_me(&alice.actor, Erase::Nothing));
        assert!(futures_util::poll!(deleting.as_mut()).is_pending());
        drop(deleting);

        eventually("alice has left", async || {
            roles(&bob, group).await.len() == 1
        })
        .await;
        done(&world).await;
    }

    async fn whoever_listens_hears_of_each_step(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = bob.create_group(&[&alice]).await;
        let sent = alice.send(group, "hello").await;
        let mut events = bob.subscribe().await;

        delete(&alice, Erase::Messages).await.unwrap();

        let second = next(&mut events).await.unwrap().unwrap();
        assert!(
            matches!(second.kind, EventKind::MemberRemoved { user, .. } if user == alice.user.id),
            "{second:?}"
        );
        let third = next(&mut events).await.unwrap().unwrap();
        assert!(
            matches!(third.kind, EventKind::MessageDeleted { ref message, .. } if message.id == sent.id),
            "{third:?}"
        );
    }

    async fn only_somebody_who_exists_is_deleted(world: World) {
        let nobody = world.engine.trust(uuid::Uuid::now_v7().into());
        let users = world.engine.users();

        let refused = users.delete_me(&nobody, Erase::Messages).await;

        assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
        assert_eq!(world.place.count("erasures").await, 0);
    }
);
