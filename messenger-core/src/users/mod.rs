//! People: their public profile, and how they are found.

mod blocks;
mod names;
mod operations;
mod prefs;
mod presence;
pub(crate) mod queries;

pub use self::blocks::{Block, Blocked};
pub use self::names::{DisplayName, Username};
use self::operations::{ChangeProfile, EnsureUser};
pub use self::prefs::{Pref, PrefKey, PrefValue};
pub use self::presence::Presence;
pub(crate) use self::presence::{Reserve, Seen};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::engine::MessengerEngine;
use crate::error::{Invalid, Result};
use crate::events::Change;
use crate::ids::{Position, UserId};
use crate::store::entity::{event, user};
use crate::write::{Batch, ClientWriteId, LogRefs, Operation, Repeatable};

/// The longest text to search for, in characters.
const QUERY_CHARS_MAX: usize = 64;

/// People: the view that [`MessengerEngine::users`] gives.
#[derive(Debug)]
pub struct Users<'a> {
    engine: &'a MessengerEngine,
    once: Option<ClientWriteId>,
}

/// What everybody who is logged in may see of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// The name that they log in with.
    pub username: Username,
    /// The name that is shown.
    pub display_name: DisplayName,
    /// When they were registered.
    pub created_at: Timestamp,
    /// When their account was deleted; then their names are empty.
    pub deleted_at: Option<Timestamp>,
    /// The position of the last change: of two forms, the greater one is newer.
    pub version: Position,
}

/// A user whom the host knows by its own log-in.
#[derive(Clone, Debug)]
pub struct HostUser {
    /// The id: the host's own, if that is a UUID, or one that the host derives from its own.
    pub id: UserId,
    /// A unique name.
    pub username: Username,
    /// The name that is shown.
    pub display_name: DisplayName,
}

impl<'a> Users<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine, once: None }
    }

    /// Returns the view whose next write takes place once under this id, however often the client
    /// repeats it, even if it was undone since.
    ///
    /// Goes with [`change_profile`](Self::change_profile), [`block`](Self::block),
    /// [`unblock`](Self::unblock), [`set_pref`](Self::set_pref) and
    /// [`delete_pref`](Self::delete_pref). Something else under the same id is refused with
    /// [`Error::ClientWriteConflict`](crate::Error::ClientWriteConflict).
    #[must_use]
    pub fn once(self, id: impl Into<Option<ClientWriteId>>) -> Self {
        Self {
            once: id.into(),
            ..self
        }
    }

    pub(crate) fn engine(&self) -> &MessengerEngine {
        self.engine
    }

    /// Runs a write, and returns the position at which what it asks is so.
    async fn write_once<O>(&self, operation: O, actor: &Actor) -> Result<Position>
    where
        O: Repeatable + Operation<Output = ()>,
    {
        let (writer, once) = (self.engine.writer(), self.once.clone());
        let ((), position) = writer.run_once(operation, actor.user_id(), once).await?;
        Ok(position)
    }

    /// Returns the actor's own profile.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`](crate::Error::UserNotFound): the host trusts somebody whom the engine does not know; see
    /// [`ensure`](Self::ensure).
    pub async fn me(&self, actor: &Actor) -> Result<User> {
        queries::user(self.engine.store(), actor.user_id()).await
    }

    /// Shows another name of the actor to everybody, and returns the profile. Whoever shares a small
    /// conversation with them is told.
    ///
    /// # Errors
    ///
    /// - [`Error::UserNotFound`](crate::Error::UserNotFound): as of [`me`](Self::me).
    /// - Those of [`once`](Self::once).
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the name has changed and people are told, or neither.
    pub async fn change_profile(&self, actor: &Actor, display_name: DisplayName) -> Result<User> {
        let change = ChangeProfile {
            me: actor.user_id(),
            display_name,
        };
        self.write_once(change, actor).await?;
        self.me(actor).await
    }

    /// Finds people whose username or display name contains a text, whatever the capitals.
    ///
    /// The text is 1 to 64 characters, each of which stands for itself. The actor is not among
    /// the answers, which are ordered by username and no more than `limit`, 1 to 50.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid): `query` or `limit` is out of bounds.
    pub async fn search(&self, actor: &Actor, query: &str, limit: u32) -> Result<Vec<User>> {
        if !(1..=QUERY_CHARS_MAX).contains(&query.chars().count()) {
            return Err(Invalid::new("query", "must be 1 to 64 characters").into());
        }
        if query.contains('\0') {
            return Err(Invalid::new("query", "must not contain U+0000").into());
        }
        let most = self.engine.limits().search_users_max;
        if !(1..=most).contains(&limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        queries::search(self.engine.store(), actor, query, limit).await
    }

    /// Returns those of the named users whom the actor may look up: themselves and everybody
    /// with whom they share a conversation, ordered by username and then id. Others are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid): there are more than 100 ids.
    pub async fn batch(&self, actor: &Actor, ids: &[UserId]) -> Result<Vec<User>> {
        let most = self.engine.limits().batch_users_max;
        if ids.len() > most {
            return Err(Invalid::new("ids", format!("must be 1 to {most} ids")).into());
        }
        queries::acquainted(self.engine.store(), actor, ids).await
    }

    /// Makes sure that a user whom only the host knows exists with this name; may be repeated.
    ///
    /// The user has no password, so nobody logs in as them here:
    /// [`MessengerEngine::trust`](crate::MessengerEngine::trust) makes the host their log-in.
    /// Called again with another display name, it changes the profile.
    ///
    /// # Errors
    ///
    /// - [`Error::UsernameTaken`](crate::Error::UsernameTaken): somebody else has or had the username.
    /// - [`Error::UserDeleted`](crate::Error::UserDeleted): the account was deleted; make another
    ///   with another id.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the user exists with this name or nothing has changed.
    pub async fn ensure(&self, user: HostUser) -> Result<User> {
        self.engine.writer().run(EnsureUser(user)).await
    }
}

impl User {
    /// Adds a user to a batch.
    pub(crate) fn insert(
        batch: &mut Batch,
        id: UserId,
        username: &Username,
        display_name: &DisplayName,
        password_hash: Option<String>,
    ) -> Self {
        let position = batch.next_position();
        let row = user::Model {
            id: id.as_uuid(),
            username: username.as_str().to_owned(),
            username_key: username.key().to_owned(),
            display_name: display_name.as_str().to_owned(),
            display_name_key: display_name.key(),
            password_hash,
            created_at: batch.now().as_micros(),
            changed_pos: position.get(),
            deleted_at: None,
            last_seen_at: None,
        };
        let user = Self::from(&row);
        batch.insert_user(row);
        let refs = LogRefs {
            user: Some(id),
            actor: Some(id),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::UserChanged, &refs);
        batch.announce(Change::Unseen { position });
        user
    }
}

impl From<&user::Model> for User {
    fn from(row: &user::Model) -> Self {
        Self {
            id: row.id.into(),
            username: Username::stored(&row.username, &row.username_key),
            display_name: DisplayName::stored(&row.display_name),
            created_at: Timestamp::from_micros(row.created_at),
            deleted_at: row.deleted_at.map(Timestamp::from_micros),
            version: Position::stored(row.changed_pos),
        }
    }
}
