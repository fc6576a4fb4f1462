//! The rules of how a conversation comes to be, and how somebody comes to belong to it.

use std::sync::Arc;

use super::{ConversationHead, Title};
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::hooks::Verdict;
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::store::SHARD;
use crate::store::entity::{conversation, event, member};
use crate::write::{Batch, Fingerprint, LogRefs, Needs, Operation, Repeatable, direct_key};

/// Opens the one direct conversation of two people.
pub(super) struct OpenDirect {
    pub(super) me: UserId,
    pub(super) other: UserId,
    pub(super) verdict: Verdict,
}

impl Operation for OpenDirect {
    type Output = ConversationId;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.me);
        needs.user(self.other);
        needs.direct(self.me, self.other);
        needs.blocks_between(self.me, self.other);
    }

    fn apply(&self, batch: &mut Batch) -> Result<ConversationId> {
        if let Some(existing) = batch.find_direct(self.me, self.other) {
            return Ok(existing.id.into());
        }
        let people = [self.me, self.other];
        for user in people {
            batch.require_user(user)?;
        }
        batch.require_unblocked(self.me, self.other)?;
        self.verdict.clone()?;

        let new = New {
            kind: conversation::Kind::Direct,
            created_by: self.me,
            direct_key: Some(direct_key(self.me, self.other)),
            title: None,
            history: conversation::HistoryPolicy::All,
            members: people.map(|user| (user, member::Role::Member)).to_vec(),
        };
        Ok(create(batch, new))
    }
}

/// Creates a group.
pub(super) struct CreateGroup {
    pub(super) me: UserId,
    pub(super) title: Title,
    /// Each once, in their order, without the creator.
    pub(super) members: Vec<UserId>,
    pub(super) history: conversation::HistoryPolicy,
    pub(super) members_max: i64,
    pub(super) verdict: Verdict,
}

impl Operation for CreateGroup {
    type Output = ConversationId;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.me);
        for user in &self.members {
            needs.user(*user);
        }
    }

    fn bytes(&self) -> usize {
        self.members.len() * MEMBER_BYTES
    }

    fn apply(&self, batch: &mut Batch) -> Result<ConversationId> {
        batch.require_user(self.me)?;
        for user in &self.members {
            batch.require_user(*user)?;
        }
        if count(self.members.len()) + 1 > self.members_max {
            return Err(Error::GroupFull);
        }
        self.verdict.clone()?;

        let others = self.members.iter();
        let others = others.map(|user| (*user, member::Role::Member));
        let new = New {
            kind: conversation::Kind::Group,
            created_by: self.me,
            direct_key: None,
            title: Some(self.title.as_str().to_owned()),
            history: self.history,
            members: [(self.me, member::Role::Owner)]
                .into_iter()
                .chain(others)
                .collect(),
        };
        Ok(create(batch, new))
    }
}

impl Repeatable for CreateGroup {
    fn fingerprint(&self) -> Fingerprint {
        let history = match self.history {
            conversation::HistoryPolicy::All => "all",
            conversation::HistoryPolicy::SinceJoin => "since_join",
        };
        let begun = Fingerprint::of("create_group")
            .and(self.title.as_str())
            .and(history);
        let members = self.members.iter();
        members.fold(begun, |print, user| print.and(user.as_uuid()))
    }

    fn made(output: &ConversationId) -> Option<ConversationId> {
        Some(*output)
    }

    fn repeated(&self, made: Option<ConversationId>) -> Result<ConversationId> {
        made.ok_or_else(|| Error::Internal("a group that was created has no id".to_owned()))
    }
}

/// A conversation to make.
struct New {
    kind: conversation::Kind,
    created_by: UserId,
    direct_key: Option<Vec<u8>>,
    title: Option<String>,
    history: conversation::HistoryPolicy,
    members: Vec<(UserId, member::Role)>,
}

/// Makes a conversation with its members, at one position.
fn create(batch: &mut Batch, new: New) -> ConversationId {
    let position = batch.next_position();
    let now = batch.now();
    let row = conversation::Model {
        id: batch.id(),
        shard: SHARD,
        kind: new.kind,
        state: conversation::State::Open,
        created_by: new.created_by.as_uuid(),
        client_conversation_id: None,
        direct_key: new.direct_key,
        title: new.title,
        history_policy: new.history,
        last_seq: 0,
        min_seq: 1,
        member_count: count(new.members.len()),
        members_pos: position.get(),
        changed_pos: position.get(),
        last_pos: position.get(),
        last_message_at: None,
        last_message_preview: None,
        created_at: now.as_micros(),
        updated_at: now.as_micros(),
    };
    let head = ConversationHead::of(&row);
    let id = head.id;
    for (user, role) in &new.members {
        let joining = Joining {
            role: *role,
            position,
            visible_from: 1,
            last_seq: 0,
        };
        batch
            .members
            .insert((row.id, user.as_uuid()), joining.row(id, *user));
    }
    batch.insert_conversation(row);

    let members: Vec<UserId> = new.members.iter().map(|(user, _)| *user).collect();
    let refs = LogRefs {
        aux: members.iter().map(|user| user.as_uuid()).collect(),
        ..LogRefs::of(id, new.created_by)
    };
    batch.log(position, event::Kind::ConversationCreated, &refs);
    let event = batch.event(
        position,
        EventKind::ConversationCreated { conversation: head },
    );
    batch.announce(Change::Joined {
        conversation: id,
        members: Arc::from(members),
        visible_from: Seq::stored(1),
        event,
    });
    id
}

/// How somebody comes to belong to a conversation.
pub(super) struct Joining {
    pub(super) role: member::Role,
    pub(super) position: Position,
    pub(super) visible_from: i64,
    pub(super) last_seq: i64,
}

impl Joining {
    /// The row of somebody who was never there.
    pub(super) fn row(&self, conversation: ConversationId, user: UserId) -> member::Model {
        member::Model {
            conversation_id: conversation.as_uuid(),
            user_id: user.as_uuid(),
            role: self.role,
            state: member::State::Joined,
            joined_pos: self.position.get(),
            changed_pos: self.position.get(),
            visible_from_seq: self.visible_from,
            last_read_seq: self.last_seq,
            read_pos: self.position.get(),
            self_pos: self.position.get(),
            muted_until: None,
            pinned_at: None,
            archived_at: None,
            delivered_seq: self.last_seq,
            marked_unread: false,
        }
    }

    /// Changes the row of somebody who was there before. What they see is decided anew; how they
    /// keep the conversation is their own affair and stays.
    pub(super) fn again(&self, row: &mut member::Model) {
        row.role = self.role;
        row.state = member::State::Joined;
        row.joined_pos = self.position.get();
        row.changed_pos = self.position.get();
        row.visible_from_seq = self.visible_from;
        row.last_read_seq = self.last_seq;
        row.read_pos = self.position.get();
        row.self_pos = self.position.get();
        row.delivered_seq = self.last_seq;
        row.marked_unread = false;
    }
}

/// How many people they are, as the columns count.
pub(super) fn count(people: usize) -> i64 {
    i64::try_from(people).unwrap_or(i64::MAX)
}

/// About what a member's row takes, so that many long lists do not share one transaction.
pub(super) const MEMBER_BYTES: usize = 256;
