//! Writes back what a batch has made and changed, set-at-a-time.

use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::batch::Batch;
use super::table::Touched;
use crate::messages::search;
use crate::store::entity::{
    attachment, block, client_write, conversation, erasure, event, head, hook, hook_lane, member,
    message, pref, reaction, refresh_token, session, user,
};
use crate::store::rows::{Rows, Shape};
use crate::store::{SHARD, facts};

const USERS: Shape<user::Entity> = Shape::by("update users", &[user::Column::Id]).set(&[
    user::Column::Username,
    user::Column::UsernameKey,
    user::Column::DisplayName,
    user::Column::DisplayNameKey,
    user::Column::PasswordHash,
    user::Column::ChangedPos,
    user::Column::DeletedAt,
]);
/// It moves no head, so what a writer remembers of it may be out of date: the database judges which
/// is later.
const USERS_SEEN: Shape<user::Entity> = Shape::by("update users seen", &[user::Column::Id])
    .set(&[user::Column::LastSeenAt])
    .only("v.column2 IS NULL OR users.last_seen_at IS NULL OR users.last_seen_at < v.column2");
const BLOCKS: Shape<block::Entity> = Shape::by(
    "update blocks",
    &[block::Column::OwnerId, block::Column::BlockedId],
)
.set(&[block::Column::State, block::Column::ChangedPos]);
const PREFS: Shape<pref::Entity> =
    Shape::by("update prefs", &[pref::Column::OwnerId, pref::Column::Key]).set(&[
        pref::Column::Value,
        pref::Column::State,
        pref::Column::ChangedPos,
    ]);
const ERASURES: Shape<erasure::Entity> =
    Shape::by("update erasures", &[erasure::Column::UserId]).set(&[erasure::Column::Scope]);
const SESSIONS: Shape<session::Entity> =
    Shape::by("update sessions", &[session::Column::Id]).set(&[
        session::Column::Device,
        session::Column::LastUsedAt,
        session::Column::ExpiresAt,
        session::Column::RevokedAt,
    ]);
const REFRESH_TOKENS: Shape<refresh_token::Entity> =
    Shape::by("update refresh tokens", &[refresh_token::Column::Hash]).set(&[
        refresh_token::Column::UsedAt,
        refresh_token::Column::ReplacedBy,
    ]);
const CONVERSATIONS_ADVANCED: Shape<conversation::Entity> =
    Shape::by("advance conversations", &[conversation::Column::Id]).set(&[
        conversation::Column::LastSeq,
        conversation::Column::ChangedPos,
        conversation::Column::LastPos,
        conversation::Column::LastMessageAt,
        conversation::Column::LastMessagePreview,
        conversation::Column::UpdatedAt,
    ]);
const CONVERSATIONS: Shape<conversation::Entity> =
    Shape::by("update conversations", &[conversation::Column::Id]).set(&[
        conversation::Column::State,
        conversation::Column::Title,
        conversation::Column::LastSeq,
        conversation::Column::MemberCount,
        conversation::Column::MembersPos,
        conversation::Column::ChangedPos,
        conversation::Column::LastPos,
        conversation::Column::LastMessageAt,
        conversation::Column::LastMessagePreview,
        conversation::Column::UpdatedAt,
    ]);
const MEMBERS_ADVANCED: Shape<member::Entity> = Shape::by(
    "advance members",
    &[member::Column::ConversationId, member::Column::UserId],
)
.set(&[
    member::Column::LastReadSeq,
    member::Column::ReadPos,
    member::Column::SelfPos,
    member::Column::DeliveredSeq,
    member::Column::MarkedUnread,
]);
const MEMBERS: Shape<member::Entity> = Shape::by(
    "update members",
    &[member::Column::ConversationId, member::Column::UserId],
)
.set(&[
    member::Column::Role,
    member::Column::State,
    member::Column::JoinedPos,
    member::Column::ChangedPos,
    member::Column::VisibleFromSeq,
    member::Column::LastReadSeq,
    member::Column::ReadPos,
    member::Column::SelfPos,
    member::Column::MutedUntil,
    member::Column::PinnedAt,
    member::Column::ArchivedAt,
    member::Column::DeliveredSeq,
    member::Column::MarkedUnread,
]);
const MESSAGES: Shape<message::Entity> =
    Shape::by("update messages", &[message::Column::Id]).set(&[
        message::Column::Content,
        message::Column::EditedAt,
        message::Column::DeletedAt,
        message::Column::Reactions,
        message::Column::ChangedPos,
        message::Column::Metadata,
        message::Column::Mentions,
        message::Column::Attachments,
    ]);
