//! Catching up.
//!
//! | route | what |
//! |---|---|
//! | `GET /sync/bootstrap` | all that a client without data needs |
//! | `GET /sync/changes` | all that a client has missed |

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use messenger_core::conversations::{Marker, Markers};
use messenger_core::messages::Message as EngineMessage;
use messenger_core::sync::{Cursor, Gap as EngineGap, Page, Pull, Pulled, Removal};
use messenger_core::users::User;
use messenger_core::{
    ConversationId, Error as EngineError, MessengerEngine, Position, Seq, UserId,
};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::Caller;
use crate::api::conversations::{ConversationSummary, summaries};
use crate::api::envelope::{Answer, Failure, Fault, failures};
use crate::api::events::Sockets;
use crate::api::messages::Message;
use crate::api::own::SelfChanges;
use crate::api::users::UserPublic;
use crate::api::wire::{Nullable, Stamp, Whole};

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Sync;

#[OpenApi(prefix_path = "/sync", tag = "Tag::Sync")]
impl Sync {
    /// Start
    ///
    /// Returns what a client without data needs: the caller, the caller's conversations, the last
    /// messages of each, and everybody who is named in them. `next_cursor` is where `changes` goes
    /// on from. With `limit`, the answer is only the beginning, the newest conversations first:
    /// `has_more` says so, and `changes` brings the rest.
    #[oai(path = "/bootstrap", method = "get", operation_id = "bootstrap")]
    async fn bootstrap(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// Rows at most, messages, conversations and people together.
        limit: Query<Option<Whole<1, 500>>>,
        /// Messages of one conversation at most.
        #[oai(default = "fifty")]
        timeline_limit: Query<Whole<1, 200>>,
    ) -> Result<Answer<Bootstrap>, BootstrapFailure> {
        if let Some(limit) = limit.0 {
            let pull = pull(limit, timeline_limit.0)?;
            let me = engine.users().me(&actor).await?;
            let Pulled { page, next, .. } = engine.sync().pull(&actor, &pull).await?;
            return Ok(Answer(Bootstrap::of(me, page, &next)));
        }
        let bootstrap = engine.sync().bootstrap(&actor).await?;
        let recent = bootstrap.recent_messages;
        Ok(Answer(Bootstrap {
            user: UserPublic::from(&bootstrap.me),
            me: bootstrap.me.into(),
            users: bootstrap.users.iter().map(UserPublic::from).collect(),
            conversations: summaries(bootstrap.conversations),
            recent_messages_camel: messages(recent.clone()),
            recent_messages: messages(recent),
            reads: bootstrap.markers.into_iter().map(Read::from).collect(),
            gaps: bootstrap.gaps.into_iter().map(Gap::from).collect(),
            own: bootstrap.own.into(),
            stamps: vec![bootstrap.stamp.into()],
            has_more: false,
            next_cursor: bootstrap.next.to_string(),
        }))
    }

    /// Catch up
    ///
    /// With `cursor`, returns every change of every kind since then, one page at a time: keep the
    /// rows and `next_cursor` in one transaction, and ask again at once while `has_more` is true.
    /// Of two forms of a row keep the one with the greater `version`. A 410 `resync_required` says
    /// that the cursor does not belong to this history: start again.
    ///
    /// Without it, returns the messages after those that the client has, ascending by `seq` within
    /// each conversation, with the conversations and everybody named. If `has_more` is true, ask
    /// again with `next_after_seq_by_conversation`.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the route"
    )]
    #[oai(path = "/changes", method = "get", operation_id = "changes")]
    async fn changes(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        sockets: Data<&Sockets>,
        /// The last `seq` that the client has of each conversation: a JSON object
        /// `{"<conversation_id>": seq}`, or `id:seq,id:seq`. One that is not named counts from 0.
        after_seq_by_conversation: Query<Option<String>>,
        /// Where the client is: `next_cursor` of its last answer. An empty one begins.
        cursor: Query<Option<String>>,
        /// Rows of a page at most, messages, conversations and people together.
        #[oai(default = "two_hundred")]
        limit: Query<Whole<1, 500>>,
        /// New messages of one conversation at most, the newest; `gaps` names the others.
        #[oai(default = "fifty")]
        timeline_limit: Query<Whole<1, 200>>,
        /// Seconds to wait if nothing has changed.
        #[oai(default = "zero")]
        wait: Query<Whole<0, 25>>,
        /// The newest `shard:as_of` of any other answer since the last sync, from its stamp.
        seen: Query<Option<String>>,
    ) -> Result<Answer<Changes>, ChangesFailure> {
        if let Some(cursor) = cursor.0 {
            let mut pull = pull(limit.0, timeline_limit.0)?;
            let wait = wait
                .0
                .within("wait")
                .map_err(|fault| Failure::invalid([fault]))?;
            pull.wait = Duration::from_secs(wait.unsigned_abs());
            pull.seen = seen.0.as_deref().map(seen_in).transpose()?;
            pull.cursor = cursor_in(Some(&cursor))?;
            let (sync, at_once) = (
                engine.sync(),
                Pull {
                    wait: Duration::ZERO,
                    ..pull.clone()
                },
            );
            let Pulled { page, next, .. } = tokio::select! {
                pulled = sync.pull(&actor, &pull) => pulled?,
                // Whoever waits would hold the stop.
                () = sockets.closing() => sync.pull(&actor, &at_once).await?,
            };
            return Ok(Answer(Changes::of(page, &next)));
        }
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
            removed_conversations: changes
                .not_member
                .into_iter()
                .map(RemovedConversation::not_member)
                .collect(),
            reads: Vec::new(),
            gaps: Vec::new(),
            own: SelfChanges::default(),
            stamps: Vec::new(),
            next_cursor: Nullable(None),
        }))
    }
}

