//! Where the bytes of attachments are. `object_store` is named here and nowhere else.
//!
//! Each attachment has a folder of its own, named by its id, under one of 256: its bytes and its preview
//! are in it, and what a process has left that died while it wrote them. So all that there can be of it
//! goes by one name.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore,
    ObjectStoreExt, PutPayload,
};
use uuid::Uuid;

use crate::builder::Durability;
use crate::error::{Cause, Error, Invalid, Result};
use crate::ids::AttachmentId;
use crate::store::Store;

/// Bytes in one piece of what is written into a folder or memory, and of what is read from a folder.
const PART_BYTES: usize = 1024 * 1024;
const PIECE_BYTES: u64 = 64 * 1024;
/// Bytes in one part of what goes to S3, which takes 10,000 of at least 5 MiB.
#[cfg(feature = "s3")]
const S3_PART_BYTES: usize = 8 * 1024 * 1024;
/// The file by which a place is known: it has the id that the database knows it by.
const MARK: &str = "place";
/// Time for a place to show that it can be written to.
const PROBE_TIME_MAX: Duration = Duration::from_secs(20);

/// Where an engine keeps the bytes of attachments.
///
/// # Examples
///
/// ```
/// use messenger_core::MessengerEngine;
/// use messenger_core::attachments::AttachmentStore;
///
/// let builder = MessengerEngine::builder("sqlite://chat.db");
/// let builder = builder.attachments(AttachmentStore::folder("attachments"));
/// ```
#[derive(Clone)]
pub struct AttachmentStore(Place);

#[derive(Clone)]
enum Place {
    Folder(PathBuf),
    Memory(Arc<InMemory>),
    #[cfg(feature = "s3")]
    S3(String),
}

impl AttachmentStore {
    /// A folder, which is made with mode 0700 if it does not exist. Several engines over one database
    /// need the same one.
    ///
    /// A file `place` in it tells the database that it is the right one: opening fails with
    /// [`Error::AttachmentsSetup`] if it is another one, or none, because a disk is not there.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Place::Folder(path.into()))
    }

    /// Memory, for tests: nothing is left when the last clone goes.
    pub fn memory() -> Self {
        Self(Place::Memory(Arc::default()))
    }

    /// Reads `file:///srv/attachments`, `memory:`, and with the feature `s3` `s3://bucket/prefix`, whose
    /// credentials, region and endpoint are taken from the environment (`AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT` …).
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is none of them.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let rule = if cfg!(feature = "s3") {
            "must be like file:///srv/attachments or s3://bucket/prefix"
        } else {
            "must be like file:///srv/attachments (this program was built without S3)"
        };
        if let Some(path) = url.strip_prefix("file://") {
            let path = FilePath::new(path);
            if path.is_absolute() {
                return Ok(Self::folder(path));
            }
        }
        #[cfg(feature = "s3")]
        if url
            .strip_prefix("s3://")
            .is_some_and(|rest| !rest.is_empty())
        {
            return Ok(Self(Place::S3(url.to_owned())));
        }
        match url {
            "memory:" => Ok(Self::memory()),
            _ => Err(Invalid::new("attachments_url", rule)),
        }
    }
}

impl fmt::Debug for AttachmentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttachmentStore({self})")
    }
}

impl fmt::Display for AttachmentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Folder(path) => write!(f, "the folder {}", path.display()),
            Place::Memory(_) => f.write_str("memory"),
            #[cfg(feature = "s3")]
            Place::S3(url) => f.write_str(url),
        }
    }
}

/// The bytes of attachments.
#[derive(Debug)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Where they are, if they are in a folder.
    folder: Option<PathBuf>,
    prefix: Path,
    pub(super) part_bytes: usize,
}

/// What is read here and there.
pub(super) trait Source: BufRead + Seek + Send {}

impl<T: BufRead + Seek + Send> Source for T {}

/// Bytes as they are read.
pub(super) type Pieces = BoxStream<'static, Result<Vec<u8>>>;

