//! Loads what a batch needs and does not have, in a few statements whatever their number.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, DbErr, Value};
use uuid::Uuid;

use super::batch::{Batch, Kept};
use super::needs::{Needs, beside, direct_key};
use crate::attachments;
use crate::store::entity::{
    attachment, block, client_write, conversation, erasure, hook, hook_lane, member, message, pref,
    reaction, refresh_token, session, user,
};
use crate::store::rows::{Rows, Shape};

const USERS: Shape<user::Entity> = Shape::by("load users", &[user::Column::Id]);
const USERNAMES: Shape<user::Entity> =
    Shape::by("load users by username", &[user::Column::UsernameKey]);
const SESSIONS: Shape<session::Entity> = Shape::by("load sessions", &[session::Column::Id]);
const SESSIONS_OF: Shape<session::Entity> =
    Shape::by("load sessions of users", &[session::Column::UserId]).only("t.revoked_at IS NULL");
const REFRESH_TOKENS: Shape<refresh_token::Entity> =
    Shape::by("load refresh tokens", &[refresh_token::Column::Hash]);
const CONVERSATIONS: Shape<conversation::Entity> =
    Shape::by("load conversations", &[conversation::Column::Id]);
const DIRECTS: Shape<conversation::Entity> = Shape::by(
    "load direct conversations",
    &[conversation::Column::DirectKey],
);
const BLOCKS: Shape<block::Entity> = Shape::by(
    "load blocks",
    &[block::Column::OwnerId, block::Column::BlockedId],
);
const BLOCKS_SET: Shape<block::Entity> = Shape::by(
    "count blocks",
    &[block::Column::OwnerId, block::Column::ChangedPos],
)
.only("t.state = 1");
const PREFS: Shape<pref::Entity> =
    Shape::by("load prefs", &[pref::Column::OwnerId, pref::Column::Key]);
const PREFS_SET: Shape<pref::Entity> = Shape::by(
    "count prefs",
    &[pref::Column::OwnerId, pref::Column::ChangedPos],
)
.only("t.state = 1");
const PREF_KEYS: Shape<pref::Entity> = Shape::by(
    "count keys of prefs",
    &[pref::Column::OwnerId, pref::Column::ChangedPos],
);
const MEMBERS: Shape<member::Entity> = Shape::by(
    "load members",
    &[member::Column::ConversationId, member::Column::UserId],
);
const OWNERS: Shape<member::Entity> =
    Shape::by("load owners", &[member::Column::ConversationId]).only("t.role = 3 AND t.state = 1");
const DELETED: Shape<message::Entity> = Shape::by(
    "count deleted messages",
    &[message::Column::ConversationId, message::Column::Seq],
)
.only("t.deleted_at IS NOT NULL");
const SENT: Shape<message::Entity> = Shape::by(
    "load messages by client id",
    &[message::Column::ClientMessageId, message::Column::SenderId],
);
const MESSAGES: Shape<message::Entity> = Shape::by("load messages", &[message::Column::Id]);
const REACTIONS: Shape<reaction::Entity> = Shape::by(
    "load reactions",
    &[reaction::Column::MessageId, reaction::Column::UserId],
);
const ATTACHMENTS: Shape<attachment::Entity> =
    Shape::by("load attachments", &[attachment::Column::Id]);
const ATTACHMENTS_BEGUN: Shape<attachment::Entity> = Shape::by(
    "load attachments by client id",
    &[attachment::Column::ClientId, attachment::Column::OwnerId],
);
const ATTACHMENTS_UNSENT: Shape<attachment::Entity> = Shape::by(
    "count attachments",
    &[attachment::Column::OwnerId, attachment::Column::DueAt],
)
.only("t.state <> 3");
const ERASURES: Shape<erasure::Entity> = Shape::by("load erasures", &[erasure::Column::UserId]);
const CLIENT_WRITES: Shape<client_write::Entity> = Shape::by(
    "load client writes",
    &[
        client_write::Column::ClientId,
        client_write::Column::ActorId,
    ],
);