fn zero() -> Whole<0, 25> {
    Whole(Some(0))
}

pub(super) fn fifty() -> Whole<1, 200> {
    Whole(Some(50))
}

pub(super) fn two_hundred() -> Whole<1, 500> {
    Whole(Some(200))
}

/// What to ask of the engine for the bounds of a page.
pub(super) fn pull(limit: Whole<1, 500>, timeline_limit: Whole<1, 200>) -> Result<Pull, Failure> {
    let (limit, timeline) = (
        limit.within("limit"),
        timeline_limit.within("timeline_limit"),
    );
    let mut pull = Pull::default();
    match (limit, timeline) {
        (Ok(limit), Ok(timeline)) => {
            pull.limit = u32::try_from(limit).unwrap_or(u32::MAX);
            pull.timeline_limit = u32::try_from(timeline).unwrap_or(u32::MAX);
            Ok(pull)
        }
        (limit, timeline) => {
            let faults = [limit.err(), timeline.err()].into_iter().flatten();
            Err(Failure::invalid(faults))
        }
    }
}

/// Reads the parameter `cursor`. An empty one is none.
pub(super) fn cursor_in(text: Option<&str>) -> Result<Option<Cursor>, EngineError> {
    let text = text.filter(|it| !it.is_empty());
    text.map(Cursor::parse).transpose()
}

/// Reads the parameter `seen`.
pub(super) fn seen_in(text: &str) -> Result<Position, Failure> {
    parse_seen(text).ok_or_else(|| {
        let fault = Fault::new("query", "seen", "must be 0:as_of, from a stamp");
        Failure::invalid([fault])
    })
}

/// Reads `shard:as_of`, several separated by commas. There is one shard, 0.
pub(super) fn parse_seen(text: &str) -> Option<Position> {
    let of = |stamp: &str| {
        let position = stamp.trim().strip_prefix("0:")?.parse().ok()?;
        Position::new(position)
    };
    let seen: Option<Vec<Position>> = text.split(',').map(of).collect();
    seen?.into_iter().max()
}

fn messages(messages: Vec<EngineMessage>) -> Vec<Message> {
    messages.into_iter().map(Message::from).collect()
}

failures! {
    /// How catching up can fail.
    ChangesFailure: CALLER;
    410: "`resync_required`: start again after `details.retry_after_ms`, so that not all clients do at once; `details.reason` is `history_diverged`, `cursor_malformed`, `cursor_version` or `compacted`",
    422: "`invalid_after_seq`, `validation_error`"
}
failures! {
    /// How starting can fail.
    BootstrapFailure: CALLER, INPUT;
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
    /// How far members of small conversations have read.
    reads: Vec<Read>,
    /// Older messages, which are not here.
    gaps: Vec<Gap>,
    /// What is only the caller's: what is kept by keys, whom the caller has blocked.
    #[serde(rename = "self")]
    #[oai(rename = "self")]
    own: SelfChanges,
    /// Of what moment the answer is.
    stamps: Vec<Stamp>,
    /// Whether `changes` has more of the beginning; only with `limit`.
    has_more: bool,
    /// What to ask `changes` with.
    next_cursor: String,
}

impl Bootstrap {
    fn of(me: User, page: Page, next: &Cursor) -> Self {
        let changes = Changes::of(page, next);
        Self {
            user: UserPublic::from(&me),
            me: me.into(),
            users: changes.users,
            conversations: changes.conversations,
            recent_messages_camel: changes.messages.clone(),
            recent_messages: changes.messages,
            reads: changes.reads,
            gaps: changes.gaps,
            own: changes.own,
            stamps: changes.stamps,
            has_more: changes.has_more,
            next_cursor: changes.next_cursor.0.unwrap_or_default(),
        }
    }
}

