//! [`MessengerEngine`]: a cheap handle with one view for each domain. An index, no logic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};

#[cfg(feature = "attachments")]
use crate::attachments::{Attachments, MediaRange, Objects, Transfers};
use crate::auth::{AccessTokens, Actor, Auth, Hasher, Revocations};
use crate::builder::{Durability, EngineBuilder};
use crate::conversations::Conversations;
use crate::error::Result;
use crate::events::{Events, Hub, LiveSettings};
use crate::hooks::{HookCounters, Hooks};
use crate::ids::UserId;
use crate::limits::Limits;
use crate::messages::Messages;
use crate::messages::search::Index;
use crate::places::{Places, Turns};
use crate::stats::{Counters, EngineStats, Present};
use crate::store::Store;
use crate::sync::Sync;
use crate::tasks::Tasks;
use crate::users::Users;
use crate::write::{Nothing, Writer};

/// For how long it is believed that the database can be written to.
const READY_FOR: Duration = Duration::from_secs(1);

/// A messenger: accounts, conversations, messages, sync and live events over one database.
///
/// A handle is cheap to clone, and all clones are the same engine. When the last one goes (with
/// the last [`Subscription`](crate::events::Subscription)), the engine finishes the writes that
/// are queued and ends; [`close`](Self::close) does so at once and waits for it.
///
/// Made by [`builder`](Self::builder). Needs a running Tokio runtime.
#[derive(Clone, Debug)]
pub struct MessengerEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<Store>,
    pub(crate) writer: Writer,
    pub(crate) hub: Hub,
    pub(crate) hasher: Hasher,
    pub(crate) tokens: AccessTokens,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) limits: Limits,
    pub(crate) live: LiveSettings,
    pub(crate) secret_created: Option<PathBuf>,
    pub(crate) erasing: Arc<Notify>,
    pub(crate) exports: Arc<Places>,
    pub(crate) syncs: Turns,
    pub(crate) index: Arc<Index>,
    pub(crate) hooks: Hooks,
    #[cfg(feature = "attachments")]
    pub(crate) objects: Option<Arc<Objects>>,
    #[cfg(feature = "attachments")]
    pub(crate) attachment_types: Vec<MediaRange>,
    #[cfg(feature = "attachments")]
    pub(crate) transfers: Transfers,
    /// How far the host was told of changes.
    pub(crate) told: Vec<Arc<HookCounters>>,
    /// The tasks that tell it, which end before the writer does.
    pub(crate) telling: Tasks,
    pub(crate) counters: Arc<Counters>,
    /// When a write was last seen to go through.
    pub(crate) wrote_at: Mutex<Option<Instant>>,
    pub(crate) tasks: Tasks,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.telling.closing().cancel();
        self.tasks.closing().cancel();
    }
}

/// How an engine is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// The name of the last migration.
    pub schema_version: String,
    /// The file of the signing secret, if it was made when this engine was opened.
    pub secret_created: Option<PathBuf>,
}

