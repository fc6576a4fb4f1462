//! Groups: who may do what, who sees what, and how much of it is unread.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join_all;
use messenger_core::conversations::{HistoryPolicy, NewGroup, Role, SettingsChange, Title};
use messenger_core::{
    ClientWriteId, ConversationId, Error, Limits, Position, Result, Seq, Timestamp, UserId,
};
use uuid::Uuid;

use crate::world::{Person, World, is_not_found, message, on_both_databases};

fn title(text: &str) -> Title {
    Title::parse(text, &Limits::default()).unwrap()
}

fn group_of(members: &[&Person], history: HistoryPolicy) -> NewGroup {
    NewGroup {
        title: title("Hikers"),
        members: members.iter().map(|person| person.user.id).collect(),
        history,
    }
}

fn write_id() -> ClientWriteId {
    ClientWriteId::parse(&Uuid::now_v7().to_string()).unwrap()
}

/// Alice, who owns a group; Bob, its admin; Carol, its member.
async fn hikers(world: &World) -> (Person, Person, Person, ConversationId) {
    let alice = world.person("alice").await;
    let (bob, carol) = (world.person("bob").await, world.person("carol").await);
    let group = alice.create_group(&[&bob, &carol]).await;
    alice.set_role(group, &bob, Role::Admin).await.unwrap();
    (alice, bob, carol, group)
}

/// The roles of the members, by their ids.
async fn roles(person: &Person, group: ConversationId) -> Vec<(UserId, Role)> {
    let conversations = person.engine.conversations();
    let membership = conversations
        .membership(&person.actor, group)
        .await
        .unwrap();
    let members = conversations.members(&membership, None, 500).await.unwrap();
    let members = members.iter();
    members
        .map(|member| (member.user.id, member.role))
        .collect()
}

async fn head(world: &World) -> i64 {
    world.place.number("SELECT pos FROM sync_heads").await
}

/// That as many are counted as there are.
async fn assert_counted(world: &World, group: ConversationId) {
    let joined = "SELECT count(*) FROM members m WHERE m.conversation_id = c.id AND m.state = 1";
    let wrong = format!("SELECT count(*) FROM conversations c WHERE member_count <> ({joined})");
    assert_eq!(world.place.number(&wrong).await, 0, "{group}");
}

