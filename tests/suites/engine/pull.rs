//! Sync by cursor: whoever was away has, at the end, what somebody has who begins.
//!
//! `SYNC_HISTORIES` sets how many random histories are tried on each database (12, and 6 that listen), `SYNC_SEED`
//! what they come from; the seed of each is in its failure.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use messenger_core::conversations::{HistoryPolicy, NewGroup, Role, SettingsChange, Title};
use messenger_core::events::{Resumed, Update};
use messenger_core::messages::{Message, MessageBody, Reaction};
use messenger_core::sync::{Cursor, Pull};
use messenger_core::users::{DisplayName, HostUser, PrefKey, PrefValue};
use messenger_core::{ConversationId, Error, Limits, MessengerEngine, Position, ResyncReason, Seq};
use tests::soon;
use tokio::time::timeout;

use tests::DatabaseKind;

use crate::replica::{Replica, Size, around};
use crate::world::{Person, World, message, on_both_databases};

/// A small generator, so that a failure can be repeated by its seed.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// People who do random things.
struct History {
    random: Random,
    people: Vec<Person>,
    groups: Vec<ConversationId>,
    sent: Vec<Message>,
    names: usize,
}

impl History {
    async fn begin(engine: &MessengerEngine, seed: u64) -> Self {
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol", "dave"] {
            people.push(Person::join(engine, name).await);
        }
        let mut groups = Vec::new();
        let direct = people[0].open_direct(&people[1]).await;
        groups.push(direct.id);
        Self {
            random: Random(seed),
            people,
            groups,
            sent: Vec::new(),
            names: 0,
        }
    }

    /// One random change. Most that the rules refuse are harmless, and part of the history.
    async fn step(&mut self) {
        self.names += 1;
        let what = self.random.below(100);
        let who = self.random.of(&self.people).clone();
        let other = self.random.of(&self.people).clone();
        let group = *self.random.of(&self.groups);
        let conversations = who.engine.conversations();
        let name = format!("name {}", self.names);
        match what {
            0..40 => {
                if let Ok(sent) = who.try_send(group, message(&name)).await {
                    self.sent.push(sent.message);
                }
            }
            40..58 if !self.sent.is_empty() => {
                let of = self.random.of(&self.sent).clone();
                let sender = self.people.iter().find(|it| it.user.id == of.sender_id);
                let sender = sender.unwrap();
                let messages = sender.engine.messages();
                if what < 48 {
                    let body = MessageBody::parse(name, sender.engine.limits());
                    let _ = messages
                        .edit(&sender.actor, of.conversation_id, of.id, body.unwrap())
                        .await;
                } else if what < 52 {
                    let _ = messages
                        .delete(&sender.actor, of.conversation_id, of.id)
                        .await;
                } else {
                    let emoji = Reaction::parse(
                        self.random.of::<&str>(&["👍", "🎉", "x"]),
                        who.engine.limits(),
                    )
                    .unwrap();
                    let place = (of.conversation_id, of.id);
                    let messages = who.engine.messages();
                    let _ = if what < 56 {
                        messages.react(&who.actor, place.0, place.1, emoji).await
                    } else {
                        messages.unreact(&who.actor, place.0, place.1, emoji).await
                    };
                }
            }
            58..66 => {
                let seq = Seq::new(self.random.below(12) as i64).unwrap();
                let _ = if what < 63 {
                    conversations.mark_read(&who.actor, group, seq).await
                } else {
                    conversations.mark_delivered(&who.actor, group, seq).await
                };
            }
            66..69 => {
                let title = Title::parse(name, who.engine.limits()).unwrap();
                let _ = conversations.rename(&who.actor, group, title).await;
            }
            69..78 => {
                let _ = who.add(group, &[&other]).await;
            }
            78..85 => {
                let _ = who.remove(group, &other).await;
            }
            85..88 => {
                let _ = who.leave(group).await;
            }
            88..90 => {
                let role = *self.random.of(&[Role::Owner, Role::Admin, Role::Member]);
                let _ = who.set_role(group, &other, role).await;
            }
            90..92 => {
                let change = SettingsChange {
                    pinned: Some(what == 90),
                    ..SettingsChange::default()
                };
                let _ = who.change_settings(group, change).await;
            }
            92 => {
                let _ = who.delete(group).await;
            }
            93..96 => {
                let user = HostUser {
                    id: who.user.id,
                    username: who.user.username.clone(),
                    display_name: DisplayName::parse(&name).unwrap(),
                };
                who.engine.users().ensure(user).await.unwrap();
            }
            96 => {
                let users = who.engine.users();
                let _ = if self.random.below(3) == 0 {
                    users.block(&who.actor, other.user.id).await
                } else {
                    users.unblock(&who.actor, other.user.id).await
                };
            }
            97 => {
                let users = who.engine.users();
                let key = PrefKey::parse(self.random.of::<&str>(&["a", "b", "c"])).unwrap();
                if self.random.below(3) == 0 {
                    users.delete_pref(&who.actor, key).await.unwrap();
                } else {
                    let value = format!("\"{name}\"");
                    let value = PrefValue::parse(value, who.engine.limits()).unwrap();
                    users.set_pref(&who.actor, key, value).await.unwrap();
                }
            }
            _ => {
                let history = *self
                    .random
                    .of(&[HistoryPolicy::All, HistoryPolicy::SinceJoin]);
                let new = NewGroup {
                    title: Title::parse(name, who.engine.limits()).unwrap(),
                    members: vec![other.user.id],
                    history,
                };
                let made = conversations.create_group(&who.actor, new).await.unwrap();
                self.groups.push(made.id);
            }
        }
    }
}

