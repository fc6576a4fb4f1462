//! What a client keeps, and how it takes in what a sync brings: as the protocol tells clients to.
//!
//! A replica knows, of each conversation, which messages it has for certain (`verified`) and which
//! it knows to be missing (`holes`); it never guesses.

use std::collections::{BTreeMap, BTreeSet};

use messenger_core::conversations::{Conversation, ConversationHead, Marker, Member};
use messenger_core::events::{Event, EventKind, Update};
use messenger_core::messages::{Between, History, Message};
use messenger_core::sync::{Cursor, OwnChanges, Page, Pull};
use messenger_core::users::{Block, Pref, PrefKey, User};
use messenger_core::{ConversationId, Error, Position, Seq, UserId};

use crate::world::Person;

/// How large the pages are that a replica asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) limit: u32,
    pub(crate) timeline: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) users: BTreeMap<UserId, User>,
    pub(crate) rooms: BTreeMap<ConversationId, Room>,
    pub(crate) prefs: BTreeMap<PrefKey, Pref>,
    pub(crate) blocks: BTreeMap<UserId, Block>,
    /// The newest position of any answer since the last page, and the history that it belongs to.
    seen: Option<Position>,
    fence: Option<Position>,
}

/// One conversation of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) conversation: Conversation,
    members: Vec<Member>,
    pub(crate) messages: BTreeMap<i64, Message>,
    verified: BTreeSet<i64>,
    /// By sequence number, the position from which on an answer fills the hole.
    pub(crate) holes: BTreeMap<i64, Position>,
    markers: BTreeMap<UserId, Marker>,
}

impl Replica {
    /// Asks for pages until there are no more; tells how many it took.
    pub(crate) async fn catch_up(&mut self, person: &Person, size: Size) -> usize {
        let mut pages = 0;
        loop {
            pages += 1;
            assert!(pages < 10_000, "no end of pages");
            if !self.pull(person, size).await {
                return pages;
            }
        }
    }

    /// What to ask with, to go on from here.
    pub(crate) fn ask(&self, size: Size) -> Pull {
        Pull {
            cursor: self.cursor.clone(),
            seen: self.seen,
            limit: size.limit,
            timeline_limit: size.timeline,
            ..Pull::default()
        }
    }

    /// Asks for one page; tells whether there are more.
    pub(crate) async fn pull(&mut self, person: &Person, size: Size) -> bool {
        let pull = self.ask(size);
        let pulled = match person.engine.sync().pull(&person.actor, &pull).await {
            Ok(pulled) => pulled,
            Err(Error::ResyncRequired(_)) => {
                // Everything that is not confirmed from the beginning is dropped.
                *self = Self::default();
                return true;
            }
            Err(error) => panic!("{error:?}"),
        };
        let own = pulled.page.own.prefs.len() + pulled.page.own.blocks.len();
        let rows = pulled.page.messages.len() + pulled.page.conversations.len() + own;
        let most = (size.limit + size.timeline + 1) as usize;
        assert!(rows <= most, "a page of {rows} rows, {size:?}");
        let has_more = pulled.page.has_more;
        self.apply(pulled.page);
        self.cursor = Some(pulled.next);
        has_more
    }

    fn apply(&mut self, page: Page) {
        self.seen = None; // the cursor itself says what this page knew
        self.fence = Some(page.stamp.fence);
        for user in page.users {
            self.users.insert(user.id, user);
        }
        self.apply_own(page.own);
        for removal in page.removals {
            let room = self.rooms.get(&removal.conversation_id);
            if room.is_some_and(|it| it.conversation.own.membership_version < removal.version) {
                self.rooms.remove(&removal.conversation_id);
            }
        }
        for change in page.conversations {
            let id = change.conversation.id;
            let listed = change
                .lists_members
                .then(|| change.conversation.members.clone());
            if change.is_initial || !self.rooms.contains_key(&id) {
                let members = listed.expect("a conversation that is new lists its members");
                self.rooms
                    .insert(id, Room::new(change.conversation, members));
                continue;
            }
            let room = self.rooms.get_mut(&id).unwrap();
            if let Some(members) = listed {
                room.members = members;
            }
            if change.conversation.is_large {
                room.markers.clear();
            }
            room.conversation = change.conversation;
        }
        for gap in page.gaps {
            let room = self.rooms.get_mut(&gap.conversation_id).unwrap();
            for seq in gap.first.get()..=gap.last.get() {
                room.verified.remove(&seq);
                room.holes.insert(seq, gap.as_of);
            }
        }
        for message in page.messages {
            assert!(self.users.contains_key(&message.sender_id), "a sender");
            let room = self.rooms.get_mut(&message.conversation_id).unwrap();
            let in_a_hole = room.holes.contains_key(&message.seq.get());
            room.store(message, !in_a_hole);
        }
        for marker in page.markers {
            let room = self.rooms.get_mut(&marker.conversation_id).unwrap();
            let known = room.markers.get(&marker.user_id);
            if known.is_none_or(|known| known.version <= marker.version) {
                room.markers.insert(marker.user_id, marker);
            }
        }
    }

