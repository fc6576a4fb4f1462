//! That somebody is writing: told to those who listen, and kept nowhere.

use std::time::Duration;

use super::{Conversations, queries};
use crate::auth::Actor;
use crate::error::Result;
use crate::ids::{ConversationId, UserId};

/// How long somebody who has begun to write is taken to be writing, unless they say so again.
pub const TYPING_TTL: Duration = Duration::from_secs(6);

/// Somebody begins or stops to write in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Typing {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Who writes.
    pub user_id: UserId,
    /// Whether they write; `false` once they have stopped. Who does not say so again is no longer
    /// writing after [`TYPING_TTL`].
    pub is_typing: bool,
}

impl Conversations<'_> {
    /// Tells the members of a conversation who listen right now that the actor is writing, or has
    /// stopped.
    ///
    /// It takes no position, and nothing remembers it: repeat it while somebody writes, more often
    /// than every [`TYPING_TTL`]. Only streams that go on from a cursor
    /// ([`Events::resume`](crate::events::Events::resume)) hear of it, and only of this engine:
    /// other nodes on the same database are not told. In large conversations, and between people one
    /// of whom has blocked the other, nobody is told. The same again within 2 seconds is not told
    /// twice.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationNotFound`](crate::Error::ConversationNotFound): it does not exist, or
    /// the actor is not a member.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, people are told or they are not.
    pub async fn typing(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        is_typing: bool,
    ) -> Result<()> {
        let (user, engine) = (actor.user_id(), self.engine);
        let small = engine.limits().small_conversation_members_max;
        let read = move |db| async move { queries::may_type(&db, user, conversation, small).await };
        if engine.store().snapshot(engine.tasks(), read).await? {
            engine.hub().typing(Typing {
                conversation_id: conversation,
                user_id: user,
                is_typing,
            });
        }
        Ok(())
    }
}
