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

/// What is looked up for each row of a list of values, `w`: rows of a table, `m`.
pub(crate) struct Each<'a> {
    /// The types of the columns of `w`: `column1`, `column2` and so on.
    pub(crate) types: &'a [&'static str],
    /// How many rows `w` has, one at least.
    pub(crate) count: usize,
    /// What is read.
    pub(crate) columns: &'a str,
    /// Called `m`.
    pub(crate) table: &'static str,
    /// Which rows of the table belong to one of `w`.
    pub(crate) of: &'a str,
    /// What comes after it: groups, order, limit.
    pub(crate) then: &'static str,
}

impl Each<'_> {
    /// The text, to which the values come row by row. It goes through the list in its order and
    /// looks along an index for each: PostgreSQL would rather read all of a table that is not yet
    /// very large, which `OFFSET 0` keeps it from.
    pub(crate) fn sql(&self, db: &impl ConnectionTrait) -> String {
        let Self {
            columns,
            table,
            of,
            then,
            ..
        } = self;
        let row = format!("({})", vec!["?"; self.types.len()].join(", "));
        let rows = |first: String| {
            let rest = vec![row.as_str(); self.count.saturating_sub(1)];
            let rows = [first.as_str()].into_iter().chain(rest);
            rows.collect::<Vec<_>>().join(", ")
        };
        if db.get_database_backend() != DbBackend::Postgres {
            let rows = rows(row.clone());
            return format!(
                "SELECT {columns} FROM (VALUES {rows}) AS w CROSS JOIN {table} \
                 WHERE {of} {then}"
            );
        }
        // It takes the types of the columns from the first row.
        let typed: Vec<String> = self.types.iter().map(|name| format!("?::{name}")).collect();
        let rows = rows(format!("({})", typed.join(", ")));
        format!(
            "SELECT {columns} FROM (VALUES {rows}) AS w \
             CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {of} OFFSET 0) AS m {then}"
        )
    }
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