on_both_databases!(
    async fn whoever_creates_a_group_owns_it_and_everybody_named_belongs_to_it(world: World) {
        let alice = world.person("alice").await;
        let (bob, carol) = (world.person("bob").await, world.person("carol").await);
        let conversations = world.engine.conversations();

        // Named twice, and naming oneself, counts once.
        let new = group_of(&[&bob, &carol, &bob, &alice], HistoryPolicy::All);
        let group = conversations.create_group(&alice.actor, new).await.unwrap();

        assert_eq!(group.title.as_deref(), Some("Hikers"));
        assert_eq!(group.kind.as_str(), "group");
        assert_eq!((group.member_count, group.is_large), (3, false));
        assert_eq!(group.own.role, Role::Owner);
        let of = |person: &Person, role| (person.user.id, role);
        let expected = [
            of(&alice, Role::Owner),
            of(&bob, Role::Member),
            of(&carol, Role::Member),
        ];
        assert_eq!(roles(&bob, group.id).await, expected);
        let listed = conversations.list(&carol.actor).await.unwrap();
        assert_eq!(listed[0].own.role, Role::Member);
        assert_eq!(listed[0].members, group.members);
        assert_eq!(bob.send(group.id, "hello").await.seq.get(), 1);
    }

    async fn a_group_with_somebody_who_does_not_exist_is_not_created(world: World) {
        let alice = world.person("alice").await;
        let mut new = group_of(&[], HistoryPolicy::All);
        new.members.push(Uuid::now_v7().into());

        let conversations = world.engine.conversations();
        let refused = conversations.create_group(&alice.actor, new).await;

        assert!(matches!(refused, Err(Error::UserNotFound)));
        assert_eq!(conversations.list(&alice.actor).await.unwrap(), []);
    }

    async fn a_write_that_is_repeated_under_its_id_takes_place_once(world: World) {
        let (alice, bob, carol, _) = hikers(&world).await;
        let (id, new) = (write_id(), group_of(&[&bob], HistoryPolicy::SinceJoin));
        let create = || async {
            let conversations = world.engine.conversations().once(id.clone());
            conversations.create_group(&alice.actor, new.clone()).await
        };
        let created: HashSet<_> = join_all((0..16).map(|_| create()))
            .await
            .into_iter()
            .map(|group| group.unwrap().id)
            .collect();
        assert_eq!(created.len(), 1);
        let group = create().await.unwrap();
        assert!(created.contains(&group.id));

        // Somebody else may have the same id; something else may not.
        let conversations = world.engine.conversations().once(id.clone());
        let other = conversations.create_group(&carol.actor, new.clone()).await;
        assert_ne!(other.unwrap().id, group.id);
        let mut another = new.clone();
        another.title = title("Cyclists");
        let refused = conversations.create_group(&alice.actor, another).await;
        assert!(matches!(refused, Err(Error::ClientWriteConflict)));

        // Repeated after others have undone it, it does not take place again.
        let add = world.engine.conversations().once(write_id());
        let users = [carol.user.id];
        add.add_members(&alice.actor, group.id, &users)
            .await
            .unwrap();
        carol.leave(group.id).await.unwrap();
        let before = head(&world).await;
        add.add_members(&alice.actor, group.id, &users)
            .await
            .unwrap();
        assert_eq!(head(&world).await, before);
        assert!(is_not_found(&carol.leave(group.id).await));
    }

    async fn who_may_do_what_goes_by_role(world: World) {
        let (alice, bob, carol, group) = hikers(&world).await;
        let (dave, eve) = (world.person("dave").await, world.person("eve").await);
        let forbidden = |outcome: Result<Position>| {
            assert!(matches!(outcome, Err(Error::Forbidden)), "{outcome:?}");
        };
        let before = head(&world).await;

        // A member may do nothing of it.
        forbidden(carol.rename(group, "Mine").await);
        forbidden(carol.add(group, &[&dave]).await);
        forbidden(carol.remove(group, &bob).await);
        forbidden(carol.set_role(group, &carol, Role::Owner).await);
        forbidden(carol.delete(group).await);
        // An admin may not touch those who are not below.
        forbidden(bob.remove(group, &alice).await);
        forbidden(bob.set_role(group, &carol, Role::Admin).await);
        forbidden(bob.set_role(group, &bob, Role::Member).await);
        forbidden(bob.delete(group).await);
        // A stranger can not tell that it exists.
        for outcome in [
            dave.rename(group, "Mine").await,
            dave.add(group, &[&dave]).await,
            dave.remove(group, &carol).await,
            dave.leave(group).await,
            dave.set_role(group, &dave, Role::Owner).await,
            dave.delete(group).await,
        ] {
            assert!(is_not_found(&outcome), "{outcome:?}");
        }
        assert_eq!(head(&world).await, before);

        bob.rename(group, "Walkers").await.unwrap();
        bob.add(group, &[&dave, &eve]).await.unwrap();
        bob.remove(group, &dave).await.unwrap();
        alice.set_role(group, &eve, Role::Admin).await.unwrap();
        forbidden(bob.remove(group, &eve).await);
        alice.remove(group, &eve).await.unwrap();
        let conversations = world.engine.conversations();
        let seen = conversations.get(&carol.actor, group).await.unwrap();
        assert_eq!(seen.title.as_deref(), Some("Walkers"));
        assert_eq!(seen.member_count, 3);
        assert_counted(&world, group).await;
    }

    async fn what_changes_nothing_takes_no_position(world: World) {
        let (alice, bob, carol, group) = hikers(&world).await;
        let sent = alice.send(group, "hello").await;
        bob.mark_read(group, sent.seq).await.unwrap();
        let nobody = Person {
            actor: world.engine.trust(Uuid::now_v7().into()),
            user: messenger_core::users::User {
                id: Uuid::now_v7().into(),
                ..carol.user.clone()
            },
            ..carol.clone()
        };
        let before = head(&world).await;

        alice.rename(group, "Hikers").await.unwrap();
        alice.add(group, &[&bob, &carol]).await.unwrap();
        alice.add(group, &[]).await.unwrap();
        alice.set_role(group, &bob, Role::Admin).await.unwrap();
        bob.mark_read(group, Seq::ZERO).await.unwrap();
        bob.mark_read(group, Seq::MAX).await.unwrap();
        bob.mark_delivered(group, sent.seq).await.unwrap();
        let nothing = SettingsChange {
            pinned: Some(false),
            marked_unread: Some(false),
            muted_until: Some(None),
            ..SettingsChange::default()
        };
        bob.change_settings(group, nothing).await.unwrap();
        bob.change_settings(group, SettingsChange::default())
            .await
            .unwrap();
        let gone = alice.remove(group, &nobody).await;
        assert!(matches!(gone, Err(Error::MemberNotFound)));
        let nobody = alice.add(group, &[&nobody]).await;
        assert!(matches!(nobody, Err(Error::UserNotFound)));

        assert_eq!(head(&world).await, before);
    }

    async fn the_last_owner_stays_until_nobody_else_is_there(world: World) {
        let (alice, bob, carol, group) = hikers(&world).await;
        let last = |outcome: Result<Position>| {
            assert!(matches!(outcome, Err(Error::LastOwner)), "{outcome:?}");
        };
        last(alice.leave(group).await);
        last(alice.set_role(group, &alice, Role::Admin).await);

        alice.set_role(group, &bob, Role::Owner).await.unwrap();
        bob.set_role(group, &alice, Role::Member).await.unwrap();
        last(bob.leave(group).await);
        alice.leave(group).await.unwrap();
        bob.remove(group, &carol).await.unwrap();
        last(bob.set_role(group, &bob, Role::Member).await);

        bob.leave(group).await.unwrap();
        assert!(is_not_found(&bob.leave(group).await));
        let empty = "SELECT count(*) FROM conversations WHERE member_count = 0 AND state = 1";
        assert_eq!(world.place.number(empty).await, 1);
    }

    async fn a_direct_conversation_is_no_group(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let (carol, id) = (world.person("carol").await, conversation.id);

        for outcome in [
            alice.rename(id, "Us").await,
            alice.add(id, &[&carol]).await,
            alice.remove(id, &bob).await,
            alice.leave(id).await,
            alice.set_role(id, &bob, Role::Owner).await,
            alice.delete(id).await,
        ] {
            assert!(matches!(outcome, Err(Error::NotAGroup)), "{outcome:?}");
        }
        let conversations = world.engine.conversations();
        assert_eq!(
            conversations.get(&alice.actor, id).await.unwrap(),
            conversation
        );
    }

    async fn a_deleted_group_is_like_one_that_never_was(world: World) {
        let (alice, bob, carol, group) = hikers(&world).await;
        alice.send(group, "hello").await;
        let conversations = world.engine.conversations();
        let batch = world.engine.users();
        let others = [bob.user.id];
        assert_eq!(batch.batch(&carol.actor, &others).await.unwrap().len(), 1);

        alice.delete(group).await.unwrap();
        let before = head(&world).await;

        for person in [&alice, &bob, &carol] {
            let actor = &person.actor;
            assert_eq!(conversations.list(actor).await.unwrap(), []);
            assert!(is_not_found(&conversations.get(actor, group).await));
            assert!(is_not_found(&conversations.membership(actor, group).await));
            assert!(is_not_found(
                &person.try_send(group, message("still?")).await
            ));
            assert!(is_not_found(&person.mark_read(group, Seq::MAX).await));
            assert!(is_not_found(&person.mark_delivered(group, Seq::MAX).await));
            let settings = SettingsChange {
                pinned: Some(true),
                ..SettingsChange::default()
            };
            assert!(is_not_found(&person.change_settings(group, settings).await));
            assert!(is_not_found(&person.rename(group, "Walkers").await));
            assert!(is_not_found(&person.add(group, &[&bob]).await));
            assert!(is_not_found(&person.remove(group, &bob).await));
            assert!(is_not_found(&person.leave(group).await));
            assert!(is_not_found(
                &person.set_role(group, &bob, Role::Owner).await
            ));
            assert!(is_not_found(&person.delete(group).await));
            let bootstrap = world.engine.sync().bootstrap(actor).await.unwrap();
            assert_eq!(
                (bootstrap.conversations, bootstrap.recent_messages),
                (vec![], vec![])
            );
            let none = BTreeMap::from([(group, Seq::ZERO)]);
            let changes = world
                .engine
                .sync()
                .changes_after(actor, &none)
                .await
                .unwrap();
            assert_eq!((changes.conversations, changes.messages), (vec![], vec![]));
        }
        assert_eq!(batch.batch(&carol.actor, &others).await.unwrap(), []);
        assert_eq!(head(&world).await, before);
    }

    async fn who_was_removed_sees_nothing_and_who_comes_back_what_the_policy_shows(world: World) {
        let alice = world.person("alice").await;
        let bob = world.person("bob").await;
        let conversations = world.engine.conversations();
        for policy in [HistoryPolicy::All, HistoryPolicy::SinceJoin] {
            let new = group_of(&[&bob], policy);
            let group = conversations
                .create_group(&alice.actor, new)
                .await
                .unwrap()
                .id;
            alice.send(group, "one").await;
            alice.remove(group, &bob).await.unwrap();
            alice.send(group, "two").await;
            assert!(is_not_found(
                &conversations.membership(&bob.actor, group).await
            ));
            assert!(is_not_found(
                &bob.try_send(group, message("let me in")).await
            ));

            alice.add(group, &[&bob]).await.unwrap();
            let seen = conversations.get(&bob.actor, group).await.unwrap();
            assert_eq!(seen.own.unread_count, 0);
            assert_eq!(seen.own.last_read.get(), 2);
            let hides = policy == HistoryPolicy::SinceJoin;
            assert_eq!(seen.last_message_preview.is_none(), hides);
            assert_eq!(seen.last_message_at.is_none(), hides);
            alice.send(group, "three").await;

            let texts = bob.history(group).await;
            let texts: Vec<_> = texts
                .iter()
                .map(|message| message.content.as_str())
                .collect();
            let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
            let synced = bootstrap.recent_messages.iter();
            let synced = synced.filter(|message| message.conversation_id == group);
            let sync = world.engine.sync();
            let changes = sync.changes_after(&bob.actor, &BTreeMap::new()).await;
            let changes = changes.unwrap();
            let changed = changes.messages.iter();
            let changed = changed.filter(|message| message.conversation_id == group);
            let expected: &[&str] = if hides {
                &["three"]
            } else {
                &["one", "two", "three"]
            };
            assert_eq!(texts, expected);
            assert_eq!(synced.count(), expected.len());
            assert_eq!(changed.count(), expected.len());
            let seen = conversations.get(&bob.actor, group).await.unwrap();
            assert_eq!(seen.own.unread_count, 1);
            assert_eq!(seen.last_message_preview.as_deref(), Some("three"));
        }
    }

    async fn one_keeps_a_conversation_as_one_likes_and_nobody_else_sees_it(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let until = Timestamp::from_micros(4_102_444_800_000_000);
        let all = SettingsChange {
            muted_until: Some(Some(until)),
            pinned: Some(true),
            archived: Some(true),
            marked_unread: Some(true),
        };
        let conversations = world.engine.conversations();
        let others = conversations
            .get(&bob.actor, conversation.id)
            .await
            .unwrap();

        alice.change_settings(conversation.id, all).await.unwrap();
        let kept = conversations
            .get(&alice.actor, conversation.id)
            .await
            .unwrap();
        assert_eq!(kept.own.muted_until, Some(until));
        assert!(kept.own.pinned_at.is_some() && kept.own.archived_at.is_some());
        assert!(kept.own.marked_unread && kept.own.version > conversation.own.version);
        assert_eq!(kept.version, conversation.version);

        let less = SettingsChange {
            muted_until: Some(None),
            archived: Some(false),
            ..SettingsChange::default()
        };
        alice.change_settings(conversation.id, less).await.unwrap();
        let read = alice.mark_read(conversation.id, Seq::MAX).await.unwrap();
        let after = conversations
            .get(&alice.actor, conversation.id)
            .await
            .unwrap();
        assert_eq!((after.own.muted_until, after.own.archived_at), (None, None));
        assert_eq!(after.own.pinned_at, kept.own.pinned_at);
        // Nothing was there to read, but it no longer is to look unread.
        assert!(!after.own.marked_unread);
        assert_eq!(after.own.version, read.version);
        let same = conversations
            .get(&bob.actor, conversation.id)
            .await
            .unwrap();
        assert_eq!(same, others);
    }

    async fn a_marker_goes_forward_and_counts_what_is_behind_it(world: World) {
        let (alice, bob, _, group) = hikers(&world).await;
        for n in 0..10 {
            alice.send(group, &n.to_string()).await;
        }
        let seq = |n| Seq::new(n).unwrap();

        let delivered = bob.mark_delivered(group, seq(7)).await.unwrap();
        assert_eq!(
            (delivered.last_read, delivered.last_delivered),
            (Seq::ZERO, seq(7))
        );
        assert_eq!(delivered.unread_count, 10);
        let read = bob.mark_read(group, seq(4)).await.unwrap();
        assert_eq!((read.last_read, read.last_delivered), (seq(4), seq(7)));
        assert_eq!(read.unread_count, 6);
        assert_eq!(bob.mark_read(group, seq(2)).await.unwrap(), read);
        let read = bob.mark_read(group, seq(8)).await.unwrap();
        assert_eq!((read.last_read, read.last_delivered), (seq(8), seq(8)));
        assert_eq!(read.unread_count, 2);
        let read = bob.mark_read(group, Seq::MAX).await.unwrap();
        assert_eq!((read.last_read, read.unread_count), (seq(10), 0));

        // Whoever sends has read.
        bob.send(group, "and I").await;
        let conversations = world.engine.conversations();
        let own = conversations.get(&bob.actor, group).await.unwrap().own;
        assert_eq!((own.last_read, own.unread_count), (seq(11), 0));
        assert_eq!(own.last_delivered, seq(11));
    }

    async fn unread_messages_are_counted_exactly_after_any_history(world: World) {
        let seed = std::env::var("UNREAD_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("UNREAD_SEED={seed}");
        let mut random = seed;
        let mut below = |most: usize| {
            // SplitMix64.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = random;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((word ^ (word >> 31)) % most as u64).unwrap()
        };
        let owner = world.person("owner").await;
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol"] {
            people.push(world.person(name).await);
        }
        let conversations = world.engine.conversations();
        for policy in [HistoryPolicy::All, HistoryPolicy::SinceJoin] {
            let new = group_of(&[&people[0]], policy);
            let group = conversations
                .create_group(&owner.actor, new)
                .await
                .unwrap()
                .id;
            let mut last = 0;
            for _ in 0..120 {
                let person = people[below(people.len())].clone();
                match below(8) {
                    0 | 1 => {
                        last = owner.send(group, "hello").await.seq.get();
                    }
                    2 => {
                        if let Ok(sent) = person.try_send(group, message("me too")).await {
                            last = sent.message.seq.get();
                        }
                    }
                    3 if last > 0 => {
                        // As a deletion leaves it, in a conversation of its own.
                        let seq = 1 + below(usize::try_from(last).unwrap());
                        let sql = format!(
                            "UPDATE messages SET deleted_at = 1 WHERE seq = {seq} AND \
                             conversation_id IN (SELECT conversation_id FROM members \
                             WHERE joined_pos = {} AND role = 3)",
                            conversations
                                .get(&owner.actor, group)
                                .await
                                .unwrap()
                                .own
                                .membership_version
                        );
                        world.place.execute(&sql).await;
                    }
                    4 => drop(owner.add(group, &[&person]).await.unwrap()),
                    5 => drop(person.leave(group).await),
                    // Several at once, so that they share a transaction.
                    _ => {
                        let marks = people.iter().flat_map(|person| {
                            let seqs = [below(10), below(30)]
                                .map(|back| Seq::new((last - back as i64).max(0)).unwrap());
                            seqs.map(|seq| person.mark_read(group, seq))
                        });
                        let sends = [owner.try_send(group, message("meanwhile"))];
                        let (_, sent) = futures_util::join!(join_all(marks), join_all(sends));
                        for sent in sent {
                            last = sent.unwrap().message.seq.get();
                        }
                    }
                }
                for person in &people {
                    let Ok(seen) = conversations.get(&person.actor, group).await else {
                        continue;
                    };
                    let history = person.history(group).await;
                    let unread = history.iter().filter(|message| {
                        message.seq > seen.own.last_read
                            && message.sender_id != person.user.id
                            && message.deleted_at.is_none()
                    });
                    let unread = unread.count() as u64;
                    assert_eq!(seen.own.unread_count, unread, "listed");
                    let marked = person.mark_read(group, Seq::ZERO).await.unwrap();
                    assert_eq!(marked.unread_count, unread, "marked");
                }
            }
            assert_counted(&world, group).await;
        }
    }
);
