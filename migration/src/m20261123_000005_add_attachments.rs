//! Adds attachments: what is known of a file that somebody has sent up, beside the file itself.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        let (id, integer, boolean, bytes, text, enumeration) = if postgres {
            (
                "uuid",
                "bigint",
                "boolean",
                "bytea",
                "text COLLATE \"C\"",
                "smallint",
            )
        } else {
            ("BLOB", "INTEGER", "INTEGER", "BLOB", "TEXT", "INTEGER")
        };
        let required = |name, of| ColumnDef::new(name).custom(of).not_null().take();
        let optional = |name, of| ColumnDef::new(name).custom(of).take();

        // What a message has is in the message as well, as JSON, so that whoever reads messages
        // reads nothing else.
        manager
            .alter_table(
                Table::alter()
                    .table("messages")
                    .add_column(optional("attachments", text))
                    .take(),
            )
            .await?;

        // Not stamped: others see an attachment in its message only. `due_at` is when it may be taken
        // away: a while after it was made, at once (0) when its message is gone, never (NULL) while a
        // message has it.
        let mut attachments = Table::create();
        attachments.table("attachments");
        for column in [
            required("id", id),
            required("owner_id", id),
            optional("client_id", text),
            required("name", text),
            required("media_type", text),
            required("size", integer),
            optional("sha256", bytes),
            optional("width", integer),
            optional("height", integer),
            required("has_preview", boolean),
            required("state", enumeration),
            optional("conversation_id", id),
            optional("message_id", id),
            required("created_at", integer),
            optional("due_at", integer),
        ] {
            attachments.col(column);
        }
        attachments.primary_key(Index::create().col("id"));
        if !postgres {
            attachments.extra("STRICT");
        }
        manager.create_table(attachments.take()).await?;

        let index = |name: &'static str, columns: &[&'static str]| {
            let mut index = Index::create();
            index.name(name).table("attachments");
            for column in columns {
                index.col(*column);
            }
            index.take()
        };
        let has = |column: &'static str| Expr::col(column).is_not_null();
        for index in [
            index("attachments_client", &["client_id", "owner_id"])
                .unique()
                .take(),
            index("attachments_due", &["due_at"])
                .and_where(has("due_at"))
                .take(),
            index("attachments_unsent", &["owner_id", "due_at"])
                .and_where(has("due_at"))
                .take(),
            index("attachments_conversation", &["conversation_id"])
                .and_where(has("conversation_id"))
                .take(),
        ] {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration(
            "what was added holds what people sent; restore a backup instead".to_owned(),
        ))
    }
}
