//! What has changed again, or is gone, before somebody reads it in the change log: a reader who is
//! slow, and an engine that looks at what another one has written.

use std::time::Duration;

use futures_util::StreamExt;
use messenger_core::events::{EventKind, Resumed, Subscription, Update};
use messenger_core::sync::Pull;
use messenger_core::users::DisplayName;
use messenger_core::{ConversationId, Limits, MessengerEngine, Position, Seq};
use tokio::time::{Instant, timeout_at};

use crate::replica::Replica;
use crate::world::{
    Person, Place, eventually, live_settings, next, next_update, on_both_databases,
};

/// Opens an engine that looks at what others have written once in a second.
async fn seldom(place: &Place) -> MessengerEngine {
    let mut settings = live_settings();
    settings.poll_ms = 1_000;
    place.builder().live(settings).open().await.unwrap()
}

/// A stream that is live, right after its engine has looked; it is to hear what `alice` sends.
async fn listening(bob: &Person, alice: &Person, to: ConversationId) -> (Resumed, Replica) {
    let mut replica = Replica::new(None);
    let mut stream = bob.engine.events().resume(&bob.actor, Pull::default());
    take(&mut stream, &mut replica, bob, is_live).await;
    alice.send(to, "wait for it").await;
    take(&mut stream, &mut replica, bob, |update| !is_live(update)).await;
    (stream, replica)
}

fn is_live(update: &Update) -> bool {
    matches!(update, Update::Live { .. })
}

/// Takes in what a stream brings, up to something.
async fn take(
    stream: &mut Resumed,
    replica: &mut Replica,
    person: &Person,
    until: impl Fn(&Update) -> bool,
) {
    loop {
        let update = next_update(stream).await;
        let is_last = until(&update);
        replica.take(person.user.id, update);
        if is_last {
            return;
        }
    }
}

/// What somebody hears who has not read for long, up to their removal.
async fn heard(events: &mut Subscription) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let event = next(events).await.unwrap().unwrap();
        match &event.kind {
            EventKind::MessageCreated { message, .. } => heard.push(message.content.clone()),
            EventKind::GroupChanged { title, .. } => heard.push(title.clone()),
            EventKind::MemberRemoved { .. } => return heard,
            _ => {}
        }
    }
}

