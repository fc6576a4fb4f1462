//! What is read about attachments.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::conversations;
use crate::error::{Error, Result};
use crate::ids::{AttachmentId, MessageId, UserId};
use crate::messages;
use crate::store::entity::attachment::{Column, Entity, Model, State};

/// An attachment that somebody may see: their own while no message has it, then with its message.
pub(super) async fn seen_by(
    db: &impl ConnectionTrait,
    user: UserId,
    id: AttachmentId,
) -> Result<Model> {
    let row = Entity::find_by_id(id.as_uuid())
        .filter(Column::State.eq(State::Ready))
        .one(db)
        .await?;
    let row = row.ok_or(Error::AttachmentNotFound)?;
    let (Some(conversation), Some(message)) = (row.conversation_id, row.message_id) else {
        let is_own = row.owner_id == user.as_uuid();
        return is_own.then_some(row).ok_or(Error::AttachmentNotFound);
    };
    let membership = conversations::queries::membership(db, conversation.into(), user).await;
    let membership = match membership {
        Err(Error::ConversationNotFound) => return Err(Error::AttachmentNotFound),
        membership => membership?,
    };
    let message = MessageId::from(message);
    let message = messages::queries::find_one(db, &membership, message).await?;
    match message {
        Some(message) if message.deleted_at.is_none() => Ok(row),
        Some(_) | None => Err(Error::AttachmentNotFound),
    }
}

/// Attachments whose time is over, those first that wait for longest.
pub(super) async fn due(
    db: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Uuid>> {
    let rows = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::DueAt.lte(now.as_micros()))
        .order_by_asc(Column::DueAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows)
}
