//! The rules of conversations.

use std::sync::Arc;

use super::Conversation;
use crate::error::Result;
use crate::events::{Change, Event, EventKind};
use crate::ids::UserId;
use crate::store::SHARD;
use crate::store::entity::{conversation, event, member};
use crate::users::User;
use crate::write::{Batch, LogRefs, Needs, Operation, direct_key};

/// Opens the one direct conversation of two people.
pub(super) struct OpenDirect {
    pub(super) me: UserId,
    pub(super) other: UserId,
}

impl Operation for OpenDirect {
    type Output = Conversation;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.me);
        needs.user(self.other);
        needs.direct(self.me, self.other);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Conversation> {
        let people = [self.me, self.other];
        let users = [
            User::from(batch.require_user(self.me)?),
            User::from(batch.require_user(self.other)?),
        ];
        if let Some(existing) = batch.find_direct(self.me, self.other) {
            return Ok(Conversation::of(existing, users.to_vec()));
        }

        let position = batch.next_position();
        let now = batch.now();
        let row = conversation::Model {
            id: batch.id(),
            shard: SHARD,
            kind: conversation::Kind::Direct,
            state: conversation::State::Open,
            created_by: self.me.as_uuid(),
            client_conversation_id: None,
            direct_key: Some(direct_key(self.me, self.other)),
            title: None,
            history_policy: conversation::HistoryPolicy::All,
            last_seq: 0,
            min_seq: 1,
            member_count: 2,
            members_pos: position.get(),
            changed_pos: position.get(),
            last_pos: position.get(),
            last_message_at: None,
            last_message_preview: None,
            created_at: now.as_micros(),
            updated_at: now.as_micros(),
        };
        for user in people {
            let key = (row.id, user.as_uuid());
            batch.members.insert(
                key,
                member::Model {
                    conversation_id: row.id,
                    user_id: user.as_uuid(),
                    role: member::Role::Member,
                    state: member::State::Joined,
                    joined_pos: position.get(),
                    changed_pos: position.get(),
                    visible_from_seq: 1,
                    last_read_seq: 0,
                    read_pos: position.get(),
                    self_pos: position.get(),
                    muted_until: None,
                    pinned_at: None,
                    archived_at: None,
                },
            );
        }
        let conversation = Conversation::of(&row, users.to_vec());
        batch.insert_conversation(row);
        let refs = LogRefs {
            conversation: Some(conversation.id),
            actor: Some(self.me),
            aux: people.iter().map(|user| user.as_uuid()).collect(),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::ConversationCreated, &refs);
        let event = Event::new(
            batch.event_id(position),
            position,
            now,
            EventKind::ConversationCreated {
                conversation: conversation.clone(),
            },
        );
        batch.announce(Change::ConversationCreated {
            conversation: conversation.id,
            members: Arc::from(people),
            event: Arc::new(event),
        });
        Ok(conversation)
    }
}