    /// Of two forms of a row, the newer one stays; what is no more stays too, as what it is.
    fn apply_own(&mut self, own: OwnChanges) {
        for pref in own.prefs {
            let known = self.prefs.get(&pref.key);
            if known.is_none_or(|known| known.version <= pref.version) {
                self.prefs.insert(pref.key.clone(), pref);
            }
        }
        for block in own.blocks {
            assert!(self.users.contains_key(&block.user_id), "somebody blocked");
            let known = self.blocks.get(&block.user_id);
            if known.is_none_or(|known| known.version <= block.version) {
                self.blocks.insert(block.user_id, block);
            }
        }
    }

    /// What is kept and who is blocked now.
    fn current_own(&self) -> (Vec<&Pref>, Vec<&Block>) {
        let prefs = self.prefs.values().filter(|pref| pref.value.is_some());
        let blocks = self.blocks.values().filter(|block| block.blocked);
        (prefs.collect(), blocks.collect())
    }

    /// Takes in what a stream brings.
    pub(crate) fn take(&mut self, me: UserId, update: Update) {
        match update {
            Update::Page { page, cursor } => {
                self.apply(*page);
                self.cursor = Some(cursor);
            }
            Update::Event { event, cursor } => {
                self.happened(me, &event);
                self.cursor = Some(cursor);
            }
            Update::Live { cursor } | Update::Quiet { cursor } => self.cursor = Some(cursor),
            _ => {}
        }
    }

    fn happened(&mut self, me: UserId, event: &Event) {
        self.seen = None;
        match &event.kind {
            EventKind::MessageCreated {
                message,
                sender,
                conversation,
            } => {
                self.users.insert(sender.id, sender.clone());
                let room = self.rooms.get_mut(&message.conversation_id).unwrap();
                room.head(conversation);
                room.conversation.last_seq = message.seq;
                let own = &mut room.conversation.own;
                if message.sender_id == me {
                    // Whoever sends has read all before.
                    own.last_read = message.seq;
                    own.last_delivered = message.seq;
                    own.unread_count = 0;
                    own.marked_unread = false;
                    own.version = event.position;
                } else {
                    own.unread_count += 1;
                }
                room.mark(Marker::new(
                    message.conversation_id,
                    message.sender_id,
                    message.seq,
                    message.seq,
                    event.position,
                ));
                room.store(message.clone(), true);
            }
            EventKind::MessageUpdated {
                message,
                reaction,
                conversation,
            } => {
                let room = self.rooms.get_mut(&message.conversation_id).unwrap();
                if let Some(head) = conversation {
                    room.head(head);
                }
                let known = room.messages.get(&message.seq.get());
                let mut message = message.clone();
                for reactions in &mut message.reactions {
                    // Whose they are is not said to everybody, but what has changed is.
                    let changed = reaction
                        .as_ref()
                        .filter(|it| it.user_id == me && it.emoji == reactions.emoji);
                    reactions.mine = match changed {
                        Some(change) => change.added,
                        None => known.is_some_and(|known| {
                            let mut before = known.reactions.iter();
                            before.any(|it| it.emoji == reactions.emoji && it.mine)
                        }),
                    };
                }
                let in_a_hole = room.holes.contains_key(&message.seq.get());
                // Whose its reactions are is not said: a hole asks for an answer that is not older.
                if in_a_hole {
                    room.holes.insert(message.seq.get(), message.version);
                } else {
                    room.store(message, true);
                }
            }
            EventKind::MessageDeleted {
                message,
                conversation,
            } => {
                let room = self.rooms.get_mut(&message.conversation_id).unwrap();
                if let Some(head) = conversation {
                    room.head(head);
                }
                let own = &mut room.conversation.own;
                if message.seq > own.last_read && message.seq >= own.visible_from {
                    own.unread_count -= 1;
                }
                let in_a_hole = room.holes.contains_key(&message.seq.get());
                room.store(message.clone(), !in_a_hole);
            }
            EventKind::MarkerChanged {
                conversation,
                user,
                markers,
            } => {
                let room = self.rooms.get_mut(conversation).unwrap();
                if *user == me {
                    let own = &mut room.conversation.own;
                    if own.last_read != markers.last_read {
                        own.marked_unread = false;
                    }
                    own.last_read = markers.last_read;
                    own.last_delivered = markers.last_delivered;
                    own.unread_count = markers.unread_count;
                    own.version = event.position;
                }
                room.mark(Marker::new(
                    *conversation,
                    *user,
                    markers.last_read,
                    markers.last_delivered,
                    event.position,
                ));
            }
            EventKind::UserChanged { user } => {
                self.users.insert(user.id, user.clone());
                for room in self.rooms.values_mut() {
                    for member in &mut room.members {
                        if member.user.id == user.id {
                            member.user = user.clone();
                        }
                    }
                }
            }
            other => panic!("a page says this: {other:?}"),
        }
    }

