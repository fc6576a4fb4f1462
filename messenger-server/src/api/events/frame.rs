//! What is said on a socket: commands in, answers and the events of one that subscribes out, as
//! the protocol has them. `live.rs` has the frames of those who resume.

use messenger_core::conversations::ConversationHead;
use messenger_core::events::{Event, EventKind};
use messenger_core::sync::Pull;
use messenger_core::{ConversationId, ResyncReason, Timestamp, UserId};
use poem_openapi::types::{ParseFromJSON, ToJSON};
use poem_openapi::{Enum, Object, Union};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::api::envelope::ErrorBody;
use crate::api::sync;
use crate::api::users::UserPublic;
use crate::api::wire::{Nullable, Time, Whole};

/// A command of a client. Unlike bodies, commands have no unknown fields.
#[derive(Debug, PartialEq, Deserialize, Union)]
#[oai(one_of, discriminator_name = "op")]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum SocketCommand {
    #[oai(mapping = "subscribe")]
    Subscribe(Subscribe),
    #[oai(mapping = "unsubscribe")]
    Unsubscribe(Unsubscribe),
    #[oai(mapping = "resume")]
    Resume(Resume),
    #[oai(mapping = "typing")]
    Typing(TypingCommand),
    #[oai(mapping = "ping")]
    Ping(Ping),
}

/// Be told of conversations: of these, or of all, also those to come.
#[derive(Debug, PartialEq, Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscribe {
    /// Which ones.
    #[oai(default)]
    #[serde(default)]
    pub(super) conversation_ids: Vec<String>,
    /// Whether all are meant.
    #[oai(default)]
    #[serde(default)]
    pub(super) all: bool,
}

/// Be told of conversations no longer.
#[derive(Debug, PartialEq, Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unsubscribe {
    /// Which ones.
    pub(super) conversation_ids: Vec<String>,
}

/// Tell the others in a conversation that one is writing: again at least every 6 seconds while that
/// is so, and not more often than every 2.
#[derive(Debug, PartialEq, Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TypingCommand {
    /// The conversation.
    pub(super) conversation_id: String,
    pub(super) state: TypingState,
}

/// Whether somebody is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub(crate) enum TypingState {
    Start,
    Stop,
}

/// Show that the client is there, and ask whether the server is.
#[derive(Debug, PartialEq, Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ping {
    /// Comes back in the answer.
    #[serde(default)]
    pub(super) ts: Option<i64>,
}

/// Go on from a cursor: everything since then comes, and then what happens.
#[derive(Debug, PartialEq, Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resume {
    /// Where the client is; none for one that begins.
    #[serde(default)]
    cursor: Option<String>,
    /// The newest `shard:as_of` of any other answer since the last sync, from its stamp.
    #[serde(default)]
    seen: Option<String>,
    /// Rows of a page at most; 200 if none is given.
    #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
    #[serde(default)]
    limit: Option<i64>,
    /// New messages of one conversation at most; 50 if none is given.
    #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
    #[serde(default)]
    timeline_limit: Option<i64>,
}

/// Why a client can not go on from there.
pub(super) enum Unreadable {
    /// It broke this rule.
    Invalid(&'static str),
    /// It must begin again.
    Reset(ResyncReason),
}

impl Resume {
    /// Reads what to ask the engine for.
    pub(super) fn read(self) -> Result<Pull, Unreadable> {
        let (limit, timeline) = (
            Whole(self.limit.or(Some(200))),
            Whole(self.timeline_limit.or(Some(50))),
        );
        let mut pull = sync::pull(limit, timeline).map_err(|_| {
            Unreadable::Invalid("limit must be from 1 to 500, timeline_limit from 1 to 200")
        })?;
        pull.seen = match self.seen {
            None => None,
            Some(seen) => Some(
                sync::parse_seen(&seen)
                    .ok_or(Unreadable::Invalid("seen must be 0:as_of, from a stamp"))?,
            ),
        };
        pull.cursor = sync::cursor_in(self.cursor.as_deref())
            .map_err(|_| Unreadable::Reset(ResyncReason::CursorMalformed))?;
        Ok(pull)
    }
}

impl SocketCommand {
    /// Reads a command; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // A derived `Deserialize` also takes an array that begins with the op.
        let is_object = text.trim_start().starts_with('{');
        serde_json::from_str(text).ok().filter(|_| is_object)
    }
}

