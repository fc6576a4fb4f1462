//! Fences: positions that can not be issued twice, whatever a restore or a fail-over takes back.
//!
//! Each incarnation of a database begins at a position taken from the clock, above every
//! position that can have been issued before, in this history or in a lost one.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction,
    DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder, Statement,
};

use super::entity::{fence, head};
use crate::clock;
use crate::error::{Error, Result};
use crate::fault::{Fault, Planted};
use crate::ids::{Position, Stamp};

/// The shard of everything, until there are several.
pub(crate) const SHARD: i16 = 0;

/// Positions that one second of an incarnation has room for, as a power of two.
const POSITIONS_PER_SECOND_LOG2: u32 = 20;

/// What tells the lives of a PostgreSQL database apart, in SQL. The timeline comes from the log's
/// file name, since the control file may lag after a promotion. A server that runs on may have been
/// given another database by the same name, or other rows in the same: the first has an id of its
/// own, and where a restore makes or empties the tables the head lies in another file. All of it is
/// readable without being a superuser.
pub(crate) const INCARNATION: &str = "concat_ws(':', \
    (SELECT system_identifier FROM pg_control_system()), \
    substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), \
    extract(epoch FROM pg_postmaster_start_time()), \
    (SELECT oid FROM pg_database WHERE datname = current_database()), \
    pg_relation_filenode('sync_heads'))";

/// What clients know from before a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It holds as far as it was issued in this history.
    Holds,
    /// It is void: a copy was put back.
    Void,
}

/// Starts a new fence if this is a new incarnation: every opening of an SQLite file, and the first
/// opening after a start or a promotion of a PostgreSQL server.
pub(crate) async fn start(
    db: &DatabaseTransaction,
    backend: DbBackend,
    planted: Planted,
    before: Before,
) -> Result<(), DbErr> {
    let incarnation = incarnation(db, backend).await?;
    let now = clock::now();
    let found = match backend {
        DbBackend::Postgres => {
            let lock = "SELECT * FROM sync_heads WHERE shard = $1 FOR UPDATE";
            let lock = Statement::from_sql_and_values(backend, lock, [SHARD.into()]);
            head::Entity::find().from_raw_sql(lock).one(db).await?
        }
        _ => head::Entity::find_by_id(SHARD).one(db).await?,
    };
    let pos = match &found {
        Some(head) if backend == DbBackend::Postgres && head.incarnation == incarnation => {
            return Ok(());
        }
        Some(_) if planted.is(Fault::NoFence) => return Ok(()),
        Some(head) => head.pos,
        None => 0,
    };
    // Finer than a second, or what is lost within the second of its beginning would be issued again.
    let micros = i128::from(now.as_micros());
    let clock = (micros << POSITIONS_PER_SECOND_LOG2) / 1_000_000;
    let beyond = match before {
        Before::Holds => pos,
        Before::Void => pos + 1,
    };
    let start = beyond.max(i64::try_from(clock).unwrap_or(i64::MAX));

    let last = fence::Entity::find()
        .filter(fence::Column::Shard.eq(SHARD))
        .order_by_desc(fence::Column::StartPos)
        .one(db)
        .await?;
    if let Some(last) = last {
        if last.start_pos == start {
            return Ok(());
        }
        let mut last: fence::ActiveModel = last.into();
        last.end_pos = Set(Some(pos));
        last.update(db).await?;
    }
    let next = fence::Model {
        shard: SHARD,
        start_pos: start,
        end_pos: None,
        clean: before == Before::Holds,
        created_at: now.as_micros(),
    };
    fence::Entity::insert(fence::ActiveModel::from(next))
        .exec_without_returning(db)
        .await?;

    let head = head::ActiveModel {
        shard: Set(SHARD),
        pos: Set(start),
        fence_start: Set(start),
        incarnation: Set(incarnation),
        horizon_pos: Set(found.as_ref().map_or(0, |head| head.horizon_pos)),
    };
    if found.is_some() {
        head.update(db).await?;
    } else {
        head::Entity::insert(head)
            .exec_without_returning(db)
            .await?;
    }
    Ok(())
}

/// The head of the change log. Read in a snapshot, it says which changes the snapshot has: all up to
/// it, and no other.
pub(crate) async fn head(db: &impl ConnectionTrait) -> Result<head::Model> {
    let row = head::Entity::find_by_id(SHARD).one(db).await?;
    row.ok_or_else(|| Error::Internal("the change log has no head".to_owned()))
}

/// The stamp of what is read in a snapshot that has this head.
pub(crate) fn stamp(head: &head::Model) -> Stamp {
    Stamp {
        shard: SHARD,
        fence: Position::stored(head.fence_start),
        as_of: Position::stored(head.pos),
    }
}

/// Whether a position was really issued in this history, up to its head.
pub(crate) async fn is_valid(
    db: &impl ConnectionTrait,
    head: &head::Model,
    position: i64,
) -> Result<bool> {
    if position == 0 || (head.fence_start..=head.pos).contains(&position) {
        return Ok(true);
    }
    if position > head.pos {
        return Ok(false);
    }
    // Older ones are few: one for each start of the database.
    let fences = fence::Entity::find()
        .filter(fence::Column::Shard.eq(SHARD))
        .filter(fence::Column::StartPos.lte(head.fence_start));
    let began = fences
        .clone()
        .filter(fence::Column::StartPos.lte(position))
        .order_by_desc(fence::Column::StartPos)
        .one(db)
        .await?;
    let issued = began.is_some_and(|began| began.end_pos.is_none_or(|end| position <= end));
    // Whoever restores a copy by command declares everything before it void.
    let restored = fences
        .filter(fence::Column::StartPos.gt(position))
        .filter(fence::Column::Clean.eq(false))
        .one(db)
        .await?;
    Ok(issued && restored.is_none())
}

/// What distinguishes this life of the database from every other.
async fn incarnation(db: &DatabaseTransaction, backend: DbBackend) -> Result<String, DbErr> {
    if backend != DbBackend::Postgres {
        return Ok("sqlite".to_owned());
    }
    let sql = format!("SELECT {INCARNATION}");
    let row = db
        .query_one_raw(Statement::from_string(backend, sql))
        .await?
        .ok_or_else(|| DbErr::Custom("PostgreSQL did not say who it is".to_owned()))?;
    row.try_get_by_index(0)
}
