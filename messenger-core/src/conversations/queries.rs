//! What is read about conversations and their members.

use std::collections::HashMap;

use sea_orm::sea_query::ExprTrait;
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult,
    IdenStatic, Iterable, JoinType, QueryFilter, QueryOrder, QueryResult, QuerySelect, Select,
    Value,
};
use uuid::Uuid;

use super::{Conversation, ConversationHead, Marker, Member, Membership, Own, Settings};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::fault::{Fault, Planted};
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::limits::Limits;
use crate::store::entity::{conversation, member};
use crate::store::windows::{self, Window};
use crate::store::{Each, IDS_PER_STATEMENT, Store, filled, filled_ids, statement};
use crate::users::{self, User};

/// A user's conversations, the one with the newest message or change first.
pub(crate) async fn list(
    db: &impl ConnectionTrait,
    user: UserId,
    limits: &Limits,
) -> Result<Vec<Conversation>> {
    let own = joined_by(user).all(db).await?;
    let mut conversations = read(db, own, Position::ZERO, limits).await?;
    conversations.sort_by_key(|conversation| {
        let newest = conversation
            .last_message_at
            .unwrap_or(conversation.updated_at);
        std::cmp::Reverse((newest, conversation.id))
    });
    Ok(conversations)
}

/// Those of the named conversations to which a user belongs, ordered by id.
pub(crate) async fn some(
    db: &impl ConnectionTrait,
    user: UserId,
    ids: &[ConversationId],
    limits: &Limits,
) -> Result<Vec<Conversation>> {
    let mut own = Vec::with_capacity(ids.len());
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let named = member::Column::ConversationId.is_in(some.iter().map(|id| id.as_uuid()));
        own.extend(joined_by(user).filter(named).all(db).await?);
    }
    let mut conversations = read(db, own, Position::ZERO, limits).await?;
    conversations.sort_by_key(|conversation| conversation.id);
    Ok(conversations)
}

/// A user's memberships in what is not deleted.
fn joined_by(user: UserId) -> Select<member::Entity> {
    all_joined().filter(member::Column::UserId.eq(user.as_uuid()))
}

/// Memberships in what is not deleted.
fn all_joined() -> Select<member::Entity> {
    let conversation = member::Entity::belongs_to(conversation::Entity)
        .from(member::Column::ConversationId)
        .to(conversation::Column::Id);
    member::Entity::find()
        .join(JoinType::InnerJoin, conversation.into())
        .filter(member::Column::State.eq(member::State::Joined))
        .filter(conversation::Column::State.eq(conversation::State::Open))
}

/// The proof that a user belongs to a conversation, in the snapshot of everything else.
pub(crate) async fn membership(
    db: &impl ConnectionTrait,
    conversation: ConversationId,
    user: UserId,
) -> Result<Membership> {
    let row = joined_by(user)
        .filter(member::Column::ConversationId.eq(conversation.as_uuid()))
        .one(db)
        .await?;
    row.as_ref()
        .map(Membership::joined)
        .ok_or(Error::ConversationNotFound)
}

/// Whether the others in a conversation are told that a user is writing: not in a large one, nor
/// where one of two people has blocked the other.
pub(super) async fn may_type(
    db: &impl ConnectionTrait,
    user: UserId,
    id: ConversationId,
    members_max: u32,
) -> Result<bool> {
    let found = joined_by(user)
        .filter(member::Column::ConversationId.eq(id.as_uuid()))
        .select_also(conversation::Entity)
        .one(db)
        .await?;
    let (_, conversation) = found.ok_or(Error::ConversationNotFound)?;
    let conversation = conversation.ok_or(Error::ConversationNotFound)?;
    if conversation.kind != conversation::Kind::Direct {
        return Ok(conversation.member_count <= i64::from(members_max));
    }
    let other = member::Entity::find()
        .filter(member::Column::ConversationId.eq(id.as_uuid()))
        .filter(member::Column::UserId.ne(user.as_uuid()))
        .one(db)
        .await?;
    match other {
        Some(other) => Ok(!users::queries::are_apart(db, user, other.user_id.into()).await?),
        None => Ok(false),
    }
}

