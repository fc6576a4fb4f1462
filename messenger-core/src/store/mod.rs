//! The database: connections, schema, and what differs between SQLite and PostgreSQL.
//!
//! One connection writes, a few others read. `sea_orm` is named here, in `write` and in the
//! `queries.rs` files, and nowhere else.

pub(crate) mod backup;
mod connect;
pub(crate) mod entity;
mod error;
pub(crate) mod facts;
pub(crate) mod fence;
mod look;
pub(crate) mod rows;
mod schema;
mod size;
mod statement;
mod url;
pub(crate) mod windows;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use sea_orm::DbBackend;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, IsolationLevel,
    Statement, TransactionOptions, TransactionTrait,
};
use tokio::sync::Mutex;
use uuid::Uuid;

pub(crate) use self::connect::Access;
use self::connect::{
    CLOSE_WAIT, SQLITE_BUSY_WAIT, actual_durability, begin_write, close, connect,
    make_private_file, reach,
};
pub(crate) use self::error::is_constraint;
pub(crate) use self::fence::SHARD;
pub(crate) use self::look::Look;
use self::schema::{deployment, migrate};
pub(crate) use self::statement::{Each, IDS_PER_STATEMENT, filled, filled_ids, statement};
pub(crate) use self::url::Target;
use crate::builder::{Durability, SchemaStep};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::tasks::Tasks;

/// How long the writer waits for those who read, so that a log that has become too long can be
/// moved whole.
const SQLITE_LOG_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Store {
    target: Target,
    durability: Durability,
    limits: Limits,
    /// Not there between the end of a connection that failed and the next use.
    write: Mutex<Option<DatabaseConnection>>,
    read: std::sync::RwLock<DatabaseConnection>,
    /// The hub's own, so that it never waits behind those who read.
    follow: std::sync::RwLock<DatabaseConnection>,
    backend: DbBackend,
    /// The length of SQLite's write-ahead log at which it is moved next.
    log_bound: AtomicU64,
    /// Distinguishes this database from every other, in ids that are derived from positions.
    pub(crate) deployment: Uuid,
    /// Authenticates cursors.
    pub(crate) cursor_key: Vec<u8>,
    pub(crate) schema_version: String,
}

fn name(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "postgres",
        _ => "sqlite",
    }
}

/// Brings the schema of a database up to date without using it. Returns what it was, and what it is.
pub(crate) async fn migrate_only(
    target: &Target,
    limits: &Limits,
    mut on_step: impl FnMut(SchemaStep) + Send,
) -> Result<(Option<String>, String)> {
    match target {
        Target::Sqlite(path) => make_private_file(path)?,
        Target::Postgres(url) => reach(target, url).await?,
    }
    let write = connect(target, Durability::Full, Access::Write, limits).await?;
    let changed = schema::migrate_only(&write, limits.planted, &mut on_step).await;
    close(&write).await;
    changed.map_err(locked)
}

/// Says of a database that can not be written to at the start what that means.
fn locked(error: Error) -> Error {
    match error {
        Error::Busy { .. } => Error::Setup(
            "another program keeps the database locked: try again when it has ended".to_owned(),
            None,
        ),
        error => error,
    }
}

impl Store {
    /// Opens a database, migrates it and starts a new fence.
    pub(crate) async fn open(
        target: &Target,
        durability: Durability,
        limits: &Limits,
    ) -> Result<Self> {
        match target {
            Target::Sqlite(path) => make_private_file(path)?,
            Target::Postgres(url) => reach(target, url).await?,
        }
        let write = connect(target, durability, Access::Write, limits).await?;
        let backend = write.get_database_backend();
        let schema_version = migrate(&write, backend, limits.planted)
            .await
            .map_err(locked)?;
        let (deployment, cursor_key) = deployment(&write).await.map_err(locked)?;
        let read = connect(target, durability, Access::Read, limits).await?;
        let follow = connect(target, durability, Access::Follow, limits).await?;
        let durability = actual_durability(&write, durability).await?;
        Ok(Self {
            target: target.clone(),
            durability,
            limits: limits.clone(),
            write: Mutex::new(Some(write)),
            read: std::sync::RwLock::new(read),
            follow: std::sync::RwLock::new(follow),
            backend,
            log_bound: AtomicU64::new(0),
            deployment,
            cursor_key,
            schema_version,
        })
    }

    /// Which place has the attachments, if any has.
    #[cfg(feature = "attachments")]
    pub(crate) async fn find_attachments(&self) -> Result<Option<String>> {
        schema::find_attachments(&self.read()).await
    }

    /// Whether there are any.
    #[cfg(feature = "attachments")]
    pub(crate) async fn has_attachments(&self) -> Result<bool> {
        schema::has_attachments(&self.read()).await
    }

    /// Notes which place has the attachments, and returns which one was noted first.
    #[cfg(feature = "attachments")]
    pub(crate) async fn note_attachments(&self, place: String) -> Result<String> {
        let write = self.write.lock().await;
        match &*write {
            Some(write) => schema::note_attachments(write, place).await.map_err(locked),
            None => Err(Error::Closed),
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.backend
    }

    /// `sqlite` or `postgres`.
    pub(crate) fn name(&self) -> &'static str {
        name(self.backend)
    }

