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
use messenger_core::{ConversationId, Error, Position, ResyncReason, Seq, UserId};

use crate::world::Person;

/// How large the pages are that a replica asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) limit: u32,
    pub(crate) timeline: u32,
}

/// A duty that a client forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// Whatever came last replaces what is there.
    NoVersionMerge,
    /// What a page says of a message in a hole is dropped.
    DropRowsInHoles,
    /// Any answer fills a hole.
    IgnoreAsOf,
    /// An answer counts though the conversation was joined again since.
    IgnoreMembershipVersion,
    /// An answer counts though it is of another life of the database.
    MixFences,
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
    /// What was asked with last.
    asked: Option<Position>,
    fence: Option<Position>,
    /// The position up to which pages and events have told everything.
    pub(crate) told: Position,
    /// Whether no page is missing.
    pub(crate) is_whole: bool,
    /// Whether the cursor may stand beyond everything that was told, since nothing concerned it.
    is_beyond: bool,
    /// The newest position that anything here is of.
    newest: Position,
    lapse: Option<Lapse>,
    /// What restores have taken back: after the first position, up to the second.
    pub(crate) lost: Vec<(i64, i64)>,
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
    /// One that has nothing yet.
    pub(crate) fn new(lapse: Option<Lapse>) -> Self {
        Self {
            lapse,
            ..Self::default()
        }
    }

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
    pub(crate) fn ask(&mut self, size: Size) -> Pull {
        self.asked = self.seen;
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
            Err(Error::ResyncRequired(reason)) => {
                self.begin_again(reason);
                return true;
            }
            Err(error) => panic!("{error:?}"),
        };
        if !self.may_take(&pulled.page) {
            return true;
        }
        let own = pulled.page.own.prefs.len() + pulled.page.own.blocks.len();
        let rows = pulled.page.messages.len() + pulled.page.conversations.len() + own;
        let most = (size.limit + size.timeline + 1) as usize;
        assert!(rows <= most, "a page of {rows} rows, {size:?}");
        let has_more = pulled.page.has_more;
        self.apply(pulled.page);
        self.cursor = Some(pulled.next);
        has_more
    }

    /// Whether a page goes together with what is here. If it is of another life of the database, and
    /// something was seen since it was asked for, it is asked for again.
    fn may_take(&self, page: &Page) -> bool {
        let is_same = self.fence.is_none_or(|fence| fence == page.stamp.fence);
        if !is_same && self.seen > self.asked {
            return false;
        }
        assert!(!self.has_diverged(), "what was lost is taken for history");
        true
    }

    /// Whether anything here is of a history that a restore took back.
    fn has_diverged(&self) -> bool {
        let newest = self.newest.get();
        let mut lost = self.lost.iter();
        lost.any(|(fork, end)| (fork + 1..=*end).contains(&newest))
    }

    /// Drops everything that is not confirmed from the beginning, which only what was taken back is
    /// a reason for.
    pub(crate) fn begin_again(&mut self, reason: ResyncReason) {
        assert_eq!(reason, ResyncReason::HistoryDiverged);
        let may_have = self.is_beyond && !self.lost.is_empty();
        assert!(
            self.has_diverged() || may_have,
            "refused, though nothing was lost"
        );
        *self = Self {
            lapse: self.lapse,
            lost: std::mem::take(&mut self.lost),
            ..Self::default()
        };
    }

    /// Everything up to a position is known now, by a cursor that says so itself.
    fn told(&mut self, position: Position) {
        self.told = position;
        self.is_beyond = false;
        self.newest = self.newest.max(position);
    }

    fn apply(&mut self, page: Page) {
        assert!(page.stamp.as_of >= self.told, "a page of the past");
        self.is_whole = !page.has_more;
        self.told(page.stamp.as_of);
        self.seen = self.seen.filter(|seen| *seen > page.stamp.as_of);
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
            let (before, now) = (&room.conversation, &change.conversation);
            assert!(
                (before.version, before.own.version) <= (now.version, now.own.version)
                    && before.own.version <= now.own.version,
                "a conversation of the past"
            );
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
            let named = message.mentions.iter().chain([&message.sender_id]);
            assert!(named.into_iter().all(|id| self.users.contains_key(id)));
            let room = self.rooms.get_mut(&message.conversation_id).unwrap();
            let in_a_hole = room.holes.contains_key(&message.seq.get());
            if !in_a_hole || self.lapse != Some(Lapse::DropRowsInHoles) {
                room.store(message, !in_a_hole, self.lapse);
            }
        }
        for marker in page.markers {
            assert!(self.users.contains_key(&marker.user_id), "whose marker");
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

    /// Takes in what a stream brings; tells whether the stream may go on.
    pub(crate) fn take(&mut self, me: UserId, update: Update) -> bool {
        match update {
            Update::Page { page, cursor } => {
                if !self.may_take(&page) {
                    return false;
                }
                self.apply(*page);
                self.cursor = Some(cursor);
            }
            Update::Event { event, cursor } => {
                self.happened(me, &event);
                self.cursor = Some(cursor);
            }
            Update::Live { cursor } | Update::Quiet { cursor } => {
                self.is_whole = true;
                self.is_beyond = true;
                self.cursor = Some(cursor);
            }
            _ => {}
        }
        true
    }

    fn happened(&mut self, me: UserId, event: &Event) {
        assert!(event.position > self.told, "told twice, or in no order");
        self.told(event.position);
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
                room.store(message.clone(), true, self.lapse);
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
                    room.store(message, true, self.lapse);
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
                room.store(message.clone(), !in_a_hole, self.lapse);
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
        if self.fence != Some(stamp.fence) && self.lapse != Some(Lapse::MixFences) {
            return;
        }
        self.seen = self.seen.max(Some(stamp.as_of));
        self.newest = self.newest.max(stamp.as_of);
        let Some(room) = self.rooms.get_mut(&conversation) else {
            return;
        };
        let joined_again = room.conversation.own.membership_version != history.membership_version;
        if joined_again && self.lapse != Some(Lapse::IgnoreMembershipVersion) {
            return;
        }
        for message in &history.messages {
            let hole = room.holes.get(&message.seq.get());
            let fills = hole.is_none_or(|as_of| *as_of <= stamp.as_of)
                || self.lapse == Some(Lapse::IgnoreAsOf);
            room.store(message.clone(), fills, self.lapse);
        }
    }

    /// Reads every message that it knows to be missing.
    pub(crate) async fn fill_holes(&mut self, person: &Person) {
        let holes = self.rooms.iter().flat_map(|(id, room)| {
            let holes = room.holes.keys();
            holes.map(|hole| (*id, *hole)).collect::<Vec<_>>()
        });
        for (id, hole) in holes.collect::<Vec<_>>() {
            let conversations = person.engine.conversations();
            let membership = conversations.membership(&person.actor, id).await.unwrap();
            let messages = person.engine.messages();
            let read = messages.history(&membership, around(hole), 3).await;
            self.fill(id, &read.unwrap());
            let left = &self.rooms[&id].holes;
            assert!(
                !left.contains_key(&hole),
                "{hole} of {id} can not be filled"
            );
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
            let own = &room.conversation.own;
            let unread = history.iter().filter(|it| {
                it.seq > own.last_read && it.deleted_at.is_none() && it.sender_id != person.user.id
            });
            assert_eq!(own.unread_count, unread.count() as u64, "unread in {id}");
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

    fn store(&mut self, message: Message, is_verified: bool, lapse: Option<Lapse>) {
        let visible_from = self.conversation.own.visible_from;
        assert!(message.seq >= visible_from, "from before the member's time");
        let seq = message.seq.get();
        if is_verified {
            self.holes.remove(&seq);
            self.verified.insert(seq);
        }
        let known = self.messages.get(&seq);
        if let Some(known) = known.filter(|known| known.version == message.version) {
            assert_eq!(*known, message, "two forms of one version");
        }
        let is_newer = known.is_none_or(|known| known.version <= message.version);
        if is_newer || lapse == Some(Lapse::NoVersionMerge) {
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