/// The small conversations to which people belong.
pub(crate) async fn small(
    db: &impl ConnectionTrait,
    users: &[UserId],
    members_max: u32,
) -> Result<Vec<(UserId, ConversationId)>> {
    let users = filled_ids(users.iter().map(|user| user.as_uuid()));
    let rows: Vec<(Uuid, Uuid)> = all_joined()
        .filter(member::Column::UserId.is_in(users))
        .filter(conversation::Column::MemberCount.lte(i64::from(members_max)))
        .select_only()
        .column(member::Column::UserId)
        .column(member::Column::ConversationId)
        .into_tuple()
        .all(db)
        .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(user, conversation)| (user.into(), conversation.into()))
        .collect())
}

/// The groups to which a user belongs, ordered by id, after a key, up to `limit`.
pub(crate) async fn groups_after(
    db: &impl ConnectionTrait,
    user: UserId,
    key: Uuid,
    limit: u64,
) -> Result<Vec<ConversationId>> {
    let rows = joined_by(user)
        .filter(conversation::Column::Kind.eq(conversation::Kind::Group))
        .filter(member::Column::ConversationId.gt(key))
        .order_by_asc(member::Column::ConversationId)
        .limit(limit)
        .all(db)
        .await?;
    Ok(rows.iter().map(|row| row.conversation_id.into()).collect())
}

/// Who is to own a group after somebody: another owner, else the admin who has been there for
/// longest, else such a member; those whose accounts are deleted last of all.
pub(crate) async fn heir(
    db: &impl ConnectionTrait,
    group: ConversationId,
    after: UserId,
) -> Result<Option<UserId>> {
    let sql = "SELECT m.user_id FROM members AS m JOIN users AS u ON u.id = m.user_id \
               WHERE m.conversation_id = ? AND m.user_id <> ? AND m.state = ? \
               ORDER BY (u.deleted_at IS NOT NULL), m.role DESC, m.joined_pos, m.user_id LIMIT 1";
    let values = [
        group.as_uuid().into(),
        after.as_uuid().into(),
        member::State::Joined.to_value().into(),
    ];
    let row = db.query_one_raw(statement(db, sql, values)).await?;
    let id: Option<Uuid> = row.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(id.map(UserId::from))
}

/// The conversations to which a user ever belonged, deleted ones too, with their last messages:
/// ordered by id, after a key, up to `limit`.
pub(crate) async fn ever_after(
    db: &impl ConnectionTrait,
    user: UserId,
    key: Uuid,
    limit: u64,
) -> Result<Vec<(ConversationId, Seq)>> {
    let conversation = member::Entity::belongs_to(conversation::Entity)
        .from(member::Column::ConversationId)
        .to(conversation::Column::Id);
    let rows: Vec<(Uuid, i64)> = member::Entity::find()
        .select_only()
        .column(member::Column::ConversationId)
        .column(conversation::Column::LastSeq)
        .join(JoinType::InnerJoin, conversation.into())
        .filter(member::Column::UserId.eq(user.as_uuid()))
        .filter(member::Column::ConversationId.gt(key))
        .order_by_asc(member::Column::ConversationId)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    let all = rows.into_iter();
    Ok(all
        .map(|(id, last)| (id.into(), Seq::stored(last)))
        .collect())
}

/// The conversations to which a user ever belonged, with the user's side of them: ordered by id,
/// after a key, up to `limit`.
pub(crate) async fn own_after(
    db: &impl ConnectionTrait,
    user: UserId,
    key: Uuid,
    limit: u64,
) -> Result<Vec<(member::Model, conversation::Model)>> {
    let conversation = member::Entity::belongs_to(conversation::Entity)
        .from(member::Column::ConversationId)
        .to(conversation::Column::Id);
    let rows = member::Entity::find()
        .join(JoinType::InnerJoin, conversation.into())
        .filter(member::Column::UserId.eq(user.as_uuid()))
        .filter(member::Column::ConversationId.gt(key))
        .select_also(conversation::Entity)
        .order_by_asc(member::Column::ConversationId)
        .limit(limit)
        .all(db)
        .await?;
    let rows = rows.into_iter();
    Ok(rows.filter_map(|(own, row)| Some((own, row?))).collect())
}

