//! How large a database is.

use std::path::Path;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use super::Target;
use crate::error::{Error, Result};

/// How large a database is on disk, in bytes: of SQLite the file and its log.
pub(crate) async fn bytes(target: &Target, db: &DatabaseConnection) -> Result<u64> {
    if let Target::Sqlite(path) = target {
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        return Ok(length(path) + length(Path::new(&log)));
    }
    let sql = "SELECT pg_database_size(current_database())";
    let row = db
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await?
        .ok_or_else(|| Error::Internal("PostgreSQL did not say how large it is".to_owned()))?;
    let bytes: i64 = row.try_get_by_index(0)?;
    Ok(bytes.unsigned_abs())
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |found| found.len())
}
