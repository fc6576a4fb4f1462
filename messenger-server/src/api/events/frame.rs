//! What is said on a socket that subscribes: commands in, frames out, byte for byte as the protocol
//! has them. `live.rs` has the frames of those who resume.

use messenger_core::events::{Event, EventKind};
use messenger_core::sync::{Cursor, Pull};
use messenger_core::{ConversationId, ResyncReason, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::sync;
use crate::api::users::UserPublic;
use crate::api::wire::{Time, Whole};

/// A command of a client. Unlike bodies, commands have no unknown fields.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Command {
    Subscribe {
        #[serde(default)]
        conversation_ids: Vec<String>,
        #[serde(default)]
        all: bool,
    },
    Unsubscribe {
        conversation_ids: Vec<String>,
    },
    Resume(Resume),
    Ping {
        #[serde(default)]
        ts: Option<i64>,
    },
}

/// From where a client goes on, and in what pages.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// Where the client is; none for one that begins.
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    seen: Option<String>,
    #[serde(default)]
    limit: Option<i64>,
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
        pull.cursor = match self.cursor.as_deref().map(Cursor::parse).transpose() {
            Ok(cursor) => cursor,
            Err(_) => return Err(Unreadable::Reset(ResyncReason::CursorMalformed)),
        };
        Ok(pull)
    }
}

