//! What is read about messages.

use std::collections::{BTreeMap, HashSet};

use sea_orm::sea_query::ExprTrait;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Value,
};
use uuid::Uuid;

use super::{Between, History, Message, Reacted, Reaction};
use crate::clock::Timestamp;
use crate::conversations::{self, Membership};
use crate::error::{Error, Result};
use crate::ids::{ConversationId, MessageId, UserId};
use crate::store::entity::{message, reaction};
use crate::store::windows::{self, Window};
use crate::store::{Each, IDS_PER_STATEMENT, fence, filled, filled_ids, statement};

/// Messages between two sequence numbers that a member may see, ascending: the last ones before
/// an end, else the first.
pub(super) async fn history(
    db: &impl ConnectionTrait,
    membership: &Membership,
    between: Between,
    limit: u32,
) -> Result<History> {
    let head = fence::head(db).await?;
    let (conversation, user) = (membership.conversation_id(), membership.user_id());
    let membership = conversations::queries::membership(db, conversation, user).await?;
    let mut query = message::Entity::find()
        .filter(message::Column::ConversationId.eq(membership.conversation_id().as_uuid()))
        .filter(message::Column::Seq.gte(membership.visible_from().get()))
        // One more tells whether there are more.
        .limit(u64::from(limit) + 1);
    if let Some(after) = between.after {
        query = query.filter(message::Column::Seq.gt(after.get()));
    }
    query = match between.before {
        Some(before) => query
            .filter(message::Column::Seq.lt(before.get()))
            .order_by_desc(message::Column::Seq),
        None => query.order_by_asc(message::Column::Seq),
    };
    let mut rows = query.all(db).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    if between.before.is_some() {
        rows.reverse();
    }
    let mut messages: Vec<Message> = rows.into_iter().map(Message::from).collect();
    mark_mine(db, user, &mut messages).await?;
    Ok(History {
        messages,
        has_more,
        stamp: fence::stamp(&head),
        membership_version: membership.version(),
    })
}

/// A message of a conversation, if the member may see it.
pub(crate) async fn find_one(
    db: &impl ConnectionTrait,
    membership: &Membership,
    id: MessageId,
) -> Result<Option<Message>> {
    let row = message::Entity::find_by_id(id.as_uuid())
        .filter(message::Column::ConversationId.eq(membership.conversation_id().as_uuid()))
        .filter(message::Column::Seq.gte(membership.visible_from().get()))
        .one(db)
        .await?;
    Ok(row.map(Message::from))
}

/// Who reacts to a message and how, after somebody's reaction.
pub(super) async fn reactions_after(
    db: &impl ConnectionTrait,
    message: MessageId,
    after: Option<(UserId, &Reaction)>,
    limit: u32,
) -> Result<Vec<Reacted>> {
    let mut query = reaction::Entity::find()
        .filter(reaction::Column::MessageId.eq(message.as_uuid()))
        .order_by_asc(reaction::Column::UserId)
        .order_by_asc(reaction::Column::Emoji)
        .limit(u64::from(limit));
    if let Some((user, last)) = after {
        let of_others = reaction::Column::UserId.gt(user.as_uuid());
        let of_them = reaction::Column::UserId.eq(user.as_uuid());
        let others = reaction::Column::Emoji.gt(last.as_str());
        query = query.filter(of_others.or(of_them.and(others)));
    }
    let rows = query.all(db).await?;
    let reacted = rows.into_iter().map(|row| Reacted {
        user_id: row.user_id.into(),
        emoji: row.emoji,
        created_at: Timestamp::from_micros(row.created_at),
    });
    Ok(reacted.collect())
}

/// A stretch of a conversation, without its beginning and with its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) conversation: ConversationId,
    pub(crate) after: i64,
    pub(crate) upto: i64,
}