    /// Reads from the database, and connects the writer if it has lost its connection, to see that
    /// both can be done.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.read().ping().await?;
        // Whoever has it locked is connecting or beginning just now.
        if let Ok(mut write) = self.write.try_lock() {
            self.connected(&mut write).await?;
        }
        Ok(())
    }

    /// How large the database is on disk, in bytes.
    pub(crate) async fn bytes(&self) -> Result<u64> {
        size::bytes(&self.target, &self.read()).await
    }

    /// The connections for single statements that read.
    pub(crate) fn read(&self) -> DatabaseConnection {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        read.clone()
    }

    /// The connection that follows the change log.
    pub(crate) fn follow(&self) -> DatabaseConnection {
        let follow = self.follow.read().unwrap_or_else(PoisonError::into_inner);
        follow.clone()
    }

    /// Begins the one transaction that may write, on a new connection if the last one was given
    /// up. Only the writer calls this.
    pub(crate) async fn begin_write(&self) -> Result<DatabaseTransaction> {
        let mut write = self.write.lock().await;
        Ok(begin_write(self.connected(&mut write).await?).await?)
    }

    async fn connected<'a>(
        &self,
        write: &'a mut Option<DatabaseConnection>,
    ) -> Result<&'a DatabaseConnection> {
        let connection = match write.take() {
            Some(connection) => connection,
            None => connect(&self.target, self.durability, Access::Write, &self.limits)
                .await
                .map_err(|error| Error::Unavailable(Arc::new(error)))?,
        };
        Ok(write.insert(connection))
    }

    /// Gives up the connection that writes; the next write makes a new one.
    ///
    /// On PostgreSQL the old one may hold the head's lock until the server notices; the new one
    /// waits for it, as another node would. On SQLite it is closed first, which gives the lock back.
    pub(crate) async fn give_up_writer(&self) {
        if let Some(old) = self.write.lock().await.take()
            && self.backend == DbBackend::Sqlite
        {
            close(&old).await;
        }
    }

    /// Gives up connections that read because one of them has not answered for so long, and makes
    /// new ones. Those that are in use end when their users let go of them.
    ///
    /// Connections to an SQLite file can not fall silent: there it only was slow.
    pub(crate) async fn replace_silent(&self, access: Access) {
        if self.backend != DbBackend::Postgres {
            return;
        }
        match connect(&self.target, self.durability, access, &self.limits).await {
            Ok(fresh) => self.put(access, fresh),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "connecting anew failed; it is tried again"
            ),
        }
    }

    fn put(&self, access: Access, fresh: DatabaseConnection) {
        let place = match access {
            Access::Follow => &self.follow,
            Access::Read | Access::Write | Access::Look => &self.read,
        };
        *place.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Moves SQLite's write-ahead log into the database once it has become far longer than the
    /// writer lets it: readers who overlap keep it from being moved whole, and then it grows for
    /// as long as there is always one of them.
    pub(crate) async fn bound_log(&self) {
        let Target::Sqlite(path) = &self.target else {
            return;
        };
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        let most = self.limits.sqlite_log_bytes_max;
        let length = std::fs::metadata(&log).map_or(0, |log| log.len());
        let bound = self.log_bound.load(Ordering::Relaxed).max(most);
        if length <= bound {
            return;
        }
        let write = self.write.lock().await;
        let Some(write) = &*write else { return };
        // It waits for those who read now, and those who come later read what it has moved.
        let moved = async {
            let wait = |time: Duration| format!("PRAGMA busy_timeout = {}", time.as_millis());
            write.execute_unprepared(&wait(SQLITE_LOG_WAIT)).await?;
            let sql = "PRAGMA wal_checkpoint(RESTART)";
            let said = write
                .query_one_raw(Statement::from_string(self.backend, sql))
                .await?;
            write.execute_unprepared(&wait(SQLITE_BUSY_WAIT)).await?;
            let busy: i64 = said.map_or(Ok(1), |row| row.try_get_by_index(0))?;
            Ok::<bool, DbErr>(busy == 0)
        };
        match moved.await {
            Ok(true) => self.log_bound.store(most, Ordering::Relaxed),
            // Somebody reads for long. Writers do not wait for them each time.
            Ok(false) => self.log_bound.store(length + most / 4, Ordering::Relaxed),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the write-ahead log could not be moved into the database"
            ),
        }
    }

    /// What an acknowledged write survives, as the database says.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Reads several things that belong together in one snapshot, and to its end even if the
    /// caller goes away.
    pub(crate) async fn snapshot<T, F>(
        self: &Arc<Self>,
        tasks: &Tasks,
        read: impl FnOnce(DatabaseTransaction) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let store = Arc::clone(self);
        let closing = tasks.closing().clone();
        tasks
            .finish(async move {
                let reading = async {
                    let postgres = store.backend == DbBackend::Postgres;
                    let transaction = store
                        .read()
                        .begin_with_options(TransactionOptions {
                            isolation_level: postgres.then_some(IsolationLevel::RepeatableRead),
                            access_mode: postgres.then_some(AccessMode::ReadOnly),
                            sqlite_transaction_mode: None,
                        })
                        .await?;
                    // Dropping a transaction that has only read rolls it back, which ends it too.
                    read(transaction).await
                };
                let closed = async {
                    closing.cancelled().await;
                    tokio::time::sleep(CLOSE_WAIT).await;
                };
                tokio::select! {
                    outcome = tokio::time::timeout(store.limits.read_time_max, reading) => {
                        match outcome {
                            Ok(outcome) => outcome,
                            Err(late) => {
                                store.replace_silent(Access::Read).await;
                                Err(Error::Unavailable(Arc::new(late)))
                            }
                        }
                    }
                    () = closed => Err(Error::Closed),
                }
            })
            .await
    }

    /// Closes every connection. An SQLite file is left without a write-ahead log.
    pub(crate) async fn close(&self) {
        close(&self.follow()).await;
        close(&self.read()).await;
        if let Some(write) = &*self.write.lock().await {
            close(write).await;
        }
    }
}
