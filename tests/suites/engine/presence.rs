//! Who is there: told to those who may know, a little later and all at once; of what happened it
//! keeps only when somebody was last seen.

use std::time::Duration;

use futures_util::StreamExt;
use messenger_core::events::{Resumed, Update};
use messenger_core::users::{DisplayName, PrefKey, PrefValue, Presence};
use messenger_core::{Error, Limits, MessengerEngine};
use serde_json::Value;
use tests::{soon, within};
use tokio::time::sleep;

use crate::world::{
    Person, Place, World, eventually, live_settings, next_update, on_both_databases,
};

/// Opens an engine that looks who is there all the time.
async fn attentive(place: &Place, limits: Limits) -> MessengerEngine {
    let mut live = live_settings();
    live.presence_ms = 50;
    let builder = place.builder().limits(limits).live(live);
    builder.open().await.unwrap()
}

async fn alice_and_bob(world: &World) -> (MessengerEngine, Person, Person) {
    world.engine.close().await;
    let engine = attentive(&world.place, Limits::default()).await;
    let alice = Person::join(&engine, "alice").await;
    let bob = Person::join(&engine, "bob").await;
    alice.open_direct(&bob).await;
    (engine, alice, bob)
}

/// The next that a stream tells of one person; it may tell of nothing else but pages and others who
/// are there.
async fn hears_of(stream: &mut Resumed, person: &Person) -> Presence {
    loop {
        match next_update(stream).await {
            Update::Presence(people) => {
                let about = people.iter().find(|one| one.user_id == person.user.id);
                if let Some(presence) = about {
                    return *presence;
                }
            }
            Update::Page { .. } | Update::Live { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn asks(person: &Person, about: &[&Person]) -> Vec<Presence> {
    let ids: Vec<_> = about.iter().map(|one| one.user.id).collect();
    let users = person.engine.users();
    users.presence(&person.actor, &ids).await.unwrap()
}

/// What somebody is told of a person who may be on their way, once it is the case.
async fn comes_to_know(person: &Person, about: &Person, is_online: bool) -> Presence {
    let asked = async {
        loop {
            match asks(person, &[about]).await[..] {
                [presence] if presence.is_online == is_online => return presence,
                [_] => sleep(Duration::from_millis(10)).await,
                ref other => panic!("{other:?}"),
            }
        }
    };
    soon("it is known", asked).await
}

async fn shows_presence(person: &Person, shows: bool) {
    let users = person.engine.users();
    let value = PrefValue::parse(shows.to_string(), person.engine.limits()).unwrap();
    let key = PrefKey::presence();
    users.set_pref(&person.actor, key, value).await.unwrap();
}

/// Of how many people it is stored when they were last seen.
async fn seen(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM users WHERE last_seen_at IS NOT NULL";
    world.place.number(sql).await
}

on_both_databases!(
    async fn who_comes_and_goes_is_told_and_when_they_were_last_seen_stays(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let before = asks(&alice, &[&bob]).await;
        assert!(!before[0].is_online && before[0].last_seen_at.is_none());
        let mut alices = alice.follow().await;

        let bobs = bob.follow().await;
        let came = hears_of(&mut alices, &bob).await;
        assert!(came.is_online && came.last_seen_at.is_none());
        assert_eq!(asks(&alice, &[&bob]).await, [came]);
        assert_eq!(asks(&bob, &[&alice, &bob]).await.len(), 1, "not oneself");

        drop(bobs);
        let went = hears_of(&mut alices, &bob).await;
        assert!(!went.is_online && went.last_seen_at.is_some());
        let stored = comes_to_know(&alice, &bob, false).await;
        soon("it is stored", async {
            while asks(&alice, &[&bob]).await != [went] {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(!stored.is_online);

        let mut lines = engine.users().export(&bob.actor).unwrap();
        let profile = soon("a line", lines.next()).await.unwrap().unwrap();
        let profile: Value = serde_json::from_str(&profile).unwrap();
        let last_seen_at = went.last_seen_at.map(|at| at.to_string());
        assert_eq!(profile["last_seen_at"].as_str(), last_seen_at.as_deref());

        engine.close().await;
        let again = world.place.open().await;
        assert_eq!(asks(&alice.at(&again), &[&bob]).await, [went]);
        again.close().await;
    }

    async fn it_takes_no_position(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let mut alices = alice.follow().await;
        let events = world.place.count("events").await;

        let bobs = bob.follow().await;
        assert!(hears_of(&mut alices, &bob).await.is_online);
        drop(bobs);
        assert!(!hears_of(&mut alices, &bob).await.is_online);
        eventually("it is stored", async || seen(&world).await == 1).await;

        assert_eq!(world.place.count("events").await, events);
        engine.close().await;
    }

    async fn who_does_not_show_it_looks_like_nobody(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let mut alices = alice.follow().await;
        let bobs = bob.follow().await;
        assert!(hears_of(&mut alices, &bob).await.is_online);

        shows_presence(&bob, false).await;
        let hidden = hears_of(&mut alices, &bob).await;
        assert!(!hidden.is_online && hidden.last_seen_at.is_none());
        assert_eq!(asks(&alice, &[&bob]).await, []);
        drop(bobs);
        let carol = Person::join(&engine, "carol").await;
        carol.open_direct(&alice).await;
        let _carols = carol.follow().await;
        assert!(hears_of(&mut alices, &carol).await.is_online);
        assert_eq!(asks(&alice, &[&bob]).await, []);

        shows_presence(&bob, true).await;
        let _bobs = bob.follow().await;
        assert!(hears_of(&mut alices, &bob).await.is_online);
        engine.close().await;
    }

    async fn people_of_whom_one_has_blocked_the_other_do_not_see_each_other(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        // The group that they share does not change it.
        alice.create_group(&[&bob]).await;
        let mut alices = alice.follow().await;
        let mut bobs = bob.follow().await;
        assert!(hears_of(&mut alices, &bob).await.is_online);

        let users = alice.engine.users();
        users.block(&alice.actor, bob.user.id).await.unwrap();
        for (stream, other) in [(&mut alices, &bob), (&mut bobs, &alice)] {
            // Bob may still be told that alice came before that she is not there for him.
            let told = loop {
                let told = hears_of(stream, other).await;
                if !told.is_online {
                    break told;
                }
            };
            assert_eq!(told.last_seen_at, None);
        }
        assert_eq!(asks(&alice, &[&bob]).await, []);
        assert_eq!(asks(&bob, &[&alice]).await, []);

        users.unblock(&alice.actor, bob.user.id).await.unwrap();
        assert!(hears_of(&mut alices, &bob).await.is_online);
        assert!(hears_of(&mut bobs, &alice).await.is_online);
        engine.close().await;
    }

    async fn strangers_and_members_of_large_groups_are_not_told(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.small_conversation_members_max = 2;
        let engine = attentive(&world.place, limits).await;
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let carol = Person::join(&engine, "carol").await;
        alice.create_group(&[&bob, &carol]).await;
        alice.open_direct(&carol).await;
        let mut alices = alice.follow().await;

        let _bobs = bob.follow().await;
        let _carols = carol.follow().await;

        loop {
            let Update::Presence(people) = next_update(&mut alices).await else {
                continue;
            };
            let [told] = people[..] else {
                panic!("{people:?}")
            };
            assert_eq!(told.user_id, carol.user.id);
            break;
        }
        assert_eq!(asks(&alice, &[&bob]).await, []);
        assert!(asks(&alice, &[&bob, &carol]).await[0].is_online);
        let too_many = vec![bob.user.id; 101];
        let refused = alice.engine.users();
        let refused = refused.presence(&alice.actor, &too_many).await;
        assert!(matches!(refused, Err(Error::Invalid(_))));
        assert_eq!(asks(&alice, &[]).await, []);
        engine.close().await;
    }

    async fn an_account_that_is_deleted_is_not_there_and_never_was(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let bobs = bob.follow().await;
        comes_to_know(&alice, &bob, true).await;
        drop(bobs);
        comes_to_know(&alice, &bob, false).await;
        eventually("it is stored", async || seen(&world).await == 1).await;

        let users = bob.engine.users();
        users
            .delete_me(&bob.actor, Default::default())
            .await
            .unwrap();

        assert_eq!(asks(&alice, &[&bob]).await, []);
        assert_eq!(seen(&world).await, 0);
        engine.close().await;
    }

    // The other engine remembers a row that says nothing of it, and nothing tells it better.
    async fn when_somebody_was_last_seen_outlives_a_change_at_another_engine(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let other = world.place.open().await;
        let renames = async |name: &str| {
            let (users, name) = (other.users(), DisplayName::parse(name).unwrap());
            let bobs = other.trust(bob.user.id);
            users.change_profile(&bobs, name).await.unwrap();
        };
        renames("Bob").await;
        let bobs = bob.follow().await;
        comes_to_know(&alice, &bob, true).await;
        drop(bobs);
        eventually("it is stored", async || seen(&world).await == 1).await;

        renames("Robert").await;
        assert_eq!(seen(&world).await, 1);

        let users = other.users();
        let bobs = other.trust(bob.user.id);
        users.delete_me(&bobs, Default::default()).await.unwrap();
        assert_eq!(seen(&world).await, 0);
        other.close().await;
        engine.close().await;
    }

    async fn what_another_engine_has_seen_later_stays(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let carol = Person::join(&engine, "carol").await;
        carol.open_direct(&alice).await;
        let bobs = bob.follow().await;
        comes_to_know(&alice, &bob, true).await;
        let later = 4_000_000_000_000_000_i64;
        let set = format!("UPDATE users SET last_seen_at = {later} WHERE username = 'bob'");
        world.place.execute(&set).await;

        drop(bobs);
        comes_to_know(&alice, &bob, false).await;
        let carols = carol.follow().await;
        comes_to_know(&alice, &carol, true).await;
        drop(carols);
        eventually("carol's is stored", async || seen(&world).await == 2).await;

        let bobs = "SELECT last_seen_at FROM users WHERE username = 'bob'";
        assert_eq!(world.place.number(bobs).await, later);
        engine.close().await;
    }

    // A transaction with nothing in it would wait for the lock like any other.
    async fn nothing_is_written_of_people_who_do_not_show_it(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let carol = Person::join(&engine, "carol").await;
        let dave = Person::join(&engine, "dave").await;
        alice.create_group(&[&carol, &dave]).await;
        shows_presence(&bob, false).await;
        let mut bobs = bob.follow().await;
        let mut alices = alice.follow().await;
        assert!(hears_of(&mut bobs, &alice).await.is_online);
        let lock = world.place.lock().await;

        // Bob has gone at an earlier look than dave, whose own leaving is written after it is told.
        drop(bobs);
        let told = async {
            let _carols = carol.follow().await;
            assert!(hears_of(&mut alices, &carol).await.is_online);
            let daves = dave.follow().await;
            assert!(hears_of(&mut alices, &dave).await.is_online);
            drop(daves);
            assert!(!hears_of(&mut alices, &dave).await.is_online);
        };
        // Less than an engine waits for the lock.
        within(Duration::from_secs(4), "others come and go", told).await;

        drop(lock);
        engine.close().await;
    }

    async fn who_is_hidden_or_blocks_one_is_not_noticed_when_they_block_others(world: World) {
        let (engine, alice, bob) = alice_and_bob(&world).await;
        let carol = Person::join(&engine, "carol").await;
        let dave = Person::join(&engine, "dave").await;
        let erin = Person::join(&engine, "erin").await;
        let frank = Person::join(&engine, "frank").await;
        alice.create_group(&[&dave, &erin, &frank]).await;
        shows_presence(&bob, false).await;
        dave.block(&alice).await.unwrap();
        let mut bobs = bob.follow().await;
        let mut daves = dave.follow().await;
        let mut alices = alice.follow().await;
        let _erins = erin.follow().await;
        assert!(hears_of(&mut bobs, &alice).await.is_online);
        assert!(hears_of(&mut daves, &erin).await.is_online);

        bob.block(&carol).await.unwrap();
        dave.block(&carol).await.unwrap();
        // They are told anew what they may know, together with what others may know of them.
        assert!(hears_of(&mut bobs, &alice).await.is_online);
        assert!(hears_of(&mut daves, &erin).await.is_online);
        let _franks = frank.follow().await;

        let mut told = Vec::new();
        while !told.contains(&frank.user.id) {
            if let Update::Presence(people) = next_update(&mut alices).await {
                told.extend(people.iter().map(|one| one.user_id));
            }
        }
        assert!(!told.contains(&bob.user.id) && !told.contains(&dave.user.id));
        engine.close().await;
    }
);
