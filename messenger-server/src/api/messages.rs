//! Messages.
//!
//! | route | what |
//! |---|---|
//! | `GET /conversations/{conversation_id}/messages` | a page of messages |
//! | `POST /conversations/{conversation_id}/messages` | a new message |

use messenger_core::messages::{
    ClientMessageId, Message as EngineMessage, MessageBody, NewMessage,
};
use messenger_core::{ConversationId, Error as EngineError, MessengerEngine, Seq};
use poem::web::Data;
use poem::{IntoResponse, Response};
use poem_openapi::param::{Path, Query};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::types::{Example, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::Caller;
use crate::api::body::ApiJson;
use crate::api::envelope::{Answer, Created, Envelope, Failure, Fault, failures, success};
use crate::api::wire::{PathId, Time, Whole};

/// The greatest `seq`: what every JSON reader keeps exact.
const SEQ_MAX: i64 = Seq::MAX.get();

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Messages;

#[OpenApi(tag = "Tag::Messages")]
impl Messages {
    /// List messages
    ///
    /// Returns the messages after a `seq`, oldest first. `seq` is 1, 2, 3, … in each conversation,
    /// without gaps. A conversation of others answers like one that does not exist.
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
        /// How many messages at most.
        #[oai(default = "fifty")]
        limit: Query<Whole<1, 100>>,
    ) -> Result<Answer<MessagePage>, PageFailure> {
        let (after, limit) = (after_seq.0.within("after_seq"), limit.0.within("limit"));
        let (after, limit) = match (after, limit) {
            (Ok(after), Ok(limit)) => (
                Seq::new(after).unwrap_or(Seq::MAX),
                u32::try_from(limit).unwrap_or(u32::MAX),
            ),
            (after, limit) => {
                let faults = [after.err(), limit.err()].into_iter().flatten();
                return Err(Failure::invalid(faults).into());
            }
        };
        let conversation = conversation(&conversation_id)?;
        let conversations = engine.conversations();
        let membership = conversations.membership(&actor, conversation).await?;
        let page = engine.messages().page(&membership, after, limit).await?;
        let messages = page.into_iter().map(Message::from).collect();
        Ok(Answer(MessagePage { messages }))
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
        let conversation = conversation(&conversation_id)?;
        let ApiJson(body) = body;
        let client_id = ClientMessageId::parse(&body.client_message_id);
        let content = MessageBody::parse(body.content, engine.limits());
        let message = match (client_id, content) {
            (Ok(client_id), Ok(body)) => NewMessage { client_id, body },
            (client_id, content) => {
                let broken = [client_id.err(), content.err()];
                let faults = broken.iter().flatten();
                return Err(Failure::invalid(faults.map(|rule| Fault::of("body", rule))).into());
            }
        };
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
}

fn conversation(id: &Path<PathId>) -> Result<ConversationId, EngineError> {
    id.0.read().ok_or(EngineError::ConversationNotFound)
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
    404: "`conversation_not_found`",
    409: "`client_message_conflict`: the id was used in another conversation"
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
    /// The text.
    #[oai(validator(min_length = 1))]
    content: String,
}

impl Example for SendRequest {
    fn example() -> Self {
        Self {
            client_message_id: "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10".to_owned(),
            content: "Good morning!".to_owned(),
        }
    }
}

/// A message.
#[derive(Debug, Object, Serialize)]
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
    /// The text.
    content: String,
    /// When it was stored.
    created_at: Time,
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
        }
    }
}

/// A page of messages.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MessagePage {
    /// Oldest first.
    messages: Vec<Message>,
}
