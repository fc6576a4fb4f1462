//! Messages: sent once for each client id, numbered 1, 2, 3, … in their conversation.

mod body;
pub(crate) mod queries;

use std::sync::Arc;

use self::body::preview;
pub use self::body::{ClientMessageId, MessageBody};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::conversations::{ConversationHead, Membership};
use crate::engine::MessengerEngine;
use crate::error::{Error, Invalid, Result};
use crate::events::{Change, Event, EventKind};
use crate::ids::{ConversationId, MessageId, Seq, UserId};
use crate::store::entity::{event, message};
use crate::users::User;
use crate::write::{Batch, LogRefs, Needs, Operation};

/// Messages: the view that [`MessengerEngine::messages`] gives.
#[derive(Debug)]
pub struct Messages<'a> {
    engine: &'a MessengerEngine,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Where it was sent.
    pub conversation_id: ConversationId,
    /// Who sent it.
    pub sender_id: UserId,
    /// The id that the sender's device gave it.
    pub client_message_id: ClientMessageId,
    /// Its place in the conversation.
    pub seq: Seq,
    /// The text.
    pub content: String,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// An id that the sender's device makes, once for each message and not for each attempt. A
    /// UUIDv7 is stored fastest.
    pub client_id: ClientMessageId,
    /// The text.
    pub body: MessageBody,
}

/// What came of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message as it is stored.
    pub message: Message,
    /// Whether this call stored it; `false` if an earlier one with the same client id did.
    pub created: bool,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine }
    }

    /// Sends a message to a conversation.
    ///
    /// Its `seq` is one higher than the conversation's last. Sending again with the same client
    /// id returns the first message and changes nothing, for ever, on any node, under any race.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::ClientMessageConflict`]: the actor has used the client id in another
    ///   conversation.
    /// - [`Error::Busy`], [`Error::Unavailable`]: send again with the same client id.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the message was either stored and announced, or neither.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, messages::*};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor, conversation: ConversationId)
    /// # -> Result<()> {
    /// let message = NewMessage {
    ///     client_id: ClientMessageId::parse("0195f3a0-7c1e-7cc2-9d3f-0f8d3a1b2c4d")?,
    ///     body: MessageBody::parse("Hello, Bob!", engine.limits())?,
    /// };
    /// let sent = engine.messages().send(alice, conversation, message.clone()).await?;
    /// assert!(sent.created);
    ///
    /// let again = engine.messages().send(alice, conversation, message).await?;
    /// assert_eq!((again.message, again.created), (sent.message, false));
    /// # Ok(()) }
    /// ```
    pub async fn send(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        message: NewMessage,
    ) -> Result<Sent> {
        let send = Send {
            sender: actor.user_id(),
            conversation,
            message,
        };
        self.engine.writer().run(send).await
    }

    /// Returns messages after a sequence number, in ascending order.
    ///
    /// `limit` is 1 to 100. Fewer come back only at the end of the conversation.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: `limit` is out of bounds.
    pub async fn page(
        &self,
        membership: &Membership,
        after: Seq,
        limit: u32,
    ) -> Result<Vec<Message>> {
        let most = self.engine.limits().page_messages_max;
        if !(1..=most).contains(&limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        queries::page_after(self.engine.store(), membership, after, limit).await
    }
}

/// The rules of sending.
struct Send {
    sender: UserId,
    conversation: ConversationId,
    message: NewMessage,
}

impl Operation for Send {
    type Output = Sent;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.sender);
        needs.membership(self.conversation, self.sender);
        needs.sent(self.message.client_id.as_str(), self.sender);
    }

    fn bytes(&self) -> usize {
        self.message.body.as_str().len()
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
        let conversation = batch.conversations.get(&self.conversation.as_uuid());
        let seq = conversation.ok_or(Error::ConversationNotFound)?.last_seq + 1;

        let position = batch.next_position();
        let now = batch.now();
        let content = self.message.body.as_str();
        let head = ConversationHead::after(self.conversation, content, now);
        if let Some(row) = batch.conversations.change(&self.conversation.as_uuid()) {
            row.last_seq = seq;
            row.last_pos = position.get();
            row.changed_pos = position.get();
            row.updated_at = now.as_micros();
            row.last_message_at = Some(now.as_micros());
            row.last_message_preview
                .clone_from(&head.last_message_preview);
        }
        let marker = (self.conversation.as_uuid(), membership.user_id().as_uuid());
        if let Some(row) = batch.members.change(&marker) {
            row.last_read_seq = seq;
            row.read_pos = position.get();
            row.self_pos = position.get();
        }
        let row = message::Model {
            id: batch.id(),
            conversation_id: self.conversation.as_uuid(),
            seq,
            sender_id: self.sender.as_uuid(),
            client_message_id: client_id.as_str().to_owned(),
            kind: message::Kind::Text,
            content: content.to_owned(),
            created_at: now.as_micros(),
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            reactions: None,
            created_pos: position.get(),
            changed_pos: position.get(),
        };
        let message = Message::from(row.clone());
        batch.insert_message(row);
        let refs = LogRefs {
            conversation: Some(self.conversation),
            actor: Some(self.sender),
            seq: Some(seq),
            ..LogRefs::default()
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
        batch.announce(Change::MessageCreated {
            conversation: self.conversation,
            event: Arc::new(event),
        });
        Ok(Sent {
            message,
            created: true,
        })
    }
}

impl ConversationHead {
    /// What a message changes about its conversation.
    pub(crate) fn after(conversation: ConversationId, content: &str, at: Timestamp) -> Self {
        Self {
            id: conversation,
            updated_at: at,
            last_message_preview: Some(preview(content).to_owned()),
            last_message_at: Some(at),
        }
    }
}

impl From<message::Model> for Message {
    fn from(row: message::Model) -> Self {
        Self {
            id: row.id.into(),
            conversation_id: row.conversation_id.into(),
            sender_id: row.sender_id.into(),
            client_message_id: ClientMessageId::stored(row.client_message_id),
            seq: Seq::stored(row.seq),
            content: row.content,
            created_at: Timestamp::from_micros(row.created_at),
        }
    }
}