const REACTIONS: Shape<reaction::Entity> = Shape::by(
    "delete reactions",
    &[
        reaction::Column::MessageId,
        reaction::Column::UserId,
        reaction::Column::Emoji,
    ],
);
const REACTIONS_OF: Shape<reaction::Entity> =
    Shape::by("erase reactions", &[reaction::Column::MessageId]);
const ATTACHMENTS: Shape<attachment::Entity> =
    Shape::by("update attachments", &[attachment::Column::Id]).set(&[
        attachment::Column::ClientId,
        attachment::Column::Size,
        attachment::Column::Sha256,
        attachment::Column::Width,
        attachment::Column::Height,
        attachment::Column::HasPreview,
        attachment::Column::State,
        attachment::Column::ConversationId,
        attachment::Column::MessageId,
        attachment::Column::DueAt,
    ]);
/// Attachments that a deleted conversation loses in one step: few, since senders wait for it.
const RELEASED_AT_ONCE: u64 = 100;
const ATTACHMENTS_GONE: Shape<attachment::Entity> =
    Shape::by("delete attachments", &[attachment::Column::Id]);
const ERASURES_DONE: Shape<erasure::Entity> =
    Shape::by("delete erasures", &[erasure::Column::UserId]);
const HOOKS: Shape<hook::Entity> = Shape::by("update hooks", &[hook::Column::Name]).set(&[
    hook::Column::Pos,
    hook::Column::Holder,
    hook::Column::HeldUntil,
]);
const HOOK_LANES: Shape<hook_lane::Entity> = Shape::by(
    "update lanes of hooks",
    &[hook_lane::Column::Name, hook_lane::Column::Lane],
)
.set(&[
    hook_lane::Column::Pos,
    hook_lane::Column::Tries,
    hook_lane::Column::NextAt,
    hook_lane::Column::Since,
]);
const HOOK_LANES_DONE: Shape<hook_lane::Entity> = Shape::by(
    "delete lanes of hooks",
    &[hook_lane::Column::Name, hook_lane::Column::Lane],
);
const HEAD: Shape<head::Entity> =
    Shape::by("update head", &[head::Column::Shard]).set(&[head::Column::Pos]);

