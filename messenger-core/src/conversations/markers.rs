//! How far somebody has read, and how far messages have reached their devices.

use super::Conversations;
use super::settings::own_changed;
use crate::auth::Actor;
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::store::entity::{conversation, event, member};
use crate::write::{Batch, LogRefs, Needs, Operation};

/// Where somebody is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Markers {
    /// The last message that they have read.
    pub last_read: Seq,
    /// The last message that a device of theirs has received; never before
    /// [`last_read`](Self::last_read).
    pub last_delivered: Seq,
    /// How many messages of others they have not read, exactly.
    pub unread_count: u64,
    /// The position of the last change of their own side of the conversation.
    pub version: Position,
}

impl Conversations<'_> {
    /// Notes that the actor has read up to a message, and no longer wants the conversation to look
    /// unread.
    ///
    /// A marker only goes forward, and not past the last message: an earlier `seq` changes
    /// nothing, a later one means the last. What is read is delivered as well. In a small
    /// conversation everybody is told; in a large one only the actor's own devices.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the marker was either moved and announced, or neither.
    pub async fn mark_read(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<Markers> {
        self.mark(actor, conversation, seq, Marker::Read).await
    }

    /// Notes that a device of the actor has received up to a message. Follows the rules of
    /// [`mark_read`](Self::mark_read), and reads nothing.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the marker was either moved and announced, or neither.
    pub async fn mark_delivered(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<Markers> {
        self.mark(actor, conversation, seq, Marker::Delivered).await
    }

    async fn mark(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        seq: Seq,
        marker: Marker,
    ) -> Result<Markers> {
        // Not a write to be made once: a marker that has moved does not move again.
        let limits = self.engine.limits();
        let mark = Mark {
            me: actor.user_id(),
            conversation,
            seq,
            marker,
            small_max: i64::from(limits.small_conversation_members_max),
        };
        self.engine.writer().run(mark).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Read,
    Delivered,
}

/// Moves a marker.
struct Mark {
    me: UserId,
    conversation: ConversationId,
    seq: Seq,
    marker: Marker,
    /// Members up to which everybody is told.
    small_max: i64,
}

impl Operation for Mark {
    type Output = Markers;

    fn needs(&self, needs: &mut Needs) {
        needs.unread(self.conversation, self.me, self.seq);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Markers> {
        batch.require_membership(self.conversation, self.me)?;
        let key = (self.conversation.as_uuid(), self.me.as_uuid());
        let row = batch.conversations.get(&key.0);
        let (row, member) = row
            .zip(batch.members.get(&key))
            .ok_or(Error::ConversationNotFound)?;
        let is_small = row.member_count <= self.small_max;
        let seq = self.seq.get().min(row.last_seq);
        let read = match self.marker {
            Marker::Read => seq.max(member.last_read_seq),
            Marker::Delivered => member.last_read_seq,
        };
        let delivered = seq.max(member.delivered_seq).max(read);
        let moved = (read, delivered) != (member.last_read_seq, member.delivered_seq);
        let noticed = self.marker == Marker::Read && member.marked_unread;
        if !moved && !noticed {
            return Ok(markers(batch, row, member));
        }

        let position = batch.next_position();
        if let Some(member) = batch.members.advance(&key) {
            member.self_pos = position.get();
            if moved {
                member.last_read_seq = read;
                member.delivered_seq = delivered;
                member.read_pos = position.get();
            }
            if noticed {
                member.marked_unread = false;
            }
        }
        if moved
            && is_small
            && let Some(row) = batch.conversations.advance(&key.0)
        {
            row.last_pos = position.get();
        }
        let row = batch.conversations.get(&key.0);
        let (row, member) = row
            .zip(batch.members.get(&key))
            .ok_or(Error::ConversationNotFound)?;
        let markers = markers(batch, row, member);
        if !moved {
            own_changed(batch, position, self.conversation, self.me);
            return Ok(markers);
        }

        let refs = LogRefs {
            conversation: Some(self.conversation),
            user: Some(self.me),
            bytes: markers.to_bytes(is_small),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::MarkerChanged, &refs);
        let event = batch.event(
            position,
            EventKind::MarkerChanged {
                conversation: self.conversation,
                user: self.me,
                markers,
            },
        );
        batch.announce(if is_small {
            Change::InConversation {
                conversation: self.conversation,
                seq: None,
                event,
            }
        } else {
            Change::Own {
                user: self.me,
                event,
            }
        });
        Ok(markers)
    }
}

fn markers(batch: &Batch, row: &conversation::Model, member: &member::Model) -> Markers {
    Markers {
        last_read: Seq::stored(member.last_read_seq),
        last_delivered: Seq::stored(member.delivered_seq),
        unread_count: batch.unread(row, member),
        version: Position::stored(member.self_pos),
    }
}

impl Markers {
    /// What the change log keeps of a marker that has moved: whether everybody is told, and the
    /// three numbers, which are exact only at that position.
    fn to_bytes(self, is_small: bool) -> Vec<u8> {
        let unread = i64::try_from(self.unread_count).unwrap_or(i64::MAX);
        let numbers = [self.last_read.get(), self.last_delivered.get(), unread];
        let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
        [u8::from(is_small)].into_iter().chain(numbers).collect()
    }

    /// Reads what the change log keeps: the markers, and whether everybody is told.
    pub(crate) fn from_bytes(bytes: &[u8], version: Position) -> Option<(Self, bool)> {
        let (is_small, numbers) = bytes.split_first()?;
        let mut numbers = numbers
            .chunks_exact(8)
            .map_while(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
        let markers = Self {
            last_read: Seq::stored(numbers.next()?),
            last_delivered: Seq::stored(numbers.next()?),
            unread_count: u64::try_from(numbers.next()?).ok()?,
            version,
        };
        Some((markers, *is_small == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_change_log_keeps_markers_as_they_are() {
        let markers = Markers {
            last_read: Seq::stored(7),
            last_delivered: Seq::MAX,
            unread_count: 3,
            version: Position::stored(9),
        };

        for is_small in [false, true] {
            let bytes = markers.to_bytes(is_small);
            let read = Markers::from_bytes(&bytes, markers.version);
            assert_eq!(read, Some((markers, is_small)));
        }
        assert_eq!(Markers::from_bytes(&[1, 2, 3], markers.version), None);
    }
}