on_both_databases!(
    async fn a_slow_reader_who_was_removed_does_not_see_what_was_written_after_that(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        let mut bobs = bob.subscribe().await;
        let edited = alice.send(group, "harmless").await;
        let kept = alice.send(group, "quick").await;
        alice.rename(group, "Harmless").await.unwrap();
        alice.edit(&kept, "but in time").await.unwrap();
        // More than the channel has room for.
        for _ in 0..100 {
            alice.send(group, "more").await;
        }
        alice.remove(group, &bob).await.unwrap();
        alice.edit(&edited, "secret").await.unwrap();
        alice.rename(group, "Secret").await.unwrap();

        let heard = heard(&mut bobs).await;

        assert!(heard.contains(&"but in time".to_owned()), "{heard:?}");
        assert!(
            heard.iter().all(|text| text.to_lowercase() != "secret"),
            "{heard:?}"
        );
    }

    async fn who_was_removed_does_not_see_what_was_written_after_that_at_another_engine(
        world: World,
    ) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        let other = seldom(&world.place).await;
        let bob = bob.at(&other);
        let mut subscribed = bob.subscribe().await;
        let (mut stream, _) = listening(&bob, &alice, group).await;

        let first = alice.send(group, "harmless").await;
        alice.rename(group, "Harmless").await.unwrap();
        alice.remove(group, &bob).await.unwrap();
        alice.edit(&first, "secret").await.unwrap();
        alice.rename(group, "Secret").await.unwrap();

        loop {
            match next_update(&mut stream).await {
                Update::Event { event, .. } => match &event.kind {
                    EventKind::MessageCreated { message, .. } => panic!("{message:?}"),
                    EventKind::GroupChanged { title, .. } => assert_eq!(title, "Harmless"),
                    _ => {}
                },
                Update::Page { page, .. } if !page.removals.is_empty() => break,
                Update::Page { page, .. } => assert_eq!(page.messages, []),
                _ => {}
            }
        }
        assert_eq!(heard(&mut subscribed).await, ["wait for it"]);
        other.close().await;
    }

    async fn a_subscription_hears_of_every_message_whatever_became_of_it(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let other = seldom(&world.place).await;
        let mut bobs = bob.at(&other).subscribe().await;

        for n in 0..5 {
            let sent = alice.send(conversation.id, &format!("draft {n}")).await;
            alice.edit(&sent, &format!("text {n}")).await.unwrap();
        }

        let mut heard = Vec::new();
        while heard.len() < 5 {
            let event = next(&mut bobs).await.unwrap().unwrap();
            if let EventKind::MessageCreated {
                message,
                conversation,
                ..
            } = &event.kind
            {
                assert_eq!(conversation.version, event.position);
                heard.push(message.seq.get());
            }
        }
        assert_eq!(heard, [1, 2, 3, 4, 5]);
        other.close().await;
    }

    async fn a_replica_at_another_engine_is_right_after_a_quick_reaction(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let other = seldom(&world.place).await;
        let there = bob.at(&other);
        let (mut stream, mut replica) = listening(&there, &alice, conversation.id).await;

        let message = alice.send(conversation.id, "hello").await;
        alice.react(&message, "👍").await.unwrap();
        bob.react(&message, "👍").await.unwrap();

        take(&mut stream, &mut replica, &there, is_live).await;
        replica.assert_equals_a_fresh_one(&there).await;
        other.close().await;
    }

    async fn the_senders_marker_is_dated_by_the_message_that_is_told(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let other = seldom(&world.place).await;
        let (mut stream, _) = listening(&bob.at(&other), &alice, conversation.id).await;

        let first = alice.send(conversation.id, "one").await;
        let second = alice.send(conversation.id, "two").await;
        alice.react(&first, "👍").await.unwrap();

        // As the manual says: of two forms of a marker, the one with the greater version.
        let mut marker = (Position::default(), Seq::default());
        while marker.1 < second.seq {
            match next_update(&mut stream).await {
                Update::Event { event, .. } => {
                    if let EventKind::MessageCreated { message, .. } = &event.kind {
                        marker = marker.max((message.version, message.seq));
                    }
                }
                Update::Page { page, .. } => {
                    let reads = page.markers.iter().filter(|it| it.user_id == alice.user.id);
                    marker =
                        reads.fold(marker, |marker, it| marker.max((it.version, it.last_read)));
                }
                _ => {}
            }
        }
        other.close().await;
    }

    async fn an_engine_that_finds_the_log_cut_begins_anew(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let other = seldom(&world.place).await;
        let mut limits = Limits::default();
        limits.events_kept_min = 1;
        limits.event_age_min = Duration::ZERO;
        limits.prune_interval = Duration::from_millis(5);
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let alice = alice.at(&engine);
        let (mut stream, _) = listening(&bob.at(&other), &alice, group).await;

        alice.remove(group, &bob).await.unwrap();
        for _ in 0..20 {
            alice.send(group, "without bob").await;
        }
        eventually("the log is cut", async || {
            world.place.count("events").await <= 2
        })
        .await;

        while !matches!(next_update(&mut stream).await, Update::Page { page, .. } if !page.removals.is_empty())
        {
        }
        alice.send(group, "later still").await;
        let end = Instant::now() + Duration::from_secs(2);
        while let Ok(Some(update)) = timeout_at(end, stream.next()).await {
            assert!(!matches!(update, Ok(Update::Event { .. })), "{update:?}");
        }
        engine.close().await;
        other.close().await;
    }

    async fn of_changes_of_a_profile_that_come_together_the_last_is_told(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let other = seldom(&world.place).await;
        let there = bob.at(&other);
        let (mut stream, mut replica) = listening(&there, &alice, conversation.id).await;

        let changes = 200;
        for n in 0..changes {
            let name = DisplayName::parse(&format!("Alice {n}")).unwrap();
            let users = alice.engine.users();
            users.change_profile(&alice.actor, name).await.unwrap();
        }
        alice.send(conversation.id, "done").await;

        let mut told = 0;
        loop {
            let update = next_update(&mut stream).await;
            let mut is_last = false;
            if let Update::Event { event, .. } = &update {
                told += usize::from(matches!(event.kind, EventKind::UserChanged { .. }));
                is_last = matches!(event.kind, EventKind::MessageCreated { .. });
            }
            replica.take(bob.user.id, update);
            if is_last {
                break;
            }
        }
        assert!((1..changes).contains(&told), "{told}");
        replica.assert_equals_a_fresh_one(&there).await;
        other.close().await;
    }
);
