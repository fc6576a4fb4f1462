//! Conversations, and who belongs to them.

mod change;
mod create;
mod groups;
mod markers;
mod membership;
pub(crate) mod queries;
mod settings;
mod typing;

pub(crate) use self::change::LeaveForGood;
use self::create::OpenDirect;
pub use self::groups::{HistoryPolicy, NewGroup, Title};
pub use self::markers::Markers;
pub use self::membership::Membership;
pub use self::settings::{Settings, SettingsChange};
pub use self::typing::{TYPING_TTL, Typing};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::engine::MessengerEngine;
use crate::error::{Error, Invalid, Result};
use crate::hooks::{BeforeJoin, Joins};
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::store::entity::{conversation, member};
use crate::users::User;
use crate::write::{ClientWriteId, Operation, Repeatable};

/// Conversations: the view that [`MessengerEngine::conversations`] gives.
#[derive(Debug)]
pub struct Conversations<'a> {
    engine: &'a MessengerEngine,
    once: Option<ClientWriteId>,
}

/// What kind of conversation it is. The list is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConversationKind {
    /// Two people; there is one such conversation for each pair.
    Direct,
    /// As many people as like, who come and go.
    Group,
}

impl ConversationKind {
    /// Returns the name on the wire: `direct`, `group`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }
}

/// A conversation as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// What kind it is.
    pub kind: ConversationKind,
    /// The title of a group.
    pub title: Option<String>,
    /// When something about it last changed.
    pub updated_at: Timestamp,
    /// The beginning of the last message, up to 280 characters.
    pub last_message_preview: Option<String>,
    /// When the last message was sent.
    pub last_message_at: Option<Timestamp>,
    /// The sequence number of the last message; 0 before the first.
    pub last_seq: Seq,
    /// How many people belong to it.
    pub member_count: u32,
    /// Who belongs to it, ordered by id: everybody, or, if [`is_large`](Self::is_large), the actor,
    /// the owners and the admins.
    pub members: Vec<Member>,
    /// Whether it has more members than are listed and synced with it.
    pub is_large: bool,
    /// The position of the last change of what is above, but for the members.
    pub version: Position,
    /// The position of the last change of who belongs to it.
    pub members_version: Position,
    /// What only the actor sees.
    pub own: Own,
}

/// How far a member has read and received a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marker {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The member.
    pub user_id: UserId,
    /// The last message that they have read.
    pub last_read: Seq,
    /// The last message that a device of theirs has received.
    pub last_delivered: Seq,
    /// The position of the last change of these.
    pub version: Position,
}

impl Marker {
    /// Makes one of its parts, as a replica does that hears of them one by one.
    pub fn new(
        conversation_id: ConversationId,
        user_id: UserId,
        last_read: Seq,
        last_delivered: Seq,
        version: Position,
    ) -> Self {
        Self {
            conversation_id,
            user_id,
            last_read,
            last_delivered,
            version,
        }
    }
}

/// Somebody who belongs to a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Who it is.
    pub user: User,
    /// What they may do.
    pub role: Role,
}

/// What a member of a group may do; in a direct conversation both people are members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Read and write.
    Member,
    /// Also add and remove members, change the title and delete what others wrote.
    Admin,
    /// Everything: also make owners and admins, and delete the group.
    Owner,
}

impl Role {
    /// Returns the name on the wire: `member`, `admin`, `owner`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Takes the name on the wire.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is none of them.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "member" => Ok(Self::Member),
            "admin" => Ok(Self::Admin),
            "owner" => Ok(Self::Owner),
            _ => Err(Invalid::new("role", "must be member, admin or owner")),
        }
    }

    /// What the change log keeps of a role.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Member => 1,
            Self::Admin => 2,
            Self::Owner => 3,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Member),
            2 => Some(Self::Admin),
            3 => Some(Self::Owner),
            _ => None,
        }
    }
}

/// A member's own side of a conversation, which nobody else sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Own {
    /// What the member may do.
    pub role: Role,
    /// The position at which the member joined, the last time.
    pub membership_version: Position,
    /// The first message that the member may see.
    pub visible_from: Seq,
    /// The last message that the member has read.
    pub last_read: Seq,
    /// The last message that a device of the member has received.
    pub last_delivered: Seq,
    /// How many messages of others the member has not read: those after
    /// [`last_read`](Self::last_read) that may be seen and are not deleted.
    pub unread_count: u64,
    /// Whether the member wants it to look unread.
    pub marked_unread: bool,
    /// Until when it is to make no noise.
    pub muted_until: Option<Timestamp>,
    /// Since when it is pinned to the top of the member's list.
    pub pinned_at: Option<Timestamp>,
    /// Since when it is put away.
    pub archived_at: Option<Timestamp>,
    /// The position of the last change of what is above.
    pub version: Position,
}

/// What a message that is sent, edited or deleted changes about its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationHead {
    /// The conversation.
    pub id: ConversationId,
    /// When something about it last changed.
    pub updated_at: Timestamp,
    /// The beginning of the last message, up to 280 characters.
    pub last_message_preview: Option<String>,
    /// When the last message was sent.
    pub last_message_at: Option<Timestamp>,
    /// The version of what everybody sees of it.
    pub version: Position,
}

