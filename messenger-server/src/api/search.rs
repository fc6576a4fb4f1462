//! Searching messages.
//!
//! | route | what |
//! |---|---|
//! | `GET /messages/search` | messages by their text |

use messenger_core::messages::{Found, Search as Asked, SearchText};
use messenger_core::{Error as EngineError, Invalid, MessengerEngine, Position};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::Caller;
use crate::api::envelope::{Answer, Failure, Fault, failures};
use crate::api::messages::Message;
use crate::api::wire::{Text, Whole};

/// The greatest position: what every JSON reader keeps exact.
const POSITION_MAX: i64 = Position::MAX.get();

/// The route of this file.
#[derive(Debug)]
pub(crate) struct Search;

#[OpenApi(tag = "Tag::Messages")]
impl Search {
    /// Search messages
    ///
    /// Returns the messages that have the text, the newest first, of all conversations of the caller
    /// or of one. Each word of the text must begin a word of the message, whatever its capitals and
    /// accents; in scripts without spaces any part is found. Only what the caller may see now is
    /// found, and what was sent before the request is.
    #[oai(
        path = "/messages/search",
        method = "get",
        operation_id = "searchMessages"
    )]
    async fn search(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The text to look for.
        query: Query<Text<256>>,
        /// The conversation to look through; without it, all of the caller's.
        conversation_id: Query<Option<Uuid>>,
        /// The `next_before` of the page before.
        before: Query<Option<Whole<1, POSITION_MAX>>>,
        /// How many messages at most.
        #[oai(default = "twenty")]
        limit: Query<Whole<1, 50>>,
    ) -> Result<Answer<MessagesFound>, SearchFailure> {
        let text = query.0.given("query").and_then(|text| {
            let text = SearchText::parse(text, engine.limits());
            text.map_err(|rule| in_query(&rule))
        });
        let before = before.0.map(|position| position.within("before"));
        let asked = match (text, before.transpose(), limit.0.within("limit")) {
            (Ok(text), Ok(before), Ok(limit)) => {
                let mut asked = Asked::new(text);
                asked.conversation = conversation_id.0.map(Into::into);
                asked.before = before.and_then(Position::new);
                asked.limit = u32::try_from(limit).unwrap_or(u32::MAX);
                asked
            }
            (text, before, limit) => {
                let faults = [text.err(), before.err(), limit.err()];
                return Err(Failure::invalid(faults.into_iter().flatten()).into());
            }
        };
        let found = engine.messages().search(&actor, asked).await;
        let found = found.map_err(|error| match error {
            EngineError::Invalid(rule) => Failure::invalid([in_query(&rule)]),
            error => error.into(),
        })?;
        Ok(Answer(found.into()))
    }
}

fn in_query(rule: &Invalid) -> Fault {
    Fault::of("query", rule)
}

fn twenty() -> Whole<1, 50> {
    Whole(Some(20))
}

failures! {
    /// How a search can fail.
    SearchFailure: CALLER, INPUT;
    404: "`conversation_not_found`: the conversation that is named is not one of the caller's"
}

/// Messages that were found.
#[derive(Debug, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct MessagesFound {
    /// The one first that was sent last.
    messages: Vec<Message>,
    /// What to ask with for more; not there once there is no more. A page may be short, or empty, and
    /// still not be the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
    /// Whether everything was looked through. It is not for some moments after a great many messages
    /// were sent or a server was updated, and where the caller is in more than 1,000 conversations.
    complete: bool,
}

impl From<Found> for MessagesFound {
    fn from(found: Found) -> Self {
        Self {
            messages: found.messages.into_iter().map(Message::from).collect(),
            next_before: found.next_before.map(Position::get),
            complete: found.is_complete,
        }
    }
}