const HOOKS: Shape<hook::Entity> = Shape::by("load hooks", &[hook::Column::Name]);
const HOOK_LANES: Shape<hook_lane::Entity> = Shape::by(
    "load lanes of hooks",
    &[hook_lane::Column::Name, hook_lane::Column::Lane],
);

/// Loads in the order in which keys lead to further keys: tokens to sessions to users, pairs of
/// people to conversations to members.
pub(super) async fn load(
    db: &impl ConnectionTrait,
    rows: &mut Rows,
    mut needs: Needs,
    batch: &mut Batch,
) -> Result<(), DbErr> {
    let tokens = needs
        .refresh_tokens
        .iter()
        .map(|hash| vec![hash.clone().into()]);
    let tokens = rows.load(db, &REFRESH_TOKENS, &keys(tokens)).await?;
    let successors = tokens.iter().filter_map(|token| token.replaced_by.clone());
    let successors = keys(successors.map(|hash| vec![hash.into()]));
    let successors = rows.load(db, &REFRESH_TOKENS, &successors).await?;
    for token in successors.into_iter().chain(tokens) {
        needs.sessions.insert(token.session_id);
        batch.refresh_tokens.loaded(token.hash.clone(), token);
    }
    let sessions = needs.sessions.iter().map(|id| vec![(*id).into()]);
    for session in rows.load(db, &SESSIONS, &keys(sessions)).await? {
        needs.users.insert(session.user_id);
        batch.sessions.loaded(session.id, session);
    }
    let owners = needs.sessions_of.iter().map(|id| vec![(*id).into()]);
    for session in rows.load(db, &SESSIONS_OF, &keys(owners)).await? {
        batch.sessions.loaded(session.id, session);
    }

    let usernames = needs.usernames.iter();
    let usernames = usernames
        .filter(|key| !batch.usernames.contains_key(*key))
        .map(|key| vec![key.as_str().into()]);
    for user in rows.load(db, &USERNAMES, &keys(usernames)).await? {
        batch.usernames.insert(user.username_key.clone(), user.id);
        batch.users.loaded(user.id, user);
    }
    let users = needs.users.iter();
    let users = users
        .filter(|id| batch.users.get(id).is_none())
        .map(|id| vec![(*id).into()]);
    for user in rows.load(db, &USERS, &keys(users)).await? {
        batch.users.loaded(user.id, user);
    }

    let directs = needs
        .directs
        .iter()
        .map(|(one, other)| direct_key(*one, *other));
    let directs = directs
        .filter(|key| !batch.directs.contains_key(key))
        .map(|key| vec![key.into()]);
    for direct in rows.load(db, &DIRECTS, &keys(directs)).await? {
        if let Some(key) = direct.direct_key.clone() {
            batch.directs.insert(key, direct.id);
        }
        batch.conversations.loaded(direct.id, direct);
    }
    let conversations = needs.conversations.iter();
    let conversations = conversations
        .filter(|id| batch.conversations.get(id).is_none())
        .map(|id| vec![(*id).into()]);
    for conversation in rows.load(db, &CONVERSATIONS, &keys(conversations)).await? {
        batch.conversations.loaded(conversation.id, conversation);
    }
    load_own(db, rows, &mut needs, batch).await?;
    let members = needs.members.iter();
    let members = members
        .filter(|key| batch.members.get(key).is_none())
        .map(|(conversation, user)| vec![(*conversation).into(), (*user).into()]);
    for member in rows.load(db, &MEMBERS, &keys(members)).await? {
        batch
            .members
            .loaded((member.conversation_id, member.user_id), member);
    }

    let owned = needs.owners_beside.iter();
    let owned = owned
        .filter(|key| {
            let member = batch.members.get(key);
            member.is_some_and(|member| member.role == member::Role::Owner)
        })
        .map(|(conversation, _)| *conversation);
    let owned: HashSet<Uuid> = owned.chain(needs.owners.iter().copied()).collect();
    let owned = owned.into_iter().map(|id| vec![id.into()]);
    for member in rows.load(db, &OWNERS, &keys(owned)).await? {
        batch
            .members
            .loaded((member.conversation_id, member.user_id), member);
    }

    // Where a member's marker is, and where it is asked to go. A place at or after the end has
    // nothing behind it.
    let mut places = HashSet::new();
    for (conversation, user, seq) in &needs.unread {
        let row = batch.conversations.get(conversation);
        let member = batch.members.get(&(*conversation, *user));
        let (Some(row), Some(member)) = (row, member) else {
            continue;
        };
        for marker in [member.last_read_seq, *seq] {
            let after = marker.max(member.visible_from_seq - 1);
            if after < row.last_seq {
                places.insert((*conversation, after));
            }
        }
    }
    let places = places.into_iter();
    let places = places.map(|(conversation, after)| vec![conversation.into(), after.into()]);
    for count in rows.count_beyond(db, &DELETED, &keys(places)).await? {
        let place: (Uuid, i64) = (count.try_get_by_index(0)?, count.try_get_by_index(1)?);
        batch
            .deleted_after
            .insert(place, count.try_get_by_index(2)?);
    }

    let sent = needs.sent.iter();
    let sent = sent.map(|(client_id, sender)| vec![client_id.as_str().into(), (*sender).into()]);
    for message in rows.load(db, &SENT, &keys(sent)).await? {
        let key = (message.client_message_id.clone(), message.sender_id);
        batch.sent.insert(key, message.id);
        batch.messages.loaded(message.id, message);
    }
    let messages = needs.messages.iter().map(|id| vec![(*id).into()]);
    for message in rows.load(db, &MESSAGES, &keys(messages)).await? {
        batch.messages.loaded(message.id, message);
    }
    load_attachments(db, rows, &needs, batch).await?;
    let reactions = needs.reactions.iter();
    let reactions = reactions.map(|(message, user)| vec![(*message).into(), (*user).into()]);
    for reaction in rows.load(db, &REACTIONS, &keys(reactions)).await? {
        let key = (
            reaction.message_id,
            reaction.user_id,
            reaction.emoji.clone(),
        );
        batch.reactions.loaded(key, reaction);
    }
    let erasures = needs.erasures.iter().map(|id| vec![(*id).into()]);
    for erasure in rows.load(db, &ERASURES, &keys(erasures)).await? {
        batch.erasures.loaded(erasure.user_id, erasure);
    }
    let writes = needs.client_writes.iter();
    let writes = writes.map(|(client_id, actor)| vec![client_id.as_str().into(), (*actor).into()]);
    for write in rows.load(db, &CLIENT_WRITES, &keys(writes)).await? {
        let key = (write.client_id.clone(), write.actor_id);
        batch.client_writes.loaded(key, write);
    }
    let hooks = needs.hooks.iter().map(|name| vec![name.as_str().into()]);
    for hook in rows.load(db, &HOOKS, &keys(hooks)).await? {
        batch.hooks.loaded(hook.name.clone(), hook);
    }
    let lanes = needs.hook_lanes.iter();
    let lanes = lanes.map(|(name, lane)| vec![name.as_str().into(), (*lane).into()]);
    for lane in rows.load(db, &HOOK_LANES, &keys(lanes)).await? {
        batch
            .hook_lanes
            .loaded((lane.name.clone(), lane.lane), lane);
    }
    Ok(())
}

