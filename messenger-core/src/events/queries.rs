//! Reads the change log and turns its references into events.

use std::collections::HashMap;
use std::sync::Arc;

use sea_orm::sea_query::{ExprTrait, Query};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::event::{Change, Event, EventKind};
use crate::clock::Timestamp;
use crate::conversations::{self, ConversationHead};
use crate::error::{Error, Result};
use crate::ids::{ConversationId, Position, SessionId, UserId};
use crate::messages::queries::{Window, windows};
use crate::store::SHARD;
use crate::store::entity::{event, head, member};
use crate::users::{self, User};

/// The position of the last change.
pub(super) async fn head(db: &impl ConnectionTrait) -> Result<Position> {
    let row = head::Entity::find_by_id(SHARD).one(db).await?;
    row.map(|row| Position::stored(row.pos))
        .ok_or_else(|| Error::Internal("the change log has no head".to_owned()))
}

/// The lines after a position, up to `limit`, as changes.
pub(super) async fn changes_after(
    db: &impl ConnectionTrait,
    deployment: Uuid,
    after: Position,
    limit: u64,
) -> Result<Vec<Change>> {
    let lines = event::Entity::find()
        .filter(event::Column::Shard.eq(SHARD))
        .filter(event::Column::Pos.gt(after.get()))
        .order_by_asc(event::Column::Pos)
        .limit(limit)
        .all(db)
        .await?;
    render(db, deployment, lines).await
}

/// Of the lines after a position those that a user is told of, up to `limit`, as changes.
pub(super) async fn changes_for(
    db: &impl ConnectionTrait,
    deployment: Uuid,
    user: UserId,
    after: Position,
    limit: u64,
) -> Result<Vec<Change>> {
    let mut mine = Query::select();
    mine.column(member::Column::ConversationId)
        .from(member::Entity)
        .and_where(member::Column::UserId.eq(user.as_uuid()))
        .and_where(member::Column::State.eq(member::State::Joined));
    let lines = event::Entity::find()
        .filter(event::Column::Shard.eq(SHARD))
        .filter(event::Column::Pos.gt(after.get()))
        .filter(
            Condition::any()
                .add(event::Column::ConversationId.in_subquery(mine))
                .add(
                    event::Column::Kind
                        .eq(event::Kind::SessionsRevoked)
                        .and(event::Column::UserId.eq(user.as_uuid())),
                ),
        )
        .order_by_asc(event::Column::Pos)
        .limit(limit)
        .all(db)
        .await?;
    render(db, deployment, lines).await
}

/// The oldest position that the change log still has, if it has any.
pub(super) async fn oldest(db: &impl ConnectionTrait) -> Result<Option<Position>> {
    let row = event::Entity::find()
        .filter(event::Column::Shard.eq(SHARD))
        .order_by_asc(event::Column::Pos)
        .one(db)
        .await?;
    Ok(row.map(|row| Position::stored(row.pos)))
}

async fn render(
    db: &impl ConnectionTrait,
    deployment: Uuid,
    lines: Vec<event::Model>,
) -> Result<Vec<Change>> {
    let of_kind = |kind| lines.iter().filter(move |line| line.kind == kind);
    let sent: Vec<Window> = of_kind(event::Kind::MessageCreated)
        .filter_map(|line| {
            Some(Window {
                conversation: line.conversation_id?,
                first: line.seq?,
                last: line.seq?,
            })
        })
        .collect();
    let messages: HashMap<(Uuid, i64), _> = windows(db, &sent)
        .await?
        .into_values()
        .flatten()
        .map(|message| {
            (
                (message.conversation_id.as_uuid(), message.seq.get()),
                message,
            )
        })
        .collect();
    let senders = messages.values().map(|message| message.sender_id.as_uuid());
    let senders: HashMap<UserId, User> = users::queries::by_ids(db, senders)
        .await?
        .into_iter()
        .map(|user| (user.id, user))
        .collect();
    let created: Vec<Uuid> = of_kind(event::Kind::ConversationCreated)
        .filter_map(|line| line.conversation_id)
        .collect();
    let created: HashMap<ConversationId, _> = conversations::queries::by_ids(db, &created)
        .await?
        .into_iter()
        .map(|conversation| (conversation.id, conversation))
        .collect();

    let damaged = |line: &event::Model| {
        Error::Internal(format!(
            "the change log is damaged at position {}",
            line.pos
        ))
    };
    let mut changes = Vec::with_capacity(lines.len());
    for line in &lines {
        let position = Position::stored(line.pos);
        let at = Timestamp::from_micros(line.created_at);
        let event = |kind| {
            let id = Event::id_at(deployment, position);
            Arc::new(Event::new(id, position, at, kind))
        };
        let change = match line.kind {
            event::Kind::MessageCreated => {
                let place = line
                    .conversation_id
                    .zip(line.seq)
                    .ok_or_else(|| damaged(line))?;
                let message = messages.get(&place).ok_or_else(|| damaged(line))?;
                let sender = senders
                    .get(&message.sender_id)
                    .ok_or_else(|| damaged(line))?;
                let conversation = message.conversation_id;
                let head = ConversationHead::after(conversation, &message.content, at);
                Change::MessageCreated {
                    conversation,
                    event: event(EventKind::MessageCreated {
                        message: message.clone(),
                        sender: sender.clone(),
                        conversation: head,
                    }),
                }
            }
            event::Kind::ConversationCreated => {
                let id = line.conversation_id.ok_or_else(|| damaged(line))?.into();
                let mut conversation = created.get(&id).ok_or_else(|| damaged(line))?.clone();
                // As it was then: what was sent since comes with its own event.
                conversation.updated_at = at;
                conversation.last_message_at = None;
                conversation.last_message_preview = None;
                conversation.last_seq = crate::ids::Seq::ZERO;
                Change::ConversationCreated {
                    conversation: id,
                    members: ids(line).map(UserId::from).collect(),
                    event: event(EventKind::ConversationCreated { conversation }),
                }
            }
            event::Kind::SessionsRevoked => Change::SessionsRevoked {
                position,
                user: line.user_id.ok_or_else(|| damaged(line))?.into(),
                sessions: ids(line).map(SessionId::from).collect(),
                at,
            },
            event::Kind::UserChanged | event::Kind::PasswordChanged => Change::Unseen { position },
        };
        changes.push(change);
    }
    Ok(changes)
}

/// The ids that a line carries, 16 bytes each.
fn ids(line: &event::Model) -> impl Iterator<Item = Uuid> + '_ {
    let packed = line.aux.as_deref().unwrap_or_default();
    packed
        .chunks_exact(16)
        .filter_map(|bytes| Uuid::from_slice(bytes).ok())
}