/// The messages of a stretch that a user has sent, and those of others to which they react; of
/// deleted ones nothing is left.
pub(crate) async fn traces(
    db: &impl ConnectionTrait,
    user: UserId,
    place: Place,
) -> Result<(Vec<MessageId>, Vec<MessageId>)> {
    let within = "m.conversation_id = ? AND m.seq > ? AND m.seq <= ? AND m.deleted_at IS NULL";
    let sent =
        format!("SELECT m.id FROM messages AS m WHERE {within} AND m.sender_id = ? ORDER BY m.seq");
    let reacted = format!(
        "SELECT m.id FROM messages AS m WHERE {within} AND m.sender_id <> ? \
         AND m.reactions IS NOT NULL AND EXISTS (SELECT 1 FROM reactions AS r \
         WHERE r.message_id = m.id AND r.user_id = ?) ORDER BY m.seq"
    );
    let me: Value = user.as_uuid().into();
    let values: Vec<Value> = vec![
        place.conversation.as_uuid().into(),
        place.after.into(),
        place.upto.into(),
        me.clone(),
    ];
    let mut found = Vec::with_capacity(2);
    for (sql, more) in [(sent, None), (reacted, Some(me))] {
        let values = values.iter().cloned().chain(more);
        let rows = db.query_all_raw(statement(db, &sql, values)).await?;
        let ids = rows.iter().map(|row| row.try_get_by_index::<Uuid>(0));
        let ids: Vec<Uuid> = ids.collect::<Result<_, _>>()?;
        found.push(ids.into_iter().map(MessageId::from).collect());
    }
    let reacted = found.pop().unwrap_or_default();
    Ok((found.pop().unwrap_or_default(), reacted))
}

/// The messages of a stretch that a user has sent, ascending.
pub(crate) async fn sent_by(
    db: &impl ConnectionTrait,
    user: UserId,
    place: Place,
) -> Result<Vec<Message>> {
    let rows = message::Entity::find()
        .filter(message::Column::ConversationId.eq(place.conversation.as_uuid()))
        .filter(message::Column::Seq.gt(place.after))
        .filter(message::Column::Seq.lte(place.upto))
        .filter(message::Column::SenderId.eq(user.as_uuid()))
        .order_by_asc(message::Column::Seq)
        .all(db)
        .await?;
    Ok(rows.into_iter().map(Message::from).collect())
}

/// The reactions of a user to messages of a stretch, in the order of these.
pub(crate) async fn reacted_by(
    db: &impl ConnectionTrait,
    user: UserId,
    place: Place,
) -> Result<Vec<(MessageId, Reacted)>> {
    let sql = "SELECT r.message_id, r.user_id, r.emoji, r.created_at FROM messages AS m \
               JOIN reactions AS r ON r.message_id = m.id AND r.user_id = ? \
               WHERE m.conversation_id = ? AND m.seq > ? AND m.seq <= ? \
               AND m.reactions IS NOT NULL ORDER BY m.seq, r.emoji";
    let values: [Value; 4] = [
        user.as_uuid().into(),
        place.conversation.as_uuid().into(),
        place.after.into(),
        place.upto.into(),
    ];
    let rows = reaction::Entity::find()
        .from_raw_sql(statement(db, sql, values))
        .all(db)
        .await?;
    let reacted = rows.into_iter().map(|row| {
        let reacted = Reacted {
            user_id: row.user_id.into(),
            emoji: row.emoji,
            created_at: Timestamp::from_micros(row.created_at),
        };
        (row.message_id.into(), reacted)
    });
    Ok(reacted.collect())
}

/// Marks the reactions of messages that are a user's own.
pub(crate) async fn mark_mine(
    db: &impl ConnectionTrait,
    user: UserId,
    messages: &mut [Message],
) -> Result<()> {
    let with_reactions: Vec<Uuid> = messages
        .iter()
        .filter(|message| !message.reactions.is_empty())
        .map(|message| message.id.as_uuid())
        .collect();
    let mut mine = HashSet::new();
    for some in with_reactions.chunks(IDS_PER_STATEMENT) {
        let rows = reaction::Entity::find()
            .filter(reaction::Column::MessageId.is_in(filled_ids(some.iter().copied())))
            .filter(reaction::Column::UserId.eq(user.as_uuid()))
            .all(db)
            .await?;
        mine.extend(rows.into_iter().map(|row| (row.message_id, row.emoji)));
    }
    if mine.is_empty() {
        return Ok(());
    }
    for message in messages {
        let id = message.id.as_uuid();
        for reactions in &mut message.reactions {
            reactions.mine = mine.contains(&(id, reactions.emoji.clone()));
        }
    }
    Ok(())
}

