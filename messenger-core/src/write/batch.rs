//! The working set over which the operations of one transaction decide.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::needs::{beside, direct_key};
use super::prune::Prune;
use super::table::Table;
use crate::clock::Timestamp;
use crate::conversations::Membership;
use crate::error::{Error, Result};
use crate::events::{Change, Event, EventKind};
use crate::ids::{ConversationId, MessageId, Position, SessionId, Stamp, UserId};
use crate::messages::search::queries::Step;
use crate::store::SHARD;
use crate::store::entity::{
    attachment, block, client_write, conversation, erasure, event, hook, hook_lane, member,
    message, pref, reaction, refresh_token, session, user,
};
use crate::users::Username;

/// Rows in memory, the transaction's time and the positions that it gives out.
///
/// Stamped rows (users, conversations, members) stay from one transaction to the next for as
/// long as nobody else has moved the head of the change log: whoever changes such a row moves it.
#[derive(Debug)]
pub(crate) struct Batch {
    now: Timestamp,
    deployment: Uuid,
    /// Where this life of the database begins.
    fence: Position,
    pub(super) head: i64,
    pub(crate) users: Table<Uuid, user::Model>,
    /// Users of whom is written when they were last seen, and nothing else.
    pub(super) seen: HashMap<Uuid, user::Model>,
    pub(crate) conversations: Table<Uuid, conversation::Model>,
    pub(crate) members: Table<(Uuid, Uuid), member::Model>,
    /// By owner and the one who is blocked.
    pub(crate) blocks: Table<(Uuid, Uuid), block::Model>,
    /// Pairs whose block is in `blocks` if there is one.
    pub(super) blocks_known: HashSet<(Uuid, Uuid)>,
    /// How many people somebody has blocked.
    pub(super) blocks_set: HashMap<Uuid, i64>,
    /// By owner and key.
    pub(crate) prefs: Table<(Uuid, String), pref::Model>,
    pub(super) prefs_kept: HashMap<Uuid, Kept>,
    pub(crate) sessions: Table<Uuid, session::Model>,
    pub(crate) refresh_tokens: Table<Vec<u8>, refresh_token::Model>,
    pub(super) usernames: HashMap<String, Uuid>,
    pub(super) directs: HashMap<Vec<u8>, Uuid>,
    pub(crate) messages: Table<Uuid, message::Model>,
    /// By message, user and emoji.
    pub(crate) reactions: Table<(Uuid, Uuid, String), reaction::Model>,
    /// Messages that lose all their reactions.
    pub(super) erased: Vec<Uuid>,
    pub(crate) attachments: Table<Uuid, attachment::Model>,
    /// By the client's id and the owner.
    pub(super) attachments_begun: HashMap<(String, Uuid), Uuid>,
    /// How many attachments somebody has that no message has.
    pub(super) attachments_unsent: HashMap<Uuid, i64>,
    /// Conversations that lose some of what is attached to their messages.
    pub(super) released: Vec<Uuid>,
    /// Whether files are nobody's any more.
    pub(super) frees: bool,
    /// Deletions of accounts that are not finished.
    pub(crate) erasures: Table<Uuid, erasure::Model>,
    /// By the client's id and the actor.
    pub(super) client_writes: Table<(String, Uuid), client_write::Model>,
    /// By the name of whoever is told of changes.
    pub(crate) hooks: Table<String, hook::Model>,
    /// By that name and the lane.
    pub(crate) hook_lanes: Table<(String, Uuid), hook_lane::Model>,
    /// By the client's id and the sender.
    pub(super) sent: HashMap<(String, Uuid), Uuid>,
    /// How many messages of a conversation after a sequence number the database has as deleted.
    pub(super) deleted_after: HashMap<(Uuid, i64), i64>,
    pub(super) events: Vec<event::Model>,
    pub(super) changes: Vec<Change>,
    /// It is to be seen whether the database can be written to.
    pub(super) is_probe: bool,
    pub(super) prune: Option<Prune>,
    pub(super) index: Option<Step>,
}

