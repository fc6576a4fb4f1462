//! Conversations.
//!
//! | route | what |
//! |---|---|
//! | `GET /conversations` | the caller's conversations |
//! | `POST /conversations/direct` | the conversation with somebody |
//! | `GET /conversations/{conversation_id}` | one conversation |
//! | `PATCH /conversations/{conversation_id}` | another title |
//! | `DELETE /conversations/{conversation_id}` | no such group any more |
//! | `PUT /conversations/{conversation_id}/read` | how far the caller has read |
//! | `PUT /conversations/{conversation_id}/delivered` | how far messages have reached the caller |
//! | `POST /conversations/{conversation_id}/typing` | that the caller writes |
//! | `PATCH /conversations/{conversation_id}/settings` | how the caller keeps it |
//!
//! Groups and their members are in `groups.rs`.

use messenger_core::conversations::{
    Conversation, Markers as EngineMarkers, Member, SettingsChange, Title,
};
use messenger_core::sync::ConversationChange;
use messenger_core::{ConversationId, Error as EngineError, MessengerEngine, Seq, Timestamp};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::types::{Example, MaybeUndefined};
use poem_openapi::{Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::{Caller, CallerFailure};
use crate::api::body::ApiJson;
use crate::api::envelope::{Answer, Done, Failure, Fault, Written, failures};
use crate::api::events::TypingState;
use crate::api::idempotency::IdempotencyKey;
use crate::api::wire::{Nullable, PathId, Time};

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

    /// Read a conversation
    ///
    /// Returns one conversation of the caller. One of others answers like one that does not exist.
    #[oai(
        path = "/:conversation_id",
        method = "get",
        operation_id = "getConversation"
    )]
    async fn get(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
    ) -> Result<Answer<ConversationSummary>, ConversationFailure> {
        let conversation = named(&conversation_id)?;
        let conversation = engine.conversations().get(&actor, conversation).await?;
        Ok(Answer(conversation.into()))
    }

    /// Change a group
    ///
    /// Gives a group another title, which takes an owner or an admin, and returns the group.
    #[oai(
        path = "/:conversation_id",
        method = "patch",
        operation_id = "updateGroup"
    )]
    async fn update(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The group.
        conversation_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: ApiJson<UpdateRequest>,
    ) -> Result<Answer<ConversationSummary>, UpdateFailure> {
        let title = Title::parse(body.0.title, engine.limits())?;
        let conversation = named(&conversation_id)?;
        let conversations = engine.conversations().once(key.0);
        conversations.rename(&actor, conversation, title).await?;
        let conversation = conversations.get(&actor, conversation).await?;
        Ok(Answer(conversation.into()))
    }

    /// Delete a group
    ///
    /// Deletes a group for everybody and for good, which takes an owner.
    #[oai(
        path = "/:conversation_id",
        method = "delete",
        operation_id = "deleteGroup"
    )]
    async fn delete(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The group.
        conversation_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
    ) -> Result<Answer<Written>, DeleteFailure> {
        let conversation = named(&conversation_id)?;
        let conversations = engine.conversations().once(key.0);
        let position = conversations.delete(&actor, conversation).await?;
        Ok(Answer(position.into()))
    }

    /// Say how far the caller has read
    ///
    /// Moves the caller's marker forward, never back and not past the last message, and no longer
    /// marks the conversation as unread. What is read is delivered as well. In a conversation of up
    /// to 128 members everybody sees it.
    #[oai(
        path = "/:conversation_id/read",
        method = "put",
        operation_id = "markRead"
    )]
    async fn mark_read(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        body: ApiJson<MarkerRequest>,
    ) -> Result<Answer<Markers>, MarkFailure> {
        let (conversation, seq) = (named(&conversation_id)?, seq(body.0.seq)?);
        let conversations = engine.conversations();
        let markers = conversations.mark_read(&actor, conversation, seq).await?;
        Ok(Answer(markers.into()))
    }

    /// Say that the caller is writing
    ///
    /// Tells those who follow from a cursor, in conversations of up to 128 members, that the caller
    /// is writing or has stopped; for clients that have no socket to say it on. Whoever has started
    /// is taken to be writing for 6 seconds: repeat it while that is so, and not more often than
    /// every 2.
    #[oai(
        path = "/:conversation_id/typing",
        method = "post",
        operation_id = "typing"
    )]
    async fn typing(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        body: ApiJson<TypingRequest>,
    ) -> Result<Answer<Done>, MarkFailure> {
        let conversation = named(&conversation_id)?;
        let is_typing = body.0.state == TypingState::Start;
        let conversations = engine.conversations();
        conversations
            .typing(&actor, conversation, is_typing)
            .await?;
        Ok(Answer(Done::OK))
    }

    /// Say how far messages have reached the caller
    ///
    /// Like `read`, for what a device of the caller has received and nobody has read yet.
    #[oai(
        path = "/:conversation_id/delivered",
        method = "put",
        operation_id = "markDelivered"
    )]
    async fn mark_delivered(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        body: ApiJson<MarkerRequest>,
    ) -> Result<Answer<Markers>, MarkFailure> {
        let (conversation, seq) = (named(&conversation_id)?, seq(body.0.seq)?);
        let conversations = engine.conversations();
        let markers = conversations
            .mark_delivered(&actor, conversation, seq)
            .await?;
        Ok(Answer(markers.into()))
    }

    /// Change how the caller keeps a conversation
    ///
    /// Mutes, pins, archives or marks as unread, for the caller only, and returns the conversation.
    /// A field that is missing stays as it is.
    #[oai(
        path = "/:conversation_id/settings",
        method = "patch",
        operation_id = "changeSettings"
    )]
    async fn change_settings(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: ApiJson<SettingsRequest>,
    ) -> Result<Answer<ConversationSummary>, SettingsFailure> {
        let ApiJson(body) = body;
        let conversation = named(&conversation_id)?;
        let change = SettingsChange {
            muted_until: Option::from(body.muted_until).map(|time: Option<Time>| time.map(|t| t.0)),
            pinned: body.pinned,
            archived: body.archived,
            marked_unread: body.marked_unread,
        };
        let conversations = engine.conversations().once(key.0);
        conversations
            .change_settings(&actor, conversation, change)
            .await?;
        let conversation = conversations.get(&actor, conversation).await?;
        Ok(Answer(conversation.into()))
    }
}

