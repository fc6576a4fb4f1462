//! A host that does not take what it is told: it fails, hangs, asks to wait, or wants to hear no more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use messenger_core::hooks::{Change, OnFailure};
use tests::soon;

use crate::changes::{Answer, Host, limits, messages, of, open, open_with, stats, text};
use crate::world::{eventually, on_both_databases};

/// Longer than a test.
const LONG: Duration = Duration::from_secs(3_600);

on_both_databases!(
    async fn a_conversation_that_fails_waits_while_others_go_on(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let fails = move |change: &Change| match of(group)(change) {
            true => Answer::Fail,
            false => Answer::Take,
        };
        let host = Host::new(fails);

        for round in 0..3 {
            let engine = open(&world.place, &host, messages()).await;
            let alice = alice.at(&engine);
            for n in 0..5 {
                alice.send(group, &format!("{round}.{n}")).await;
                alice.send(direct.id, &format!("{round}.{n}")).await;
            }
            host.until_taken(5 * (round + 1)).await;
            eventually("one waits", async || stats(&engine).waiting == 1).await;
            let tried = host.tried().len();
            host.until("it is tried again", |host| host.tried().len() > tried)
                .await;
            engine.close().await;
            assert_eq!(world.place.count("hook_lanes").await, 1);
        }
        // Of what waits nothing is tried before its first.
        let mut tried = host.tried();
        tried.retain(of(group));
        assert!(tried.len() > 3);
        assert!(tried.iter().all(|change| text(change) == Some("0.0")));

        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(group, "last").await;
        host.now(|_| Answer::Take);
        host.until_taken(31).await;
        eventually("none waits", async || {
            stats(&engine).waiting == 0 && world.place.count("hook_lanes").await == 0
        })
        .await;
        engine.close().await;

        let mut expected: Vec<String> = (0..15).map(|n| format!("{}.{}", n / 5, n % 5)).collect();
        assert_eq!(host.texts()[&direct.id], expected);
        expected.push("last".to_owned());
        assert_eq!(host.texts()[&group], expected);
    }

    async fn a_host_that_is_away_costs_a_position_and_a_few_rows(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut groups = Vec::new();
        for _ in 0..40 {
            groups.push(alice.create_group(&[&bob]).await);
        }
        world.engine.close().await;
        let host = Host::new(|_| Answer::Fail);
        // Of which chance takes up to half.
        let longest = Duration::from_secs(3);
        let mut settings = messages();
        (settings.retry_min, settings.retry_max) = (longest, longest);
        let engine = open(&world.place, &host, settings).await;
        let alice = alice.at(&engine);

        let began = Instant::now();
        for (group, failed) in groups.iter().zip(1..3) {
            alice.send(*group, "1").await;
            eventually("nothing else is to be told now", async || {
                let idle = "SELECT count(*) FROM hooks WHERE holder IS NULL";
                stats(&engine).failed >= failed && world.place.number(idle).await == 1
            })
            .await;
        }
        alice.send(groups[2], "1").await;
        eventually("it is away", async || stats(&engine).waiting == 3).await;
        for group in &groups[3..] {
            alice.send(*group, "1").await;
        }
        for text in ["2", "3"] {
            for group in &groups {
                alice.send(*group, text).await;
            }
        }
        host.until("it is tried once more", |host| host.tried().len() > 6)
            .await;

        // One more conversation is tried each time.
        let told = stats(&engine);
        let tries = began.elapsed().as_millis() / (longest / 2).as_millis();
        assert!((told.waiting as u128) < 5 + tries, "{told:?}");
        assert!(told.lag > 0, "{told:?}");
        assert_eq!(host.taken().len(), 0);
        host.now(|_| Answer::Take);
        host.until_taken(120).await;
        let three = ["1", "2", "3"].map(str::to_owned).to_vec();
        let expected = groups.iter().map(|group| (*group, three.clone())).collect();
        assert_eq!(host.texts(), expected);
        eventually("none waits", async || stats(&engine).waiting == 0).await;
        engine.close().await;
    }

    async fn an_engine_whose_host_is_away_stays_the_one_that_tells(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut groups = Vec::new();
        for _ in 0..4 {
            groups.push(alice.create_group(&[&bob]).await);
        }
        world.engine.close().await;
        let (host, other) = (Host::new(|_| Answer::Fail), Host::that_takes_all());
        let mut settings = messages();
        (settings.retry_min, settings.retry_max) = (LONG, LONG);
        let mut limits = limits();
        limits.hook_lease = Duration::from_secs(2);
        let first = open_with(&world.place, &host, settings.clone(), limits.clone()).await;
        for (group, failed) in groups.iter().zip(1..4) {
            alice.at(&first).send(*group, "1").await;
            eventually("it has failed", async || stats(&first).failed >= failed).await;
        }
        eventually("it is away", async || stats(&first).waiting == 3).await;
        let place = &world.place;
        let held_until = async || place.number("SELECT held_until FROM hooks").await;
        let began = held_until().await;
        let second = open_with(place, &other, settings, limits).await;
        alice.at(&second).send(groups[3], "1").await;

        eventually("it has lasted for longer than a lease", async || {
            held_until().await > began + 3_000_000
        })
        .await;

        assert_eq!((host.tried().len(), other.tried().len()), (3, 0));
        first.close().await;
        other.until_taken(1).await;
        second.close().await;
    }

    async fn others_wait_where_too_many_conversations_do(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let groups = [
            alice.create_group(&[&bob]).await,
            alice.create_group(&[&bob]).await,
        ];
        world.engine.close().await;
        let is_poison = move |change: &Change| groups.iter().any(|group| of(*group)(change));
        let host = Host::new(move |change| match is_poison(change) {
            true => Answer::Fail,
            false => Answer::Take,
        });
        let mut limits = limits();
        limits.hook_lanes_waiting_max = 2;
        let engine = open_with(&world.place, &host, messages(), limits).await;
        let alice = alice.at(&engine);

        for group in groups {
            alice.send(group, "poison").await;
        }
        host.until("both wait", |_| stats(&engine).waiting == 2)
            .await;
        alice.send(direct.id, "hello").await;
        let tried = host.tried().len();
        host.until("they are tried", |host| host.tried().len() > tried + 6)
            .await;
        assert_eq!(host.taken().len(), 0);

        host.now(|_| Answer::Take);
        host.until_taken(3).await;
        assert_eq!(host.texts()[&direct.id], ["hello"]);
        engine.close().await;
    }

    async fn a_host_that_fails_open_misses_what_it_does_not_take(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let host = Host::new(|change| match text(change) {
            Some("fail") => Answer::Fail,
            Some("panic") => Answer::Panic,
            Some("hang") => Answer::Hang,
            _ => Answer::Take,
        });
        let mut settings = messages();
        settings.on_failure = OnFailure::Allow;
        settings.tries_max = 2;
        settings.wait_max = Duration::from_secs(3);
        let engine = open(&world.place, &host, settings).await;
        let alice = alice.at(&engine);

        for text in ["1", "fail", "2", "panic", "hang", "3"] {
            alice.send(direct.id, text).await;
        }
        host.until_taken(3).await;

        assert_eq!(host.texts()[&direct.id], ["1", "2", "3"]);
        let tried: Vec<Change> = host.tried();
        let tried: Vec<&str> = tried.iter().filter_map(text).collect();
        assert_eq!(
            tried,
            [
                "1", "fail", "fail", "2", "panic", "panic", "hang", "hang", "3"
            ]
        );
        eventually("it is counted", async || {
            let stats = stats(&engine);
            (stats.told, stats.failed, stats.left_out, stats.waiting) == (3, 6, 3, 0)
        })
        .await;
        engine.close().await;
    }

    async fn a_change_is_given_up_after_its_time(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let host = Host::new(|change| match text(change) {
            Some("poison") => Answer::Fail,
            _ => Answer::Take,
        });
        let mut settings = messages();
        settings.give_up = Some(Duration::from_millis(500));
        let engine = open(&world.place, &host, settings).await;
        let alice = alice.at(&engine);

        alice.send(direct.id, "poison").await;
        alice.send(direct.id, "after it").await;
        host.until_taken(1).await;

        assert_eq!(host.texts()[&direct.id], ["after it"]);
        let tried = host.tried();
        let poison: Vec<&Change> = tried
            .iter()
            .filter(|it| text(it) == Some("poison"))
            .collect();
        assert!(poison.len() > 1, "{}", poison.len());
        assert_eq!(stats(&engine).left_out, 1);
        engine.close().await;
    }

    async fn a_host_that_wants_to_hear_no_more_is_told_again_after_a_start(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let host = Host::new(|_| Answer::Stop);
        let engine = open(&world.place, &host, messages()).await;

        alice.at(&engine).send(direct.id, "1").await;
        eventually("it has stopped", async || stats(&engine).is_stopped).await;
        for conversation in [direct.id, group] {
            alice.at(&engine).send(conversation, "2").await;
        }
        engine.close().await;
        assert_eq!(host.tried().len(), 1);

        host.now(|_| Answer::Take);
        let engine = open(&world.place, &host, messages()).await;
        host.until_taken(3).await;
        assert_eq!(host.texts()[&direct.id], ["1", "2"]);
        assert_eq!(host.texts()[&group], ["2"]);
        engine.close().await;
    }

    async fn closing_waits_for_the_host_but_not_for_long(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let hangs = Arc::new(AtomicBool::new(true));
        let does = hangs.clone();
        let host = Host::new(move |_| match does.load(Ordering::SeqCst) {
            true => Answer::Hang,
            false => Answer::Take,
        });
        let mut settings = messages();
        settings.wait_max = Duration::from_secs(3_600);
        let engine = open(&world.place, &host, settings.clone()).await;
        alice.at(&engine).send(direct.id, "1").await;
        host.until("it is asked", |host| host.tried().len() == 1)
            .await;

        soon("the end", engine.close()).await;

        hangs.store(false, Ordering::SeqCst);
        let engine = open(&world.place, &host, settings).await;
        host.until_taken(1).await;
        engine.close().await;
        assert_eq!(host.tried().len(), 2);
    }

    async fn a_conversation_that_hangs_holds_up_no_other(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let host = Host::new(move |change| match of(group)(change) {
            true => Answer::Hang,
            false => Answer::Take,
        });
        let mut settings = messages();
        settings.wait_max = Duration::from_secs(3_600);
        let engine = open(&world.place, &host, settings).await;
        let alice = alice.at(&engine);

        alice.send(group, "hangs").await;
        host.until("it is asked", |host| host.tried().len() == 1)
            .await;
        for text in ["1", "2", "3"] {
            alice.send(direct.id, text).await;
        }
        host.until_taken(3).await;

        assert_eq!(host.texts()[&direct.id], ["1", "2", "3"]);
        assert_eq!(host.tried().len(), 4);
        eventually("it waits", async || stats(&engine).waiting == 1).await;
        engine.close().await;
    }

    async fn a_host_that_asks_to_wait_is_told_nothing_until_then(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let wait = Duration::from_secs(2);
        let asked = Arc::new(Mutex::new(None));
        let early = Arc::new(AtomicUsize::new(0));
        let (asked_at, came_early) = (asked.clone(), early.clone());
        let host = Host::new(move |_| {
            let asked: &mut Option<Instant> = &mut asked_at.lock().unwrap();
            match asked {
                None => {
                    *asked = Some(Instant::now());
                    Answer::Later(wait)
                }
                Some(at) if at.elapsed() < wait => {
                    came_early.fetch_add(1, Ordering::SeqCst);
                    Answer::Take
                }
                Some(_) => Answer::Take,
            }
        });
        let mut settings = messages();
        settings.retry_max = wait;
        let engine = open(&world.place, &host, settings).await;
        let alice = alice.at(&engine);

        alice.send(group, "1").await;
        eventually("it has asked", async || stats(&engine).failed == 1).await;
        for conversation in [direct.id, group] {
            alice.send(conversation, "2").await;
        }
        host.until_taken(3).await;

        assert_eq!(early.load(Ordering::SeqCst), 0);
        assert_eq!(host.tried().len(), 4);
        assert_eq!(host.texts()[&group], ["1", "2"]);
        engine.close().await;
    }
);
