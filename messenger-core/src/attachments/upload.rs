//! Uploading: bytes go to their place as they come, and no more than two parts of them are here.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::operations::{Begin, Begun, Finish, GiveUp};
use super::preview::{self, HEAD_BYTES, Picture};
use super::{AttachmentItem, Attachments, FileName, MediaType, Objects, objects};
use crate::auth::Actor;
use crate::error::{Error, Result};
use crate::ids::{AttachmentId, UserId};
use crate::limits::Limits;
use crate::tasks::Tasks;
use crate::write::Writer;

/// How long to wait before an upload is tried again for which there was no place.
const AGAIN: Duration = Duration::from_secs(2);

/// A file to upload: begin with [`NewAttachment::new`] and set what else is known.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewAttachment {
    /// What it is called.
    pub name: FileName,
    /// What it is said to be.
    pub media_type: MediaType,
    /// How long it is said to be, in bytes. Too long is refused before anything is read, and so is an
    /// end that comes earlier or later.
    pub size: Option<u64>,
}

impl NewAttachment {
    /// A file of which the length is not known yet.
    pub fn new(name: FileName, media_type: MediaType) -> Self {
        Self {
            name,
            media_type,
            size: None,
        }
    }
}

/// What came of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// The attachment.
    pub item: AttachmentItem,
    /// Whether this call stored it; `false` if an earlier one with the same client id did.
    pub created: bool,
}

/// Who is uploading, and whose turn it is to make a preview.
pub(crate) struct Uploads {
    running: Mutex<HashMap<UserId, usize>>,
    previews: Arc<Semaphore>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            previews: Arc::new(Semaphore::new(1)),
        }
    }
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").finish_non_exhaustive()
    }
}

/// The place of one upload; dropping it makes room.
struct Place {
    uploads: Arc<Uploads>,
    user: UserId,
}

