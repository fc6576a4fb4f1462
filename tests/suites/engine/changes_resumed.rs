//! A host is told on where it was: after crashes and restores, by another engine, past a hole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use messenger_core::Position;
use messenger_core::hooks::{Change, ChangeKind, Topic};
use uuid::Uuid;

use crate::changes::{Answer, Host, limits, messages, of, open, open_with, stats, text};
use crate::world::{eventually, on_both_databases};

/// After a kill, another one tells as soon as this has passed.
const SHORT_LEASE: Duration = Duration::from_millis(600);

/// An engine in a runtime that can be ended at any moment, as a process can.
struct Process {
    runtime: tokio::runtime::Runtime,
}

impl Process {
    fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        Self {
            runtime: runtime.unwrap(),
        }
    }

    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.unwrap()
    }

    /// Ends everything where it is, without a farewell.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

on_both_databases!(
    async fn nothing_is_missed_while_the_engine_is_away(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "before there was a hook").await;
        world.engine.close().await;
        let host = Host::that_takes_all();

        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(conversation.id, "1").await;
        engine.close().await;
        let without = world.place.open().await;
        bob.at(&without).send(conversation.id, "2").await;
        without.close().await;
        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(conversation.id, "3").await;
        host.until_taken(3).await;
        engine.close().await;

        assert_eq!(host.texts()[&conversation.id], ["1", "2", "3"]);
    }

    async fn nothing_is_missed_through_crashes_and_it_is_told_in_order(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let tries = Arc::new(AtomicUsize::new(0));
        let count = tries.clone();
        // Every third try fails, and some of what was taken is not written down yet.
        let host = Host::new(move |_| match count.fetch_add(1, Ordering::SeqCst) % 3 {
            2 => Answer::Fail,
            _ => Answer::Take,
        });

        let mut limits = limits();
        limits.hook_lease = SHORT_LEASE;
        let mut expected = Vec::new();
        for round in 0..4 {
            let process = Process::start();
            let (place, said) = (world.place.builder(), host.clone());
            let place = place.limits(limits.clone());
            let alice = alice.clone();
            let texts: Vec<String> = (0..10).map(|n| format!("{round}.{n}")).collect();
            expected.extend(texts.clone());
            let engine = process
                .run(async move {
                    let engine = said.at(place, "push", messages()).open().await.unwrap();
                    let alice = alice.at(&engine);
                    for text in &texts {
                        alice.send(direct.id, text).await;
                        alice.send(group, text).await;
                    }
                    engine
                })
                .await;
            let least = 3 + round * 15;
            host.until("some of it", |host| host.taken().len() >= least)
                .await;
            process.kill();
            drop(engine);
        }
        let engine = open(&world.place, &host, messages()).await;
        host.until("all of it", |host| {
            host.texts().values().map(Vec::len).sum::<usize>() == 80
        })
        .await;
        engine.close().await;

        let expected = BTreeMap::from([(direct.id, expected.clone()), (group, expected)]);
        assert_eq!(host.texts(), expected);
        assert_eq!(host.texts_tried(), expected);
        let mut positions = BTreeMap::new();
        for change in host.tried() {
            let position = *positions.entry(change.id).or_insert(change.position);
            assert_eq!(position, change.position);
        }
    }

    async fn the_change_log_is_kept_for_a_host_that_is_behind_and_a_hole_is_told(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        world.engine.close().await;
        let fails = move |change: &Change| match of(group)(change) {
            true => Answer::Fail,
            false => Answer::Take,
        };
        let host = Host::new(fails);
        let mut limits = limits();
        limits.events_kept_min = 5;
        limits.event_age_min = Duration::ZERO;
        limits.prune_interval = Duration::from_millis(1);

        let engine = open_with(&world.place, &host, messages(), limits.clone()).await;
        let there = alice.at(&engine);
        let first = there.send(group, "waits").await;
        for n in 0..30 {
            there.send(direct.id, &n.to_string()).await;
        }
        host.until_taken(30).await;
        // All but what waits may go, and does.
        eventually("the log is cut", async || {
            let from = first.version.get();
            let sql = format!("SELECT count(*) FROM events WHERE pos < {from}");
            world.place.number(&sql).await == 0
        })
        .await;
        assert!(world.place.count("events").await >= 31);
        engine.close().await;

        limits.hook_behind_max = Duration::ZERO;
        let engine = open_with(&world.place, &host, messages(), limits).await;
        let is_missed = |change: &Change| change.topic() == Topic::ChangesMissed;
        host.until("it is told", |host| host.tried().iter().any(is_missed))
            .await;
        host.now(|_| Answer::Take);
        host.until_taken(31).await;
        let missed = host.taken().into_iter().find(is_missed).unwrap();
        let ChangeKind::Missed {
            conversation,
            after,
            upto,
        } = missed.kind
        else {
            panic!("{missed:?}")
        };
        assert_eq!(conversation, Some(group));
        assert!(after < first.version && first.version <= upto);
        eventually("it goes on", async || {
            (stats(&engine).missed, stats(&engine).waiting) == (1, 0)
        })
        .await;
        alice.at(&engine).send(group, "goes on").await;
        host.until_taken(32).await;
        assert_eq!(host.texts()[&group], ["goes on"]);
        engine.close().await;
    }

    async fn a_host_that_was_away_for_too_long_is_told_of_the_hole(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let host = Host::that_takes_all();
        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(direct.id, "told").await;
        host.until_taken(1).await;
        engine.close().await;

        let mut limits = limits();
        limits.events_kept_min = 5;
        limits.event_age_min = Duration::ZERO;
        limits.prune_interval = Duration::from_millis(1);
        limits.hook_behind_max = Duration::ZERO;
        let without = world.place.builder().limits(limits.clone());
        let without = without.open().await.unwrap();
        for _ in 0..30 {
            alice.at(&without).send(direct.id, "lost").await;
        }
        eventually("the log is cut", async || {
            world.place.count("events").await <= 6
        })
        .await;
        without.close().await;
        limits.prune_interval = Duration::from_secs(3_600);
        let engine = open_with(&world.place, &host, messages(), limits).await;
        host.until("it is told of it", |host| {
            host.taken()
                .iter()
                .any(|change| change.topic() == Topic::ChangesMissed)
        })
        .await;

        let told = host.taken();
        let ChangeKind::Missed {
            conversation, upto, ..
        } = told[1].kind
        else {
            panic!("{told:?}")
        };
        assert_eq!(conversation, None);
        host.until("what is left", |host| {
            let left = host.taken();
            left.iter()
                .skip(2)
                .filter(|it| text(it) == Some("lost"))
                .count()
                >= 4
        })
        .await;
        let left = host.taken().split_off(2);
        let is_left = |change: &Change| change.position > upto;
        assert!(left.iter().all(is_left), "{upto:?} {left:#?}");
        engine.close().await;
    }

    async fn one_of_two_engines_tells_and_the_other_takes_over(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        // It hears both.
        let host = Host::that_takes_all();
        let mut limits = limits();
        limits.hook_lease = Duration::from_secs(3_600);
        let first = open_with(&world.place, &host, messages(), limits.clone()).await;
        let second = open_with(&world.place, &host, messages(), limits.clone()).await;
        for n in 0..50 {
            alice.at(&first).send(direct.id, &n.to_string()).await;
        }
        host.until_taken(50).await;
        assert_eq!(host.taken().len(), 50);
        first.close().await;
        second.close().await;

        // Killed in the middle: what it had told is told again at most.
        limits.hook_lease = SHORT_LEASE;
        let process = Process::start();
        let (builder, said) = (world.place.builder().limits(limits.clone()), host.clone());
        let first = process
            .run(async move { said.at(builder, "push", messages()).open().await.unwrap() })
            .await;
        let second = open_with(&world.place, &host, messages(), limits).await;
        for n in 50..60 {
            alice.at(&second).send(direct.id, &n.to_string()).await;
        }
        host.until_taken(51).await;
        process.kill();
        for n in 60..70 {
            alice.at(&second).send(direct.id, &n.to_string()).await;
        }
        host.until("the other goes on", |host| {
            host.taken().iter().any(|change| text(change) == Some("69"))
        })
        .await;
        second.close().await;
        drop(first);

        let expected: Vec<String> = (0..70).map(|n| n.to_string()).collect();
        assert_eq!(host.texts()[&direct.id], expected);
    }

    async fn a_copy_that_was_put_back_is_told_from_where_it_was(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let host = Host::that_takes_all();
        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(direct.id, "kept").await;
        host.until_taken(1).await;
        engine.close().await;
        let copy = world.place.copy().await;

        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(direct.id, "lost").await;
        host.until_taken(2).await;
        engine.close().await;
        world.place.put_back(&copy).await;
        // As a host would be that had noted its position elsewhere.
        world
            .place
            .execute("UPDATE hooks SET pos = pos + 1000000000")
            .await;
        let engine = open(&world.place, &host, messages()).await;
        alice.at(&engine).send(direct.id, "instead").await;
        host.until_taken(3).await;
        engine.close().await;

        assert_eq!(host.texts()[&direct.id], ["kept", "lost", "instead"]);
        let ids: BTreeSet<Uuid> = host.taken().iter().map(|change| change.id).collect();
        assert_eq!(ids.len(), 3);
    }

    async fn a_new_name_begins_now_or_where_the_host_says(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        let first = alice.send(direct.id, "1").await;
        alice.send(direct.id, "2").await;
        world.engine.close().await;
        let (new, all, later) = (
            Host::that_takes_all(),
            Host::that_takes_all(),
            Host::that_takes_all(),
        );
        let (mut from_the_beginning, mut from_the_first) = (messages(), messages());
        from_the_beginning.from = Some(Position::ZERO);
        from_the_first.from = Some(first.version);
        let builder = world.place.builder().limits(limits());
        let builder = new.at(builder, "new", messages());
        let builder = all.at(builder, "all", from_the_beginning);
        let engine = later.at(builder, "later", from_the_first).open().await;
        let engine = engine.unwrap();

        alice.at(&engine).send(direct.id, "3").await;
        for (host, count) in [(&new, 1), (&all, 3), (&later, 2)] {
            host.until_taken(count).await;
        }
        engine.close().await;

        assert_eq!(new.texts()[&direct.id], ["3"]);
        assert_eq!(all.texts()[&direct.id], ["1", "2", "3"]);
        assert_eq!(later.texts()[&direct.id], ["2", "3"]);
    }

    async fn a_new_name_that_begins_before_the_cut_is_told_of_the_hole(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        let first = alice.send(direct.id, "first").await;
        for _ in 0..30 {
            alice.send(direct.id, "lost").await;
        }
        world.engine.close().await;
        let mut limits = limits();
        limits.events_kept_min = 5;
        limits.event_age_min = Duration::ZERO;
        limits.prune_interval = Duration::from_millis(1);
        let without = world.place.builder().limits(limits);
        let without = without.open().await.unwrap();
        eventually("the log is cut", async || {
            world.place.count("events").await <= 6
        })
        .await;
        without.close().await;

        let host = Host::that_takes_all();
        let mut settings = messages();
        settings.from = Some(first.version);
        let engine = open(&world.place, &host, settings).await;
        let last = alice.at(&engine).send(direct.id, "last").await;
        host.until("the last", |host| {
            host.taken()
                .iter()
                .any(|change| change.position == last.version)
        })
        .await;

        let ChangeKind::Missed { after, upto, .. } = host.taken()[0].kind else {
            panic!("{:?}", host.taken()[0])
        };
        assert!(after == first.version && upto < last.version);
        assert!(
            host.taken()[1..]
                .iter()
                .all(|change| change.position > upto)
        );
        assert_eq!(stats(&engine).missed, 1);
        engine.close().await;
    }
);
