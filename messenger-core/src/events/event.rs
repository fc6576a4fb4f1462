//! What happened, as listeners see it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::clock::Timestamp;
use crate::conversations::{Conversation, ConversationHead};
use crate::ids::{ConversationId, Position, SessionId, UserId};
use crate::messages::Message;
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
    /// The listener belongs to a conversation that did not exist before.
    ConversationCreated {
        /// The conversation.
        conversation: Conversation,
    },
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
    MessageCreated {
        conversation: ConversationId,
        event: Arc<Event>,
    },
    ConversationCreated {
        conversation: ConversationId,
        members: Arc<[UserId]>,
        event: Arc<Event>,
    },
    SessionsRevoked {
        position: Position,
        user: UserId,
        sessions: Arc<[SessionId]>,
        at: Timestamp,
    },
    /// A change that no listener is told of.
    Unseen { position: Position },
}

impl Change {
    pub(crate) fn position(&self) -> Position {
        match self {
            Self::MessageCreated { event, .. } | Self::ConversationCreated { event, .. } => {
                event.position
            }
            Self::SessionsRevoked { position, .. } | Self::Unseen { position } => *position,
        }
    }
}
