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
    /// A direct conversation, and a block, need another person than oneself.
    #[error("it needs another person")]
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
    /// No such attachment, or the actor may not see it: the two are not told apart.
    #[error("there is no such attachment")]
    AttachmentNotFound,
    /// The engine was opened without a place for attachments.
    #[error("there is no place for attachments")]
    AttachmentsOff,
    /// Another message has the attachment. Upload it once more.
    #[error("another message has the attachment")]
    AttachmentUsed,
    /// The actor has as many attachments that no message has as one may. Send or delete some.
    #[error("too many attachments were not sent yet")]
    AttachmentsFull,
    /// The attachment is larger than it may be; nothing was stored.
    #[error("an attachment has at most {bytes_max} bytes")]
    AttachmentTooLarge {
        /// How many bytes it may have.
        bytes_max: u64,
    },
    /// The host takes no attachments of this type.
    #[error("attachments of this type are not taken")]
    AttachmentType,
    /// The bytes of an attachment broke off; nothing was stored. Upload it again.
    #[error("the bytes broke off")]
    UploadBroken(#[source] Cause),
    /// No such message, or it is from before the actor's time in a group that hides its past.
    #[error("there is no such message")]
    MessageNotFound,
    /// The person is no member of the conversation.
    #[error("there is no such member")]
    MemberNotFound,
    /// The actor belongs to the conversation, but may not do this.
    #[error("the actor may not do this")]
    Forbidden,
    /// One of the two people has blocked the other.
    #[error("one of the two people has blocked the other")]
    Blocked,
    /// The host refuses it, and says why; nothing was stored.
    #[error("refused: {0}")]
    RefusedByHost(String),
    /// The host could not decide whether it may take place; nothing was stored. Try again.
    #[error("it could not be decided whether this may take place")]
    Undecided(#[source] Cause),
    /// Only a group has titles, roles, and members who come and go.
    #[error("the conversation is not a group")]
    NotAGroup,
    /// The last owner of a group can not become less, nor leave while others are there.
    #[error("a group needs an owner")]
    LastOwner,
    /// The actor has blocked as many people as one may.
    #[error("too many people are blocked")]
    BlocksFull,
    /// The actor keeps as many settings as one may.
    #[error("too many settings are kept")]
    PrefsFull,
    /// The group has as many members as it may have.
    #[error("the group is full")]
    GroupFull,
    /// The message was deleted; it can not be changed any more.
    #[error("the message was deleted")]
    MessageDeleted,
    /// The account of the other person of the direct conversation was deleted.
    #[error("the person's account was deleted")]
    UserDeleted,
    /// The sender has used this client id in another conversation. Make a new id.
    #[error("the client message id was used in another conversation")]
    ClientMessageConflict,
    /// The actor has asked for something else under this client id. Make a new id.
    #[error("the client write id was used for another write")]
    ClientWriteConflict,
    /// What the client has does not belong to this history, or its cursor is not one: start again
    /// without a cursor. What waits to be sent stays good.
    #[error("the client must start again: {0}")]
    ResyncRequired(ResyncReason),
    /// A bounded queue is full, or a lock took too long. Nothing was stored; try again.
    #[error("the engine is busy")]
    Busy {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// A subscription fell further behind than the change log reaches, or the database may have
    /// lost the end of its history. Sync, subscribe again.
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
    /// The place where attachments are can not be reached now. Try again.
    #[error("the place for attachments can not be reached")]
    AttachmentsUnavailable(#[source] Cause),
    /// The database failed in a way that the engine does not expect.
    #[error("the database failed")]
    Storage(#[source] Cause),
    /// The engine was set up in a way that can not work. Says what to do.
    #[error("{0}")]
    Setup(String, #[source] Option<Cause>),
    /// The place where attachments should be can not be used. Says what to do.
    #[error("{0}")]
    AttachmentsSetup(String, #[source] Option<Cause>),
    /// The file of the secret that signs tokens can not be used, or there is none. Says what to do.
    #[error("{0}")]
    SecretSetup(String, #[source] Option<Cause>),
    /// A bug in the engine: please report it.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The cause of an [`Error`], shared, since one failed transaction fails many calls.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// Why a client must start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResyncReason {
    /// The client knows something from a history that a restore or a fail-over took back.
    HistoryDiverged,
    /// The cursor is damaged, or somebody else's.
    CursorMalformed,
    /// The cursor is of a version that is no longer understood.
    CursorVersion,
    /// What the client has missed was compacted away.
    Compacted,
}

impl ResyncReason {
    /// Returns the reason's stable name, in snake case. The list is open.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HistoryDiverged => "history_diverged",
            Self::CursorMalformed => "cursor_malformed",
            Self::CursorVersion => "cursor_version",
            Self::Compacted => "compacted",
        }
    }
}

impl fmt::Display for ResyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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
    /// What is given is larger than it may be.
    TooLarge,
    /// What is given is of a type that is not taken.
    WrongType,
    /// The caller may see the thing, but not do this with it.
    Forbidden,
    /// It contradicts what is stored.
    Conflict,
    /// What the caller goes on from is no more.
    Gone,
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
            Self::MessageNotFound => "message_not_found",
            Self::MemberNotFound => "member_not_found",
            Self::AttachmentNotFound => "attachment_not_found",
            Self::AttachmentsOff => "attachments_off",
            Self::AttachmentUsed => "attachment_used",
            Self::AttachmentsFull => "attachments_full",
            Self::AttachmentTooLarge { .. } => "too_large",
            Self::AttachmentType => "unsupported_media_type",
            Self::UploadBroken(_) => "upload_broken",
            Self::Forbidden => "forbidden",
            Self::Blocked => "blocked",
            Self::RefusedByHost(_) => "refused",
            Self::NotAGroup => "not_a_group",
            Self::LastOwner => "last_owner",
            Self::BlocksFull => "blocks_full",
            Self::PrefsFull => "prefs_full",
            Self::GroupFull => "group_full",
            Self::MessageDeleted => "message_deleted",
            Self::UserDeleted => "user_deleted",
            Self::ClientMessageConflict => "client_message_conflict",
            Self::ClientWriteConflict => "client_write_conflict",
            Self::ResyncRequired(_) => "resync_required",
            Self::SubscriptionLost => "subscription_lost",
            Self::Busy { .. }
            | Self::Closed
            | Self::Unavailable(_)
            | Self::AttachmentsUnavailable(_)
            | Self::Undecided(_) => "service_unavailable",
            Self::StorageFull(_) => "storage_full",
            Self::Storage(_)
            | Self::Setup(..)
            | Self::AttachmentsSetup(..)
            | Self::SecretSetup(..)
            | Self::Internal(_) => "internal_error",
        }
    }

    /// Returns what kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::InvalidTarget | Self::NotAGroup | Self::UploadBroken(_) => ErrorKind::Refused,
            Self::InvalidCredentials | Self::InvalidRefreshToken | Self::InvalidToken => {
                ErrorKind::Unauthenticated
            }
            Self::UserNotFound
            | Self::ConversationNotFound
            | Self::MessageNotFound
            | Self::MemberNotFound
            | Self::AttachmentNotFound
            | Self::AttachmentsOff
            | Self::SessionNotFound => ErrorKind::NotFound,
            Self::AttachmentTooLarge { .. } => ErrorKind::TooLarge,
            Self::AttachmentType => ErrorKind::WrongType,
            Self::Forbidden | Self::Blocked | Self::RefusedByHost(_) => ErrorKind::Forbidden,
            Self::UsernameTaken
            | Self::LastOwner
            | Self::AttachmentUsed
            | Self::AttachmentsFull
            | Self::BlocksFull
            | Self::PrefsFull
            | Self::GroupFull
            | Self::MessageDeleted
            | Self::UserDeleted
            | Self::ClientMessageConflict
            | Self::ClientWriteConflict => ErrorKind::Conflict,
            Self::ResyncRequired(_) => ErrorKind::Gone,
            Self::Busy { .. }
            | Self::Closed
            | Self::Unavailable(_)
            | Self::AttachmentsUnavailable(_)
            | Self::Undecided(_)
            | Self::SubscriptionLost => ErrorKind::Busy,
            Self::StorageFull(_) => ErrorKind::StorageFull,
            Self::Storage(_)
            | Self::Setup(..)
            | Self::AttachmentsSetup(..)
            | Self::SecretSetup(..)
            | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Returns how long to wait before the same call may succeed; `None` where waiting does not
    /// help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => Some(*retry_after),
            Self::Closed
            | Self::Unavailable(_)
            | Self::AttachmentsUnavailable(_)
            | Self::Undecided(_)
            | Self::SubscriptionLost => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
