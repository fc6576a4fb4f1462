//! What is read about accounts and sessions.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};

use super::{Actor, Session};
use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::ids::{SessionId, UserId};
use crate::store::Store;
use crate::store::entity::{session, user};

/// The account with a folded username.
pub(super) async fn account(store: &Store, key: &str) -> Result<Option<user::Model>> {
    let found = user::Entity::find()
        .filter(user::Column::UsernameKey.eq(key))
        .one(&store.read())
        .await?;
    Ok(found)
}

/// The account of a user.
pub(super) async fn account_of(store: &Store, user: UserId) -> Result<Option<user::Model>> {
    Ok(user::Entity::find_by_id(user.as_uuid())
        .one(&store.read())
        .await?)
}

/// The sessions of an actor that have not ended, the newest first.
pub(crate) async fn sessions(db: &impl ConnectionTrait, actor: &Actor) -> Result<Vec<Session>> {
    let rows = session::Entity::find()
        .filter(session::Column::UserId.eq(actor.user_id().as_uuid()))
        .filter(session::Column::RevokedAt.is_null())
        .filter(session::Column::ExpiresAt.gt(clock::now().as_micros()))
        .order_by_desc(session::Column::Id)
        .all(db)
        .await?;
    let sessions = rows.into_iter().map(|row| Session {
        id: row.id.into(),
        current: actor.session_id() == Some(row.id.into()),
        device: row.device,
        created_at: Timestamp::from_micros(row.created_at),
        last_used_at: Timestamp::from_micros(row.last_used_at),
        expires_at: Timestamp::from_micros(row.expires_at),
    });
    Ok(sessions.collect())
}

/// Whether a session has ended; an unknown one has.
pub(super) async fn is_revoked(store: &Store, session: SessionId) -> Result<bool> {
    let row = session::Entity::find_by_id(session.as_uuid())
        .one(&store.read())
        .await?;
    Ok(row.is_none_or(|row| row.revoked_at.is_some()))
}

/// The sessions that have ended since a moment.
pub(crate) async fn ended_since(store: &Store, since: Timestamp) -> Result<Vec<session::Model>> {
    let rows = session::Entity::find()
        .filter(session::Column::RevokedAt.gte(since.as_micros()))
        .all(&store.read())
        .await?;
    Ok(rows)
}
