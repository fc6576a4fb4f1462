//! Sync by cursor, rule by rule.

use std::time::Duration;

use futures_util::StreamExt;
use messenger_core::conversations::{HistoryPolicy, NewGroup, Title};
use messenger_core::events::{Resumed, Update};
use messenger_core::messages::MessageBody;
use messenger_core::sync::{Cursor, Pull};
use messenger_core::{Error, Limits, Position, ResyncReason, Seq};
use tests::soon;

use crate::histories::Random;
use crate::replica::{Replica, Size, around};
use crate::world::{Person, message, on_both_databases};

on_both_databases!(
    async fn a_first_page_has_the_newest_conversations_and_the_rest_follows_once(world: World) {
        let alice = world.person("alice").await;
        let mut opened = Vec::new();
        for n in 0..50 {
            let other = world.person(&format!("other-{n}")).await;
            let conversation = alice.open_direct(&other).await.id;
            alice.send(conversation, "hello").await;
            opened.push(conversation);
        }
        // An old one is the newest again.
        alice.send(opened[0], "again").await;

        let mut pull = Pull {
            limit: 20,
            ..Pull::default()
        };
        let mut seen = Vec::new();
        loop {
            let pulled = world.engine.sync().pull(&alice.actor, &pull).await.unwrap();
            seen.extend(
                pulled
                    .page
                    .conversations
                    .iter()
                    .map(|it| it.conversation.id),
            );
            pull.cursor = Some(pulled.next);
            if !pulled.page.has_more {
                break;
            }
        }

        assert_eq!(seen[0], opened[0]);
        assert_eq!(seen[1], opened[49]);
        seen.sort();
        opened.sort();
        assert_eq!(seen, opened);
    }

    async fn a_bootstrap_gives_the_cursor_of_its_own_moment(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "before").await;
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        alice.send(conversation.id, "after").await;

        let pull = Pull {
            cursor: Some(bootstrap.next),
            ..Pull::default()
        };
        let pulled = world.engine.sync().pull(&bob.actor, &pull).await.unwrap();

        let texts: Vec<_> = pulled
            .page
            .messages
            .iter()
            .map(|it| it.content.as_str())
            .collect();
        assert_eq!(texts, ["after"]);
        assert!(!pulled.page.has_more);
        assert!(!pulled.page.conversations[0].is_initial);
        assert!(!pulled.page.conversations[0].lists_members);
    }

    async fn a_cursor_of_somebody_else_or_of_no_one_is_refused(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let alices = world
            .engine
            .sync()
            .bootstrap(&alice.actor)
            .await
            .unwrap()
            .next;

        for cursor in [
            alices,
            Cursor::parse("").unwrap(),
            Cursor::parse("no cursor").unwrap(),
        ] {
            let pull = Pull {
                cursor: Some(cursor),
                ..Pull::default()
            };
            let refused = world.engine.sync().pull(&bob.actor, &pull).await;
            assert!(
                matches!(
                    refused,
                    Err(Error::ResyncRequired(ResyncReason::CursorMalformed))
                ),
                "{refused:?}"
            );
        }
    }

    async fn a_cursor_survives_a_restart_and_a_position_from_the_future_does_not(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        alice.send(conversation.id, "missed").await;
        world.engine.close().await;
        let engine = world.place.open().await;
        let bob = bob.at(&engine);

        let mut pull = Pull {
            cursor: Some(bootstrap.next),
            ..Pull::default()
        };
        pull.seen = Some(bootstrap.stamp.as_of);
        let pulled = engine.sync().pull(&bob.actor, &pull).await.unwrap();
        assert_eq!(pulled.page.messages.len(), 1);

        pull.seen = Position::new(pulled.page.stamp.as_of.get() + 1);
        let refused = engine.sync().pull(&bob.actor, &pull).await;
        assert!(
            matches!(
                refused,
                Err(Error::ResyncRequired(ResyncReason::HistoryDiverged))
            ),
            "{refused:?}"
        );
    }

    async fn a_pull_that_waits_answers_as_soon_as_there_is_something(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        let mut pull = Pull {
            cursor: Some(bootstrap.next),
            wait: Duration::from_millis(50),
            ..Pull::default()
        };
        let idle = world.engine.sync().pull(&bob.actor, &pull).await.unwrap();
        assert!(idle.page.is_empty() && !idle.page.has_more);

        pull.cursor = Some(idle.next);
        pull.wait = Duration::from_secs(25);
        let sync = world.engine.sync();
        let waiting = sync.pull(&bob.actor, &pull);
        let (pulled, _) =
            futures_util::future::join(waiting, alice.send(conversation.id, "now")).await;

        assert_eq!(pulled.unwrap().page.messages[0].content, "now");
    }

    async fn pages_are_bounded_in_bytes(world: World) {
        let mut limits = Limits::default();
        limits.page_bytes_max = 10_000;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await.id;
        let mut pull = Pull {
            cursor: Some(engine.sync().bootstrap(&bob.actor).await.unwrap().next),
            ..Pull::default()
        };
        for _ in 0..30 {
            alice.send(conversation, &"x".repeat(2_000)).await;
        }

        let (mut pages, mut messages) = (0, 0);
        loop {
            let pulled = engine.sync().pull(&bob.actor, &pull).await.unwrap();
            assert!(pulled.page.messages.len() <= 5);
            messages += pulled.page.messages.len();
            pages += 1;
            pull.cursor = Some(pulled.next);
            if !pulled.page.has_more {
                break;
            }
        }
        assert_eq!((pages, messages), (7, 30));
    }

    async fn a_run_ends_though_somebody_leaves_and_comes_back_in_the_middle(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(alice.send(group, "one").await);
        }
        let size = Size {
            limit: 2,
            timeline: 5,
        };
        let mut replica = Replica::default();
        replica.catch_up(&bob, size).await;
        for message in &sent {
            let body = MessageBody::parse("two", world.engine.limits()).unwrap();
            let messages = world.engine.messages();
            let edited = messages.edit(&alice.actor, group, message.id, body).await;
            edited.unwrap();
        }
        assert!(replica.pull(&bob, size).await);

        alice.remove(group, &bob).await.unwrap();
        alice.add(group, &[&bob]).await.unwrap();

        assert!(replica.catch_up(&bob, size).await < 10);
        replica.assert_equals_a_fresh_one(&bob).await;
    }

    async fn markers_count_towards_the_bytes_of_a_page(world: World) {
        let mut limits = Limits::default();
        limits.page_bytes_max = 20_000;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let mut people = Vec::new();
        for n in 0..25 {
            people.push(Person::join(&engine, &format!("person-{n}")).await);
        }
        let others: Vec<&Person> = people[1..].iter().collect();
        let mut groups = Vec::new();
        for _ in 0..12 {
            let group = people[0].create_group(&others).await;
            people[0].send(group, "hello").await;
            groups.push(group);
        }
        let mut pull = Pull {
            cursor: Some(
                engine
                    .sync()
                    .bootstrap(&people[0].actor)
                    .await
                    .unwrap()
                    .next,
            ),
            ..Pull::default()
        };
        for group in &groups {
            for person in &people[1..] {
                person
                    .mark_read(*group, Seq::new(1).unwrap())
                    .await
                    .unwrap();
            }
        }

        let (mut most, mut all) = (0, 0);
        loop {
            let pulled = engine.sync().pull(&people[0].actor, &pull).await.unwrap();
            most = most.max(pulled.page.markers.len());
            all += pulled.page.markers.len();
            pull.cursor = Some(pulled.next);
            if !pulled.page.has_more {
                break;
            }
        }
        assert_eq!(all, 12 * 24);
        // A marker has about 150 bytes on the wire.
        assert!(most * 150 <= 2 * 20_000, "{most} markers on one page");
    }

    // They have no messages, but members and markers.
    async fn conversations_without_messages_count_towards_the_bytes_of_a_page(world: World) {
        let mut limits = Limits::default();
        limits.page_bytes_max = 30_000;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let mut people = Vec::new();
        for n in 0..25 {
            people.push(Person::join(&engine, &format!("person-{n}")).await);
        }
        let others: Vec<&Person> = people[1..].iter().collect();
        for _ in 0..40 {
            people[0].create_group(&others).await;
        }

        let (mut pull, mut seen) = (Pull::default(), Vec::new());
        loop {
            let pulled = engine.sync().pull(&people[0].actor, &pull).await.unwrap();
            let groups = pulled.page.conversations.iter();
            let groups: Vec<_> = groups.map(|it| it.conversation.id).collect();
            // One has about 14,500 bytes.
            assert!(groups.len() <= 2, "{} on one page", groups.len());
            seen.extend(groups);
            pull.cursor = Some(pulled.next);
            if !pulled.page.has_more {
                break;
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 40);
    }

    async fn a_first_sync_is_right_whatever_happens_between_its_pages(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let mut groups = Vec::new();
        for _ in 0..45 {
            let group = alice.create_group(&[&bob]).await;
            alice.send(group, "hello").await;
            groups.push(group);
        }
        for (n, size) in [(3, 1), (1, 1), (9, 5)].into_iter().enumerate() {
            let size = Size {
                limit: size.0,
                timeline: size.1,
            };
            let mut random = Random(n as u64);
            let mut replica = Replica::default();
            for _ in 0..80 {
                replica.pull(&bob, size).await;
                let group = *random.of(&groups);
                let _ = match random.below(6) {
                    0 => alice.remove(group, &bob).await.map(drop),
                    1 => alice.add(group, &[&bob]).await.map(drop),
                    2 => alice
                        .rename(group, &format!("name {}", random.0))
                        .await
                        .map(drop),
                    3 if random.below(10) == 0 => alice.delete(group).await.map(drop),
                    _ => alice.try_send(group, message("more")).await.map(drop),
                };
            }
            replica.catch_up(&bob, size).await;
            replica.assert_equals_a_fresh_one(&bob).await;
        }
    }

    async fn a_run_keeps_the_timeline_limit_that_it_began_with(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let mut groups = Vec::new();
        for _ in 0..3 {
            groups.push(alice.create_group(&[&bob]).await);
        }
        let mut pull = Pull {
            cursor: Some(
                world
                    .engine
                    .sync()
                    .bootstrap(&bob.actor)
                    .await
                    .unwrap()
                    .next,
            ),
            limit: 3,
            timeline_limit: 2,
            ..Pull::default()
        };
        for group in &groups {
            for _ in 0..6 {
                alice.send(*group, "hello").await;
            }
        }

        let mut messages = 0;
        loop {
            let pulled = world.engine.sync().pull(&bob.actor, &pull).await.unwrap();
            messages += pulled.page.messages.len();
            for gap in &pulled.page.gaps {
                assert_eq!((gap.first.get(), gap.last.get()), (1, 4));
            }
            pull.cursor = Some(pulled.next);
            pull.timeline_limit = 200;
            if !pulled.page.has_more {
                break;
            }
        }
        assert_eq!(messages, 3 * 2);
    }

    async fn who_comes_back_unnoticed_to_a_group_keeps_nothing_of_its_past(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let new = NewGroup {
            title: Title::parse("Hikers", world.engine.limits()).unwrap(),
            members: vec![bob.user.id],
            history: HistoryPolicy::SinceJoin,
        };
        let conversations = world.engine.conversations();
        let group = conversations.create_group(&alice.actor, new).await;
        let group = group.unwrap().id;
        alice.send(group, "before").await;
        let size = Size {
            limit: 5,
            timeline: 3,
        };
        let mut replica = Replica::default();
        replica.catch_up(&bob, size).await;

        alice.remove(group, &bob).await.unwrap();
        alice.add(group, &[&bob]).await.unwrap();
        alice.send(group, "after").await;

        replica.catch_up(&bob, size).await;
        replica.assert_equals_a_fresh_one(&bob).await;
    }

    async fn what_was_read_before_a_gap_does_not_fill_it(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let size = Size {
            limit: 5,
            timeline: 2,
        };
        let mut replica = Replica::default();
        replica.catch_up(&bob, size).await;
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(alice.send(conversation.id, "one").await);
        }
        let conversations = world.engine.conversations();
        let membership = conversations.membership(&bob.actor, conversation.id).await;
        let messages = world.engine.messages();
        let early = messages.history(&membership.unwrap(), around(2), 2).await;
        let body = MessageBody::parse("two", world.engine.limits()).unwrap();
        let edited = messages
            .edit(&alice.actor, conversation.id, sent[1].id, body)
            .await;
        edited.unwrap();

        replica.catch_up(&bob, size).await;
        replica.fill(conversation.id, &early.unwrap());

        replica.assert_equals_a_fresh_one(&bob).await;
    }

    async fn changes_of_one_conversation_that_fill_several_pages_all_arrive(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut sent = Vec::new();
        for _ in 0..9 {
            sent.push(alice.send(conversation.id, "one").await);
        }
        for limit in [1, 2, 3] {
            let size = Size { limit, timeline: 9 };
            let mut replica = Replica::default();
            replica.catch_up(&bob, size).await;
            for message in &sent {
                let text = format!("edited before {limit}");
                let body = MessageBody::parse(text, world.engine.limits()).unwrap();
                let messages = world.engine.messages();
                let edited = messages.edit(&alice.actor, conversation.id, message.id, body);
                edited.await.unwrap();
            }
            replica.catch_up(&bob, size).await;
            replica.assert_equals_a_fresh_one(&bob).await;
        }
    }

    async fn a_gap_begins_after_what_the_client_has(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for _ in 0..10 {
            alice.send(conversation.id, "known").await;
        }
        for timeline in [2, 6] {
            let mut pull = Pull {
                timeline_limit: timeline,
                ..Pull::default()
            };
            let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
            let known = bootstrap.conversations[0].last_seq.get();
            pull.cursor = Some(bootstrap.next);
            for _ in 0..timeline {
                alice.send(conversation.id, "new").await;
            }

            let page = world
                .engine
                .sync()
                .pull(&bob.actor, &pull)
                .await
                .unwrap()
                .page;
            assert_eq!(
                (page.messages.len(), page.gaps),
                (timeline as usize, vec![])
            );

            alice.send(conversation.id, "one more").await;
            let page = world
                .engine
                .sync()
                .pull(&bob.actor, &pull)
                .await
                .unwrap()
                .page;
            let gaps = page.gaps.iter().map(|it| (it.first.get(), it.last.get()));
            assert_eq!(gaps.collect::<Vec<_>>(), [(known + 1, known + 1)]);
            assert_eq!(page.messages.len(), timeline as usize);
        }
    }

    async fn a_large_group_has_no_markers_on_a_page(world: World) {
        let mut limits = Limits::default();
        limits.small_conversation_members_max = 2;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let (bob, carol) = (
            Person::join(&engine, "bob").await,
            Person::join(&engine, "carol").await,
        );
        let group = alice.create_group(&[&bob, &carol]).await;
        alice.send(group, "hello").await;
        let first = engine
            .sync()
            .pull(&bob.actor, &Pull::default())
            .await
            .unwrap();
        assert_eq!(first.page.markers, []);
        let pull = Pull {
            cursor: Some(first.next),
            ..Pull::default()
        };

        let one = Seq::new(1).unwrap();
        carol.mark_read(group, one).await.unwrap();
        let page = engine.sync().pull(&bob.actor, &pull).await.unwrap().page;
        assert!(page.is_empty(), "{page:?}");

        bob.mark_read(group, one).await.unwrap();
        let page = engine.sync().pull(&bob.actor, &pull).await.unwrap().page;
        assert_eq!(page.markers, []);
        assert_eq!(page.conversations[0].conversation.own.last_read, one);
    }

    async fn what_was_compacted_is_no_place_to_go_on_from(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let old = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        alice.send(conversation.id, "hello").await;
        let new = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        let horizon = new.stamp.as_of.get();

        let horizon = format!("UPDATE sync_heads SET horizon_pos = {horizon}");
        world.place.execute(&horizon).await;

        let pull = async |cursor| {
            let pull = Pull {
                cursor,
                ..Pull::default()
            };
            world.engine.sync().pull(&bob.actor, &pull).await
        };
        let refused = pull(Some(old.next)).await;
        assert!(
            matches!(refused, Err(Error::ResyncRequired(ResyncReason::Compacted))),
            "{refused:?}"
        );
        assert!(pull(Some(new.next)).await.unwrap().page.is_empty());
        assert_eq!(pull(None).await.unwrap().page.messages.len(), 1);
    }

    async fn a_position_counts_if_it_was_issued_in_this_history(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "hello").await;
        let stamp = world
            .engine
            .sync()
            .bootstrap(&bob.actor)
            .await
            .unwrap()
            .stamp;
        let (first, last) = (stamp.fence.get(), stamp.as_of.get());
        world.engine.close().await;
        if world.place.kind() == tests::DatabaseKind::Postgres {
            let before = "UPDATE sync_heads SET incarnation = 'before'";
            world.place.execute(before).await;
        }
        let engine = world.place.open().await;
        let bob = bob.at(&engine);
        let begun = engine.sync().bootstrap(&bob.actor).await.unwrap();
        let next = begun.stamp;
        assert!(next.fence.get() > last);
        let is_known = async |position| {
            let pull = Pull {
                cursor: Some(begun.next.clone()),
                seen: Position::new(position),
                ..Pull::default()
            };
            match engine.sync().pull(&bob.actor, &pull).await {
                Ok(_) => true,
                Err(Error::ResyncRequired(ResyncReason::HistoryDiverged)) => false,
                Err(error) => panic!("{error:?}"),
            }
        };

        for (position, known) in [
            (0, true),
            (first - 1, false),
            (first, true),
            (last, true),
            (last + 1, false),
            (next.fence.get() - 1, false),
            (next.fence.get(), true),
            (next.as_of.get(), true),
            (next.as_of.get() + 1, false),
        ] {
            assert_eq!(is_known(position).await, known, "{position} of {stamp:?}");
        }

        // Whoever restores by command declares all that was before void.
        let newest = format!(
            "UPDATE sync_fences SET clean = {} WHERE start_pos = {}",
            match world.place.kind() {
                tests::DatabaseKind::Sqlite => "0",
                tests::DatabaseKind::Postgres => "false",
            },
            next.fence.get()
        );
        world.place.execute(&newest).await;
        assert!(!is_known(last).await);
        assert!(is_known(next.fence.get()).await);
    }

    async fn what_is_refused_or_is_so_already_takes_no_position(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let group = alice.create_group(&[&bob]).await;
        let sent = alice.send(conversation.id, "hello").await;
        bob.mark_read(conversation.id, sent.seq).await.unwrap();
        let dump = async || {
            let pos = world.place.number("SELECT pos FROM sync_heads").await;
            let events = world.place.count("events").await;
            (pos, events)
        };
        let before = dump().await;

        // Refused.
        assert!(carol.try_send(group, message("hello")).await.is_err());
        assert!(bob.remove(group, &alice).await.is_err());
        assert!(bob.rename(group, "Bob's").await.is_err());
        // So already.
        bob.mark_read(conversation.id, sent.seq).await.unwrap();
        alice.add(group, &[&bob]).await.unwrap();
        alice.rename(group, "Hikers").await.unwrap();
        let again = crate::world::message_as(sent.client_message_id.as_str(), "hello");
        assert!(
            !alice
                .try_send(conversation.id, again)
                .await
                .unwrap()
                .created
        );
        let body = MessageBody::parse("hello", world.engine.limits()).unwrap();
        let messages = world.engine.messages();
        let edited = messages.edit(&alice.actor, conversation.id, sent.id, body);
        assert_eq!(edited.await.unwrap().message, sent);

        assert_eq!(dump().await, before);
    }

    async fn a_run_without_writers_tells_each_row_once_in_its_last_form(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let mut groups = Vec::new();
        for _ in 0..3 {
            groups.push(alice.create_group(&[&bob]).await);
        }
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        for group in &groups {
            let sent = alice.send(*group, "one").await;
            for text in ["two", "three"] {
                alice.send(*group, text).await;
                let body = MessageBody::parse(format!("edited: {text}"), world.engine.limits());
                let messages = world.engine.messages();
                let edited = messages.edit(&alice.actor, *group, sent.id, body.unwrap());
                edited.await.unwrap();
            }
        }

        for limit in [1, 2, 3, 5, 9, 200] {
            let mut pull = Pull {
                cursor: Some(bootstrap.next.clone()),
                limit,
                ..Pull::default()
            };
            let (mut conversations, mut texts) = (Vec::new(), Vec::new());
            loop {
                let pulled = world.engine.sync().pull(&bob.actor, &pull).await.unwrap();
                let page = pulled.page;
                conversations.extend(page.conversations.iter().map(|it| it.conversation.id));
                texts.extend(
                    page.messages
                        .into_iter()
                        .map(|it| (it.conversation_id, it.content)),
                );
                pull.cursor = Some(pulled.next);
                if !page.has_more {
                    break;
                }
            }
            let expected = groups.iter().flat_map(|group| {
                ["two", "edited: three", "three"].map(|text| (*group, text.to_owned()))
            });
            let (mut expected, mut texts) = (expected.collect::<Vec<_>>(), texts);
            expected.sort();
            texts.sort();
            assert_eq!(texts, expected, "in pages of {limit}");
            assert_eq!(conversations, groups, "in pages of {limit}");
        }
    }

    // The message is not told to them, but its conversation has a new version, which nothing that
    // comes later would tell.
    async fn who_listens_hears_of_a_conversation_whose_last_message_they_may_not_see(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let new = NewGroup {
            title: Title::parse("Hikers", world.engine.limits()).unwrap(),
            members: Vec::new(),
            history: HistoryPolicy::SinceJoin,
        };
        let conversations = world.engine.conversations();
        let group = conversations.create_group(&alice.actor, new).await;
        let group = group.unwrap().id;
        let before = alice.send(group, "before").await;
        alice.add(group, &[&bob]).await.unwrap();
        let mut stream = world.engine.events().resume(&bob.actor, Pull::default());
        let live = async |stream: &mut Resumed| loop {
            match soon("it is live", stream.next()).await.unwrap().unwrap() {
                Update::Live { .. } => break,
                Update::Page { page, .. } => assert_eq!(page.messages, []),
                other => panic!("{other:?}"),
            }
        };
        live(&mut stream).await;

        let body = MessageBody::parse("edited", world.engine.limits()).unwrap();
        let messages = world.engine.messages();
        let edited = messages.edit(&alice.actor, group, before.id, body).await;

        match soon("a page", stream.next()).await.unwrap().unwrap() {
            Update::Page { page, .. } => {
                let told = &page.conversations[0].conversation;
                assert_eq!(told.version, edited.unwrap().message.version);
                assert_eq!(told.last_message_preview, None);
                assert_eq!(page.messages, []);
            }
            other => panic!("{other:?}"),
        }
        live(&mut stream).await;
    }
);
