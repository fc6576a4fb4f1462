//! A look at a database beside whoever uses it: reads only, and leaves no trace.

mod queries;

use crate::auth::{self, Actor, Session};
use crate::clock::Timestamp;
use crate::error::{Invalid, Result};
use crate::ids::{Position, UserId};
use crate::limits::Limits;
use crate::store::{Look, Target};
use crate::users::{User, Username};

/// The longest text to search for, in characters.
const SEARCH_CHARS_MAX: usize = 64;

/// A look at a database for whoever administers it, made by
/// [`EngineBuilder::inspect`](crate::EngineBuilder::inspect).
///
/// Unlike an engine it changes nothing, not even the history that clients know, so it may be taken
/// while a server runs. It knows no caller: hand nothing of it to anybody but an administrator.
/// [`close`](Self::close) it at the end.
#[derive(Debug)]
pub struct Inspection {
    look: Look,
    page_people_max: u32,
}

/// How much a database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// The name of the last migration.
    pub schema_version: String,
    /// Its size on disk, in bytes; of SQLite, with its log.
    pub database_bytes: u64,
    /// Accounts.
    pub people: u64,
    /// Accounts that were deleted.
    pub people_deleted: u64,
    /// Direct conversations.
    pub direct_conversations: u64,
    /// Groups that were not deleted.
    pub groups: u64,
    /// Messages, deleted ones included.
    pub messages: u64,
    /// Sessions that have not ended.
    pub sessions: u64,
    /// Lines of the change log that are kept.
    pub changes: u64,
    /// The last position of the change log.
    pub position: Position,
}

/// Somebody, as an administrator sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Person {
    /// What everybody sees.
    pub user: User,
    /// Whether they log in with a password here; else the host is their log-in.
    pub has_password: bool,
    /// Their sessions that have not ended.
    pub sessions: u64,
    /// When they were last seen, if they ever were.
    pub last_seen_at: Option<Timestamp>,
}

/// Which people to list.
#[derive(Clone, Debug, Default)]
pub struct PeopleQuery {
    /// Only those whose username or display name contains this, whatever the capitals; 1 to 64
    /// characters.
    pub search: Option<String>,
    /// Only those whose username comes after this one: the last one of the page before.
    pub after: Option<Username>,
    /// No more than this, 1 to [`Limits::page_people_max`].
    pub limit: u32,
}

impl Inspection {
    pub(crate) async fn open(target: &Target, limits: &Limits) -> Result<Self> {
        let look = Look::open(target, limits).await?;
        Ok(Self {
            look,
            page_people_max: limits.page_people_max,
        })
    }

    /// Counts what there is, which reads all of it.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn contents(&self) -> Result<Contents> {
        queries::contents(&self.look).await
    }

    /// Lists people who are not deleted, by username.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid): `search` or `limit` is out of bounds.
    pub async fn people(&self, query: &PeopleQuery) -> Result<Vec<Person>> {
        let length = query.search.as_ref().map(|text| text.chars().count());
        if length.is_some_and(|length| !(1..=SEARCH_CHARS_MAX).contains(&length)) {
            return Err(Invalid::new("search", "must be 1 to 64 characters").into());
        }
        let most = self.page_people_max;
        if !(1..=most).contains(&query.limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        queries::people(&self.look, query).await
    }

    /// Finds somebody by their username, whatever the capitals. Deleted accounts have none.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn find_person(&self, username: &Username) -> Result<Option<Person>> {
        queries::person(&self.look, username).await
    }

    /// Lists the sessions of somebody that have not ended, the newest first.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<Session>> {
        auth::queries::sessions(self.look.db(), &Actor::trusted(user)).await
    }

    /// Ends the look. Where nobody else uses an SQLite file, nothing is left beside it then.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, empty files may stay beside the database, which the next one
    /// who opens it takes up.
    pub async fn close(self) {
        self.look.close().await;
    }
}