impl Uploads {
    fn enter(self: &Arc<Self>, user: UserId, limits: &Limits) -> Result<Place> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = running.get(&user).copied().unwrap_or(0);
        let all: usize = running.values().sum();
        if all >= limits.uploads_max || of_user >= limits.uploads_per_user_max {
            return Err(Error::Busy { retry_after: AGAIN });
        }
        running.insert(user, of_user + 1);
        let uploads = Arc::clone(self);
        Ok(Place { uploads, user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let running = self.uploads.running.lock();
        let mut running = running.unwrap_or_else(PoisonError::into_inner);
        if let Some(of_user) = running.get_mut(&self.user) {
            *of_user -= 1;
        }
        running.retain(|_, of_user| *of_user > 0);
    }
}

impl Attachments<'_> {
    /// Uploads a file: reads its bytes to the end, and keeps them for a message of the actor.
    ///
    /// Of a picture (JPEG, PNG, GIF, WebP, by its bytes and not by what it is called) the size in pixels
    /// is found out and a preview is made. Without a message it goes after
    /// [`Limits::attachment_grace`](crate::Limits::attachment_grace).
    ///
    /// # Errors
    ///
    /// - [`Error::AttachmentsOff`]: the engine has no place for them.
    /// - [`Error::AttachmentTooLarge`]: it has more bytes than
    ///   [`Limits::attachment_bytes_max`](crate::Limits::attachment_bytes_max), or says so.
    /// - [`Error::AttachmentType`]: the host takes none of this type.
    /// - [`Error::AttachmentsFull`]: the actor has too many that no message has.
    /// - [`Error::UploadBroken`]: the bytes ended with an error, or elsewhere than they were said to.
    /// - [`Error::ClientWriteConflict`]: the id of [`once`](Self::once) was used for another file.
    /// - [`Error::Busy`]: too many uploads are under way, or the same was begun again meanwhile.
    /// - [`Error::AttachmentsUnavailable`], [`Error::StorageFull`]: the bytes can not be kept now.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the attachment is there, or what there is of it goes: soon, and if
    /// the process ends with it, after [`Limits::attachment_grace`](crate::Limits::attachment_grace).
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, attachments::*};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor) -> Result<()> {
    /// let notes = NewAttachment::new(
    ///     FileName::parse("notes.txt", engine.limits())?,
    ///     "text/plain".parse()?,
    /// );
    /// let bytes = futures_util::stream::iter([Ok("milk, "), Ok("bread")]);
    /// let uploaded = engine.attachments().upload(alice, notes, bytes).await?;
    ///
    /// assert_eq!(uploaded.item.attachment.size, 11);
    /// # Ok(()) }
    /// ```
    pub async fn upload<B: AsRef<[u8]>>(
        &self,
        actor: &Actor,
        new: NewAttachment,
        bytes: impl Stream<Item = io::Result<B>>,
    ) -> Result<Uploaded> {
        let (objects, limits) = (self.engine.objects()?, self.engine.limits());
        let bytes_max = limits.attachment_bytes_max;
        if new.size.is_some_and(|size| size > bytes_max) {
            return Err(Error::AttachmentTooLarge { bytes_max });
        }
        let types = self.engine.attachment_types();
        if !types.is_empty() && !types.iter().any(|range| range.has(&new.media_type)) {
            return Err(Error::AttachmentType);
        }
        let owner = actor.user_id();
        let _place = self.engine.uploads().enter(owner, limits)?;
        let (writer, size) = (self.engine.writer(), new.size);
        let begin = Begin {
            owner,
            client_id: self.once.clone(),
            name: new.name,
            media_type: new.media_type,
            size,
            limits: limits.clone(),
        };
        let id = match writer.run(begin).await? {
            Begun::Anew(id) => id,
            Begun::Before(row) => {
                let item = AttachmentItem::from(row.as_ref());
                return Ok(Uploaded {
                    item,
                    created: false,
                });
            }
        };
        let tasks = self.engine.tasks();
        let unfinished = Unfinished {
            writer,
            tasks,
            id: Some(id),
        };
        let attempt = Attempt {
            objects,
            limits,
            tasks,
            id,
        };
        let work = async {
            let came = attempt.take(bytes, size).await?;
            let picture = attempt.look(&came, self.engine.uploads()).await;
            let finish = Finish {
                id,
                size: came.size,
                sha256: came.sha256,
                pixels: picture.as_ref().map(|picture| picture.pixels),
                has_preview: picture.is_some_and(|picture| picture.preview.is_some()),
                limits: limits.clone(),
            };
            writer.run(finish).await
        };
        let finished = tasks.closing().run_until_cancelled(work).await;
        let row = finished.unwrap_or(Err(Error::Closed))?;
        unfinished.finish();
        Ok(Uploaded {
            item: AttachmentItem::from(&row),
            created: true,
        })
    }
}

/// An upload that was begun; dropping it gives it up, even if nobody waits for that.
struct Unfinished<'a> {
    writer: &'a Writer,
    tasks: &'a Tasks,
    id: Option<AttachmentId>,
}

impl Unfinished<'_> {
    fn finish(mut self) {
        self.id = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if tokio::runtime::Handle::try_current().is_ok() {
            let writer = self.writer.clone();
            self.tasks.start(async move {
                // If it can not be said now, it goes when its time is over.
                let _ = writer.run(GiveUp { id }).await;
            });
        }
    }
}

/// One attempt to upload.
struct Attempt<'a> {
    objects: &'a Arc<Objects>,
    limits: &'a Limits,
    tasks: &'a Tasks,
    id: AttachmentId,
}

/// What is known of bytes that have come.
struct Came {
    size: u64,
    sha256: Vec<u8>,
    head: Vec<u8>,
}