/// Those of some conversations that a user has left, with when that was.
pub(crate) async fn left(
    db: &impl ConnectionTrait,
    user: UserId,
    conversations: impl IntoIterator<Item = Uuid>,
) -> Result<HashMap<Uuid, Position>> {
    let conversations: Vec<Uuid> = conversations.into_iter().collect();
    let mut left = HashMap::new();
    for some in conversations.chunks(IDS_PER_STATEMENT) {
        let rows = member::Entity::find()
            .filter(member::Column::UserId.eq(user.as_uuid()))
            .filter(member::Column::ConversationId.is_in(filled_ids(some.iter().copied())))
            .filter(member::Column::State.ne(member::State::Joined))
            .all(db)
            .await?;
        let rows = rows.iter();
        left.extend(rows.map(|row| (row.conversation_id, Position::stored(row.changed_pos))));
    }
    Ok(left)
}

/// The conversations to which a user ever belonged.
pub(crate) async fn ever(db: &impl ConnectionTrait, user: UserId) -> Result<Vec<ConversationId>> {
    let all = ever_after(db, user, Uuid::nil(), i64::MAX.unsigned_abs()).await?;
    Ok(all.into_iter().map(|(id, _)| id).collect())
}

/// The members of a conversation after one of them, ordered by id.
pub(super) async fn members(
    db: &impl ConnectionTrait,
    membership: &Membership,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<Member>> {
    let mut rows = member::Entity::find()
        .filter(member::Column::ConversationId.eq(membership.conversation_id().as_uuid()))
        .filter(member::Column::State.eq(member::State::Joined));
    if let Some(after) = after {
        rows = rows.filter(member::Column::UserId.gt(after.as_uuid()));
    }
    let rows = rows
        .order_by_asc(member::Column::UserId)
        .limit(u64::from(limit))
        .all(db)
        .await?;
    // Users come ordered by id as well, and every member is one.
    let users = users::queries::by_ids(db, rows.iter().map(|row| row.user_id)).await?;
    let members = users.into_iter().zip(&rows).map(|(user, row)| Member {
        user,
        role: row.role.into(),
    });
    Ok(members.collect())
}

/// The conversations of one user's memberships, in no particular order. Members are listed where
/// that has changed after `since`.
pub(crate) async fn read(
    db: &impl ConnectionTrait,
    own: Vec<member::Model>,
    since: Position,
    limits: &Limits,
) -> Result<Vec<Conversation>> {
    let joined: HashMap<Uuid, i64> = own
        .iter()
        .map(|own| (own.conversation_id, own.joined_pos))
        .collect();
    let small_max = i64::from(limits.small_conversation_members_max);
    let mut rows = HashMap::with_capacity(own.len());
    let mut members: HashMap<Uuid, Vec<member::Model>> = HashMap::with_capacity(own.len());
    for some in own.chunks(IDS_PER_STATEMENT) {
        let ids = || some.iter().map(|row| row.conversation_id);
        let found = conversation::Entity::find()
            .filter(conversation::Column::Id.is_in(filled_ids(ids())))
            .filter(conversation::Column::State.eq(conversation::State::Open))
            .all(db)
            .await?;
        let (small, large): (Vec<_>, Vec<_>) = found
            .iter()
            .filter(|row| {
                let joined = joined.get(&row.id).copied().unwrap_or(0);
                Ord::max(row.members_pos, joined) > since.get()
            })
            .partition(|row| row.member_count <= small_max);
        let of = |rows: &[&conversation::Model]| {
            member::Column::ConversationId.is_in(filled_ids(rows.iter().map(|row| row.id)))
        };
        let leads = member::Column::Role.ne(member::Role::Member);
        let listed = member::Entity::find()
            .filter(member::Column::State.eq(member::State::Joined))
            .filter(Condition::any().add(of(&small)).add(of(&large).and(leads)))
            .all(db)
            .await?;
        // In a large conversation the member who asks may be none of those who lead it.
        let asking = some.iter().filter(|own| {
            large.iter().any(|row| row.id == own.conversation_id)
                && own.role == member::Role::Member
        });
        for row in listed.into_iter().chain(asking.cloned()) {
            members.entry(row.conversation_id).or_default().push(row);
        }
        rows.extend(found.into_iter().map(|row| (row.id, row)));
    }
    let named = members.values().flatten().map(|row| row.user_id);
    let users: HashMap<Uuid, User> = users::queries::by_ids(db, named)
        .await?
        .into_iter()
        .map(|user| (user.id.as_uuid(), user))
        .collect();
    let unread = unread(db, &own, &rows).await?;
    let conversations = own.iter().filter_map(|own| {
        let row = rows.get(&own.conversation_id)?;
        let mut members: Vec<Member> = members
            .remove(&row.id)
            .unwrap_or_default()
            .iter()
            .filter_map(|member| {
                Some(Member {
                    user: users.get(&member.user_id)?.clone(),
                    role: member.role.into(),
                })
            })
            .collect();
        members.sort_by_key(|member| member.user.id);
        // Who joined after the last message may be one who does not see the past.
        let sees_last = own.visible_from_seq <= row.last_seq;
        Some(Conversation {
            id: row.id.into(),
            kind: row.kind.into(),
            title: row.title.clone(),
            updated_at: Timestamp::from_micros(row.updated_at),
            last_message_preview: row.last_message_preview.clone().filter(|_| sees_last),
            last_message_at: row
                .last_message_at
                .filter(|_| sees_last)
                .map(Timestamp::from_micros),
            last_seq: Seq::stored(row.last_seq),
            member_count: u32::try_from(row.member_count).unwrap_or(u32::MAX),
            members,
            is_large: row.member_count > small_max,
            version: Position::stored(row.changed_pos),
            members_version: Position::stored(row.members_pos),
            own: Own {
                role: own.role.into(),
                membership_version: Position::stored(own.joined_pos),
                visible_from: Seq::stored(own.visible_from_seq),
                last_read: Seq::stored(own.last_read_seq),
                last_delivered: Seq::stored(own.delivered_seq),
                unread_count: unread.get(&row.id).copied().unwrap_or(0),
                marked_unread: own.marked_unread,
                muted_until: own.muted_until.map(Timestamp::from_micros),
                pinned_at: own.pinned_at.map(Timestamp::from_micros),
                archived_at: own.archived_at.map(Timestamp::from_micros),
                version: Position::stored(own.self_pos),
            },
        })
    });
    Ok(conversations.collect())
}

/// How many messages each member has not read.
///
/// Whoever sends has read all before, so none of the messages after a member's marker is their
/// own; and sequence numbers have no gaps. So the difference of two of them is the count, less
/// the few that were deleted.
async fn unread(
    db: &impl ConnectionTrait,
    own: &[member::Model],
    rows: &HashMap<Uuid, conversation::Model>,
) -> Result<HashMap<Uuid, u64>> {
    let unread: Vec<Window> = own
        .iter()
        .filter_map(|own| {
            let last = rows.get(&own.conversation_id)?.last_seq;
            let first = Ord::max(own.visible_from_seq, own.last_read_seq + 1);
            (first <= last).then_some(Window {
                conversation: own.conversation_id,
                first,
                last,
            })
        })
        .collect();
    let deleted = windows::deleted(db, &unread).await?;
    let counts = unread.iter().map(|window| {
        let deleted = deleted.get(&window.conversation).copied().unwrap_or(0);
        let unread = window.last - window.first + 1 - deleted;
        (window.conversation, u64::try_from(unread).unwrap_or(0))
    });
    Ok(counts.collect())
}

/// What everybody in them sees of conversations, by their ids.
pub(crate) async fn heads(
    db: &impl ConnectionTrait,
    ids: &[Uuid],
) -> Result<Vec<ConversationHead>> {
    let mut heads = Vec::with_capacity(ids.len());
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let rows = conversation::Entity::find()
            .filter(conversation::Column::Id.is_in(some.iter().copied()))
            .all(db)
            .await?;
        heads.extend(rows.iter().map(ConversationHead::of));
    }
    Ok(heads)
}

