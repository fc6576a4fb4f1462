//! Groups as a host asks for them; their rules are in `create.rs` and `change.rs`.

use std::fmt;

use super::change::{AddMembers, DeleteGroup, RemoveMember, RenameGroup, SetRole};
use super::create::CreateGroup;
use super::{Conversation, Conversations, Role};
use crate::auth::Actor;
use crate::error::{Error, Invalid, Result};
use crate::hooks::{BeforeJoin, Joins};
use crate::ids::{ConversationId, Position, UserId};
use crate::limits::Limits;
use crate::store::entity::conversation;

/// The title of a group: 1 to [`Limits::title_chars_max`] characters, none of them U+0000.
///
/// Kept as it is: nothing is trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// Takes a title.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is empty or too long, or contains U+0000, which no database keeps alike.
    pub fn parse(text: impl Into<String>, limits: &Limits) -> Result<Self, Invalid> {
        let text = text.into();
        let most = limits.title_chars_max;
        // A character has at most four bytes: what is far too long is not counted.
        if text.is_empty() || text.len() > most.saturating_mul(4) || text.chars().count() > most {
            let rule = format!("must be 1 to {most} characters");
            return Err(Invalid::new("title", rule));
        }
        if text.contains('\0') {
            return Err(Invalid::new("title", "must not contain U+0000"));
        }
        Ok(Self(text))
    }

    /// Returns the title.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What those who join a group later see of its past. The list is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryPolicy {
    /// Everything.
    #[default]
    All,
    /// Nothing: only what is sent after they joined, the last time.
    SinceJoin,
}

impl HistoryPolicy {
    /// Returns the name on the wire: `all`, `since_join`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::SinceJoin => "since_join",
        }
    }

    /// Takes the name on the wire.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is none of them.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "all" => Ok(Self::All),
            "since_join" => Ok(Self::SinceJoin),
            _ => Err(Invalid::new("history", "must be all or since_join")),
        }
    }
}

impl From<HistoryPolicy> for conversation::HistoryPolicy {
    fn from(policy: HistoryPolicy) -> Self {
        match policy {
            HistoryPolicy::All => Self::All,
            HistoryPolicy::SinceJoin => Self::SinceJoin,
        }
    }
}

/// A group to create.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// What it is called.
    pub title: Title,
    /// Who belongs to it from the beginning, beside its creator. Named twice counts once.
    pub members: Vec<UserId>,
    /// What those who join later see of its past.
    pub history: HistoryPolicy,
}

