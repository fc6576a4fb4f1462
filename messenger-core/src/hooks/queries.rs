//! Reads the change log for a host, and what its lines are about as it is now.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Select,
};
use uuid::Uuid;

use super::change::{Change, ChangeKind, ConversationBrief, NewMessageTold};
use crate::clock::{self, Timestamp};
use crate::conversations::{Markers, Role};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::events::queries::ids;
use crate::ids::{ConversationId, Position, SessionId, UserId};
use crate::messages::queries::within;
use crate::messages::{Message, ReactionChange};
use crate::store::entity::{block, conversation, event, hook, hook_lane, member, user};
use crate::store::windows::Window;
use crate::store::{IDS_PER_STATEMENT, SHARD, facts, fence, filled_ids};
use crate::users::{self, User};

/// What a host is told of.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The lines of the change log.
    pub(super) lines: Vec<event::Kind>,
    pub(super) deployment: Uuid,
    /// How many members a small conversation has.
    pub(super) small_max: i64,
}

/// A stretch of the change log, without its beginning and with its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) after: i64,
    /// `None` for the head.
    pub(super) upto: Option<i64>,
    /// Lines at most.
    pub(super) limit: usize,
}

/// What is to be told of a stretch.
#[derive(Debug)]
pub(super) struct Found {
    /// In their order, each with its lane.
    pub(super) changes: Vec<(Uuid, Change)>,
    /// Up to where that is all.
    pub(super) upto: i64,
    /// There are no more up to where they were asked for.
    pub(super) is_all: bool,
    /// Up to where the change log was cut.
    pub(super) cut: i64,
}

/// What there is after a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peek {
    /// There is something to tell.
    pub(super) is_any: bool,
    /// Up to where there is nothing else.
    pub(super) upto: i64,
    /// Up to where the change log was cut.
    pub(super) cut: i64,
}

/// Where a name is, if it is known.
pub(super) async fn place(db: &impl ConnectionTrait, name: &str) -> Result<Option<hook::Model>> {
    Ok(hook::Entity::find_by_id(name.to_owned()).one(db).await?)
}

/// The lanes of a name that wait.
pub(super) async fn lanes(db: &impl ConnectionTrait, name: &str) -> Result<Vec<hook_lane::Model>> {
    let rows = hook_lane::Entity::find()
        .filter(hook_lane::Column::Name.eq(name))
        .order_by_asc(hook_lane::Column::Lane);
    Ok(rows.all(db).await?)
}

/// Looks for something to tell after a position.
pub(super) async fn peek(db: &impl ConnectionTrait, told: &Told, after: i64) -> Result<Peek> {
    let head = fence::head(db).await?.pos;
    let line = lines(told, after, head, 1).one(db).await?;
    Ok(Peek {
        is_any: line.is_some(),
        upto: line.map_or(head, |line| line.pos),
        cut: facts::noted(db, facts::LOG_CUT).await?,
    })
}

/// What is to be told of a stretch of the change log, of one lane or of all.
pub(super) async fn changes(
    db: &impl ConnectionTrait,
    told: &Told,
    lane: Option<Uuid>,
    stretch: Stretch,
) -> Result<Found> {
    let head = fence::head(db).await?.pos;
    let cut = facts::noted(db, facts::LOG_CUT).await?;
    let end = Ord::min(stretch.upto.unwrap_or(head), head);
    let mut lines = lines(told, stretch.after, end, stretch.limit);
    lines = match lane {
        None => lines,
        Some(lane) if lane.is_nil() => lines.filter(event::Column::ConversationId.is_null()),
        Some(lane) => lines.filter(event::Column::ConversationId.eq(lane)),
    };
    let lines = lines.all(db).await?;
    let is_all = lines.len() < stretch.limit;
    let last = lines.last().filter(|_| !is_all);
    Ok(Found {
        changes: render(db, told, &lines).await?,
        upto: last.map_or(end, |line| line.pos),
        is_all,
        cut,
    })
}

fn lines(told: &Told, after: i64, upto: i64, limit: usize) -> Select<event::Entity> {
    event::Entity::find()
        .filter(event::Column::Shard.eq(SHARD))
        .filter(event::Column::Pos.gt(after))
        .filter(event::Column::Pos.lte(upto))
        .filter(event::Column::Kind.is_in(told.lines.iter().copied()))
        .order_by_asc(event::Column::Pos)
        .limit(u64::try_from(limit).unwrap_or(u64::MAX))
}

