//! Loads what a batch needs and does not have, in a few statements whatever their number.

use sea_orm::{ConnectionTrait, DbErr, Value};

use super::batch::Batch;
use super::needs::{Needs, direct_key};
use crate::store::entity::{conversation, member, message, refresh_token, session, user};
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
const MEMBERS: Shape<member::Entity> = Shape::by(
    "load members",
    &[member::Column::ConversationId, member::Column::UserId],
);
const SENT: Shape<message::Entity> = Shape::by(
    "load messages by client id",
    &[message::Column::ClientMessageId, message::Column::SenderId],
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
    let members = needs.members.iter();
    let members = members
        .filter(|key| batch.members.get(key).is_none())
        .map(|(conversation, user)| vec![(*conversation).into(), (*user).into()]);
    for member in rows.load(db, &MEMBERS, &keys(members)).await? {
        batch
            .members
            .loaded((member.conversation_id, member.user_id), member);
    }

    let sent = needs.sent.iter();
    let sent = sent.map(|(client_id, sender)| vec![client_id.as_str().into(), (*sender).into()]);
    for message in rows.load(db, &SENT, &keys(sent)).await? {
        let key = (message.client_message_id.clone(), message.sender_id);
        batch.messages.loaded(key, message);
    }
    Ok(())
}

fn keys(keys: impl Iterator<Item = Vec<Value>>) -> Vec<Vec<Value>> {
    keys.collect()
}
