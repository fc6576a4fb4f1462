//! The proof that somebody belongs to a conversation.

use crate::ids::{ConversationId, Seq, UserId};
use crate::store::entity::member;

/// The proof that a user belongs to a conversation, from
/// [`Conversations::membership`](super::Conversations::membership).
///
/// Everything that shows a conversation's content takes one, so the check can not be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    conversation: ConversationId,
    user: UserId,
    visible_from: Seq,
}

impl Membership {
    /// The proof that a row gives, if the user has not left.
    pub(crate) fn of(row: &member::Model) -> Option<Self> {
        match row.state {
            member::State::Joined => Some(Self {
                conversation: row.conversation_id.into(),
                user: row.user_id.into(),
                visible_from: Seq::stored(row.visible_from_seq),
            }),
        }
    }

    /// Returns the conversation.
    pub fn conversation_id(&self) -> ConversationId {
        self.conversation
    }

    /// Returns the member.
    pub fn user_id(&self) -> UserId {
        self.user
    }

    /// Returns the first sequence number that the member may see.
    pub fn visible_from(&self) -> Seq {
        self.visible_from
    }
}
