//! Messages.
//!
//! | route | what |
//! |---|---|
//! | `GET /conversations/{conversation_id}/messages` | a page of messages |
//! | `POST /conversations/{conversation_id}/messages` | a new message |
//! | `GET …/messages/{message_id}` | one message |
//! | `PATCH …/messages/{message_id}` | other content |
//! | `DELETE …/messages/{message_id}` | a tombstone in its place |
//! | `GET …/messages/{message_id}/reactions` | who reacts, and how |
//! | `PUT …/messages/{message_id}/reactions/{emoji}` | a reaction |
//! | `DELETE …/messages/{message_id}/reactions/{emoji}` | none any more |

use messenger_core::messages::{
    Between, ClientMessageId, History, Message as EngineMessage, MessageBody,
    Messages as EngineMessages, Metadata, NewMessage, Reacted, Reaction as EngineReaction,
    Reactions, Stamped,
};
use messenger_core::{
    AttachmentId, Error as EngineError, Invalid, MessageId, MessengerEngine, Seq, UserId,
};
use poem::web::Data;
use poem::{IntoResponse, Response};
use poem_openapi::param::{Path, Query};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::types::{Example, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::attachments::Attachment;
use crate::api::bearer::Caller;
use crate::api::body::ApiJson;
use crate::api::conversations::named;
use crate::api::envelope::{Answer, Created, Envelope, Failure, Fault, failures, success};
use crate::api::idempotency::IdempotencyKey;
use crate::api::wire::{AnyJson, AnyObject, Nullable, PathId, Stamp, Text, Time, Whole};

/// The greatest `seq`: what every JSON reader keeps exact.
const SEQ_MAX: i64 = Seq::MAX.get();

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Messages;

#[OpenApi(tag = "Tag::Messages")]
impl Messages {
    /// List messages
    ///
    /// Returns messages, oldest first: those after `after_seq`, or the last ones before
    /// `before_seq`, or with both the last ones in between. `seq` is 1, 2, 3, … in each
    /// conversation, without gaps; a deleted message keeps its place, with empty `content`. A
    /// conversation of others answers like one that does not exist.
    #[oai(
        path = "/conversations/:conversation_id/messages",
        method = "get",
        operation_id = "listMessages"
    )]
    async fn page(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The last `seq` that the client has; 0 for none.
        #[oai(default = "zero")]
        after_seq: Query<Whole<0, SEQ_MAX>>,
        /// The first `seq` that the client has.
        before_seq: Query<Option<Whole<0, SEQ_MAX>>>,
        /// How many messages at most.
        #[oai(default = "fifty")]
        limit: Query<Whole<1, 100>>,
    ) -> Result<Answer<MessagePage>, PageFailure> {
        let after = after_seq.0.within("after_seq");
        let before = before_seq.0.map(|seq| seq.within("before_seq"));
        let limit = limit.0.within("limit");
        let (between, limit) = match (after, before.transpose(), limit) {
            (Ok(after), Ok(before), Ok(limit)) => (
                Between {
                    after: Seq::new(after),
                    before: before.and_then(Seq::new),
                },
                u32::try_from(limit).unwrap_or(u32::MAX),
            ),
            (after, before, limit) => {
                let faults = [after.err(), before.err(), limit.err()];
                return Err(Failure::invalid(faults.into_iter().flatten()).into());
            }
        };
        let conversation = named(&conversation_id)?;
        let conversations = engine.conversations();
        let membership = conversations.membership(&actor, conversation).await?;
        let messages = engine.messages();
        let history = messages.history(&membership, between, limit).await?;
        Ok(Answer(history.into()))
    }

    /// Send a message
    ///
    /// Stores the message and announces it to all members. Sending again with the same
    /// `client_message_id` returns the first message with status 200 and changes nothing, so
    /// whoever got no answer sends again.
    #[oai(
        path = "/conversations/:conversation_id/messages",
        method = "post",
        operation_id = "sendMessage"
    )]
    async fn send(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        body: ApiJson<SendRequest>,
    ) -> Result<Sent, SendFailure> {
        let conversation = named(&conversation_id)?;
        let message = body.0.read(&engine).map_err(|broken| {
            let faults = broken.iter().map(|rule| Fault::of("body", rule));
            Failure::invalid(faults)
        })?;
        let sent = engine
            .messages()
            .send(&actor, conversation, message)
            .await?;
        let message = sent.message.into();
        Ok(if sent.created {
            Sent::Created(message)
        } else {
            Sent::Before(message)
        })
    }

    /// Read a message
    ///
    /// Returns one message as it is now.
    #[oai(
        path = "/conversations/:conversation_id/messages/:message_id",
        method = "get",
        operation_id = "getMessage"
    )]
    async fn one(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The message.
        message_id: Path<PathId>,
    ) -> Result<Answer<StampedMessage>, ReadFailure> {
        let conversation = named(&conversation_id)?;
        let conversations = engine.conversations();
        let membership = conversations.membership(&actor, conversation).await?;
        let messages = engine.messages();
        let message = messages.message(&membership, message(&message_id)?).await?;
        Ok(Answer(message.into()))
    }

    /// Edit a message
    ///
    /// Gives a message of the caller other content and announces it. The same content changes
    /// nothing.
    #[oai(
        path = "/conversations/:conversation_id/messages/:message_id",
        method = "patch",
        operation_id = "editMessage"
    )]
    async fn edit(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The message.
        message_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
        body: ApiJson<EditRequest>,
    ) -> Result<Answer<StampedMessage>, EditFailure> {
        let (conversation, message) = (named(&conversation_id)?, message(&message_id)?);
        // Whether it may have none depends on what is attached to it.
        let content = match body.0.content.is_empty() {
            true => MessageBody::none(),
            false => MessageBody::parse(body.0.content, engine.limits())?,
        };
        let messages = messages(&engine, once);
        let edited = messages
            .edit(&actor, conversation, message, content)
            .await?;
        Ok(Answer(edited.into()))
    }

    /// Delete a message
    ///
    /// Empties a message for everybody and announces it: one of the caller, or in a group that the
    /// caller owns or administers any. Its place is kept, and deleting again changes nothing.
    #[oai(
        path = "/conversations/:conversation_id/messages/:message_id",
        method = "delete",
        operation_id = "deleteMessage"
    )]
    async fn delete(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The message.
        message_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<StampedMessage>, DeleteFailure> {
        let (conversation, message) = (named(&conversation_id)?, message(&message_id)?);
        let messages = messages(&engine, once);
        let deleted = messages.delete(&actor, conversation, message).await?;
        Ok(Answer(deleted.into()))
    }

    /// List reactions
    ///
    /// Returns who reacts to a message and how. If `next_after` is not null, there may be more:
    /// ask again with it as `after`.
    #[oai(
        path = "/conversations/:conversation_id/messages/:message_id/reactions",
        method = "get",
        operation_id = "listReactions"
    )]
    async fn reactions(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The message.
        message_id: Path<PathId>,
        /// The `next_after` of the page before.
        after: Query<Option<String>>,
        /// How many reactions at most.
        #[oai(default = "fifty")]
        limit: Query<Whole<1, 100>>,
    ) -> Result<Answer<ReactionPage>, ReactionsFailure> {
        let after = after.0.as_deref();
        let after = after.map(|text| read_place(text, &engine)).transpose();
        let limit = limit.0.within("limit");
        let (after, limit) = match (after, limit) {
            (Ok(after), Ok(limit)) => (after, u32::try_from(limit).unwrap_or(u32::MAX)),
            (after, limit) => {
                let faults = [after.err(), limit.err()];
                return Err(Failure::invalid(faults.into_iter().flatten()).into());
            }
        };
        let (conversation, message) = (named(&conversation_id)?, message(&message_id)?);
        let conversations = engine.conversations();
        let membership = conversations.membership(&actor, conversation).await?;
        let after = after.as_ref().map(|(user, emoji)| (*user, emoji));
        let messages = engine.messages();
        let reacted = messages
            .reactions(&membership, message, after, limit)
            .await?;
        let is_full = reacted.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let last = reacted.last().filter(|_| is_full).map(place);
        Ok(Answer(ReactionPage {
            reactions: reacted.into_iter().map(ReactedBy::from).collect(),
            next_after: Nullable(last),
        }))
    }

    /// React to a message
    ///
    /// Adds a reaction of the caller and announces it. One that is there already changes nothing.
    #[oai(
        path = "/conversations/:conversation_id/messages/:message_id/reactions/:emoji",
        method = "put",
        operation_id = "addReaction"
    )]
    async fn react(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The message.
        message_id: Path<PathId>,
        /// An emoji or a short word, percent-encoded: at most 64 bytes, without white space.
        emoji: Path<Text<64>>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<StampedMessage>, ReactFailure> {
        let (conversation, message) = (named(&conversation_id)?, message(&message_id)?);
        let emoji = reaction(&emoji, &engine)?;
        let messages = messages(&engine, once);
        let reacted = messages.react(&actor, conversation, message, emoji).await;
        let reacted = reacted.map_err(about_the_path)?;
        Ok(Answer(reacted.into()))
    }

    /// Take a reaction back
    ///
    /// Takes a reaction of the caller away and announces it. One that is not there changes
    /// nothing.
    #[oai(
        path = "/conversations/:conversation_id/messages/:message_id/reactions/:emoji",
        method = "delete",
        operation_id = "removeReaction"
    )]
    async fn unreact(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The message.
        message_id: Path<PathId>,
        /// An emoji or a short word, percent-encoded: at most 64 bytes, without white space.
        emoji: Path<Text<64>>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<StampedMessage>, ReactFailure> {
        let (conversation, message) = (named(&conversation_id)?, message(&message_id)?);
        let emoji = reaction(&emoji, &engine)?;
        let messages = messages(&engine, once);
        let left = messages
            .unreact(&actor, conversation, message, emoji)
            .await?;
        Ok(Answer(left.into()))
    }
}