/// The messages of several stretches, ordered by conversation and sequence number. Sequence
/// numbers have no gaps, so a stretch says how many rows it has.
pub(crate) async fn within(
    db: &impl ConnectionTrait,
    stretches: &[Window],
) -> Result<BTreeMap<Uuid, Vec<Message>>> {
    let mut found: BTreeMap<Uuid, Vec<Message>> = BTreeMap::new();
    for row in windows::rows(db, stretches).await? {
        found
            .entry(row.conversation_id)
            .or_default()
            .push(row.into());
    }
    Ok(found)
}

/// What is asked about changed messages of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edits {
    pub(crate) conversation: Uuid,
    /// Those that changed after this position.
    pub(crate) after: i64,
    pub(crate) visible_from: i64,
    /// But none of this stretch, both ends included.
    pub(crate) without: (i64, i64),
}

/// The messages that have changed since they were sent, up to a position: in the order of what is
/// asked, and by their changes within each, the first `limit` of them.
pub(crate) async fn edited(
    db: &impl ConnectionTrait,
    edits: &[Edits],
    upto: i64,
    limit: usize,
) -> Result<Vec<message::Model>> {
    if edits.is_empty() {
        return Ok(Vec::new());
    }
    let nothing = |edit: &Edits| Edits {
        after: i64::MAX,
        ..*edit
    };
    let edits = filled(edits.iter().copied(), nothing);
    let mut values: Vec<Value> = Vec::with_capacity(6 * edits.len() + 3);
    for (place, edit) in (0_i64..).zip(&edits) {
        values.extend([
            Value::from(edit.conversation),
            edit.after.into(),
            edit.visible_from.into(),
            edit.without.0.into(),
            edit.without.1.into(),
            place.into(),
        ]);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    values.extend([upto.into(), limit.into()]);
    // Along an index, no further than the limit: of very many edits none are read for nothing.
    let (table, order, then) = match db.get_database_backend() {
        DbBackend::Postgres => {
            values.push(limit.into());
            let then = "ORDER BY w.column6, m.changed_pos LIMIT ?";
            ("messages AS m", "ORDER BY m.changed_pos LIMIT ?", then)
        }
        _ => ("messages AS m INDEXED BY messages_changed", "", "LIMIT ?"),
    };
    let each = Each {
        types: &["uuid", "bigint", "bigint", "bigint", "bigint", "bigint"],
        count: edits.len(),
        columns: &windows::columns(),
        table,
        of: &format!(
            "m.conversation_id = w.column1 AND m.changed_pos > w.column2 \
             AND m.changed_pos <= ? AND m.changed_pos > m.created_pos AND m.seq >= w.column3 \
             AND NOT (m.seq >= w.column4 AND m.seq <= w.column5) {order}"
        ),
        then,
    };
    let rows = message::Entity::find().from_raw_sql(statement(db, &each.sql(db), values));
    Ok(rows.all(db).await?)
}

/// The position at which a message was sent.
pub(crate) async fn created_pos(
    db: &impl ConnectionTrait,
    conversation: Uuid,
    seq: i64,
) -> Result<i64> {
    let row = message::Entity::find()
        .select_only()
        .column(message::Column::CreatedPos)
        .filter(message::Column::ConversationId.eq(conversation))
        .filter(message::Column::Seq.eq(seq))
        .into_tuple()
        .one(db)
        .await?;
    row.ok_or_else(|| Error::Internal(format!("message {seq} of {conversation} is missing")))
}