/// Why a command was refused, or a socket is closed.
#[derive(Clone, Copy, Debug)]
pub(super) enum ErrorCode {
    Unauthorized,
    TokenExpired,
    ForbiddenConversation,
    InvalidCommand,
    RateLimited,
    InternalError,
}

impl ErrorCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHORIZED",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::ForbiddenConversation => "FORBIDDEN_CONVERSATION",
            Self::InvalidCommand => "INVALID_COMMAND",
            Self::RateLimited => "RATE_LIMITED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

/// What a socket can beside version 1, where events are delivered.
const FEATURES: &[&str] = &["resume", "typing"];

/// The first frame of every socket.
pub(super) fn welcome(
    user_id: Uuid,
    now: Timestamp,
    heartbeat_sec: u64,
    tells_events: bool,
) -> String {
    let features = if tells_events { FEATURES } else { &[] };
    render(&SocketFrame::Welcome(Welcome {
        connection_id: Uuid::now_v7(),
        user_id,
        server_time: now.into(),
        heartbeat_sec,
        protocol_version: 1,
        features: features.iter().map(|it| (*it).to_owned()).collect(),
    }))
}

/// The answer to a subscribe or unsubscribe that was carried out.
pub(super) fn ack(op: &str, conversation_ids: Vec<String>, all: bool) -> String {
    let details = AckDetails {
        conversation_ids: Some(conversation_ids),
        all: all.then_some(true),
        mode: None,
    };
    acknowledged(op, details)
}

/// The answer to a resume: pages follow.
pub(super) fn resumed() -> String {
    let details = AckDetails {
        mode: Some("replay".to_owned()),
        ..AckDetails::default()
    };
    acknowledged("resume", details)
}

fn acknowledged(op: &str, details: AckDetails) -> String {
    render(&SocketFrame::Ack(Ack {
        op: op.to_owned(),
        ok: true,
        details,
    }))
}

/// The answer to a typing.
pub(super) fn typed(conversation_id: String) -> String {
    let details = AckDetails {
        conversation_ids: Some(vec![conversation_id]),
        ..AckDetails::default()
    };
    acknowledged("typing", details)
}

/// The answer to a ping.
pub(super) fn pong(ts: Option<i64>) -> String {
    render(&SocketFrame::Pong(Pong { ts }))
}

/// The answer to what was refused, and the last word before some closes.
pub(super) fn error(code: ErrorCode, message: &str, details: Option<Value>) -> String {
    render(&SocketFrame::Error(SocketError {
        error: ErrorBody::new(code.as_str(), message, details),
    }))
}

/// The frames of one event, in their order. Made once, whatever the number of sockets.
pub(super) fn frames(event: &Event) -> Vec<String> {
    match &event.kind {
        EventKind::MessageCreated {
            message,
            sender,
            conversation,
        } => {
            let created = SocketEvent {
                event_id: event.id,
                conversation_id: message.conversation_id.as_uuid(),
                seq: message.seq.get(),
                occurred_at: event.occurred_at.into(),
                payload: NewMessage {
                    id: message.id.as_uuid(),
                    sender_id: message.sender_id.as_uuid(),
                    client_message_id: message.client_message_id.as_str().to_owned(),
                    content: message.content.clone(),
                    created_at: message.created_at.into(),
                    sender: sender.into(),
                },
            };
            // The second frame of the event: its id is that of the first with one bit turned.
            let second_id = Uuid::from_u128(event.id.as_u128() ^ 1);
            let updated = ConversationUpdate::of(conversation);
            let updated = updated.in_frame(event, second_id, created.seq);
            vec![render(&SocketFrame::Created(created)), updated]
        }
        EventKind::ConversationCreated { conversation } => {
            let updated = ConversationUpdate::of(conversation);
            vec![updated.in_frame(event, event.id, 0)]
        }
        // For those who were added, which `subject` tells apart. What was sent before is fetched.
        EventKind::MembersAdded { conversation, .. } => {
            let updated = ConversationUpdate {
                id: conversation.as_uuid(),
                updated_at: event.occurred_at.into(),
                last_message_preview: Nullable(None),
                last_message_at: Nullable(None),
            };
            vec![updated.in_frame(event, event.id, 0)]
        }
        // What this version of the protocol has no frame for, clients see when they sync.
        _ => Vec::new(),
    }
}