impl Batch {
    pub(super) fn new(deployment: Uuid) -> Self {
        Self {
            now: Timestamp::from_micros(0),
            deployment,
            fence: Position::ZERO,
            head: 0,
            users: Table::default(),
            seen: HashMap::new(),
            conversations: Table::default(),
            members: Table::default(),
            blocks: Table::default(),
            blocks_known: HashSet::new(),
            blocks_set: HashMap::new(),
            prefs: Table::default(),
            prefs_kept: HashMap::new(),
            sessions: Table::default(),
            refresh_tokens: Table::default(),
            usernames: HashMap::new(),
            directs: HashMap::new(),
            messages: Table::default(),
            reactions: Table::default(),
            erased: Vec::new(),
            attachments: Table::default(),
            attachments_begun: HashMap::new(),
            attachments_unsent: HashMap::new(),
            released: Vec::new(),
            frees: false,
            erasures: Table::default(),
            client_writes: Table::default(),
            hooks: Table::default(),
            hook_lanes: Table::default(),
            sent: HashMap::new(),
            deleted_after: HashMap::new(),
            events: Vec::new(),
            changes: Vec::new(),
            is_probe: false,
            prune: None,
            index: None,
        }
    }

    /// Prepares for a transaction that has found the head of the change log.
    pub(super) fn begin(&mut self, now: Timestamp, head: &Stamp, rows_max: usize) {
        let kept = self
            .users
            .len()
            .max(self.conversations.len())
            .max(self.members.len())
            .max(self.blocks_known.len());
        if self.head != head.as_of.get() || kept > rows_max {
            self.forget();
        }
        self.now = now;
        self.fence = head.fence;
        self.head = head.as_of.get();
    }

    /// Notes that the database now has what is here.
    pub(super) fn committed(&mut self) -> Vec<Change> {
        self.users.flushed();
        self.conversations.flushed();
        self.members.flushed();
        self.blocks.flushed();
        self.clear_unstamped();
        std::mem::take(&mut self.changes)
    }

    /// Drops every row: the database has not, or may not have, what is here.
    pub(super) fn forget(&mut self) {
        self.users.clear();
        self.conversations.clear();
        self.members.clear();
        self.blocks.clear();
        self.blocks_known.clear();
        self.usernames.clear();
        self.directs.clear();
        self.changes.clear();
        self.clear_unstamped();
    }

    fn clear_unstamped(&mut self) {
        self.seen.clear();
        self.blocks_set.clear();
        self.prefs.clear();
        self.prefs_kept.clear();
        self.sessions.clear();
        self.refresh_tokens.clear();
        self.messages.clear();
        self.reactions.clear();
        self.erased.clear();
        self.attachments.clear();
        self.attachments_begun.clear();
        self.attachments_unsent.clear();
        self.released.clear();
        self.frees = false;
        self.erasures.clear();
        self.client_writes.clear();
        self.hooks.clear();
        self.hook_lanes.clear();
        self.sent.clear();
        self.deleted_after.clear();
        self.events.clear();
        self.is_probe = false;
        self.prune = None;
        self.index = None;
    }

    /// The time of the transaction.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes an id, greater than every one made before.
    #[expect(clippy::unused_self, reason = "ids come from the batch, like its time")]
    pub(crate) fn id(&self) -> Uuid {
        Uuid::now_v7()
    }

    /// Gives out the next position of the change log, to the operation that changes something.
    pub(crate) fn next_position(&mut self) -> Position {
        self.head += 1;
        Position::stored(self.head)
    }

