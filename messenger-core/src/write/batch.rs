//! The working set over which the operations of one transaction decide.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::needs::direct_key;
use super::prune::Prune;
use super::table::Table;
use crate::clock::Timestamp;
use crate::conversations::Membership;
use crate::error::{Error, Result};
use crate::events::{Change, Event};
use crate::ids::{ConversationId, Position, SessionId, UserId};
use crate::store::SHARD;
use crate::store::entity::{conversation, event, member, message, refresh_token, session, user};

/// Rows in memory, the transaction's time and the positions that it gives out.
///
/// Stamped rows (users, conversations, members) stay from one transaction to the next for as
/// long as nobody else has moved the head of the change log: whoever changes such a row moves it.
#[derive(Debug)]
pub(crate) struct Batch {
    now: Timestamp,
    deployment: Uuid,
    pub(super) head: i64,
    pub(crate) users: Table<Uuid, user::Model>,
    pub(crate) conversations: Table<Uuid, conversation::Model>,
    pub(crate) members: Table<(Uuid, Uuid), member::Model>,
    pub(crate) sessions: Table<Uuid, session::Model>,
    pub(crate) refresh_tokens: Table<Vec<u8>, refresh_token::Model>,
    pub(super) usernames: HashMap<String, Uuid>,
    pub(super) directs: HashMap<Vec<u8>, Uuid>,
    /// By the client's id and the sender.
    pub(super) messages: Table<(String, Uuid), message::Model>,
    pub(super) events: Vec<event::Model>,
    pub(super) changes: Vec<Change>,
    pub(super) prune: Option<Prune>,
}

impl Batch {
    pub(super) fn new(deployment: Uuid) -> Self {
        Self {
            now: Timestamp::from_micros(0),
            deployment,
            head: 0,
            users: Table::default(),
            conversations: Table::default(),
            members: Table::default(),
            sessions: Table::default(),
            refresh_tokens: Table::default(),
            usernames: HashMap::new(),
            directs: HashMap::new(),
            messages: Table::default(),
            events: Vec::new(),
            changes: Vec::new(),
            prune: None,
        }
    }

    /// Prepares for a transaction that has found the log's head at `head`.
    pub(super) fn begin(&mut self, now: Timestamp, head: i64, rows_max: usize) {
        let kept = self
            .users
            .len()
            .max(self.conversations.len())
            .max(self.members.len());
        if self.head != head || kept > rows_max {
            self.forget();
        }
        self.now = now;
        self.head = head;
    }

    /// Notes that the database now has what is here.
    pub(super) fn committed(&mut self) -> Vec<Change> {
        self.users.flushed();
        self.conversations.flushed();
        self.members.flushed();
        self.clear_unstamped();
        std::mem::take(&mut self.changes)
    }

    /// Drops every row: the database has not, or may not have, what is here.
    pub(super) fn forget(&mut self) {
        self.users.clear();
        self.conversations.clear();
        self.members.clear();
        self.usernames.clear();
        self.directs.clear();
        self.changes.clear();
        self.clear_unstamped();
    }

    fn clear_unstamped(&mut self) {
        self.sessions.clear();
        self.refresh_tokens.clear();
        self.messages.clear();
        self.events.clear();
        self.prune = None;
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
            aux: (!refs.aux.is_empty())
                .then(|| refs.aux.iter().flat_map(|id| *id.as_bytes()).collect()),
            created_at: self.now.as_micros(),
        });
    }

    /// Hands to the hub, after the commit, what the change log says in references.
    pub(crate) fn announce(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The id of the event at a position, the same on every node and at every delivery.
    pub(crate) fn event_id(&self, position: Position) -> Uuid {
        Event::id_at(self.deployment, position)
    }

    /// The user, who must exist.
    pub(crate) fn require_user(&self, id: UserId) -> Result<&user::Model> {
        self.users.get(&id.as_uuid()).ok_or(Error::UserNotFound)
    }

    /// The user who has this folded username.
    pub(crate) fn find_username(&self, key: &str) -> Option<UserId> {
        self.usernames.get(key).copied().map(UserId::from)
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
        self.members
            .get(&(conversation.as_uuid(), user.as_uuid()))
            .and_then(Membership::of)
            .ok_or(Error::ConversationNotFound)
    }

    /// The direct conversation of two people.
    pub(crate) fn find_direct(&self, one: UserId, other: UserId) -> Option<&conversation::Model> {
        let id = self.directs.get(&direct_key(one, other))?;
        self.conversations.get(id)
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
        self.messages.get(&(client_id.to_owned(), sender.as_uuid()))
    }

    /// Adds a message.
    pub(crate) fn insert_message(&mut self, row: message::Model) {
        let key = (row.client_message_id.clone(), row.sender_id);
        self.messages.insert(key, row);
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
}

/// What a line of the change log refers to.
#[derive(Debug, Default)]
pub(crate) struct LogRefs {
    pub(crate) conversation: Option<ConversationId>,
    pub(crate) user: Option<UserId>,
    pub(crate) actor: Option<UserId>,
    pub(crate) seq: Option<i64>,
    pub(crate) aux: Vec<Uuid>,
}
