//! Builds the answers of a sync from one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{Bootstrap, Changes, Cursor, Gap, OwnChanges};
use crate::conversations::{self, Conversation};
use crate::error::{Error, Result};
use crate::ids::{ConversationId, Seq, UserId};
use crate::limits::Limits;
use crate::messages::Message;
use crate::messages::queries::{mark_mine, within};
use crate::store::fence;
use crate::store::windows::Window;
use crate::users::queries::Since;
use crate::users::{self, User};

pub(super) async fn bootstrap(
    db: &impl ConnectionTrait,
    user: UserId,
    key: &[u8],
    limits: &Limits,
) -> Result<Bootstrap> {
    let head = fence::head(db).await?;
    let conversations = conversations::queries::list(db, user, limits).await?;
    let share = match u32::try_from(conversations.len()) {
        Ok(0) => 0,
        Ok(count) => (limits.bootstrap_messages_max / count).max(1),
        Err(_) => 1,
    };
    let each = i64::from(share.min(limits.bootstrap_messages_per_conversation_max));
    let newest: Vec<Window> = conversations
        .iter()
        .filter(|conversation| conversation.last_seq >= conversation.own.visible_from)
        .map(|conversation| Window {
            conversation: conversation.id.as_uuid(),
            first: (conversation.last_seq.get() - each + 1)
                .max(conversation.own.visible_from.get()),
            last: conversation.last_seq.get(),
        })
        .filter(|window| window.first <= window.last)
        .collect();
    let (mut recent_messages, read) = read(db, &newest, limits).await?;
    // Conversations come newest first, so the quiet ones have to do with less.
    let last_only: Vec<Window> = newest[read..]
        .iter()
        .map(|window| Window {
            first: window.last,
            ..*window
        })
        .collect();
    recent_messages.extend(within(db, &last_only).await?.into_values().flatten());
    let stamp = fence::stamp(&head);
    let first: BTreeMap<Uuid, i64> = newest[..read]
        .iter()
        .chain(&last_only)
        .map(|window| (window.conversation, window.first))
        .collect();
    let gaps = conversations.iter().filter_map(|conversation| {
        let first = *first.get(&conversation.id.as_uuid())?;
        let visible_from = conversation.own.visible_from;
        (first > visible_from.get()).then_some(Gap {
            conversation_id: conversation.id,
            first: visible_from,
            last: Seq::stored(first - 1),
            as_of: stamp.as_of,
        })
    });
    let gaps = gaps.collect();
    recent_messages.sort_by_key(|message| (message.conversation_id, message.seq));
    mark_mine(db, user, &mut recent_messages).await?;
    let small = conversations.iter().filter(|it| !it.is_large);
    let small: Vec<(Uuid, i64)> = small.map(|it| (it.id.as_uuid(), -1)).collect();
    let markers = conversations::queries::markers(db, &small).await?;
    let all = Since {
        after: 0,
        upto: stamp.as_of.get(),
        gone_too: false,
    };
    let own = OwnChanges {
        prefs: users::queries::prefs_changed(db, user, all, usize::MAX).await?,
        blocks: users::queries::blocks_changed(db, user, all, usize::MAX).await?,
    };
    let blocked = own.blocks.iter().map(|block| block.user_id);
    let named: Vec<UserId> = blocked.chain([user]).collect();
    let users = everybody(db, &named, &conversations, &recent_messages).await?;
    let me = users.iter().find(|known| known.id == user).cloned();
    Ok(Bootstrap {
        me: me.ok_or(Error::UserNotFound)?,
        users,
        conversations,
        recent_messages,
        markers,
        gaps,
        own,
        stamp,
        next: Cursor::at(stamp.as_of, key, user),
    })
}

pub(super) async fn changes(
    db: &impl ConnectionTrait,
    user: UserId,
    after: &BTreeMap<ConversationId, Seq>,
    limits: &Limits,
) -> Result<Changes> {
    let conversations = conversations::queries::list(db, user, limits).await?;
    let mut room = i64::from(limits.changes_messages_max);
    let mut has_more = false;
    let mut next_after_seq = BTreeMap::new();
    let mut missed = Vec::new();
    for conversation in &conversations {
        let last = conversation.last_seq.get();
        let known = after
            .get(&conversation.id)
            .copied()
            .unwrap_or(Seq::ZERO)
            .get()
            .max(conversation.own.visible_from.get() - 1);
        let count = (last - known)
            .clamp(0, i64::from(limits.changes_messages_per_conversation_max))
            .min(room);
        room -= count;
        has_more |= known + count < last;
        next_after_seq.insert(conversation.id, Seq::stored(known + count));
        if count > 0 {
            missed.push(Window {
                conversation: conversation.id.as_uuid(),
                first: known + 1,
                last: known + count,
            });
        }
    }
    let (mut messages, read) = read(db, &missed, limits).await?;
    for unread in &missed[read..] {
        has_more = true;
        let known = Seq::stored(unread.first - 1);
        next_after_seq.insert(unread.conversation.into(), known);
    }
    messages.sort_by_key(|message| (message.conversation_id, message.seq));
    mark_mine(db, user, &mut messages).await?;
    let users = everybody(db, &[user], &conversations, &messages).await?;
    let mine: BTreeSet<ConversationId> = conversations.iter().map(|it| it.id).collect();
    let not_member = after.keys().filter(|id| !mine.contains(id));
    Ok(Changes {
        not_member: not_member.copied().collect(),
        users,
        conversations,
        messages,
        has_more,
        next_after_seq,
    })
}

/// Stretches in the first look-up, before it is known how many bytes they have: what may come on
/// top of [`Limits::sync_bytes_max`].
const WINDOWS_AT_FIRST: usize = 8;
/// Stretches in one look-up at the most.
const WINDOWS_AT_ONCE: usize = 500;

/// Reads stretches, in their order, until there are enough bytes; says how many stretches it read.
async fn read(
    db: &impl ConnectionTrait,
    wanted: &[Window],
    limits: &Limits,
) -> Result<(Vec<Message>, usize)> {
    let (mut messages, mut bytes, mut done) = (Vec::new(), 0, 0);
    while done < wanted.len() && bytes < limits.sync_bytes_max {
        // As many as fit, if they are like those before.
        let fitting = (limits.sync_bytes_max - bytes) * done / bytes.max(1);
        let count = fitting.clamp(WINDOWS_AT_FIRST, WINDOWS_AT_ONCE);
        let some = &wanted[done..wanted.len().min(done + count)];
        for message in within(db, some).await?.into_values().flatten() {
            bytes += message.bytes();
            messages.push(message);
        }
        done += some.len();
    }
    Ok((messages, done))
}

/// Everybody whom an answer names, ordered by id. Members come with their conversations; only
/// senders who are no members, and the `others`, have to be looked up.
async fn everybody(
    db: &impl ConnectionTrait,
    others: &[UserId],
    conversations: &[Conversation],
    messages: &[Message],
) -> Result<Vec<User>> {
    let members = conversations
        .iter()
        .flat_map(|conversation| &conversation.members)
        .map(|member| &member.user);
    let mut known: BTreeMap<UserId, User> = members.map(|user| (user.id, user.clone())).collect();
    let named = messages.iter().map(|message| message.sender_id);
    let named = named.chain(others.iter().copied());
    let missing: BTreeSet<Uuid> = named
        .filter(|id| !known.contains_key(id))
        .map(UserId::as_uuid)
        .collect();
    for user in users::queries::by_ids(db, missing).await? {
        known.insert(user.id, user);
    }
    Ok(known.into_values().collect())
}
