//! Adds when somebody was last there, and a way to those who have blocked somebody.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let integer = match manager.get_database_backend() {
            DbBackend::Postgres => "bigint",
            _ => "INTEGER",
        };
        // Not stamped with a position: whoever was away asks anew who is there.
        let column = ColumnDef::new("last_seen_at").custom(integer).take();
        manager
            .alter_table(Table::alter().table("users").add_column(column).take())
            .await?;
        // Who is to forget the name of somebody whose account is deleted.
        manager
            .create_index(
                Index::create()
                    .name("blocks_blocked")
                    .table("blocks")
                    .col("blocked_id")
                    .take(),
            )
            .await
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(crate::no_way_back())
    }
}
