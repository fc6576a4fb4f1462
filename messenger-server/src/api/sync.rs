//! Catching up.
//!
//! | route | what |
//! |---|---|
//! | `GET /sync/bootstrap` | all that a client without data needs |
//! | `GET /sync/changes` | all that a client has missed |

use std::collections::BTreeMap;
use std::fmt;

use messenger_core::messages::Message as EngineMessage;
use messenger_core::{ConversationId, MessengerEngine, Seq};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::Tag;
use crate::api::auth::CallerFailure;
use crate::api::bearer::Caller;
use crate::api::conversations::{ConversationSummary, summaries};
use crate::api::envelope::{Answer, Failure, Fault, failures};
use crate::api::messages::Message;
use crate::api::users::UserPublic;

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Sync;

#[OpenApi(prefix_path = "/sync", tag = "Tag::Sync")]
impl Sync {
    /// Start
    ///
    /// Returns what a client without data needs: the caller, the caller's conversations, the last
    /// messages of each, and everybody who is named in them.
    #[oai(path = "/bootstrap", method = "get", operation_id = "bootstrap")]
    async fn bootstrap(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<Bootstrap>, CallerFailure> {
        let bootstrap = engine.sync().bootstrap(&actor).await?;
        let recent = bootstrap.recent_messages;
        Ok(Answer(Bootstrap {
            user: UserPublic::from(&bootstrap.me),
            me: bootstrap.me.into(),
            users: bootstrap.users.iter().map(UserPublic::from).collect(),
            conversations: summaries(bootstrap.conversations),
            recent_messages_camel: messages(recent.clone()),
            recent_messages: messages(recent),
        }))
    }

    /// Catch up
    ///
    /// Returns the messages after those that the client has, ascending by `seq` within each
    /// conversation, with the conversations and everybody named. If `has_more` is true, ask again
    /// with `next_after_seq_by_conversation`.
    #[oai(path = "/changes", method = "get", operation_id = "changes")]
    async fn changes(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The last `seq` that the client has of each conversation: a JSON object
        /// `{"<conversation_id>": seq}`, or `id:seq,id:seq`. One that is not named counts from 0.
        after_seq_by_conversation: Query<Option<String>>,
    ) -> Result<Answer<Changes>, ChangesFailure> {
        let known = after_seq_by_conversation.0.unwrap_or_default();
        let entries_max = engine.limits().conversations_named_max;
        let known = parse_after_seq(&known, entries_max).map_err(|rule| {
            let fault = Fault::new("query", "after_seq_by_conversation", rule);
            Failure::invalid([fault]).with_code("invalid_after_seq")
        })?;
        let changes = engine.sync().changes_after(&actor, &known).await?;
        let next = changes.next_after_seq.into_iter();
        Ok(Answer(Changes {
            users: changes.users.iter().map(UserPublic::from).collect(),
            conversations: summaries(changes.conversations),
            messages: messages(changes.messages),
            has_more: changes.has_more,
            next_after_seq_by_conversation: next
                .map(|(id, seq)| (id.to_string(), seq.get()))
                .collect(),
        }))
    }
}

fn messages(messages: Vec<EngineMessage>) -> Vec<Message> {
    messages.into_iter().map(Message::from).collect()
}

failures! {
    /// How catching up can fail.
    ChangesFailure: CALLER;
    422: "`invalid_after_seq`"
}

/// What a client without data needs.
#[derive(Object, Serialize)]
pub(crate) struct Bootstrap {
    /// The caller.
    me: UserPublic,
    /// The same as `me`, for clients that know it by this name.
    user: UserPublic,
    /// Everybody who is named in this answer.
    users: Vec<UserPublic>,
    /// The caller's conversations, the one with the latest message first.
    conversations: Vec<ConversationSummary>,
    /// The last messages of each conversation.
    recent_messages: Vec<Message>,
    /// The same as `recent_messages`, for clients that know it by this name. It is not in the
    /// document: generators would make one name of the two.
    #[serde(rename = "recentMessages")]
    #[oai(skip)]
    recent_messages_camel: Vec<Message>,
}

/// What a client has missed.
#[derive(Object, Serialize)]
pub(crate) struct Changes {
    /// Everybody who is named in this answer.
    users: Vec<UserPublic>,
    /// The caller's conversations, the one with the latest message first.
    conversations: Vec<ConversationSummary>,
    /// The messages, ascending by `seq` within each conversation.
    messages: Vec<Message>,
    /// Whether there are more messages than this answer has.
    has_more: bool,
    /// What to ask with next: the last `seq` of each conversation after this answer.
    next_after_seq_by_conversation: BTreeMap<String, i64>,
}

/// Reads `after_seq_by_conversation`: a JSON object or `id:seq,id:seq`; blank is empty.
///
/// # Errors
///
/// The rule that the text breaks.
fn parse_after_seq(
    text: &str,
    entries_max: usize,
) -> Result<BTreeMap<ConversationId, Seq>, &'static str> {
    const SHAPE: &str = "must be a JSON object of conversation ids and seqs, or id:seq,id:seq";
    let mut known = BTreeMap::new();
    let mut add = |id: &str, seq: Option<i64>| {
        let id: ConversationId = id.parse().map_err(|_| "names what is no conversation id")?;
        let seq = seq
            .and_then(Seq::new)
            .ok_or("a seq is an integer from 0 to 2^53 - 1")?;
        if known.insert(id, seq).is_some() {
            return Err("names a conversation twice");
        }
        if known.len() > entries_max {
            return Err("names too many conversations");
        }
        Ok(())
    };
    let text = text.trim();
    if text.starts_with('{') {
        let Entries(entries) = serde_json::from_str(text).map_err(|_| SHAPE)?;
        for (id, seq) in entries {
            add(&id, Some(seq))?;
        }
    } else if !text.is_empty() {
        for entry in text.split(',') {
            let (id, seq) = entry.split_once(':').ok_or(SHAPE)?;
            let seq = seq.trim();
            // `parse` would also take a sign.
            let digits = seq.bytes().all(|byte| byte.is_ascii_digit());
            add(id.trim(), seq.parse().ok().filter(|_| digits))?;
        }
    }
    Ok(known)
}