    /// Of what moment an answer is that is given now.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            shard: SHARD,
            fence: self.fence,
            as_of: Position::stored(self.head),
        }
    }

    /// Writes to the change log what happened at `position`.
    pub(crate) fn log(&mut self, position: Position, kind: event::Kind, refs: &LogRefs) {
        self.events.push(event::Model {
            shard: SHARD,
            pos: position.get(),
            kind,
            conversation_id: refs.conversation.map(ConversationId::as_uuid),
            user_id: refs.user.map(UserId::as_uuid),
            actor_id: refs.actor.map(UserId::as_uuid),
            seq: refs.seq,
            aux: refs.packed(),
            created_at: self.now.as_micros(),
        });
    }

    /// Hands to the hub, after the commit, what the change log says in references.
    pub(crate) fn announce(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The event of what happens at a position, to announce.
    pub(crate) fn event(&self, position: Position, kind: EventKind) -> Arc<Event> {
        let id = self.event_id(position);
        Arc::new(Event::new(id, position, self.now, kind))
    }

    /// The id of the event at a position, the same on every node and at every delivery.
    pub(crate) fn event_id(&self, position: Position) -> Uuid {
        Event::id_at(self.deployment, position)
    }

    /// The user, who must exist and whose account must not be deleted.
    pub(crate) fn require_user(&self, id: UserId) -> Result<&user::Model> {
        let row = self.users.get(&id.as_uuid());
        row.filter(|row| row.deleted_at.is_none())
            .ok_or(Error::UserNotFound)
    }

    /// The user who has this folded username, or had it until their account was deleted.
    pub(crate) fn find_username(&self, key: &str) -> Option<UserId> {
        let reserved = || self.usernames.get(&Username::reserved(key));
        let holder = self.usernames.get(key).or_else(reserved);
        holder.copied().map(UserId::from)
    }

    /// Notes that a user has another folded username.
    pub(crate) fn move_username(&mut self, user: Uuid, from: &str, to: &str) {
        self.usernames.remove(from);
        self.usernames.insert(to.to_owned(), user);
    }

    /// Keeps when a user was last seen, unless a later time is kept already; without a time, forgets
    /// it. It takes no position.
    pub(crate) fn put_seen(&mut self, user: UserId, at: Option<Timestamp>) {
        if let Some(row) = self.users.get(&user.as_uuid()) {
            let row = user::Model {
                last_seen_at: at.map(Timestamp::as_micros),
                ..row.clone()
            };
            self.seen.insert(row.id, row);
        }
    }

    /// Adds a user.
    pub(crate) fn insert_user(&mut self, row: user::Model) {
        self.usernames.insert(row.username_key.clone(), row.id);
        self.users.insert(row.id, row);
    }

    /// The proof that a user belongs to a conversation.
    pub(crate) fn require_membership(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Membership> {
        let row = self.conversations.get(&conversation.as_uuid());
        let member = self.members.get(&(conversation.as_uuid(), user.as_uuid()));
        row.zip(member)
            .and_then(|(row, member)| Membership::of(member, row))
            .ok_or(Error::ConversationNotFound)
    }

    /// The direct conversation of two people.
    pub(crate) fn find_direct(&self, one: UserId, other: UserId) -> Option<&conversation::Model> {
        let id = self.directs.get(&direct_key(one, other))?;
        self.conversations.get(id)
    }

    /// Whether somebody has blocked somebody. The operation must have named them.
    pub(crate) fn has_blocked(&self, owner: UserId, blocked: UserId) -> bool {
        let block = self.blocks.get(&(owner.as_uuid(), blocked.as_uuid()));
        block.is_some_and(|row| row.state == block::State::Set)
    }

    /// Insists that neither of two people has blocked the other. The operation must have named them
    /// as [`Needs::blocks_between`](super::Needs::blocks_between).
    pub(crate) fn require_unblocked(&self, one: UserId, other: UserId) -> Result<()> {
        if self.has_blocked(one, other) || self.has_blocked(other, one) {
            return Err(Error::Blocked);
        }
        Ok(())
    }

    /// Insists that a member may say something in a conversation: that neither account is
    /// deleted, and in a direct one that neither has blocked the other. The operation must have named it as [`Needs::peer`](super::Needs::peer).
    pub(crate) fn require_peer(&self, conversation: ConversationId, user: UserId) -> Result<()> {
        self.require_user(user)?;
        let row = self.conversations.get(&conversation.as_uuid());
        let key = row.and_then(|row| row.direct_key.as_deref());
        match key.and_then(|key| beside(key, user.as_uuid())) {
            Some(other) => {
                self.require_user(other.into())
                    .map_err(|_| Error::UserDeleted)?;
                self.require_unblocked(user, other.into())
            }
            None => Ok(()),
        }
    }

    /// How many people somebody has blocked. The operation must have named them.
    pub(crate) fn blocks_set(&self, owner: UserId) -> i64 {
        self.blocks_set.get(&owner.as_uuid()).copied().unwrap_or(0)
    }

    /// Sets or lifts a block, and tells the owner's devices. A block and a setting have a position
    /// each: a page of a sync may end at any, and the next one goes on after it.
    pub(crate) fn put_block(&mut self, owner: UserId, blocked: UserId, state: block::State) {
        let key = (owner.as_uuid(), blocked.as_uuid());
        let more = match state {
            block::State::Set => 1,
            block::State::Gone => -1,
        };
        *self.blocks_set.entry(key.0).or_default() += more;
        let row = block::Model {
            owner_id: key.0,
            blocked_id: key.1,
            state,
            changed_pos: self.own_changed(owner).get(),
        };
        match self.blocks.change(&key) {
            Some(stored) => *stored = row,
            None => self.blocks.insert(key, row),
        }
    }

    /// How much somebody keeps for themselves. The operation must have named it.
    pub(crate) fn prefs_kept(&self, owner: UserId) -> Kept {
        let kept = self.prefs_kept.get(&owner.as_uuid());
        kept.copied().unwrap_or_default()
    }

    /// Keeps something for somebody, or forgets it, and tells their devices; at a position of its
    /// own, as [`put_block`](Self::put_block).
    pub(crate) fn put_pref(&mut self, owner: UserId, key: &str, value: Option<&str>) {
        let row = pref::Model {
            owner_id: owner.as_uuid(),
            key: key.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            state: match value {
                Some(_) => pref::State::Set,
                None => pref::State::Gone,
            },
            changed_pos: self.own_changed(owner).get(),
        };
        let key = (row.owner_id, row.key.clone());
        let kept = self.prefs_kept.entry(row.owner_id).or_default();
        let is = i64::from(row.state == pref::State::Set);
        match self.prefs.change(&key) {
            Some(stored) => {
                kept.set += is - i64::from(stored.state == pref::State::Set);
                *stored = row;
            }
            None => {
                kept.set += is;
                kept.keys += 1;
                self.prefs.insert(key, row);
            }
        }
    }

    /// Tells somebody's own devices that something of their own has changed, outside of any
    /// conversation, and at which position.
    fn own_changed(&mut self, user: UserId) -> Position {
        let position = self.next_position();
        let refs = LogRefs {
            user: Some(user),
            actor: Some(user),
            ..LogRefs::default()
        };
        self.log(position, event::Kind::SelfChanged, &refs);
        let event = self.event(position, EventKind::SelfChanged);
        self.announce(Change::Own { user, event });
        position
    }

    /// Adds a conversation.
    pub(crate) fn insert_conversation(&mut self, row: conversation::Model) {
        if let Some(key) = &row.direct_key {
            self.directs.insert(key.clone(), row.id);
        }
        self.conversations.insert(row.id, row);
    }

    /// The message that a sender has sent under a client id.
    pub(crate) fn find_sent(&self, client_id: &str, sender: UserId) -> Option<&message::Model> {
        let id = self.sent.get(&(client_id.to_owned(), sender.as_uuid()))?;
        self.messages.get(id)
    }

    /// Adds a message.
    pub(crate) fn insert_message(&mut self, row: message::Model) {
        let key = (row.client_message_id.clone(), row.sender_id);
        self.sent.insert(key, row.id);
        self.messages.insert(row.id, row);
    }

    /// Takes away every reaction to a message, those too that were not loaded.
    pub(crate) fn erase_reactions(&mut self, message: MessageId) {
        let message = message.as_uuid();
        let here = self.reactions.rows();
        let here: Vec<(Uuid, Uuid, String)> = here
            .filter(|row| row.message_id == message)
            .map(|row| (row.message_id, row.user_id, row.emoji.clone()))
            .collect();
        for key in &here {
            self.reactions.remove(key);
        }
        self.erased.push(message);
    }

    /// The attachment that somebody has begun under a client id.
    #[cfg(feature = "attachments")]
    pub(crate) fn find_attachment(
        &self,
        client_id: &str,
        owner: UserId,
    ) -> Option<&attachment::Model> {
        let key = (client_id.to_owned(), owner.as_uuid());
        self.attachments.get(self.attachments_begun.get(&key)?)
    }

    /// How many attachments somebody has that no message has. The operation must have named them.
    #[cfg(feature = "attachments")]
    pub(crate) fn attachments_unsent(&self, owner: UserId) -> i64 {
        let unsent = self.attachments_unsent.get(&owner.as_uuid());
        unsent.copied().unwrap_or(0)
    }

    /// Adds an attachment.
    #[cfg(feature = "attachments")]
    pub(crate) fn insert_attachment(&mut self, row: attachment::Model) {
        *self.attachments_unsent.entry(row.owner_id).or_default() += 1;
        if let Some(client_id) = row.client_id.clone() {
            let key = (client_id, row.owner_id);
            self.attachments_begun.insert(key, row.id);
        }
        self.attachments.insert(row.id, row);
    }

    /// Takes an attachment from everybody; its file goes behind the transaction. Its client id may
    /// be used again.
    pub(crate) fn release_attachment(&mut self, id: Uuid) {
        let Some(row) = self.attachments.change(&id) else {
            return;
        };
        if row.message_id.is_none() && row.state != attachment::State::Released {
            *self.attachments_unsent.entry(row.owner_id).or_default() -= 1;
        }
        row.state = attachment::State::Released;
        row.due_at = Some(0);
        if let Some(client_id) = row.client_id.take() {
            let key = (client_id, row.owner_id);
            self.attachments_begun.remove(&key);
        }
        self.frees = true;
    }

    /// Takes some of what is attached to messages of a conversation from everybody. The rest is taken as
    /// soon as that has gone.
    pub(crate) fn release_attachments_in(&mut self, conversation: ConversationId) {
        let conversation = conversation.as_uuid();
        if !self.released.contains(&conversation) {
            self.released.push(conversation);
        }
        self.frees = true;
    }

    /// How many messages a member has not read, exactly: those after the marker that may be seen,
    /// less the deleted ones. The operation must have named the member and the marker as
    /// [`Needs::unread`](super::Needs::unread).
    pub(crate) fn unread(&self, row: &conversation::Model, member: &member::Model) -> u64 {
        let after = member.last_read_seq.max(member.visible_from_seq - 1);
        // What is not here is after all that the database has: of this transaction.
        let stored = self.deleted_after.get(&(row.id, after));
        // A deleted message never changes again, so a touched one was deleted here.
        let touched = self.messages.touched();
        let here = touched
            .new
            .iter()
            .chain(&touched.changed)
            .filter(|message| {
                message.conversation_id == row.id
                    && message.seq > after
                    && message.deleted_at.is_some()
            });
        let here = i64::try_from(here.count()).unwrap_or(i64::MAX);
        let unread = row.last_seq - after - stored.copied().unwrap_or(0) - here;
        u64::try_from(unread).unwrap_or(0)
    }

    /// How many owners a group has. The operation must have named them.
    pub(crate) fn owners(&self, conversation: ConversationId) -> usize {
        let owners = self.members.rows().filter(|row| {
            row.conversation_id == conversation.as_uuid()
                && row.role == member::Role::Owner
                && row.state == member::State::Joined
        });
        owners.count()
    }

    /// Ends sessions that have not ended yet, and announces it. Gives out one position if there
    /// are any.
    pub(crate) fn revoke_sessions(&mut self, user: UserId, sessions: &[SessionId]) {
        if sessions.is_empty() {
            return;
        }
        let now = self.now;
        for id in sessions {
            if let Some(row) = self.sessions.change(&id.as_uuid()) {
                row.revoked_at = Some(now.as_micros());
            }
        }
        let position = self.next_position();
        let refs = LogRefs {
            user: Some(user),
            aux: sessions.iter().map(|id| id.as_uuid()).collect(),
            ..LogRefs::default()
        };
        self.log(position, event::Kind::SessionsRevoked, &refs);
        self.announce(Change::SessionsRevoked {
            position,
            user,
            sessions: Arc::from(sessions),
            at: now,
        });
    }

    /// Asks for rows that have had their time to go.
    pub(super) fn prune(&mut self, prune: Prune) {
        self.prune = Some(prune);
    }

    /// Asks for something to be written.
    pub(super) fn probe(&mut self) {
        self.is_probe = true;
    }

    /// Asks for the index for searches to be brought a step further.
    pub(crate) fn index(&mut self, step: Step) {
        self.index = Some(step);
    }
}

/// How much somebody keeps for themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// Keys that have a value.
    pub(crate) set: i64,
    /// Keys that have or had one.
    pub(crate) keys: i64,
}

