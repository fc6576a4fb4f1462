//! Uploading: bytes go to their place as they come, and no more than two parts of them are here.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::operations::{Begin, Begun, Finish, GiveUp};
use super::preview::{self, HEAD_BYTES, Picture};
use super::{AttachmentItem, Attachments, FileName, MediaType, Objects, objects};
use crate::auth::Actor;
use crate::error::{Error, Result};
use crate::ids::AttachmentId;
use crate::limits::Limits;
use crate::places::Place;
use crate::store::entity::attachment::Model;
use crate::tasks::Tasks;
use crate::write::Writer;

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
    /// - [`Error::UploadBroken`]: the bytes ended with an error, or elsewhere than they were said to, or
    ///   came too slowly ([`Limits::upload_window`](crate::Limits::upload_window),
    ///   [`Limits::upload_time_max`](crate::Limits::upload_time_max)), which is
    ///   [`TimedOut`](std::io::ErrorKind::TimedOut).
    /// - [`Error::ClientWriteConflict`]: the id of [`once`](Self::once) was used for another file.
    /// - [`Error::Busy`]: too many uploads are under way, or the same was begun again meanwhile.
    /// - [`Error::AttachmentsUnavailable`], [`Error::StorageFull`]: the bytes can not be kept now, or too
    ///   little would be left ([`Limits::attachments_free_bytes_min`](crate::Limits::attachments_free_bytes_min)).
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
        let transfers = self.engine.transfers();
        let place = transfers.uploads.enter(owner)?;
        let room = limits.attachments_free_bytes_min;
        let room = room.saturating_add(new.size.unwrap_or(0));
        objects.require_room(room).await?;
        let (tasks, size) = (self.engine.tasks(), new.size);
        let writer = self.engine.writer();
        let mut attempt = Attempt {
            objects: Arc::clone(objects),
            limits: limits.clone(),
            writer: writer.clone(),
            tasks: tasks.clone(),
            previews: Arc::clone(&transfers.previews),
            id: Uuid::now_v7().into(),
            is_over: false,
        };
        let begin = Begin {
            id: attempt.id,
            owner,
            client_id: self.once.clone(),
            name: new.name,
            media_type: new.media_type,
            size,
            limits: limits.clone(),
        };
        if let Begun::Before(row) = writer.run(begin).await? {
            attempt.is_over = true;
            let item = AttachmentItem::from(row.as_ref());
            return Ok(Uploaded {
                item,
                created: false,
            });
        }
        let taken = attempt.take(bytes, size);
        let came = tasks.closing().run_until_cancelled(taken).await;
        let (came, file) = came.unwrap_or(Err(Error::Closed))?;
        // From here on to the end, even if nobody waits for it any more: nobody could tell when a
        // place that was left in the middle is done.
        let row = tasks.finish(attempt.keep(came, file, place)).await?;
        Ok(Uploaded {
            item: AttachmentItem::from(&row),
            created: true,
        })
    }
}

/// One attempt to upload. Dropping it gives it up unless it is over, even if nobody waits for that.
struct Attempt {
    objects: Arc<Objects>,
    limits: Limits,
    writer: Writer,
    tasks: Tasks,
    previews: Arc<Semaphore>,
    id: AttachmentId,
    is_over: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_over || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (id, writer, objects) = (self.id, self.writer.clone(), Arc::clone(&self.objects));
        self.tasks.start(async move {
            // If it can not be said now, it goes when its time is over.
            if let Ok(true) = writer.run(GiveUp { id }).await
                && let Err(error) = objects.remove(id).await
            {
                tracing::warn!(
                    attachment.id = %id,
                    error = &error as &dyn std::error::Error,
                    "files that no row names could not be taken away"
                );
            }
        });
    }
}

/// What is known of bytes that have come.
struct Came {
    size: u64,
    sha256: Vec<u8>,
    head: Vec<u8>,
}

impl Attempt {
    fn path(&self) -> Path {
        self.objects.content(self.id)
    }

