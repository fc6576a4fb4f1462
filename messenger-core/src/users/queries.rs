//! What is read about people.

use std::collections::{HashMap, HashSet};

use sea_orm::sea_query::{Expr, ExprTrait, Func, Query};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, IdenStatic,
    Iterable, QueryFilter, QueryOrder, QuerySelect, Value,
};
use uuid::Uuid;

use super::{Block, Blocked, Pref, PrefKey, Reserve, User};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ids::{Position, UserId};
use crate::store::entity::{block, conversation, erasure, member, pref, user};
use crate::store::{IDS_PER_STATEMENT, Store, filled_ids, statement};

/// One user, who must exist.
pub(super) async fn user(store: &Store, id: UserId) -> Result<User> {
    let row = user::Entity::find_by_id(id.as_uuid())
        .one(&store.read())
        .await?;
    row.as_ref().map(User::from).ok_or(Error::UserNotFound)
}

/// People whose names contain a text, whatever the capitals, without the actor.
pub(super) async fn search(
    store: &Store,
    actor: &Actor,
    query: &str,
    limit: u32,
) -> Result<Vec<User>> {
    // A search for a place in the text has no wildcards that would have to be escaped.
    let place = match store.backend() {
        DbBackend::Postgres => "strpos",
        _ => "instr",
    };
    let contains = |column: user::Column, text: String| {
        Expr::expr(Func::cust(place).args([Expr::col(column), Expr::val(text)])).gt(0)
    };
    let folded = query.to_lowercase();
    let rows = user::Entity::find()
        .filter(user::Column::Id.ne(actor.user_id().as_uuid()))
        .filter(user::Column::DeletedAt.is_null())
        .filter(
            Condition::any()
                .add(contains(user::Column::UsernameKey, folded.clone()))
                .add(contains(user::Column::DisplayNameKey, folded)),
        )
        .order_by_asc(user::Column::UsernameKey)
        .limit(u64::from(limit))
        .all(&store.read())
        .await?;
    Ok(rows.iter().map(User::from).collect())
}

/// Those of the named users with whom the actor shares a conversation, and the actor.
pub(super) async fn acquainted(store: &Store, actor: &Actor, ids: &[UserId]) -> Result<Vec<User>> {
    let me = actor.user_id().as_uuid();
    let mut mine = Query::select();
    mine.column((member::Entity, member::Column::ConversationId))
        .from(member::Entity)
        .inner_join(
            conversation::Entity,
            Expr::col((conversation::Entity, conversation::Column::Id))
                .equals((member::Entity, member::Column::ConversationId)),
        )
        .and_where(member::Column::UserId.eq(me))
        .and_where(member::Column::State.eq(member::State::Joined))
        .and_where(conversation::Column::State.eq(conversation::State::Open));
    let mut shared = Query::select();
    shared
        .column(member::Column::UserId)
        .from(member::Entity)
        .and_where(member::Column::State.eq(member::State::Joined))
        .and_where(member::Column::ConversationId.in_subquery(mine))
        .and_where(member::Column::UserId.is_in(ids.iter().map(|id| id.as_uuid())));
    let rows = user::Entity::find()
        .filter(user::Column::Id.is_in(ids.iter().map(|id| id.as_uuid())))
        .filter(
            Condition::any()
                .add(user::Column::Id.eq(me))
                .add(user::Column::Id.in_subquery(shared)),
        )
        .order_by_asc(user::Column::UsernameKey)
        .order_by_asc(user::Column::Id)
        .all(&store.read())
        .await?;
    Ok(rows.iter().map(User::from).collect())
}

/// Users by their ids, in the order of their ids.
pub(crate) async fn by_ids(
    db: &impl ConnectionTrait,
    ids: impl IntoIterator<Item = Uuid>,
) -> Result<Vec<User>> {
    let mut ids: Vec<Uuid> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    let mut users = Vec::with_capacity(ids.len());
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let rows = user::Entity::find()
            .filter(user::Column::Id.is_in(filled_ids(some.iter().copied())))
            .order_by_asc(user::Column::Id)
            .all(db)
            .await?;
        users.extend(rows.iter().map(User::from));
    }
    Ok(users)
}

