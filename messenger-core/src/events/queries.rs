//! Reads the change log and turns its references into events.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, JoinType, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use super::event::{Change, Event, EventKind};
use crate::clock::Timestamp;
use crate::conversations::{self, ConversationHead, Markers, Role};
use crate::error::{Error, Result};
use crate::ids::{ConversationId, Position, Seq, SessionId, UserId};
use crate::messages::queries::within;
use crate::messages::{Message, ReactionChange};
use crate::store::entity::{conversation, event, head, member};
use crate::store::windows::Window;
use crate::store::{IDS_PER_STATEMENT, SHARD};
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
    let rendered = render(db, deployment, lines).await?;
    Ok(rendered.into_iter().map(Rendered::at_once).collect())
}

/// Of the lines after a position those that a user is told of, up to `limit`, as changes.
///
/// That is what happened in a conversation between joining it, the last time, and leaving it. Of an
/// earlier time there only the end is told: whoever joined again starts anew with what they see.
pub(super) async fn changes_for(
    db: &impl ConnectionTrait,
    deployment: Uuid,
    user: UserId,
    after: Position,
    limit: u64,
) -> Result<Vec<Change>> {
    let me = user.as_uuid();
    let membership = event::Entity::belongs_to(member::Entity)
        .from(event::Column::ConversationId)
        .to(member::Column::ConversationId)
        .on_condition(move |_, mine| {
            let user = Expr::col((mine, member::Column::UserId));
            user.eq(me).into_condition()
        });
    let position = || Expr::col((event::Entity, event::Column::Pos));
    let joined = Expr::col((member::Entity, member::Column::JoinedPos));
    let left = Expr::col((member::Entity, member::Column::ChangedPos));
    let visible_from = Expr::col((member::Entity, member::Column::VisibleFromSeq));
    let seq = Expr::col((event::Entity, event::Column::Seq));
    let is_message = event::Column::Kind.is_in([
        event::Kind::MessageCreated,
        event::Kind::MessageEdited,
        event::Kind::MessageDeleted,
        event::Kind::ReactionChanged,
    ]);
    let member_then = position().gte(joined).and(
        member::Column::State
            .eq(member::State::Joined)
            .or(position().lte(left)),
    );
    let visible = is_message.not().or(seq.gte(visible_from));
    let my_own = event::Column::UserId
        .eq(me)
        .and(event::Column::Kind.is_in([event::Kind::SessionsRevoked, event::Kind::MemberRemoved]));
    let my_own_elsewhere = event::Column::UserId
        .eq(me)
        .and(event::Column::Kind.eq(event::Kind::SelfChanged))
        .and(event::Column::ConversationId.is_null());
    // What others do only for themselves in a conversation is theirs.
    let not_theirs = event::Column::Kind
        .ne(event::Kind::SelfChanged)
        .or(event::Column::UserId.eq(me));
    let lines = event::Entity::find()
        .join(JoinType::LeftJoin, membership.into())
        .filter(event::Column::Shard.eq(SHARD))
        .filter(event::Column::Pos.gt(after.get()))
        .filter(
            Condition::any()
                .add(member_then.and(visible).and(not_theirs))
                .add(my_own)
                .add(my_own_elsewhere),
        )
        .order_by_asc(event::Column::Pos)
        .limit(limit)
        .all(db)
        .await?;
    let rendered = render(db, deployment, lines).await?;

    // Whoever has left is not told what something became after that.
    let late = rendered.iter().filter(|it| it.changed.is_some());
    let late: BTreeSet<Uuid> = late.filter_map(|it| it.change.conversation()).collect();
    let left = conversations::queries::left(db, user, late).await?;
    let rendered = rendered.into_iter();
    Ok(rendered
        .map(
            |it| match it.change.conversation().and_then(|id| left.get(&id)) {
                Some(left) if it.changed.is_some_and(|changed| changed > *left) => Change::Unseen {
                    position: it.change.position(),
                },
                _ => it.change,
            },
        )
        .collect())
}

