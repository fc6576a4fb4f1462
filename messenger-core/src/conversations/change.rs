//! The rules of what the members of a group may do to it, and to each other.

use std::sync::Arc;

use super::create::{Joining, MEMBER_BYTES, count};
use super::{Role, Title};
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::hooks::Verdict;
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::store::entity::{conversation, event, member};
use crate::write::{Batch, Fingerprint, LogRefs, Needs, Operation, Repeatable};

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
        let refs = LogRefs::of(self.conversation, self.me);
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
    pub(super) verdict: Verdict,
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
        self.verdict.clone()?;

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
            seq: Some(joining.visible_from),
            aux: new.iter().map(|user| user.as_uuid()).collect(),
            ..LogRefs::of(self.conversation, self.me)
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
        user: Some(user),
        ..LogRefs::of(conversation, by)
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
        // Their devices forget the group with all of this.
        let key = (self.conversation.as_uuid(), self.user.as_uuid());
        if let Some(row) = batch.members.change(&key) {
            row.muted_until = None;
            row.pinned_at = None;
            row.archived_at = None;
            row.marked_unread = false;
        }
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
        user: Some(user),
        bytes: vec![role.to_byte()],
        ..LogRefs::of(conversation, by)
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
        batch.release_attachments_in(self.conversation);
        let refs = LogRefs::of(self.conversation, self.me);
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