/// The entries of a JSON object, repeated keys included, which a map would hide.
struct Entries(Vec<(String, i64)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of integers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "01989f6e-6d3b-7a52-8f0c-3f6f0f6d2b11";
    const B: &str = "01989f6e-6d3b-7a52-8f0c-3f6f0f6d2b12";

    #[test]
    fn both_forms_say_the_same() {
        let object = parse_after_seq(&format!(r#" {{"{A}": 5, "{B}": 0}} "#), 10);
        let list = parse_after_seq(&format!("{A}:5, {B}:0"), 10);

        let known = object.expect("an object");
        assert_eq!(known.len(), 2);
        assert_eq!(known[&A.parse().expect("an id")].get(), 5);
        assert_eq!(list, Ok(known));
    }

    #[test]
    fn nothing_is_no_conversation() {
        for text in ["", "  ", "{}", " { } "] {
            assert_eq!(parse_after_seq(text, 10), Ok(BTreeMap::new()), "{text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            format!(r#"{{"{A}": -1}}"#),
            format!(r#"{{"{A}": 1.5}}"#),
            format!(r#"{{"{A}": "5"}}"#),
            format!(r#"{{"{A}": null}}"#),
            format!(r#"{{"{A}": 9007199254740992}}"#),
            format!(r#"{{"{A}": 99999999999999999999}}"#),
            format!(r#"{{"{A}": 1, "{A}": 2}}"#),
            format!(r#"{{"{A}": 1}} x"#),
            format!("{A}:1,{A}:2"),
            format!("{A}:-1"),
            format!("{A}:+1"),
            format!("{A}:"),
            format!("{A}:1,"),
            A.to_owned(),
            "[]".to_owned(),
            "7".to_owned(),
            "{".to_owned(),
            r#"{"chat": 1}"#.to_owned(),
            "chat:1".to_owned(),
        ] {
            assert!(parse_after_seq(&text, 10).is_err(), "{text}");
        }
        assert!(parse_after_seq(&format!("{A}:1,{B}:1"), 1).is_err());
    }
}
