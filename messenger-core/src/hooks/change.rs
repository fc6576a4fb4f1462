//! What a host is told of after it has happened.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::OnFailure;
use crate::clock::Timestamp;
use crate::conversations::{ConversationKind, Markers, Role};
use crate::error::{Cause, Invalid};
use crate::ids::{ConversationId, Position, SessionId, UserId};
use crate::messages::{Message, ReactionChange};
use crate::store::entity::event::Kind;
use crate::users::User;

/// Something that has happened, which [`on_change`](crate::EngineBuilder::on_change) tells the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Its id, the same however often it is told, on every node.
    pub id: Uuid,
    /// Its place in the change log.
    pub position: Position,
    /// When it was committed.
    pub at: Timestamp,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened. The list is open.
///
/// What it is about is as it is when it is told, which may be later: a message may be deleted by
/// then, and has no content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A message was sent.
    MessageCreated(Box<NewMessageTold>),
    /// A message has other content, or somebody reacts to it, or no longer.
    MessageUpdated {
        /// The message; whose its reactions are is not said.
        message: Box<Message>,
        /// The reaction that came or went; `None` if it was edited.
        reaction: Option<ReactionChange>,
    },
    /// A message was deleted.
    MessageDeleted {
        /// What is left of it.
        message: Box<Message>,
    },
    /// There is a new conversation.
    ConversationCreated {
        /// The conversation.
        conversation: ConversationBrief,
        /// Who belongs to it from the beginning, ordered by id.
        members: Vec<UserId>,
        /// Who opened it.
        by: UserId,
    },
    /// A group has another title.
    ConversationChanged {
        /// The group.
        conversation: ConversationBrief,
        /// Who changed it.
        by: UserId,
    },
    /// A group is no more.
    ConversationDeleted {
        /// The group.
        conversation: ConversationId,
        /// Who deleted it.
        by: UserId,
    },
    /// People belong to a group from here on.
    MembersAdded {
        /// The group.
        conversation: ConversationBrief,
        /// Who was added, ordered by id.
        users: Vec<UserId>,
        /// Who added them.
        by: UserId,
    },
    /// Somebody no longer belongs to a group.
    MemberRemoved {
        /// The group.
        conversation: ConversationId,
        /// Who left or was removed.
        user: UserId,
        /// Who removed them; the same, if they left.
        by: UserId,
    },
    /// A member of a group may do other things.
    RoleChanged {
        /// The group.
        conversation: ConversationId,
        /// The member.
        user: UserId,
        /// What they may do since.
        role: Role,
        /// Who changed it.
        by: UserId,
    },
    /// Somebody has read or received more.
    MarkerChanged {
        /// The conversation.
        conversation: ConversationId,
        /// Whose markers they are.
        user: UserId,
        /// Where they were then, and how many messages this person had not read.
        markers: Markers,
    },
    /// There is a new user, somebody shows another profile, or an account was deleted.
    UserChanged {
        /// The profile.
        user: User,
    },
    /// Somebody has another password.
    PasswordChanged {
        /// Who.
        user: UserId,
    },
    /// Sessions have ended.
    SessionsEnded {
        /// Whose.
        user: UserId,
        /// Which.
        sessions: Vec<SessionId>,
    },
    /// What happened can not be told any more: the host was behind for so long that the change log
    /// was cut ([`Limits::hook_behind_max`](crate::Limits::hook_behind_max)). What is there by now can
    /// be read.
    Missed {
        /// Where it happened; `None` for everywhere.
        conversation: Option<ConversationId>,
        /// What happened up to here was told.
        after: Position,
        /// What happened after here will be.
        upto: Position,
    },
}

/// A message that was sent, with what it takes to notify people of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewMessageTold {
    /// The message.
    pub message: Message,
    /// Who sent it.
    pub sender: User,
    /// Where.
    pub conversation: ConversationBrief,
    /// Members who want to hear of it, ordered by id: in a small conversation all, in a larger one
    /// whom the message names; without the sender, whoever has muted the conversation, and whoever has
    /// blocked the sender or was blocked by them. Nobody once it was deleted.
    pub notify: Vec<UserId>,
}

/// What everybody in a conversation knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConversationBrief {
    /// Its id.
    pub id: ConversationId,
    /// What kind it is.
    pub kind: ConversationKind,
    /// The title of a group, unless that was deleted.
    pub title: Option<String>,
    /// How many people belong to it.
    pub member_count: u32,
}

