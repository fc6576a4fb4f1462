//! Stretches of conversations: the one way in which many messages of many conversations are read.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, IdenStatic, Iterable, Statement, Value};
use uuid::Uuid;

use super::entity::message;
use super::{Each, filled, statement};
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
        let statement = within(
            db,
            &columns,
            some,
            "",
            "ORDER BY m.conversation_id, m.seq",
            [],
        );
        let rows = message::Entity::find().from_raw_sql(statement);
        found.append(&mut rows.all(db).await?);
    }
    Ok(found)
}

/// Those messages of several stretches that were sent after a position, in the order of the
/// stretches and ascending within each, up to `limit`.
pub(crate) async fn sent_after(
    db: &impl ConnectionTrait,
    windows: &[Window],
    position: i64,
    limit: usize,
) -> Result<Vec<message::Model>> {
    let mut found = Vec::new();
    let columns = columns();
    for some in windows.chunks(WINDOWS_PER_STATEMENT) {
        let which = "AND m.created_pos > ?";
        let then = match db.get_database_backend() {
            DbBackend::Postgres => "ORDER BY w.column4, m.seq LIMIT ?",
            // A cross join goes through the stretches in their order, along an index. Asked for the
            // order, SQLite would read all of them before it leaves out what is too much.
            _ => "LIMIT ?",
        };
        let left = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
        let more = [position.into(), left.into()];
        let statement = within(db, &columns, some, which, then, more);
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
            "AND m.deleted_at IS NOT NULL",
            "GROUP BY m.conversation_id",
            [],
        );
        for row in db.query_all_raw(statement).await? {
            found.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        }
    }
    Ok(found)
}

/// A statement over the messages of several stretches, those for `which` some condition holds;
/// `w.column4` is the place of a stretch.
fn within<const N: usize>(
    db: &impl ConnectionTrait,
    columns: &str,
    windows: &[Window],
    which: &str,
    then: &'static str,
    more: [Value; N],
) -> Statement {
    let nothing = |window: &Window| Window {
        first: 1,
        last: 0,
        ..*window
    };
    let windows = filled(windows.iter().copied(), nothing);
    let each = Each {
        types: &["uuid", "bigint", "bigint", "bigint"],
        count: windows.len(),
        columns,
        table: "messages AS m",
        of: &format!(
            "m.conversation_id = w.column1 AND m.seq >= w.column2 AND m.seq <= w.column3 {which}"
        ),
        then,
    };
    let values = (0_i64..).zip(&windows).flat_map(|(place, window)| {
        [
            Value::from(window.conversation),
            window.first.into(),
            window.last.into(),
            place.into(),
        ]
    });
    statement(db, &each.sql(db), values.chain(more))
}

/// The columns of a message, of a table called `m`.
pub(crate) fn columns() -> String {
    let columns: Vec<String> = message::Column::iter()
        .map(|column| format!("m.{}", column.as_str()))
        .collect();
    columns.join(", ")
}
