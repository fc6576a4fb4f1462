//! What is said to those who go on from a cursor, on a WebSocket and as server-sent events alike.

use messenger_core::conversations::{ConversationHead, Markers, TYPING_TTL};
use messenger_core::events::{Event, EventKind, Update};
use messenger_core::messages::{Message as EngineMessage, ReactionChange};
use messenger_core::sync::Cursor;
use messenger_core::{ConversationId, Position, ResyncReason, UserId};
use poem_openapi::types::{ParseFromJSON, ToJSON};
use poem_openapi::{Object, Union};
use serde::Serialize;
use uuid::Uuid;

use crate::api::envelope::retry_after_ms;
use crate::api::events::Forms;
use crate::api::messages::Message;
use crate::api::sync::{Changes, Read};
use crate::api::users::{Presences, UserPublic};
use crate::api::wire::{Nullable, Time};

/// One frame, as it is sent.
#[derive(Debug)]
pub(super) struct Line {
    /// Its `type`.
    pub(super) kind: &'static str,
    pub(super) json: String,
    pub(super) place: Place,
}

/// Where a client is that has taken in a frame.
#[derive(Debug)]
pub(super) enum Place {
    /// At the frame's `cursor`.
    At(Cursor),
    /// Where it was: the frame has none.
    Same,
    /// Nowhere.
    Lost,
}

/// Renders what a stream brings; `None` for what has no frame.
pub(super) fn line(update: Update) -> Option<Line> {
    let (kind, json, cursor) = match update {
        Update::Page { page, cursor } => {
            let frame = SyncPage {
                data: Changes::of(*page, &cursor),
                cursor: cursor.to_string(),
            };
            ("sync.page", render(&LiveFrame::Page(frame)), cursor)
        }
        Update::Live { cursor } => {
            let frame = SyncLive {
                cursor: cursor.to_string(),
            };
            ("sync.live", render(&LiveFrame::Live(frame)), cursor)
        }
        Update::Quiet { cursor } => {
            let frame = SyncCursor {
                cursor: cursor.to_string(),
            };
            ("sync.cursor", render(&LiveFrame::Cursor(frame)), cursor)
        }
        Update::Event { event, cursor } => {
            let forms = event.rendered(Forms::of);
            let &Open { kind, ref json } = forms.live(&event)?;
            (kind, format!("{json}{cursor}\"}}"), cursor)
        }
        Update::Typing(typing) => {
            let ttl = TYPING_TTL.as_millis();
            let frame = TypingFrame {
                conversation_id: typing.conversation_id.as_uuid(),
                payload: TypingNow {
                    user_id: typing.user_id.as_uuid(),
                    state: if typing.is_typing { "start" } else { "stop" }.to_owned(),
                    ttl_ms: u64::try_from(ttl).unwrap_or(u64::MAX),
                },
            };
            return Some(Line {
                kind: "typing",
                json: render(&LiveFrame::Typing(frame)),
                place: Place::Same,
            });
        }
        Update::Presence(people) => {
            let frame = PresenceFrame {
                payload: Presences::of(&people),
            };
            return Some(Line {
                kind: "presence",
                json: render(&LiveFrame::Presence(frame)),
                place: Place::Same,
            });
        }
        _ => return None,
    };
    Some(Line {
        kind,
        json,
        place: Place::At(cursor),
    })
}

/// Renders that the client must start again.
pub(super) fn reset(reason: ResyncReason) -> (Line, u64) {
    let retry_after_ms = retry_after_ms(reason);
    let frame = SyncReset {
        reason: reason.as_str().to_owned(),
        retry_after_ms,
    };
    let line = Line {
        kind: "sync.reset",
        json: render(&LiveFrame::Reset(frame)),
        place: Place::Lost,
    };
    (line, retry_after_ms)
}

fn render(frame: &LiveFrame) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// The frame of an event up to its cursor, which is each listener's own.
#[derive(Debug)]
pub(super) struct Open {
    kind: &'static str,
    json: String,
}

