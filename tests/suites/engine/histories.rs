//! Sync by cursor over random histories: whoever was away has, at the end, what somebody has who
//! begins.
//!
//! `SYNC_HISTORIES` sets how many random histories are tried on each database (12, and 6 that listen), `SYNC_SEED`
//! what they come from; the seed of each is in its failure.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use messenger_core::conversations::{HistoryPolicy, NewGroup, Role, SettingsChange, Title};
use messenger_core::events::{Resumed, Update};
use messenger_core::messages::{Message, MessageBody, Reaction};
use messenger_core::users::{DisplayName, HostUser};
use messenger_core::{ConversationId, Limits, MessengerEngine, Seq};
use tests::soon;
use tokio::time::timeout;

use crate::replica::{Replica, Size, around};
use crate::world::{Person, World, message, on_both_databases};

/// A small generator, so that a failure can be repeated by its seed.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }

    pub(crate) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
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
);
