//! What can go wrong, as types: [`Error`] is open, [`ErrorKind`] is closed on purpose.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of every call of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One broken rule of one field of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field's name as the user of the API knows it, like `username`.
    pub field: &'static str,
    /// The rule, for a person: `must be 3 to 32 characters`.
    pub message: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

impl StdError for Invalid {}

/// Why a call failed. Each variant is a broken rule; [`Error::code`] is its stable name.
///
/// The list of variants and codes may grow: match on [`Error::kind`] for what must be exhaustive.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the input breaks a rule. Correct it; nothing was stored.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A direct conversation needs another person than oneself.
    #[error("a direct conversation needs another person")]
    InvalidTarget,
    /// Somebody has this username, perhaps in other capitals.
    #[error("the username is taken")]
    UsernameTaken,
    /// The username or the password is wrong; it is not said which.
    #[error("the username or the password is wrong")]
    InvalidCredentials,
    /// The refresh token is unknown, expired, spent or revoked. Log in again.
    #[error("the refresh token is not valid")]
    InvalidRefreshToken,
    /// The access token is malformed, expired, of another kind, or its session has ended.
    #[error("the access token is not valid")]
    InvalidToken,
    /// No such user.
    #[error("there is no such user")]
    UserNotFound,
    /// No such conversation, or the actor is not a member: the two are not told apart.
    #[error("there is no such conversation")]
    ConversationNotFound,
    /// The actor has no such session.
    #[error("there is no such session")]
    SessionNotFound,
    /// The sender has used this client id in another conversation. Make a new id.
    #[error("the client message id was used in another conversation")]
    ClientMessageConflict,
    /// A bounded queue is full, or a lock took too long. Nothing was stored; try again.
    #[error("the engine is busy")]
    Busy {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// A subscription fell further behind than the change log reaches. Sync, subscribe again.
    #[error("the subscription is too far behind")]
    SubscriptionLost,
    /// The engine is closing or closed.
    #[error("the engine is closed")]
    Closed,
    /// The disk or the database is full. Reads go on; writes work again when there is room.
    #[error("the storage is full")]
    StorageFull(#[source] Cause),
    /// The database can not be reached now. Whether a write took place is not known: repeat it
    /// with the same client id.
    #[error("the database can not be reached")]
    Unavailable(#[source] Cause),
    /// The database failed in a way that the engine does not expect.
    #[error("the database failed")]
    Storage(#[source] Cause),
    /// The engine was set up in a way that can not work. Says what to do.
    #[error("{0}")]
    Setup(String, #[source] Option<Cause>),
    /// A bug in the engine: please report it.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The cause of an [`Error`], shared, since one failed transaction fails many calls.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// What kind of failure an [`Error`] is, which decides who must act. Closed on purpose: a shell
/// maps each kind to one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input breaks a rule.
    Invalid,
    /// The input is well-formed, and what it asks for makes no sense.
    Refused,
    /// The caller has not shown who they are.
    Unauthenticated,
    /// There is no such thing, or the caller may not know that there is.
    NotFound,
    /// It contradicts what is stored.
    Conflict,
    /// Not now; try again.
    Busy,
    /// There is no room.
    StorageFull,
    /// A fault of the engine, its set-up or its database.
    Internal,
}

impl Error {
    /// Returns the stable name of the failure, in snake case. The list is open.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validation_error",
            Self::InvalidTarget => "invalid_target",
            Self::UsernameTaken => "username_taken",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidRefreshToken => "invalid_refresh_token",
            Self::InvalidToken => "invalid_token",
            Self::UserNotFound => "user_not_found",
            Self::ConversationNotFound => "conversation_not_found",
            Self::SessionNotFound => "session_not_found",
            Self::ClientMessageConflict => "client_message_conflict",
            Self::SubscriptionLost => "subscription_lost",
            Self::Busy { .. } | Self::Closed | Self::Unavailable(_) => "service_unavailable",
            Self::StorageFull(_) => "storage_full",
            Self::Storage(_) | Self::Setup(..) | Self::Internal(_) => "internal_error",
        }
    }

    /// Returns what kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::InvalidTarget => ErrorKind::Refused,
            Self::InvalidCredentials | Self::InvalidRefreshToken | Self::InvalidToken => {
                ErrorKind::Unauthenticated
            }
            Self::UserNotFound | Self::ConversationNotFound | Self::SessionNotFound => {
                ErrorKind::NotFound
            }
            Self::UsernameTaken | Self::ClientMessageConflict => ErrorKind::Conflict,
            Self::Busy { .. } | Self::Closed | Self::Unavailable(_) | Self::SubscriptionLost => {
                ErrorKind::Busy
            }
            Self::StorageFull(_) => ErrorKind::StorageFull,
            Self::Storage(_) | Self::Setup(..) | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Returns how long to wait before the same call may succeed; `None` where waiting does not
    /// help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => Some(*retry_after),
            Self::Closed | Self::Unavailable(_) | Self::SubscriptionLost => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }
}