impl Attempt<'_> {
    fn path(&self) -> Path {
        self.objects.content(self.id)
    }

    /// Reads bytes to their end and writes them to their place: one part is filled while the one
    /// before is under way.
    async fn take<B: AsRef<[u8]>>(
        &self,
        bytes: impl Stream<Item = io::Result<B>>,
        declared: Option<u64>,
    ) -> Result<Came> {
        let mut bytes = pin!(bytes);
        let (path, bytes_max) = (self.path(), self.limits.attachment_bytes_max);
        let mut file = Parts::new(self, path);
        let (mut size, mut hash, mut head) = (0_u64, Sha256::new(), Vec::new());
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|error| Error::UploadBroken(Arc::new(error)))?;
            let chunk = chunk.as_ref();
            size = size.saturating_add(chunk.len() as u64);
            if size > bytes_max {
                return Err(Error::AttachmentTooLarge { bytes_max });
            }
            if declared.is_some_and(|declared| size > declared) {
                return Err(ends_elsewhere());
            }
            hash.update(chunk);
            let more = chunk.len().min(HEAD_BYTES - head.len());
            head.extend_from_slice(&chunk[..more]);
            file.write(chunk).await?;
        }
        if declared.is_some_and(|declared| size != declared) {
            return Err(ends_elsewhere());
        }
        file.finish().await?;
        Ok(Came {
            size,
            sha256: hash.finalize().to_vec(),
            head,
        })
    }

    /// Looks whether it is a picture, and makes a preview of it, which is kept beside it. Where that
    /// can not be done there is none.
    async fn look(&self, came: &Came, uploads: &Uploads) -> Option<Picture> {
        let is_short = came.size <= self.limits.preview_source_bytes_max;
        if !is_short || !preview::is_picture(&came.head) {
            return None;
        }
        // One at a time, with all that it takes: it also ends in its turn if nobody waits any more.
        let turn = Arc::clone(&uploads.previews).acquire_owned().await.ok()?;
        let source = self.objects.source(&self.path()).await.ok()?;
        let limits = self.limits.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let picture = preview::look(source, &limits);
            drop(turn);
            picture
        });
        let mut picture = match looked.await {
            Ok(picture) => picture?,
            Err(panic) => {
                tracing::warn!(
                    attachment.id = %self.id,
                    error = &panic as &dyn std::error::Error,
                    "a picture could not be looked at"
                );
                return None;
            }
        };
        if let Some(bytes) = picture.preview.take() {
            let path = self.objects.preview(self.id);
            match self.objects.put(&path, bytes).await {
                Ok(()) => picture.preview = Some(Vec::new()),
                Err(error) => tracing::warn!(
                    attachment.id = %self.id,
                    error = &error as &dyn std::error::Error,
                    "a preview could not be kept"
                ),
            }
        }
        Some(picture)
    }
}

fn ends_elsewhere() -> Error {
    let what = "it does not end where it was said to";
    Error::UploadBroken(Arc::new(io::Error::other(what)))
}

/// A file that is written part by part; a short one at once.
struct Parts<'a> {
    attempt: &'a Attempt<'a>,
    path: Path,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    under_way: Option<AbortOnDropHandle<object_store::Result<()>>>,
}

impl<'a> Parts<'a> {
    fn new(attempt: &'a Attempt<'a>, path: Path) -> Self {
        Self {
            attempt,
            path,
            part: Vec::new(),
            upload: None,
            under_way: None,
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let part_bytes = self.attempt.objects.part_bytes;
        while !bytes.is_empty() {
            if self.part.len() == part_bytes {
                self.send().await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(part_bytes - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Sends a part on its way, after the one before has arrived.
    async fn send(&mut self) -> Result<()> {
        self.arrive().await?;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let begun = self.attempt.objects.begin(&self.path).await?;
                self.upload.insert(begun)
            }
        };
        let part = std::mem::take(&mut self.part);
        let sent = upload.put_part(PutPayload::from(part));
        self.under_way = Some(AbortOnDropHandle::new(tokio::spawn(sent)));
        Ok(())
    }

    async fn arrive(&mut self) -> Result<()> {
        let Some(under_way) = self.under_way.take() else {
            return Ok(());
        };
        let arrived = under_way.await;
        let arrived = arrived.map_err(|panic| Error::Internal(panic.to_string()))?;
        arrived.map_err(objects::failed)
    }

    /// Writes what is left, and gives the file its name.
    async fn finish(mut self) -> Result<()> {
        if self.upload.is_none() {
            let part = std::mem::take(&mut self.part);
            return self.attempt.objects.put(&self.path, part).await;
        }
        self.send().await?;
        self.arrive().await?;
        if let Some(upload) = &mut self.upload {
            upload.complete().await.map_err(objects::failed)?;
        }
        self.upload = None;
        Ok(())
    }
}

impl Drop for Parts<'_> {
    /// Tells the place that nothing more comes: one far away would keep what it has.
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            self.attempt.tasks.start(async move {
                // A place that can not be reached is told by its own rules.
                let _ = upload.abort().await;
            });
        }
    }
}
