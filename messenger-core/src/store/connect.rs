//! Connections: how each database is opened, and how a transaction begins.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    DbErr, IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use super::Target;
use crate::builder::Durability;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// How long a statement waits for another process that is writing to the same SQLite file.
pub(super) const SQLITE_BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long closing waits for a connection that is in use.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long it may take to reach a database server.
#[cfg(feature = "postgres")]
const REACH_WAIT: Duration = Duration::from_secs(10);
/// Memory for the pages of an SQLite file, in KiB, for each connection.
const SQLITE_CACHE_KIB: u32 = 16 * 1024;
/// The length of SQLite's write-ahead log, in pages of 4 KiB, at which the writer moves it into
/// the database file, inside of a commit: 32 MiB. Longer saves no work and makes longer pauses;
/// SQLite's own 4 MiB moves the same pages more often.
const SQLITE_LOG_PAGES_MAX: u32 = 8 * 1024;
/// The length to which the file of that log is cut once it has been moved, in bytes.
const SQLITE_LOG_BYTES_KEPT: u64 = 64 * 1024 * 1024;
/// For how long a connection to PostgreSQL is idle before it is tried out.
const POSTGRES_IDLE_TEST: Duration = Duration::from_secs(1);
/// Statements that a connection keeps prepared.
const STATEMENTS_CACHED: usize = 512;

/// What connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Answers to callers.
    Read,
    /// The hub's look at the change log.
    Follow,
    /// The writer.
    Write,
    /// A look from outside, which leaves the file as it is.
    Look,
}

/// SQLite gives its log and shared memory the mode of the database file, so one file is enough.
pub(super) fn make_private_file(path: &Path) -> Result<()> {
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
pub(super) async fn reach(target: &Target, url: &str) -> Result<()> {
    #[cfg(feature = "postgres")]
    {
        use sea_orm::sqlx::{Connection, PgConnection};
        let reached = async { PgConnection::connect(url).await?.close().await };
        let failed = |cause| {
            let why = "can not be reached; check its address, and that it runs and lets you in";
            Error::Setup(format!("the database {target} {why}"), cause)
        };
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

pub(super) async fn connect(
    target: &Target,
    durability: Durability,
    access: Access,
    limits: &Limits,
) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(target.driver_url());
    let (connections, wait_max) = match access {
        // The transaction's own limit comes first: it knows that what is waited for is silent.
        Access::Write => (1, 2 * limits.transaction_wait_max),
        Access::Follow | Access::Look => (1, limits.read_wait_max),
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
                let sqlite = match access {
                    // Who may only read can not take away the log that it finds or makes.
                    Access::Look => sqlite.pragma("query_only", "ON"),
                    _ => sqlite.journal_mode(SqliteJournalMode::Wal),
                };
                sqlite
                    .filename(&path)
                    .create_if_missing(false)
                    .read_only(matches!(access, Access::Read | Access::Follow))
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
            let statement_time_max = (limits.read_time_max * 9 / 10).as_millis().to_string();
            #[cfg(feature = "postgres")]
            options.map_sqlx_postgres_opts(move |postgres| {
                let relaxed = access == Access::Write && durability == Durability::Relaxed;
                let reads = access == Access::Read;
                postgres
                    .application_name("messenger-core")
                    .statement_cache_capacity(STATEMENTS_CACHED)
                    .options([
                        ("lock_timeout", "2s"),
                        ("idle_in_transaction_session_timeout", "5s"),
                        // Compiling a statement takes longer than most of them do.
                        ("jit", "off"),
                        ("timezone", "UTC"),
                    ])
                    .options(relaxed.then_some(("synchronous_commit", "off")))
                    // The server would go on with what nobody waits for any more.
                    .options(reads.then_some(("statement_timeout", &statement_time_max)))
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
pub(super) async fn actual_durability(
    db: &DatabaseConnection,
    asked: Durability,
) -> Result<Durability> {
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

pub(super) async fn begin_write(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
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

pub(super) async fn close(pool: &DatabaseConnection) {
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
