//! Creates every table of the first release.
//!
//! The stamps (`changed_pos`, `last_pos`, …) are what exact catch-up by one cursor reads; they
//! are here from the first row on, so that no row ever has to be stamped afterwards.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let dialect = Dialect::of(manager.get_database_backend());
        for table in tables(&dialect) {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration(
            "the first schema has nothing to go back to; restore a backup instead".to_owned(),
        ))
    }
}

/// The types and table options in which the two databases differ.
struct Dialect {
    id: &'static str,
    integer: &'static str,
    enumeration: &'static str,
    boolean: &'static str,
    text: &'static str,
    bytes: &'static str,
    /// SQLite stores anything anywhere unless a table is `STRICT`.
    table: &'static str,
    /// A table that is read by its key and has narrow rows is its own index.
    keyed_table: &'static str,
    /// Rows that every write updates: room on the page keeps PostgreSQL's updates in place.
    hot_table: &'static str,
}

impl Dialect {
    fn of(backend: DbBackend) -> Self {
        if backend == DbBackend::Postgres {
            Self {
                id: "uuid",
                integer: "bigint",
                enumeration: "smallint",
                boolean: "boolean",
                // Sorted by code points, as in SQLite, and not by the rules of a language.
                text: "text COLLATE \"C\"",
                bytes: "bytea",
                table: "",
                keyed_table: "",
                hot_table: "WITH (fillfactor = 10)",
            }
        } else {
            Self {
                id: "BLOB",
                integer: "INTEGER",
                enumeration: "INTEGER",
                boolean: "INTEGER",
                text: "TEXT",
                bytes: "BLOB",
                table: "STRICT",
                keyed_table: "WITHOUT ROWID, STRICT",
                hot_table: "STRICT",
            }
        }
    }

    fn id(&self, name: &'static str) -> ColumnDef {
        self.required(name, self.id)
    }
    fn integer(&self, name: &'static str) -> ColumnDef {
        self.required(name, self.integer)
    }
    fn enumeration(&self, name: &'static str) -> ColumnDef {
        self.required(name, self.enumeration)
    }
    fn text(&self, name: &'static str) -> ColumnDef {
        self.required(name, self.text)
    }
    fn bytes(&self, name: &'static str) -> ColumnDef {
        self.required(name, self.bytes)
    }
    fn boolean(&self, name: &'static str) -> ColumnDef {
        self.required(name, self.boolean)
    }
    fn required(&self, name: &'static str, of: &'static str) -> ColumnDef {
        ColumnDef::new(name).custom(of).not_null().take()
    }
    fn optional(&self, name: &'static str, of: &'static str) -> ColumnDef {
        ColumnDef::new(name).custom(of).take()
    }
}

fn table<const N: usize>(
    name: &'static str,
    columns: impl IntoIterator<Item = ColumnDef>,
    key: [&'static str; N],
    options: &str,
) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name);
    for column in columns {
        table.col(column);
    }
    let mut primary = Index::create();
    for column in key {
        primary.col(column);
    }
    table.primary_key(&mut primary);
    if !options.is_empty() {
        table.extra(options);
    }
    table.take()
}