impl Objects {
    /// Opens a place, and writes to it to see that it can be done.
    pub(crate) async fn open(place: &AttachmentStore, durability: Durability) -> Result<Self> {
        let can_not = |cause| can_not(place, cause);
        let objects = match &place.0 {
            Place::Folder(path) => {
                make_folder(path).map_err(|error| can_not(Arc::new(error)))?;
                let store = LocalFileSystem::new_with_prefix(path);
                let store = store.map_err(|error| can_not(Arc::new(error)))?;
                Self {
                    store: Arc::new(store.with_fsync(durability == Durability::Full)),
                    folder: Some(path.clone()),
                    prefix: Path::default(),
                    part_bytes: PART_BYTES,
                }
            }
            Place::Memory(memory) => Self {
                store: memory.clone(),
                folder: None,
                prefix: Path::default(),
                part_bytes: PART_BYTES,
            },
            #[cfg(feature = "s3")]
            Place::S3(url) => s3::open(url).map_err(|error| can_not(Arc::new(error)))?,
        };
        within(place, objects.probe()).await?;
        Ok(objects)
    }

    /// Insists that this is the place that the database knows; one that knows none learns it, and so does
    /// a place while there are no attachments. Memory is another one each time.
    pub(crate) async fn settle(&self, place: &AttachmentStore, store: &Store) -> Result<()> {
        if let Place::Memory(_) = place.0 {
            return Ok(());
        }
        // A mark is made before it is noted: whoever knows of it finds it.
        let known = store.find_attachments().await?;
        let here = within(place, self.mark()).await?;
        let make = async |mark: &str| {
            let mark = mark.as_bytes().to_vec();
            within(place, self.put(&self.mark_path(), mark)).await
        };
        let known = match (known, here) {
            (Some(known), Some(here)) if known == here => return Ok(()),
            (Some(known), None) if !store.has_attachments().await? => return make(&known).await,
            (Some(known), _) => known,
            (None, here) => {
                let fresh = match here {
                    Some(here) => here,
                    None => {
                        // Of two engines that come first at a time, both make the same.
                        let fresh = store.deployment.to_string();
                        make(&fresh).await?;
                        fresh
                    }
                };
                let known = store.note_attachments(fresh.clone()).await?;
                if known == fresh {
                    return Ok(());
                }
                known
            }
        };
        let what = format!(
            "{place} is not where the attachments of this database are: mount or name that place, or \
             if it is lost for good, make a file called {MARK} in this one with the line {known}"
        );
        Err(Error::AttachmentsSetup(what, None))
    }

    /// What this place is known by.
    async fn mark(&self) -> Result<Option<String>> {
        match self.read_all(&self.mark_path()).await {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned())),
            Err(Error::AttachmentNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn mark_path(&self) -> Path {
        self.prefix.clone().join(MARK)
    }

    /// Writes something and takes it away again.
    async fn probe(&self) -> Result<(), StoreError> {
        let path = self
            .prefix
            .clone()
            .join(format!("probe-{}", Uuid::now_v7()));
        self.store.put(&path, PutPayload::from_static(b"?")).await?;
        self.store.delete(&path).await
    }

    /// The folder of all that there is of an attachment.
    fn of(&self, id: AttachmentId) -> Path {
        let id = id.as_uuid();
        // The last byte is random.
        let [.., last] = *id.as_bytes();
        self.prefix
            .clone()
            .join(format!("{last:02x}"))
            .join(id.to_string())
    }

    /// Its bytes.
    pub(super) fn content(&self, id: AttachmentId) -> Path {
        self.of(id).join("content")
    }

    /// Its preview.
    pub(super) fn preview(&self, id: AttachmentId) -> Path {
        self.of(id).join("preview")
    }

    /// Writes a short file.
    pub(super) async fn put(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let put = self.store.put(path, PutPayload::from(bytes)).await;
        put.map(drop).map_err(failed)
    }

    /// Begins to write a long one.
    pub(super) async fn begin(&self, path: &Path) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart(path).await.map_err(failed)
    }