fn render(frame: &SocketFrame) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// What an event is to a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Subject {
    /// Its user belongs to this conversation from here on.
    Opened(ConversationId),
    /// Something happened in this conversation.
    Within(ConversationId),
    /// Its user does not belong to this conversation from here on.
    Closed(ConversationId),
    /// Nothing that has a frame.
    Nothing,
}

/// Returns what an event is to a socket of this user.
pub(super) fn subject(event: &Event, me: UserId) -> Subject {
    match &event.kind {
        EventKind::MessageCreated { message, .. } => Subject::Within(message.conversation_id),
        EventKind::ConversationCreated { conversation } => Subject::Opened(conversation.id),
        EventKind::MembersAdded {
            conversation,
            users,
            ..
        } if users.contains(&me) => Subject::Opened(*conversation),
        EventKind::MemberRemoved {
            conversation, user, ..
        } if *user == me => Subject::Closed(*conversation),
        EventKind::ConversationDeleted { conversation, .. } => Subject::Closed(*conversation),
        _ => Subject::Nothing,
    }
}

/// What a socket says: answers, and the events of one that subscribes. One that has resumed is told
/// of events as in `LiveFrame`. The list is open: ignore a `type` that is unknown.
#[derive(Debug, Serialize, Union)]
#[oai(one_of, discriminator_name = "type")]
#[serde(tag = "type")]
pub(crate) enum SocketFrame {
    #[oai(mapping = "connection.welcome")]
    #[serde(rename = "connection.welcome")]
    Welcome(Welcome),
    #[oai(mapping = "ack")]
    #[serde(rename = "ack")]
    Ack(Ack),
    #[oai(mapping = "pong")]
    #[serde(rename = "pong")]
    Pong(Pong),
    #[oai(mapping = "error")]
    #[serde(rename = "error")]
    Error(SocketError),
    #[oai(mapping = "message.created")]
    #[serde(rename = "message.created")]
    Created(SocketEvent<NewMessage>),
    #[oai(mapping = "conversation.updated")]
    #[serde(rename = "conversation.updated")]
    Updated(SocketEvent<ConversationUpdate>),
}

/// The first frame.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Welcome {
    /// An id of the connection, for logs.
    connection_id: Uuid,
    /// Whose socket it is.
    user_id: Uuid,
    /// What the server's clock says.
    server_time: Time,
    /// How often to send a ping at least, in seconds.
    heartbeat_sec: u64,
    /// 1.
    protocol_version: u32,
    /// What the socket can beside version 1: `resume`, `typing`; neither on a server that delivers
    /// no events. The list is open.
    features: Vec<String>,
}

/// A command was carried out.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Ack {
    /// The command's `op`.
    op: String,
    /// True.
    ok: bool,
    /// What was done.
    details: AckDetails,
}

/// What a command has done.
#[derive(Debug, Default, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct AckDetails {
    /// The conversations that were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_ids: Option<Vec<String>>,
    /// True if all are subscribed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    /// After a resume: `replay`, pages follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

/// The answer to a ping.
#[derive(Debug, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Pong {
    /// That of the ping.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<i64>,
}

/// A command was refused, or the socket is about to be closed.
#[derive(Debug, Object, Serialize)]
pub(crate) struct SocketError {
    /// Why. Codes are `UNAUTHORIZED`, `TOKEN_EXPIRED`, `FORBIDDEN_CONVERSATION`,
    /// `INVALID_COMMAND`, `RATE_LIMITED`, `INTERNAL_ERROR`; the list is open.
    error: ErrorBody,
}

/// Something that happened in a conversation that is subscribed to.
#[derive(Debug, Object, Serialize)]
pub(crate) struct SocketEvent<P: ParseFromJSON + ToJSON> {
    /// The same at every delivery.
    event_id: Uuid,
    /// The conversation.
    conversation_id: Uuid,
    /// The place of the message; 0 if the conversation is new.
    seq: i64,
    /// When it happened.
    occurred_at: Time,
    /// What happened.
    payload: P,
}

