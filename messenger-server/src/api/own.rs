//! What is only the caller's own.
//!
//! | route | what |
//! |---|---|
//! | `GET /users/me/export` | all that the account has |
//! | `GET /users/me/prefs` | what the caller keeps by keys |
//! | `PUT /users/me/prefs/{key}` | keep something |
//! | `DELETE /users/me/prefs/{key}` | forget it |
//! | `GET /users/me/blocks` | a page of whom the caller has blocked |
//! | `PUT /users/me/blocks/{user_id}` | block somebody |
//! | `DELETE /users/me/blocks/{user_id}` | lift it |

use std::io;

use futures_util::StreamExt;
use messenger_core::accounts::Export;
use messenger_core::sync::OwnChanges;
use messenger_core::users::{self, Blocked, PrefKey, PrefValue};
use messenger_core::{Error as EngineError, ErrorKind, MessengerEngine, UserId};
use poem::http::{HeaderValue, header};
use poem::web::Data;
use poem::{Body, IntoResponse, Response};
use poem_openapi::param::{Path, Query};
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::{Caller, CallerFailure};
use crate::api::body::ApiJson;
use crate::api::envelope::{Answer, Failure, Fault, Written, failures};
use crate::api::idempotency::IdempotencyKey;
use crate::api::users::{UserPublic, hundred, page};
use crate::api::wire::{AnyJson, PathId, Text, Whole};
use crate::edge::chain;

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Own;