impl Conversations<'_> {
    /// Creates a group, which the actor owns.
    ///
    /// Up to 128 people can be members from the beginning; others are
    /// [added](Self::add_members) later.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: too many members are named.
    /// - [`Error::UserNotFound`]: one of them does not exist.
    /// - [`Error::GroupFull`]: a group may have fewer members.
    /// - [`Error::RefusedByHost`], [`Error::Undecided`]: see
    ///   [`before_join`](crate::EngineBuilder::before_join).
    /// - [`Error::ClientWriteConflict`]: see [`once`](Self::once). The actor who repeats it after
    ///   leaving the group gets [`Error::ConversationNotFound`].
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the group exists with all its members, or it does not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, conversations::*};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor, bob: UserId) -> Result<()> {
    /// let group = NewGroup {
    ///     title: Title::parse("Hikers", engine.limits())?,
    ///     members: vec![bob],
    ///     history: HistoryPolicy::All,
    /// };
    /// let id = ClientWriteId::parse("0195f3a0-7c1e-7cc2-9d3f-0f8d3a1b2c4d")?;
    /// let conversations = engine.conversations().once(id);
    /// let hikers = conversations.create_group(alice, group.clone()).await?;
    /// assert_eq!(hikers.own.role, Role::Owner);
    ///
    /// let again = conversations.create_group(alice, group).await?;
    /// assert_eq!(again.id, hikers.id);
    /// # Ok(()) }
    /// ```
    pub async fn create_group(&self, actor: &Actor, group: NewGroup) -> Result<Conversation> {
        let me = actor.user_id();
        let limits = self.engine.limits();
        let mut members = distinct(group.members, limits)?;
        members.retain(|user| *user != me);
        let about = || BeforeJoin {
            actor: me,
            users: members.clone(),
            to: Joins::NewGroup {
                title: group.title.clone(),
            },
        };
        let verdict = self.engine.hooks().may_join(about).await;
        let create = CreateGroup {
            me,
            title: group.title,
            members,
            verdict,
            history: group.history.into(),
            members_max: i64::from(limits.group_members_max),
        };
        let (writer, once) = (self.engine.writer(), self.once.clone());
        let (id, _) = writer.run_once(create, me, once).await?;
        self.get(actor, id).await
    }

    /// Changes the title of a group. The same title changes nothing. Returns the position at which
    /// it is so.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::NotAGroup`]: it is a direct conversation.
    /// - [`Error::Forbidden`]: the actor is neither owner nor admin.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the group has the new title, or the old one.
    pub async fn rename(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        title: Title,
    ) -> Result<Position> {
        let rename = RenameGroup {
            me: actor.user_id(),
            conversation,
            title,
        };
        self.write_once(rename, actor).await
    }

    /// Adds people to a group, up to 128 at once. Those who belong to it already stay as they are.
    /// Returns the position at which they belong to it.
    ///
    /// They have read all that was sent before. Whether they see it is decided by the group's
    /// [`HistoryPolicy`], and decided anew for whoever comes back.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: too many people are named.
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::NotAGroup`]: it is a direct conversation.
    /// - [`Error::Forbidden`]: the actor is neither owner nor admin.
    /// - [`Error::UserNotFound`]: one of them does not exist.
    /// - [`Error::GroupFull`]: not all of them have room; nobody was added.
    /// - [`Error::RefusedByHost`], [`Error::Undecided`]: see
    ///   [`before_join`](crate::EngineBuilder::before_join).
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, all of them belong to the group, or nobody was added.
    pub async fn add_members(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        users: &[UserId],
    ) -> Result<Position> {
        let limits = self.engine.limits();
        let users = distinct(users.to_vec(), limits)?;
        let about = || BeforeJoin {
            actor: actor.user_id(),
            users: users.clone(),
            to: Joins::Group(conversation),
        };
        let verdict = self.engine.hooks().may_join(about).await;
        let add = AddMembers {
            me: actor.user_id(),
            conversation,
            users,
            verdict,
            members_max: i64::from(limits.group_members_max),
        };
        self.write_once(add, actor).await
    }

    /// Removes somebody from a group: an owner anybody, an admin members. Oneself means to
    /// [`leave`](Self::leave).
    ///
    /// Whoever is removed hears of it and of nothing after it. Returns the position at which it is so.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::NotAGroup`]: it is a direct conversation.
    /// - [`Error::Forbidden`]: the actor may not remove this person.
    /// - [`Error::MemberNotFound`]: the person is no member, perhaps since somebody else was faster.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the person was removed and everybody told, or neither.
    pub async fn remove_member(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Position> {
        let remove = RemoveMember {
            me: actor.user_id(),
            conversation,
            user,
        };
        self.write_once(remove, actor).await
    }

    /// Leaves a group. The last member leaves an empty one, to which nobody comes back. Returns the
    /// position at which it is so.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::NotAGroup`]: it is a direct conversation.
    /// - [`Error::LastOwner`]: the actor is the last owner, and others are there. Make one of them
    ///   an owner, or delete the group.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the actor has left and everybody was told, or neither.
    pub async fn leave(&self, actor: &Actor, conversation: ConversationId) -> Result<Position> {
        self.remove_member(actor, conversation, actor.user_id())
            .await
    }

    /// Makes a member of a group an owner, an admin or a plain member. There may be several
    /// owners. Returns the position at which it is so.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::NotAGroup`]: it is a direct conversation.
    /// - [`Error::Forbidden`]: the actor is no owner.
    /// - [`Error::MemberNotFound`]: the person is no member.
    /// - [`Error::LastOwner`]: the person is the last owner, and would be less.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the person has the new role, or the old one.
    pub async fn set_role(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        user: UserId,
        role: Role,
    ) -> Result<Position> {
        let set = SetRole {
            me: actor.user_id(),
            conversation,
            user,
            role,
        };
        self.write_once(set, actor).await
    }

    /// Deletes a group, for everybody and for good: it answers like one that never was. Returns the
    /// position at which it is so.
    ///
    /// # Errors
    ///
    /// - [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    /// - [`Error::NotAGroup`]: it is a direct conversation.
    /// - [`Error::Forbidden`]: the actor is no owner.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the group is gone and everybody was told, or neither.
    pub async fn delete(&self, actor: &Actor, conversation: ConversationId) -> Result<Position> {
        let delete = DeleteGroup {
            me: actor.user_id(),
            conversation,
        };
        self.write_once(delete, actor).await
    }
}

/// People in one order, each once, and not too many.
fn distinct(mut users: Vec<UserId>, limits: &Limits) -> Result<Vec<UserId>, Error> {
    users.sort_unstable();
    users.dedup();
    let most = limits.members_added_max;
    if users.len() > most {
        let rule = format!("must be at most {most} ids");
        return Err(Invalid::new("member_ids", rule).into());
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_counts_characters_not_bytes() {
        let limits = Limits::default();

        assert!(Title::parse("😀".repeat(128), &limits).is_ok());
        assert!(Title::parse("😀".repeat(129), &limits).is_err());
        assert!(Title::parse("", &limits).is_err());
        assert!(Title::parse("a\0b", &limits).is_err());
    }
}
