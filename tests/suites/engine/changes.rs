//! A host is told of what has happened: at least once, and in order within each conversation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messenger_core::conversations::{ConversationKind, Role, SettingsChange};
use messenger_core::hooks::{
    Change, ChangeKind, ChangeSettings, NewMessageTold, NotTaken, OnFailure, Topic,
};
use messenger_core::{
    ConversationId, EngineBuilder, Error, HookStats, Limits, MessengerEngine, Position, Timestamp,
};
use tests::soon;
use tokio::sync::{Barrier, Notify};
use uuid::Uuid;

use crate::world::{Person, Place, eventually, message, on_both_databases};

/// What the host does with a change.
#[derive(Clone, Copy)]
enum Answer {
    Take,
    Fail,
    Panic,
    Hang,
    Stop,
}

type Decide = Box<dyn Fn(&Change) -> Answer + Send + Sync>;

/// A host that remembers what it was told.
#[derive(Clone)]
struct Host {
    decide: Arc<Mutex<Decide>>,
    tried: Arc<Mutex<Vec<Change>>>,
    taken: Arc<Mutex<Vec<Change>>>,
    told: Arc<Notify>,
}

impl Host {
    fn new(decide: impl Fn(&Change) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            decide: Arc::new(Mutex::new(Box::new(decide))),
            tried: Arc::default(),
            taken: Arc::default(),
            told: Arc::default(),
        }
    }

    fn that_takes_all() -> Self {
        Self::new(|_| Answer::Take)
    }

    fn now(&self, decide: impl Fn(&Change) -> Answer + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    fn at(&self, builder: EngineBuilder, name: &str, settings: ChangeSettings) -> EngineBuilder {
        let host = self.clone();
        builder.on_change(name, settings, move |change| {
            let host = host.clone();
            async move {
                host.tried.lock().unwrap().push(change.clone());
                let answer = (host.decide.lock().unwrap())(&change);
                host.told.notify_waiters();
                match answer {
                    Answer::Take => {
                        host.taken.lock().unwrap().push(change);
                        host.told.notify_waiters();
                        Ok(())
                    }
                    Answer::Fail => Err(NotTaken::new("the host is down")),
                    Answer::Stop => Err(NotTaken::new("the host is gone").stop()),
                    Answer::Panic => panic!("a bug of the host"),
                    Answer::Hang => std::future::pending().await,
                }
            }
        })
    }

    fn taken(&self) -> Vec<Change> {
        self.taken.lock().unwrap().clone()
    }

    fn tried(&self) -> Vec<Change> {
        self.tried.lock().unwrap().clone()
    }

    /// The texts of the messages that it took, those of each conversation in their order.
    fn texts(&self) -> BTreeMap<ConversationId, Vec<String>> {
        texts(&self.taken())
    }

    /// The same of those that it was told, taken or not.
    fn texts_tried(&self) -> BTreeMap<ConversationId, Vec<String>> {
        texts(&self.tried())
    }

    /// Waits until it has been told what it is to be.
    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        soon(what, async {
            loop {
                let told = self.told.notified();
                if is_so(self) {
                    return;
                }
                told.await;
            }
        })
        .await;
    }

    async fn until_taken(&self, count: usize) {
        self.until(&format!("{count} changes"), |host| {
            host.taken.lock().unwrap().len() >= count
        })
        .await;
    }
}

fn new_message(change: &Change) -> Option<&NewMessageTold> {
    match &change.kind {
        ChangeKind::MessageCreated(told) => Some(told),
        _ => None,
    }
}

fn text(change: &Change) -> Option<&str> {
    Some(&new_message(change)?.message.content)
}

/// The texts of new messages, each told for the first time.
fn texts(changes: &[Change]) -> BTreeMap<ConversationId, Vec<String>> {
    let mut texts: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for change in changes.iter().filter(|change| seen.insert(change.id)) {
        if let Some(told) = new_message(change) {
            let texts = texts.entry(told.conversation.id).or_default();
            texts.push(told.message.content.clone());
        }
    }
    texts
}

fn of(conversation: ConversationId) -> impl Fn(&Change) -> bool {
    move |change| change.conversation_id() == Some(conversation)
}

/// New messages only, and quickly.
fn messages() -> ChangeSettings {
    let mut settings = ChangeSettings::default();
    settings.topics = vec![Topic::MessageCreated];
    settings.wait_max = Duration::from_secs(8);
    settings.retry_min = Duration::from_millis(2);
    settings.retry_max = Duration::from_millis(20);
    settings
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.hook_lease = Duration::from_millis(600);
    limits.hook_save_interval = Duration::from_millis(20);
    limits
}