/// What a change is about, to choose which ones are told. The list is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// `message.created`
    MessageCreated,
    /// `message.updated`
    MessageUpdated,
    /// `message.deleted`
    MessageDeleted,
    /// `conversation.created`
    ConversationCreated,
    /// `conversation.updated`
    ConversationUpdated,
    /// `conversation.deleted`
    ConversationDeleted,
    /// `members.added`
    MembersAdded,
    /// `member.removed`
    MemberRemoved,
    /// `member.updated`
    MemberUpdated,
    /// `read.updated`
    ReadUpdated,
    /// `user.updated`
    UserUpdated,
    /// `password.changed`
    PasswordChanged,
    /// `sessions.ended`
    SessionsEnded,
    /// `changes.missed`, which is told whatever was chosen.
    ChangesMissed,
}

impl Topic {
    /// Every topic.
    pub const ALL: &'static [Self] = &[
        Self::MessageCreated,
        Self::MessageUpdated,
        Self::MessageDeleted,
        Self::ConversationCreated,
        Self::ConversationUpdated,
        Self::ConversationDeleted,
        Self::MembersAdded,
        Self::MemberRemoved,
        Self::MemberUpdated,
        Self::ReadUpdated,
        Self::UserUpdated,
        Self::PasswordChanged,
        Self::SessionsEnded,
        Self::ChangesMissed,
    ];

    /// Returns the name on the wire, like `message.created`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageCreated => "message.created",
            Self::MessageUpdated => "message.updated",
            Self::MessageDeleted => "message.deleted",
            Self::ConversationCreated => "conversation.created",
            Self::ConversationUpdated => "conversation.updated",
            Self::ConversationDeleted => "conversation.deleted",
            Self::MembersAdded => "members.added",
            Self::MemberRemoved => "member.removed",
            Self::MemberUpdated => "member.updated",
            Self::ReadUpdated => "read.updated",
            Self::UserUpdated => "user.updated",
            Self::PasswordChanged => "password.changed",
            Self::SessionsEnded => "sessions.ended",
            Self::ChangesMissed => "changes.missed",
        }
    }

    /// Takes the name on the wire.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is none of them.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.iter().find(|topic| topic.as_str() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|topic| topic.as_str()).collect();
            let names = names.join(", ");
            Invalid::new("topic", format!("must be one of {names}"))
        })
    }

    /// The lines of the change log that are about it.
    pub(super) fn lines(self) -> &'static [Kind] {
        match self {
            Self::MessageCreated => &[Kind::MessageCreated],
            Self::MessageUpdated => &[Kind::MessageEdited, Kind::ReactionChanged],
            Self::MessageDeleted => &[Kind::MessageDeleted],
            Self::ConversationCreated => &[Kind::ConversationCreated],
            Self::ConversationUpdated => &[Kind::ConversationChanged],
            Self::ConversationDeleted => &[Kind::ConversationDeleted],
            Self::MembersAdded => &[Kind::MembersAdded],
            Self::MemberRemoved => &[Kind::MemberRemoved],
            Self::MemberUpdated => &[Kind::RoleChanged],
            Self::ReadUpdated => &[Kind::MarkerChanged],
            Self::UserUpdated => &[Kind::UserChanged],
            Self::PasswordChanged => &[Kind::PasswordChanged],
            Self::SessionsEnded => &[Kind::SessionsRevoked],
            Self::ChangesMissed => &[],
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Change {
    /// Returns what it is about.
    pub fn topic(&self) -> Topic {
        match &self.kind {
            ChangeKind::MessageCreated(_) => Topic::MessageCreated,
            ChangeKind::MessageUpdated { .. } => Topic::MessageUpdated,
            ChangeKind::MessageDeleted { .. } => Topic::MessageDeleted,
            ChangeKind::ConversationCreated { .. } => Topic::ConversationCreated,
            ChangeKind::ConversationChanged { .. } => Topic::ConversationUpdated,
            ChangeKind::ConversationDeleted { .. } => Topic::ConversationDeleted,
            ChangeKind::MembersAdded { .. } => Topic::MembersAdded,
            ChangeKind::MemberRemoved { .. } => Topic::MemberRemoved,
            ChangeKind::RoleChanged { .. } => Topic::MemberUpdated,
            ChangeKind::MarkerChanged { .. } => Topic::ReadUpdated,
            ChangeKind::UserChanged { .. } => Topic::UserUpdated,
            ChangeKind::PasswordChanged { .. } => Topic::PasswordChanged,
            ChangeKind::SessionsEnded { .. } => Topic::SessionsEnded,
            ChangeKind::Missed { .. } => Topic::ChangesMissed,
        }
    }

    /// Returns the conversation in which it happened; `None` for what belongs to none.
    pub fn conversation_id(&self) -> Option<ConversationId> {
        match &self.kind {
            ChangeKind::MessageCreated(told) => Some(told.conversation.id),
            ChangeKind::MessageUpdated { message, .. } | ChangeKind::MessageDeleted { message } => {
                Some(message.conversation_id)
            }
            ChangeKind::ConversationCreated { conversation, .. }
            | ChangeKind::ConversationChanged { conversation, .. }
            | ChangeKind::MembersAdded { conversation, .. } => Some(conversation.id),
            ChangeKind::ConversationDeleted { conversation, .. }
            | ChangeKind::MemberRemoved { conversation, .. }
            | ChangeKind::RoleChanged { conversation, .. }
            | ChangeKind::MarkerChanged { conversation, .. } => Some(*conversation),
            ChangeKind::Missed { conversation, .. } => *conversation,
            ChangeKind::UserChanged { .. }
            | ChangeKind::PasswordChanged { .. }
            | ChangeKind::SessionsEnded { .. } => None,
        }
    }
}

/// How a host is told of changes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangeSettings {
    /// What it is told of. Empty: everything.
    pub topics: Vec<Topic>,
    /// After which position a name begins that the database does not know yet; `None` for the head of
    /// the change log, so that it is told what happens from then on.
    pub from: Option<Position>,
    /// How long its answer is waited for. Then it is dropped, and has failed. 10 s.
    pub wait_max: Duration,
    /// What becomes of a change that it could not take: it is tried until it is taken
    /// ([`OnFailure::Refuse`]), or left out after [`tries_max`](Self::tries_max)
    /// ([`OnFailure::Allow`]).
    pub on_failure: OnFailure,
    /// How often a change is tried that may be left out. 3.
    pub tries_max: u32,
    /// For how long a change is tried that may not be left out: past it, and if nothing of its
    /// conversation was taken for as long, it is. `None`, for ever.
    pub give_up: Option<Duration>,
    /// How long after it failed a change is tried again: this the first time, then twice as long each
    /// time. 1 s.
    pub retry_min: Duration,
    /// How long at most. 15 min.
    pub retry_max: Duration,
}

