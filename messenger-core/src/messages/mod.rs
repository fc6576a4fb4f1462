//! Messages: sent once for each client id, numbered 1, 2, 3, … in their conversation, and what is
//! done to them afterwards.
//!
//! A message keeps its place for ever. Editing it gives it other content, deleting it leaves a
//! tombstone, and reactions are counted on it; each of these raises its
//! [`version`](Message::version), by which a client that gets two forms of it knows the newer one.

mod body;
mod change;
pub(crate) mod queries;
pub(crate) mod search;
mod send;

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use self::body::preview;
pub use self::body::{ClientMessageId, MessageBody, Metadata, Reaction};
pub(crate) use self::change::EraseOf;
use self::change::{Delete, Edit, React, Target, Turn};
pub use self::search::{Found, Search, SearchText};
use self::send::Send;
use crate::attachments::{self, Attachment};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::conversations::{ConversationHead, Membership};
use crate::engine::MessengerEngine;
use crate::error::{Error, Invalid, Result};
use crate::hooks::BeforeSend;
use crate::ids::{AttachmentId, ConversationId, MessageId, Position, Seq, Stamp, UserId};
use crate::store::entity::message;
use crate::store::fence;
use crate::write::{ClientWriteId, Operation, Repeatable};

/// Messages: the view that [`MessengerEngine::messages`] gives.
#[derive(Debug)]
pub struct Messages<'a> {
    engine: &'a MessengerEngine,
    once: Option<ClientWriteId>,
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
    /// The text; empty once it was deleted, and of a message that is nothing but attachments.
    pub content: String,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When its text was last changed.
    pub edited_at: Option<Timestamp>,
    /// When it was deleted. It keeps its place, so that there are no gaps.
    pub deleted_at: Option<Timestamp>,
    /// The message that it answers, in the same conversation.
    pub reply_to: Option<MessageId>,
    /// Members whom it names, in the sender's order.
    pub mentions: Vec<UserId>,
    /// What is attached to it, in the sender's order; nothing once it was deleted.
    pub attachments: Vec<Attachment>,
    /// How people react to it, ordered by emoji.
    pub reactions: Vec<Reactions>,
    /// The host's own facts about it: a JSON object.
    pub metadata: Option<String>,
    /// The position of its last change: of two forms of a message, the greater one is newer.
    pub version: Position,
}

/// How many people react to a message in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reactions {
    /// The emoji, or a short word.
    pub emoji: String,
    /// How many people.
    pub count: u32,
    /// Whether the person is among them who asked; `false` in what is sent to everybody.
    pub mine: bool,
}

/// One person's reaction to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reacted {
    /// Whose it is.
    pub user_id: UserId,
    /// The emoji, or a short word.
    pub emoji: String,
    /// When it came.
    pub created_at: Timestamp,
}

/// One person's reaction that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReactionChange {
    /// Whose it is.
    pub user_id: UserId,
    /// The emoji, or a short word.
    pub emoji: String,
    /// Whether it came; `false` if it went.
    pub added: bool,
}

/// A message to send: begin with [`NewMessage::new`] and set what else it has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewMessage {
    /// An id that the sender's device makes, once for each message and not for each attempt. A
    /// UUIDv7 is stored fastest.
    pub client_id: ClientMessageId,
    /// The text; [`MessageBody::none`] for nothing but attachments.
    pub body: MessageBody,
    /// What is attached to it, which its sender has uploaded and no message has: up to
    /// [`Limits::attachments_per_message_max`](crate::Limits::attachments_per_message_max); what is
    /// named twice counts once.
    pub attachments: Vec<AttachmentId>,
    /// The message that it answers, in the same conversation; a deleted one too.
    pub reply_to: Option<MessageId>,
    /// Members whom it names, up to [`Limits::mentions_max`](crate::Limits::mentions_max); who is
    /// named twice counts once.
    pub mentions: Vec<UserId>,
    /// The host's own facts about it.
    pub metadata: Option<Metadata>,
}

