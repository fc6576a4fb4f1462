//! Who is calling.

use crate::clock::Timestamp;
use crate::ids::{SessionId, UserId};

/// The proof of who is calling. Every call for somebody takes one.
///
/// There are two ways to get one: [`Auth::verify`](super::Auth::verify) a token, or
/// [`MessengerEngine::trust`](crate::MessengerEngine::trust) a host's own log-in. It says who the
/// caller is, not what they may do: each call decides that over what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    user_id: UserId,
    session: Option<(SessionId, Timestamp)>,
}

impl Actor {
    pub(super) fn of_session(user_id: UserId, session: SessionId, expires_at: Timestamp) -> Self {
        Self {
            user_id,
            session: Some((session, expires_at)),
        }
    }

    pub(crate) fn trusted(user_id: UserId) -> Self {
        Self {
            user_id,
            session: None,
        }
    }

    /// Returns the user.
    pub fn user_id(&self) -> UserId {
        self.user_id
    }

    /// Returns the session; `None` for whom a host has vouched.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.map(|(id, _)| id)
    }

    /// Returns when the access token expires; `None` for whom a host has vouched.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.session.map(|(_, expires_at)| expires_at)
    }
}
