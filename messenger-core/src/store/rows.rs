//! The statements that load, insert, update and delete rows set-at-a-time, whatever their number.
//!
//! The text of a statement depends only on its table and on a few block sizes ([`block_rows`]),
//! so every statement is prepared once and found again in the driver's cache. Where a block is
//! larger than the rows that are left, its last row is repeated, which is harmless to look up or
//! to write; rows to insert are cut into blocks that they fill.

use std::collections::HashMap;
use std::fmt::Write;

use sea_orm::{
    ColumnTrait, ColumnType, ConnectionTrait, DbBackend, DbErr, EntityTrait, IdenStatic, Iterable,
    ModelTrait, QueryResult, Statement, Value,
};

/// Rows in one statement: 256 rows of 19 columns are well below the 32,766 values that SQLite
/// takes and the 65,535 of PostgreSQL.
const BLOCK_ROWS_MAX: usize = 256;

/// The columns by which rows of a table are found, or which of them are written back.
pub(crate) struct Shape<E: EntityTrait> {
    /// Unique among all shapes: the statement's text is remembered under it.
    pub(crate) name: &'static str,
    /// The columns that find a row.
    pub(crate) key: &'static [E::Column],
    /// The columns to write; empty where rows are only loaded.
    pub(crate) set: &'static [E::Column],
    /// A further condition: on the rows that are loaded, about a table called `t`; on the rows that
    /// are written, about the table and `v`, which has the key's columns and then those to write.
    pub(crate) only: Option<&'static str>,
}

impl<E: EntityTrait> Shape<E> {
    pub(crate) const fn by(name: &'static str, key: &'static [E::Column]) -> Self {
        Self {
            name,
            key,
            set: &[],
            only: None,
        }
    }

    pub(crate) const fn set(self, set: &'static [E::Column]) -> Self {
        Self { set, ..self }
    }

    pub(crate) const fn only(self, only: &'static str) -> Self {
        Self {
            only: Some(only),
            ..self
        }
    }
}

/// The statements of one writer, with their texts.
#[derive(Debug)]
pub(crate) struct Rows {
    backend: DbBackend,
    /// By a statement's name, its number of rows and, as bits, the columns that it names.
    texts: HashMap<(&'static str, usize, u32), String>,
}

impl Rows {
    pub(crate) fn new(backend: DbBackend) -> Self {
        Self {
            backend,
            texts: HashMap::new(),
        }
    }

    /// Loads the rows whose key columns equal one of `keys`, in no particular order.
    pub(crate) async fn load<E: EntityTrait>(
        &mut self,
        db: &impl ConnectionTrait,
        shape: &Shape<E>,
        keys: &[Vec<Value>],
    ) -> Result<Vec<E::Model>, DbErr> {
        let backend = self.backend;
        let mut found = Vec::new();
        for block in keys.chunks(BLOCK_ROWS_MAX) {
            let size = block_rows(block.len());
            let text = self.texts.entry((shape.name, size, 0)).or_insert_with(|| {
                // The columns are named: a statement that is prepared for all of them fails for
                // good once a newer program has added one.
                let mut text = String::from("SELECT ");
                for (i, column) in E::Column::iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let _ = write!(text, "{comma}t.{}", column.as_str());
                }
                text.push_str(" FROM (");
                push_values(&mut text, backend, &types(shape.key), size);
                // A cross join keeps SQLite from walking the whole table and looking up the keys.
                let _ = write!(
                    text,
                    ") AS k CROSS JOIN {} AS t WHERE ",
                    E::default().table_name()
                );
                push_match::<E>(&mut text, "t", "k", shape.key);
                if let Some(only) = shape.only {
                    let _ = write!(text, " AND {only}");
                }
                text
            });
            let values = padded(block, size).flatten().cloned();
            let statement = Statement::from_sql_and_values(backend, text.as_str(), values);
            found.append(&mut E::find().from_raw_sql(statement).all(db).await?);
        }
        // Padding repeats the last key, and a join gives a row as often as its key is named.
        Ok(found)
    }

