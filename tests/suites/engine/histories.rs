//! Sync by cursor over random histories: whoever was away has, at the end, what somebody has who
//! begins.
//!
//! `SYNC_HISTORIES` sets how many random histories of each kind are tried on each database (12, and
//! 6 with listeners or with copies), `SYNC_SEED` what they come from; the seed of each is in its
//! failure.
//!
//! What the sync promises, and what asserts it: `try_history` is here, `Replica` is what it insists on
//! in every history, `RULES` are asked of the rows at its end, and the rest are tests.
//!
//! | promise | asserted by |
//! |---|---|
//! | 1. positions are contiguous within a fence | `RULES` |
//! | 2. what has an earlier position is seen earlier | `late_commits.rs` |
//! | 3. a snapshot is exactly the changes up to its head | `late_commits.rs`, `Replica` |
//! | 4. the version of a row never falls, and of one version there is one form | `Replica` |
//! | 5. what is refused or changes nothing takes no position | `pull.rs`, `message_changes.rs`, `groups.rs` |
//! | 6. `seq` is 1, 2, 3, … and rises with positions | `RULES` |
//! | 7. a send takes place once for its client id | `races.rs`, `several_processes.rs` |
//! | 8. markers stay within the conversation, members are counted, a pair has one conversation | `RULES`, `races.rs` |
//! | 9. whoever was away has what somebody has who begins | `try_history` |
//! | 10. what is not there is declared missing, and can be read | `Replica`, `pull.rs` |
//! | 11. a run without writers tells each row once, in its last form | `pull.rs` |
//! | 12. pages are bounded in rows and bytes, and runs end | `Replica`, `pull.rs` |
//! | 13. cursors never go back, and any page may be asked for again | `try_history`, `Replica` |
//! | 14. whoever is named on a page is known | `Replica` |
//! | 15. the size of pages and the way of learning make no difference | `try_history` |
//! | 16. who comes is told all anew, who goes is told so | `try_history`, `pull.rs` |
//! | 17. nobody gets a message from before their time | `Replica`, `message_changes.rs` |
//! | 18. nothing is told after a removal | `Replica`, `live.rs` |
//! | 19. a cursor gives no authority | `sync/cursor.rs`, `pull.rs` |
//! | 20. a stream tells what concerns its listener in order, each once | `try_history`, `Replica` |
//! | 21. a stream that is cut off anywhere goes on | `try_history` |
//! | 22. a cursor of a stream passes nothing that was not told | `try_history` |
//! | 23. a queue that overruns changes none of it | `try_history` |
//! | 24. sockets of older clients hear what they always heard | `contract/websocket_events.rs` |
//! | 25. every node delivers every position once, in order | `live.rs`, `several_processes.rs` |
//! | 26. … by reading the log alone | `several_processes.rs` |
//! | 27. nobody is refused without a loss | `Replica` |
//! | 28. whoever knows of what was lost is told, and others go on | `Replica`, `restores.rs`, `outages.rs` |
//! | 29. no position is issued twice | `try_history`, `restores.rs`, `pull.rs` |
//! | 30. older clients get the answers that they always got | the suite `contract` |

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use messenger_core::conversations::{HistoryPolicy, NewGroup, Role, SettingsChange, Title};
use messenger_core::events::{Resumed, Update};
use messenger_core::messages::{self, Message, MessageBody, Reaction};
use messenger_core::users::{DisplayName, HostUser, PrefKey, PrefValue};
use messenger_core::{
    ConversationId, Durability, Error, Fault, Limits, MessengerEngine, Position, Seq,
};
use tests::{DatabaseKind, soon};
use tokio::time::timeout;

use crate::replica::{Lapse, Replica, Size, around};
use crate::world::{Copy, Person, Place, World, message, on_both_databases};

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

/// What people may do, and how likely it is: other things in every history.
const DEEDS: [Deed; 16] = [
    Deed::Send,
    Deed::Edit,
    Deed::Delete,
    Deed::React,
    Deed::Mark,
    Deed::Rename,
    Deed::Add,
    Deed::Remove,
    Deed::TakeBack,
    Deed::Leave,
    Deed::SetRole,
    Deed::Keep,
    Deed::ChangeName,
    Deed::Group,
    Deed::Block,
    Deed::KeepPref,
];