/// A random history with replicas that listen, are cut off at any moment, and resume.
async fn try_listening(world: &World, seed: u64) {
    let mut limits = Limits::default();
    limits.small_conversation_members_max = 3;
    limits.subscriber_queue_max = 4;
    let engine = world.place.builder().limits(limits).open().await.unwrap();
    let mut history = History::begin(&engine, seed).await;
    let size = Size {
        limit: *history.random.of(&[3, 9]),
        timeline: *history.random.of(&[1, 3]),
    };
    let count = history.people.len();
    let mut replicas = vec![Replica::default(); count];
    let mut streams: Vec<Option<Resumed>> = (0..count).map(|_| None).collect();
    for _ in 0..150 {
        let n = history.random.below(count);
        let person = history.people[n].clone();
        match history.random.below(10) {
            0..5 => history.step().await,
            5..9 => {
                let stream = streams[n].get_or_insert_with(|| {
                    let pull = replicas[n].ask(size);
                    engine.events().resume(&person.actor, pull)
                });
                for _ in 0..history.random.below(4) {
                    let next = timeout(Duration::from_millis(20), stream.next());
                    match next.await {
                        Ok(update) => replicas[n].take(person.user.id, update.unwrap().unwrap()),
                        Err(_) => break, // nothing to say now
                    }
                }
            }
            _ => streams[n] = None,
        }
    }
    drop(streams);
    for (replica, person) in replicas.iter_mut().zip(&history.people) {
        let mut stream = engine.events().resume(&person.actor, replica.ask(size));
        loop {
            let next = soon("the stream is live", stream.next()).await;
            let update = next.unwrap().unwrap();
            let is_live = matches!(update, Update::Live { .. });
            replica.take(person.user.id, update);
            if is_live {
                break;
            }
        }
        replica.assert_equals_a_fresh_one(person).await;
    }
    // A stream that is live tells all, without a sync.
    let mut streams = Vec::new();
    for (replica, person) in replicas.iter_mut().zip(&history.people) {
        streams.push(engine.events().resume(&person.actor, replica.ask(size)));
    }
    for _ in 0..20 {
        history.step().await;
    }
    for ((replica, person), stream) in replicas.iter_mut().zip(&history.people).zip(&mut streams) {
        while let Ok(update) = timeout(Duration::from_millis(500), stream.next()).await {
            replica.take(person.user.id, update.unwrap().unwrap());
        }
        replica.assert_equals_a_fresh_one(person).await;
    }
    engine.close().await;
}

/// A random history with replicas that come and go in pages of random sizes.
async fn try_history(world: &World, seed: u64) {
    let mut limits = Limits::default();
    limits.small_conversation_members_max = 3;
    let engine = world.place.builder().limits(limits).open().await.unwrap();
    let mut history = History::begin(&engine, seed).await;
    let size = Size {
        limit: *history.random.of(&[2, 3, 5, 9]),
        timeline: *history.random.of(&[1, 2, 3, 5]),
    };
    let mut replicas = vec![Replica::default(); history.people.len()];
    let mut fetched = Vec::new();
    for _ in 0..150 {
        match history.random.below(10) {
            0..6 => history.step().await,
            6..8 => {
                let n = history.random.below(replicas.len());
                let person = history.people[n].clone();
                if !replicas[n].pull(&person, size).await {
                    replicas[n].assert_equals_a_fresh_one(&person).await;
                }
            }
            8 => {
                // A hole is asked for now, and the answer comes later.
                let n = history.random.below(replicas.len());
                let person = &history.people[n];
                let holes = replicas[n].rooms.iter().find_map(|(id, room)| {
                    let hole = room.holes.keys().next()?;
                    Some((*id, *hole))
                });
                if let Some((id, hole)) = holes {
                    let conversations = engine.conversations();
                    if let Ok(membership) = conversations.membership(&person.actor, id).await {
                        let messages = engine.messages();
                        let read = messages.history(&membership, around(hole), 2).await;
                        fetched.push((n, id, read.unwrap()));
                    }
                }
            }
            _ => {
                if !fetched.is_empty() {
                    let (n, id, read) = fetched.swap_remove(history.random.below(fetched.len()));
                    replicas[n].fill(id, &read);
                }
            }
        }
    }
    for (n, id, read) in fetched {
        replicas[n].fill(id, &read);
    }
    for (replica, person) in replicas.iter_mut().zip(&history.people) {
        replica.catch_up(person, size).await;
        replica.assert_equals_a_fresh_one(person).await;
    }
    engine.close().await;
}