/// Column order is the order in which a reader needs them; keys first.
fn tables(d: &Dialect) -> Vec<TableCreateStatement> {
    vec![
        // One row a shard, locked first by every write transaction. `pos` is the change log's
        // head; `fence_start` is where the positions of this incarnation of the database begin.
        table(
            "sync_heads",
            [
                d.enumeration("shard"),
                d.integer("pos"),
                d.integer("fence_start"),
                d.text("incarnation"),
                d.integer("horizon_pos"),
            ],
            ["shard"],
            d.hot_table,
        ),
        // The intervals of positions that were really issued: what lies between an end and the
        // next start comes from a future that a restore or a fail-over took back.
        table(
            "sync_fences",
            [
                d.enumeration("shard"),
                d.integer("start_pos"),
                d.optional("end_pos", d.integer),
                d.boolean("clean"),
                d.integer("created_at"),
            ],
            ["shard", "start_pos"],
            d.table,
        ),
        // Facts about this deployment: its id, keys that authenticate cursors.
        table(
            "sync_meta",
            [d.text("key"), d.text("value")],
            ["key"],
            d.table,
        ),
        // `username_key` and `display_name_key` are folded in Rust, since the two databases fold
        // case differently. A user without `password_hash` can only be trusted by a host.
        table(
            "users",
            [
                d.id("id"),
                d.text("username"),
                d.text("username_key"),
                d.text("display_name"),
                d.text("display_name_key"),
                d.optional("password_hash", d.text),
                d.integer("created_at"),
                d.integer("changed_pos"),
            ],
            ["id"],
            d.table,
        ),
        table(
            "user_prefs",
            [
                d.id("owner_id"),
                d.text("key"),
                d.text("value"),
                d.enumeration("state"),
                d.integer("changed_pos"),
            ],
            ["owner_id", "key"],
            d.table,
        ),
        table(
            "blocks",
            [
                d.id("owner_id"),
                d.id("blocked_id"),
                d.enumeration("state"),
                d.integer("changed_pos"),
            ],
            ["owner_id", "blocked_id"],
            d.keyed_table,
        ),
        // One log-in of one device; all refresh tokens that descend from it are its family.
        table(
            "sessions",
            [
                d.id("id"),
                d.id("user_id"),
                d.optional("device", d.text),
                d.integer("created_at"),
                d.integer("last_used_at"),
                d.integer("expires_at"),
                d.optional("revoked_at", d.integer),
            ],
            ["id"],
            d.table,
        ),
        // Only the SHA-256 of a token is kept. A spent one stays, since to see it again is how
        // a theft shows.
        table(
            "refresh_tokens",
            [
                d.bytes("hash"),
                d.id("session_id"),
                d.integer("created_at"),
                d.optional("used_at", d.integer),
                d.optional("replaced_by", d.bytes),
            ],
            ["hash"],
            d.table,
        ),
        // `direct_key` is the smaller member id and then the greater one: unique, so that a pair
        // has one conversation whatever races. Nothing indexes the columns that every send
        // changes (measured: an index on the last change halves the rate of sends).
        table(
            "conversations",
            [
                d.id("id"),
                d.enumeration("shard"),
                d.enumeration("kind"),
                d.enumeration("state"),
                d.id("created_by"),
                d.optional("client_conversation_id", d.text),
                d.optional("direct_key", d.bytes),
                d.optional("title", d.text),
                d.enumeration("history_policy"),
                d.integer("last_seq"),
                d.integer("min_seq"),
                d.integer("member_count"),
                d.integer("members_pos"),
                d.integer("changed_pos"),
                d.integer("last_pos"),
                d.optional("last_message_at", d.integer),
                d.optional("last_message_preview", d.text),
                d.integer("created_at"),
                d.integer("updated_at"),
            ],
            ["id"],
            d.table,
        ),
        // A row survives leaving, as a tombstone.
        table(
            "members",
            [
                d.id("conversation_id"),
                d.id("user_id"),
                d.enumeration("role"),
                d.enumeration("state"),
                d.integer("joined_pos"),
                d.integer("changed_pos"),
                d.integer("visible_from_seq"),
                d.integer("last_read_seq"),
                d.integer("read_pos"),
                d.integer("self_pos"),
                d.optional("muted_until", d.integer),
                d.optional("pinned_at", d.integer),
                d.optional("archived_at", d.integer),
            ],
            ["conversation_id", "user_id"],
            d.keyed_table,
        ),
        // No foreign keys here and in `events`: the one writer has read the conversation, the
        // member and the user under the head lock, and none of these rows is ever deleted.
        table(
            "messages",
            [
                d.id("id"),
                d.id("conversation_id"),
                d.integer("seq"),
                d.id("sender_id"),
                d.text("client_message_id"),
                d.enumeration("kind"),
                d.text("content"),
                d.integer("created_at"),
                d.optional("edited_at", d.integer),
                d.optional("deleted_at", d.integer),
                d.optional("reply_to", d.id),
                d.optional("reactions", d.text),
                d.integer("created_pos"),
                d.integer("changed_pos"),
            ],
            ["id"],
            d.table,
        ),
        table(
            "reactions",
            [
                d.id("message_id"),
                d.id("user_id"),
                d.text("emoji"),
                d.integer("created_at"),
            ],
            ["message_id", "user_id", "emoji"],
            d.keyed_table,
        ),
        // The change log, for server nodes only: references, no content. Written in the
        // transaction of the change, read in order by every node, pruned by age.
        // `aux` holds up to 128 ids (users who joined or left, sessions that ended), 16 bytes each.
        table(
            "events",
            [
                d.enumeration("shard"),
                d.integer("pos"),
                d.enumeration("kind"),
                d.optional("conversation_id", d.id),
                d.optional("user_id", d.id),
                d.optional("actor_id", d.id),
                d.optional("seq", d.integer),
                d.optional("aux", d.bytes),
                d.integer("created_at"),
            ],
            ["shard", "pos"],
            d.keyed_table,
        ),
    ]
}

fn indexes() -> Vec<IndexCreateStatement> {
    let index = |name: &'static str, table: &'static str, columns: &[&'static str]| {
        let mut index = Index::create();
        index.name(name).table(table);
        for column in columns {
            index.col(*column);
        }
        index.take()
    };
    let unique =
        |name, table, columns: &[&'static str]| index(name, table, columns).unique().take();
    vec![
        unique("users_username", "users", &["username_key"]),
        index("users_changed", "users", &["changed_pos"]),
        index(
            "user_prefs_changed",
            "user_prefs",
            &["owner_id", "changed_pos"],
        ),
        index("blocks_changed", "blocks", &["owner_id", "changed_pos"]),
        index("sessions_user", "sessions", &["user_id"]),
        index("sessions_revoked", "sessions", &["revoked_at"]),
        index("sessions_expires", "sessions", &["expires_at"]),
        index("refresh_tokens_used", "refresh_tokens", &["used_at"]),
        index("refresh_tokens_session", "refresh_tokens", &["session_id"]),
        unique("conversations_direct", "conversations", &["direct_key"]),
        unique(
            "conversations_client",
            "conversations",
            &["created_by", "client_conversation_id"],
        ),
        index("members_user", "members", &["user_id", "conversation_id"]),
        unique("messages_seq", "messages", &["conversation_id", "seq"]),
        // The client's id comes first: clients make v7 ids, so the index grows at its right edge
        // (one hot page) instead of touching a random leaf for each message.
        unique(
            "messages_client",
            "messages",
            &["client_message_id", "sender_id"],
        ),
        // Only what has changed since it was sent: what is new is found by its `seq`, which rises
        // with its position, and no send pays for a second index that it touches at random.
        index(
            "messages_changed",
            "messages",
            &["conversation_id", "changed_pos"],
        )
        .and_where(Expr::col("changed_pos").gt(Expr::col("created_pos")))
        .take(),
    ]
}