#[derive(Clone, Copy, Debug)]
enum Deed {
    Send,
    Edit,
    Delete,
    React,
    Mark,
    Rename,
    Add,
    Remove,
    /// Somebody is removed and added again.
    TakeBack,
    Leave,
    SetRole,
    Keep,
    ChangeName,
    /// Somebody makes a group, or, where there are enough, deletes one.
    Group,
    /// Somebody blocks somebody, or no longer.
    Block,
    /// Somebody keeps something by a key, or no longer.
    KeepPref,
}

/// Messages that somebody may still want to change.
const FRESH: usize = 12;

/// People who do random things.
struct History {
    random: Random,
    people: Vec<Person>,
    groups: Vec<ConversationId>,
    sent: Vec<Message>,
    names: usize,
    /// Each deed as often as it is likely.
    deeds: Vec<Deed>,
    /// Conversations that there are at a time.
    groups_max: usize,
}

impl History {
    async fn begin(engine: &MessengerEngine, mut random: Random) -> Self {
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol", "dave"] {
            people.push(Person::join(engine, name).await);
        }
        let mut deeds = [
            vec![Deed::Send; 20],
            vec![Deed::Edit; 6],
            vec![Deed::TakeBack; 4],
        ]
        .concat();
        for deed in DEEDS {
            let weight = *random.of(&[1, 3, 12]);
            deeds.extend(std::iter::repeat_n(deed, weight));
        }
        let mut history = Self {
            people,
            groups: Vec::new(),
            sent: Vec::new(),
            names: 0,
            deeds,
            groups_max: *random.of(&[1, 2, 5]),
            random,
        };
        if history.groups_max > 1 {
            let direct = history.people[0].open_direct(&history.people[1]).await;
            history.groups.push(direct.id);
        }
        history.create_group().await;
        history
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("name {}", self.names)
    }

    async fn create_group(&mut self) {
        let name = self.name();
        let who = self.random.of(&self.people).clone();
        let count = self.random.below(self.people.len()) + 1;
        let others = self.people[..count].iter();
        let others = others.filter(|it| it.user.id != who.user.id);
        let members = others.map(|it| it.user.id).collect();
        let new = NewGroup {
            title: Title::parse(name, who.engine.limits()).unwrap(),
            members,
            history: *self
                .random
                .of(&[HistoryPolicy::All, HistoryPolicy::SinceJoin]),
        };
        let conversations = who.engine.conversations();
        let made = conversations.create_group(&who.actor, new).await.unwrap();
        self.groups.push(made.id);
    }

    /// Gives somebody another name.
    async fn change_name(&mut self, n: usize) {
        let name = self.name();
        let who = &self.people[n];
        let user = HostUser {
            id: who.user.id,
            username: who.user.username.clone(),
            display_name: DisplayName::parse(&name).unwrap(),
        };
        who.engine.users().ensure(user).await.unwrap();
    }

    /// One random change. Most that the rules refuse are harmless, and part of the history.
    async fn step(&mut self) {
        let deed = *self.random.of(&self.deeds);
        let who = self.random.of(&self.people).clone();
        let other = self.random.of(&self.people).clone();
        let group = *self.random.of(&self.groups);
        let conversations = who.engine.conversations();
        match deed {
            Deed::Send => {
                let name = self.name();
                if let Ok(sent) = who.try_send(group, message(&name)).await {
                    self.sent.push(sent.message);
                }
            }
            Deed::Edit | Deed::Delete | Deed::React => self.change_message(deed, &who).await,
            Deed::Mark => {
                let seq = Seq::new(self.random.below(12) as i64).unwrap();
                let _ = match self.random.below(2) {
                    0 => conversations.mark_read(&who.actor, group, seq).await,
                    _ => conversations.mark_delivered(&who.actor, group, seq).await,
                };
            }
            Deed::Rename => {
                let _ = who.rename(group, &self.name()).await;
            }
            Deed::Leave => {
                let _ = who.leave(group).await;
            }
            Deed::Keep => {
                let change = SettingsChange {
                    pinned: Some(self.random.below(2) == 0),
                    ..SettingsChange::default()
                };
                let _ = who.change_settings(group, change).await;
            }
            Deed::ChangeName => {
                let n = self.random.below(self.people.len());
                self.change_name(n).await;
            }
            Deed::Block => {
                let users = who.engine.users();
                // Mostly lifted, so that there is something to say between the two.
                let _ = match self.random.below(3) {
                    0 => users.block(&who.actor, other.user.id).await,
                    _ => users.unblock(&who.actor, other.user.id).await,
                };
            }
            Deed::KeepPref => {
                let users = who.engine.users();
                let key = *self.random.of::<&str>(&["a", "b", "c"]);
                let key = PrefKey::parse(key).unwrap();
                if self.random.below(3) == 0 {
                    users.delete_pref(&who.actor, key).await.unwrap();
                } else {
                    let value = self.names.to_string();
                    let value = PrefValue::parse(value, who.engine.limits()).unwrap();
                    users.set_pref(&who.actor, key, value).await.unwrap();
                }
            }
            Deed::Group if self.groups.len() < self.groups_max => self.create_group().await,
            Deed::Add | Deed::Remove | Deed::TakeBack | Deed::SetRole | Deed::Group => {
                let role = *self.random.of(&[Role::Owner, Role::Admin, Role::Member]);
                // Whoever may.
                for who in self.people.clone() {
                    let done = match deed {
                        Deed::Add => who.add(group, &[&other]).await,
                        Deed::Remove | Deed::TakeBack => who.remove(group, &other).await,
                        Deed::SetRole => who.set_role(group, &other, role).await,
                        _ => who.delete(group).await,
                    };
                    if done.is_ok() {
                        if matches!(deed, Deed::Group) {
                            self.groups.retain(|it| *it != group);
                        }
                        if self.groups.is_empty() {
                            self.create_group().await;
                        }
                        if matches!(deed, Deed::TakeBack) {
                            let _ = who.add(group, &[&other]).await;
                        }
                        return;
                    }
                }
            }
        }
    }

    /// Changes a message, mostly one of the last.
    async fn change_message(&mut self, deed: Deed, who: &Person) {
        if self.sent.is_empty() {
            return;
        }
        let old = self.sent.len().saturating_sub(FRESH);
        let old = if self.random.below(4) == 0 { 0 } else { old };
        let of = self.random.of(&self.sent[old..]).clone();
        let place = (of.conversation_id, of.id);
        let sender = self.people.iter().find(|it| it.user.id == of.sender_id);
        let sender = sender.unwrap().clone();
        let (limits, messages) = (who.engine.limits(), who.engine.messages());
        let _ = match deed {
            Deed::Edit => {
                let body = MessageBody::parse(self.name(), limits).unwrap();
                messages.edit(&sender.actor, place.0, place.1, body).await
            }
            Deed::Delete => messages.delete(&sender.actor, place.0, place.1).await,
            _ => {
                let emoji = *self.random.of::<&str>(&["👍", "🎉", "x"]);
                let emoji = Reaction::parse(emoji, limits).unwrap();
                if self.random.below(3) == 0 {
                    messages.unreact(&who.actor, place.0, place.1, emoji).await
                } else {
                    messages.react(&who.actor, place.0, place.1, emoji).await
                }
            }
        };
    }
}