/// People whose profiles have changed after a position and who share a small conversation with a
/// user, people whose accounts were deleted and who ever were in a conversation of the user or were
/// blocked by them, and the user: ordered by id, after a key, up to `limit`.
pub(crate) async fn changed(
    db: &impl ConnectionTrait,
    user: UserId,
    from: i64,
    key: Uuid,
    small_members_max: u32,
    limit: usize,
) -> Result<Vec<User>> {
    let columns: Vec<String> = user::Column::iter()
        .map(|column| format!("u.{}", column.as_str()))
        .collect();
    // SQLite keeps no statistics here, and would walk through all users by their ids.
    let by_position = match db.get_database_backend() {
        DbBackend::Sqlite => "+",
        _ => "",
    };
    let sql = format!(
        "SELECT {} FROM users AS u WHERE u.changed_pos > ? AND {by_position}u.id > ? \
         AND (u.id = ? OR EXISTS (SELECT 1 FROM members AS theirs \
         CROSS JOIN members AS mine CROSS JOIN conversations AS c \
         WHERE mine.conversation_id = theirs.conversation_id \
         AND c.id = theirs.conversation_id AND mine.user_id = ? AND mine.state = ? AND theirs.user_id = u.id \
         AND c.state = ? AND (u.deleted_at IS NOT NULL \
         OR (theirs.state = ? AND c.member_count <= ?))) \
         OR (u.deleted_at IS NOT NULL AND EXISTS (SELECT 1 FROM blocks AS b \
         WHERE b.owner_id = ? AND b.blocked_id = u.id))) \
         ORDER BY {by_position}u.id LIMIT ?",
        columns.join(", ")
    );
    let joined: Value = member::State::Joined.to_value().into();
    let me: Value = user.as_uuid().into();
    let values = [
        from.into(),
        key.into(),
        me.clone(),
        me.clone(),
        joined.clone(),
        conversation::State::Open.to_value().into(),
        joined,
        i64::from(small_members_max).into(),
        me,
        i64::try_from(limit).unwrap_or(i64::MAX).into(),
    ];
    let rows = user::Entity::find()
        .from_raw_sql(statement(db, &sql, values))
        .all(db)
        .await?;
    Ok(rows.iter().map(User::from).collect())
}

/// Whom a user has blocked, after one of them, ordered by id.
pub(super) async fn blocked(
    db: &impl ConnectionTrait,
    owner: UserId,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<Blocked>> {
    let mut rows = block::Entity::find()
        .filter(block::Column::OwnerId.eq(owner.as_uuid()))
        .filter(block::Column::State.eq(block::State::Set));
    if let Some(after) = after {
        rows = rows.filter(block::Column::BlockedId.gt(after.as_uuid()));
    }
    let rows = rows
        .order_by_asc(block::Column::BlockedId)
        .limit(u64::from(limit))
        .all(db)
        .await?;
    // Users come ordered by id as well, and everybody who is blocked is one.
    let users = by_ids(db, rows.iter().map(|row| row.blocked_id)).await?;
    let blocked = users.into_iter().zip(&rows).map(|(user, row)| Blocked {
        user,
        version: Position::stored(row.changed_pos),
    });
    Ok(blocked.collect())
}

/// What a user keeps, ordered by key.
pub(super) async fn prefs(db: &impl ConnectionTrait, owner: UserId) -> Result<Vec<Pref>> {
    let rows = pref::Entity::find()
        .filter(pref::Column::OwnerId.eq(owner.as_uuid()))
        .filter(pref::Column::State.eq(pref::State::Set))
        .order_by_asc(pref::Column::Key)
        .all(db)
        .await?;
    Ok(rows.into_iter().map(Pref::from).collect())
}

/// A stretch of the change log, without its beginning and with its end. One position has one block
/// or one setting, so that a list which ends at a position has all that is before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    pub(crate) after: i64,
    pub(crate) upto: i64,
    /// Whether it is told what is no more; a client that begins has nothing to forget.
    pub(crate) gone_too: bool,
}

/// The blocks of a user that were last changed in a stretch of the change log, in its order, up to
/// `limit`.
pub(crate) async fn blocks_changed(
    db: &impl ConnectionTrait,
    owner: UserId,
    since: Since,
    limit: usize,
) -> Result<Vec<Block>> {
    let mut rows = block::Entity::find()
        .filter(block::Column::OwnerId.eq(owner.as_uuid()))
        .filter(block::Column::ChangedPos.gt(since.after))
        .filter(block::Column::ChangedPos.lte(since.upto));
    if !since.gone_too {
        rows = rows.filter(block::Column::State.eq(block::State::Set));
    }
    let rows = rows
        .order_by_asc(block::Column::ChangedPos)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX).unsigned_abs())
        .all(db)
        .await?;
    Ok(rows.into_iter().map(Block::from).collect())
}

