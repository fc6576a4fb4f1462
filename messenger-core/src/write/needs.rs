//! The rows that the operations of a batch must see.

use std::collections::HashSet;

use uuid::Uuid;

use crate::ids::{AttachmentId, ConversationId, MessageId, Seq, UserId};
use crate::users::Username;

/// Keys of rows, gathered from every operation of a batch.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(super) users: HashSet<Uuid>,
    pub(super) usernames: HashSet<String>,
    pub(super) sessions: HashSet<Uuid>,
    pub(super) sessions_of: HashSet<Uuid>,
    pub(super) refresh_tokens: HashSet<Vec<u8>>,
    pub(super) conversations: HashSet<Uuid>,
    pub(super) directs: HashSet<(UserId, UserId)>,
    pub(super) blocks: HashSet<(Uuid, Uuid)>,
    pub(super) block_counts: HashSet<Uuid>,
    pub(super) peers: HashSet<(Uuid, Uuid)>,
    pub(super) prefs: HashSet<(Uuid, String)>,
    pub(super) pref_counts: HashSet<Uuid>,
    pub(super) members: HashSet<(Uuid, Uuid)>,
    pub(super) owners: HashSet<Uuid>,
    pub(super) owners_beside: HashSet<(Uuid, Uuid)>,
    pub(super) unread: HashSet<(Uuid, Uuid, i64)>,
    pub(super) sent: HashSet<(String, Uuid)>,
    pub(super) messages: HashSet<Uuid>,
    pub(super) reactions: HashSet<(Uuid, Uuid)>,
    pub(super) attachments: HashSet<Uuid>,
    pub(super) attachments_of: HashSet<Uuid>,
    pub(super) attachments_begun: HashSet<(String, Uuid)>,
    pub(super) attachment_counts: HashSet<Uuid>,
    pub(super) erasures: HashSet<Uuid>,
    pub(super) client_writes: HashSet<(String, Uuid)>,
    pub(super) hooks: HashSet<String>,
    pub(super) hook_lanes: HashSet<(String, Uuid)>,
}

impl Needs {
    pub(crate) fn user(&mut self, id: UserId) {
        self.users.insert(id.as_uuid());
    }

    /// The user who has this folded username, or had it until their account was deleted, if any.
    pub(crate) fn username(&mut self, key: &str) {
        self.usernames.insert(key.to_owned());
        self.usernames.insert(Username::reserved(key));
    }

    /// Every session of a user that has not been revoked.
    pub(crate) fn sessions_of(&mut self, user: UserId) {
        self.sessions_of.insert(user.as_uuid());
    }

    /// The refresh token with this hash, the one that replaced it, their session and its user.
    pub(crate) fn refresh_token(&mut self, hash: &[u8]) {
        self.refresh_tokens.insert(hash.to_vec());
    }

    /// A conversation.
    #[cfg(feature = "attachments")]
    pub(crate) fn conversation(&mut self, id: ConversationId) {
        self.conversations.insert(id.as_uuid());
    }

    /// A conversation and somebody's membership in it.
    pub(crate) fn membership(&mut self, conversation: ConversationId, user: UserId) {
        self.conversations.insert(conversation.as_uuid());
        self.members
            .insert((conversation.as_uuid(), user.as_uuid()));
    }

    /// Whether each of two people has blocked the other.
    pub(crate) fn blocks_between(&mut self, one: UserId, other: UserId) {
        let (one, other) = (one.as_uuid(), other.as_uuid());
        self.blocks.extend([(one, other), (other, one)]);
    }

    /// Whether somebody has blocked somebody, and how many people they have blocked.
    pub(crate) fn block(&mut self, owner: UserId, blocked: UserId) {
        self.blocks.insert((owner.as_uuid(), blocked.as_uuid()));
        self.block_counts.insert(owner.as_uuid());
    }

    /// If a conversation is direct, the other person of it and the blocks between the two.
    pub(crate) fn peer(&mut self, conversation: ConversationId, user: UserId) {
        self.membership(conversation, user);
        self.peers.insert((conversation.as_uuid(), user.as_uuid()));
    }