/// How clients learn what has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// They ask for pages.
    Pull,
    /// They listen, are cut off at any moment, and resume.
    Listen,
    /// They ask for pages, while the engine crashes and older copies of the database are put back.
    PullFromCopies,
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Engine(Fault),
    Client(Lapse),
}

/// What is true of the rows after every history, each with how many are exceptions.
const RULES: [(&str, &str); 5] = [
    (
        "positions have no gap within a fence",
        "SELECT CAST(coalesce(sum(abs(coalesce(f.end_pos, h.pos) - f.start_pos - \
         (SELECT count(*) FROM events AS e WHERE e.pos > f.start_pos \
         AND e.pos <= coalesce(f.end_pos, h.pos)))), 0) AS BIGINT) \
         FROM sync_fences AS f JOIN sync_heads AS h ON h.shard = f.shard",
    ),
    (
        "sequence numbers are 1, 2, 3, …",
        "SELECT count(*) FROM conversations AS c WHERE c.last_seq <> \
         (SELECT count(*) FROM messages AS m WHERE m.conversation_id = c.id \
         AND m.seq BETWEEN 1 AND c.last_seq)",
    ),
    (
        "sequence numbers and positions rise together",
        "SELECT count(*) FROM messages AS a JOIN messages AS b \
         ON b.conversation_id = a.conversation_id AND b.seq = a.seq + 1 \
         WHERE b.created_pos <= a.created_pos OR a.changed_pos < a.created_pos",
    ),
    (
        "members are counted",
        "SELECT count(*) FROM conversations AS c WHERE c.member_count <> \
         (SELECT count(*) FROM members AS m WHERE m.conversation_id = c.id AND m.state = 1)",
    ),
    (
        "nobody has read what was not sent",
        "SELECT count(*) FROM members AS m JOIN conversations AS c ON c.id = m.conversation_id \
         WHERE m.last_read_seq > c.last_seq OR m.delivered_seq > c.last_seq \
         OR m.delivered_seq < m.last_read_seq",
    ),
];