/// What groups are called, by their ids.
pub(crate) async fn titles(
    db: &impl ConnectionTrait,
    ids: impl Iterator<Item = Uuid>,
) -> Result<HashMap<ConversationId, String>> {
    let ids: Vec<Uuid> = ids.collect();
    let mut titles = HashMap::with_capacity(ids.len());
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let rows = conversation::Entity::find()
            .filter(conversation::Column::Id.is_in(some.iter().copied()))
            .all(db)
            .await?;
        let some = rows
            .into_iter()
            .filter_map(|row| Some((row.id.into(), row.title?)));
        titles.extend(some);
    }
    Ok(titles)
}

/// How members keep their conversations, by both ids.
pub(crate) async fn settings(
    db: &impl ConnectionTrait,
    members: &[(Uuid, Uuid)],
) -> Result<HashMap<(ConversationId, UserId), Settings>> {
    let mut settings = HashMap::with_capacity(members.len());
    for some in members.chunks(IDS_PER_STATEMENT / 2) {
        let any = some.iter().fold(Condition::any(), |any, (id, user)| {
            let conversation = member::Column::ConversationId.eq(*id);
            any.add(conversation.and(member::Column::UserId.eq(*user)))
        });
        for row in member::Entity::find().filter(any).all(db).await? {
            let key = (row.conversation_id.into(), row.user_id.into());
            settings.insert(key, Settings::of(&row));
        }
    }
    Ok(settings)
}

