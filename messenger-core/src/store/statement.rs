//! The texts of statements, of which there are few, so that each is prepared once.

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use uuid::Uuid;

/// Ids in one statement that looks several up: far below the number of values that either database
/// takes.
pub(crate) const IDS_PER_STATEMENT: usize = 1_000;

/// Fills a list of values up to the next of few lengths with values that find nothing more, so that
/// the statement has few texts and is prepared once.
pub(crate) fn filled<T>(values: impl IntoIterator<Item = T>, fill: impl Fn(&T) -> T) -> Vec<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    let length = values.len().next_power_of_two();
    while let Some(first) = values.first()
        && values.len() < length
    {
        values.push(fill(first));
    }
    values
}

/// Fills a list of ids: to look for one twice finds it once.
pub(crate) fn filled_ids(ids: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
    filled(ids, |id| *id)
}

/// A statement whose values stand as `?` in its text, on either database.
pub(crate) fn statement(
    db: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    let backend = db.get_database_backend();
    if backend != DbBackend::Postgres {
        return Statement::from_sql_and_values(backend, sql, values);
    }
    let mut text = String::with_capacity(sql.len() + 64);
    for (place, part) in sql.split('?').enumerate() {
        if place > 0 {
            text.push_str(&format!("${place}"));
        }
        text.push_str(part);
    }
    Statement::from_sql_and_values(backend, text, values)
}