impl Open {
    /// Renders an event; `None` for what a page tells.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let (kind, frame) = match &event.kind {
            EventKind::MessageCreated {
                message,
                sender,
                conversation,
            } => {
                let payload = MessageCreated {
                    message: told(message),
                    sender: sender.into(),
                    conversation: HeadChange::of(conversation),
                };
                let frame = in_conversation(event, message, payload);
                ("message.created", LiveFrame::Created(frame))
            }
            EventKind::MessageUpdated {
                message,
                reaction,
                conversation,
            } => {
                let payload = MessageUpdated {
                    message: told(message),
                    reaction: Nullable(reaction.as_ref().map(ReactionMove::from)),
                    conversation: head(conversation),
                };
                let frame = in_conversation(event, message, payload);
                ("message.updated", LiveFrame::Updated(frame))
            }
            EventKind::MessageDeleted {
                message,
                conversation,
            } => {
                let payload = MessageDeleted {
                    message: told(message),
                    conversation: head(conversation),
                };
                let frame = in_conversation(event, message, payload);
                ("message.deleted", LiveFrame::Deleted(frame))
            }
            EventKind::MarkerChanged {
                conversation,
                user,
                markers,
            } => {
                let frame = ConversationEvent {
                    event_id: event.id,
                    conversation_id: conversation.as_uuid(),
                    seq: markers.last_read.get(),
                    occurred_at: event.occurred_at.into(),
                    payload: ReadUpdated::of(*conversation, *user, markers, event.position),
                    cursor: String::new(),
                };
                ("read.updated", LiveFrame::Read(frame))
            }
            EventKind::UserChanged { user } => {
                let frame = UserEvent {
                    event_id: event.id,
                    occurred_at: event.occurred_at.into(),
                    payload: UserUpdated { user: user.into() },
                    cursor: String::new(),
                };
                ("user.updated", LiveFrame::User(frame))
            }
            _ => return None,
        };
        let mut json = render(&frame);
        // The cursor comes last and is still empty: off with `"}`.
        json.truncate(json.len().saturating_sub(2));
        Some(Self { kind, json })
    }
}

/// The wire's form of a message for everybody: whose its reactions are is not said.
fn told(message: &EngineMessage) -> Message {
    Message::from(message.clone()).for_everybody()
}

fn head(head: &Option<ConversationHead>) -> Nullable<HeadChange> {
    Nullable(head.as_ref().map(HeadChange::of))
}

fn in_conversation<P: ParseFromJSON + ToJSON>(
    event: &Event,
    message: &EngineMessage,
    payload: P,
) -> ConversationEvent<P> {
    ConversationEvent {
        event_id: event.id,
        conversation_id: message.conversation_id.as_uuid(),
        seq: message.seq.get(),
        occurred_at: event.occurred_at.into(),
        payload,
        cursor: String::new(),
    }
}

/// What a stream that goes on from a cursor brings. Keep `cursor` in the transaction that stores
/// what came with it. The list is open: ignore a `type` that is unknown, but keep its cursor.
#[derive(Debug, Serialize, Union)]
#[oai(one_of, discriminator_name = "type")]
#[serde(tag = "type")]
pub(crate) enum LiveFrame {
    #[oai(mapping = "sync.page")]
    #[serde(rename = "sync.page")]
    Page(SyncPage),
    #[oai(mapping = "sync.live")]
    #[serde(rename = "sync.live")]
    Live(SyncLive),
    #[oai(mapping = "sync.cursor")]
    #[serde(rename = "sync.cursor")]
    Cursor(SyncCursor),
    #[oai(mapping = "sync.reset")]
    #[serde(rename = "sync.reset")]
    Reset(SyncReset),
    #[oai(mapping = "message.created")]
    #[serde(rename = "message.created")]
    Created(ConversationEvent<MessageCreated>),
    #[oai(mapping = "message.updated")]
    #[serde(rename = "message.updated")]
    Updated(ConversationEvent<MessageUpdated>),
    #[oai(mapping = "message.deleted")]
    #[serde(rename = "message.deleted")]
    Deleted(ConversationEvent<MessageDeleted>),
    #[oai(mapping = "read.updated")]
    #[serde(rename = "read.updated")]
    Read(ConversationEvent<ReadUpdated>),
    #[oai(mapping = "user.updated")]
    #[serde(rename = "user.updated")]
    User(UserEvent),
    #[oai(mapping = "typing")]
    #[serde(rename = "typing")]
    Typing(TypingFrame),
    #[oai(mapping = "presence")]
    #[serde(rename = "presence")]
    Presence(PresenceFrame),
}

/// A part of what the client has missed, or what no event can tell: who belongs to a conversation,
/// and how the client keeps it.
#[derive(Debug, Object, Serialize)]
pub(crate) struct SyncPage {
    /// The same as an answer of `/sync/changes`.
    data: Changes,
    /// Where the client is once it has stored the page.
    cursor: String,
}

/// The client has everything; events follow, and pages where events can not tell what happened.
#[derive(Debug, Object, Serialize)]
pub(crate) struct SyncLive {
    /// Where the client is.
    cursor: String,
}

/// Nothing has happened for a while.
#[derive(Debug, Object, Serialize)]
pub(crate) struct SyncCursor {
    /// Where the client is.
    cursor: String,
}