impl MessengerEngine {
    /// Starts to describe an engine over a database.
    ///
    /// `sqlite://chat.db` is a file, made at the first start with mode 0600;
    /// `postgres://user@host/name` is a PostgreSQL database.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> messenger_core::Result<()> {
    /// let engine = messenger_core::MessengerEngine::builder("sqlite://chat.db").open().await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(database_url: impl Into<String>) -> EngineBuilder {
        EngineBuilder::new(database_url.into())
    }

    pub(crate) fn of(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Accounts and sessions.
    pub fn auth(&self) -> Auth<'_> {
        Auth::new(self)
    }

    /// People and their profiles.
    pub fn users(&self) -> Users<'_> {
        Users::new(self)
    }

    /// Conversations and who belongs to them.
    pub fn conversations(&self) -> Conversations<'_> {
        Conversations::new(self)
    }

    /// Messages.
    pub fn messages(&self) -> Messages<'_> {
        Messages::new(self)
    }

    /// Attachments.
    #[cfg(feature = "attachments")]
    pub fn attachments(&self) -> Attachments<'_> {
        Attachments::new(self)
    }

    /// Catching up.
    pub fn sync(&self) -> Sync<'_> {
        Sync::new(self)
    }

    /// Live events.
    pub fn events(&self) -> Events<'_> {
        Events::new(self)
    }

    /// Takes the host's word for who is calling.
    ///
    /// For hosts that have a log-in of their own: nothing is verified here, so call it only with
    /// the id of somebody who has logged in with you.
    /// [`Users::ensure`](crate::users::Users::ensure) makes the engine know them.
    pub fn trust(&self, user_id: UserId) -> Actor {
        Actor::trusted(user_id)
    }

    /// The bounds that this engine keeps.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Says how the engine is doing, after reading from the database once, for which it waits as
    /// long as for a connection ([`Limits::read_wait_max`]).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) or
    /// [`Error::Closed`](crate::Error::Closed): it can not serve now.
    pub async fn health(&self) -> Result<Health> {
        if self.tasks().closing().is_cancelled() {
            return Err(crate::Error::Closed);
        }
        tokio::time::timeout(self.limits().read_wait_max, self.store().ping())
            .await
            .map_err(|late| crate::Error::Unavailable(Arc::new(late)))??;
        Ok(Health {
            database: self.store().name(),
            durability: self.store().durability(),
            schema_version: self.store().schema_version.clone(),
            secret_created: self.inner.secret_created.clone(),
        })
    }

    /// Insists that writes go through: makes one that leaves everything as it is, unless one was made
    /// within the last second. Whoever asks often costs no more than that.
    ///
    /// # Errors
    ///
    /// - [`Error::Closed`](crate::Error::Closed): the engine is closing.
    /// - [`Error::Busy`](crate::Error::Busy) or [`Error::Unavailable`](crate::Error::Unavailable):
    ///   not now.
    /// - [`Error::StorageFull`](crate::Error::StorageFull), or what else the database says.
    pub async fn ready(&self) -> Result<()> {
        if self.tasks().closing().is_cancelled() {
            return Err(crate::Error::Closed);
        }
        let written = async {
            let mut wrote_at = self.inner.wrote_at.lock().await;
            if wrote_at.is_none_or(|at| at.elapsed() > READY_FOR) {
                self.writer().run(Nothing).await?;
                *wrote_at = Some(Instant::now());
            }
            Ok(())
        };
        tokio::time::timeout(self.limits().read_wait_max, written)
            .await
            .map_err(|late| crate::Error::Unavailable(Arc::new(late)))?
    }

    /// Returns the numbers of this engine, without a look at the database.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn example(engine: &messenger_core::MessengerEngine) {
    /// let stats = engine.stats();
    /// println!("{} messages, {} positions behind", stats.messages_sent, stats.lag());
    /// # }
    /// ```
    pub fn stats(&self) -> EngineStats {
        let hasher = self.hasher().present();
        self.inner.counters.stats(Present {
            writes_queued: self.writer().queued(),
            hub_queued: self.hub().queued(),
            hashings: hasher.running,
            hashings_queued: hasher.queued,
            hashings_refused: hasher.refused,
            hooks: &self.inner.told,
        })
    }

    /// Asks how large the database is on disk, in bytes: of SQLite the file and its log.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable): it does not answer.
    pub async fn database_bytes(&self) -> Result<u64> {
        tokio::time::timeout(self.limits().read_wait_max, self.store().bytes())
            .await
            .map_err(|late| crate::Error::Unavailable(Arc::new(late)))?
    }

    /// Copies an SQLite database into a new file while everything goes on: what was acknowledged
    /// before is in it, and it is checked before it has its name. The secret that signs tokens is
    /// not in it.
    ///
    /// [`EngineBuilder::restore`](crate::EngineBuilder::restore) puts it back.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`](crate::Error::Setup): the file is there already or can not be written, the
    /// copy did not pass its check, or the database is PostgreSQL, which has tools of its own.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, nothing has the file's name; what is there of the copy stands
    /// beside it with `.partial` after its name, and the next one replaces it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{MessengerEngine, Result};
    /// # async fn example(engine: &MessengerEngine) -> Result<()> {
    /// engine.backup("messenger-2026-11-23.db").await?;
    /// # Ok(()) }
    /// ```
    pub async fn backup(&self, file: impl AsRef<std::path::Path>) -> Result<()> {
        crate::store::backup::backup(self.store().target(), file.as_ref()).await
    }

    /// Closes the engine for all its handles: writes down how far the host was told of changes,
    /// waiting up to a second for its answer, finishes the writes that are queued, ends every
    /// subscription, closes the database.
    ///
    /// Calls that come later fail with [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Cancel safety
    ///
    /// If dropped, what is queued is still written and every task ends; call it again to wait, and
    /// to close the database's files.
    pub async fn close(&self) {
        self.inner.telling.close().await;
        self.tasks().close().await;
        self.store().close().await;
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.inner.hasher
    }

    pub(crate) fn tokens(&self) -> &AccessTokens {
        &self.inner.tokens
    }

    pub(crate) fn revocations(&self) -> &Arc<Revocations> {
        &self.inner.revocations
    }

    pub(crate) fn live(&self) -> &LiveSettings {
        &self.inner.live
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.inner.hooks
    }

    /// Where the bytes of attachments are.
    #[cfg(feature = "attachments")]
    pub(crate) fn objects(&self) -> Result<&Arc<Objects>> {
        let objects = self.inner.objects.as_ref();
        objects.ok_or(crate::Error::AttachmentsOff)
    }

    #[cfg(feature = "attachments")]
    pub(crate) fn attachment_types(&self) -> &[MediaRange] {
        &self.inner.attachment_types
    }

    #[cfg(feature = "attachments")]
    pub(crate) fn transfers(&self) -> &Transfers {
        &self.inner.transfers
    }

    /// Whose turn it is to sync.
    pub(crate) fn syncs(&self) -> &Turns {
        &self.inner.syncs
    }

    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    pub(crate) fn exports(&self) -> &Arc<Places> {
        &self.inner.exports
    }

    /// Wakes the task that finishes the deletion of accounts.
    pub(crate) fn erasing(&self) -> &Notify {
        &self.inner.erasing
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }
}
