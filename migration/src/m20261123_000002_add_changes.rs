//! Adds what changes after it was sent: edited, deleted and annotated messages, markers of
//! delivery, ended accounts, and the memory of writes that a client may repeat.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        let (id, integer, boolean, bytes, text) = if postgres {
            ("uuid", "bigint", "boolean", "bytea", "text COLLATE \"C\"")
        } else {
            ("BLOB", "INTEGER", "INTEGER", "BLOB", "TEXT")
        };
        let enumeration = if postgres { "smallint" } else { "INTEGER" };
        let no = if postgres { "false" } else { "0" };
        let added = [
            // The host's own facts about a message, as JSON.
            ("messages", "metadata", text.to_owned()),
            // Members whom the message names, 16 bytes each.
            ("messages", "mentions", bytes.to_owned()),
            (
                "members",
                "delivered_seq",
                format!("{integer} NOT NULL DEFAULT 0"),
            ),
            (
                "members",
                "marked_unread",
                format!("{boolean} NOT NULL DEFAULT {no}"),
            ),
            // A user who is gone stays as a tombstone, since messages still name them.
            ("users", "deleted_at", integer.to_owned()),
        ];
        for (table, column, definition) in added {
            let column = ColumnDef::new(column).custom(definition).take();
            manager
                .alter_table(Table::alter().table(table).add_column(column).take())
                .await?;
        }

        // One row for each write that carried a client's id: the same again changes nothing,
        // another under the same id is refused. Only a digest of what was asked is kept, so
        // nothing that is erased elsewhere stays here. The client's id comes first: clients make
        // v7 ids, so the table grows at its right edge.
        let mut writes = Table::create();
        writes
            .table("client_writes")
            .col(ColumnDef::new("client_id").custom(text).not_null())
            .col(ColumnDef::new("actor_id").custom(id).not_null())
            .col(ColumnDef::new("digest").custom(bytes).not_null())
            .col(ColumnDef::new("conversation_id").custom(id))
            .col(ColumnDef::new("created_at").custom(integer).not_null())
            .primary_key(Index::create().col("client_id").col("actor_id"));
        if !postgres {
            writes.extra("WITHOUT ROWID, STRICT");
        }
        manager.create_table(writes.take()).await?;

        // Accounts whose deletion is not finished, and how much of it was asked.
        let mut erasures = Table::create();
        erasures
            .table("erasures")
            .col(ColumnDef::new("user_id").custom(id).not_null())
            .col(ColumnDef::new("scope").custom(enumeration).not_null())
            .col(ColumnDef::new("created_at").custom(integer).not_null())
            .primary_key(Index::create().col("user_id"));
        if !postgres {
            erasures.extra("STRICT");
        }
        manager.create_table(erasures.take()).await?;

        // Unread messages are counted by arithmetic, less the few that were deleted.
        manager
            .create_index(
                Index::create()
                    .name("messages_deleted")
                    .table("messages")
                    .col("conversation_id")
                    .col("seq")
                    .and_where(Expr::col("deleted_at").is_not_null())
                    .take(),
            )
            .await
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration(
            "what was added holds what people wrote; restore a backup instead".to_owned(),
        ))
    }
}