/// The cursor does not belong to this history: begin without one, and drop what does not come again.
/// Nothing follows until then.
#[derive(Debug, Object, Serialize)]
pub(crate) struct SyncReset {
    /// Why: `history_diverged`, `cursor_malformed`, `cursor_version`, `compacted`. The list is open.
    reason: String,
    /// Milliseconds to wait first, so that not all clients begin at once.
    retry_after_ms: u64,
}

/// Somebody is writing, or has stopped. It has no cursor, and does not come twice.
#[derive(Debug, Object, Serialize)]
pub(crate) struct TypingFrame {
    /// The conversation.
    conversation_id: Uuid,
    /// Who, and what.
    payload: TypingNow,
}

/// Who is writing.
#[derive(Debug, Object, Serialize)]
pub(crate) struct TypingNow {
    /// Who it is.
    user_id: Uuid,
    /// `start` or `stop`.
    state: String,
    /// Milliseconds after which somebody who started is no longer writing, unless it comes again.
    ttl_ms: u64,
}

/// Who has come, and who has gone; told every few seconds at most. It has no cursor, and does not come
/// twice: `/users/presence` tells who is there.
#[derive(Debug, Object, Serialize)]
pub(crate) struct PresenceFrame {
    /// Who.
    payload: Presences,
}

/// Something that happened in a conversation.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ConversationEvent<P: ParseFromJSON + ToJSON> {
    /// The same at every delivery.
    event_id: Uuid,
    /// The conversation.
    conversation_id: Uuid,
    /// The place of the message that it is about.
    seq: i64,
    /// When it happened.
    occurred_at: Time,
    /// What happened.
    payload: P,
    /// Where the client is once it has stored it.
    cursor: String,
}

/// Something that happened to a person.
#[derive(Debug, Object, Serialize)]
pub(crate) struct UserEvent {
    /// The same at every delivery.
    event_id: Uuid,
    /// When it happened.
    occurred_at: Time,
    /// What happened.
    payload: UserUpdated,
    /// Where the client is once it has stored it.
    cursor: String,
}

/// A message was sent.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MessageCreated {
    #[oai(flatten)]
    #[serde(flatten)]
    message: Message,
    /// Who sent it.
    sender: UserPublic,
    /// What it changed about its conversation.
    conversation: HeadChange,
}

/// A message has other content, or somebody reacts to it, or no longer.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MessageUpdated {
    #[oai(flatten)]
    #[serde(flatten)]
    message: Message,
    /// The reaction that came or went; null after an edit.
    reaction: Nullable<ReactionMove>,
    /// What it changed about its conversation; null if nothing.
    conversation: Nullable<HeadChange>,
}

/// A message was deleted.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MessageDeleted {
    #[oai(flatten)]
    #[serde(flatten)]
    message: Message,
    /// What it changed about its conversation; null if nothing.
    conversation: Nullable<HeadChange>,
}

/// Somebody has read or received more; in a large conversation, the caller.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ReadUpdated {
    #[oai(flatten)]
    #[serde(flatten)]
    read: Read,
    /// How many messages of others this person has not read.
    unread_count: u64,
}

impl ReadUpdated {
    fn of(
        conversation: ConversationId,
        user: UserId,
        markers: &Markers,
        position: Position,
    ) -> Self {
        Self {
            read: Read::at(conversation, user, markers, position),
            unread_count: markers.unread_count,
        }
    }
}

/// Somebody shows another profile.
#[derive(Debug, Object, Serialize)]
pub(crate) struct UserUpdated {
    /// The person.
    user: UserPublic,
}

/// What a message has changed about its conversation.
#[derive(Debug, Object, Serialize)]
pub(crate) struct HeadChange {
    /// When it last changed.
    updated_at: Time,
    /// The first 280 characters of the last message.
    last_message_preview: Nullable<String>,
    /// When the last message was sent.
    last_message_at: Nullable<Time>,
    /// The version of what everybody sees of it.
    version: i64,
}

impl HeadChange {
    fn of(head: &ConversationHead) -> Self {
        Self {
            updated_at: head.updated_at.into(),
            last_message_preview: Nullable(head.last_message_preview.clone()),
            last_message_at: Nullable(head.last_message_at.map(Time)),
            version: head.version.get(),
        }
    }
}

/// Somebody's reaction that came or went.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ReactionMove {
    /// Whose it is.
    user_id: Uuid,
    /// An emoji or a short word.
    emoji: String,
    /// Whether it came; false if it went.
    added: bool,
}

impl From<&ReactionChange> for ReactionMove {
    fn from(change: &ReactionChange) -> Self {
        Self {
            user_id: change.user_id.as_uuid(),
            emoji: change.emoji.clone(),
            added: change.added,
        }
    }
}