/// The proofs that an actor belongs to conversations, in their order.
pub(super) async fn memberships(
    store: &Store,
    actor: &Actor,
    conversations: &[ConversationId],
) -> Result<Vec<Membership>> {
    let mut found = HashMap::with_capacity(conversations.len());
    for some in conversations.chunks(IDS_PER_STATEMENT) {
        let named = member::Column::ConversationId.is_in(some.iter().map(|id| id.as_uuid()));
        let rows = joined_by(actor.user_id())
            .filter(named)
            .select_also(conversation::Entity)
            .all(&store.read())
            .await?;
        let proofs = rows
            .iter()
            .filter_map(|(row, conversation)| Membership::of(row, conversation.as_ref()?));
        found.extend(proofs.map(|proof| (proof.conversation_id(), proof)));
    }
    conversations
        .iter()
        .map(|id| found.get(id).copied().ok_or(Error::ConversationNotFound))
        .collect()
}

/// The conversations to which a user belongs now, each with the first message that the user may
/// see.
pub(crate) async fn joined(
    db: &impl ConnectionTrait,
    user: UserId,
) -> Result<Vec<(ConversationId, Seq)>> {
    let rows = joined_by(user).all(db).await?;
    let joined = rows.iter().map(|row| {
        let visible_from = Seq::stored(row.visible_from_seq);
        (row.conversation_id.into(), visible_from)
    });
    Ok(joined.collect())
}

/// A conversation in which something may have changed for one user.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) own: member::Model,
    pub(crate) last_seq: i64,
    pub(crate) changed_pos: i64,
    pub(crate) last_pos: i64,
    pub(crate) members_pos: i64,
    pub(crate) member_count: i64,
    /// Why the user is not in it any more.
    pub(crate) gone: Option<Gone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Left,
    Removed,
    Deleted,
}

impl Candidate {
    /// The columns that a candidate is read from, of `members AS m` and `conversations AS c`.
    fn columns() -> String {
        let own = member::Column::iter().map(|column| format!("m.{}", column.as_str()));
        let inside = [
            "last_seq",
            "changed_pos",
            "last_pos",
            "members_pos",
            "member_count",
            "state",
        ];
        let inside = inside.map(|column| format!("c.{column} AS c_{column}"));
        own.chain(inside).collect::<Vec<_>>().join(", ")
    }

    fn of(row: &QueryResult) -> Result<Self, DbErr> {
        let own = member::Model::from_query_result(row, "")?;
        let state: conversation::State = row.try_get("c_", "state")?;
        let gone = match (own.state, state) {
            (member::State::Left, _) => Some(Gone::Left),
            (member::State::Removed, _) => Some(Gone::Removed),
            (member::State::Joined, conversation::State::Deleted) => Some(Gone::Deleted),
            (member::State::Joined, conversation::State::Open) => None,
        };
        Ok(Self {
            own,
            last_seq: row.try_get("c_", "last_seq")?,
            changed_pos: row.try_get("c_", "changed_pos")?,
            last_pos: row.try_get("c_", "last_pos")?,
            members_pos: row.try_get("c_", "members_pos")?,
            member_count: row.try_get("c_", "member_count")?,
            gone,
        })
    }
}

/// A user's conversations with the newest messages or changes, newest first, up to `limit`.
pub(crate) async fn newest(
    db: &impl ConnectionTrait,
    user: UserId,
    limit: usize,
) -> Result<Vec<Candidate>> {
    let sql = format!("SELECT {} {NEWEST}", Candidate::columns());
    let rows = db
        .query_all_raw(statement(db, &sql, newest_of(user, limit)))
        .await?;
    Ok(rows.iter().map(Candidate::of).collect::<Result<_, _>>()?)
}