/// One random history, with the replicas of those who are in it.
struct Story {
    place: Place,
    mistake: Option<Mistake>,
    limits: Limits,
    engine: MessengerEngine,
    history: History,
    size: Size,
    replicas: Vec<Replica>,
    streams: Vec<Option<Resumed>>,
    /// Answers that are still on their way.
    fetched: Vec<(usize, ConversationId, messages::History)>,
    copy: Option<(Copy, i64)>,
}

/// Tries one random history on a database of its own.
pub(crate) async fn try_history(kind: DatabaseKind, way: Way, seed: u64, mistake: Option<Mistake>) {
    let mut story = Story::begin(kind, seed, mistake).await;
    let is_quiet = way != Way::PullFromCopies && story.history.random.below(8) > 0;
    for _ in 0..150 {
        match story.history.random.below(100) {
            0..50 => story.history.step().await,
            50..70 if way != Way::Listen => story.pull().await,
            50..64 => story.listen().await,
            64..66 => story.burst().await,
            66..70 => story.cut_off(),
            70..84 => story.fetch().await,
            84..92 => story.deliver(),
            // In most histories the database is always well.
            _ if is_quiet => story.history.step().await,
            92..94 => story.crash().await,
            94..97 => story.copy().await,
            _ => story.restore().await,
        }
    }
    story.end(way).await;
}

impl Story {
    async fn begin(kind: DatabaseKind, seed: u64, mistake: Option<Mistake>) -> Self {
        let mut random = Random(seed);
        random.below(2); // the first number says little
        let mut limits = Limits::default();
        limits.small_conversation_members_max = *random.of(&[2, 3]);
        limits.subscriber_queue_max = *random.of(&[1, 2, 6]);
        let size = Size {
            limit: *random.of(&[1, 2, 3, 5, 9]),
            timeline: *random.of(&[1, 2, 3, 5]),
        };
        let place = Place::new(kind).await;
        let engine = open(&place, &limits, mistake).await;
        let history = History::begin(&engine, random).await;
        let lapse = match mistake {
            Some(Mistake::Client(lapse)) => Some(lapse),
            _ => None,
        };
        let replica = Replica::new(lapse);
        let count = history.people.len();
        Self {
            place,
            mistake,
            limits,
            engine,
            history,
            size,
            replicas: vec![replica; count],
            streams: (0..count).map(|_| None).collect(),
            fetched: Vec::new(),
            copy: None,
        }
    }

    fn somebody(&mut self) -> (usize, Person) {
        let n = self.history.random.below(self.replicas.len());
        (n, self.history.people[n].clone())
    }

    async fn pull(&mut self) {
        let (n, person) = self.somebody();
        if self.history.random.below(8) == 0 {
            // The answer is lost on its way, and asked for again.
            self.replicas[n].clone().pull(&person, self.size).await;
        }
        if !self.replicas[n].pull(&person, self.size).await {
            self.replicas[n].assert_equals_a_fresh_one(&person).await;
        }
    }