/// Loads attachments: those that are named, those that messages have, and how many people have.
async fn load_attachments(
    db: &impl ConnectionTrait,
    rows: &mut Rows,
    needs: &Needs,
    batch: &mut Batch,
) -> Result<(), DbErr> {
    let messages = needs.attachments_of.iter();
    let messages = messages.filter_map(|id| batch.messages.get(id));
    let held = messages.flat_map(|row| attachments::held_by(row.attachments.as_deref()));
    let held = held.map(|attachment| attachment.id.as_uuid());
    let ids: HashSet<Uuid> = held.chain(needs.attachments.iter().copied()).collect();
    let ids = ids.into_iter().map(|id| vec![id.into()]);
    for attachment in rows.load(db, &ATTACHMENTS, &keys(ids)).await? {
        batch.attachments.loaded(attachment.id, attachment);
    }
    let begun = needs.attachments_begun.iter();
    let begun = begun.map(|(client_id, owner)| vec![client_id.as_str().into(), (*owner).into()]);
    for attachment in rows.load(db, &ATTACHMENTS_BEGUN, &keys(begun)).await? {
        if let Some(client_id) = attachment.client_id.clone() {
            let key = (client_id, attachment.owner_id);
            batch.attachments_begun.insert(key, attachment.id);
        }
        batch.attachments.loaded(attachment.id, attachment);
    }
    let owners = needs.attachment_counts.iter();
    let owners = owners.map(|owner| vec![(*owner).into(), 0_i64.into()]);
    for count in rows
        .count_beyond(db, &ATTACHMENTS_UNSENT, &keys(owners))
        .await?
    {
        let owner: Uuid = count.try_get_by_index(0)?;
        let unsent = count.try_get_by_index(2)?;
        batch.attachments_unsent.insert(owner, unsent);
    }
    Ok(())
}

