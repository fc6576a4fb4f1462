//! The schema of `messenger-core` as code, with its reasons.
//!
//! Migrations run when an engine opens its database. A released migration is never edited: a
//! change is a new file that works while the previous version of the program is still running
//! against the same database (expand first, contract a release later).
//!
//! Conventions, the same in SQLite and PostgreSQL:
//!
//! - **ids** are UUIDv7 in 16 bytes (`BLOB`, `uuid`), so their order is the order of creation;
//! - **times** are `i64` microseconds since 1970 (text times sort wrongly in SQLite);
//! - **positions** (`…_pos`) and **sequence numbers** (`…_seq`) are `i64` below 2^53;
//! - **enums** are small integers whose meaning is in `messenger-core`'s `store/entity`;
//! - rows that others can see are stamped with the position of their last change, and are never
//!   deleted: a tombstone keeps every cursor valid, however old.

mod m20261101_000001_create_schema;
mod m20261123_000002_add_changes;
mod m20261123_000003_add_last_seen;
mod m20261123_000004_add_search;
mod m20261123_000005_add_attachments;
mod m20261123_000006_add_hooks;
mod m20261124_000007_add_ages;

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::*;
pub use sea_orm_migration::sea_orm::Database;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

/// Every migration, in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261101_000001_create_schema::Migration),
            Box::new(m20261123_000002_add_changes::Migration),
            Box::new(m20261123_000003_add_last_seen::Migration),
            Box::new(m20261123_000004_add_search::Migration),
            Box::new(m20261123_000005_add_attachments::Migration),
            Box::new(m20261123_000006_add_hooks::Migration),
            Box::new(m20261124_000007_add_ages::Migration),
        ]
    }
}

/// Executes what a migration has to say to each database.
async fn run(manager: &SchemaManager<'_>, sqlite: &[&str], postgres: &[&str]) -> Result<(), DbErr> {
    let statements = match manager.get_database_backend() {
        DbBackend::Postgres => postgres,
        _ => sqlite,
    };
    for sql in statements {
        manager.get_connection().execute_unprepared(sql).await?;
    }
    Ok(())
}

/// What a migration says to whoever wants it undone.
fn no_way_back() -> DbErr {
    DbErr::Migration("a newer program may be running; restore a backup instead".to_owned())
}