    /// Counts, for each key, the rows that equal it in all key columns but the last, in which they
    /// are greater. Gives the key's columns and then the count, in no particular order.
    pub(crate) async fn count_beyond<E: EntityTrait>(
        &mut self,
        db: &impl ConnectionTrait,
        shape: &Shape<E>,
        keys: &[Vec<Value>],
    ) -> Result<Vec<QueryResult>, DbErr> {
        let backend = self.backend;
        let mut counts = Vec::with_capacity(keys.len());
        for block in keys.chunks(BLOCK_ROWS_MAX) {
            let size = block_rows(block.len());
            let text = self.texts.entry((shape.name, size, 0)).or_insert_with(|| {
                let mut text = String::from("SELECT k.column1");
                for place in 2..=shape.key.len() {
                    let _ = write!(text, ", k.column{place}");
                }
                let _ = write!(
                    text,
                    ", (SELECT count(*) FROM {} AS t WHERE ",
                    E::default().table_name()
                );
                if let Some((last, equal)) = shape.key.split_last() {
                    push_match::<E>(&mut text, "t", "k", equal);
                    let place = shape.key.len();
                    let _ = write!(text, " AND t.{} > k.column{place}", last.as_str());
                }
                if let Some(only) = shape.only {
                    let _ = write!(text, " AND {only}");
                }
                text.push_str(") FROM (");
                push_values(&mut text, backend, &types(shape.key), size);
                text.push_str(") AS k");
                text
            });
            let values = padded(block, size).flatten().cloned();
            let statement = Statement::from_sql_and_values(backend, text.as_str(), values);
            counts.append(&mut db.query_all_raw(statement).await?);
        }
        Ok(counts)
    }

    /// Inserts rows. Columns in which none of a block has a value are not named.
    pub(crate) async fn insert<E: EntityTrait>(
        &mut self,
        db: &impl ConnectionTrait,
        name: &'static str,
        rows: &[&E::Model],
    ) -> Result<(), DbErr> {
        let backend = self.backend;
        let mut rest = rows;
        while !rest.is_empty() {
            let size = filled_rows(rest.len());
            let (block, after) = rest.split_at(size);
            rest = after;
            let mut columns = Vec::new();
            let mut named = 0_u32;
            for (i, column) in E::Column::iter().enumerate() {
                let used = |row: &&E::Model| {
                    let value = row.get(column);
                    value != value.as_null()
                };
                if !column.def().is_null() || block.iter().any(used) {
                    columns.push(column);
                    named |= 1 << i;
                }
            }
            let text = self.texts.entry((name, size, named)).or_insert_with(|| {
                let mut text = format!("INSERT INTO {} (", E::default().table_name());
                push_names::<E>(&mut text, &columns);
                text.push_str(") ");
                push_values(&mut text, backend, &types(&columns), size);
                text
            });
            let values = block
                .iter()
                .flat_map(|row| columns.iter().map(|column| row.get(*column)));
            let statement = Statement::from_sql_and_values(backend, text.as_str(), values);
            db.execute_raw(statement).await?;
        }
        Ok(())
    }

    /// Writes the `set` columns of rows that exist, and says how many did.
    pub(crate) async fn update<E: EntityTrait>(
        &mut self,
        db: &impl ConnectionTrait,
        shape: &Shape<E>,
        rows: &[&E::Model],
    ) -> Result<u64, DbErr> {
        let backend = self.backend;
        let mut written = 0;
        for block in rows.chunks(BLOCK_ROWS_MAX) {
            let size = block_rows(block.len());
            let columns: Vec<E::Column> = shape.key.iter().chain(shape.set).copied().collect();
            let text = self.texts.entry((shape.name, size, 0)).or_insert_with(|| {
                let table = E::default();
                let mut text = format!("UPDATE {} SET ", table.table_name());
                for (i, column) in shape.set.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let place = shape.key.len() + i + 1;
                    let _ = write!(text, "{comma}{} = v.column{place}", column.as_str());
                }
                text.push_str(" FROM (");
                push_values(&mut text, backend, &types(&columns), size);
                text.push_str(") AS v WHERE ");
                push_match::<E>(&mut text, table.table_name(), "v", shape.key);
                if let Some(only) = shape.only {
                    let _ = write!(text, " AND ({only})");
                }
                text
            });
            let values =
                padded(block, size).flat_map(|row| columns.iter().map(|column| row.get(*column)));
            let statement = Statement::from_sql_and_values(backend, text.as_str(), values);
            written += db.execute_raw(statement).await?.rows_affected();
        }
        Ok(written)
    }

    /// Deletes rows by the shape's key columns.
    pub(crate) async fn delete<E: EntityTrait>(
        &mut self,
        db: &impl ConnectionTrait,
        shape: &Shape<E>,
        rows: &[&E::Model],
    ) -> Result<(), DbErr> {
        let backend = self.backend;
        for block in rows.chunks(BLOCK_ROWS_MAX) {
            let size = block_rows(block.len());
            let text = self.texts.entry((shape.name, size, 0)).or_insert_with(|| {
                let mut text = format!("DELETE FROM {} WHERE (", E::default().table_name());
                push_names::<E>(&mut text, shape.key);
                text.push_str(") IN (");
                push_values(&mut text, backend, &types(shape.key), size);
                text.push(')');
                text
            });
            let values =
                padded(block, size).flat_map(|row| shape.key.iter().map(|column| row.get(*column)));
            let statement = Statement::from_sql_and_values(backend, text.as_str(), values);
            db.execute_raw(statement).await?;
        }
        Ok(())
    }
}

