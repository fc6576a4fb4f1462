//! A host is told of what has happened: at least once, and in order within each conversation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messenger_core::conversations::{ConversationKind, Role, SettingsChange};
use messenger_core::hooks::{Change, ChangeKind, ChangeSettings, NewMessageTold, NotTaken, Topic};
use messenger_core::{
    ConversationId, EngineBuilder, Error, HookStats, Limits, MessengerEngine, Timestamp,
};
use tests::until;
use tokio::sync::{Barrier, Notify, Semaphore};
use uuid::Uuid;

use crate::world::{Person, Place, eventually, message, on_both_databases};

/// What the host does with a change.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Take,
    Fail,
    Panic,
    Hang,
    /// Not before a while has passed.
    Later(Duration),
    Stop,
}

type Decide = Box<dyn Fn(&Change) -> Answer + Send + Sync>;

/// A host that remembers what it was told.
#[derive(Clone)]
pub(crate) struct Host {
    decide: Arc<Mutex<Decide>>,
    tried: Arc<Mutex<Vec<Change>>>,
    taken: Arc<Mutex<Vec<Change>>>,
    told: Arc<Notify>,
}

impl Host {
    pub(crate) fn new(decide: impl Fn(&Change) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            decide: Arc::new(Mutex::new(Box::new(decide))),
            tried: Arc::default(),
            taken: Arc::default(),
            told: Arc::default(),
        }
    }

    pub(crate) fn that_takes_all() -> Self {
        Self::new(|_| Answer::Take)
    }

    pub(crate) fn now(&self, decide: impl Fn(&Change) -> Answer + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    pub(crate) fn at(
        &self,
        builder: EngineBuilder,
        name: &str,
        settings: ChangeSettings,
    ) -> EngineBuilder {
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
                    Answer::Later(wait) => Err(NotTaken::new("the host is busy").after(wait)),
                    Answer::Stop => Err(NotTaken::new("the host is gone").stop()),
                    Answer::Panic => panic!("a bug of the host"),
                    Answer::Hang => std::future::pending().await,
                }
            }
        })
    }

    pub(crate) fn taken(&self) -> Vec<Change> {
        self.taken.lock().unwrap().clone()
    }

    pub(crate) fn tried(&self) -> Vec<Change> {
        self.tried.lock().unwrap().clone()
    }

    /// The texts of the messages that it took, those of each conversation in their order.
    pub(crate) fn texts(&self) -> BTreeMap<ConversationId, Vec<String>> {
        texts(&self.taken())
    }

    /// The same of those that it was told, taken or not.
    pub(crate) fn texts_tried(&self) -> BTreeMap<ConversationId, Vec<String>> {
        texts(&self.tried())
    }

    /// Waits until it has been told what it is to be.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        until(&self.told, what, || is_so(self)).await;
    }

    pub(crate) async fn until_taken(&self, count: usize) {
        self.until(&format!("{count} changes"), |host| {
            host.taken.lock().unwrap().len() >= count
        })
        .await;
    }
}

pub(crate) fn new_message(change: &Change) -> Option<&NewMessageTold> {
    match &change.kind {
        ChangeKind::MessageCreated(told) => Some(told),
        _ => None,
    }
}

pub(crate) fn text(change: &Change) -> Option<&str> {
    Some(&new_message(change)?.message.content)
}

/// The texts of new messages, each told for the first time.
pub(crate) fn texts(changes: &[Change]) -> BTreeMap<ConversationId, Vec<String>> {
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

pub(crate) fn of(conversation: ConversationId) -> impl Fn(&Change) -> bool {
    move |change| change.conversation_id() == Some(conversation)
}

/// New messages only, and quickly.
pub(crate) fn messages() -> ChangeSettings {
    let mut settings = ChangeSettings::default();
    settings.topics = vec![Topic::MessageCreated];
    settings.wait_max = Duration::from_secs(8);
    settings.retry_min = Duration::from_millis(2);
    settings.retry_max = Duration::from_millis(20);
    settings
}

pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.hook_save_interval = Duration::from_millis(20);
    limits
}

pub(crate) async fn open(place: &Place, host: &Host, settings: ChangeSettings) -> MessengerEngine {
    open_with(place, host, settings, limits()).await
}

pub(crate) async fn open_with(
    place: &Place,
    host: &Host,
    settings: ChangeSettings,
    limits: Limits,
) -> MessengerEngine {
    let builder = place.builder().limits(limits);
    host.at(builder, "push", settings).open().await.unwrap()
}

pub(crate) fn stats(engine: &MessengerEngine) -> HookStats {
    engine.stats().hooks[0].clone()
}

/// The same people at an engine that is opened anew, with their conversations.
pub(crate) async fn people(engine: &MessengerEngine) -> (Person, Person, Person) {
    (
        Person::join(engine, "alice").await,
        Person::join(engine, "bob").await,
        Person::join(engine, "carol").await,
    )
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

    async fn what_waits_for_its_turn_is_told_as_it_is_then(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let group = alice.create_group(&[&bob]).await;
        let from = alice.send(group, "before").await.version;
        let sent = [
            alice.send(direct.id, "as sent").await,
            alice.send(group, "as sent").await,
        ];
        world.engine.close().await;
        let (turn, told) = (Arc::new(Semaphore::new(0)), Host::that_takes_all());
        let mut settings = messages();
        settings.from = Some(from);
        settings.wait_max = Duration::from_secs(3_600);
        let mut limits = limits();
        limits.hook_lanes_at_once_max = 1;
        let builder = world.place.builder().limits(limits);
        let (host, turns) = (told.clone(), turn.clone());
        let engine = builder.on_change("push", settings, move |change| {
            let (host, turns) = (host.clone(), turns.clone());
            async move {
                host.tried.lock().unwrap().push(change.clone());
                host.told.notify_waiters();
                turns.acquire().await?.forget();
                host.taken.lock().unwrap().push(change);
                host.told.notify_waiters();
                Ok(())
            }
        });
        let engine = engine.open().await.unwrap();
        let alice = alice.at(&engine);
        told.until("one is asked", |host| host.tried().len() == 1)
            .await;

        let is_asked = of(told.tried()[0].conversation_id().unwrap());
        for message in sent {
            alice.edit(&message, "as it is").await.unwrap();
        }
        // Longer than what was read may be told as it was.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        turn.add_permits(2);
        told.until_taken(2).await;

        for change in told.taken() {
            let expected = if is_asked(&change) {
                "as sent"
            } else {
                "as it is"
            };
            assert_eq!(text(&change), Some(expected));
        }
        engine.close().await;
    }
);