async fn open(place: &Place, host: &Host, settings: ChangeSettings) -> MessengerEngine {
    open_with(place, host, settings, limits()).await
}

async fn open_with(
    place: &Place,
    host: &Host,
    settings: ChangeSettings,
    limits: Limits,
) -> MessengerEngine {
    let builder = place.builder().limits(limits);
    host.at(builder, "push", settings).open().await.unwrap()
}

fn stats(engine: &MessengerEngine) -> HookStats {
    engine.stats().hooks[0].clone()
}

/// The same people at an engine that is opened anew, with their conversations.
async fn people(engine: &MessengerEngine) -> (Person, Person, Person) {
    (
        Person::join(engine, "alice").await,
        Person::join(engine, "bob").await,
        Person::join(engine, "carol").await,
    )
}

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
    async fn a_host_is_told_what_happened_in_its_order(world: World) {
        world.engine.close().await;
        let host = Host::that_takes_all();
        let mut settings = messages();
        settings.topics = Vec::new();
        let engine = open(&world.place, &host, settings).await;
        let (alice, bob, carol) = people(&engine).await;

        let group = alice.create_group(&[&bob]).await;
        let hello = alice.send(group, "hello").await;
        let edited = alice.edit(&hello, "hello all").await.unwrap();
        alice.add(group, &[&carol]).await.unwrap();
        alice.rename(group, "Climbers").await.unwrap();
        alice.set_role(group, &bob, Role::Admin).await.unwrap();
        bob.mark_read(group, hello.seq).await.unwrap();
        carol.leave(group).await.unwrap();
        alice.keep("theme", Some("\"dark\"")).await.unwrap();
        alice.delete(group).await.unwrap();
        host.until_taken(12).await;

        let told = host.taken();
        let topics = told.iter().map(|change| change.topic().as_str());
        let mut of_people: Vec<&str> = topics.clone().collect();
        of_people.retain(|topic| *topic == "user.updated");
        assert_eq!(of_people.len(), 3);
        let in_group: Vec<&str> = topics.filter(|topic| *topic != "user.updated").collect();
        assert_eq!(
            in_group,
            [
                "conversation.created",
                "message.created",
                "message.updated",
                "members.added",
                "conversation.updated",
                "member.updated",
                "read.updated",
                "member.removed",
                "conversation.deleted",
            ]
        );
        let in_order: Vec<&Change> = told.iter().filter(|it| of(group)(it)).collect();
        assert!(
            in_order
                .windows(2)
                .all(|two| two[0].position < two[1].position)
        );
        let ids: BTreeSet<Uuid> = told.iter().map(|change| change.id).collect();
        assert_eq!(ids.len(), told.len());
        assert!(
            in_order
                .iter()
                .all(|change| change.at <= Timestamp::from_micros(i64::MAX))
        );
        assert_eq!(edited.content, "hello all");
        eventually("nothing waits", async || {
            let stats = stats(&engine);
            (stats.told, stats.failed, stats.waiting) == (12, 0, 0) && stats.lag == 0
        })
        .await;
        engine.close().await;
        assert_eq!(host.tried().len(), 12);
    }

    async fn a_new_message_says_who_wants_to_hear_of_it(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let (carol, dave) = (world.person("carol").await, world.person("dave").await);
        let group = alice.create_group(&[&bob, &carol, &dave]).await;
        let change = SettingsChange {
            muted_until: Some(Some(Timestamp::from_micros(i64::MAX / 2))),
            ..SettingsChange::default()
        };
        bob.change_settings(group, change).await.unwrap();
        carol.block(&alice).await.unwrap();
        world.engine.close().await;
        let host = Host::that_takes_all();
        let mut limits = limits();
        limits.small_conversation_members_max = 4;
        let engine = open_with(&world.place, &host, messages(), limits).await;
        let alice = alice.at(&engine);

        alice.send(direct.id, "to bob").await;
        alice.send(group, "to dave").await;
        host.until_taken(2).await;
        let erin = Person::join(&engine, "erin").await;
        alice.add(group, &[&erin]).await.unwrap();
        alice.send(group, "to nobody").await;
        let mut named = message("to erin");
        named.mentions = vec![erin.user.id, bob.user.id, alice.user.id];
        alice.try_send(group, named).await.unwrap();
        host.until_taken(4).await;

        let told: BTreeMap<String, NewMessageTold> = host
            .taken()
            .iter()
            .filter_map(new_message)
            .map(|told| (told.message.content.clone(), told.clone()))
            .collect();
        assert_eq!(told["to bob"].notify, [bob.user.id]);
        assert_eq!(told["to bob"].conversation.kind, ConversationKind::Direct);
        assert_eq!(told["to bob"].sender, alice.user);
        assert_eq!(told["to dave"].notify, [dave.user.id]);
        assert_eq!(
            told["to dave"].conversation.title.as_deref(),
            Some("Hikers")
        );
        assert_eq!(told["to nobody"].notify, []);
        assert_eq!(told["to nobody"].conversation.member_count, 5);
        assert_eq!(told["to erin"].notify, [erin.user.id]);
        engine.close().await;
    }

    async fn what_was_deleted_meanwhile_is_told_without_its_content(world: World) {
        world.engine.close().await;
        let host = Host::new(|_| Answer::Fail);
        let engine = open(&world.place, &host, messages()).await;
        let (alice, bob, _) = people(&engine).await;
        let direct = alice.open_direct(&bob).await.id;
        let group = alice.create_group(&[&bob]).await;
        let secret = alice.send(direct, "a secret").await;
        alice.send(group, "another secret").await;
        host.until("both are tried", |host| host.texts_tried().len() == 2)
            .await;

        let messages = engine.messages();
        messages
            .delete(&alice.actor, direct, secret.id)
            .await
            .unwrap();
        alice.delete(group).await.unwrap();
        // What was read before may still be on its way.
        for id in [direct, group] {
            host.until("it is tried without", |host| {
                let tried = host.tried();
                tried.iter().any(|it| of(id)(it) && text(it) == Some(""))
            })
            .await;
        }
        host.now(|_| Answer::Take);
        host.until_taken(2).await;

        for change in host.taken() {
            let told = new_message(&change).unwrap();
            assert_eq!(
                (told.message.content.as_str(), &told.notify[..]),
                ("", &[][..])
            );
            assert_eq!(told.conversation.title, None);
        }
        engine.close().await;
    }

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

        let taken = host.taken();
        let told: Vec<&str> = taken.iter().filter_map(text).collect();
        assert_eq!(told, ["1", "2", "3"]);
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

        let mut expected = Vec::new();
        for round in 0..4 {
            let process = Process::start();
            let (place, said) = (world.place.builder().limits(limits()), host.clone());
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
        assert_eq!(host.taken().len(), 31);
    }

    async fn a_host_that_is_away_costs_a_position_and_a_few_rows(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut groups = Vec::new();
        for _ in 0..40 {
            groups.push(alice.create_group(&[&bob]).await);
        }
        world.engine.close().await;
        let host = Host::new(|_| Answer::Fail);
        let mut settings = messages();
        settings.retry_min = Duration::from_millis(50);
        settings.retry_max = Duration::from_secs(2);
        let engine = open(&world.place, &host, settings).await;
        let alice = alice.at(&engine);

        for text in ["1", "2", "3"] {
            for group in &groups {
                alice.send(*group, text).await;
            }
        }
        host.until("it is tried", |host| host.tried().len() > 12)
            .await;

        assert_eq!(host.taken().len(), 0);
        assert!(stats(&engine).waiting < 35, "{:?}", stats(&engine));
        assert!(stats(&engine).lag > 0 || stats(&engine).waiting > 0);
        host.now(|_| Answer::Take);
        host.until_taken(120).await;
        let three = ["1", "2", "3"].map(str::to_owned).to_vec();
        let expected = groups.iter().map(|group| (*group, three.clone())).collect();
        assert_eq!(host.texts(), expected);
        eventually("none waits", async || stats(&engine).waiting == 0).await;
        engine.close().await;
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

    async fn no_more_is_told_at_once_than_the_bounds_say(world: World) {
        let (alice, bob, _) = world.alice_and_bob().await;
        let mut groups = Vec::new();
        for _ in 0..6 {
            groups.push(alice.create_group(&[&bob]).await);
        }
        world.engine.close().await;
        let host = Host::that_takes_all();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (two, first) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        let mut limits = limits();
        limits.hook_lanes_at_once_max = 2;
        limits.hook_lines_max = 5;
        limits.hook_turn_max = Duration::ZERO;
        let builder = world.place.builder().limits(limits);
        let (told, running, highest) = (host.clone(), now.clone(), most.clone());
        let engine = builder.on_change("push", messages(), move |change| {
            let (told, running, highest) = (told.clone(), running.clone(), highest.clone());
            let (two, first) = (two.clone(), first.clone());
            async move {
                let together = running.fetch_add(1, Ordering::SeqCst) + 1;
                highest.fetch_max(together, Ordering::SeqCst);
                if first.fetch_add(1, Ordering::SeqCst) < 2 {
                    two.wait().await;
                }
                told.taken.lock().unwrap().push(change);
                running.fetch_sub(1, Ordering::SeqCst);
                told.told.notify_waiters();
                Ok(())
            }
        });
        let engine = engine.open().await.unwrap();
        let alice = alice.at(&engine);

        let texts = ["1", "2", "3", "4", "5"].map(str::to_owned);
        for text in &texts {
            for group in &groups {
                alice.send(*group, text).await;
            }
        }
        host.until_taken(30).await;

        assert_eq!(most.load(Ordering::SeqCst), 2);
        let expected = groups.iter().map(|id| (*id, texts.to_vec())).collect();
        assert_eq!(host.texts(), expected);
        assert_eq!(host.taken().len(), 30);
        eventually("none waits", async || stats(&engine).waiting == 0).await;
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
        settings.wait_max = Duration::from_millis(700);
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
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let host = Host::new(|_| Answer::Stop);
        let engine = open(&world.place, &host, messages()).await;

        alice.at(&engine).send(direct.id, "1").await;
        eventually("it has stopped", async || stats(&engine).is_stopped).await;
        alice.at(&engine).send(direct.id, "2").await;
        engine.close().await;
        assert_eq!(host.tried().len(), 1);

        host.now(|_| Answer::Take);
        let engine = open(&world.place, &host, messages()).await;
        host.until_taken(2).await;
        assert_eq!(host.texts()[&direct.id], ["1", "2"]);
        engine.close().await;
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
        assert!(
            host.taken()[2..]
                .iter()
                .all(|change| change.position > upto)
        );
        engine.close().await;
    }

    async fn one_of_two_engines_tells_and_the_other_takes_over(world: World) {
        let (alice, _, direct) = world.alice_and_bob().await;
        world.engine.close().await;
        let (one, other) = (Host::that_takes_all(), Host::that_takes_all());
        let all = |one: &Host, other: &Host| one.taken().len() + other.taken().len();

        let mut limits = limits();
        limits.hook_lease = Duration::from_secs(4);
        let process = Process::start();
        let (builder, said) = (world.place.builder().limits(limits.clone()), one.clone());
        let first = process
            .run(async move { said.at(builder, "push", messages()).open().await.unwrap() })
            .await;
        let second = open_with(&world.place, &other, messages(), limits).await;
        let at_first = alice.at(&first);
        process
            .run(async move {
                for n in 0..50 {
                    at_first.send(direct.id, &n.to_string()).await;
                }
            })
            .await;
        eventually("all are told", async || all(&one, &other) >= 50).await;
        assert_eq!(all(&one, &other), 50);

        // Killed in the middle: what it had told is told again at most.
        process.kill();
        for n in 50..60 {
            alice.at(&second).send(direct.id, &n.to_string()).await;
        }
        other
            .until("the other goes on", |other| {
                other
                    .taken()
                    .iter()
                    .any(|change| text(change) == Some("59"))
            })
            .await;
        second.close().await;
        drop(first);

        let mut told = one.taken();
        told.extend(other.taken());
        told.sort_by_key(|change| change.position);
        let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        assert_eq!(texts(&told)[&direct.id], expected);
        assert_eq!(
            texts(&other.taken())[&direct.id].last().map(String::as_str),
            Some("59")
        );
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

        let told = host.taken();
        let told: Vec<&str> = told.iter().filter_map(text).collect();
        assert_eq!(told, ["kept", "lost", "instead"]);
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

    async fn hooks_have_names_of_their_own(world: World) {
        world.engine.close().await;
        let host = Host::that_takes_all();
        let builder = || world.place.builder();
        let twice = host.at(builder(), "push", messages());
        let twice = host.at(twice, "push", messages());
        let long = "x".repeat(65);

        let mut wrong = vec![twice];
        wrong.extend(
            ["", "push it", long.as_str()].map(|name| host.at(builder(), name, messages())),
        );
        for builder in wrong {
            let opened = builder.open().await;
            assert!(matches!(opened, Err(Error::Setup(..))), "{opened:?}");
        }
        let longest = host.at(builder(), &long[1..], messages());
        longest.open().await.unwrap().close().await;
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
);