fn message(id: &Path<PathId>) -> Result<MessageId, EngineError> {
    id.0.read().ok_or(EngineError::MessageNotFound)
}

fn reaction(emoji: &Path<Text<64>>, engine: &MessengerEngine) -> Result<EngineReaction, Failure> {
    let emoji = emoji
        .0
        .given("emoji")
        .map_err(|fault| Failure::invalid([fault]))?;
    let emoji = EngineReaction::parse(emoji, engine.limits());
    emoji.map_err(|rule| about_the_path(rule.into()))
}

/// The place of a reaction in the list, as text.
fn place(reacted: &Reacted) -> String {
    format!("{}:{}", reacted.user_id, reacted.emoji)
}

/// Reads what [`place`] wrote.
fn read_place(text: &str, engine: &MessengerEngine) -> Result<(UserId, EngineReaction), Fault> {
    let parts = text.split_once(':').and_then(|(user, emoji)| {
        let emoji = EngineReaction::parse(emoji, engine.limits()).ok()?;
        Some((user.parse().ok()?, emoji))
    });
    parts.ok_or_else(|| Fault::new("query", "after", "must be the `next_after` of a page"))
}

/// Says of what breaks a rule that it is in the path.
fn about_the_path(error: EngineError) -> Failure {
    match &error {
        EngineError::Invalid(rule) => Failure::invalid([Fault::of("path", rule)]),
        _ => error.into(),
    }
}