/// A line of the change log as a change.
struct Rendered {
    change: Change,
    /// When what it is about became what the change says, if that was later, or may have been.
    changed: Option<Position>,
}

impl Rendered {
    /// The change for those who listen, whether or not they still belong where they are.
    fn at_once(self) -> Change {
        match self.change {
            Change::InConversation {
                conversation,
                seq,
                event,
            } if self.changed.is_some() => Change::Late {
                position: event.position,
                conversation,
                seq,
            },
            change => change,
        }
    }
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
) -> Result<Vec<Rendered>> {
    let of_kind = |kind| lines.iter().filter(move |line| line.kind == kind);
    let named: BTreeSet<(Uuid, i64)> = lines
        .iter()
        .filter(|line| is_about_a_message(line.kind))
        .filter_map(|line| line.conversation_id.zip(line.seq))
        .collect();
    let named: Vec<Window> = named
        .into_iter()
        .map(|(conversation, seq)| Window {
            conversation,
            first: seq,
            last: seq,
        })
        .collect();
    let messages: HashMap<(Uuid, i64), _> = within(db, &named)
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
    let profiles = of_kind(event::Kind::UserChanged).filter_map(|line| line.user_id);
    let profiles: HashMap<UserId, User> = users::queries::by_ids(db, profiles)
        .await?
        .into_iter()
        .map(|user| (user.id, user))
        .collect();
    let changed = lines
        .iter()
        .filter(|line| line.kind != event::Kind::MessageCreated)
        .filter(|line| {
            is_about_a_message(line.kind) || line.kind == event::Kind::ConversationChanged
        })
        .filter_map(|line| line.conversation_id)
        .collect();
    let lasts = lasts(db, &changed).await?;
    let created: Vec<Uuid> = of_kind(event::Kind::ConversationCreated)
        .filter_map(|line| line.conversation_id)
        .collect();
    let created: HashMap<ConversationId, _> = conversations::queries::heads(db, &created)
        .await?
        .into_iter()
        .map(|conversation| (conversation.id, conversation))
        .collect();

    let renamed = of_kind(event::Kind::ConversationChanged).filter_map(|line| line.conversation_id);
    let titles = conversations::queries::titles(db, renamed).await?;
    let kept = of_kind(event::Kind::SelfChanged)
        .filter_map(|line| line.conversation_id.zip(line.user_id))
        .collect::<Vec<_>>();
    let settings = conversations::queries::settings(db, &kept).await?;

    let damaged = |line: &event::Model| {
        Error::Internal(format!(
            "the change log is damaged at position {}",
            line.pos
        ))
    };
    let mut changes = Vec::with_capacity(lines.len());
    for line in &lines {
        let mut changed = Position::ZERO;
        let position = Position::stored(line.pos);
        let at = Timestamp::from_micros(line.created_at);
        let event = |kind| {
            let id = Event::id_at(deployment, position);
            Arc::new(Event::new(id, position, at, kind))
        };
        let find_message = || {
            let place = line.conversation_id.zip(line.seq);
            let message = place.and_then(|place| messages.get(&place));
            message.ok_or_else(|| damaged(line))
        };
        let head = |message: &Message| {
            let (last, version) = *lasts.get(&message.conversation_id.as_uuid())?;
            let head = ConversationHead::changed(message)?;
            // A reaction leaves the conversation as it was.
            let version = Position::stored(version).min(message.version);
            (last == message.seq.get()).then_some(ConversationHead { version, ..head })
        };
        let conversation = || -> Result<ConversationId> {
            let id = line.conversation_id.ok_or_else(|| damaged(line))?;
            Ok(id.into())
        };
        let person = |id: Option<Uuid>| -> Result<UserId> {
            let id = id.ok_or_else(|| damaged(line))?;
            Ok(id.into())
        };
        let change = match line.kind {
            event::Kind::MessageCreated => {
                let message = find_message()?;
                let sender = senders
                    .get(&message.sender_id)
                    .ok_or_else(|| damaged(line))?;
                changed = message.version;
                let conversation = message.conversation_id;
                let head = ConversationHead {
                    version: position,
                    ..ConversationHead::after(message)
                };
                Change::InConversation {
                    conversation,
                    seq: Some(message.seq),
                    event: event(EventKind::MessageCreated {
                        message: message.clone(),
                        sender: sender.clone(),
                        conversation: head,
                    }),
                }
            }
            event::Kind::MessageEdited | event::Kind::ReactionChanged
                if find_message()?.version > position =>
            {
                // The row has what a later line tells: to say it here would be to say it early,
                // and perhaps to somebody who has left in between. But that line does not say whose
                // the reactions are.
                match (line.kind, line.actor_id) {
                    (event::Kind::ReactionChanged, Some(actor)) => Change::Stale {
                        position,
                        user: actor.into(),
                    },
                    _ => Change::Unseen { position },
                }
            }
            event::Kind::MessageEdited => {
                let message = find_message()?;
                Change::InConversation {
                    conversation: message.conversation_id,
                    seq: Some(message.seq),
                    event: event(EventKind::MessageUpdated {
                        message: message.clone(),
                        reaction: None,
                        conversation: head(message),
                    }),
                }
            }
            event::Kind::ReactionChanged => {
                let message = find_message()?;
                let by = line.actor_id.ok_or_else(|| damaged(line))?.into();
                let packed = line.aux.as_deref().unwrap_or_default();
                let reaction = ReactionChange::unpacked(by, packed);
                Change::InConversation {
                    conversation: message.conversation_id,
                    seq: Some(message.seq),
                    event: event(EventKind::MessageUpdated {
                        message: message.clone(),
                        reaction: Some(reaction.ok_or_else(|| damaged(line))?),
                        // An edit before it has told nothing: it is told here.
                        conversation: head(message),
                    }),
                }
            }
            // Nothing comes after it.
            event::Kind::MessageDeleted => {
                let message = find_message()?;
                Change::InConversation {
                    conversation: message.conversation_id,
                    seq: Some(message.seq),
                    event: event(EventKind::MessageDeleted {
                        message: message.clone(),
                        conversation: head(message),
                    }),
                }
            }
            event::Kind::ConversationCreated => {
                let id = conversation()?;
                let mut conversation = created.get(&id).ok_or_else(|| damaged(line))?.clone();
                // As it was then: what was sent since comes with its own event.
                conversation.updated_at = at;
                conversation.version = position;
                conversation.last_message_at = None;
                conversation.last_message_preview = None;
                Change::Joined {
                    conversation: id,
                    members: ids(line).map(UserId::from).collect(),
                    visible_from: Seq::stored(1),
                    event: event(EventKind::ConversationCreated { conversation }),
                }
            }
            event::Kind::SessionsRevoked => Change::SessionsRevoked {
                position,
                user: line.user_id.ok_or_else(|| damaged(line))?.into(),
                sessions: ids(line).map(SessionId::from).collect(),
                at,
            },
            event::Kind::ConversationChanged => {
                let conversation = conversation()?;
                // As it is now: a later change has its own event.
                let last = lasts.get(&conversation.as_uuid());
                changed = last.map_or(position, |(_, version)| Position::stored(*version));
                let title = titles.get(&conversation).ok_or_else(|| damaged(line))?;
                Change::InConversation {
                    conversation,
                    seq: None,
                    event: event(EventKind::GroupChanged {
                        conversation,
                        title: title.clone(),
                        by: person(line.actor_id)?,
                    }),
                }
            }
            event::Kind::MembersAdded => {
                let conversation = conversation()?;
                let visible_from = Seq::stored(line.seq.ok_or_else(|| damaged(line))?);
                let users: Vec<UserId> = ids(line).map(UserId::from).collect();
                Change::Joined {
                    conversation,
                    members: Arc::from(users.as_slice()),
                    visible_from,
                    event: event(EventKind::MembersAdded {
                        conversation,
                        users,
                        visible_from,
                        by: person(line.actor_id)?,
                    }),
                }
            }
            event::Kind::MemberRemoved => {
                let (conversation, user) = (conversation()?, person(line.user_id)?);
                Change::Left {
                    conversation,
                    user,
                    event: event(EventKind::MemberRemoved {
                        conversation,
                        user,
                        by: person(line.actor_id)?,
                    }),
                }
            }
            event::Kind::RoleChanged => {
                let conversation = conversation()?;
                let role = line.aux.as_deref().and_then(|bytes| bytes.first());
                let role = role.and_then(|byte| Role::from_byte(*byte));
                Change::InConversation {
                    conversation,
                    seq: None,
                    event: event(EventKind::RoleChanged {
                        conversation,
                        user: person(line.user_id)?,
                        role: role.ok_or_else(|| damaged(line))?,
                        by: person(line.actor_id)?,
                    }),
                }
            }
            event::Kind::ConversationDeleted => {
                let conversation = conversation()?;
                Change::ConversationDeleted {
                    conversation,
                    event: event(EventKind::ConversationDeleted {
                        conversation,
                        by: person(line.actor_id)?,
                    }),
                }
            }
            event::Kind::MarkerChanged => {
                let (conversation, user) = (conversation()?, person(line.user_id)?);
                let bytes = line.aux.as_deref().unwrap_or_default();
                let (markers, is_small) =
                    Markers::from_bytes(bytes, position).ok_or_else(|| damaged(line))?;
                let event = event(EventKind::MarkerChanged {
                    conversation,
                    user,
                    markers,
                });
                if is_small {
                    Change::InConversation {
                        conversation,
                        seq: None,
                        event,
                    }
                } else {
                    Change::Own { user, event }
                }
            }
            event::Kind::SelfChanged if line.conversation_id.is_some() => {
                let (conversation, user) = (conversation()?, person(line.user_id)?);
                // As it is now: a later change has its own event.
                let settings = settings.get(&(conversation, user));
                Change::Own {
                    user,
                    event: event(EventKind::OwnChanged {
                        conversation,
                        settings: *settings.ok_or_else(|| damaged(line))?,
                    }),
                }
            }
            event::Kind::SelfChanged => Change::Own {
                user: person(line.user_id)?,
                event: event(EventKind::SelfChanged),
            },
            event::Kind::UserChanged => {
                let user = person(line.user_id)?;
                let profile = profiles.get(&user).ok_or_else(|| damaged(line))?;
                Change::Profile {
                    user,
                    event: event(EventKind::UserChanged {
                        user: profile.clone(),
                    }),
                }
            }
            // What nobody is told of.
            _ => Change::Unseen { position },
        };
        changes.push(Rendered {
            change,
            changed: Some(changed).filter(|changed| *changed > position),
        });
    }
    Ok(changes)
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

/// The sequence numbers of the last messages of conversations, and their versions.
async fn lasts(
    db: &impl ConnectionTrait,
    conversations: &BTreeSet<Uuid>,
) -> Result<HashMap<Uuid, (i64, i64)>> {
    let conversations: Vec<Uuid> = conversations.iter().copied().collect();
    let mut found = HashMap::with_capacity(conversations.len());
    for some in conversations.chunks(IDS_PER_STATEMENT) {
        let is_some = conversation::Column::Id.is_in(some.iter().copied());
        let rows = conversation::Entity::find().filter(is_some).all(db).await?;
        found.extend(
            rows.iter()
                .map(|row| (row.id, (row.last_seq, row.changed_pos))),
        );
    }
    Ok(found)
}

/// The ids that a line carries, 16 bytes each.
pub(crate) fn ids(line: &event::Model) -> impl Iterator<Item = Uuid> + '_ {
    let packed = line.aux.as_deref().unwrap_or_default();
    packed
        .chunks_exact(16)
        .filter_map(|bytes| Uuid::from_slice(bytes).ok())
}