/// A message that was sent.
#[derive(Debug, Object, Serialize)]
pub(crate) struct NewMessage {
    /// The id.
    id: Uuid,
    /// Who sent it.
    sender_id: Uuid,
    /// The id that the sender's client made.
    client_message_id: String,
    /// The text.
    content: String,
    /// When it was stored.
    created_at: Time,
    /// Who sent it.
    sender: UserPublic,
}

/// What has changed about a conversation in the list.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ConversationUpdate {
    /// The conversation.
    id: Uuid,
    /// When it last changed.
    updated_at: Time,
    /// The first 280 characters of the last message.
    last_message_preview: Nullable<String>,
    /// When the last message was sent.
    last_message_at: Nullable<Time>,
}

impl ConversationUpdate {
    fn of(head: &ConversationHead) -> Self {
        Self {
            id: head.id.as_uuid(),
            updated_at: head.updated_at.into(),
            last_message_preview: Nullable(head.last_message_preview.clone()),
            last_message_at: Nullable(head.last_message_at.map(Time)),
        }
    }

    fn in_frame(self, event: &Event, event_id: Uuid, seq: i64) -> String {
        render(&SocketFrame::Updated(SocketEvent {
            event_id,
            conversation_id: self.id,
            seq,
            occurred_at: event.occurred_at.into(),
            payload: self,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_read() {
        let ids = vec!["a".to_owned()];
        let subscribe = |conversation_ids, all| {
            SocketCommand::Subscribe(Subscribe {
                conversation_ids,
                all,
            })
        };
        for (text, command) in [
            (
                r#"{"op":"subscribe","conversation_ids":["a"]}"#,
                subscribe(ids.clone(), false),
            ),
            (r#"{"op":"subscribe","all":true}"#, subscribe(vec![], true)),
            (
                r#" {"conversation_ids":["a"],"op":"unsubscribe"}"#,
                SocketCommand::Unsubscribe(Unsubscribe {
                    conversation_ids: ids,
                }),
            ),
            (
                r#"{"op":"ping","ts":-7}"#,
                SocketCommand::Ping(Ping { ts: Some(-7) }),
            ),
            (r#"{"op":"ping"}"#, SocketCommand::Ping(Ping { ts: None })),
            (
                r#"{"op":"resume","cursor":"x","limit":9}"#,
                SocketCommand::Resume(Resume {
                    cursor: Some("x".to_owned()),
                    seen: None,
                    limit: Some(9),
                    timeline_limit: None,
                }),
            ),
        ] {
            assert_eq!(SocketCommand::parse(text), Some(command), "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for text in [
            "",
            "{}",
            "ping",
            r#"["ping"]"#,
            r#"{"op":"dance"}"#,
            r#"{"op":"PING"}"#,
            r#"{"op":"ping","ts":1.5}"#,
            r#"{"op":"ping","ts":"1"}"#,
            r#"{"op":"ping","more":1}"#,
            r#"{"op":"ping","conversation_ids":[]}"#,
            r#"{"op":"resume","cursor":7}"#,
            r#"{"op":"typing","conversation_id":"a"}"#,
            r#"{"op":"typing","conversation_id":"a","state":"on"}"#,
            r#"{"op":"resume","from":"x"}"#,
            r#"{"op":"unsubscribe"}"#,
            r#"{"op":"subscribe","conversation_ids":"a"}"#,
            r#"{"op":"subscribe","conversation_ids":[1]}"#,
            r#"{"op":"subscribe","conversation_ids":["a"],"x":1}"#,
            r#"{"op":"ping"} {"op":"ping"}"#,
        ] {
            assert_eq!(SocketCommand::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pong_has_the_ts_of_its_ping() {
        let read = |frame: String| -> Value { serde_json::from_str(&frame).expect("JSON") };

        assert_eq!(read(pong(Some(7))), json!({ "type": "pong", "ts": 7 }));
        assert_eq!(read(pong(None)), json!({ "type": "pong" }));
    }
}