/// The engine's messages, for a change that may be a repetition.
fn messages(engine: &MessengerEngine, IdempotencyKey(id): IdempotencyKey) -> EngineMessages<'_> {
    match id {
        Some(id) => engine.messages().once(id),
        None => engine.messages(),
    }
}

fn zero() -> Whole<0, SEQ_MAX> {
    Whole(Some(0))
}

fn fifty() -> Whole<1, 100> {
    Whole(Some(50))
}

failures! {
    /// How reading messages can fail.
    PageFailure: CALLER, INPUT;
    404: "`conversation_not_found`"
}
failures! {
    /// How sending can fail.
    SendFailure: CALLER, BODY, WRITE;
    403: "`blocked`: one of the two people has blocked the other; or `refused`: the application \
          does not allow it",
    404: "`conversation_not_found`, `message_not_found` (what it answers), `member_not_found` (whom \
          it names) or `attachment_not_found` (what it is to have)",
    409: "`client_message_conflict`: the id was used in another conversation; `attachment_used`: \
          another message has it; or `user_deleted`: the account of the other person was"
}
failures! {
    /// How reading one message can fail.
    ReadFailure: CALLER;
    404: "`conversation_not_found` or `message_not_found`"
}
failures! {
    /// How listing reactions can fail.
    ReactionsFailure: CALLER, INPUT;
    404: "`conversation_not_found` or `message_not_found`"
}
failures! {
    /// How editing can fail.
    EditFailure: CALLER, BODY, WRITE;
    403: "`forbidden`: somebody else has sent it; `blocked`; or `refused`: the application does \
          not allow it",
    404: "`conversation_not_found` or `message_not_found`",
    409: "`message_deleted`, `user_deleted`, or `client_write_conflict`: the key was used for \
          something else"
}
failures! {
    /// How deleting can fail.
    DeleteFailure: CALLER, INPUT, WRITE;
    403: "`forbidden`: it is not the caller's to delete",
    404: "`conversation_not_found` or `message_not_found`",
    409: "`client_write_conflict`: the key was used for something else"
}
failures! {
    /// How reacting can fail.
    ReactFailure: CALLER, INPUT, WRITE;
    403: "`blocked`: one of the two people has blocked the other",
    404: "`conversation_not_found` or `message_not_found`",
    409: "`message_deleted`, `user_deleted`, or `client_write_conflict`: the key was used for \
          something else"
}

