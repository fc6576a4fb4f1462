//! The database: connections, schema, and what differs between SQLite and PostgreSQL.
//!
//! One connection writes, a few others read. `sea_orm` is named here, in `write` and in the
//! `queries.rs` files, and nowhere else.

pub(crate) mod entity;
mod error;
pub(crate) mod fence;
pub(crate) mod rows;
mod url;
pub(crate) mod windows;

use std::fs::OpenOptions;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
pub(crate) use error::is_constraint;
pub(crate) use fence::SHARD;
use migration::{Migrator, MigratorTrait};
pub(crate) use sea_orm::DbBackend;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction,
    DbErr, EntityTrait, IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait, Value,
};
use tokio::sync::Mutex;
pub(crate) use url::Target;
use uuid::Uuid;

use self::entity::meta;
use crate::builder::Durability;
use crate::error::{Error, Result};
use crate::fault::Planted;
use crate::limits::Limits;
use crate::tasks::Tasks;

/// Ids in one statement that looks several up: far below the number of values that either database
/// takes.
pub(crate) const IDS_PER_STATEMENT: usize = 1_000;

/// How long a statement waits for another process that is writing to the same SQLite file.
const SQLITE_BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long closing waits for a connection that is in use.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long it may take to reach a database server.
#[cfg(feature = "postgres")]
const REACH_WAIT: Duration = Duration::from_secs(10);
/// Memory for the pages of an SQLite file, in KiB, for each connection.
const SQLITE_CACHE_KIB: u32 = 16 * 1024;
/// The length of SQLite's write-ahead log, in pages of 4 KiB, at which the writer moves it into
/// the database file, inside of a commit: 32 MiB. Longer saves no work and makes longer pauses;
/// SQLite's own 4 MiB moves the same pages more often.
const SQLITE_LOG_PAGES_MAX: u32 = 8 * 1024;
/// How long the writer waits for those who read, so that a log that has become too long can be
/// moved whole.
const SQLITE_LOG_WAIT: Duration = Duration::from_secs(1);
/// The length to which the file of that log is cut once it has been moved, in bytes.
const SQLITE_LOG_BYTES_KEPT: u64 = 64 * 1024 * 1024;
/// For how long a connection to PostgreSQL is idle before it is tried out.
const POSTGRES_IDLE_TEST: Duration = Duration::from_secs(1);
/// Statements that a connection keeps prepared.
const STATEMENTS_CACHED: usize = 512;
/// The name under which the deployment's id is kept.
const DEPLOYMENT: &str = "deployment";
/// The name under which the key is kept that authenticates cursors.
const CURSOR_KEY: &str = "cursor_key";

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
        let schema_version = migrate(&write, backend, limits.planted).await?;
        let (deployment, cursor_key) = deployment(&write).await?;
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

    pub(crate) fn backend(&self) -> DbBackend {
        self.backend
    }

    /// `sqlite` or `postgres`.
    pub(crate) fn name(&self) -> &'static str {
        match self.backend {
            DbBackend::Postgres => "postgres",
            _ => "sqlite",
        }
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
            Access::Read | Access::Write => &self.read,
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

/// Fills a list of values up to the next of few lengths with values that find nothing more, so that
/// the statement has few texts and is prepared once.
pub(crate) fn filled<T>(values: impl IntoIterator<Item = T>, fill: impl Fn(&T) -> T) -> Vec<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    let length = values.len().next_power_of_two();
    while let Some(first) = values.first()
        && values.len() < length
    {
        values.push(fill(first));
    }
    values
}

/// Fills a list of ids: to look for one twice finds it once.
pub(crate) fn filled_ids(ids: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
    filled(ids, |id| *id)
}

/// A statement whose values stand as `?` in its text, on either database.
pub(crate) fn statement(
    db: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    let backend = db.get_database_backend();
    if backend != DbBackend::Postgres {
        return Statement::from_sql_and_values(backend, sql, values);
    }
    let mut text = String::with_capacity(sql.len() + 64);
    for (place, part) in sql.split('?').enumerate() {
        if place > 0 {
            text.push_str(&format!("${place}"));
        }
        text.push_str(part);
    }
    Statement::from_sql_and_values(backend, text, values)
}

async fn close(pool: &DatabaseConnection) {
    // A read that its caller holds without polling it must not hold this up for ever.
    match tokio::time::timeout(CLOSE_WAIT, pool.close_by_ref()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "closing the database failed"
        ),
        Err(_) => tracing::warn!("a connection is still in use and stays open"),
    }
}

