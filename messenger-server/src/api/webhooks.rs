//! What the server tells an endpoint of its operator, for the document. The engine writes it; that it
//! writes what is described here is tested.

use poem_openapi::payload::Json;
use poem_openapi::types::{ParseFromJSON, ToJSON};
use poem_openapi::{Object, Union, Webhook};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::events::{ReactionMove, ReadUpdated, UserUpdated};
use crate::api::messages::Message;
use crate::api::users::UserPublic;
use crate::api::wire::{Nullable, Time};

/// What is told.
#[expect(dead_code, reason = "the document is made of it, and nobody calls it")]
#[Webhook]
pub(crate) trait Webhooks {
    /// Tell a change
    ///
    /// Sent to `WEBHOOK_URL` with the headers `webhook-id` (the same at every try),
    /// `webhook-timestamp` and `webhook-signature` of the Standard Webhooks scheme. Any 2xx takes it;
    /// anything else is tried again, in order within each conversation. 410 stops it until the server
    /// is started again.
    #[oai(
        name = "change",
        method = "post",
        tag = "Tag::Webhooks",
        operation_id = "webhooks_change"
    )]
    fn change(&self, body: Json<WebhookEvent>);
}

/// Something that has happened, and what it is about as it is by now. The list is open: answer a
/// `type` that is unknown with a 2xx.
#[derive(Debug, Union)]
#[oai(one_of, discriminator_name = "type")]
pub(crate) enum WebhookEvent {
    #[oai(mapping = "message.created")]
    MessageCreated(Told<WebhookMessageCreated>),
    #[oai(mapping = "message.updated")]
    MessageUpdated(Told<WebhookMessageUpdated>),
    #[oai(mapping = "message.deleted")]
    MessageDeleted(Told<WebhookMessageDeleted>),
    #[oai(mapping = "conversation.created")]
    ConversationCreated(Told<WebhookConversationCreated>),
    #[oai(mapping = "conversation.updated")]
    ConversationUpdated(Told<WebhookConversationUpdated>),
    #[oai(mapping = "conversation.deleted")]
    ConversationDeleted(Told<WebhookConversationDeleted>),
    #[oai(mapping = "members.added")]
    MembersAdded(Told<WebhookMembersAdded>),
    #[oai(mapping = "member.removed")]
    MemberRemoved(Told<WebhookMemberRemoved>),
    #[oai(mapping = "member.updated")]
    MemberUpdated(Told<WebhookMemberUpdated>),
    #[oai(mapping = "read.updated")]
    ReadUpdated(Told<ReadUpdated>),
    #[oai(mapping = "user.updated")]
    UserUpdated(Told<UserUpdated>),
    #[oai(mapping = "password.changed")]
    PasswordChanged(Told<WebhookPasswordChanged>),
    #[oai(mapping = "sessions.ended")]
    SessionsEnded(Told<WebhookSessionsEnded>),
    #[oai(mapping = "changes.missed")]
    ChangesMissed(Told<WebhookChangesMissed>),
}

/// A change as it is told.
#[derive(Debug, Object)]
pub(crate) struct Told<D: ParseFromJSON + ToJSON> {
    /// When it was committed.
    timestamp: Time,
    /// What happened.
    data: D,
}

/// A conversation, as everybody in it knows it.
#[derive(Debug, Object)]
pub(crate) struct ConversationBrief {
    /// The id.
    id: Uuid,
    /// `direct` or `group`; the list is open.
    #[oai(rename = "type")]
    kind: String,
    /// The title of a group.
    title: Nullable<String>,
    /// How many people belong to it.
    member_count: u32,
}

/// A message was sent.
#[derive(Debug, Object)]
pub(crate) struct WebhookMessageCreated {
    /// The message; without its content, if it was deleted meanwhile.
    message: Message,
    /// Who sent it.
    sender: UserPublic,
    /// Where.
    conversation: ConversationBrief,
    /// Members who want to hear of it: in a conversation of up to 128 members all, in a larger one
    /// whom the message names; without the sender, whoever has muted it, and whoever has blocked the
    /// sender or was blocked by them.
    notify: Vec<Uuid>,
}

/// A message has other content, or somebody reacts to it, or no longer.
#[derive(Debug, Object)]
pub(crate) struct WebhookMessageUpdated {
    /// The message.
    message: Message,
    /// The reaction that came or went; null if it was edited.
    reaction: Nullable<ReactionMove>,
}

/// A message was deleted.
#[derive(Debug, Object)]
pub(crate) struct WebhookMessageDeleted {
    /// What is left of it.
    message: Message,
}

/// There is a new conversation.
#[derive(Debug, Object)]
pub(crate) struct WebhookConversationCreated {
    /// The conversation.
    conversation: ConversationBrief,
    /// Who belongs to it from the beginning.
    member_ids: Vec<Uuid>,
    /// Who opened it.
    by: Uuid,
}

/// A group has another title.
#[derive(Debug, Object)]
pub(crate) struct WebhookConversationUpdated {
    /// The group.
    conversation: ConversationBrief,
    /// Who changed it.
    by: Uuid,
}

/// A group is no more.
#[derive(Debug, Object)]
pub(crate) struct WebhookConversationDeleted {
    /// The group.
    conversation_id: Uuid,
    /// Who deleted it.
    by: Uuid,
}

/// People belong to a group from here on.
#[derive(Debug, Object)]
pub(crate) struct WebhookMembersAdded {
    /// The group.
    conversation: ConversationBrief,
    /// Who was added.
    user_ids: Vec<Uuid>,
    /// Who added them.
    by: Uuid,
}

/// Somebody no longer belongs to a group.
#[derive(Debug, Object)]
pub(crate) struct WebhookMemberRemoved {
    /// The group.
    conversation_id: Uuid,
    /// Who left or was removed.
    user_id: Uuid,
    /// Who removed them; the same, if they left.
    by: Uuid,
}

/// A member of a group may do other things.
#[derive(Debug, Object)]
pub(crate) struct WebhookMemberUpdated {
    /// The group.
    conversation_id: Uuid,
    /// The member.
    user_id: Uuid,
    /// `member`, `admin` or `owner`; the list is open.
    role: String,
    /// Who changed it.
    by: Uuid,
}

/// Somebody has another password.
#[derive(Debug, Object)]
pub(crate) struct WebhookPasswordChanged {
    /// Who.
    user_id: Uuid,
}

/// Sessions have ended.
#[derive(Debug, Object)]
pub(crate) struct WebhookSessionsEnded {
    /// Whose.
    user_id: Uuid,
    /// Which.
    session_ids: Vec<Uuid>,
}

/// What happened can not be told any more: the endpoint was away for too long.
#[derive(Debug, Object)]
pub(crate) struct WebhookChangesMissed {
    /// Where it happened; null for everywhere.
    conversation_id: Nullable<Uuid>,
    /// What happened up to this position was told.
    after: i64,
    /// What happened after this position is told.
    upto: i64,
}