/// Loads blocks and what people keep for themselves. That two people have not blocked each other is
/// remembered as well, so that a direct conversation in use costs no look-up.
async fn load_own(
    db: &impl ConnectionTrait,
    rows: &mut Rows,
    needs: &mut Needs,
    batch: &mut Batch,
) -> Result<(), DbErr> {
    let mut others = HashSet::new();
    for (conversation, user) in &needs.peers {
        others.insert(*user);
        let row = batch.conversations.get(conversation);
        let key = row.and_then(|row| row.direct_key.as_deref());
        if let Some(other) = key.and_then(|key| beside(key, *user)) {
            needs.blocks.extend([(*user, other), (other, *user)]);
            others.insert(other);
        }
    }
    let others = others.iter();
    let others = others
        .filter(|id| batch.users.get(id).is_none())
        .map(|id| vec![(*id).into()]);
    for user in rows.load(db, &USERS, &keys(others)).await? {
        batch.users.loaded(user.id, user);
    }
    let unknown: Vec<(Uuid, Uuid)> = needs
        .blocks
        .iter()
        .filter(|key| !batch.blocks_known.contains(key))
        .copied()
        .collect();
    let blocks = unknown.iter();
    let blocks = blocks.map(|(owner, blocked)| vec![(*owner).into(), (*blocked).into()]);
    for block in rows.load(db, &BLOCKS, &keys(blocks)).await? {
        batch
            .blocks
            .loaded((block.owner_id, block.blocked_id), block);
    }
    batch.blocks_known.extend(unknown);
    let owners = needs.block_counts.iter();
    let owners = owners.map(|owner| vec![(*owner).into(), (-1_i64).into()]);
    for count in rows.count_beyond(db, &BLOCKS_SET, &keys(owners)).await? {
        let owner: Uuid = count.try_get_by_index(0)?;
        batch.blocks_set.insert(owner, count.try_get_by_index(2)?);
    }

    let prefs = needs.prefs.iter();
    let prefs = prefs.map(|(owner, key)| vec![(*owner).into(), key.as_str().into()]);
    for pref in rows.load(db, &PREFS, &keys(prefs)).await? {
        batch.prefs.loaded((pref.owner_id, pref.key.clone()), pref);
    }
    let owners = needs.pref_counts.iter();
    let owners = keys(owners.map(|owner| vec![(*owner).into(), (-1_i64).into()]));
    for count in rows.count_beyond(db, &PREFS_SET, &owners).await? {
        let kept: &mut Kept = batch
            .prefs_kept
            .entry(count.try_get_by_index(0)?)
            .or_default();
        kept.set = count.try_get_by_index(2)?;
    }
    for count in rows.count_beyond(db, &PREF_KEYS, &owners).await? {
        let kept: &mut Kept = batch
            .prefs_kept
            .entry(count.try_get_by_index(0)?)
            .or_default();
        kept.keys = count.try_get_by_index(2)?;
    }
    Ok(())
}

fn keys(keys: impl Iterator<Item = Vec<Value>>) -> Vec<Vec<Value>> {
    keys.collect()
}