/// A message that is stored now, or was before.
#[derive(Debug)]
enum Sent {
    Created(Message),
    Before(Message),
}

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        match self {
            Self::Created(message) => Created::<_>::into_response(Answer(message)),
            Self::Before(message) => Answer::<_>::into_response(Answer(message)),
        }
    }
}

impl ApiResponse for Sent {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![
                success::<Message>(200, "It was sent before; this is the first message."),
                success::<Message>(201, "It is sent."),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        Envelope::<Message>::register(registry);
    }
}

/// A message to send.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct SendRequest {
    /// An id that the client makes, once for each message, to send it again safely. A UUIDv7 is
    /// best.
    #[oai(validator(min_length = 8, max_length = 64))]
    client_message_id: String,
    /// The text. It may be empty if there are attachments.
    content: String,
    /// The ids of its attachments, which the caller has uploaded for it: at most 10.
    attachment_ids: Option<Vec<Uuid>>,
    /// The id of the message that it answers, in the same conversation.
    reply_to: Option<Uuid>,
    /// The ids of the members whom it names: at most 50.
    mentions: Option<Vec<Uuid>>,
    /// The application's own facts about it: at most 4,096 bytes.
    metadata: Option<AnyObject>,
}

impl SendRequest {
    /// Reads the message, or names every rule that it breaks.
    fn read(self, engine: &MessengerEngine) -> Result<NewMessage, Vec<Invalid>> {
        let limits = engine.limits();
        let client_id = ClientMessageId::parse(&self.client_message_id);
        let attachments = self.attachment_ids.unwrap_or_default();
        let content = match self.content.is_empty() && !attachments.is_empty() {
            true => Ok(MessageBody::none()),
            false => MessageBody::parse(self.content, limits),
        };
        let metadata = self.metadata;
        let metadata = metadata.map(|object| Metadata::parse(object.0.as_str(), limits));
        match (client_id, content, metadata.transpose()) {
            (Ok(client_id), Ok(body), Ok(metadata)) => {
                let mut message = NewMessage::new(client_id, body);
                let attachments = attachments.into_iter();
                message.attachments = attachments.map(AttachmentId::from).collect();
                message.reply_to = self.reply_to.map(MessageId::from);
                let mentions = self.mentions.into_iter().flatten();
                message.mentions = mentions.map(UserId::from).collect();
                message.metadata = metadata;
                Ok(message)
            }
            (client_id, content, metadata) => {
                let broken = [client_id.err(), content.err(), metadata.err()];
                Err(broken.into_iter().flatten().collect())
            }
        }
    }
}

impl Example for SendRequest {
    fn example() -> Self {
        Self {
            client_message_id: "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10".to_owned(),
            content: "Good morning!".to_owned(),
            attachment_ids: None,
            reply_to: Some(Uuid::from_u128(0x01989f70_1e62_7a0b_8d11_4c9a7e5f2b38)),
            mentions: Some(vec![Uuid::from_u128(
                0x01989f70_0a3c_7d41_9c55_2b7f10e4a6d1,
            )]),
            metadata: AnyJson::read(r#"{"order":7}"#).map(AnyObject),
        }
    }
}

/// Other content for a message.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct EditRequest {
    /// The text. It may be empty if there are attachments.
    content: String,
}

impl Example for EditRequest {
    fn example() -> Self {
        Self {
            content: "Good evening!".to_owned(),
        }
    }
}

