//! Moves SQLite's write-ahead log into the database file, beside the writer and not inside of
//! its commits, where it would show as pauses.
//!
//! A checkpoint beside a busy writer is always a little behind, so the log never starts anew.
//! The writer's own connection therefore makes one as well when the log is very long: by then
//! almost all of it has been moved, and that one is short.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio_util::sync::CancellationToken;

use super::Store;
use crate::error::Result;

/// The length, in pages of 4 KiB, at which the writer makes a checkpoint itself: 128 MiB.
pub(super) const LOG_PAGES_MAX: u32 = 32 * 1024;

/// How often it is looked whether there is something to move.
const INTERVAL: Duration = Duration::from_millis(100);
/// Changes after which the log is moved at once; fewer wait until the writer is idle.
const CHANGES: i64 = 2_000;

/// Makes checkpoints until the engine closes.
pub(crate) async fn run(store: Arc<Store>, closing: CancellationToken) {
    let Some(db) = &store.checkpoint else {
        return;
    };
    let work = async {
        let (mut moved, mut seen) = (0, 0);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let written = store.written();
            let idle = written == seen;
            seen = written;
            if written - moved < CHANGES && !(idle && written > moved) {
                continue;
            }
            match checkpoint(db).await {
                Ok(Moved::All) => moved = written,
                // Somebody is reading, or the writer went on: what is left comes next time.
                Ok(Moved::Some) => moved = moved.max(written - CHANGES / 2),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a checkpoint failed; it is tried again"
                ),
            }
        }
    };
    closing.run_until_cancelled(work).await;
}

enum Moved {
    All,
    Some,
}

async fn checkpoint(db: &DatabaseConnection) -> Result<Moved> {
    let sql = "PRAGMA wal_checkpoint(PASSIVE)";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let Some(row) = db.query_one_raw(statement).await? else {
        return Ok(Moved::Some);
    };
    let (pages, moved): (i32, i32) = (row.try_get_by_index(1)?, row.try_get_by_index(2)?);
    Ok(if moved >= pages {
        Moved::All
    } else {
        Moved::Some
    })
}