/// The conversation that a path names. What is no id names none.
pub(crate) fn named(id: &Path<PathId>) -> Result<ConversationId, EngineError> {
    id.0.read().ok_or(EngineError::ConversationNotFound)
}

fn seq(number: i64) -> Result<Seq, Failure> {
    Seq::new(number).ok_or_else(|| {
        let msg = format!("must be a whole number from 0 to {}", Seq::MAX);
        Failure::invalid([Fault::new("body", "seq", msg)])
    })
}

failures! {
    /// How reading a conversation can fail.
    ConversationFailure: CALLER;
    404: "`conversation_not_found`"
}
failures! {
    /// How changing a group can fail.
    UpdateFailure: CALLER, BODY, WRITE;
    400: "`not_a_group`",
    403: "`forbidden`: neither owner nor admin",
    404: "`conversation_not_found`",
    409: "`client_write_conflict`: the id was used for another write"
}
failures! {
    /// How deleting a group can fail.
    DeleteFailure: CALLER, INPUT, WRITE;
    400: "`not_a_group`",
    403: "`forbidden`: no owner",
    404: "`conversation_not_found`",
    409: "`client_write_conflict`: the id was used for another write"
}
failures! {
    /// How moving a marker can fail.
    MarkFailure: CALLER, BODY, WRITE;
    404: "`conversation_not_found`"
}
/// Whether somebody is writing.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct TypingRequest {
    /// Whether the caller has begun to write, or has stopped.
    state: TypingState,
}

impl Example for TypingRequest {
    fn example() -> Self {
        Self {
            state: TypingState::Start,
        }
    }
}

failures! {
    /// How changing one's own settings can fail.
    SettingsFailure: CALLER, BODY, WRITE;
    404: "`conversation_not_found`",
    409: "`client_write_conflict`: the id was used for another write"
}
failures! {
    /// How opening a direct conversation can fail.
    OpenDirectFailure: CALLER, BODY, WRITE;
    400: "`invalid_target`: oneself",
    403: "`blocked`: there is none yet, and one of the two has blocked the other; or `refused`: \
          the application does not allow it",
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

/// What a group is to be called.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct UpdateRequest {
    /// The title, 1 to 128 characters.
    #[oai(validator(min_length = 1, max_length = 128))]
    title: String,
}

impl Example for UpdateRequest {
    fn example() -> Self {
        Self {
            title: "Hikers".to_owned(),
        }
    }
}

/// How far.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct MarkerRequest {
    /// The place of the last message.
    #[oai(validator(minimum(value = "0"), maximum(value = "9007199254740991")))]
    seq: i64,
}

impl Example for MarkerRequest {
    fn example() -> Self {
        Self { seq: 42 }
    }
}

/// Where the caller is in a conversation.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Markers {
    /// The last message that the caller has read.
    last_read_seq: i64,
    /// The last message that a device of the caller has received.
    last_delivered_seq: i64,
    /// How many messages of others the caller has not read.
    unread_count: u64,
    /// The version of the caller's own fields of the conversation.
    own_version: i64,
}

impl From<EngineMarkers> for Markers {
    fn from(markers: EngineMarkers) -> Self {
        Self {
            last_read_seq: markers.last_read.get(),
            last_delivered_seq: markers.last_delivered.get(),
            unread_count: markers.unread_count,
            own_version: markers.version.get(),
        }
    }
}

/// What to change about how the caller keeps a conversation.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct SettingsRequest {
    /// Until when it is to make no noise; `null` ends its silence.
    #[serde(default)]
    muted_until: MaybeUndefined<Time>,
    /// Whether it is pinned to the top.
    pinned: Option<bool>,
    /// Whether it is put away.
    archived: Option<bool>,
    /// Whether it is to look unread.
    marked_unread: Option<bool>,
}