/// What the lines refer to.
struct Facts {
    messages: HashMap<(Uuid, i64), Message>,
    users: HashMap<Uuid, User>,
    conversations: HashMap<Uuid, conversation::Model>,
    /// Members who may want to hear of messages, by conversation.
    members: HashMap<Uuid, Vec<member::Model>>,
    /// Both ways.
    blocks: HashSet<(Uuid, Uuid)>,
    /// How many members a small conversation has.
    small_max: i64,
    now: Timestamp,
}

async fn render(
    db: &impl ConnectionTrait,
    told: &Told,
    lines: &[event::Model],
) -> Result<Vec<(Uuid, Change)>> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let facts = facts(db, told, lines).await?;
    let changes = lines.iter().map(|line| {
        let kind = facts.kind(line).ok_or_else(|| {
            let position = line.pos;
            Error::Internal(format!("the change log is damaged at position {position}"))
        })?;
        let position = Position::stored(line.pos);
        let change = Change {
            id: Event::id_at(told.deployment, position),
            position,
            at: Timestamp::from_micros(line.created_at),
            kind,
        };
        Ok((line.conversation_id.unwrap_or_default(), change))
    });
    changes.collect()
}

async fn facts(db: &impl ConnectionTrait, told: &Told, lines: &[event::Model]) -> Result<Facts> {
    let named: BTreeSet<(Uuid, i64)> = lines
        .iter()
        .filter(|line| is_about_a_message(line.kind))
        .filter_map(|line| line.conversation_id.zip(line.seq))
        .collect();
    let named = named.into_iter().map(|(conversation, seq)| Window {
        conversation,
        first: seq,
        last: seq,
    });
    let messages = within(db, &named.collect::<Vec<_>>()).await?;
    let messages: HashMap<(Uuid, i64), Message> = messages
        .into_iter()
        .flat_map(|(id, messages)| messages.into_iter().map(move |it| ((id, it.seq.get()), it)))
        .collect();

    let ids: BTreeSet<Uuid> = lines
        .iter()
        .filter_map(|line| line.conversation_id)
        .collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let mut conversations = HashMap::with_capacity(ids.len());
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let rows = conversation::Entity::find()
            .filter(conversation::Column::Id.is_in(filled_ids(some.iter().copied())))
            .all(db)
            .await?;
        conversations.extend(rows.into_iter().map(|row| (row.id, row)));
    }

    let new = lines
        .iter()
        .filter(|line| line.kind == event::Kind::MessageCreated)
        .filter_map(|line| messages.get(&line.conversation_id.zip(line.seq)?));
    let new: Vec<&Message> = new.collect();
    let profiles = lines
        .iter()
        .filter(|line| line.kind == event::Kind::UserChanged);
    let people = profiles.filter_map(|line| line.user_id);
    let people = people.chain(new.iter().map(|message| message.sender_id.as_uuid()));
    let users = users::queries::by_ids(db, people.collect::<Vec<_>>()).await?;
    let users = users.into_iter().map(|user| (user.id.as_uuid(), user));

    let members = members(db, told, &new, &conversations).await?;
    let blocks = blocks(db, &new, &members).await?;
    Ok(Facts {
        users: users.collect(),
        messages,
        conversations,
        members,
        blocks,
        small_max: told.small_max,
        now: clock::now(),
    })
}

