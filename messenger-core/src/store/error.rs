//! Translates what the database says into [`Error`], in this one place.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr};

use crate::error::{Cause, Error};

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        let fault = Fault::of(&error);
        let cause: Cause = Arc::new(error);
        match fault {
            Fault::Full => Self::StorageFull(cause),
            Fault::Contention => Self::Busy {
                retry_after: Duration::from_secs(1),
            },
            Fault::Unreachable => Self::Unavailable(cause),
            Fault::Closed => Self::Closed,
            Fault::Other => Self::Storage(cause),
        }
    }
}

/// Whether a statement broke a uniqueness rule: then its transaction is tried in smaller parts.
pub(crate) fn is_constraint(error: &DbErr) -> bool {
    matches!(
        error.sql_err(),
        Some(SqlErr::UniqueConstraintViolation(_) | SqlErr::ForeignKeyConstraintViolation(_))
    )
}

enum Fault {
    Full,
    Contention,
    Unreachable,
    Closed,
    Other,
}

impl Fault {
    fn of(error: &DbErr) -> Self {
        let (DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause))
        | DbErr::Conn(RuntimeErr::SqlxError(cause))) = error
        else {
            return match error {
                DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => Self::Closed,
                DbErr::ConnectionAcquire(_) => Self::Contention,
                DbErr::Conn(_) => Self::Unreachable,
                _ => Self::Other,
            };
        };
        match cause.as_ref() {
            sqlx::Error::Database(said) => match said.code().as_deref() {
                // SQLite: FULL; PostgreSQL: disk_full.
                Some("13" | "53100") => Self::Full,
                // SQLite: BUSY, LOCKED and their extended codes; PostgreSQL: lock_not_available,
                // query_canceled by a timeout, deadlock_detected, serialization_failure.
                Some(
                    "5" | "6" | "261" | "517" | "773" | "262" | "518" | "55P03" | "57014" | "40P01"
                    | "40001",
                ) => Self::Contention,
                // PostgreSQL: it is starting, stopping, or has cut us off; a transaction that idled
                // too long; a standby, which the address led to before it led to the primary.
                Some(code) if code.starts_with("57P") || code.starts_with("08") => {
                    Self::Unreachable
                }
                Some("53300" | "25P03" | "25006") => Self::Unreachable,
                _ => Self::Other,
            },
            sqlx::Error::PoolTimedOut => Self::Contention,
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
                Self::Unreachable
            }
            _ => Self::Other,
        }
    }
}