#[OpenApi(prefix_path = "/users/me", tag = "Tag::Users")]
impl Own {
    /// Take my data along
    ///
    /// Returns all that the account has, one JSON object a line, each with a `type`: `profile`,
    /// `pref`, `block`, `session`, `conversation` (with the caller's `membership`), `message` and
    /// `reaction`. What others wrote is not in it. An answer that breaks off is not whole: ask again.
    /// While one is under way there is no other: 503.
    #[oai(path = "/export", method = "get", operation_id = "exportMe")]
    async fn export(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Lines, CallerFailure> {
        // Whoever is not there is told in an answer, and not in the middle of one.
        engine.users().me(&actor).await?;
        Ok(Lines(engine.users().export(&actor)?))
    }

    /// What I keep
    ///
    /// Returns all that the caller keeps by keys, ordered by key. It is the same on all devices,
    /// which a sync tells of changes in `self`; nobody else sees it.
    #[oai(path = "/prefs", method = "get", operation_id = "prefs")]
    async fn prefs(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<PrefList>, CallerFailure> {
        let prefs = engine.users().prefs(&actor).await?;
        let prefs = prefs.into_iter().map(Pref::from).collect();
        Ok(Answer(PrefList { prefs }))
    }

    /// Keep something
    ///
    /// Keeps a value under a key, in place of what was there. Up to 100 keys have values.
    #[oai(path = "/prefs/:key", method = "put", operation_id = "setPref")]
    async fn set_pref(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The key: 1 to 64 of `a-z 0-9 . _ -`.
        key: Path<Text<64>>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
        body: ApiJson<PrefRequest>,
    ) -> Result<Answer<Written>, SetPrefFailure> {
        let key = pref_key(&key)?;
        let value = PrefValue::parse(body.0.value.as_str(), engine.limits())?;
        let users = engine.users().once(once.0);
        let position = users.set_pref(&actor, key, value).await?;
        Ok(Answer(position.into()))
    }

    /// Forget something
    ///
    /// Forgets what is kept under a key. Where nothing is, nothing changes.
    #[oai(path = "/prefs/:key", method = "delete", operation_id = "deletePref")]
    async fn delete_pref(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The key: 1 to 64 of `a-z 0-9 . _ -`.
        key: Path<Text<64>>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<Written>, DeletePrefFailure> {
        let key = pref_key(&key)?;
        let users = engine.users().once(once.0);
        let position = users.delete_pref(&actor, key).await?;
        Ok(Answer(position.into()))
    }

    /// Whom I have blocked
    ///
    /// Returns whom the caller has blocked, after a given person, ordered by id. A page with fewer
    /// than `limit` is the last one.
    #[oai(path = "/blocks", method = "get", operation_id = "blocks")]
    async fn blocks(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The id of the last person that the client has; nothing for none.
        after: Query<Option<PathId>>,
        /// How many people at most.
        #[oai(default = "hundred")]
        limit: Query<Whole<1, 500>>,
    ) -> Result<Answer<BlockedPage>, BlocksFailure> {
        let (after, limit) = page(after.0.as_ref(), limit.0)?;
        let blocked = engine.users().blocked(&actor, after, limit).await?;
        let blocks = blocked.iter().map(BlockedPublic::from).collect();
        Ok(Answer(BlockedPage { blocks }))
    }

    /// Block somebody
    ///
    /// Blocks somebody, who is not told. Neither of the two can open a direct conversation with the
    /// other, nor send, edit or react in the one that there is: both get 403 `blocked`. What was
    /// said stays readable, and groups are not affected.
    #[oai(path = "/blocks/:user_id", method = "put", operation_id = "block")]
    async fn block(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// Whom.
        user_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<Written>, BlockFailure> {
        let user = person(&user_id)?;
        let users = engine.users().once(once.0);
        let position = users.block(&actor, user).await?;
        Ok(Answer(position.into()))
    }

    /// Lift a block
    ///
    /// Lifts a block. Where there is none, nothing changes.
    #[oai(path = "/blocks/:user_id", method = "delete", operation_id = "unblock")]
    async fn unblock(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// Whom.
        user_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<Written>, UnblockFailure> {
        let user = person(&user_id)?;
        let users = engine.users().once(once.0);
        let position = users.unblock(&actor, user).await?;
        Ok(Answer(position.into()))
    }
}

fn pref_key(key: &Path<Text<64>>) -> Result<PrefKey, Failure> {
    let text = key.0.given("key").unwrap_or_default();
    PrefKey::parse(text).map_err(|rule| Failure::invalid([Fault::of("path", &rule)]))
}

fn person(id: &Path<PathId>) -> Result<UserId, EngineError> {
    id.0.read().ok_or(EngineError::UserNotFound)
}

failures! {
    /// How keeping something can fail.
    SetPrefFailure: CALLER, BODY, WRITE;
    404: "`not_found`: the path is no text",
    409: "`prefs_full`, or `client_write_conflict`: the id was used for another write"
}
failures! {
    /// How forgetting something can fail.
    DeletePrefFailure: CALLER, INPUT, WRITE;
    404: "`not_found`: the path is no text",
    409: "`client_write_conflict`: the id was used for another write"
}
failures! {
    /// How listing blocks can fail.
    BlocksFailure: CALLER, INPUT;
}
failures! {
    /// How blocking can fail.
    BlockFailure: CALLER, INPUT, WRITE;
    400: "`invalid_target`: the caller",
    404: "`user_not_found`",
    409: "`blocks_full`, or `client_write_conflict`: the id was used for another write"
}
failures! {
    /// How lifting a block can fail.
    UnblockFailure: CALLER, INPUT, WRITE;
    404: "`user_not_found`: it is no id",
    409: "`client_write_conflict`: the id was used for another write"
}

/// Lines of JSON, sent as they are made.
#[derive(Debug)]
struct Lines(Export);

/// The content type of lines of JSON.
const LINES: &str = "application/x-ndjson";

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        let lines = self.0.map(|line| match line {
            Ok(line) => Ok(line + "\n"),
            Err(error) => {
                if error.kind() == ErrorKind::Internal {
                    tracing::error!(error = chain(&error), "an export failed");
                }
                Err(io::Error::other(error))
            }
        });
        Response::builder()
            .header(header::CONTENT_TYPE, HeaderValue::from_static(LINES))
            .body(Body::from_bytes_stream(lines))
    }
}

impl ApiResponse for Lines {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "One JSON object a line.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: LINES,
                    schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(_registry: &mut Registry) {}
}

/// What to keep under a key.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct PrefRequest {
    /// Any JSON, up to 4,096 bytes and 64 levels of arrays and objects.
    value: AnyJson,
}

impl Example for PrefRequest {
    fn example() -> Self {
        Self {
            value: AnyJson::read(r#"{"dark":true}"#).unwrap_or(AnyJson::null()),
        }
    }
}

/// Something that is kept.
#[derive(Clone, Debug, Object, Serialize)]
pub(crate) struct Pref {
    /// Its name.
    key: String,
    /// What is kept; `null` if it was deleted.
    value: AnyJson,
    /// Whether it was deleted.
    deleted: bool,
    /// Of two forms, the one with the greater version is newer.
    version: i64,
}

impl From<users::Pref> for Pref {
    fn from(pref: users::Pref) -> Self {
        let value = pref.value.as_ref().map(PrefValue::as_str);
        Self {
            key: pref.key.as_str().to_owned(),
            deleted: value.is_none(),
            value: value.and_then(AnyJson::read).unwrap_or(AnyJson::null()),
            version: pref.version.get(),
        }
    }
}

/// What the caller keeps.
#[derive(Debug, Object, Serialize)]
pub(crate) struct PrefList {
    /// Ordered by key.
    prefs: Vec<Pref>,
}

/// Somebody who is blocked.
#[derive(Debug, Object, Serialize)]
pub(crate) struct BlockedPublic {
    /// Who it is.
    user: UserPublic,
    /// Of two forms, the one with the greater version is newer.
    version: i64,
}

impl From<&Blocked> for BlockedPublic {
    fn from(blocked: &Blocked) -> Self {
        Self {
            user: UserPublic::from(&blocked.user),
            version: blocked.version.get(),
        }
    }
}

/// A page of people who are blocked.
#[derive(Debug, Object, Serialize)]
pub(crate) struct BlockedPage {
    /// Ordered by id.
    blocks: Vec<BlockedPublic>,
}

/// Whether somebody is blocked.
#[derive(Clone, Debug, Object, Serialize)]
pub(crate) struct Block {
    /// Whom it is about.
    user_id: Uuid,
    /// Whether they are blocked.
    blocked: bool,
    /// Of two forms, the one with the greater version is newer.
    version: i64,
}

/// What is only the caller's, of no conversation.
#[derive(Clone, Debug, Default, Object, Serialize)]
pub(crate) struct SelfChanges {
    /// What the caller keeps by keys, and keeps no longer.
    prefs: Vec<Pref>,
    /// Whom the caller has blocked, and whom no longer.
    blocks: Vec<Block>,
}

impl From<OwnChanges> for SelfChanges {
    fn from(own: OwnChanges) -> Self {
        let blocks = own.blocks.into_iter().map(|block| Block {
            user_id: block.user_id.as_uuid(),
            blocked: block.blocked,
            version: block.version.get(),
        });
        Self {
            prefs: own.prefs.into_iter().map(Pref::from).collect(),
            blocks: blocks.collect(),
        }
    }
}