/// Writes everything, the head last, where the database must find exactly one row.
pub(super) async fn flush(
    db: &impl ConnectionTrait,
    rows: &mut Rows,
    batch: &Batch,
) -> Result<(), DbErr> {
    let Touched { new, changed, .. } = batch.users.touched();
    rows.insert::<user::Entity>(db, "insert users", &new)
        .await?;
    rows.update(db, &USERS, &changed).await?;
    let seen: Vec<&user::Model> = batch.seen.values().collect();
    rows.update(db, &USERS_SEEN, &seen).await?;

    let Touched { new, changed, .. } = batch.blocks.touched();
    rows.insert::<block::Entity>(db, "insert blocks", &new)
        .await?;
    rows.update(db, &BLOCKS, &changed).await?;

    let Touched { new, changed, .. } = batch.prefs.touched();
    rows.insert::<pref::Entity>(db, "insert prefs", &new)
        .await?;
    rows.update(db, &PREFS, &changed).await?;

    let Touched {
        new, changed, gone, ..
    } = batch.erasures.touched();
    rows.insert::<erasure::Entity>(db, "insert erasures", &new)
        .await?;
    rows.update(db, &ERASURES, &changed).await?;
    rows.delete(db, &ERASURES_DONE, &gone).await?;

    let Touched { new, changed, .. } = batch.sessions.touched();
    rows.insert::<session::Entity>(db, "insert sessions", &new)
        .await?;
    rows.update(db, &SESSIONS, &changed).await?;

    let Touched { new, changed, .. } = batch.refresh_tokens.touched();
    rows.insert::<refresh_token::Entity>(db, "insert refresh tokens", &new)
        .await?;
    rows.update(db, &REFRESH_TOKENS, &changed).await?;

    let Touched {
        new,
        advanced,
        changed,
        ..
    } = batch.conversations.touched();
    rows.insert::<conversation::Entity>(db, "insert conversations", &new)
        .await?;
    rows.update(db, &CONVERSATIONS_ADVANCED, &advanced).await?;
    rows.update(db, &CONVERSATIONS, &changed).await?;

    let Touched {
        new,
        advanced,
        changed,
        ..
    } = batch.members.touched();
    rows.insert::<member::Entity>(db, "insert members", &new)
        .await?;
    rows.update(db, &MEMBERS_ADVANCED, &advanced).await?;
    rows.update(db, &MEMBERS, &changed).await?;

    let Touched { new, changed, .. } = batch.messages.touched();
    rows.insert::<message::Entity>(db, "insert messages", &new)
        .await?;
    rows.update(db, &MESSAGES, &changed).await?;

    // A reaction that went and came back is as it was.
    let Touched { new, gone, .. } = batch.reactions.touched();
    rows.insert::<reaction::Entity>(db, "insert reactions", &new)
        .await?;
    rows.delete(db, &REACTIONS, &gone).await?;
    let erased: Vec<reaction::Model> = batch.erased.iter().map(|id| of_message(*id)).collect();
    let erased: Vec<&reaction::Model> = erased.iter().collect();
    rows.delete(db, &REACTIONS_OF, &erased).await?;

    let Touched {
        new, changed, gone, ..
    } = batch.attachments.touched();
    // What is released gives its client id back, which a new one may have.
    rows.update(db, &ATTACHMENTS, &changed).await?;
    rows.insert::<attachment::Entity>(db, "insert attachments", &new)
        .await?;
    rows.delete(db, &ATTACHMENTS_GONE, &gone).await?;
    for conversation in &batch.released {
        release_some(db, *conversation).await?;
    }

    let Touched { new, .. } = batch.client_writes.touched();
    rows.insert::<client_write::Entity>(db, "insert client writes", &new)
        .await?;

    let Touched { new, changed, .. } = batch.hooks.touched();
    rows.insert::<hook::Entity>(db, "insert hooks", &new)
        .await?;
    rows.update(db, &HOOKS, &changed).await?;
    let Touched {
        new, changed, gone, ..
    } = batch.hook_lanes.touched();
    rows.insert::<hook_lane::Entity>(db, "insert lanes of hooks", &new)
        .await?;
    rows.update(db, &HOOK_LANES, &changed).await?;
    rows.delete(db, &HOOK_LANES_DONE, &gone).await?;

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
    if batch.is_probe {
        // It differs each time: what is the same, SQLite does not write.
        facts::note(db, facts::READY_AT, batch.now().as_micros()).await?;
    }
    if let Some(prune) = &batch.prune {
        prune.delete(db).await?;
    }
    match &batch.index {
        Some(step) => search::queries::try_to_take(db, step).await,
        None => Ok(()),
    }
}

/// Takes some of what is attached to messages of a conversation from everybody.
async fn release_some(db: &impl ConnectionTrait, conversation: Uuid) -> Result<(), DbErr> {
    let some = Query::select()
        .column(attachment::Column::Id)
        .from(attachment::Entity)
        .and_where(attachment::Column::ConversationId.eq(conversation))
        .and_where(attachment::Column::State.ne(attachment::State::Released))
        .limit(RELEASED_AT_ONCE)
        .to_owned();
    attachment::Entity::update_many()
        .col_expr(attachment::Column::ClientId, Expr::val(None::<String>))
        .col_expr(
            attachment::Column::State,
            Expr::val(attachment::State::Released),
        )
        .col_expr(attachment::Column::DueAt, Expr::val(0_i64))
        .filter(attachment::Column::Id.in_subquery(some))
        .exec(db)
        .await?;
    Ok(())
}

/// A row that stands for every reaction to a message.
fn of_message(message_id: Uuid) -> reaction::Model {
    reaction::Model {
        message_id,
        user_id: Uuid::nil(),
        emoji: String::new(),
        created_at: 0,
    }
}
