//! Conversations.
//!
//! | route | what |
//! |---|---|
//! | `GET /conversations` | the caller's conversations |
//! | `POST /conversations/direct` | the conversation with somebody |

use messenger_core::conversations::Conversation;
use messenger_core::{Error as EngineError, MessengerEngine};
use poem::web::Data;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::auth::CallerFailure;
use crate::api::bearer::Caller;
use crate::api::body::ApiJson;
use crate::api::envelope::{Answer, failures};
use crate::api::users::UserPublic;
use crate::api::wire::{Nullable, Time};

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Conversations;

#[OpenApi(prefix_path = "/conversations", tag = "Tag::Conversations")]
impl Conversations {
    /// List conversations
    ///
    /// Returns the conversations of the caller, the one with the latest message first.
    #[oai(path = "/", method = "get", operation_id = "listConversations")]
    async fn list(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<Vec<ConversationSummary>>, CallerFailure> {
        let conversations = engine.conversations().list(&actor).await?;
        Ok(Answer(summaries(conversations)))
    }

    /// Open a direct conversation
    ///
    /// Returns the conversation of the caller with another person, and makes it if there is none
    /// yet. There is one for each pair, whoever opens it and however often.
    #[oai(
        path = "/direct",
        method = "post",
        operation_id = "openDirectConversation"
    )]
    async fn open_direct(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        body: ApiJson<DirectRequest>,
    ) -> Result<Answer<ConversationSummary>, OpenDirectFailure> {
        let other = body.0.other_user_id.trim().parse();
        let other = other.map_err(|_| EngineError::UserNotFound)?;
        let conversation = engine.conversations().open_direct(&actor, other).await?;
        Ok(Answer(conversation.into()))
    }
}

failures! {
    /// How opening a direct conversation can fail.
    OpenDirectFailure: CALLER, BODY, WRITE;
    400: "`invalid_target`: oneself",
    404: "`user_not_found`"
}

/// With whom to talk.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct DirectRequest {
    /// The id of the other person.
    other_user_id: String,
}

impl Example for DirectRequest {
    fn example() -> Self {
        Self {
            other_user_id: "01989f6e-6d3b-7a52-8f0c-3f6f0f6d2b11".to_owned(),
        }
    }
}

/// A conversation, as a list shows it.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ConversationSummary {
    /// The id.
    id: Uuid,
    /// What kind of conversation it is: `direct`. The list is open.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    kind: String,
    /// When it last changed.
    updated_at: Time,
    /// The first 280 characters of the last message.
    last_message_preview: Nullable<String>,
    /// When the last message was sent.
    last_message_at: Nullable<Time>,
    /// The ids of the members, sorted.
    member_ids: Vec<Uuid>,
    /// The members, in the same order.
    members: Vec<UserPublic>,
}

impl From<Conversation> for ConversationSummary {
    fn from(conversation: Conversation) -> Self {
        let members = &conversation.members;
        Self {
            id: conversation.id.as_uuid(),
            kind: conversation.kind.as_str().to_owned(),
            updated_at: conversation.updated_at.into(),
            member_ids: members.iter().map(|member| member.id.as_uuid()).collect(),
            members: members.iter().map(UserPublic::from).collect(),
            last_message_preview: Nullable(conversation.last_message_preview),
            last_message_at: Nullable(conversation.last_message_at.map(Time)),
        }
    }
}

/// Converts the conversations of an answer, in their order.
pub(crate) fn summaries(conversations: Vec<Conversation>) -> Vec<ConversationSummary> {
    let summaries = conversations.into_iter().map(ConversationSummary::from);
    summaries.collect()
}