    /// Insists that so many bytes are left where a folder is. A place elsewhere says itself when it is
    /// full.
    pub(super) async fn require_room(&self, bytes: u64) -> Result<()> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let left = tokio::task::spawn_blocking(move || fs4::available_space(folder));
        let left = match left.await.map_err(|panic| unavailable(panic.into()))? {
            // It is made when something is written to it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            left => left.map_err(unavailable)?,
        };
        if left < bytes {
            let what = "too little would be left on the disk of the attachments";
            return Err(unavailable(io::Error::new(ErrorKind::StorageFull, what)));
        }
        Ok(())
    }

    /// Reads a part of a file, piece by piece.
    pub(super) async fn read(&self, path: &Path, range: Range<u64>) -> Result<Pieces> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(path, options).await.map_err(failed)?;
        let range = found.range.clone();
        Ok(match found.payload {
            GetResultPayload::File(file, _) => pieces(file, range).boxed(),
            GetResultPayload::Stream(stream) => stream.map_ok(Vec::from).map_err(failed).boxed(),
        })
    }

    /// Opens a file to be read here and there, which blocks: one of a folder as it is, another after
    /// all of it has come.
    pub(super) async fn source(&self, path: &Path) -> Result<Box<dyn Source>> {
        let found = self.store.get(path).await.map_err(failed)?;
        Ok(match found.payload {
            GetResultPayload::File(file, _) => Box::new(BufReader::new(file)),
            GetResultPayload::Stream(stream) => {
                let all = stream.try_fold(Vec::new(), |mut all, piece| async move {
                    all.extend_from_slice(&piece);
                    Ok(all)
                });
                Box::new(Cursor::new(all.await.map_err(failed)?))
            }
        })
    }

    /// Reads a short file.
    pub(super) async fn read_all(&self, path: &Path) -> Result<Vec<u8>> {
        let found = self.store.get(path).await.map_err(failed)?;
        Ok(Vec::from(found.bytes().await.map_err(failed)?))
    }

    /// Takes away all that there is of an attachment; what is not there is no trouble.
    pub(super) async fn remove(&self, id: AttachmentId) -> Result<()> {
        let path = self.of(id);
        if let Some(folder) = &self.folder {
            // Also what a process that died has left, under names that the store hides.
            let folder = folder.join(path.as_ref());
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder));
            let removed = removed.await.map_err(|panic| unavailable(panic.into()))?;
            return match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(error)),
                _ => Ok(()),
            };
        }
        for path in [self.content(id), self.preview(id)] {
            match self.store.delete(&path).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// Does something to a place that has to be able to do it soon.
async fn within<T, E: StdError + Send + Sync + 'static>(
    place: &AttachmentStore,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T> {
    let done = tokio::time::timeout(PROBE_TIME_MAX, work).await;
    let done = done.map_err(|late| can_not(place, Arc::new(late)))?;
    done.map_err(|error| can_not(place, Arc::new(error)))
}

fn can_not(place: &AttachmentStore, cause: Cause) -> Error {
    let what = format!(
        "attachments can not be kept in {place}: give this program the right to read and write \
         there, or name another place"
    );
    Error::AttachmentsSetup(what, Some(cause))
}

/// Makes a folder that nobody else can look into. One that is there already is somebody's choice.
fn make_folder(path: &FilePath) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&path.metadata()?.permissions()) & 0o007 != 0 {
        tracing::warn!(
            path = %path.display(),
            "everybody on this machine can look into the folder of attachments"
        );
    }
    Ok(())
}

/// Reads a part of a file in pieces of a size that is worth a thread's while.
fn pieces(
    file: std::fs::File,
    range: Range<u64>,
) -> impl futures_core::Stream<Item = Result<Vec<u8>>> {
    stream::try_unfold((file, range), |(mut file, mut range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let length = (range.end - range.start).min(PIECE_BYTES);
            let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
            file.seek(SeekFrom::Start(range.start))?;
            file.read_exact(&mut piece)?;
            range.start += length;
            io::Result::Ok((piece, (file, range)))
        });
        let read = read.await.map_err(|panic| unavailable(panic.into()))?;
        read.map(Some).map_err(unavailable)
    })
}

fn unavailable(error: io::Error) -> Error {
    translate(error.kind(), Arc::new(error))
}

/// Translates what the store says into [`Error`].
pub(super) fn failed(error: StoreError) -> Error {
    if let StoreError::NotFound { .. } = error {
        return Error::AttachmentNotFound;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    let mut kind = ErrorKind::Other;
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<io::Error>() {
            kind = io.kind();
        }
        cause = at.source();
    }
    translate(kind, Arc::new(error))
}

fn translate(kind: ErrorKind, cause: Cause) -> Error {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::StorageFull(cause),
        _ => Error::AttachmentsUnavailable(cause),
    }
}

#[cfg(feature = "s3")]
mod s3 {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::{ClientConfigKey, RetryConfig};

    use super::{Arc, Duration, Objects, Path, S3_PART_BYTES, StoreError};

    pub(super) fn open(url: &str) -> Result<Objects, StoreError> {
        let place = url.strip_prefix("s3://").unwrap_or(url);
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let store = patient(AmazonS3Builder::from_env()).with_bucket_name(bucket);
        Ok(Objects {
            store: Arc::new(store.build()?),
            folder: None,
            prefix: Path::parse(prefix)?,
            part_bytes: S3_PART_BYTES,
        })
    }

