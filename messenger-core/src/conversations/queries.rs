//! What is read about conversations and their members.

use std::collections::HashMap;

use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{Conversation, Membership};
use crate::auth::Actor;
use crate::error::{Error, Result};
use crate::ids::{ConversationId, UserId};
use crate::store::entity::{conversation, member};
use crate::store::{IDS_PER_STATEMENT, Store};
use crate::users::{self, User};

/// A user's conversations, the one with the newest message or change first.
pub(crate) async fn list(db: &impl ConnectionTrait, user: UserId) -> Result<Vec<Conversation>> {
    let mut mine = Query::select();
    mine.column(member::Column::ConversationId)
        .from(member::Entity)
        .and_where(member::Column::UserId.eq(user.as_uuid()))
        .and_where(member::Column::State.eq(member::State::Joined));
    let rows = conversation::Entity::find()
        .filter(conversation::Column::Id.in_subquery(mine.clone()))
        .all(db)
        .await?;
    let members = member::Entity::find()
        .filter(member::Column::ConversationId.in_subquery(mine))
        .filter(member::Column::State.eq(member::State::Joined))
        .all(db)
        .await?;
    let mut conversations = with_members(db, &rows, &members).await?;
    conversations.sort_by_key(|conversation| {
        let newest = conversation
            .last_message_at
            .unwrap_or(conversation.updated_at);
        std::cmp::Reverse((newest, conversation.id))
    });
    Ok(conversations)
}

/// Conversations by their ids, whoever asks.
pub(crate) async fn by_ids(db: &impl ConnectionTrait, ids: &[Uuid]) -> Result<Vec<Conversation>> {
    let mut rows = Vec::with_capacity(ids.len());
    let mut members = Vec::with_capacity(2 * ids.len());
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let is_some = conversation::Column::Id.is_in(some.iter().copied());
        rows.append(&mut conversation::Entity::find().filter(is_some).all(db).await?);
        let of_some = member::Column::ConversationId.is_in(some.iter().copied());
        let joined = member::Column::State.eq(member::State::Joined);
        members.append(
            &mut member::Entity::find()
                .filter(of_some)
                .filter(joined)
                .all(db)
                .await?,
        );
    }
    with_members(db, &rows, &members).await
}

async fn with_members(
    db: &impl ConnectionTrait,
    rows: &[conversation::Model],
    members: &[member::Model],
) -> Result<Vec<Conversation>> {
    let users = users::queries::by_ids(db, members.iter().map(|row| row.user_id)).await?;
    let users: HashMap<Uuid, User> = users
        .into_iter()
        .map(|user| (user.id.as_uuid(), user))
        .collect();
    let mut of: HashMap<Uuid, Vec<User>> = HashMap::new();
    for row in members {
        if let Some(user) = users.get(&row.user_id) {
            of.entry(row.conversation_id)
                .or_default()
                .push(user.clone());
        }
    }
    let conversations = rows
        .iter()
        .map(|row| Conversation::of(row, of.remove(&row.id).unwrap_or_default()));
    Ok(conversations.collect())
}

/// The proofs that an actor belongs to conversations, in their order.
pub(super) async fn memberships(
    store: &Store,
    actor: &Actor,
    conversations: &[ConversationId],
) -> Result<Vec<Membership>> {
    let mut found = HashMap::with_capacity(conversations.len());
    for some in conversations.chunks(IDS_PER_STATEMENT) {
        let rows = member::Entity::find()
            .filter(member::Column::UserId.eq(actor.user_id().as_uuid()))
            .filter(member::Column::ConversationId.is_in(some.iter().map(|id| id.as_uuid())))
            .all(&store.read())
            .await?;
        let proofs = rows.iter().filter_map(Membership::of);
        found.extend(proofs.map(|proof| (proof.conversation_id(), proof)));
    }
    conversations
        .iter()
        .map(|id| found.get(id).copied().ok_or(Error::ConversationNotFound))
        .collect()
}

/// The conversations to which a user belongs now.
pub(crate) async fn joined(db: &impl ConnectionTrait, user: UserId) -> Result<Vec<ConversationId>> {
    let rows = member::Entity::find()
        .filter(member::Column::UserId.eq(user.as_uuid()))
        .filter(member::Column::State.eq(member::State::Joined))
        .all(db)
        .await?;
    Ok(rows.iter().map(|row| row.conversation_id.into()).collect())
}