impl<'a> Conversations<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine, once: None }
    }

    /// Returns the view whose next write takes place once under this id, however often the client
    /// repeats it: what is asked again changes nothing, and is answered as if it had just taken
    /// place, even if others have undone it since.
    ///
    /// Something else under the same id is refused with [`Error::ClientWriteConflict`]. To open a
    /// direct conversation or to move a marker, which are the same done twice, no id is needed.
    #[must_use]
    pub fn once(self, id: impl Into<Option<ClientWriteId>>) -> Self {
        Self {
            once: id.into(),
            ..self
        }
    }

    /// Runs a write, and returns the position at which what it asks is so.
    async fn write_once<O>(&self, operation: O, actor: &Actor) -> Result<Position>
    where
        O: Repeatable + Operation<Output = ()>,
    {
        let (writer, once) = (self.engine.writer(), self.once.clone());
        let ((), position) = writer.run_once(operation, actor.user_id(), once).await?;
        Ok(position)
    }

    /// Lists the actor's conversations, the one with the newest message or change first.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Conversation>> {
        let (user, limits) = (actor.user_id(), self.engine.limits().clone());
        let read = move |db| async move { queries::list(&db, user, &limits).await };
        self.engine
            .store()
            .snapshot(self.engine.tasks(), read)
            .await
    }

    /// Opens the direct conversation with another person: the one that there is, or a new one.
    ///
    /// A pair has one, whoever opens it and whatever races.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidTarget`]: `other` is the actor.
    /// - [`Error::UserNotFound`]: there is no such user.
    /// - [`Error::Blocked`]: there is none yet, and one of the two has blocked the other.
    /// - [`Error::RefusedByHost`], [`Error::Undecided`]: see
    ///   [`before_join`](crate::EngineBuilder::before_join).
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the conversation exists with both members, or it does not.
    pub async fn open_direct(&self, actor: &Actor, other: UserId) -> Result<Conversation> {
        let me = actor.user_id();
        if me == other {
            return Err(Error::InvalidTarget);
        }
        let about = || BeforeJoin {
            actor: me,
            users: vec![other],
            to: Joins::Direct,
        };
        let verdict = self.engine.hooks().may_join(about).await;
        let open = OpenDirect { me, other, verdict };
        let id = self.engine.writer().run(open).await?;
        self.get(actor, id).await
    }

    /// Reads one of the actor's conversations.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    pub async fn get(&self, actor: &Actor, conversation: ConversationId) -> Result<Conversation> {
        let (user, limits) = (actor.user_id(), self.engine.limits().clone());
        let read =
            move |db| async move { queries::some(&db, user, &[conversation], &limits).await };
        let found = self.engine.store().snapshot(self.engine.tasks(), read);
        let found = found.await?.into_iter().next();
        found.ok_or(Error::ConversationNotFound)
    }

    /// Proves that the actor belongs to a conversation.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    pub async fn membership(
        &self,
        actor: &Actor,
        conversation: ConversationId,
    ) -> Result<Membership> {
        let found = self.memberships(actor, &[conversation]).await?;
        found.into_iter().next().ok_or(Error::ConversationNotFound)
    }

    /// Proves that the actor belongs to each of several conversations, in their order.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: one of them does not exist, or the actor is not a
    ///   member of it.
    /// - [`Error::Invalid`]: there are more than 10,000.
    pub async fn memberships(
        &self,
        actor: &Actor,
        conversations: &[ConversationId],
    ) -> Result<Vec<Membership>> {
        let most = self.engine.limits().conversations_named_max;
        if conversations.len() > most {
            let rule = format!("must be at most {most} ids");
            return Err(Invalid::new("conversation_ids", rule).into());
        }
        queries::memberships(self.engine.store(), actor, conversations).await
    }

    /// Lists the members of a conversation, ordered by id, after a given one.
    ///
    /// `limit` is 1 to 500. Fewer come back only at the end of the list.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: `limit` is out of bounds.
    pub async fn members(
        &self,
        membership: &Membership,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Member>> {
        let most = self.engine.limits().page_members_max;
        if !(1..=most).contains(&limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        let membership = *membership;
        let read = move |db| async move { queries::members(&db, &membership, after, limit).await };
        let store = self.engine.store();
        store.snapshot(self.engine.tasks(), read).await
    }
}

impl ConversationHead {
    pub(crate) fn of(row: &conversation::Model) -> Self {
        Self {
            id: row.id.into(),
            updated_at: Timestamp::from_micros(row.updated_at),
            last_message_preview: row.last_message_preview.clone(),
            last_message_at: row.last_message_at.map(Timestamp::from_micros),
            version: Position::stored(row.changed_pos),
        }
    }
}

impl From<conversation::Kind> for ConversationKind {
    fn from(kind: conversation::Kind) -> Self {
        match kind {
            conversation::Kind::Direct => Self::Direct,
            conversation::Kind::Group => Self::Group,
        }
    }
}

impl From<Role> for member::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}

impl From<member::Role> for Role {
    fn from(role: member::Role) -> Self {
        match role {
            member::Role::Member => Self::Member,
            member::Role::Admin => Self::Admin,
            member::Role::Owner => Self::Owner,
        }
    }
}
