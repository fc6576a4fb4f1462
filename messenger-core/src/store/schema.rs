//! The schema, and what the database knows of itself.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, EntityTrait,
    Statement,
};
use uuid::Uuid;

use super::connect::begin_write;
#[cfg(feature = "attachments")]
use super::entity::attachment;
use super::entity::meta;
use super::fence::{self, Before};
use crate::builder::SchemaStep;
use crate::error::{Error, Result};
use crate::fault::Planted;

/// The name under which the deployment's id is kept.
const DEPLOYMENT: &str = "deployment";
/// The name under which the key is kept that authenticates cursors.
const CURSOR_KEY: &str = "cursor_key";

/// The name under which it is kept which place has the attachments.
#[cfg(feature = "attachments")]
const ATTACHMENTS: &str = "attachments";

/// Is told of each migration before it begins.
pub(super) type OnStep<'a> = dyn FnMut(SchemaStep) + Send + 'a;

/// Brings the schema up to date in one transaction and returns its version: a crash in the
/// middle leaves the old schema, and two processes that start together do it once.
pub(super) async fn migrate(
    db: &DatabaseConnection,
    backend: DbBackend,
    planted: Planted,
) -> Result<String> {
    let transaction = begin_write(db).await?;
    let (_, version) = bring_up(&transaction, backend, &mut |_| {}).await?;
    fence::start(&transaction, backend, planted, Before::Holds).await?;
    transaction.commit().await?;
    Ok(version)
}

/// The same for nobody who uses the database then: where nothing is to do, nothing begins. Returns
/// the version before, if there was one, and the version now.
pub(super) async fn migrate_only(
    db: &DatabaseConnection,
    planted: Planted,
    on_step: &mut OnStep<'_>,
) -> Result<(Option<String>, String)> {
    let backend = db.get_database_backend();
    let transaction = begin_write(db).await?;
    let (from, to) = bring_up(&transaction, backend, on_step).await?;
    if from.as_ref() != Some(&to) {
        fence::start(&transaction, backend, planted, Before::Holds).await?;
    }
    transaction.commit().await?;
    Ok((from, to))
}

/// The version of a database that is only looked at, which must be the one that this engine knows.
pub(super) async fn require_current(db: &DatabaseConnection) -> Result<String> {
    let names = tables(db).await?;
    if !["seaql_migrations", "sync_heads"]
        .iter()
        .all(|ours| names.iter().any(|name| name == ours))
    {
        let what = "it is no messenger database yet: migrate it, or name another one";
        return Err(Error::Setup(what.to_owned(), None));
    }
    let applied = Migrator::get_migration_models(db).await?;
    let applied: Vec<String> = applied.into_iter().map(|model| model.version).collect();
    let known = known();
    refuse_newer(&applied, &known)?;
    match (applied.last(), known.last()) {
        (Some(applied), Some(known)) if applied == known => Ok(applied.clone()),
        (applied, _) => {
            let applied = applied.map_or("none", String::as_str);
            let what = format!("it has the older schema {applied}: migrate it first");
            Err(Error::Setup(what, None))
        }
    }
}

fn known() -> Vec<String> {
    let migrations = Migrator::migrations();
    let names = migrations.iter().map(|migration| migration.name());
    names.map(str::to_owned).collect()
}

/// Refuses a database that a newer version has made.
pub(super) async fn refuse_unknown(db: &impl ConnectionTrait) -> Result<()> {
    let applied = Migrator::get_migration_models(db).await?;
    let applied: Vec<String> = applied.into_iter().map(|model| model.version).collect();
    refuse_newer(&applied, &known())
}

fn refuse_newer(applied: &[String], known: &[String]) -> Result<()> {
    match applied.iter().find(|version| !known.contains(version)) {
        None => Ok(()),
        Some(version) => Err(Error::Setup(
            format!(
                "the database has the schema {version}, which this version does not know: run a \
                 newer version, or restore a backup"
            ),
            None,
        )),
    }
}

/// Applies what is missing. Returns the version before, if there was one, and the version now.
async fn bring_up(
    transaction: &DatabaseTransaction,
    backend: DbBackend,
    on_step: &mut OnStep<'_>,
) -> Result<(Option<String>, String)> {
    if backend == DbBackend::Postgres {
        let lock = "SELECT pg_advisory_xact_lock(hashtext('messenger-core migrations'))";
        transaction
            .execute_raw(Statement::from_string(backend, lock))
            .await?;
    }
    refuse_foreign(transaction).await?;
    Migrator::install(transaction).await?;
    let applied = Migrator::get_migration_models(transaction).await?;
    let applied: Vec<String> = applied.into_iter().map(|model| model.version).collect();
    let known = known();
    refuse_newer(&applied, &known)?;
    let missing: Vec<&String> = known.iter().filter(|it| !applied.contains(it)).collect();
    for (number, name) in (1..).zip(&missing) {
        on_step(SchemaStep {
            name: (*name).clone(),
            number,
            of: missing.len(),
        });
        Migrator::up(transaction, Some(1)).await?;
    }
    let to = known.last().cloned().unwrap_or_default();
    Ok((applied.last().cloned(), to))
}

/// Refuses a database that has tables, and none of ours.
async fn refuse_foreign(db: &DatabaseTransaction) -> Result<()> {
    let names = tables(db).await?;
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

async fn tables(db: &impl ConnectionTrait) -> Result<Vec<String>> {
    let backend = db.get_database_backend();
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
    Ok(names?)
}

/// Reads the deployment's id and the key of its cursors, making them at the first start.
pub(super) async fn deployment(db: &DatabaseConnection) -> Result<(Uuid, Vec<u8>)> {
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

/// Reads which place has the attachments, if any has.
#[cfg(feature = "attachments")]
pub(super) async fn find_attachments(db: &impl ConnectionTrait) -> Result<Option<String>> {
    let row = meta::Entity::find_by_id(ATTACHMENTS).one(db).await?;
    Ok(row.map(|row| row.value))
}

/// Whether there are attachments.
#[cfg(feature = "attachments")]
pub(super) async fn has_attachments(db: &impl ConnectionTrait) -> Result<bool> {
    Ok(attachment::Entity::find().one(db).await?.is_some())
}

/// Notes which place has the attachments, and returns which one was noted first.
#[cfg(feature = "attachments")]
pub(super) async fn note_attachments(db: &DatabaseConnection, place: String) -> Result<String> {
    let transaction = begin_write(db).await?;
    let place = fact(&transaction, ATTACHMENTS, place).await?;
    transaction.commit().await?;
    Ok(place)
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
