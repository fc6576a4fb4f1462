//! What is read about messages.

use std::collections::BTreeMap;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, IdenStatic, Iterable, QueryFilter,
    QueryOrder, QuerySelect, Statement, Value,
};
use uuid::Uuid;

use super::Message;
use crate::conversations::Membership;
use crate::error::Result;
use crate::ids::Seq;
use crate::store::Store;
use crate::store::entity::message;

/// Conversations in one statement of [`windows`].
const WINDOWS_PER_STATEMENT: usize = 500;

/// Messages of a conversation after a sequence number, ascending.
pub(super) async fn page_after(
    store: &Store,
    membership: &Membership,
    after: Seq,
    limit: u32,
) -> Result<Vec<Message>> {
    let rows = message::Entity::find()
        .filter(message::Column::ConversationId.eq(membership.conversation_id().as_uuid()))
        .filter(message::Column::Seq.gt(after.get()))
        .filter(message::Column::Seq.gte(membership.visible_from().get()))
        .order_by_asc(message::Column::Seq)
        .limit(u64::from(limit))
        .all(&store.read())
        .await?;
    Ok(rows.into_iter().map(Message::from).collect())
}

/// A stretch of a conversation, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) conversation: Uuid,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// The messages of several stretches, ordered by conversation and sequence number. Sequence
/// numbers have no gaps, so a stretch says how many rows it has.
pub(crate) async fn windows(
    db: &impl ConnectionTrait,
    windows: &[Window],
) -> Result<BTreeMap<Uuid, Vec<Message>>> {
    let mut found: BTreeMap<Uuid, Vec<Message>> = BTreeMap::new();
    let backend = db.get_database_backend();
    let columns: Vec<String> = message::Column::iter()
        .map(|column| format!("m.{}", column.as_str()))
        .collect();
    let columns = columns.join(", ");
    for some in windows.chunks(WINDOWS_PER_STATEMENT) {
        let mut places = Vec::with_capacity(some.len());
        let mut values: Vec<Value> = Vec::with_capacity(3 * some.len());
        for (i, window) in some.iter().enumerate() {
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
             WHERE m.conversation_id = w.column1 AND m.seq >= w.column2 AND m.seq <= w.column3 \
             ORDER BY m.conversation_id, m.seq",
            places.join(", ")
        );
        let statement = Statement::from_sql_and_values(backend, sql, values);
        for row in message::Entity::find()
            .from_raw_sql(statement)
            .all(db)
            .await?
        {
            found
                .entry(row.conversation_id)
                .or_default()
                .push(row.into());
        }
    }
    Ok(found)
}