impl Command {
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

/// The first frame of every socket.
pub(super) fn welcome(user_id: Uuid, now: Timestamp, heartbeat_sec: u64) -> String {
    json!({
        "type": "connection.welcome",
        "connection_id": Uuid::now_v7(),
        "user_id": user_id,
        "server_time": now.to_string(),
        "heartbeat_sec": heartbeat_sec,
        "protocol_version": 1,
        "features": ["resume"],
    })
    .to_string()
}

/// The answer to a subscribe or unsubscribe that was carried out.
pub(super) fn ack(op: &str, conversation_ids: &[String], all: bool) -> String {
    let mut details = json!({ "conversation_ids": conversation_ids });
    if all {
        details["all"] = json!(true);
    }
    json!({ "type": "ack", "op": op, "ok": true, "details": details }).to_string()
}

/// The answer to a resume: pages follow.
pub(super) fn resumed() -> String {
    json!({ "type": "ack", "op": "resume", "ok": true, "details": { "mode": "replay" } })
        .to_string()
}

/// The answer to a ping.
pub(super) fn pong(ts: Option<i64>) -> String {
    let mut pong = json!({ "type": "pong" });
    if let Some(ts) = ts {
        pong["ts"] = json!(ts);
    }
    pong.to_string()
}

/// The answer to what was refused, and the last word before some closes.
pub(super) fn error(code: ErrorCode, message: &str, details: Option<Value>) -> String {
    let mut error = json!({ "code": code.as_str(), "message": message });
    if let Some(details) = details {
        error["details"] = details;
    }
    json!({ "type": "error", "error": error }).to_string()
}

/// The frames of one event, in their order. Made once, whatever the number of sockets.
pub(super) fn frames(event: &Event) -> Vec<String> {
    match &event.kind {
        EventKind::MessageCreated {
            message,
            sender,
            conversation,
        } => {
            let created = EventFrame {
                kind: "message.created",
                event_id: event.id,
                conversation_id: message.conversation_id.as_uuid(),
                seq: message.seq.get(),
                occurred_at: event.occurred_at.into(),
                payload: MessageCreated {
                    id: message.id.as_uuid(),
                    sender_id: message.sender_id.as_uuid(),
                    client_message_id: message.client_message_id.as_str(),
                    content: &message.content,
                    created_at: message.created_at.into(),
                    sender: sender.into(),
                },
            };
            let updated = ConversationUpdated {
                id: conversation.id.as_uuid(),
                updated_at: conversation.updated_at.into(),
                last_message_preview: conversation.last_message_preview.as_deref(),
                last_message_at: conversation.last_message_at.map(Time),
            };
            // The second frame of the event: its id is that of the first with one bit turned.
            let second_id = Uuid::from_u128(event.id.as_u128() ^ 1);
            let updated = updated.of(event, second_id, created.seq);
            vec![created.render(), updated.render()]
        }
        EventKind::ConversationCreated { conversation } => {
            let updated = ConversationUpdated {
                id: conversation.id.as_uuid(),
                updated_at: conversation.updated_at.into(),
                last_message_preview: conversation.last_message_preview.as_deref(),
                last_message_at: conversation.last_message_at.map(Time),
            };
            vec![updated.of(event, event.id, 0).render()]
        }
        // For those who were added, which `subject` tells apart. What was sent before is fetched.
        EventKind::MembersAdded { conversation, .. } => {
            let updated = ConversationUpdated {
                id: conversation.as_uuid(),
                updated_at: event.occurred_at.into(),
                last_message_preview: None,
                last_message_at: None,
            };
            vec![updated.of(event, event.id, 0).render()]
        }
        // What this version of the protocol has no frame for, clients see when they sync.
        _ => Vec::new(),
    }
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

#[derive(Serialize)]
struct EventFrame<P> {
    #[serde(rename = "type")]
    kind: &'static str,
    event_id: Uuid,
    conversation_id: Uuid,
    seq: i64,
    occurred_at: Time,
    payload: P,
}

impl<P: Serialize> EventFrame<P> {
    fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct MessageCreated<'a> {
    id: Uuid,
    sender_id: Uuid,
    client_message_id: &'a str,
    content: &'a str,
    created_at: Time,
    sender: UserPublic,
}

#[derive(Serialize)]
struct ConversationUpdated<'a> {
    id: Uuid,
    updated_at: Time,
    last_message_preview: Option<&'a str>,
    last_message_at: Option<Time>,
}

impl ConversationUpdated<'_> {
    fn of(self, event: &Event, event_id: Uuid, seq: i64) -> EventFrame<Self> {
        EventFrame {
            kind: "conversation.updated",
            event_id,
            conversation_id: self.id,
            seq,
            occurred_at: event.occurred_at.into(),
            payload: self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let ids = vec!["a".to_owned()];
        let subscribe = |conversation_ids, all| Command::Subscribe {
            conversation_ids,
            all,
        };
        for (text, command) in [
            (
                r#"{"op":"subscribe","conversation_ids":["a"]}"#,
                subscribe(ids.clone(), false),
            ),
            (r#"{"op":"subscribe","all":true}"#, subscribe(vec![], true)),
            (
                r#" {"conversation_ids":["a"],"op":"unsubscribe"}"#,
                Command::Unsubscribe {
                    conversation_ids: ids,
                },
            ),
            (r#"{"op":"ping","ts":-7}"#, Command::Ping { ts: Some(-7) }),
            (r#"{"op":"ping"}"#, Command::Ping { ts: None }),
            (
                r#"{"op":"resume","cursor":"x","limit":9}"#,
                Command::Resume(Resume {
                    cursor: Some("x".to_owned()),
                    seen: None,
                    limit: Some(9),
                    timeline_limit: None,
                }),
            ),
        ] {
            assert_eq!(Command::parse(text), Some(command), "{text}");
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
            r#"{"op":"resume","from":"x"}"#,
            r#"{"op":"unsubscribe"}"#,
            r#"{"op":"subscribe","conversation_ids":"a"}"#,
            r#"{"op":"subscribe","conversation_ids":[1]}"#,
            r#"{"op":"subscribe","conversation_ids":["a"],"x":1}"#,
            r#"{"op":"ping"} {"op":"ping"}"#,
        ] {
            assert_eq!(Command::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pong_has_the_ts_of_its_ping() {
        let read = |frame: String| -> Value { serde_json::from_str(&frame).expect("JSON") };

        assert_eq!(read(pong(Some(7))), json!({ "type": "pong", "ts": 7 }));
        assert_eq!(read(pong(None)), json!({ "type": "pong" }));
    }
}
