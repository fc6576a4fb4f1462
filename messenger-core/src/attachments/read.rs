//! Looking at attachments, and deleting them.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::objects::Pieces;
use super::operations::Delete;
use super::{Attachment, Attachments, Objects, queries};
use crate::auth::{Actor, Revocations};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ids::{AttachmentId, Position};
use crate::places::{Place, Places};
use crate::store::entity::attachment;

/// An attachment with what only whoever asks for it by itself is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachmentItem {
    /// What everybody knows who sees its message.
    pub attachment: Attachment,
    /// The SHA-256 of its bytes.
    pub sha256: Vec<u8>,
    /// When its upload began.
    pub created_at: Timestamp,
}

impl From<&attachment::Model> for AttachmentItem {
    fn from(row: &attachment::Model) -> Self {
        Self {
            attachment: Attachment::from(row),
            sha256: row.sha256.clone().unwrap_or_default(),
            created_at: Timestamp::from_micros(row.created_at),
        }
    }
}

/// An attachment that its reader may have; made by [`Attachments::open`].
#[derive(Debug)]
pub struct OpenAttachment {
    item: AttachmentItem,
    objects: Arc<Objects>,
    downloads: Arc<Places>,
    reader: Reader,
}

/// Who reads.
#[derive(Clone, Debug)]
struct Reader {
    actor: Actor,
    revocations: Arc<Revocations>,
}

/// Bytes of an attachment, piece by piece, as they are read. Dropping it ends it.
///
/// It ends with one error if they can not be read any further, or the actor's session ends
/// ([`Error::InvalidToken`]).
#[must_use = "bytes that are dropped are not read"]
pub struct AttachmentBytes {
    pieces: Pieces,
    reader: Reader,
    ended: bool,
    _place: Place,
}

impl Stream for AttachmentBytes {
    type Item = Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut next = ready!(this.pieces.as_mut().poll_next(cx));
        if this.reader.revocations.have_ended(&this.reader.actor) {
            next = Some(Err(Error::InvalidToken));
        }
        this.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl fmt::Debug for AttachmentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentBytes").finish_non_exhaustive()
    }
}

impl Attachments<'_> {
    /// Returns what is known of an attachment: the actor's own while no message has it, then that of a
    /// message that the actor may see.
    ///
    /// # Errors
    ///
    /// [`Error::AttachmentNotFound`]: there is none, it is not ready, its message was deleted or is from
    /// before the actor's time, or the actor is not a member.
    pub async fn attachment(&self, actor: &Actor, id: AttachmentId) -> Result<AttachmentItem> {
        let row = queries::seen_by(&self.engine.store().read(), actor.user_id(), id).await?;
        Ok(AttachmentItem::from(&row))
    }

    /// Opens an attachment, to read its bytes or a part of them.
    ///
    /// # Errors
    ///
    /// Those of [`attachment`](Self::attachment), and [`Error::AttachmentsOff`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor};
    /// # async fn example(engine: &MessengerEngine, bob: &Actor, id: AttachmentId) -> Result<()> {
    /// use futures_util::TryStreamExt;
    ///
    /// let photo = engine.attachments().open(bob, id).await?;
    /// let size = photo.item().attachment.size;
    /// let mut pieces = photo.bytes(0..size).await?;
    /// while let Some(piece) = pieces.try_next().await? {
    ///     println!("{} bytes more", piece.len());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn open(&self, actor: &Actor, id: AttachmentId) -> Result<OpenAttachment> {
        let objects = self.engine.objects()?.clone();
        let row = queries::seen_by(&self.engine.store().read(), actor.user_id(), id).await?;
        Ok(OpenAttachment {
            item: AttachmentItem::from(&row),
            objects,
            downloads: Arc::clone(&self.engine.transfers().downloads),
            reader: Reader {
                actor: actor.clone(),
                revocations: self.engine.revocations().clone(),
            },
        })
    }

    /// Returns the small picture of an attachment, as JPEG: at most 640 pixels wide and high, the right
    /// way up, and without anything that the picture has beside what it shows.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`Error::AttachmentNotFound`] if there is none of it.
    pub async fn preview(&self, actor: &Actor, id: AttachmentId) -> Result<Vec<u8>> {
        let open = self.open(actor, id).await?;
        if !open.item.attachment.has_preview {
            return Err(Error::AttachmentNotFound);
        }
        let path = open.objects.preview(id);
        open.objects
            .read_all(&path)
            .await
            .inspect_err(|error| missing(id, error))
    }

    /// Deletes an attachment of the actor that no message has, and returns the position at which it is
    /// gone. What a message has goes with the message.
    ///
    /// # Errors
    ///
    /// - [`Error::AttachmentNotFound`]: the actor has no such attachment, or no more.
    /// - [`Error::AttachmentUsed`]: a message has it.
    /// - [`Error::ClientWriteConflict`]: something else was asked under the id of
    ///   [`once`](Self::once).
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, it is deleted or it is not.
    pub async fn delete(&self, actor: &Actor, id: AttachmentId) -> Result<Position> {
        let owner = actor.user_id();
        let delete = Delete { owner, id };
        let once = self.once.clone();
        let ((), position) = self.engine.writer().run_once(delete, owner, once).await?;
        Ok(position)
    }
}

impl OpenAttachment {
    /// What is known of it.
    pub fn item(&self) -> &AttachmentItem {
        &self.item
    }

    /// Reads bytes from the first one up to the last one, which is left out; what is past the end is
    /// left out too.
    ///
    /// # Errors
    ///
    /// - [`Error::AttachmentNotFound`]: it was deleted since.
    /// - [`Error::Busy`]: too many downloads are under way.
    /// - [`Error::AttachmentsUnavailable`]: they can not be read now.
    pub async fn bytes(&self, range: Range<u64>) -> Result<AttachmentBytes> {
        let size = self.item.attachment.size;
        let range = range.start.min(size)..range.end.min(size);
        let id = self.item.attachment.id;
        let path = self.objects.content(id);
        let place = self.downloads.enter(self.reader.actor.user_id())?;
        let pieces = self.objects.read(&path, range).await;
        let pieces = pieces.inspect_err(|error| missing(id, error))?;
        Ok(AttachmentBytes {
            pieces,
            reader: self.reader.clone(),
            ended: false,
            _place: place,
        })
    }
}

/// Says that bytes are not where they should be: deleted a moment ago, or lost.
fn missing(id: AttachmentId, error: &Error) {
    if let Error::AttachmentNotFound = error {
        tracing::warn!(attachment.id = %id, "the file of an attachment is missing");
    }
}
