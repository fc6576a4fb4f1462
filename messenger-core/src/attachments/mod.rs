//! Attachments: files that somebody sends up first and then with a message.
//!
//! The bytes are in a place of their own, a folder or a bucket (`AttachmentStore`); what is known of
//! them is in the database. Until a message has it, an attachment is its uploader's only, and goes
//! after [`Limits::attachment_grace`]; then whoever may see the message may have it, for as long as the
//! message is there.

#[cfg(feature = "attachments")]
pub(crate) mod collect;
mod names;
#[cfg(feature = "attachments")]
mod objects;
#[cfg(feature = "attachments")]
mod operations;
#[cfg(feature = "attachments")]
mod preview;
#[cfg(feature = "attachments")]
mod queries;
#[cfg(feature = "attachments")]
mod read;
#[cfg(feature = "attachments")]
mod transfers;
#[cfg(feature = "attachments")]
mod upload;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub use self::names::{FileName, MediaRange, MediaType};
#[cfg(feature = "attachments")]
pub use self::objects::AttachmentStore;
#[cfg(feature = "attachments")]
pub(crate) use self::objects::Objects;
#[cfg(feature = "attachments")]
pub use self::read::{AttachmentBytes, AttachmentItem, OpenAttachment};
#[cfg(feature = "attachments")]
pub(crate) use self::transfers::Transfers;
#[cfg(feature = "attachments")]
pub use self::upload::{NewAttachment, Uploaded};
#[cfg(feature = "attachments")]
use crate::engine::MessengerEngine;
use crate::error::{Error, Result};
use crate::ids::{AttachmentId, UserId};
use crate::limits::Limits;
use crate::store::entity::attachment;
use crate::write::Batch;
#[cfg(feature = "attachments")]
use crate::write::ClientWriteId;

/// Attachments: the view that [`MessengerEngine::attachments`] gives.
#[cfg(feature = "attachments")]
#[derive(Debug)]
pub struct Attachments<'a> {
    engine: &'a MessengerEngine,
    once: Option<ClientWriteId>,
}

/// What everybody who sees a message knows of what is attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// What its uploader calls it. Not the name of any file here.
    pub name: String,
    /// What its uploader says that it is, like `image/png`.
    pub media_type: String,
    /// How long it is, in bytes.
    pub size: u64,
    /// How wide it is in pixels, if it is a picture, as it is to be shown.
    pub width: Option<u32>,
    /// How high it is in pixels, if it is a picture, as it is to be shown.
    pub height: Option<u32>,
    /// Whether there is a small picture of it.
    pub has_preview: bool,
}

/// An attachment in the JSON of its message.
#[derive(Serialize, Deserialize)]
struct Held {
    id: Uuid,
    name: String,
    media_type: String,
    size: u64,
    width: Option<u32>,
    height: Option<u32>,
    has_preview: bool,
}

impl Attachment {
    /// Bytes that it takes in an answer, about.
    pub(crate) fn bytes(&self) -> usize {
        self.name.len() + self.media_type.len() + FACTS_BYTES
    }

    /// What an export and a webhook have of it.
    pub(crate) fn line(&self) -> Value {
        json!({
            "id": self.id.as_uuid(),
            "name": self.name,
            "media_type": self.media_type,
            "size": self.size,
            "width": self.width,
            "height": self.height,
            "has_preview": self.has_preview,
        })
    }
}

impl From<&attachment::Model> for Attachment {
    fn from(row: &attachment::Model) -> Self {
        let pixels = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        Self {
            id: row.id.into(),
            name: row.name.clone(),
            media_type: row.media_type.clone(),
            size: u64::try_from(row.size).unwrap_or(0),
            width: pixels(row.width),
            height: pixels(row.height),
            has_preview: row.has_preview,
        }
    }
}

impl From<Held> for Attachment {
    fn from(held: Held) -> Self {
        Self {
            id: held.id.into(),
            name: held.name,
            media_type: held.media_type,
            size: held.size,
            width: held.width,
            height: held.height,
            has_preview: held.has_preview,
        }
    }
}

impl From<Attachment> for Held {
    fn from(attachment: Attachment) -> Self {
        Self {
            id: attachment.id.as_uuid(),
            name: attachment.name,
            media_type: attachment.media_type,
            size: attachment.size,
            width: attachment.width,
            height: attachment.height,
            has_preview: attachment.has_preview,
        }
    }
}

/// The attachments in the column of their message.
pub(crate) fn held_by(column: Option<&str>) -> Vec<Attachment> {
    let held: Option<Vec<Held>> = column.and_then(|text| serde_json::from_str(text).ok());
    let held = held.unwrap_or_default().into_iter();
    held.map(Attachment::from).collect()
}

/// Insists that a sender has uploaded all of these and no message has them. Returns the column for
/// their message. The operation must have named them.
pub(crate) fn require_unsent(
    batch: &Batch,
    ids: &[AttachmentId],
    sender: UserId,
) -> Result<Option<String>> {
    if ids.is_empty() {
        return Ok(None);
    }
    let mut held = Vec::with_capacity(ids.len());
    for id in ids {
        let row = batch.attachments.get(&id.as_uuid());
        let row = row
            .filter(|row| row.owner_id == sender.as_uuid())
            .filter(|row| row.state == attachment::State::Ready)
            .ok_or(Error::AttachmentNotFound)?;
        if row.message_id.is_some() {
            return Err(Error::AttachmentUsed);
        }
        held.push(Held::from(Attachment::from(row)));
    }
    let text = serde_json::to_string(&held);
    text.map(Some)
        .map_err(|error| Error::Internal(error.to_string()))
}

/// About what the facts about an attachment take in JSON, without its texts.
const FACTS_BYTES: usize = 160;

#[cfg(feature = "attachments")]
impl<'a> Attachments<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine, once: None }
    }

    /// Gives the next upload or deletion an id, under which it takes place once.
    ///
    /// An upload that is repeated returns the first one's attachment without looking at the bytes,
    /// for as long as there is one. One that was broken off begins anew, and so does one that is still
    /// under way, in the place of which the later one goes on.
    #[must_use]
    pub fn once(self, id: ClientWriteId) -> Self {
        Self {
            once: Some(id),
            ..self
        }
    }
}