/// Tries random histories, each in a world of its own, and names the seed of one that fails.
async fn try_each(world: World, histories: u64, attempt: impl AsyncFn(&World, u64)) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let histories = number("SYNC_HISTORIES").unwrap_or(histories);
    let base = number("SYNC_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 16);
    let kind = world.place.kind();
    drop(world);
    for seed in base..base + histories {
        let world = World::new(kind).await;
        let tried = std::panic::AssertUnwindSafe(attempt(&world, seed));
        if let Err(panic) = tried.catch_unwind().await {
            println!("SYNC_SEED={seed} SYNC_HISTORIES=1");
            std::panic::resume_unwind(panic);
        }
    }
}

on_both_databases!(
    async fn whoever_was_away_has_what_somebody_has_who_begins(world: World) {
        try_each(world, 12, try_history).await;
    }

    async fn whoever_listens_and_is_cut_off_and_resumes_has_everything(world: World) {
        try_each(world, 6, try_listening).await;
    }

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
                    0 => alice.remove(group, &bob).await,
                    1 => alice.add(group, &[&bob]).await,
                    2 => alice.rename(group, &format!("name {}", random.0)).await,
                    3 if random.below(10) == 0 => alice.delete(group).await,
                    _ => alice.try_send(group, message("more")).await.map(|_| ()),
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
);

/// What lies in a folder, to be put back later.
fn copy_of(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn put_back(folder: &std::path::Path, files: &[(std::path::PathBuf, Vec<u8>)]) {
    for (path, _) in copy_of(folder) {
        std::fs::remove_file(path).unwrap();
    }
    for (path, bytes) in files {
        std::fs::write(path, bytes).unwrap();
    }
}

/// What a copy that is put back `later` does to those who have seen more than it, and to others.
async fn try_restore(later: Duration) {
    let world = World::new(DatabaseKind::Sqlite).await;
    let folder = world.place.folder();
    let (alice, bob, conversation) = world.alice_and_bob().await;
    alice.send(conversation.id, "kept").await;
    let size = Size {
        limit: 3,
        timeline: 2,
    };
    let mut behind = Replica::default();
    behind.catch_up(&bob, size).await;
    let mut ahead = behind.clone();
    world.engine.close().await;
    let copy = copy_of(folder);

    let engine = world.place.open().await;
    let (alice, bob) = (alice.at(&engine), bob.at(&engine));
    alice.send(conversation.id, "lost").await;
    ahead.catch_up(&bob, size).await;
    // In the middle of a run whose beginning was kept, and from a read between two syncs.
    let mut running = behind.clone();
    for _ in 0..4 {
        alice.send(conversation.id, "lost too").await;
    }
    let one_row = Size {
        limit: 1,
        timeline: 2,
    };
    assert!(running.pull(&bob, one_row).await);
    engine.close().await;
    put_back(folder, &copy);

    tokio::time::sleep(later).await;
    let engine = world.place.open().await;
    let (alice, bob) = (alice.at(&engine), bob.at(&engine));
    for _ in 0..8 {
        alice.send(conversation.id, "instead").await;
    }
    for lost in [&mut ahead, &mut running] {
        let pull = Pull {
            cursor: lost.cursor.clone(),
            ..Pull::default()
        };
        let refused = engine.sync().pull(&bob.actor, &pull).await;
        assert!(
            matches!(
                refused,
                Err(Error::ResyncRequired(ResyncReason::HistoryDiverged))
            ),
            "{refused:?}"
        );
        lost.catch_up(&bob, size).await;
        lost.assert_equals_a_fresh_one(&bob).await;
    }
    let pull = Pull {
        cursor: behind.cursor.clone(),
        ..Pull::default()
    };
    engine.sync().pull(&bob.actor, &pull).await.unwrap();
    behind.catch_up(&bob, size).await;
    behind.assert_equals_a_fresh_one(&bob).await;
    engine.close().await;
}

#[tokio::test]
async fn sqlite_whoever_has_seen_what_a_restore_took_back_starts_again() {
    try_restore(Duration::from_millis(1_100)).await;
}

#[tokio::test]
async fn sqlite_a_copy_that_is_put_back_at_once_reuses_no_position() {
    // All of it within one second of the clock.
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    tokio::time::sleep(Duration::from_nanos(u64::from(
        1_000_000_000 - now.subsec_nanos(),
    )))
    .await;
    try_restore(Duration::ZERO).await;
}