    /// What somebody keeps under a key, and how much they keep.
    pub(crate) fn pref(&mut self, owner: UserId, key: &str) {
        self.prefs.insert((owner.as_uuid(), key.to_owned()));
        self.pref_counts.insert(owner.as_uuid());
    }

    /// Everybody who owns a group.
    pub(crate) fn owners(&mut self, conversation: ConversationId) {
        self.owners.insert(conversation.as_uuid());
    }

    /// Everybody who owns a group, if this member does. Whoever makes owners names
    /// [`owners`](Self::owners), so nobody becomes one within the batch unnoticed.
    pub(crate) fn owners_beside(&mut self, conversation: ConversationId, user: UserId) {
        self.owners_beside
            .insert((conversation.as_uuid(), user.as_uuid()));
    }

    /// What is needed to count the messages that a member has not read, whose marker stays where
    /// it is or moves to `seq`.
    pub(crate) fn unread(&mut self, conversation: ConversationId, user: UserId, seq: Seq) {
        self.membership(conversation, user);
        self.unread
            .insert((conversation.as_uuid(), user.as_uuid(), seq.get()));
    }

    /// The direct conversation of two people, if any.
    pub(crate) fn direct(&mut self, one: UserId, other: UserId) {
        self.directs.insert((one.min(other), one.max(other)));
    }

    /// The message that a sender has sent under a client id, if any.
    pub(crate) fn sent(&mut self, client_id: &str, sender: UserId) {
        self.sent.insert((client_id.to_owned(), sender.as_uuid()));
    }

    /// A message.
    pub(crate) fn message(&mut self, id: MessageId) {
        self.messages.insert(id.as_uuid());
    }

    /// All reactions of a user to a message.
    pub(crate) fn reactions(&mut self, message: MessageId, user: UserId) {
        self.reactions.insert((message.as_uuid(), user.as_uuid()));
    }

    /// An attachment.
    pub(crate) fn attachment(&mut self, id: AttachmentId) {
        self.attachments.insert(id.as_uuid());
    }

    /// A message and all that is attached to it.
    pub(crate) fn attachments_of(&mut self, message: MessageId) {
        self.message(message);
        self.attachments_of.insert(message.as_uuid());
    }

    /// The attachment that somebody has begun under a client id, if any.
    #[cfg(feature = "attachments")]
    pub(crate) fn attachment_begun(&mut self, client_id: &str, owner: UserId) {
        self.attachments_begun
            .insert((client_id.to_owned(), owner.as_uuid()));
    }

    /// How many attachments somebody has that no message has.
    #[cfg(feature = "attachments")]
    pub(crate) fn attachments_unsent(&mut self, owner: UserId) {
        self.attachment_counts.insert(owner.as_uuid());
    }

    /// What is still to be done of the deletion of an account.
    pub(crate) fn erasure(&mut self, user: UserId) {
        self.erasures.insert(user.as_uuid());
    }

    /// How far the host was told of changes under a name.
    pub(crate) fn hook(&mut self, name: &str) {
        self.hooks.insert(name.to_owned());
    }

    /// What could not be told yet under a name, of one lane.
    pub(crate) fn hook_lane(&mut self, name: &str, lane: Uuid) {
        self.hook_lanes.insert((name.to_owned(), lane));
    }

    /// The write that an actor has made under a client id, if any.
    pub(crate) fn client_write(&mut self, client_id: &str, actor: UserId) {
        self.client_writes
            .insert((client_id.to_owned(), actor.as_uuid()));
    }
}

/// The key that makes a direct conversation unique: the smaller id, then the greater one.
pub(crate) fn direct_key(one: UserId, other: UserId) -> Vec<u8> {
    let (low, high) = (one.min(other), one.max(other));
    [*low.as_uuid().as_bytes(), *high.as_uuid().as_bytes()].concat()
}

/// The other person of a direct conversation.
pub(crate) fn beside(direct_key: &[u8], user: Uuid) -> Option<Uuid> {
    let (low, high) = direct_key.split_at_checked(16)?;
    let other = if low == user.as_bytes() { high } else { low };
    Uuid::from_slice(other).ok()
}