impl Example for SettingsRequest {
    fn example() -> Self {
        Self {
            muted_until: MaybeUndefined::Value(Time(Timestamp::from_micros(1_771_839_000_123_456))),
            pinned: Some(true),
            archived: Some(false),
            marked_unread: Some(false),
        }
    }
}

/// A conversation, as a list shows it.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ConversationSummary {
    /// The id.
    id: Uuid,
    /// What kind of conversation it is: `direct`, `group`. The list is open.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    kind: String,
    /// When it last changed.
    updated_at: Time,
    /// The first 280 characters of the last message.
    last_message_preview: Nullable<String>,
    /// When the last message was sent.
    last_message_at: Nullable<Time>,
    /// The ids of the members, sorted. Of a large group these are the caller, the owners and the
    /// admins.
    member_ids: Vec<Uuid>,
    /// The members, in the same order.
    members: Vec<MemberPublic>,
    /// The title of a group.
    title: Nullable<String>,
    /// The place of the last message; 0 if there is none.
    last_seq: i64,
    /// How many members there are.
    member_count: u32,
    /// `full`: all members are listed; `lazy`: the group is large, read its list on demand;
    /// `unchanged`, in a sync: the list that the client has is right, and none is here.
    members_mode: String,
    /// In a sync: the client begins with it, and what it has of it from before is void.
    initial: bool,
    /// What the caller may do: `member`, `admin`, `owner`. The list is open.
    role: String,
    /// The first message that the caller may see.
    visible_from_seq: i64,
    /// The last message that the caller has read.
    last_read_seq: i64,
    /// The last message that a device of the caller has received.
    last_delivered_seq: i64,
    /// How many messages of others the caller has not read.
    unread_count: u64,
    /// Whether the caller wants it to look unread.
    marked_unread: bool,
    /// Until when it is to make no noise.
    muted_until: Nullable<Time>,
    /// Since when it is pinned to the top.
    pinned_at: Nullable<Time>,
    /// Since when it is put away.
    archived_at: Nullable<Time>,
    /// The version of what everybody sees of it; of two, the greater one is newer.
    version: i64,
    /// The version of its list of members.
    members_version: i64,
    /// The version of the caller's own fields.
    own_version: i64,
    /// Changes when the caller joins again: what is known from before is void then.
    membership_version: i64,
}

impl ConversationSummary {
    /// Converts a conversation of a sync.
    pub(crate) fn changed(change: ConversationChange) -> Self {
        let mut summary = Self::from(change.conversation);
        summary.initial = change.is_initial;
        if !change.lists_members {
            "unchanged".clone_into(&mut summary.members_mode);
        }
        summary
    }
}

/// A member of a conversation.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MemberPublic {
    /// The id.
    id: Uuid,
    /// The name to log in with.
    username: String,
    /// The name that is shown.
    display_name: String,
    /// When they were registered.
    created_at: Time,
    /// The position of the last change of the person.
    version: i64,
    /// What the member may do: `member`, `admin`, `owner`. The list is open.
    role: String,
}

impl From<&Member> for MemberPublic {
    fn from(member: &Member) -> Self {
        Self {
            id: member.user.id.as_uuid(),
            username: member.user.username.as_str().to_owned(),
            display_name: member.user.display_name.as_str().to_owned(),
            created_at: member.user.created_at.into(),
            version: member.user.version.get(),
            role: member.role.as_str().to_owned(),
        }
    }
}

impl From<Conversation> for ConversationSummary {
    fn from(conversation: Conversation) -> Self {
        let (members, own) = (&conversation.members, &conversation.own);
        Self {
            id: conversation.id.as_uuid(),
            kind: conversation.kind.as_str().to_owned(),
            updated_at: conversation.updated_at.into(),
            member_ids: members
                .iter()
                .map(|member| member.user.id.as_uuid())
                .collect(),
            members: members.iter().map(MemberPublic::from).collect(),
            last_message_preview: Nullable(conversation.last_message_preview),
            last_message_at: Nullable(conversation.last_message_at.map(Time)),
            title: Nullable(conversation.title),
            last_seq: conversation.last_seq.get(),
            member_count: conversation.member_count,
            initial: false,
            members_mode: if conversation.is_large {
                "lazy"
            } else {
                "full"
            }
            .to_owned(),
            role: own.role.as_str().to_owned(),
            visible_from_seq: own.visible_from.get(),
            last_read_seq: own.last_read.get(),
            last_delivered_seq: own.last_delivered.get(),
            unread_count: own.unread_count,
            marked_unread: own.marked_unread,
            muted_until: Nullable(own.muted_until.map(Time)),
            pinned_at: Nullable(own.pinned_at.map(Time)),
            archived_at: Nullable(own.archived_at.map(Time)),
            version: conversation.version.get(),
            members_version: conversation.members_version.get(),
            own_version: own.version.get(),
            membership_version: own.membership_version.get(),
        }
    }
}

/// Converts the conversations of an answer, in their order.
pub(crate) fn summaries(conversations: Vec<Conversation>) -> Vec<ConversationSummary> {
    let summaries = conversations.into_iter().map(ConversationSummary::from);
    summaries.collect()
}