    /// Takes in messages that were read on demand, however long ago.
    pub(crate) fn fill(&mut self, conversation: ConversationId, history: &History) {
        let stamp = history.stamp;
        // Of another life of the database: only a sync can tell whether it goes together.
        if self.fence != Some(stamp.fence) {
            return;
        }
        self.seen = self.seen.max(Some(stamp.as_of));
        let Some(room) = self.rooms.get_mut(&conversation) else {
            return;
        };
        if room.conversation.own.membership_version != history.membership_version {
            return;
        }
        for message in &history.messages {
            let hole = room.holes.get(&message.seq.get());
            let fills = hole.is_none_or(|as_of| *as_of <= stamp.as_of);
            room.store(message.clone(), fills);
        }
    }

    /// Insists that this is what somebody sees who begins now, in all that this one has verified.
    pub(crate) async fn assert_equals_a_fresh_one(&self, person: &Person) {
        let mut fresh = Self::default();
        let size = Size {
            limit: 500,
            timeline: 200,
        };
        fresh.catch_up(person, size).await;
        let ids = |replica: &Self| replica.rooms.keys().copied().collect::<Vec<_>>();
        assert_eq!(ids(self), ids(&fresh), "conversations");
        for (id, room) in &self.rooms {
            let truth = &fresh.rooms[id];
            let plain = |room: &Room| {
                let mut conversation = room.conversation.clone();
                conversation.members.clear();
                conversation
            };
            assert_eq!(plain(room), plain(truth), "conversation {id}");
            let ids = |room: &Room| -> Vec<_> {
                let members = room.members.iter();
                members
                    .map(|member| (member.user.id, member.role))
                    .collect()
            };
            assert_eq!(ids(room), ids(truth), "members of {id}");
            let (first, last) = (
                room.conversation.own.visible_from.get(),
                room.conversation.last_seq.get(),
            );
            let history = person.history(*id).await;
            assert_eq!(history.len() as i64, (last - first + 1).max(0));
            for message in history {
                let seq = message.seq.get();
                if room.verified.contains(&seq) {
                    assert_eq!(room.messages[&seq], message, "message {seq} of {id}");
                } else {
                    assert!(
                        room.holes.contains_key(&seq),
                        "{seq} of {id} is a silent gap"
                    );
                }
            }
            assert!(
                room.messages.keys().all(|seq| *seq >= first),
                "messages of {id} from before the member's time"
            );
            if !room.conversation.is_large {
                assert_eq!(room.current_markers(), truth.current_markers(), "{id}");
                for (user, _) in ids(room) {
                    assert_eq!(self.users[&user], fresh.users[&user], "a profile");
                }
            }
        }
        assert_eq!(self.users[&person.user.id], fresh.users[&person.user.id]);
        assert_eq!(self.current_own(), fresh.current_own());
    }
}

impl Room {
    fn new(conversation: Conversation, members: Vec<Member>) -> Self {
        Self {
            conversation,
            members,
            messages: BTreeMap::new(),
            verified: BTreeSet::new(),
            holes: BTreeMap::new(),
            markers: BTreeMap::new(),
        }
    }

    /// Takes in what a message has changed about the conversation.
    fn head(&mut self, head: &ConversationHead) {
        self.conversation.updated_at = head.updated_at;
        self.conversation
            .last_message_preview
            .clone_from(&head.last_message_preview);
        self.conversation.last_message_at = head.last_message_at;
        self.conversation.version = head.version;
    }

    /// In a large conversation the markers of others are not kept.
    fn mark(&mut self, marker: Marker) {
        if !self.conversation.is_large {
            self.markers.insert(marker.user_id, marker);
        }
    }

    fn store(&mut self, message: Message, is_verified: bool) {
        let seq = message.seq.get();
        if is_verified {
            self.holes.remove(&seq);
            self.verified.insert(seq);
        }
        let known = self.messages.get(&seq);
        if known.is_none_or(|known| known.version <= message.version) {
            self.messages.insert(seq, message);
        }
    }

    /// The markers of those who belong to it now.
    fn current_markers(&self) -> Vec<Marker> {
        let members = self.members.iter();
        members
            .filter_map(|member| self.markers.get(&member.user.id))
            .copied()
            .collect()
    }
}

/// A stretch of a conversation to read on demand.
pub(crate) fn around(seq: i64) -> Between {
    Between {
        after: Seq::new(seq - 1),
        before: Seq::new(seq + 2),
    }
}