/// What a user keeps that was last changed in a stretch of the change log, in its order, up to
/// `limit`.
pub(crate) async fn prefs_changed(
    db: &impl ConnectionTrait,
    owner: UserId,
    since: Since,
    limit: usize,
) -> Result<Vec<Pref>> {
    let mut rows = pref::Entity::find()
        .filter(pref::Column::OwnerId.eq(owner.as_uuid()))
        .filter(pref::Column::ChangedPos.gt(since.after))
        .filter(pref::Column::ChangedPos.lte(since.upto));
    if !since.gone_too {
        rows = rows.filter(pref::Column::State.eq(pref::State::Set));
    }
    let rows = rows
        .order_by_asc(pref::Column::ChangedPos)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX).unsigned_abs())
        .all(db)
        .await?;
    Ok(rows.into_iter().map(Pref::from).collect())
}

/// Deletions of accounts that are not finished, ordered by user, after a key, up to `limit`.
pub(crate) async fn erasures(
    db: &impl ConnectionTrait,
    key: Uuid,
    limit: u64,
) -> Result<Vec<erasure::Model>> {
    let rows = erasure::Entity::find()
        .filter(erasure::Column::UserId.gt(key))
        .order_by_asc(erasure::Column::UserId)
        .limit(limit)
        .all(db)
        .await?;
    Ok(rows)
}

/// Whom a user has blocked, up to `limit`.
pub(crate) async fn blocked_ids(
    db: &impl ConnectionTrait,
    owner: UserId,
    limit: u64,
) -> Result<Vec<Uuid>> {
    let ids = block::Entity::find()
        .select_only()
        .column(block::Column::BlockedId)
        .filter(block::Column::OwnerId.eq(owner.as_uuid()))
        .filter(block::Column::State.eq(block::State::Set))
        .order_by_asc(block::Column::BlockedId)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids)
}

