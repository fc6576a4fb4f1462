//! The proof that somebody belongs to a conversation.

use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::store::entity::{conversation, member};

/// The proof that a user belongs to a conversation, from
/// [`Conversations::membership`](super::Conversations::membership).
///
/// Everything that shows a conversation's content takes one, so the check can not be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    conversation: ConversationId,
    user: UserId,
    visible_from: Seq,
    version: Position,
}

impl Membership {
    /// The proof that two rows give: the user has not left, and the conversation is not deleted,
    /// which leaves its members' rows as they are.
    pub(crate) fn of(row: &member::Model, conversation: &conversation::Model) -> Option<Self> {
        match (row.state, conversation.state) {
            (member::State::Joined, conversation::State::Open) => Some(Self::joined(row)),
            (member::State::Left | member::State::Removed, _)
            | (_, conversation::State::Deleted) => None,
        }
    }

    /// The proof that a row gives which was found among those who are in what is not deleted.
    pub(super) fn joined(row: &member::Model) -> Self {
        Self {
            conversation: row.conversation_id.into(),
            user: row.user_id.into(),
            visible_from: Seq::stored(row.visible_from_seq),
            version: Position::stored(row.joined_pos),
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

    /// Returns the position at which the member joined, the last time.
    pub fn version(&self) -> Position {
        self.version
    }
}