/// The least size of a block that holds `rows`: a power of two, or one and a half of one.
fn block_rows(rows: usize) -> usize {
    let power = rows.next_power_of_two();
    let smaller = power / 4 * 3;
    if smaller >= rows { smaller } else { power }
}

/// The greatest size of a block that `rows` fill.
fn filled_rows(rows: usize) -> usize {
    let power = 1 << rows.min(BLOCK_ROWS_MAX).ilog2();
    let greater = power / 2 * 3;
    if (power + 1..=rows.min(BLOCK_ROWS_MAX)).contains(&greater) {
        greater
    } else {
        power
    }
}

/// The block, with its last row repeated up to `size`.
fn padded<T>(block: &[T], size: usize) -> impl Iterator<Item = &T> {
    let last = block.last().into_iter().cycle();
    block.iter().chain(last).take(size)
}

fn types<C: ColumnTrait>(columns: &[C]) -> Vec<&'static str> {
    columns
        .iter()
        .map(|column| match column.def().get_column_type() {
            ColumnType::Uuid => "uuid",
            ColumnType::BigInteger => "bigint",
            ColumnType::SmallInteger => "smallint",
            ColumnType::Boolean => "boolean",
            ColumnType::Binary(_) | ColumnType::VarBinary(_) | ColumnType::Blob => "bytea",
            ColumnType::Enum { .. } => "smallint",
            _ => "text",
        })
        .collect()
}

fn push_names<E: EntityTrait>(text: &mut String, columns: &[E::Column]) {
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(column.as_str());
    }
}

fn push_match<E: EntityTrait>(text: &mut String, table: &str, keys: &str, columns: &[E::Column]) {
    for (i, column) in columns.iter().enumerate() {
        let and = if i == 0 { "" } else { " AND " };
        let place = i + 1;
        let _ = write!(
            text,
            "{and}{table}.{} = {keys}.column{place}",
            column.as_str()
        );
    }
}

/// `VALUES (…), (…)`. PostgreSQL takes the types of the columns from the first row.
fn push_values(text: &mut String, backend: DbBackend, types: &[&'static str], rows: usize) {
    text.push_str("VALUES ");
    let mut place = 0;
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for (i, kind) in types.iter().enumerate() {
            if i > 0 {
                text.push_str(", ");
            }
            place += 1;
            match backend {
                DbBackend::Postgres if row == 0 => {
                    let _ = write!(text, "${place}::{kind}");
                }
                DbBackend::Postgres => {
                    let _ = write!(text, "${place}");
                }
                _ => text.push('?'),
            }
        }
        text.push(')');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_few_sizes_near_to_the_number_of_rows() {
        let rows = [1, 2, 3, 4, 5, 7, 9, 31, 32, 33, 97, 200, 256];
        assert_eq!(
            rows.map(block_rows),
            [1, 2, 3, 4, 6, 8, 12, 32, 32, 48, 128, 256, 256]
        );
        assert_eq!(
            rows.map(filled_rows),
            [1, 2, 3, 4, 4, 6, 8, 24, 32, 32, 96, 192, 256]
        );
        for rows in 1..=BLOCK_ROWS_MAX {
            assert!((rows..=rows * 3 / 2).contains(&block_rows(rows)), "{rows}");
            assert!(
                (rows.div_ceil(2)..=rows).contains(&filled_rows(rows)),
                "{rows}"
            );
        }
        assert_eq!(filled_rows(10 * BLOCK_ROWS_MAX), BLOCK_ROWS_MAX);
    }

    #[test]
    fn postgres_is_told_the_types_once() {
        let mut text = String::new();
        push_values(&mut text, DbBackend::Postgres, &["uuid", "text"], 2);
        assert_eq!(text, "VALUES ($1::uuid, $2::text), ($3, $4)");

        text.clear();
        push_values(&mut text, DbBackend::Sqlite, &["uuid", "text"], 2);
        assert_eq!(text, "VALUES (?, ?), (?, ?)");
    }
}
