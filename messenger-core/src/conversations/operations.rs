//! The rules of who belongs to a conversation, and what they may do there.

use std::sync::Arc;

use super::{ConversationHead, Role, Title};
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::store::SHARD;
use crate::store::entity::{conversation, event, member};
use crate::write::{Batch, Fingerprint, LogRefs, Needs, Operation, Repeatable, direct_key};

/// Opens the one direct conversation of two people.
pub(super) struct OpenDirect {
    pub(super) me: UserId,
    pub(super) other: UserId,
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
        conversation: Some(id),
        actor: Some(new.created_by),
        aux: members.iter().map(|user| user.as_uuid()).collect(),
        ..LogRefs::default()
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
struct Joining {
    role: member::Role,
    position: Position,
    visible_from: i64,
    last_seq: i64,
}

impl Joining {
    /// The row of somebody who was never there.
    fn row(&self, conversation: ConversationId, user: UserId) -> member::Model {
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
    fn again(&self, row: &mut member::Model) {
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

/// Gives a group another title.
pub(super) struct RenameGroup {
    pub(super) me: UserId,
    pub(super) conversation: ConversationId,
    pub(super) title: Title,
}

impl Operation for RenameGroup {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.me);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let group = Group::of(batch, self.conversation, self.me)?;
        group.require(member::Role::Admin)?;
        if group.title.as_deref() == Some(self.title.as_str()) {
            return Ok(());
        }

        let position = batch.next_position();
        let now = batch.now();
        if let Some(row) = batch.conversations.change(&self.conversation.as_uuid()) {
            row.title = Some(self.title.as_str().to_owned());
            row.changed_pos = position.get();
            row.last_pos = position.get();
            row.updated_at = now.as_micros();
        }
        let refs = LogRefs {
            conversation: Some(self.conversation),
            actor: Some(self.me),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::ConversationChanged, &refs);
        let event = batch.event(
            position,
            EventKind::GroupChanged {
                conversation: self.conversation,
                title: self.title.as_str().to_owned(),
                by: self.me,
            },
        );
        batch.announce(Change::InConversation {
            conversation: self.conversation,
            seq: None,
            event,
        });
        Ok(())
    }
}

impl Repeatable for RenameGroup {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("rename")
            .and(self.conversation.as_uuid())
            .and(self.title.as_str())
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Adds people to a group.
pub(super) struct AddMembers {
    pub(super) me: UserId,
    pub(super) conversation: ConversationId,
    /// Each once, in their order.
    pub(super) users: Vec<UserId>,
    pub(super) members_max: i64,
}

impl Operation for AddMembers {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.me);
        for user in &self.users {
            needs.user(*user);
            needs.membership(self.conversation, *user);
        }
    }