impl Default for ChangeSettings {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            from: None,
            wait_max: Duration::from_secs(10),
            on_failure: OnFailure::default(),
            tries_max: 3,
            give_up: None,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(15 * 60),
        }
    }
}

impl ChangeSettings {
    /// The lines of the change log that it is told of. What people keep for themselves is in none.
    pub(super) fn lines(&self) -> Vec<Kind> {
        let topics = match self.topics.as_slice() {
            [] => Topic::ALL,
            some => some,
        };
        let lines = topics.iter().flat_map(|topic| topic.lines());
        lines.copied().collect()
    }
}

/// What a host answers to a change: that it has taken it, or why not.
pub type ChangeResult = Result<(), NotTaken>;

/// Why a host could not take a change, and what is to become of it. Made of any error by `?`, and then
/// tried again.
#[derive(Clone, Debug)]
pub struct NotTaken {
    pub(super) why: Cause,
    pub(super) then: Then,
}

/// What becomes of a change that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Again,
    /// Not before this time has passed, like everything else.
    AgainAfter(Duration),
    /// Nothing is told any more, until an engine is opened again.
    Stop,
}

impl NotTaken {
    /// It is tried again, as the settings say.
    pub fn new(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            why: Arc::from(why.into()),
            then: Then::Again,
        }
    }

    /// It is tried again, but not before some time has passed; until then nothing else is told either,
    /// but for what is under way. Bounded by [`ChangeSettings::retry_max`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self {
            then: Then::AgainAfter(wait),
            ..self
        }
    }

    /// Nothing is told any more, to nobody under this name, until the engine is opened again.
    #[must_use]
    pub fn stop(self) -> Self {
        Self {
            then: Then::Stop,
            ..self
        }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for NotTaken {
    fn from(why: E) -> Self {
        Self::new(Box::new(why) as Box<dyn StdError + Send + Sync>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_reads_what_it_writes_and_refuses_the_rest() {
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(topic.as_str()), Ok(*topic));
        }
        for wrong in ["", "message", "message.created ", "self.updated"] {
            assert!(Topic::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_people_keep_for_themselves_is_told_to_nobody() {
        let all = ChangeSettings::default().lines();

        assert!(!all.contains(&Kind::SelfChanged));
        assert_eq!(all.len(), 14);
    }
}
