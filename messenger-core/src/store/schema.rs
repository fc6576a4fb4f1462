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
use super::entity::meta;
use super::fence::{self, Before};
use crate::error::{Error, Result};
use crate::fault::Planted;

/// The name under which the deployment's id is kept.
const DEPLOYMENT: &str = "deployment";
/// The name under which the key is kept that authenticates cursors.
const CURSOR_KEY: &str = "cursor_key";

/// Brings the schema up to date in one transaction and returns its version: a crash in the
/// middle leaves the old schema, and two processes that start together do it once.
pub(super) async fn migrate(
    db: &DatabaseConnection,
    backend: DbBackend,
    planted: Planted,
) -> Result<String> {
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
    fence::start(&transaction, backend, planted, Before::Holds).await?;
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