    fn bytes(&self) -> usize {
        self.users.len() * MEMBER_BYTES
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let group = Group::of(batch, self.conversation, self.me)?;
        group.require(member::Role::Admin)?;
        let mut new = Vec::with_capacity(self.users.len());
        for user in &self.users {
            batch.require_user(*user)?;
            if batch.require_membership(self.conversation, *user).is_err() {
                new.push(*user);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        if group.member_count + count(new.len()) > self.members_max {
            return Err(Error::GroupFull);
        }

        let position = batch.next_position();
        let joining = Joining {
            role: member::Role::Member,
            position,
            visible_from: match group.history {
                conversation::HistoryPolicy::All => 1,
                conversation::HistoryPolicy::SinceJoin => group.last_seq + 1,
            },
            last_seq: group.last_seq,
        };
        for user in &new {
            let key = (self.conversation.as_uuid(), user.as_uuid());
            match batch.members.change(&key) {
                Some(row) => joining.again(row),
                None => batch
                    .members
                    .insert(key, joining.row(self.conversation, *user)),
            }
        }
        members_changed(batch, self.conversation, position, count(new.len()));
        let refs = LogRefs {
            conversation: Some(self.conversation),
            actor: Some(self.me),
            seq: Some(joining.visible_from),
            aux: new.iter().map(|user| user.as_uuid()).collect(),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::MembersAdded, &refs);
        let visible_from = Seq::stored(joining.visible_from);
        let event = batch.event(
            position,
            EventKind::MembersAdded {
                conversation: self.conversation,
                users: new.clone(),
                visible_from,
                by: self.me,
            },
        );
        batch.announce(Change::Joined {
            conversation: self.conversation,
            members: Arc::from(new),
            visible_from,
            event,
        });
        Ok(())
    }
}

impl Repeatable for AddMembers {
    fn fingerprint(&self) -> Fingerprint {
        let begun = Fingerprint::of("add_members").and(self.conversation.as_uuid());
        let users = self.users.iter();
        users.fold(begun, |print, user| print.and(user.as_uuid()))
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Removes somebody from a group, or leaves it.
pub(super) struct RemoveMember {
    pub(super) me: UserId,
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
}

impl Operation for RemoveMember {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.me);
        if self.me == self.user {
            needs.owners_beside(self.conversation, self.me);
        } else {
            needs.membership(self.conversation, self.user);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let group = Group::of(batch, self.conversation, self.me)?;
        let state = if self.me == self.user {
            let is_owner = group.role == member::Role::Owner;
            if is_owner && group.member_count > 1 && batch.owners(self.conversation) == 1 {
                return Err(Error::LastOwner);
            }
            member::State::Left
        } else {
            group.require(member::Role::Admin)?;
            let theirs = role(batch, self.conversation, self.user)?;
            if group.role != member::Role::Owner && theirs != member::Role::Member {
                return Err(Error::Forbidden);
            }
            member::State::Removed
        };

        take_out(batch, self.conversation, self.user, state, self.me);
        Ok(())
    }
}

/// Takes a member out of a group.
fn take_out(
    batch: &mut Batch,
    conversation: ConversationId,
    user: UserId,
    state: member::State,
    by: UserId,
) {
    let position = batch.next_position();
    let key = (conversation.as_uuid(), user.as_uuid());
    if let Some(row) = batch.members.change(&key) {
        row.state = state;
        row.changed_pos = position.get();
    }
    members_changed(batch, conversation, position, -1);
    let refs = LogRefs {
        conversation: Some(conversation),
        user: Some(user),
        actor: Some(by),
        ..LogRefs::default()
    };
    batch.log(position, event::Kind::MemberRemoved, &refs);
    let event = batch.event(
        position,
        EventKind::MemberRemoved {
            conversation,
            user,
            by,
        },
    );
    batch.announce(Change::Left {
        conversation,
        user,
        event,
    });
}

/// Takes somebody whose account was deleted out of a group, which its last owner leaves to an heir.
pub(crate) struct LeaveForGood {
    pub(crate) user: UserId,
    pub(crate) conversation: ConversationId,
    /// Who owns the group next, if it has no other owner.
    pub(crate) heir: Option<UserId>,
}

impl Operation for LeaveForGood {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.user);
        needs.owners(self.conversation);
        if let Some(heir) = self.heir {
            needs.membership(self.conversation, heir);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        // Removed or deleted meanwhile: whoever has left is left alone.
        let Ok(group) = Group::of(batch, self.conversation, self.user) else {
            return Ok(());
        };
        let is_owner = group.role == member::Role::Owner;
        if is_owner && group.member_count > 1 && batch.owners(self.conversation) == 1 {
            let heir = self
                .heir
                .filter(|heir| *heir != self.user && role(batch, self.conversation, *heir).is_ok());
            let heir = heir.ok_or(Error::LastOwner)?;
            give_role(batch, self.conversation, heir, Role::Owner, self.user);
        }
        let state = member::State::Left;
        take_out(batch, self.conversation, self.user, state, self.user);
        Ok(())
    }
}

impl Repeatable for RemoveMember {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("remove_member")
            .and(self.conversation.as_uuid())
            .and(self.user.as_uuid())
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Makes a member an owner, an admin or a plain member.
pub(super) struct SetRole {
    pub(super) me: UserId,
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    pub(super) role: Role,
}

impl Operation for SetRole {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.me);
        needs.membership(self.conversation, self.user);
        needs.owners(self.conversation);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let group = Group::of(batch, self.conversation, self.me)?;
        group.require(member::Role::Owner)?;
        let before = role(batch, self.conversation, self.user)?;
        let after = member::Role::from(self.role);
        if before == after {
            return Ok(());
        }
        if before == member::Role::Owner && batch.owners(self.conversation) == 1 {
            return Err(Error::LastOwner);
        }

        give_role(batch, self.conversation, self.user, self.role, self.me);
        Ok(())
    }
}

/// Gives a member of a group another role.
fn give_role(
    batch: &mut Batch,
    conversation: ConversationId,
    user: UserId,
    role: Role,
    by: UserId,
) {
    let position = batch.next_position();
    let key = (conversation.as_uuid(), user.as_uuid());
    if let Some(row) = batch.members.change(&key) {
        row.role = role.into();
        row.changed_pos = position.get();
        row.self_pos = position.get();
    }
    members_changed(batch, conversation, position, 0);
    let refs = LogRefs {
        conversation: Some(conversation),
        user: Some(user),
        actor: Some(by),
        bytes: vec![role.to_byte()],
        ..LogRefs::default()
    };
    batch.log(position, event::Kind::RoleChanged, &refs);
    let event = batch.event(
        position,
        EventKind::RoleChanged {
            conversation,
            user,
            role,
            by,
        },
    );
    batch.announce(Change::InConversation {
        conversation,
        seq: None,
        event,
    });
}

impl Repeatable for SetRole {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("set_role")
            .and(self.conversation.as_uuid())
            .and(self.user.as_uuid())
            .and(self.role.as_str())
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Deletes a group.
pub(super) struct DeleteGroup {
    pub(super) me: UserId,
    pub(super) conversation: ConversationId,
}

impl Operation for DeleteGroup {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.me);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let group = Group::of(batch, self.conversation, self.me)?;
        group.require(member::Role::Owner)?;

