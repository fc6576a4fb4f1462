//! Copies of an SQLite database: made while it is in use, and put back while it is not.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sea_orm::sqlx::{self, ConnectOptions, Connection, Executor, Row};
use sea_orm::{ConnectionTrait, DbBackend};

use super::Target;
use super::connect::{Access, begin_write, close, connect, make_private_file};
use super::fence::{self, Before};
use super::schema::refuse_unknown;
use crate::builder::Durability;
use crate::clock;
use crate::error::{Error, Result};
use crate::fault::Planted;
use crate::limits::Limits;

/// How long to wait for somebody who is just closing a database that is to be replaced.
const CLOSING_WAIT: Duration = Duration::from_secs(1);
/// What stands beside a database file and belongs to it: its log comes first.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Copies a database into a new file, as of one moment, and checks the copy.
pub(crate) async fn backup(target: &Target, file: &Path) -> Result<()> {
    let database = sqlite(target)?;
    if file.exists() {
        return Err(refused(file, "is there already: name another file"));
    }
    let partial = with_suffix(file, ".partial");
    remove(&partial)?;
    make_private_file(&partial)?;
    let mut db = open(database).await?;
    sqlx::query("VACUUM INTO ?")
        .bind(partial.to_string_lossy().into_owned())
        .execute(&mut db)
        .await
        .map_err(|error| failed(&partial, "can not be written", error))?;
    db.close()
        .await
        .map_err(|error| failed(database, "can not be closed", error))?;
    check(&partial).await?;
    put(&partial, file)
}

/// Puts a copy in the place of a database, which is kept beside it under another name, and declares
/// void what clients know from before. Returns where the former one is, if there was one.
pub(crate) async fn restore(
    target: &Target,
    file: &Path,
    limits: &Limits,
) -> Result<Option<PathBuf>> {
    let database = sqlite(target)?;
    check(file).await?;
    leave(database).await?;
    let new = with_suffix(database, ".restoring");
    let remove_new = || {
        let mut files = BESIDE.iter().chain(&[""]);
        files.try_for_each(|suffix| remove(&with_suffix(&new, suffix)))
    };
    remove_new()?;
    if let Err(error) = bring(file, &new, limits).await {
        // What is wrong with the file is worth more than that some of it can not be taken away.
        let _ = remove_new();
        return Err(error);
    }

    let former = with_suffix(database, &format!(".before-{}", clock::now().as_micros()));
    let had_one = database.exists();
    if had_one {
        let aside = |error| failed(database, "can not be put aside", error);
        for suffix in BESIDE {
            let (from, to) = (with_suffix(database, suffix), with_suffix(&former, suffix));
            if from.exists() {
                fs::rename(&from, &to).map_err(aside)?;
            }
        }
        // It has both names until the copy takes the first: there is always one, whatever happens.
        fs::hard_link(database, &former)
            .or_else(|_| fs::rename(database, &former))
            .map_err(aside)?;
    }
    put(&new, database)?;
    Ok(had_one.then_some(former))
}

/// Copies a database, with what is still in its log, and makes it one that goes on.
async fn bring(file: &Path, new: &Path, limits: &Limits) -> Result<()> {
    make_private_file(new)?;
    let log = BESIDE[0];
    let (from, to) = (with_suffix(file, log), with_suffix(new, log));
    let copied = fs::copy(file, new).and_then(|_| match from.exists() {
        true => fs::copy(&from, &to).map(drop),
        false => Ok(()),
    });
    copied.map_err(|error| failed(new, "can not be written", error))?;
    begin_anew(new, limits).await
}

/// Begins a fence that voids what is known from before it.
async fn begin_anew(file: &Path, limits: &Limits) -> Result<()> {
    let target = Target::Sqlite(file.to_owned());
    let db = connect(&target, Durability::Full, Access::Write, limits).await?;
    let transaction = begin_write(&db).await?;
    refuse_unknown(&transaction).await?;
    fence::start(
        &transaction,
        DbBackend::Sqlite,
        Planted::default(),
        Before::Void,
    )
    .await?;
    transaction.commit().await?;
    // The last connection moves the log into the file.
    db.execute_unprepared("PRAGMA journal_mode = DELETE")
        .await?;
    close(&db).await;
    Ok(())
}

/// Sees that nobody uses a database: who has it open keeps it from leaving its log.
async fn leave(database: &Path) -> Result<()> {
    if !database.exists() {
        return Ok(());
    }
    let options = options(database).busy_timeout(CLOSING_WAIT);
    let left = async {
        let mut db = options
            .journal_mode(SqliteJournalMode::Delete)
            .connect()
            .await?;
        db.execute("PRAGMA quick_check(1)").await?;
        db.close().await
    };
    match left.await {
        // One that is damaged may be what the copy is for.
        Err(sqlx::Error::Database(error)) if error.message().contains("locked") => {
            Err(refused(database, "is in use: stop the server first"))
        }
        _ => Ok(()),
    }
}

/// Insists that a file is a whole database of ours.
async fn check(file: &Path) -> Result<()> {
    let mut db = open(file).await?;
    let checked = async {
        let lines = sqlx::query("PRAGMA integrity_check(1)")
            .fetch_one(&mut db)
            .await?;
        let is_whole = lines.try_get::<String, _>(0)? == "ok";
        let broken = sqlx::query("PRAGMA foreign_key_check")
            .fetch_optional(&mut db)
            .await?;
        let heads = sqlx::query("SELECT count(*) FROM sync_heads")
            .fetch_one(&mut db)
            .await?;
        let has_head = heads.try_get::<i64, _>(0)? == 1;
        Ok::<_, sqlx::Error>(is_whole && broken.is_none() && has_head)
    };
    let checked = checked.await;
    // It was only read.
    let _ = db.close().await;
    match checked {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused(file, "is damaged: take another backup")),
        Err(error) => Err(failed(file, "is no backup of a messenger database", error)),
    }
}

async fn open(file: &Path) -> Result<SqliteConnection> {
    let opened = options(file).read_only(true).connect().await;
    opened.map_err(|error| failed(file, "can not be opened", error))
}

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .disable_statement_logging()
}

fn sqlite(target: &Target) -> Result<&Path> {
    match target {
        Target::Sqlite(path) => Ok(path),
        Target::Postgres(_) => Err(Error::Setup(
            "a PostgreSQL database is backed up by its own tools: see pg_dump and pg_basebackup"
                .to_owned(),
            None,
        )),
    }
}

/// Gives a finished file its name, so that it is there after a power loss.
fn put(from: &Path, to: &Path) -> Result<()> {
    let put = || {
        File::open(from)?.sync_all()?;
        fs::rename(from, to)?;
        match to.parent() {
            Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    put().map_err(|error| failed(to, "can not be written", error))
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(file, "can not be replaced", error))
        }
        _ => Ok(()),
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn refused(file: &Path, why: &str) -> Error {
    Error::Setup(format!("the file {} {why}", file.display()), None)
}

fn failed(file: &Path, why: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let cause = Some(Arc::new(error) as crate::error::Cause);
    Error::Setup(format!("the file {} {why}", file.display()), cause)
}