    /// Somebody hears a little, while something happens.
    async fn listen(&mut self) {
        let (n, person) = self.somebody();
        if self.streams[n].is_none() {
            self.connect(n);
            // While the stream begins.
            for _ in 0..self.history.random.below(5) {
                self.history.step().await;
            }
        }
        for _ in 0..self.history.random.below(6) {
            let Some(stream) = &mut self.streams[n] else {
                return;
            };
            // Nothing to say now, perhaps.
            let Ok(update) = timeout(Duration::from_millis(5), stream.next()).await else {
                return;
            };
            self.hear(n, &person, update).await;
        }
    }

    fn connect(&mut self, n: usize) {
        let actor = &self.history.people[n].actor;
        let pull = self.replicas[n].ask(self.size);
        self.streams[n] = Some(self.engine.events().resume(actor, pull));
    }

    async fn hear(&mut self, n: usize, person: &Person, update: Option<Result<Update, Error>>) {
        match update.unwrap() {
            Ok(update) => {
                if !self.replicas[n].take(person.user.id, update) {
                    self.streams[n] = None;
                }
            }
            Err(Error::ResyncRequired(reason)) => {
                self.replicas[n].begin_again(reason);
                self.streams[n] = None;
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn cut_off(&mut self) {
        let (n, _) = self.somebody();
        self.streams[n] = None;
    }

    /// More at once than the queue of a listener holds.
    async fn burst(&mut self) {
        for _ in 0..20 {
            self.history.step().await;
        }
    }

    /// Some messages are asked for now, and the answer comes later.
    async fn fetch(&mut self) {
        let (n, person) = self.somebody();
        let rooms: Vec<_> = self.replicas[n].rooms.keys().copied().collect();
        if rooms.is_empty() {
            return;
        }
        let id = *self.history.random.of(&rooms);
        let room = &self.replicas[n].rooms[&id];
        let holes: Vec<i64> = room.holes.keys().copied().collect();
        let last = room.conversation.last_seq.get();
        // One that is known to be missing, one that is newer than all that is known, or any.
        let seq = match self.history.random.below(4) {
            0 | 3 if !holes.is_empty() => *self.history.random.of(&holes),
            1 => last + 1,
            _ => {
                1 + self
                    .history
                    .random
                    .below(usize::try_from(last).unwrap() + 1) as i64
            }
        };
        let conversations = self.engine.conversations();
        if let Ok(membership) = conversations.membership(&person.actor, id).await {
            let messages = self.engine.messages();
            let read = messages.history(&membership, around(seq), 3).await;
            self.fetched.push((n, id, read.unwrap()));
        }
    }

    fn deliver(&mut self) {
        if !self.fetched.is_empty() {
            let which = self.history.random.below(self.fetched.len());
            let (n, id, read) = self.fetched.swap_remove(which);
            self.replicas[n].fill(id, &read);
        }
    }

    /// The engine ends in the middle of what it does, and begins again.
    async fn crash(&mut self) {
        let group = *self.history.random.of(&self.history.groups);
        let sends = (0..4).map(|_| {
            let who = self.history.random.of(&self.history.people).clone();
            tokio::spawn(async move {
                let _ = who.try_send(group, message("under way")).await;
            })
        });
        let sends: Vec<_> = sends.collect();
        for _ in 0..self.history.random.below(4) {
            tokio::task::yield_now().await;
        }
        for send in sends {
            send.abort();
        }
        if self.place.kind() == DatabaseKind::Postgres {
            self.place.cut_connections().await;
        }
        self.reopen().await;
    }

    async fn copy(&mut self) {
        // A copy in PostgreSQL needs the database for itself.
        let closes = self.place.kind() == DatabaseKind::Postgres;
        if closes {
            self.engine.close().await;
        }
        let copy = self.place.copy().await;
        let pos = self
            .place
            .number_in(&copy, "SELECT pos FROM sync_heads")
            .await;
        self.copy = Some((copy, pos));
        if closes {
            self.reopen().await;
        }
    }

    async fn restore(&mut self) {
        let Some((copy, pos)) = self.copy.take() else {
            return;
        };
        self.engine.close().await;
        let end = self.place.number("SELECT pos FROM sync_heads").await;
        self.place.put_back(&copy).await;
        for replica in &mut self.replicas {
            replica.lost.push((pos, end));
        }
        self.reopen().await;
        let sql = "SELECT fence_start FROM sync_heads";
        assert!(self.place.number(sql).await > end, "positions come again");
    }

    async fn reopen(&mut self) {
        self.streams.fill_with(|| None);
        self.engine = open(&self.place, &self.limits, self.mistake).await;
        for person in &mut self.history.people {
            *person = person.at(&self.engine);
        }
    }

    async fn end(mut self, way: Way) {
        let size = self.size;
        if way == Way::Listen {
            self.all_hear_all().await;
            // A stream that is live tells all, without a sync.
            for _ in 0..20 {
                self.history.step().await;
            }
            self.all_hear_all().await;
        }
        for (replica, person) in self.replicas.iter_mut().zip(&self.history.people) {
            replica.catch_up(person, size).await;
        }
        // What comes late changes nothing.
        for (n, id, read) in self.fetched {
            self.replicas[n].fill(id, &read);
        }
        for (replica, person) in self.replicas.iter_mut().zip(&self.history.people) {
            replica.assert_equals_a_fresh_one(person).await;
            replica.catch_up(person, size).await;
            replica.fill_holes(person).await;
            replica.assert_equals_a_fresh_one(person).await;
        }
        for (rule, exceptions) in RULES {
            assert_eq!(self.place.number(exceptions).await, 0, "{rule}");
        }
        self.engine.close().await;
    }

    /// Everybody listens until they have heard of something of their own, and so of all before it.
    async fn all_hear_all(&mut self) {
        for n in 0..self.replicas.len() {
            if self.streams[n].is_none() {
                self.connect(n);
            }
        }
        for _ in 0..self.replicas.len() {
            self.history.step().await;
        }
        for (n, person) in self.history.people.clone().iter().enumerate() {
            self.history.change_name(n).await;
            let name = &person.user.username;
            let sql = format!("SELECT changed_pos FROM users WHERE username = '{name}'");
            let until = Position::new(self.place.number(&sql).await).unwrap();
            while self.replicas[n].told < until {
                if self.streams[n].is_none() {
                    self.connect(n); // its cursor was refused
                }
                let stream = self.streams[n].as_mut().unwrap();
                let update = soon("all is heard", stream.next()).await;
                self.hear(n, person, update).await;
            }
            // In the middle of a run it would not be.
            while !self.replicas[n].is_whole {
                let stream = self.streams[n].as_mut().unwrap();
                let update = soon("the rest is heard", stream.next()).await;
                self.hear(n, person, update).await;
            }
            self.replicas[n].assert_equals_a_fresh_one(person).await;
        }
    }
}

async fn open(place: &Place, limits: &Limits, mistake: Option<Mistake>) -> MessengerEngine {
    let builder = place.builder().limits(limits.clone());
    // No power is lost here.
    let builder = builder.durability(Durability::Relaxed);
    let builder = match mistake {
        Some(Mistake::Engine(fault)) => builder.plant(fault),
        _ => builder,
    };
    builder.open().await.unwrap()
}

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().unwrap())
}

/// What the seeds of random histories begin with.
pub(crate) fn first_seed() -> u64 {
    number("SYNC_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 16)
}

/// Tries random histories, and names the seed of one that fails.
async fn try_each(world: World, histories: u64, way: Way) {
    let kind = world.place.kind();
    drop(world);
    let histories = number("SYNC_HISTORIES").unwrap_or(histories);
    for seed in first_seed()..first_seed() + histories {
        let tried = AssertUnwindSafe(try_history(kind, way, seed, None));
        if let Err(panic) = tried.catch_unwind().await {
            println!("SYNC_SEED={seed} SYNC_HISTORIES=1");
            std::panic::resume_unwind(panic);
        }
    }
}

on_both_databases!(
    async fn whoever_was_away_has_what_somebody_has_who_begins(world: World) {
        try_each(world, 12, Way::Pull).await;
    }

    async fn whoever_listens_and_is_cut_off_and_resumes_has_everything(world: World) {
        try_each(world, 6, Way::Listen).await;
    }

    async fn whoever_has_seen_what_a_restore_took_back_begins_again_and_others_go_on(world: World) {
        try_each(world, 6, Way::PullFromCopies).await;
    }
);