impl NewMessage {
    /// A message that is nothing but a text.
    pub fn new(client_id: ClientMessageId, body: MessageBody) -> Self {
        Self {
            client_id,
            body,
            attachments: Vec::new(),
            reply_to: None,
            mentions: Vec::new(),
            metadata: None,
        }
    }
}

/// A stretch of a conversation, both ends left out. The default is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// What it comes after; `None` for the beginning.
    pub after: Option<Seq>,
    /// What it comes before; `None` for the end.
    pub before: Option<Seq>,
}

/// Messages of a stretch of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// The messages, ascending by `seq`.
    pub messages: Vec<Message>,
    /// Whether the stretch has more messages than these.
    pub has_more: bool,
    /// Of what moment they are: a replica fills a hole only with what is not older than the hole.
    pub stamp: Stamp,
    /// When the member joined, the last time: a replica that knows another drops the answer.
    pub membership_version: Position,
}

/// A message as it was at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamped {
    /// The message.
    pub message: Message,
    /// Of what moment it is: a replica that knows another fence syncs before it keeps the message.
    pub stamp: Stamp,
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
        Self { engine, once: None }
    }

    /// Gives the next change an id, under which it takes place once: asked for again, it changes
    /// nothing and returns the message as it is by then.
    ///
    /// Goes with [`edit`](Self::edit), [`delete`](Self::delete), [`react`](Self::react) and
    /// [`unreact`](Self::unreact), so that an outbox can be played again weeks later without
    /// undoing what came in between. A message that is sent has its own id.
    #[must_use]
    pub fn once(self, id: ClientWriteId) -> Self {
        Self {
            once: Some(id),
            ..self
        }
    }

    /// Sends a message to a conversation.
    ///
    /// Its `seq` is one higher than the conversation's last. Sending again with the same client
    /// id returns the first message, as it is by then, and changes nothing, for ever, on any node,
    /// under any race.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::MessageNotFound`]: it answers what is no message of the conversation, or one
    ///   from before the actor's time.
    /// - [`Error::MemberNotFound`]: it names somebody who is not a member.
    /// - [`Error::AttachmentNotFound`]: the actor has not uploaded what it is to have.
    /// - [`Error::AttachmentUsed`]: another message has it.
    /// - [`Error::Invalid`]: it names more than 50 members or 10 attachments, or has neither a text
    ///   nor an attachment.
    /// - [`Error::ClientMessageConflict`]: the actor has used the client id in another
    ///   conversation.
    /// - [`Error::Blocked`]: the conversation is direct, and one of the two has blocked the other.
    /// - [`Error::RefusedByHost`], [`Error::Undecided`]: see
    ///   [`before_send`](crate::EngineBuilder::before_send).
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
    /// let message = NewMessage::new(
    ///     ClientMessageId::parse("0195f3a0-7c1e-7cc2-9d3f-0f8d3a1b2c4d")?,
    ///     MessageBody::parse("Hello, Bob!", engine.limits())?,
    /// );
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
        mut message: NewMessage,
    ) -> Result<Sent> {
        let most = self.engine.limits().mentions_max;
        let mut named = HashSet::new();
        message.mentions.retain(|user| named.insert(*user));
        if named.len() > most {
            let rule = format!("must name at most {most} members");
            return Err(Invalid::new("mentions", rule).into());
        }
        let most = self.engine.limits().attachments_per_message_max;
        let mut named = HashSet::new();
        message.attachments.retain(|id| named.insert(*id));
        if named.len() > most {
            let rule = format!("must name at most {most} attachments");
            return Err(Invalid::new("attachment_ids", rule).into());
        }
        if message.body.is_none() && message.attachments.is_empty() {
            return Err(MessageBody::missing(self.engine.limits()).into());
        }
        let about = || BeforeSend {
            sender: actor.user_id(),
            conversation,
            body: message.body.clone(),
            attachments: message.attachments.clone(),
            reply_to: message.reply_to,
            mentions: message.mentions.clone(),
            metadata: message.metadata.clone(),
            edits: None,
        };
        let verdict = self.engine.hooks().may_send(about).await;
        let send = Send {
            sender: actor.user_id(),
            conversation,
            message,
            verdict,
        };
        let mut sent = self.engine.writer().run(send).await?;
        // Only a message that was sent before can have any.
        if !sent.message.reactions.is_empty() {
            let first = std::slice::from_mut(&mut sent.message);
            queries::mark_mine(&self.engine.store().read(), actor.user_id(), first).await?;
        }
        Ok(sent)
    }

    /// Gives a message other content, which only its sender can do. What it answers, whom it names,
    /// what is attached to it and the host's facts about it stay. The same content changes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::MessageNotFound`]: it is not in this conversation, or from before the actor's
    ///   time.
    /// - [`Error::Forbidden`]: somebody else has sent it.
    /// - [`Error::Invalid`]: it has no attachment, and is to have no text.
    /// - [`Error::MessageDeleted`]: there is nothing left to edit.
    /// - [`Error::Blocked`]: the conversation is direct, and one of the two has blocked the other.
    /// - [`Error::RefusedByHost`], [`Error::Undecided`]: see
    ///   [`before_send`](crate::EngineBuilder::before_send).
    /// - [`Error::ClientWriteConflict`]: something else was asked under the id of
    ///   [`once`](Self::once).
    /// - [`Error::Busy`], [`Error::Unavailable`]: ask again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the message was either edited and announced, or neither.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, messages::*};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor, hello: Message) -> Result<()> {
    /// let id = ClientWriteId::parse("0195f3a0-7c1e-7cc2-9d3f-0f8d3a1b2c4e")?;
    /// let body = MessageBody::parse("Hello, dear Bob!", engine.limits())?;
    /// let messages = engine.messages().once(id);
    /// let edited = messages.edit(alice, hello.conversation_id, hello.id, body).await?;
    ///
    /// assert_eq!(edited.message.content, "Hello, dear Bob!");
    /// assert!(edited.message.version > hello.version && edited.message.edited_at.is_some());
    /// # Ok(()) }
    /// ```
    pub async fn edit(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        message: MessageId,
        body: MessageBody,
    ) -> Result<Stamped> {
        let target = Target::new(actor, conversation, message);
        let about = || BeforeSend {
            sender: actor.user_id(),
            conversation,
            body: body.clone(),
            attachments: Vec::new(),
            reply_to: None,
            mentions: Vec::new(),
            metadata: None,
            edits: Some(message),
        };
        let verdict = self.engine.hooks().may_send(about).await;
        let edit = Edit {
            target,
            body,
            missing: MessageBody::missing(self.engine.limits()),
            verdict,
        };
        self.change(actor, target, edit).await
    }

    /// Deletes a message for everybody: its sender can, and in a group also an owner or an admin.
    ///
    /// A tombstone stays in its place, with empty content and without attachments, metadata, mentions
    /// and reactions. If it was the last message, the preview of its conversation becomes empty and
    /// not `None`, which means that nothing was ever sent. Deleting again changes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::MessageNotFound`]: it is not in this conversation, or from before the actor's
    ///   time.
    /// - [`Error::Forbidden`]: it is not the actor's to delete.
    /// - [`Error::ClientWriteConflict`]: something else was asked under the id of
    ///   [`once`](Self::once).
    /// - [`Error::Busy`], [`Error::Unavailable`]: ask again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the message was either deleted and announced, or neither.
    pub async fn delete(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        message: MessageId,
    ) -> Result<Stamped> {
        let target = Target::new(actor, conversation, message);
        self.change(actor, target, Delete { target }).await
    }

    /// Adds the actor's reaction to a message. One that is there already changes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::MessageNotFound`]: it is not in this conversation, or from before the actor's
    ///   time.
    /// - [`Error::MessageDeleted`]: there is nothing left to react to.
    /// - [`Error::Blocked`]: the conversation is direct, and one of the two has blocked the other.
    /// - [`Error::Invalid`] about `emoji`: the message has 50 different reactions, or 10 of the
    ///   actor.
    /// - [`Error::ClientWriteConflict`]: something else was asked under the id of
    ///   [`once`](Self::once).
    /// - [`Error::Busy`], [`Error::Unavailable`]: ask again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the reaction was either stored, counted and announced, or
    /// none of it.
    pub async fn react(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        message: MessageId,
        reaction: Reaction,
    ) -> Result<Stamped> {
        let target = Target::new(actor, conversation, message);
        let react = React::new(target, reaction, Turn::On, self.engine.limits());
        self.change(actor, target, react).await
    }

    /// Takes the actor's reaction to a message back. One that is not there changes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`react`](Self::react), but for the bounds.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the reaction was either taken away, counted and announced,
    /// or none of it.
    pub async fn unreact(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        message: MessageId,
        reaction: Reaction,
    ) -> Result<Stamped> {
        let target = Target::new(actor, conversation, message);
        let react = React::new(target, reaction, Turn::Off, self.engine.limits());
        self.change(actor, target, react).await
    }

    /// Runs a change of a message, and reads the message where the change was a repetition.
    async fn change<O>(&self, actor: &Actor, target: Target, operation: O) -> Result<Stamped>
    where
        O: Repeatable + Operation<Output = Option<Stamped>>,
    {
        let writer = self.engine.writer();
        let once = self.once.clone();
        let (changed, _) = writer.run_once(operation, actor.user_id(), once).await?;
        if let Some(changed) = changed {
            return Ok(changed);
        }
        let conversations = self.engine.conversations();
        let membership = conversations.membership(actor, target.conversation).await?;
        self.message(&membership, target.message).await
    }

    /// Returns messages after a sequence number, in ascending order: [`history`](Self::history)
    /// for whoever reads forwards until nothing comes.
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
        let between = Between {
            after: Some(after),
            before: None,
        };
        Ok(self.history(membership, between, limit).await?.messages)
    }

    /// Returns messages of a stretch of a conversation, in ascending order.
    ///
    /// Of a stretch that has an end, the last ones; of one that has none, the first. So a client
    /// that scrolls back asks for what comes before the oldest message that it has, and one that
    /// fills a hole names both ends. `limit` is 1 to 100. Deleted messages are there, as
    /// tombstones, so sequence numbers have no gaps.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: `limit` is out of bounds.
    /// - [`Error::ConversationNotFound`]: the member has left since the proof was given.
    pub async fn history(
        &self,
        membership: &Membership,
        between: Between,
        limit: u32,
    ) -> Result<History> {
        let most = self.engine.limits().page_messages_max;
        if !(1..=most).contains(&limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        let membership = *membership;
        // One picture of one moment, membership included.
        let read =
            move |db| async move { queries::history(&db, &membership, between, limit).await };
        let store = self.engine.store();
        store.snapshot(self.engine.tasks(), read).await
    }

    /// Returns one message.
    ///
    /// # Errors
    ///
    /// [`Error::MessageNotFound`]: it is not in the member's conversation, or from before the
    /// member's time.
    pub async fn message(&self, membership: &Membership, id: MessageId) -> Result<Stamped> {
        let membership = *membership;
        let read = move |db| async move {
            let head = fence::head(&db).await?;
            let message = queries::find_one(&db, &membership, id).await?;
            let mut message = message.ok_or(Error::MessageNotFound)?;
            let one = std::slice::from_mut(&mut message);
            queries::mark_mine(&db, membership.user_id(), one).await?;
            Ok(Stamped {
                message,
                stamp: fence::stamp(&head),
            })
        };
        let store = self.engine.store();
        store.snapshot(self.engine.tasks(), read).await
    }

    /// Returns who reacts to a message and how, ordered by person and emoji: those after `after`,
    /// which is the last one that the caller has.
    ///
    /// `limit` is 1 to 100. Fewer come back only at the end.
    ///
    /// # Errors
    ///
    /// - [`Error::MessageNotFound`]: it is not in the member's conversation, or from before the
    ///   member's time.
    /// - [`Error::Invalid`]: `limit` is out of bounds.
    pub async fn reactions(
        &self,
        membership: &Membership,
        id: MessageId,
        after: Option<(UserId, &Reaction)>,
        limit: u32,
    ) -> Result<Vec<Reacted>> {
        let most = self.engine.limits().page_reactions_max;
        if !(1..=most).contains(&limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        let store = self.engine.store();
        let message = queries::find_one(&store.read(), membership, id).await?;
        let message = message.ok_or(Error::MessageNotFound)?;
        queries::reactions_after(&store.read(), message.id, after, limit).await
    }
}

impl ConversationHead {
    /// What a message changes about its conversation.
    pub(crate) fn after(message: &Message) -> Self {
        Self {
            id: message.conversation_id,
            updated_at: message.created_at,
            last_message_preview: Some(preview(&message.content).to_owned()),
            last_message_at: Some(message.created_at),
            version: message.version,
        }
    }

    /// What another form of its last message changes about a conversation; `None` if it has none.
    pub(crate) fn changed(message: &Message) -> Option<Self> {
        Some(Self {
            updated_at: message.deleted_at.or(message.edited_at)?,
            ..Self::after(message)
        })
    }
}

impl Message {
    /// Bytes of content, which bound an answer.
    pub(crate) fn bytes(&self) -> usize {
        let reactions = self.reactions.iter().map(|reactions| reactions.emoji.len());
        let attachments = self.attachments.iter().map(Attachment::bytes);
        self.content.len()
            + attachments.sum::<usize>()
            + self.metadata.as_ref().map_or(0, String::len)
            + reactions.sum::<usize>()
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
            edited_at: row.edited_at.map(Timestamp::from_micros),
            deleted_at: row.deleted_at.map(Timestamp::from_micros),
            reply_to: row.reply_to.map(MessageId::from),
            mentions: ids_of(row.mentions.as_deref()),
            attachments: attachments::held_by(row.attachments.as_deref()),
            reactions: reactions_of(row.reactions.as_deref()),
            metadata: row.metadata,
            version: Position::stored(row.changed_pos),
        }
    }
}

/// The ids in a column that has 16 bytes for each.
fn ids_of(packed: Option<&[u8]>) -> Vec<UserId> {
    let ids = packed.unwrap_or_default().chunks_exact(16);
    ids.filter_map(|bytes| Uuid::from_slice(bytes).ok())
        .map(UserId::from)
        .collect()
}

/// The column for ids, which has 16 bytes for each.
fn packed(ids: &[UserId]) -> Option<Vec<u8>> {
    let bytes = ids.iter().flat_map(|id| *id.as_uuid().as_bytes());
    (!ids.is_empty()).then(|| bytes.collect())
}

/// The counts in a column that has a JSON object of them, by emoji.
fn counts_of(counts: Option<&str>) -> BTreeMap<String, u32> {
    counts
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The column for counts.
fn counted(counts: &BTreeMap<String, u32>) -> Option<String> {
    let text = (!counts.is_empty()).then(|| serde_json::to_string(counts));
    text.and_then(std::result::Result::ok)
}

fn reactions_of(counts: Option<&str>) -> Vec<Reactions> {
    let reactions = counts_of(counts).into_iter();
    let reactions = reactions.map(|(emoji, count)| Reactions {
        emoji,
        count,
        mine: false,
    });
    reactions.collect()
}