/// What a client has missed.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Changes {
    /// Everybody who is named in this answer.
    users: Vec<UserPublic>,
    /// The caller's conversations, the one with the latest message first.
    conversations: Vec<ConversationSummary>,
    /// The messages, ascending by `seq` within each conversation.
    messages: Vec<Message>,
    /// Whether there are more messages than this answer has.
    has_more: bool,
    /// What to ask with next: the last `seq` of each conversation after this answer. Empty with
    /// `cursor`.
    next_after_seq_by_conversation: BTreeMap<String, i64>,
    /// Conversations that the client is to forget.
    removed_conversations: Vec<RemovedConversation>,
    /// With `cursor`: how far members of small conversations have read.
    reads: Vec<Read>,
    /// With `cursor`: messages that were left out, to be read on demand.
    gaps: Vec<Gap>,
    /// With `cursor`: what is only the caller's and has changed.
    #[serde(rename = "self")]
    #[oai(rename = "self")]
    own: SelfChanges,
    /// With `cursor`: of what moment the page is.
    stamps: Vec<Stamp>,
    /// With `cursor`: what to ask with next.
    next_cursor: Nullable<String>,
}

impl Changes {
    /// Converts a page and the cursor to keep with it.
    pub(super) fn of(page: Page, next: &Cursor) -> Self {
        Self {
            users: page.users.iter().map(UserPublic::from).collect(),
            conversations: page
                .conversations
                .into_iter()
                .map(ConversationSummary::changed)
                .collect(),
            messages: messages(page.messages),
            has_more: page.has_more,
            next_after_seq_by_conversation: BTreeMap::new(),
            removed_conversations: page.removals.into_iter().map(Into::into).collect(),
            reads: page.markers.into_iter().map(Read::from).collect(),
            gaps: page.gaps.into_iter().map(Gap::from).collect(),
            own: page.own.into(),
            stamps: vec![page.stamp.into()],
            next_cursor: Nullable(Some(next.to_string())),
        }
    }
}

/// A conversation to which the caller does not belong, or not any more.
#[derive(Debug, Object, Serialize)]
pub(crate) struct RemovedConversation {
    /// The id.
    id: Uuid,
    /// Why: `left`, `removed`, `deleted`, `not_member`. The list is open.
    reason: String,
    /// The version of the removal: it is void for who has joined again since, by a greater
    /// `membership_version`. Null if the conversation was only asked for.
    version: Nullable<i64>,
}

impl RemovedConversation {
    fn not_member(id: ConversationId) -> Self {
        Self {
            id: id.as_uuid(),
            reason: "not_member".to_owned(),
            version: Nullable(None),
        }
    }
}

impl From<Removal> for RemovedConversation {
    fn from(removal: Removal) -> Self {
        Self {
            id: removal.conversation_id.as_uuid(),
            reason: removal.reason.as_str().to_owned(),
            version: Nullable(Some(removal.version.get())),
        }
    }
}

/// How far a member has read a conversation.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Read {
    /// The conversation.
    conversation_id: Uuid,
    /// The member.
    user_id: Uuid,
    /// The last message that they have read.
    last_read_seq: i64,
    /// The last message that a device of theirs has received.
    last_delivered_seq: i64,
    /// Of two, the greater one is newer.
    version: i64,
}

impl From<Marker> for Read {
    fn from(marker: Marker) -> Self {
        Self {
            conversation_id: marker.conversation_id.as_uuid(),
            user_id: marker.user_id.as_uuid(),
            last_read_seq: marker.last_read.get(),
            last_delivered_seq: marker.last_delivered.get(),
            version: marker.version.get(),
        }
    }
}

impl Read {
    /// Converts the markers that somebody has moved at a position.
    pub(super) fn at(
        conversation: ConversationId,
        user: UserId,
        markers: &Markers,
        position: Position,
    ) -> Self {
        Self {
            conversation_id: conversation.as_uuid(),
            user_id: user.as_uuid(),
            last_read_seq: markers.last_read.get(),
            last_delivered_seq: markers.last_delivered.get(),
            version: position.get(),
        }
    }
}

/// Messages that were left out, both ends included.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Gap {
    /// The conversation.
    conversation_id: Uuid,
    /// The first of them.
    from_seq: i64,
    /// The last of them.
    to_seq: i64,
    /// Only an answer whose stamp is not older than this fills the gap.
    as_of: i64,
}

impl From<EngineGap> for Gap {
    fn from(gap: EngineGap) -> Self {
        Self {
            conversation_id: gap.conversation_id.as_uuid(),
            from_seq: gap.first.get(),
            to_seq: gap.last.get(),
            as_of: gap.as_of.get(),
        }
    }
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
