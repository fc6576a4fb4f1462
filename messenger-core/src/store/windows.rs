//! Stretches of conversations: the one way in which many messages of many conversations are read.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, IdenStatic, Iterable, Statement, Value};
use uuid::Uuid;

use super::entity::message;
use super::filled;
use crate::error::Result;

/// Stretches in one statement.
const WINDOWS_PER_STATEMENT: usize = 500;

/// A stretch of a conversation, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) conversation: Uuid,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// The messages of several stretches, ordered by conversation and sequence number. Sequence
/// numbers have no gaps, so a stretch says how many rows it has.
pub(crate) async fn rows(
    db: &impl ConnectionTrait,
    windows: &[Window],
) -> Result<Vec<message::Model>> {
    let mut found = Vec::new();
    let columns = columns();
    for some in windows.chunks(WINDOWS_PER_STATEMENT) {
        let statement = within(db, &columns, some, "ORDER BY m.conversation_id, m.seq");
        let rows = message::Entity::find().from_raw_sql(statement);
        found.append(&mut rows.all(db).await?);
    }
    Ok(found)
}

/// How many messages of each stretch were deleted; no more than one stretch a conversation.
pub(crate) async fn deleted(
    db: &impl ConnectionTrait,
    windows: &[Window],
) -> Result<HashMap<Uuid, i64>> {
    let mut found = HashMap::new();
    for some in windows.chunks(WINDOWS_PER_STATEMENT) {
        let statement = within(
            db,
            "m.conversation_id, count(*)",
            some,
            "AND m.deleted_at IS NOT NULL GROUP BY m.conversation_id",
        );
        for row in db.query_all_raw(statement).await? {
            found.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        }
    }
    Ok(found)
}

/// A statement over the messages of several stretches.
fn within(
    db: &impl ConnectionTrait,
    columns: &str,
    windows: &[Window],
    rest: &'static str,
) -> Statement {
    let backend = db.get_database_backend();
    let nothing = |window: &Window| Window {
        first: 1,
        last: 0,
        ..*window
    };
    let windows = filled(windows.iter().copied(), nothing);
    let mut places = Vec::with_capacity(windows.len());
    let mut values: Vec<Value> = Vec::with_capacity(3 * windows.len());
    for (i, window) in windows.iter().enumerate() {
        places.push(match backend {
            DbBackend::Postgres => format!(
                "(${}::uuid, ${}::bigint, ${}::bigint)",
                3 * i + 1,
                3 * i + 2,
                3 * i + 3
            ),
            _ => "(?, ?, ?)".to_owned(),
        });
        values.extend([
            window.conversation.into(),
            window.first.into(),
            window.last.into(),
        ]);
    }
    let sql = format!(
        "SELECT {columns} FROM (VALUES {}) AS w CROSS JOIN messages AS m \
         WHERE m.conversation_id = w.column1 AND m.seq >= w.column2 AND m.seq <= w.column3 {rest}",
        places.join(", ")
    );
    Statement::from_sql_and_values(backend, sql, values)
}

/// The columns of a message, of a table called `m`.
pub(crate) fn columns() -> String {
    let columns: Vec<String> = message::Column::iter()
        .map(|column| format!("m.{}", column.as_str()))
        .collect();
    columns.join(", ")
}