/// What a line of the change log refers to.
#[derive(Debug, Default)]
pub(crate) struct LogRefs {
    pub(crate) conversation: Option<ConversationId>,
    pub(crate) user: Option<UserId>,
    pub(crate) actor: Option<UserId>,
    pub(crate) seq: Option<i64>,
    pub(crate) aux: Vec<Uuid>,
    /// What is no id, in place of `aux`.
    pub(crate) bytes: Vec<u8>,
}

impl LogRefs {
    /// What somebody did in a conversation.
    pub(crate) fn of(conversation: ConversationId, actor: UserId) -> Self {
        Self {
            conversation: Some(conversation),
            actor: Some(actor),
            ..Self::default()
        }
    }

    fn packed(&self) -> Option<Vec<u8>> {
        let ids = self.aux.iter().flat_map(|id| *id.as_bytes());
        let packed: Vec<u8> = ids.chain(self.bytes.iter().copied()).collect();
        (!packed.is_empty()).then_some(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_messages_are_counted_with_what_the_batch_itself_deletes() {
        let mut batch = Batch::new(Uuid::nil());
        let id = Uuid::now_v7();
        let row = conversation::Model {
            id,
            shard: SHARD,
            kind: conversation::Kind::Group,
            state: conversation::State::Open,
            created_by: id,
            client_conversation_id: None,
            direct_key: None,
            title: None,
            history_policy: conversation::HistoryPolicy::All,
            last_seq: 6,
            min_seq: 1,
            member_count: 1,
            members_pos: 0,
            changed_pos: 0,
            last_pos: 0,
            last_message_at: None,
            last_message_preview: None,
            created_at: 0,
            updated_at: 0,
        };
        let member = member::Model {
            conversation_id: id,
            user_id: id,
            role: member::Role::Member,
            state: member::State::Joined,
            joined_pos: 0,
            changed_pos: 0,
            visible_from_seq: 1,
            last_read_seq: 1,
            read_pos: 0,
            self_pos: 0,
            muted_until: None,
            pinned_at: None,
            archived_at: None,
            delivered_seq: 1,
            marked_unread: false,
        };
        let message = |seq| message::Model {
            id: Uuid::now_v7(),
            conversation_id: id,
            seq,
            sender_id: id,
            client_message_id: seq.to_string(),
            kind: message::Kind::Text,
            content: String::new(),
            created_at: 0,
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            reactions: None,
            created_pos: 0,
            changed_pos: 0,
            metadata: None,
            mentions: None,
            attachments: None,
        };
        assert_eq!(batch.unread(&row, &member), 5);

        // Deleted before, and loaded by the way: counted by the database only.
        batch.deleted_after.insert((id, 1), 1);
        let deleted = message::Model {
            deleted_at: Some(1),
            ..message(2)
        };
        batch.messages.loaded(deleted.id, deleted);
        assert_eq!(batch.unread(&row, &member), 4);

        let (read, unread, new) = (message(1), message(3), message(6));
        for stored in [&read, &unread] {
            batch.messages.loaded(stored.id, stored.clone());
        }
        batch.insert_message(new.clone());
        assert_eq!(batch.unread(&row, &member), 4);
        for deleted in [&read, &unread, &new] {
            if let Some(row) = batch.messages.change(&deleted.id) {
                row.deleted_at = Some(2);
            }
        }
        assert_eq!(batch.unread(&row, &member), 2);
        let since_now = member::Model {
            visible_from_seq: 7,
            ..member
        };
        assert_eq!(batch.unread(&row, &since_now), 0);
    }
}