/// Of those the ones that have messages, with the first message that the user may see.
pub(crate) async fn seen(
    db: &impl ConnectionTrait,
    user: UserId,
    limit: usize,
) -> Result<Vec<(ConversationId, Seq)>> {
    let sql = format!("SELECT c.id, m.visible_from_seq, c.last_seq {NEWEST}");
    let rows = db
        .query_all_raw(statement(db, &sql, newest_of(user, limit)))
        .await?;
    let mut seen = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, from): (Uuid, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        if from <= row.try_get_by_index(2)? {
            seen.push((id.into(), Seq::stored(from)));
        }
    }
    Ok(seen)
}

/// The open conversations of somebody, as `c`, and the membership, as `m`; those first that were active
/// last.
const NEWEST: &str = "FROM members AS m JOIN conversations AS c ON c.id = m.conversation_id \
     WHERE m.user_id = ? AND m.state = ? AND c.state = ? \
     ORDER BY coalesce(c.last_message_at, c.updated_at) DESC, c.id DESC LIMIT ?";

fn newest_of(user: UserId, limit: usize) -> [Value; 4] {
    [
        user.as_uuid().into(),
        member::State::Joined.to_value().into(),
        conversation::State::Open.to_value().into(),
        i64::try_from(limit).unwrap_or(i64::MAX).into(),
    ]
}

/// Those of a user's conversations, past ones too, in which something may have changed after a
/// position: ordered by id, from a key on, up to `limit`.
pub(crate) async fn changed(
    db: &impl ConnectionTrait,
    user: UserId,
    from: i64,
    key: Uuid,
    key_too: bool,
    limit: usize,
    planted: Planted,
) -> Result<Vec<Candidate>> {
    let beyond = if key_too { ">=" } else { ">" };
    let (after, order) = match planted.is(Fault::OrderByRecency) {
        false => (format!("m.conversation_id {beyond} ?"), "m.conversation_id"),
        true => {
            let beyond = if key_too { "<=" } else { "<" };
            let key = "(SELECT last_pos FROM conversations WHERE id = ?)";
            let after = format!("c.last_pos {beyond} coalesce({key}, {})", i64::MAX);
            (after, "c.last_pos DESC")
        }
    };
    let sql = format!(
        "SELECT {} FROM members AS m JOIN conversations AS c ON c.id = m.conversation_id \
         WHERE m.user_id = ? AND {after} \
         AND (m.changed_pos > ? OR (m.state = ? AND (m.self_pos > ? OR c.last_pos > ?))) \
         ORDER BY {order} LIMIT ?",
        Candidate::columns()
    );
    let values = [
        user.as_uuid().into(),
        key.into(),
        from.into(),
        member::State::Joined.to_value().into(),
        from.into(),
        from.into(),
        i64::try_from(limit).unwrap_or(i64::MAX).into(),
    ];
    let rows = db.query_all_raw(statement(db, &sql, values)).await?;
    Ok(rows.iter().map(Candidate::of).collect::<Result<_, _>>()?)
}

/// How far the members of conversations have read and received, where that has changed after a
/// position of each; ordered by conversation and member.
pub(crate) async fn markers(
    db: &impl ConnectionTrait,
    after: &[(Uuid, i64)],
) -> Result<Vec<Marker>> {
    let mut markers = Vec::new();
    let columns = member::Column::iter().map(|column| format!("m.{}", column.as_str()));
    let columns = columns.collect::<Vec<_>>().join(", ");
    for some in after.chunks(IDS_PER_STATEMENT) {
        let nothing = |(conversation, _): &(Uuid, i64)| (*conversation, i64::MAX);
        let some = filled(some.iter().copied(), nothing);
        let each = Each {
            types: &["uuid", "bigint"],
            count: some.len(),
            columns: &columns,
            table: "members AS m",
            of: "m.conversation_id = w.column1 AND m.read_pos > w.column2 AND m.state = ?",
            then: "ORDER BY m.conversation_id, m.user_id",
        };
        let sql = each.sql(db);
        let values = some
            .into_iter()
            .flat_map(|(conversation, after)| [Value::from(conversation), Value::from(after)]);
        let joined = Value::from(member::State::Joined.to_value());
        let rows = member::Entity::find()
            .from_raw_sql(statement(db, &sql, values.chain([joined])))
            .all(db)
            .await?;
        markers.extend(rows.iter().map(|row| Marker {
            conversation_id: row.conversation_id.into(),
            user_id: row.user_id.into(),
            last_read: Seq::stored(row.last_read_seq),
            last_delivered: Seq::stored(row.delivered_seq),
            version: Position::stored(row.read_pos),
        }));
    }
    Ok(markers)
}
