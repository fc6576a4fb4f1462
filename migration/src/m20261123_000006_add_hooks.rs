//! Adds how far the host has been told of changes, by the name of whoever is told.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &SQLITE, &POSTGRES).await
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(crate::no_way_back())
    }
}

// One row a name: all changes up to `pos` were told, but for those of lanes that wait. `holder` is
// the engine that tells until `held_until`.
//
// A lane is a conversation, or all that belongs to none; it has a row only while it waits because
// telling it failed. Its changes up to `pos` were told; the next one is tried again at `next_at`,
// and none was told since `since`.
const SQLITE: [&str; 2] = [
    "CREATE TABLE hooks (name TEXT NOT NULL PRIMARY KEY, pos INTEGER NOT NULL, \
     holder BLOB, held_until INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE hook_lanes (name TEXT NOT NULL, lane BLOB NOT NULL, pos INTEGER NOT NULL, \
     tries INTEGER NOT NULL, next_at INTEGER NOT NULL, since INTEGER NOT NULL, \
     PRIMARY KEY (name, lane)) STRICT, WITHOUT ROWID",
];

const POSTGRES: [&str; 2] = [
    "CREATE TABLE hooks (name text PRIMARY KEY, pos bigint NOT NULL, \
     holder uuid, held_until bigint NOT NULL)",
    "CREATE TABLE hook_lanes (name text NOT NULL, lane uuid NOT NULL, pos bigint NOT NULL, \
     tries bigint NOT NULL, next_at bigint NOT NULL, since bigint NOT NULL, \
     PRIMARY KEY (name, lane))",
];