    /// Waits for a bucket as long as something comes, and tries once more where nothing does: the library
    /// ends a request after 30 s whether it goes on or not, and so a long download, and then tries for
    /// three minutes.
    pub(super) fn patient(builder: AmazonS3Builder) -> AmazonS3Builder {
        let builder = builder.with_retry(RetryConfig {
            retry_timeout: Duration::from_secs(40),
            ..RetryConfig::default()
        });
        [
            (ClientConfigKey::Timeout, "1day"),
            (ClientConfigKey::ConnectTimeout, "10s"),
            (ClientConfigKey::ReadTimeout, "30s"),
        ]
        .into_iter()
        .fold(builder, |builder, (key, time)| {
            builder.with_config(AmazonS3ConfigKey::Client(key), time)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "s3")]
    #[test]
    fn a_long_download_from_a_bucket_is_not_cut_while_it_goes_on() {
        use object_store::ClientConfigKey;
        use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

        let builder = s3::patient(AmazonS3Builder::new().with_allow_http(true));
        let set = |key| builder.get_config_value(&AmazonS3ConfigKey::Client(key));
        let set = |key| set(key).unwrap_or_default();

        assert_eq!(set(ClientConfigKey::Timeout), "1day");
        assert_eq!(set(ClientConfigKey::ReadTimeout), "30s");
        assert_eq!(set(ClientConfigKey::ConnectTimeout), "10s");
        assert_eq!(set(ClientConfigKey::AllowHttp), "true");
    }

    #[test]
    fn a_place_is_an_absolute_folder_or_what_this_program_was_built_for() {
        for good in ["file:///srv/attachments", "memory:"] {
            assert!(AttachmentStore::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "file://srv", "attachments", "http://host/", "s3://"] {
            assert!(AttachmentStore::parse(wrong).is_err(), "{wrong}");
        }
        let bucket = AttachmentStore::parse("s3://bucket/prefix");
        assert_eq!(bucket.is_ok(), cfg!(feature = "s3"));
    }

    #[tokio::test]
    async fn all_that_there_is_of_an_attachment_goes_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = AttachmentStore::folder(folder.path().join("files"));
        for place in [place, AttachmentStore::memory()] {
            let objects = Objects::open(&place, Durability::Full).await.expect("open");
            let [one, other] = [Uuid::now_v7(), Uuid::now_v7()].map(AttachmentId::from);
            for id in [one, other] {
                for path in [objects.content(id), objects.preview(id)] {
                    objects.put(&path, b"bytes".to_vec()).await.expect("put");
                }
            }

            for _ in 0..2 {
                objects.remove(other).await.expect("removed");
            }

            for (id, is_there) in [(one, true), (other, false)] {
                for path in [objects.content(id), objects.preview(id)] {
                    match objects.read_all(&path).await {
                        Ok(bytes) => assert!(is_there && bytes == b"bytes"),
                        Err(Error::AttachmentNotFound) => assert!(!is_there),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn what_a_dead_process_was_writing_goes_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = AttachmentStore::folder(folder.path());
        let objects = Objects::open(&place, Durability::Relaxed)
            .await
            .expect("open");
        let id = AttachmentId::from(Uuid::now_v7());
        let mut upload = objects.begin(&objects.content(id)).await.expect("begun");
        upload
            .put_part(PutPayload::from_static(b"half"))
            .await
            .expect("written");
        // As a process does that dies: nothing is closed and nothing is taken away.
        std::mem::forget(upload);
        let held = folder.path().join(objects.of(id).as_ref());
        assert_eq!(std::fs::read_dir(&held).expect("a folder").count(), 1);

        objects.remove(id).await.expect("removed");

        assert!(!held.exists());
    }

    #[tokio::test]
    async fn a_part_of_a_file_is_read_in_pieces() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
        for place in [
            AttachmentStore::folder(folder.path()),
            AttachmentStore::memory(),
        ] {
            let objects = Objects::open(&place, Durability::Relaxed)
                .await
                .expect("open");
            let path = objects.content(Uuid::now_v7().into());
            objects.put(&path, bytes.clone()).await.expect("put");

            for (from, to) in [(0, 700_000), (1, 2), (262_143, 600_000), (5, 5)] {
                let range = from as u64..to as u64;
                let pieces = objects.read(&path, range).await.expect("it is there");
                let read: Vec<Vec<u8>> = pieces.try_collect().await.expect("read");
                assert!(read.concat() == bytes[from..to], "{from} {to}");
            }
        }
    }
}