/// The members who may want to hear of messages: all of a small conversation, of a larger one those
/// whom a message names.
async fn members(
    db: &impl ConnectionTrait,
    told: &Told,
    new: &[&Message],
    conversations: &HashMap<Uuid, conversation::Model>,
) -> Result<HashMap<Uuid, Vec<member::Model>>> {
    let mut small = BTreeSet::new();
    let mut large: HashMap<Uuid, BTreeSet<Uuid>> = HashMap::new();
    for message in new.iter().filter(|message| message.deleted_at.is_none()) {
        let id = message.conversation_id.as_uuid();
        let Some(row) = conversations.get(&id) else {
            continue;
        };
        if row.state != conversation::State::Open {
            continue;
        }
        if row.member_count <= told.small_max {
            small.insert(id);
        } else {
            let named = message.mentions.iter().map(|user| user.as_uuid());
            large.entry(id).or_default().extend(named);
        }
    }
    let mut found: HashMap<Uuid, Vec<member::Model>> = HashMap::new();
    let joined = || {
        member::Entity::find()
            .filter(member::Column::State.eq(member::State::Joined))
            .filter(Expr::exists(accounts()))
    };
    if !small.is_empty() {
        let some = member::Column::ConversationId.is_in(filled_ids(small));
        for row in joined().filter(some).all(db).await? {
            found.entry(row.conversation_id).or_default().push(row);
        }
    }
    for (id, named) in large.into_iter().filter(|(_, named)| !named.is_empty()) {
        let some = member::Column::UserId.is_in(filled_ids(named));
        let here = member::Column::ConversationId.eq(id);
        let rows = joined().filter(here).filter(some).all(db).await?;
        found.insert(id, rows);
    }
    for rows in found.values_mut() {
        rows.sort_by_key(|row| row.user_id);
    }
    Ok(found)
}

/// The account of a member, while there is one.
fn accounts() -> SelectStatement {
    let user = |column: user::Column| Expr::col((user::Entity, column));
    let mut accounts = Query::select();
    accounts
        .expr(Expr::val(1))
        .from(user::Entity)
        .and_where(user(user::Column::Id).equals((member::Entity, member::Column::UserId)))
        .and_where(user(user::Column::DeletedAt).is_null());
    accounts
}

/// Which of the senders and members have blocked each other.
async fn blocks(
    db: &impl ConnectionTrait,
    new: &[&Message],
    members: &HashMap<Uuid, Vec<member::Model>>,
) -> Result<HashSet<(Uuid, Uuid)>> {
    let senders: BTreeSet<Uuid> = new
        .iter()
        .filter(|message| members.contains_key(&message.conversation_id.as_uuid()))
        .map(|message| message.sender_id.as_uuid())
        .collect();
    let others: BTreeSet<Uuid> = members.values().flatten().map(|row| row.user_id).collect();
    let others: Vec<Uuid> = others.into_iter().collect();
    let mut apart = HashSet::new();
    for some in others.chunks(IDS_PER_STATEMENT) {
        let senders = || filled_ids(senders.iter().copied());
        let some = || filled_ids(some.iter().copied());
        let by_senders = block::Column::OwnerId
            .is_in(senders())
            .and(block::Column::BlockedId.is_in(some()));
        let of_senders = block::Column::OwnerId
            .is_in(some())
            .and(block::Column::BlockedId.is_in(senders()));
        let rows = block::Entity::find()
            .filter(block::Column::State.eq(block::State::Set))
            .filter(Condition::any().add(by_senders).add(of_senders))
            .all(db)
            .await?;
        for row in rows {
            apart.insert((row.owner_id, row.blocked_id));
            apart.insert((row.blocked_id, row.owner_id));
        }
    }
    Ok(apart)
}

