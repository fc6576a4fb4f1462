//! Adds the index by which messages are found. It is filled by the engine, a little at a time.

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

// A message is known by the position at which it was sent: it is a number, as FTS5 wants it, and
// what is found comes in its order. The terms are not kept a second time (`content=''`), nor where
// in a message they stand (`detail=none`), and FTS5 cuts them where there are spaces: to its
// tokenizer `ascii` every character beyond ASCII belongs to a word.
const SQLITE: [&str; 3] = [
    "CREATE TABLE search_heads (shard INTEGER NOT NULL PRIMARY KEY, pos INTEGER NOT NULL, \
     filled BLOB) STRICT",
    "CREATE TABLE search_messages (pos INTEGER NOT NULL PRIMARY KEY, \
     conversation_id BLOB NOT NULL, seq INTEGER NOT NULL) STRICT",
    "CREATE VIRTUAL TABLE search_terms USING fts5 (terms, content='', contentless_delete=1, \
     detail=none, tokenize='ascii')",
];

// Without `fastupdate`: new terms would wait in a list that every search goes through from end to end
// (measured: 100 times slower), and nobody waits for those who write here.
const POSTGRES: [&str; 3] = [
    "CREATE TABLE search_heads (shard smallint PRIMARY KEY, pos bigint NOT NULL, filled uuid)",
    "CREATE TABLE search_messages (pos bigint PRIMARY KEY, conversation_id uuid NOT NULL, \
     seq bigint NOT NULL, terms tsvector NOT NULL)",
    "CREATE INDEX search_messages_terms ON search_messages USING gin (terms) WITH (fastupdate = off)",
];
