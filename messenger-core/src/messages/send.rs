//! The rules of sending.

use std::sync::Arc;

use super::{Message, NewMessage, Sent, packed, preview};
use crate::attachments;
use crate::conversations::ConversationHead;
use crate::error::{Error, Result};
use crate::events::{Change, Event, EventKind};
use crate::hooks::Verdict;
use crate::ids::{ConversationId, MessageId, UserId};
use crate::store::entity::{event, message};
use crate::users::User;
use crate::write::{Batch, LogRefs, Needs, Operation};

/// Sends a message.
pub(super) struct Send {
    pub(super) sender: UserId,
    pub(super) conversation: ConversationId,
    pub(super) message: NewMessage,
    pub(super) verdict: Verdict,
}

impl Operation for Send {
    type Output = Sent;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.sender);
        needs.peer(self.conversation, self.sender);
        needs.sent(self.message.client_id.as_str(), self.sender);
        if let Some(id) = self.message.reply_to {
            needs.message(id);
        }
        for user in &self.message.mentions {
            needs.membership(self.conversation, *user);
        }
        for attachment in &self.message.attachments {
            needs.attachment(*attachment);
        }
    }

    fn bytes(&self) -> usize {
        let metadata = self.message.metadata.as_ref();
        let attachments = self.message.attachments.len() * ATTACHMENT_BYTES;
        let metadata = metadata.map_or(0, |json| json.as_str().len());
        self.message.body.as_str().len() + metadata + attachments
    }

    fn apply(&self, batch: &mut Batch) -> Result<Sent> {
        let client_id = &self.message.client_id;
        let membership = batch.require_membership(self.conversation, self.sender)?;
        let sender = User::from(batch.require_user(self.sender)?);
        if let Some(first) = batch.find_sent(client_id.as_str(), self.sender) {
            if first.conversation_id != self.conversation.as_uuid() {
                return Err(Error::ClientMessageConflict);
            }
            return Ok(Sent {
                message: Message::from(first.clone()),
                created: false,
            });
        }
        batch.require_peer(self.conversation, self.sender)?;
        self.verdict.clone()?;
        if let Some(id) = self.message.reply_to {
            batch.require_message(&membership, id)?;
        }
        for user in &self.message.mentions {
            let member = batch.require_membership(self.conversation, *user);
            member.map_err(|_| Error::MemberNotFound)?;
        }
        let attachments = self.message.attachments.as_slice();
        let held = attachments::require_unsent(batch, attachments, self.sender)?;
        let conversation = batch.conversations.get(&self.conversation.as_uuid());
        let seq = conversation.ok_or(Error::ConversationNotFound)?.last_seq + 1;

        let position = batch.next_position();
        let now = batch.now();
        let content = self.message.body.as_str();
        if let Some(row) = batch.conversations.advance(&self.conversation.as_uuid()) {
            row.last_seq = seq;
            row.last_pos = position.get();
            row.changed_pos = position.get();
            row.updated_at = now.as_micros();
            row.last_message_at = Some(now.as_micros());
            row.last_message_preview = Some(preview(content).to_owned());
        }
        let marker = (self.conversation.as_uuid(), membership.user_id().as_uuid());
        if let Some(row) = batch.members.advance(&marker) {
            row.last_read_seq = seq;
            row.read_pos = position.get();
            row.self_pos = position.get();
            row.delivered_seq = seq;
            row.marked_unread = false;
        }
        let id = batch.id();
        for attachment in attachments {
            if let Some(row) = batch.attachments.change(&attachment.as_uuid()) {
                row.conversation_id = Some(self.conversation.as_uuid());
                row.message_id = Some(id);
                row.due_at = None;
            }
        }
        let row = message::Model {
            id,
            conversation_id: self.conversation.as_uuid(),
            seq,
            sender_id: self.sender.as_uuid(),
            client_message_id: client_id.as_str().to_owned(),
            kind: message::Kind::Text,
            content: content.to_owned(),
            created_at: now.as_micros(),
            edited_at: None,
            deleted_at: None,
            reply_to: self.message.reply_to.map(MessageId::as_uuid),
            reactions: None,
            created_pos: position.get(),
            changed_pos: position.get(),
            metadata: self
                .message
                .metadata
                .as_ref()
                .map(|json| json.as_str().to_owned()),
            mentions: packed(&self.message.mentions),
            attachments: held,
        };
        let message = Message::from(row.clone());
        let head = ConversationHead::after(&message);
        batch.insert_message(row);
        let refs = LogRefs {
            seq: Some(seq),
            ..LogRefs::of(self.conversation, self.sender)
        };
        batch.log(position, event::Kind::MessageCreated, &refs);
        let event = Event::new(
            batch.event_id(position),
            position,
            now,
            EventKind::MessageCreated {
                message: message.clone(),
                sender,
                conversation: head,
            },
        );
        batch.announce(Change::InConversation {
            conversation: self.conversation,
            seq: Some(message.seq),
            event: Arc::new(event),
        });
        Ok(Sent {
            message,
            created: true,
        })
    }
}

/// About what an attachment takes in a transaction.
const ATTACHMENT_BYTES: usize = 512;