impl Facts {
    /// What a line says; `None` if that is not there.
    fn kind(&self, line: &event::Model) -> Option<ChangeKind> {
        let id = || line.conversation_id.map(ConversationId::from);
        let user = || line.user_id.map(UserId::from);
        let by = || line.actor_id.map(UserId::from);
        let position = Position::stored(line.pos);
        Some(match line.kind {
            event::Kind::MessageCreated => {
                let message = self.message(line)?;
                ChangeKind::MessageCreated(Box::new(NewMessageTold {
                    sender: self.users.get(&message.sender_id.as_uuid())?.clone(),
                    conversation: self.brief(line)?,
                    notify: self.notified(&message, position),
                    message,
                }))
            }
            event::Kind::MessageEdited => ChangeKind::MessageUpdated {
                message: Box::new(self.message(line)?),
                reaction: None,
            },
            event::Kind::ReactionChanged => {
                let packed = line.aux.as_deref().unwrap_or_default();
                ChangeKind::MessageUpdated {
                    message: Box::new(self.message(line)?),
                    reaction: Some(ReactionChange::unpacked(by()?, packed)?),
                }
            }
            event::Kind::MessageDeleted => ChangeKind::MessageDeleted {
                message: Box::new(self.message(line)?),
            },
            event::Kind::ConversationCreated => ChangeKind::ConversationCreated {
                conversation: self.brief(line)?,
                members: ids(line).map(UserId::from).collect(),
                by: by()?,
            },
            event::Kind::ConversationChanged => ChangeKind::ConversationChanged {
                conversation: self.brief(line)?,
                by: by()?,
            },
            event::Kind::ConversationDeleted => ChangeKind::ConversationDeleted {
                conversation: id()?,
                by: by()?,
            },
            event::Kind::MembersAdded => ChangeKind::MembersAdded {
                conversation: self.brief(line)?,
                users: ids(line).map(UserId::from).collect(),
                by: by()?,
            },
            event::Kind::MemberRemoved => ChangeKind::MemberRemoved {
                conversation: id()?,
                user: user()?,
                by: by()?,
            },
            event::Kind::RoleChanged => {
                let role = line.aux.as_deref().and_then(|bytes| bytes.first());
                ChangeKind::RoleChanged {
                    conversation: id()?,
                    user: user()?,
                    role: Role::from_byte(*role?)?,
                    by: by()?,
                }
            }
            event::Kind::MarkerChanged => {
                let bytes = line.aux.as_deref().unwrap_or_default();
                let (markers, _) = Markers::from_bytes(bytes, position)?;
                ChangeKind::MarkerChanged {
                    conversation: id()?,
                    user: user()?,
                    markers,
                }
            }
            event::Kind::UserChanged => ChangeKind::UserChanged {
                user: self.users.get(&line.user_id?)?.clone(),
            },
            event::Kind::PasswordChanged => ChangeKind::PasswordChanged { user: user()? },
            event::Kind::SessionsRevoked => ChangeKind::SessionsEnded {
                user: user()?,
                sessions: ids(line).map(SessionId::from).collect(),
            },
            event::Kind::SelfChanged => return None,
        })
    }

    /// The message of a line. Of one in a deleted group nothing is told but that it was there.
    fn message(&self, line: &event::Model) -> Option<Message> {
        let id = line.conversation_id?;
        let mut message = self.messages.get(&(id, line.seq?))?.clone();
        if !self.is_open(id) {
            message.content.clear();
            message.mentions.clear();
            message.reactions.clear();
            message.metadata = None;
            message.attachments.clear();
        }
        Some(message)
    }

    fn is_open(&self, conversation: Uuid) -> bool {
        let row = self.conversations.get(&conversation);
        row.is_some_and(|row| row.state == conversation::State::Open)
    }

    fn brief(&self, line: &event::Model) -> Option<ConversationBrief> {
        let row = self.conversations.get(&line.conversation_id?)?;
        let is_open = row.state == conversation::State::Open;
        Some(ConversationBrief {
            id: row.id.into(),
            kind: row.kind.into(),
            title: row.title.clone().filter(|_| is_open),
            member_count: u32::try_from(row.member_count).unwrap_or(u32::MAX),
        })
    }

    /// Who wants to hear of a message that was sent at a position.
    fn notified(&self, message: &Message, sent: Position) -> Vec<UserId> {
        let id = message.conversation_id.as_uuid();
        let sender = message.sender_id.as_uuid();
        let Some(row) = self.conversations.get(&id) else {
            return Vec::new();
        };
        if message.deleted_at.is_some() || row.state != conversation::State::Open {
            return Vec::new();
        }
        let is_small = row.member_count <= self.small_max;
        let members = self.members.get(&id).into_iter().flatten();
        let wanting = members.filter(|member| {
            let is_meant = is_small || message.mentions.contains(&member.user_id.into());
            let is_muted = member
                .muted_until
                .is_some_and(|it| it > self.now.as_micros());
            is_meant
                && member.user_id != sender
                && member.joined_pos < sent.get()
                && !is_muted
                && !self.blocks.contains(&(sender, member.user_id))
        });
        wanting.map(|member| member.user_id.into()).collect()
    }
}

fn is_about_a_message(kind: event::Kind) -> bool {
    matches!(
        kind,
        event::Kind::MessageCreated
            | event::Kind::MessageEdited
            | event::Kind::MessageDeleted
            | event::Kind::ReactionChanged
    )
}