/// What connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Answers to callers.
    Read,
    /// The hub's look at the change log.
    Follow,
    /// The writer.
    Write,
}

/// SQLite gives its log and shared memory the mode of the database file, so one file is enough.
fn make_private_file(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::Setup(
            format!(
                "the database file {} can not be made; check the folder",
                path.display()
            ),
            Some(Arc::new(error)),
        )),
    }
}

/// Connects once without a pool, which would try again and again and then not say why.
async fn reach(target: &Target, url: &str) -> Result<()> {
    #[cfg(feature = "postgres")]
    {
        use sea_orm::sqlx::{Connection, PgConnection};
        let reached = async { PgConnection::connect(url).await?.close().await };
        let failed =
            |cause| Error::Setup(format!("the database {target} can not be reached"), cause);
        match tokio::time::timeout(REACH_WAIT, reached).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(Some(Arc::new(error)))),
            Err(_) => return Err(failed(None)),
        }
    }
    #[cfg(not(feature = "postgres"))]
    let _ = (target, url);
    Ok(())
}

async fn connect(
    target: &Target,
    durability: Durability,
    access: Access,
    limits: &Limits,
) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(target.driver_url());
    let (connections, wait_max) = match access {
        // The transaction's own limit comes first: it knows that what is waited for is silent.
        Access::Write => (1, 2 * limits.transaction_wait_max),
        Access::Follow => (1, limits.read_wait_max),
        Access::Read => (limits.read_connections, limits.read_wait_max),
    };
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(wait_max)
        .sqlx_logging(false);
    match target {
        Target::Sqlite(path) => {
            let path: PathBuf = path.clone();
            options
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None);
            options.map_sqlx_sqlite_opts(move |sqlite| {
                sqlite
                    .filename(&path)
                    .create_if_missing(false)
                    .read_only(access != Access::Write)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(match durability {
                        Durability::Full => SqliteSynchronous::Full,
                        Durability::Relaxed => SqliteSynchronous::Normal,
                    })
                    .foreign_keys(true)
                    .busy_timeout(SQLITE_BUSY_WAIT)
                    .statement_cache_capacity(STATEMENTS_CACHED)
                    .pragma("cache_size", format!("-{SQLITE_CACHE_KIB}"))
                    .pragma("temp_store", "MEMORY")
                    .pragma("wal_autocheckpoint", SQLITE_LOG_PAGES_MAX.to_string())
                    .pragma("journal_size_limit", SQLITE_LOG_BYTES_KEPT.to_string())
            });
        }
        Target::Postgres(_) => {
            // A connection that is in use is known to work; if it was cut just now, the writer
            // begins once more, and a read fails as unavailable.
            options.test_before_acquire_if_idle_for(POSTGRES_IDLE_TEST);
            #[cfg(feature = "postgres")]
            options.map_sqlx_postgres_opts(move |postgres| {
                let relaxed = access == Access::Write && durability == Durability::Relaxed;
                postgres
                    .application_name("messenger-core")
                    .statement_cache_capacity(STATEMENTS_CACHED)
                    .options([
                        ("lock_timeout", "2s"),
                        ("idle_in_transaction_session_timeout", "5s"),
                        ("timezone", "UTC"),
                    ])
                    .options(relaxed.then_some(("synchronous_commit", "off")))
            });
        }
    }
    Database::connect(options).await.map_err(|error| {
        let advice = match target {
            Target::Sqlite(_) => "; it must be an SQLite file that may be read and written",
            Target::Postgres(_) => "",
        };
        Error::Setup(
            format!("the database {target} can not be opened{advice}"),
            Some(Arc::new(error)),
        )
    })
}

/// Asks the connection that writes what a commit waits for: what was asked for may be overruled by
/// the settings of a server or a role, and what is reported must be true.
async fn actual_durability(db: &DatabaseConnection, asked: Durability) -> Result<Durability> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off'"
        }
        _ => "SELECT synchronous >= 2 FROM pragma_synchronous",
    };
    let row = db
        .query_one_raw(Statement::from_string(backend, sql))
        .await?;
    let durable = row.map(|row| row.try_get_by_index(0)).transpose()?;
    match (asked, durable == Some(true)) {
        (_, true) => Ok(Durability::Full),
        (Durability::Relaxed, false) => Ok(Durability::Relaxed),
        (Durability::Full, false) => {
            tracing::warn!(
                "the database's own settings are not durable: a power loss may take acknowledged writes"
            );
            Ok(Durability::Relaxed)
        }
    }
}

