//! Conversations, and who belongs to them.

mod membership;
mod operations;
pub(crate) mod queries;

pub use self::membership::Membership;
use self::operations::OpenDirect;
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::engine::MessengerEngine;
use crate::error::{Error, Invalid, Result};
use crate::ids::{ConversationId, Seq, UserId};
use crate::store::entity::conversation;
use crate::users::User;

/// Conversations: the view that [`MessengerEngine::conversations`] gives.
#[derive(Debug)]
pub struct Conversations<'a> {
    engine: &'a MessengerEngine,
}

/// What kind of conversation it is. The list is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConversationKind {
    /// Two people; there is one such conversation for each pair.
    Direct,
}

impl ConversationKind {
    /// Returns the name on the wire: `direct`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
        }
    }
}

/// A conversation as its members see it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// What kind it is.
    pub kind: ConversationKind,
    /// When something about it last changed.
    pub updated_at: Timestamp,
    /// The beginning of the last message, up to 280 characters.
    pub last_message_preview: Option<String>,
    /// When the last message was sent.
    pub last_message_at: Option<Timestamp>,
    /// The sequence number of the last message; 0 before the first.
    pub last_seq: Seq,
    /// Everybody who belongs to it, ordered by id.
    pub members: Vec<User>,
}

/// What a new message changes about its conversation.
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
}

impl<'a> Conversations<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine }
    }

    /// Lists the actor's conversations, the one with the newest message or change first.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Conversation>> {
        let user = actor.user_id();
        let read = move |db| async move { queries::list(&db, user).await };
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
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the conversation exists with both members, or it does not.
    pub async fn open_direct(&self, actor: &Actor, other: UserId) -> Result<Conversation> {
        let me = actor.user_id();
        if me == other {
            return Err(Error::InvalidTarget);
        }
        self.engine.writer().run(OpenDirect { me, other }).await
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
}

impl Conversation {
    pub(crate) fn of(row: &conversation::Model, mut members: Vec<User>) -> Self {
        members.sort_by_key(|user| user.id);
        Self {
            id: row.id.into(),
            kind: match row.kind {
                conversation::Kind::Direct => ConversationKind::Direct,
            },
            updated_at: Timestamp::from_micros(row.updated_at),
            last_message_preview: row.last_message_preview.clone(),
            last_message_at: row.last_message_at.map(Timestamp::from_micros),
            last_seq: Seq::stored(row.last_seq),
            members,
        }
    }
}
