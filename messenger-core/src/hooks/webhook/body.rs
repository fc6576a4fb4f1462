//! The JSON of a change. What it is about has the form that it has in the server's API.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::attachments::Attachment;
use crate::conversations::Markers;
use crate::error::{Error, Result};
use crate::hooks::change::{Change, ChangeKind, ConversationBrief, NewMessageTold};
use crate::ids::{ConversationId, UserId};
use crate::json::raw;
use crate::messages::Message;
use crate::users::User;

#[derive(Serialize)]
struct Body {
    #[serde(rename = "type")]
    topic: &'static str,
    timestamp: String,
    data: Data,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data {
    New(New),
    Message(OfMessage),
    Other(Value),
}

#[derive(Serialize)]
struct New {
    message: MessageForm,
    sender: Value,
    conversation: Value,
    notify: Vec<uuid::Uuid>,
}

#[derive(Serialize)]
struct OfMessage {
    message: MessageForm,
    #[serde(skip_serializing_if = "Option::is_none")]
    reaction: Option<Value>,
}

/// A message with the host's facts as they were written.
#[derive(Serialize)]
struct MessageForm {
    #[serde(flatten)]
    message: Value,
    metadata: Option<Box<RawValue>>,
}

/// Renders a change.
pub(super) fn of(change: &Change) -> Result<String> {
    let body = Body {
        topic: change.topic().as_str(),
        timestamp: change.at.to_string(),
        data: data(&change.kind),
    };
    serde_json::to_string(&body).map_err(|error| Error::Internal(error.to_string()))
}

fn data(kind: &ChangeKind) -> Data {
    Data::Other(match kind {
        ChangeKind::MessageCreated(told) => return Data::New(new(told)),
        ChangeKind::MessageUpdated { message, reaction } => {
            let reaction = reaction.as_ref().map(|reaction| {
                json!({
                    "user_id": reaction.user_id.as_uuid(),
                    "emoji": reaction.emoji,
                    "added": reaction.added,
                })
            });
            return Data::Message(OfMessage {
                message: of_message(message),
                reaction: Some(reaction.unwrap_or_default()),
            });
        }
        ChangeKind::MessageDeleted { message } => {
            return Data::Message(OfMessage {
                message: of_message(message),
                reaction: None,
            });
        }
        ChangeKind::ConversationCreated {
            conversation,
            members,
            by,
        } => json!({
            "conversation": of_conversation(conversation),
            "member_ids": ids(members),
            "by": by.as_uuid(),
        }),
        ChangeKind::ConversationChanged { conversation, by } => json!({
            "conversation": of_conversation(conversation),
            "by": by.as_uuid(),
        }),
        ChangeKind::ConversationDeleted { conversation, by } => json!({
            "conversation_id": conversation.as_uuid(),
            "by": by.as_uuid(),
        }),
        ChangeKind::MembersAdded {
            conversation,
            users,
            by,
        } => json!({
            "conversation": of_conversation(conversation),
            "user_ids": ids(users),
            "by": by.as_uuid(),
        }),
        ChangeKind::MemberRemoved {
            conversation,
            user,
            by,
        } => json!({
            "conversation_id": conversation.as_uuid(),
            "user_id": user.as_uuid(),
            "by": by.as_uuid(),
        }),
        ChangeKind::RoleChanged {
            conversation,
            user,
            role,
            by,
        } => json!({
            "conversation_id": conversation.as_uuid(),
            "user_id": user.as_uuid(),
            "role": role.as_str(),
            "by": by.as_uuid(),
        }),
        ChangeKind::MarkerChanged {
            conversation,
            user,
            markers,
        } => of_markers(*conversation, *user, markers),
        ChangeKind::UserChanged { user } => json!({ "user": of_user(user) }),
        ChangeKind::PasswordChanged { user } => json!({ "user_id": user.as_uuid() }),
        ChangeKind::SessionsEnded { user, sessions } => {
            let sessions: Vec<_> = sessions.iter().map(|session| session.as_uuid()).collect();
            json!({ "user_id": user.as_uuid(), "session_ids": sessions })
        }
        ChangeKind::Missed {
            conversation,
            after,
            upto,
        } => json!({
            "conversation_id": conversation.map(|id| id.as_uuid()),
            "after": after.get(),
            "upto": upto.get(),
        }),
    })
}

fn new(told: &NewMessageTold) -> New {
    New {
        message: of_message(&told.message),
        sender: of_user(&told.sender),
        conversation: of_conversation(&told.conversation),
        notify: ids(&told.notify),
    }
}

fn of_message(message: &Message) -> MessageForm {
    let reactions = message.reactions.iter().map(|reaction| {
        json!({
            "emoji": reaction.emoji,
            "count": reaction.count,
        })
    });
    let form = json!({
        "id": message.id.as_uuid(),
        "conversation_id": message.conversation_id.as_uuid(),
        "sender_id": message.sender_id.as_uuid(),
        "client_message_id": message.client_message_id.as_str(),
        "seq": message.seq.get(),
        "content": message.content,
        "created_at": message.created_at.to_string(),
        "version": message.version.get(),
        "edited_at": message.edited_at.map(|at| at.to_string()),
        "deleted_at": message.deleted_at.map(|at| at.to_string()),
        "reply_to": message.reply_to.map(|id| id.as_uuid()),
        "mentions": ids(&message.mentions),
        "reactions": reactions.collect::<Vec<_>>(),
        "attachments": message.attachments.iter().map(Attachment::line).collect::<Vec<_>>(),
    });
    MessageForm {
        message: form,
        metadata: message.metadata.as_deref().and_then(raw),
    }
}

fn of_user(user: &User) -> Value {
    let mut form = json!({
        "id": user.id.as_uuid(),
        "username": user.username.as_str(),
        "display_name": user.display_name.as_str(),
        "created_at": user.created_at.to_string(),
        "version": user.version.get(),
    });
    if let Some(at) = user.deleted_at {
        form["deleted_at"] = at.to_string().into();
    }
    form
}

fn of_conversation(conversation: &ConversationBrief) -> Value {
    json!({
        "id": conversation.id.as_uuid(),
        "type": conversation.kind.as_str(),
        "title": conversation.title,
        "member_count": conversation.member_count,
    })
}

fn of_markers(conversation: ConversationId, user: UserId, markers: &Markers) -> Value {
    json!({
        "conversation_id": conversation.as_uuid(),
        "user_id": user.as_uuid(),
        "last_read_seq": markers.last_read.get(),
        "last_delivered_seq": markers.last_delivered.get(),
        "unread_count": markers.unread_count,
        "version": markers.version.get(),
    })
}

fn ids(users: &[UserId]) -> Vec<uuid::Uuid> {
    users.iter().map(|user| user.as_uuid()).collect()
}