    /// Reads bytes to their end and writes most of them to their place: one part is filled while the
    /// one before is under way.
    async fn take<B: AsRef<[u8]>>(
        &self,
        bytes: impl Stream<Item = io::Result<B>>,
        declared: Option<u64>,
    ) -> Result<(Came, Parts)> {
        let mut bytes = pin!(bytes);
        let mut pace = Pace::new(&self.limits);
        let bytes_max = self.limits.attachment_bytes_max;
        let mut file = Parts::new(self);
        let (mut size, mut hash, mut head) = (0_u64, Sha256::new(), Vec::new());
        while let Some(chunk) = pace.next(&mut bytes).await {
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
        let came = Came {
            size,
            sha256: hash.finalize().to_vec(),
            head,
        };
        Ok((came, file))
    }

    /// Gives what has come its name, looks at it, and notes that it is there.
    async fn keep(mut self, came: Came, file: Parts, _place: Place) -> Result<Model> {
        let closing = self.tasks.closing().clone();
        // Not left in the middle: a file may come to its place when nobody waits for it any more, after
        // what there was of it has been taken away.
        file.finish().await?;
        let work = async {
            let picture = self.look(&came).await;
            let finish = Finish {
                id: self.id,
                size: came.size,
                sha256: came.sha256,
                pixels: picture.as_ref().map(|picture| picture.pixels),
                has_preview: picture.is_some_and(|picture| picture.preview.is_some()),
                limits: self.limits.clone(),
            };
            self.writer.run(finish).await
        };
        let row = closing.run_until_cancelled(work).await;
        let row = row.unwrap_or(Err(Error::Closed))?;
        self.is_over = true;
        Ok(row)
    }

    /// Looks whether it is a picture, and makes a preview of it, which is kept beside it. Where that
    /// can not be done there is none.
    async fn look(&self, came: &Came) -> Option<Picture> {
        let is_short = came.size <= self.limits.preview_source_bytes_max;
        if !is_short || !preview::is_picture(&came.head) {
            return None;
        }
        // One at a time, with all that it takes: it also ends in its turn if nobody waits any more.
        let turn = Arc::clone(&self.previews).acquire_owned().await.ok()?;
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

/// How fast bytes come, measured by the time that was waited for them: a place that takes them slowly is
/// no fault of whoever sends them.
struct Pace<'a> {
    limits: &'a Limits,
    ends: Instant,
    /// In the window that is under way.
    waited: Duration,
    came: u64,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a Limits) -> Self {
        // Whoever takes away what was not finished in its time counts on it that nobody writes any
        // more.
        let time_max = limits.upload_time_max.min(limits.attachment_grace / 2);
        Self {
            limits,
            ends: Instant::now() + time_max,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// Waits for more bytes; if they come too slowly that is an error.
    async fn next<B: AsRef<[u8]>>(
        &mut self,
        bytes: &mut (impl Stream<Item = io::Result<B>> + Unpin),
    ) -> Option<io::Result<B>> {
        loop {
            let begun = Instant::now();
            let window = begun + self.limits.upload_window.saturating_sub(self.waited);
            let next = timeout_at(window.min(self.ends), bytes.next()).await;
            if begun >= self.ends {
                return Some(Err(io::ErrorKind::TimedOut.into()));
            }
            match next {
                Ok(next) => {
                    self.waited += begun.elapsed();
                    if let Some(Ok(chunk)) = &next {
                        self.came += chunk.as_ref().len() as u64;
                    }
                    return next;
                }
                Err(_) if self.came >= self.limits.upload_window_bytes_min => {
                    (self.waited, self.came) = (Duration::ZERO, 0);
                }
                Err(late) => return Some(Err(late.into())),
            }
        }
    }
}

/// A file that is written part by part; a short one at once.
struct Parts {
    objects: Arc<Objects>,
    tasks: Tasks,
    path: Path,
    /// Bytes to leave free.
    room: u64,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    under_way: Option<AbortOnDropHandle<object_store::Result<()>>>,
}

impl Parts {
    fn new(attempt: &Attempt) -> Self {
        Self {
            objects: Arc::clone(&attempt.objects),
            tasks: attempt.tasks.clone(),
            path: attempt.path(),
            room: attempt.limits.attachments_free_bytes_min,
            part: Vec::new(),
            upload: None,
            under_way: None,
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let part_bytes = self.objects.part_bytes;
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
        self.objects.require_room(self.room).await?;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let begun = self.objects.begin(&self.path).await?;
                self.upload.insert(begun)
            }
        };
        let next = Vec::with_capacity(self.objects.part_bytes);
        let part = std::mem::replace(&mut self.part, next);
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
            return self.objects.put(&self.path, part).await;
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

impl Drop for Parts {
    /// Tells the place that nothing more comes: one far away would keep what it has.
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            self.tasks.start(async move {
                // A place that can not be reached is told by its own rules.
                let _ = upload.abort().await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// How many bytes are taken of those that come a few each ten seconds, for ever.
    async fn taken(bytes: usize, limits: &Limits) -> usize {
        let slow = stream::unfold((), |()| async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Some((Ok(vec![0; bytes]), ()))
        });
        let (mut slow, mut pace, mut taken) = (pin!(slow), Pace::new(limits), 0);
        loop {
            match pace.next(&mut slow).await {
                Some(Ok(bytes)) => taken += bytes.len(),
                end => {
                    let error = end.expect("it has no end").expect_err("an error");
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    return taken;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_fast_enough_and_not_for_ever() {
        let mut limits = Limits {
            upload_window: Duration::from_secs(35),
            upload_window_bytes_min: 300,
            upload_time_max: Duration::from_secs(3_605),
            ..Limits::default()
        };

        assert_eq!(taken(1, &limits).await, 3);
        assert_eq!(taken(99, &limits).await, 3 * 99);
        assert_eq!(taken(100, &limits).await, 360 * 100);
        // Nobody writes any more when it is taken away.
        limits.attachment_grace = Duration::from_secs(410);
        assert_eq!(taken(100, &limits).await, 20 * 100);
    }
}