/// A message.
#[derive(Clone, Debug, Object, Serialize)]
pub(crate) struct Message {
    /// The id.
    id: Uuid,
    /// The conversation.
    conversation_id: Uuid,
    /// Who sent it.
    sender_id: Uuid,
    /// The id that the sender's client made.
    client_message_id: String,
    /// The place in the conversation: 1, 2, 3, … without gaps.
    seq: i64,
    /// The text; empty once it was deleted, and of a message that is nothing but attachments.
    content: String,
    /// When it was stored.
    created_at: Time,
    /// Of two forms of a message, the one with the greater version is newer.
    version: i64,
    /// When its text was last changed.
    edited_at: Nullable<Time>,
    /// When it was deleted.
    deleted_at: Nullable<Time>,
    /// The message that it answers.
    reply_to: Nullable<Uuid>,
    /// The members whom it names.
    mentions: Vec<Uuid>,
    /// What is attached to it, in the sender's order.
    attachments: Vec<Attachment>,
    /// How people react to it, sorted by emoji.
    reactions: Vec<Reaction>,
    /// The application's own facts about it.
    metadata: Nullable<AnyObject>,
}

impl Message {
    /// Leaves out what only holds for one reader.
    pub(super) fn for_everybody(mut self) -> Self {
        for reaction in &mut self.reactions {
            reaction.mine = None;
        }
        self
    }
}

/// How many people react to a message in one way.
#[derive(Clone, Debug, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Reaction {
    /// An emoji or a short word.
    emoji: String,
    /// How many people.
    count: u32,
    /// Whether the caller is among them. A live event does not say it, but who came or went.
    #[serde(skip_serializing_if = "Option::is_none")]
    mine: Option<bool>,
}

impl From<Reactions> for Reaction {
    fn from(reactions: Reactions) -> Self {
        Self {
            emoji: reactions.emoji,
            count: reactions.count,
            mine: Some(reactions.mine),
        }
    }
}

impl From<EngineMessage> for Message {
    fn from(message: EngineMessage) -> Self {
        Self {
            id: message.id.as_uuid(),
            conversation_id: message.conversation_id.as_uuid(),
            sender_id: message.sender_id.as_uuid(),
            client_message_id: message.client_message_id.as_str().to_owned(),
            seq: message.seq.get(),
            content: message.content,
            created_at: message.created_at.into(),
            version: message.version.get(),
            edited_at: Nullable(message.edited_at.map(Time)),
            deleted_at: Nullable(message.deleted_at.map(Time)),
            reply_to: Nullable(message.reply_to.map(MessageId::as_uuid)),
            mentions: message.mentions.iter().map(|id| id.as_uuid()).collect(),
            attachments: message
                .attachments
                .into_iter()
                .map(Attachment::from)
                .collect(),
            reactions: message.reactions.into_iter().map(Reaction::from).collect(),
            metadata: Nullable(
                message
                    .metadata
                    .as_deref()
                    .and_then(AnyJson::read)
                    .map(AnyObject),
            ),
        }
    }
}

/// A message as it was at a moment.
#[derive(Debug, Object, Serialize)]
pub(crate) struct StampedMessage {
    #[oai(flatten)]
    #[serde(flatten)]
    message: Message,
    /// Of what moment it is: a client that knows another `fence` syncs before it keeps the message.
    stamp: Stamp,
}

impl From<Stamped> for StampedMessage {
    fn from(stamped: Stamped) -> Self {
        Self {
            message: stamped.message.into(),
            stamp: stamped.stamp.into(),
        }
    }
}

/// A page of who reacts to a message.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ReactionPage {
    /// The reactions, sorted by person and emoji.
    reactions: Vec<ReactedBy>,
    /// What to ask with next; null at the end.
    next_after: Nullable<String>,
}

/// One person's reaction.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ReactedBy {
    /// Whose it is.
    user_id: Uuid,
    /// An emoji or a short word.
    emoji: String,
    /// When it came.
    created_at: Time,
}

impl From<Reacted> for ReactedBy {
    fn from(reacted: Reacted) -> Self {
        Self {
            user_id: reacted.user_id.as_uuid(),
            emoji: reacted.emoji,
            created_at: reacted.created_at.into(),
        }
    }
}

/// A page of messages.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MessagePage {
    /// Oldest first.
    messages: Vec<Message>,
    /// Whether there are more, in the direction that was asked for.
    has_more: bool,
    /// Changes when the caller joins again: an answer with another one than is known is void.
    membership_version: i64,
    /// Of what moment the answer is: it fills a gap whose `as_of` is not greater.
    stamp: Stamp,
}

impl From<History> for MessagePage {
    fn from(history: History) -> Self {
        let messages = history.messages.into_iter();
        Self {
            messages: messages.map(Message::from).collect(),
            has_more: history.has_more,
            membership_version: history.membership_version.get(),
            stamp: history.stamp.into(),
        }
    }
}
