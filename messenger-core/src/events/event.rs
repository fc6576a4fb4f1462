//! What happened, as listeners see it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::clock::Timestamp;
use crate::conversations::{ConversationHead, Markers, Role, Settings};
use crate::ids::{ConversationId, Position, Seq, SessionId, UserId};
use crate::messages::{Message, ReactionChange};
use crate::users::User;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Event {
    /// Its id, the same on every node and at every delivery.
    pub id: Uuid,
    /// Its place in the change log.
    pub position: Position,
    /// When it was committed.
    pub occurred_at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    rendered: Rendered,
}

/// What happened. The list is open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A message was sent.
    MessageCreated {
        /// The message.
        message: Message,
        /// Who sent it.
        sender: User,
        /// What it changed about its conversation.
        conversation: ConversationHead,
    },
    /// A message has other content, or somebody reacts to it, or no longer.
    MessageUpdated {
        /// The message as it is now; whose its reactions are is not said.
        message: Message,
        /// The reaction that came or went; `None` if it was edited.
        reaction: Option<ReactionChange>,
        /// What an edit of it changed about its conversation, if it is its last message.
        conversation: Option<ConversationHead>,
    },
    /// A message was deleted.
    MessageDeleted {
        /// What is left of it.
        message: Message,
        /// What it changed about its conversation, if it was its last message.
        conversation: Option<ConversationHead>,
    },
    /// The listener belongs to a conversation that did not exist before.
    ConversationCreated {
        /// The conversation.
        conversation: ConversationHead,
    },
    /// A group has another title.
    GroupChanged {
        /// The group.
        conversation: ConversationId,
        /// What it is called now.
        title: String,
        /// Who changed it.
        by: UserId,
    },
    /// People belong to a group from here on; the listener may be one of them.
    MembersAdded {
        /// The group.
        conversation: ConversationId,
        /// Who was added, ordered by id.
        users: Vec<UserId>,
        /// The first message that they may see.
        visible_from: Seq,
        /// Who added them.
        by: UserId,
    },
    /// Somebody no longer belongs to a group. If it is the listener, nothing of the group follows.
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
        /// What they may do now.
        role: Role,
        /// Who changed it.
        by: UserId,
    },
    /// A group is no more. Nothing of it follows.
    ConversationDeleted {
        /// The group.
        conversation: ConversationId,
        /// Who deleted it.
        by: UserId,
    },
    /// Somebody has read or received more. In a large conversation only the listener's own
    /// markers are told.
    MarkerChanged {
        /// The conversation.
        conversation: ConversationId,
        /// Whose markers they are.
        user: UserId,
        /// Where they are now, and how many messages this person had not read at this position.
        /// If it is the listener, the conversation no longer is to look unread once
        /// [`last_read`](Markers::last_read) has moved.
        markers: Markers,
    },
    /// Somebody shows another profile. Only streams that go on from a cursor hear of it.
    UserChanged {
        /// The profile as it is now.
        user: User,
    },
    /// The listener keeps a conversation in another way. Nobody else is told.
    OwnChanged {
        /// The conversation.
        conversation: ConversationId,
        /// How it is kept now.
        settings: Settings,
    },
    /// Something that is only the listener's, and of no conversation, has changed: whom they have
    /// blocked, or what they keep for themselves. A sync says what. Nobody else is told.
    SelfChanged,
}

/// The event in the form in which a shell sends it.
#[derive(Default)]
struct Rendered(OnceLock<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() {
            "made"
        } else {
            "none"
        })
    }
}

impl Event {
    pub(crate) fn new(
        id: Uuid,
        position: Position,
        occurred_at: Timestamp,
        kind: EventKind,
    ) -> Self {
        Self {
            id,
            position,
            occurred_at,
            kind,
            rendered: Rendered::default(),
        }
    }

    /// The id of the event at a position of a deployment's change log.
    pub(crate) fn id_at(deployment: Uuid, position: Position) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(deployment.as_bytes());
        hash.update(position.get().to_be_bytes());
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Whether a message that was there already has changed its conversation too.
    pub(super) fn changes_conversation(&self) -> bool {
        matches!(
            self.kind,
            EventKind::MessageUpdated {
                conversation: Some(_),
                ..
            } | EventKind::MessageDeleted {
                conversation: Some(_),
                ..
            }
        )
    }

    /// Returns the event's form on the wire, making it at the first call and sharing it after.
    ///
    /// A server uses it to serialise an event once and not once for each listener. All calls
    /// must ask for the same type: for another one, the form is made anew.
    pub fn rendered<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        if let Some(made) = self.rendered.0.get()
            && let Ok(made) = Arc::clone(made).downcast::<T>()
        {
            return made;
        }
        let made = Arc::new(make(self));
        // Of two listeners who make it at once, one is kept.
        let _ = self.rendered.0.set(made.clone());
        made
    }
}

/// A line of the change log with what the hub needs to deliver it.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Something that the members of a conversation are told; if it is about a message, only
    /// those who may see that one.
    InConversation {
        conversation: ConversationId,
        seq: Option<Seq>,
        event: Arc<Event>,
    },
    /// Users belong to a conversation from here on. Everybody who belongs to it is told.
    Joined {
        conversation: ConversationId,
        members: Arc<[UserId]>,
        /// The first message that they may see.
        visible_from: Seq,
        event: Arc<Event>,
    },
    /// A user no longer belongs to a conversation. Everybody who did until here is told.
    Left {
        conversation: ConversationId,
        user: UserId,
        event: Arc<Event>,
    },
    /// Nobody belongs to a conversation any more. Everybody who did until here is told.
    ConversationDeleted {
        conversation: ConversationId,
        event: Arc<Event>,
    },
    /// A user shows another profile. Told to whoever shares a small conversation with them.
    Profile { user: UserId, event: Arc<Event> },
    /// Something of which only the user's own devices are told.
    Own { user: UserId, event: Arc<Event> },
    SessionsRevoked {
        position: Position,
        user: UserId,
        sessions: Arc<[SessionId]>,
        at: Timestamp,
    },
    /// Something of which a user's devices can not be told exactly any more: a stream that goes on
    /// from a cursor reads it.
    Stale { position: Position, user: UserId },
    /// Something that happened in a conversation, as of [`InConversation`](Self::InConversation),
    /// which can not be told as it was then: what it was about has changed since, perhaps after
    /// somebody left who would be told here. Whoever listens reads it.
    Late {
        position: Position,
        conversation: ConversationId,
        seq: Option<Seq>,
    },
    /// A change that no listener is told of.
    Unseen { position: Position },
}

impl Change {
    pub(crate) fn position(&self) -> Position {
        match self {
            Self::InConversation { event, .. }
            | Self::Joined { event, .. }
            | Self::Left { event, .. }
            | Self::ConversationDeleted { event, .. }
            | Self::Profile { event, .. }
            | Self::Own { event, .. } => event.position,
            Self::SessionsRevoked { position, .. }
            | Self::Stale { position, .. }
            | Self::Late { position, .. }
            | Self::Unseen { position } => *position,
        }
    }

    /// Whether somebody has sent something.
    pub(crate) fn is_new_message(&self) -> bool {
        matches!(self, Self::InConversation { event, .. }
            if matches!(event.kind, EventKind::MessageCreated { .. }))
    }

    /// The conversation that its listeners have in common, if there is one.
    pub(super) fn conversation(&self) -> Option<Uuid> {
        match self {
            Self::InConversation { conversation, .. } => Some(conversation.as_uuid()),
            _ => None,
        }
    }
}