async fn begin_write(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    // SQLite: a deferred transaction that reads first fails at once when it then has to wait.
    db.begin_with_options(TransactionOptions {
        // Each statement after the head's lock must see what the writer before has committed,
        // whatever the server's default is.
        isolation_level: (db.get_database_backend() == DbBackend::Postgres)
            .then_some(IsolationLevel::ReadCommitted),
        access_mode: None,
        sqlite_transaction_mode: (db.get_database_backend() == DbBackend::Sqlite)
            .then_some(SqliteTransactionMode::Immediate),
    })
    .await
}

/// Brings the schema up to date in one transaction and returns its version: a crash in the
/// middle leaves the old schema, and two processes that start together do it once.
async fn migrate(db: &DatabaseConnection, backend: DbBackend, planted: Planted) -> Result<String> {
    let transaction = begin_write(db).await?;
    if backend == DbBackend::Postgres {
        let lock = "SELECT pg_advisory_xact_lock(hashtext('messenger-core migrations'))";
        transaction
            .execute_raw(Statement::from_string(backend, lock))
            .await?;
    }
    refuse_foreign(&transaction, backend).await?;
    Migrator::install(&transaction).await?;
    let known: Vec<String> = Migrator::migrations()
        .iter()
        .map(|migration| migration.name().to_owned())
        .collect();
    for applied in Migrator::get_migration_models(&transaction).await? {
        if !known.contains(&applied.version) {
            return Err(Error::Setup(
                format!(
                    "the database has the schema {}, which this version does not know: run a \
                     newer version, or restore a backup",
                    applied.version
                ),
                None,
            ));
        }
    }
    Migrator::up(&transaction, None).await?;
    fence::start(&transaction, backend, planted).await?;
    transaction.commit().await?;
    Ok(known.last().cloned().unwrap_or_default())
}

/// Refuses a database that has tables, and none of ours.
async fn refuse_foreign(db: &DatabaseTransaction, backend: DbBackend) -> Result<()> {
    let tables = match backend {
        DbBackend::Postgres => {
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        }
        _ => "SELECT name FROM sqlite_master WHERE type = 'table'",
    };
    let rows = db
        .query_all_raw(Statement::from_string(backend, tables))
        .await?;
    let names: Result<Vec<String>, DbErr> =
        rows.iter().map(|row| row.try_get_by_index(0)).collect();
    let names = names?;
    let ours = |name: &String| name == "seaql_migrations" || name == "sync_heads";
    let taken = names
        .iter()
        .any(|name| name == "users" || name == "messages");
    if taken && !names.iter().any(ours) {
        return Err(Error::Setup(
            "the database belongs to another program; name another one".to_owned(),
            None,
        ));
    }
    Ok(())
}

/// Reads the deployment's id and the key of its cursors, making them at the first start.
async fn deployment(db: &DatabaseConnection) -> Result<(Uuid, Vec<u8>)> {
    let transaction = begin_write(db).await?;
    let id = fact(&transaction, DEPLOYMENT, Uuid::now_v7().to_string()).await?;
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Internal(format!("there is no randomness: {error}")))?;
    let key = fact(&transaction, CURSOR_KEY, BASE64_STANDARD.encode(random)).await?;
    transaction.commit().await?;
    let damaged = |name| Error::Setup(format!("{name} in the table sync_meta is damaged"), None);
    let id = id.parse().map_err(|_| damaged(DEPLOYMENT))?;
    let key = BASE64_STANDARD
        .decode(key)
        .map_err(|_| damaged(CURSOR_KEY))?;
    Ok((id, key))
}

/// Reads a fact about the deployment, which is `fresh` if nobody knows it yet.
async fn fact(db: &DatabaseTransaction, key: &str, fresh: String) -> Result<String> {
    if let Some(row) = meta::Entity::find_by_id(key).one(db).await? {
        return Ok(row.value);
    }
    let row = meta::Model {
        key: key.to_owned(),
        value: fresh,
    };
    meta::Entity::insert(meta::ActiveModel::from(row))
        .on_conflict_do_nothing()
        .exec_without_returning(db)
        .await?;
    let row = meta::Entity::find_by_id(key).one(db).await?;
    row.map(|row| row.value)
        .ok_or_else(|| Error::Internal(format!("{key} was not stored")))
}