        let position = batch.next_position();
        let now = batch.now();
        // The members' rows stay, however many they are: without an open conversation they prove
        // nothing.
        if let Some(row) = batch.conversations.change(&self.conversation.as_uuid()) {
            row.state = conversation::State::Deleted;
            row.changed_pos = position.get();
            row.last_pos = position.get();
            row.updated_at = now.as_micros();
        }
        let refs = LogRefs {
            conversation: Some(self.conversation),
            actor: Some(self.me),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::ConversationDeleted, &refs);
        let event = batch.event(
            position,
            EventKind::ConversationDeleted {
                conversation: self.conversation,
                by: self.me,
            },
        );
        batch.announce(Change::ConversationDeleted {
            conversation: self.conversation,
            event,
        });
        Ok(())
    }
}

impl Repeatable for DeleteGroup {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("delete_group").and(self.conversation.as_uuid())
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// A group as the rules look at it, for one of its members.
struct Group {
    title: Option<String>,
    history: conversation::HistoryPolicy,
    last_seq: i64,
    member_count: i64,
    /// What the member may do.
    role: member::Role,
}

impl Group {
    /// The group, which must be one, to which the user must belong.
    fn of(batch: &Batch, conversation: ConversationId, user: UserId) -> Result<Self> {
        batch.require_membership(conversation, user)?;
        let row = batch.conversations.get(&conversation.as_uuid());
        let row = row.ok_or(Error::ConversationNotFound)?;
        if row.kind != conversation::Kind::Group {
            return Err(Error::NotAGroup);
        }
        Ok(Self {
            title: row.title.clone(),
            history: row.history_policy,
            last_seq: row.last_seq,
            member_count: row.member_count,
            role: role(batch, conversation, user)?,
        })
    }

    /// Insists that the member may do at least what `least` may.
    fn require(&self, least: member::Role) -> Result<()> {
        if Role::from(self.role) < Role::from(least) {
            return Err(Error::Forbidden);
        }
        Ok(())
    }
}

/// What a member may do.
fn role(batch: &Batch, conversation: ConversationId, user: UserId) -> Result<member::Role> {
    let key = (conversation.as_uuid(), user.as_uuid());
    let row = batch.members.get(&key);
    row.filter(|row| row.state == member::State::Joined)
        .map(|row| row.role)
        .ok_or(Error::MemberNotFound)
}

/// Stamps a conversation whose members are others, or may do other things.
fn members_changed(batch: &mut Batch, conversation: ConversationId, at: Position, more: i64) {
    let now = batch.now();
    if let Some(row) = batch.conversations.change(&conversation.as_uuid()) {
        row.member_count += more;
        row.members_pos = at.get();
        row.changed_pos = at.get();
        row.last_pos = at.get();
        row.updated_at = now.as_micros();
    }
}

fn count(people: usize) -> i64 {
    i64::try_from(people).unwrap_or(i64::MAX)
}

/// About what a member's row takes, so that many long lists do not share one transaction.
const MEMBER_BYTES: usize = 256;