/// From whom people keep whether they are there.
pub(crate) async fn reserves(
    db: &impl ConnectionTrait,
    users: &[UserId],
) -> Result<HashMap<UserId, Reserve>> {
    let ids = filled_ids(users.iter().map(|user| user.as_uuid()));
    let mut reserves: HashMap<UserId, Reserve> = users
        .iter()
        .map(|user| (*user, Reserve::default()))
        .collect();
    let deleted: Vec<Uuid> = user::Entity::find()
        .select_only()
        .column(user::Column::Id)
        .filter(user::Column::Id.is_in(ids.clone()))
        .filter(user::Column::DeletedAt.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    for user in deleted.into_iter().chain(hidden(db, &ids).await?) {
        reserves.entry(user.into()).or_default().is_hidden = true;
    }
    let blocked: Vec<(Uuid, Uuid)> = block::Entity::find()
        .select_only()
        .column(block::Column::OwnerId)
        .column(block::Column::BlockedId)
        .filter(block::Column::OwnerId.is_in(ids))
        .filter(block::Column::State.eq(block::State::Set))
        .into_tuple()
        .all(db)
        .await?;
    for (owner, whom) in blocked {
        let reserve = reserves.entry(owner.into()).or_default();
        reserve.blocked.insert(whom.into());
    }
    Ok(reserves)
}

/// Those of some people who keep from everybody whether they are there.
async fn hidden(db: &impl ConnectionTrait, users: &[Uuid]) -> Result<Vec<Uuid>> {
    let kept: Vec<(Uuid, String)> = pref::Entity::find()
        .select_only()
        .column(pref::Column::OwnerId)
        .column(pref::Column::Value)
        .filter(pref::Column::OwnerId.is_in(users.iter().copied()))
        .filter(pref::Column::Key.eq(PrefKey::presence().as_str()))
        .filter(pref::Column::State.eq(pref::State::Set))
        .into_tuple()
        .all(db)
        .await?;
    let hidden = kept
        .into_iter()
        .filter(|(_, value)| value.trim() == "false");
    Ok(hidden.map(|(owner, _)| owner).collect())
}

/// When somebody was last seen, if that is known.
pub(crate) async fn seen(db: &impl ConnectionTrait, user: UserId) -> Result<Option<Timestamp>> {
    let row = user::Entity::find_by_id(user.as_uuid()).one(db).await?;
    let at = row.and_then(|row| row.last_seen_at);
    Ok(at.map(Timestamp::from_micros))
}

/// When those of the named people were last seen of whom a user may know it, ordered by id.
pub(super) async fn last_seen(
    db: &impl ConnectionTrait,
    me: UserId,
    ids: &[UserId],
    small_members_max: u32,
) -> Result<Vec<(UserId, Option<Timestamp>)>> {
    let ids = filled_ids(ids.iter().map(|id| id.as_uuid()));
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let places = vec!["?"; ids.len()].join(", ");
    let sql = format!(
        "SELECT u.id, u.last_seen_at FROM users AS u WHERE u.id IN ({places}) AND u.id <> ? \
         AND u.deleted_at IS NULL AND EXISTS (SELECT 1 FROM members AS theirs \
         CROSS JOIN members AS mine CROSS JOIN conversations AS c \
         WHERE theirs.user_id = u.id AND theirs.state = ? \
         AND mine.conversation_id = theirs.conversation_id AND mine.user_id = ? AND mine.state = ? \
         AND c.id = theirs.conversation_id AND c.state = ? AND c.member_count <= ?) \
         AND NOT EXISTS (SELECT 1 FROM blocks AS b WHERE b.state = ? \
         AND (b.owner_id = u.id AND b.blocked_id = ? OR b.owner_id = ? AND b.blocked_id = u.id)) \
         ORDER BY u.id"
    );
    let (user, joined): (Value, Value) =
        (me.as_uuid().into(), member::State::Joined.to_value().into());
    let values = ids.iter().map(|id| Value::from(*id)).chain([
        user.clone(),
        joined.clone(),
        user.clone(),
        joined,
        conversation::State::Open.to_value().into(),
        i64::from(small_members_max).into(),
        block::State::Set.to_value().into(),
        user.clone(),
        user,
    ]);
    let rows = db.query_all_raw(statement(db, &sql, values)).await?;
    let hidden: HashSet<Uuid> = hidden(db, &ids).await?.into_iter().collect();
    let mut seen = Vec::with_capacity(rows.len());
    for row in rows {
        let (user, at): (Uuid, Option<i64>) = row.try_get_many_by_index()?;
        if !hidden.contains(&user) {
            seen.push((user.into(), at.map(Timestamp::from_micros)));
        }
    }
    Ok(seen)
}

/// Who has blocked a user, or had: they have the name.
pub(crate) async fn blockers(db: &impl ConnectionTrait, user: UserId) -> Result<Vec<UserId>> {
    let owners: Vec<Uuid> = block::Entity::find()
        .select_only()
        .column(block::Column::OwnerId)
        .filter(block::Column::BlockedId.eq(user.as_uuid()))
        .into_tuple()
        .all(db)
        .await?;
    Ok(owners.into_iter().map(UserId::from).collect())
}

/// Whether one of two people has blocked the other.
pub(crate) async fn are_apart(
    db: &impl ConnectionTrait,
    one: UserId,
    other: UserId,
) -> Result<bool> {
    let (one, other) = (one.as_uuid(), other.as_uuid());
    let blocked = |owner: Uuid, whom: Uuid| {
        block::Column::OwnerId
            .eq(owner)
            .and(block::Column::BlockedId.eq(whom))
    };
    let found = block::Entity::find()
        .filter(block::Column::State.eq(block::State::Set))
        .filter(blocked(one, other).or(blocked(other, one)))
        .one(db)
        .await?;
    Ok(found.is_some())
}

/// Under which keys a user keeps something, up to `limit`.
pub(crate) async fn pref_keys(
    db: &impl ConnectionTrait,
    owner: UserId,
    limit: u64,
) -> Result<Vec<String>> {
    let keys = pref::Entity::find()
        .select_only()
        .column(pref::Column::Key)
        .filter(pref::Column::OwnerId.eq(owner.as_uuid()))
        .filter(pref::Column::State.eq(pref::State::Set))
        .order_by_asc(pref::Column::Key)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    Ok(keys)
}
