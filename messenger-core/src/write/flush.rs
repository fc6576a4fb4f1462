//! Writes back what a batch has made and changed, set-at-a-time.

use sea_orm::{ConnectionTrait, DbErr};

use super::batch::Batch;
use crate::store::SHARD;
use crate::store::entity::{
    conversation, event, head, member, message, refresh_token, session, user,
};
use crate::store::rows::{Rows, Shape};

const USERS: Shape<user::Entity> = Shape::by("update users", &[user::Column::Id]).set(&[
    user::Column::DisplayName,
    user::Column::DisplayNameKey,
    user::Column::PasswordHash,
    user::Column::ChangedPos,
]);
const SESSIONS: Shape<session::Entity> =
    Shape::by("update sessions", &[session::Column::Id]).set(&[
        session::Column::LastUsedAt,
        session::Column::ExpiresAt,
        session::Column::RevokedAt,
    ]);
const REFRESH_TOKENS: Shape<refresh_token::Entity> =
    Shape::by("update refresh tokens", &[refresh_token::Column::Hash]).set(&[
        refresh_token::Column::UsedAt,
        refresh_token::Column::ReplacedBy,
    ]);
const CONVERSATIONS: Shape<conversation::Entity> =
    Shape::by("update conversations", &[conversation::Column::Id]).set(&[
        conversation::Column::LastSeq,
        conversation::Column::ChangedPos,
        conversation::Column::LastPos,
        conversation::Column::LastMessageAt,
        conversation::Column::LastMessagePreview,
        conversation::Column::UpdatedAt,
    ]);
const MEMBERS: Shape<member::Entity> = Shape::by(
    "update members",
    &[member::Column::ConversationId, member::Column::UserId],
)
.set(&[
    member::Column::LastReadSeq,
    member::Column::ReadPos,
    member::Column::SelfPos,
]);
const HEAD: Shape<head::Entity> =
    Shape::by("update head", &[head::Column::Shard]).set(&[head::Column::Pos]);

/// Writes everything, the head last, where the database must find exactly one row.
pub(super) async fn flush(
    db: &impl ConnectionTrait,
    rows: &mut Rows,
    batch: &Batch,
) -> Result<(), DbErr> {
    let (new, changed) = batch.users.touched();
    rows.insert::<user::Entity>(db, "insert users", &new)
        .await?;
    rows.update(db, &USERS, &changed).await?;

    let (new, changed) = batch.sessions.touched();
    rows.insert::<session::Entity>(db, "insert sessions", &new)
        .await?;
    rows.update(db, &SESSIONS, &changed).await?;

    let (new, changed) = batch.refresh_tokens.touched();
    rows.insert::<refresh_token::Entity>(db, "insert refresh tokens", &new)
        .await?;
    rows.update(db, &REFRESH_TOKENS, &changed).await?;

    let (new, changed) = batch.conversations.touched();
    rows.insert::<conversation::Entity>(db, "insert conversations", &new)
        .await?;
    rows.update(db, &CONVERSATIONS, &changed).await?;

    let (new, changed) = batch.members.touched();
    rows.insert::<member::Entity>(db, "insert members", &new)
        .await?;
    rows.update(db, &MEMBERS, &changed).await?;

    let (new, _) = batch.messages.touched();
    rows.insert::<message::Entity>(db, "insert messages", &new)
        .await?;
    let events: Vec<&event::Model> = batch.events.iter().collect();
    rows.insert::<event::Entity>(db, "insert events", &events)
        .await?;

    if !batch.events.is_empty() {
        let head = head::Model {
            shard: SHARD,
            pos: batch.head,
            fence_start: 0,
            incarnation: String::new(),
            horizon_pos: 0,
        };
        if rows.update(db, &HEAD, &[&head]).await? != 1 {
            return Err(DbErr::RecordNotUpdated);
        }
    }
    match &batch.prune {
        Some(prune) => prune.delete(db).await,
        None => Ok(()),
    }
}
